package demo

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

// patience bounds every wait, on a busy machine too.
const patience = 60 * time.Second

// shop is the service with the demo's catalog and its server.
type shop struct {
	t      *testing.T
	db     *pgtest.Fixture
	url    string
	server *Server
	// before may answer in the gateway's place. It reports whether it did.
	before atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, db: pgtest.NewFixture(t, pgtest.New(t))}
	if _, err := SeedEmpty(t.Context(), s.db.DirectURL); err != nil {
		t.Fatal(err)
	}
	c := config.Config{
		DatabaseURL: s.db.URL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		MaxPaymentHold: 24 * time.Hour, MaxUnits: 1000, MaxLines: 100,
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	functions, err := local.InProcess(c, 4, log)
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := local.NewGateway(route.All(), functions.HTTP, log)
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(c, log, 1)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(nil)
	s.url = "http://" + web.Listener.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	s.server = NewServer(ctx, Options{URL: s.url, Audit: a.Service.Audit, Log: log})
	next := s.server.Before(gateway)
	web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before := s.before.Load(); before == nil || !(*before)(w, r) {
			next.ServeHTTP(w, r)
		}
	})
	web.Start()
	t.Cleanup(func() {
		stop()
		s.server.Wait()
		web.Close()
		a.Close()
		if err := functions.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// page is what the tests read of an answer.
type page struct {
	Status      int
	Code        string
	Outcome     string
	Reservation struct {
		ID, Status string
		Payment    *struct{ Reference string }
		Replaces   *string
	}
	PaymentReference string
	Shortages        []struct{ Requested, Available int }
	Added            int
	saleState
}

// post sends a request as a page of the shop does, or as a page of another site.
func (s *shop) post(path, body string, origin ...string) (p page) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path,
		strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", append(origin, s.url)[0])
	return s.send(r)
}

func (s *shop) get(path string) page {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.send(r)
}

func (s *shop) send(r *http.Request) (p page) {
	s.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if err != nil {
		s.t.Fatalf("%s %s = %d %q, %v", r.Method, r.URL.Path, response.StatusCode, body, err)
	}
	p.Status = response.StatusCode
	return p
}

// The only mug in Los Angeles.
const lastMug = `{"productId":"0192d000-0000-7000-8000-000000000103",` +
	`"warehouseId":"0192d000-0000-7000-8000-000000000003","quantity":1}`

// hold takes the last mug.
func (s *shop) hold() string {
	s.t.Helper()
	made := s.post("/api/reservations", lastMug)
	if made.Status != http.StatusCreated {
		s.t.Fatalf("reserving the last mug = %d %s, want 201", made.Status, made.Code)
	}
	return made.Reservation.ID
}

func (s *shop) pay(hold, payment, step string) page {
	s.t.Helper()
	return s.post("/demo/payments", `{"reservationId":"`+hold+`","paymentReference":"`+payment+
		`","step":"`+step+`"}`)
}

// lapse lets a hold end while its money is on the way.
func (s *shop) lapse(hold, payment string) {
	s.t.Helper()
	if p := s.pay(hold, payment, stepStart); p.Status != http.StatusOK ||
		p.Reservation.Payment == nil || p.Reservation.Payment.Reference != payment {
		s.t.Fatalf("START = %+v, want the payment under way", p)
	}
	if p := s.pay(hold, payment, stepLapse); p.Status != http.StatusOK {
		s.t.Fatalf("LAPSE = %d %s, want 200", p.Status, p.Code)
	}
	s.until(func() bool { return s.get("/api/reservations/"+hold).Reservation.Status == "EXPIRED" })
}

func (s *shop) until(holds func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			s.t.Fatalf("the condition doesn't hold after %v", patience)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestEachWayToPayIsSeen(t *testing.T) {
	t.Parallel()
	s := newShop(t)

	hold := s.hold()
	s.pay(hold, "p1", stepStart)
	if p := s.pay(hold, "p1", stepFail); p.Status != http.StatusOK || p.Reservation.Payment != nil ||
		p.Reservation.Status != "PENDING" {
		t.Errorf("FAIL = %+v, want the hold to go on", p)
	}
	s.lapse(hold, "p2")
	came := s.pay(hold, "p2", stepPay)
	if came.Outcome != "REACQUIRED" || came.Reservation.Status != "CONFIRMED" ||
		came.Reservation.Replaces == nil || *came.Reservation.Replaces != hold {
		t.Errorf("money that came late = %+v, want a successor", came)
	}
	if p := s.pay(came.Reservation.ID, "p3", stepPay); p.Status != http.StatusConflict ||
		p.Code != "ALREADY_PAID" || p.PaymentReference != "p2" {
		t.Errorf("a second payment = %+v, want ALREADY_PAID by p2", p)
	}

	s.post("/api/stock/movements", `{"source":"test","reference":"one more","lines":[{"sku":"CM-300",`+
		`"warehouse":"LA","delta":1}]}`)
	hold = s.hold()
	s.lapse(hold, "p4")
	s.hold() // somebody is faster
	if p := s.pay(hold, "p4", stepPay); p.Status != http.StatusConflict ||
		p.Code != "PAYMENT_LOST" || len(p.Shortages) != 1 {
		t.Errorf("money for a mug that is gone = %+v, want PAYMENT_LOST", p)
	}
}

func TestTheDemoRefusesWhatItsPagesDontSend(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	hold := s.hold()
	start := `{"reservationId":"` + hold + `","paymentReference":"p","step":"START"}`
	for _, c := range []struct {
		path, body string
		status     int
		code       string
	}{
		{"/demo/payments", "", 400, "VALIDATION_FAILED"},
		{"/demo/payments", "[]", 400, "VALIDATION_FAILED"},
		{"/demo/payments", start + "{}", 400, "VALIDATION_FAILED"},
		{"/demo/payments", strings.Replace(start, "START", "CANCEL", 1), 400, "VALIDATION_FAILED"},
		{"/demo/payments", strings.Replace(start, hold, "../x", 1), 400, "VALIDATION_FAILED"},
		{"/demo/payments", strings.Replace(start, `"p"`, `"p","more":1`, 1), 400, "VALIDATION_FAILED"},
		{"/demo/payments", strings.Replace(start, `"p"`, `""`, 1), 400, "VALIDATION_FAILED"},
		{
			"/demo/payments", strings.Replace(start, `"p"`, `"`+strings.Repeat("p", maxBody)+`"`, 1), 413,
			"BODY_TOO_LARGE",
		},
		{
			"/demo/payments", strings.Replace(start, hold, uuid.NewString(), 1), 404,
			"RESERVATION_NOT_FOUND",
		},
		{"/demo/sale", `{"productId":"x"}`, 400, "VALIDATION_FAILED"},
		{"/demo/sale", `{"productId":"` + uuid.NewString() + `"}`, 404, "PRODUCT_NOT_FOUND"},
		{"/demo/nothing", "{}", 404, "NOT_FOUND"},
	} {
		if p := s.post(c.path, c.body); p.Status != c.status || p.Code != c.code {
			t.Errorf("POST %s %.90s = %d %s, want %d %s", c.path, c.body, p.Status, p.Code, c.status,
				c.code)
		}
	}
	if p := s.post("/demo/payments", start, "https://evil.example"); p.Status != 403 ||
		p.Code != "CROSS_ORIGIN" {
		t.Errorf("another site's POST = %d %s, want 403", p.Status, p.Code)
	}
	if p := s.get("/api/reservations/" + hold).Reservation; p.Payment != nil {
		t.Errorf("a payment of %+v is under way, want none", p)
	}
	if p := s.post("/demo/payments", start); p.Status != 200 { // the control
		t.Errorf("the page's own POST = %d %s, want 200", p.Status, p.Code)
	}
}
