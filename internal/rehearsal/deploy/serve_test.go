package deploy

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/route"
)

// words collects the output of concurrent processes.
type words struct {
	mu   sync.Mutex
	said bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// service runs the deployed code behind the deployed routes.
type service struct {
	url       string
	functions map[string]local.Invoker
	said      *words
}

// serve runs the functions with their environment from the double, behind the routes of the
// double's gateway.
func serve(t *testing.T, d *double, functions map[string]*deployed, routes []routed) *service {
	t.Helper()
	s := &service{said: &words{}}
	invokers := map[string]local.Invoker{}
	for name, f := range functions {
		runtime := local.NewRuntime(f.runtime(d, s.said))
		t.Cleanup(func() { _ = runtime.Close() })
		invokers[name] = runtime
	}
	s.functions = invokers
	var table []route.Route
	for _, r := range routes {
		table = append(table, r.Route)
	}
	gateway, err := local.NewGateway(table, invokers, slog.New(slog.NewTextHandler(s.said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gateway)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// reservation is the part of the API's answer that the test reads.
type reservation struct {
	Reservation struct {
		ID     uuid.UUID
		Status string
	}
}

// send makes a call, checks the status of the answer and decodes the answer.
func send[T any](t *testing.T, s *service, method, path string, body any, want int) (out T) {
	t.Helper()
	var sent io.Reader = http.NoBody
	if body != nil {
		sent = bytes.NewReader(must(json.Marshal(body)))
	}
	request := must(http.NewRequestWithContext(within(t, callLimit), method, s.url+path, sent))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil || response.StatusCode != want {
		t.Fatalf(
			"%s %s = %d %s %v, want %d; the functions' output: %s", method, path, response.StatusCode,
			answer, err, want, s.said,
		)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatalf("%s %s = %s: %v", method, path, answer, err)
	}
	return out
}

// inventory is a product's stock in a warehouse.
type inventory struct {
	product                         uuid.UUID
	WarehouseID                     uuid.UUID
	TotalQuantity, ReservedQuantity int
}

// shelf returns the largest stock row of the catalog.
func (s *service) shelf(t *testing.T) (full inventory) {
	t.Helper()
	for _, p := range send[[]struct {
		ID          uuid.UUID
		Inventories []inventory
	}](t, s, http.MethodGet, "/api/products", nil, http.StatusOK) {
		for _, i := range p.Inventories {
			if i.TotalQuantity > full.TotalQuantity {
				full = i
				full.product = p.ID
			}
		}
	}
	return full
}

// swept is the sweeper's answer.
type swept struct {
	Expired int
	Audit   *struct {
		Violations int
		Unfinished bool
	}
}

// serveStep confirms a hold, lets another expire, and sends the sweeper the rule's event.
func (r *rehearsal) serveStep(t *testing.T) {
	// The database isn't empty: it has the product of the deploy's smoke test.
	if err := demo.Reset(within(t, callLimit), r.database.direct); err != nil {
		t.Fatal(err)
	}
	s := serve(t, r.double, r.functions, r.routes)
	send[map[string]any](t, s, http.MethodGet, "/api/health", nil, http.StatusOK)
	send[map[string]any](t, s, http.MethodGet, "/api/openapi.json", nil, http.StatusOK)
	before := s.shelf(t)
	hold := func(ttl int) uuid.UUID {
		return send[reservation](t, s, http.MethodPost, "/api/reservations", map[string]any{
			"productId": before.product, "warehouseId": before.WarehouseID, "quantity": 2, "ttlSeconds": ttl,
		}, http.StatusCreated).Reservation.ID
	}

	paid := hold(60)
	confirmed := send[reservation](
		t, s, http.MethodPost, "/api/reservations/"+paid.String()+"/confirm", nil, http.StatusOK,
	)
	if confirmed.Reservation.Status != "CONFIRMED" {
		t.Errorf("the confirmed hold is %+v", confirmed)
	}
	left := hold(1)
	ctx := within(t, expiryLimit)
	read := func() reservation {
		path := "/api/reservations/" + left.String()
		return send[reservation](t, s, http.MethodGet, path, nil, http.StatusOK)
	}
	for read().Reservation.Status != "EXPIRED" {
		if ctx.Err() != nil {
			t.Fatalf("a hold of one second hasn't expired after %s", expiryLimit)
		}
	}
	if got := s.shelf(t); got.TotalQuantity != before.TotalQuantity-2 || got.ReservedQuantity != 0 {
		t.Errorf(
			"before the sweep the stock is %+v, want two units less than %+v and none held", got,
			before,
		)
	}
	send[map[string]any](
		t, s, http.MethodPost, "/api/reservations/"+left.String()+"/confirm", nil, http.StatusGone,
	)

	for sweep, want := range []int{1, 0} { // the second finds nothing left
		if got := s.run(t); got.Expired != want || got.Audit == nil || got.Audit.Unfinished ||
			got.Audit.Violations != 0 {
			t.Errorf("sweep %d = %+v %+v, want %d expired and a clean audit", sweep+1, got, got.Audit, want)
		}
	}
	if n := r.database.count(t, "SELECT count(*) FROM reservations WHERE status = 'EXPIRED'"); n != 1 {
		t.Errorf("%d rows have the status EXPIRED, want 1", n)
	}
	r.wantVerified(t)
}

// run sends the sweeper the rule's event of an hour's first minute, in which it also audits.
func (s *service) run(t *testing.T) (out swept) {
	t.Helper()
	answer, err := s.functions["sweep"].Invoke(
		within(t, invokeLimit), local.ScheduledEvent(time.Now().Truncate(time.Hour)),
	)
	if err != nil {
		t.Fatalf("the sweep: %v; its output: %s", err, s.said)
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatalf("the sweep answers %s: %v", answer, err)
	}
	return out
}

// wantVerified checks that TLS is verified: the same function with the same URL, but an authority
// that didn't sign the server's certificate, must answer 503.
func (r *rehearsal) wantVerified(t *testing.T) {
	t.Helper()
	const strangers = secret + "-strangers"
	r.database.keep(t, r.double, strangers, r.database.stranger)
	said := &words{}
	runtime := local.NewRuntime(
		r.functions["health"].runtime(r.double, said, "DATABASE_SECRET="+strangers),
	)
	defer runtime.Close()
	gateway, err := local.NewGateway(
		[]route.Route{{Function: "health", Method: "GET", Path: "/api/health"}},
		map[string]local.Invoker{"health": runtime}, slog.New(slog.DiscardHandler),
	)
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	gateway.ServeHTTP(
		answer,
		httptest.NewRequestWithContext(within(t, callLimit), http.MethodGet, "/api/health", http.NoBody),
	)
	if answer.Code != http.StatusServiceUnavailable || !strings.Contains(said.String(), "x509") {
		t.Errorf(
			"with another authority health answers %d and its log is %s, want 503 for the certificate",
			answer.Code, said,
		)
	}
}
