// Package e2e tests the service from the outside: the same cases over three transports to the same
// Lambda handlers, on a real Postgres with the demo catalog.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/httpapi/apitest"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// transport is a way to call the handlers.
type transport string

const (
	inProcess transport = "handlers in process"
	overHTTP  transport = "gateway over HTTP"
	binaries  transport = "built binaries"
)

// eachTransport runs a case over every transport, each on its own deployment.
func eachTransport(t *testing.T, body func(t *testing.T, d *deployment)) {
	t.Parallel()
	for _, tr := range []transport{inProcess, overHTTP, binaries} {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			body(t, deploy(t, tr))
		})
	}
}

// deployment is the service with the demo catalog on its own database, called over one transport.
type deployment struct {
	t         *testing.T
	db        *pgtest.Fixture
	functions *local.Functions
	gateway   *local.Gateway
	url       string // of the gateway over HTTP; empty for the handlers in process
	service   *reservation.Service
}

func deploy(t *testing.T, tr transport) *deployment {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := demo.SeedSmall(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	d := deployOn(t, tr, db.URL)
	d.db = db
	t.Cleanup(func() {
		violations, err := d.service.Audit(context.Background())
		if err != nil || len(violations) > 0 {
			t.Errorf("Audit() = %v, %v, want none", violations, err)
		}
	})
	return d
}

// deployOn starts the service on a database.
func deployOn(t *testing.T, tr transport, databaseURL string) *deployment {
	t.Helper()
	return deployWith(t, tr, config.Config{
		DatabaseURL: databaseURL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		MaxPaymentHold: 24 * time.Hour, MaxUnits: 1000, MaxLines: 100, LogLevel: slog.LevelError,
	})
}

// deployWith starts the service with a pool of one connection, as a Lambda has.
func deployWith(t *testing.T, tr transport, c config.Config) *deployment {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	a, err := app.New(c, log, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	d := &deployment{t: t, service: a.Service}
	if tr == binaries {
		d.functions, err = local.Built(builttest.Functions(t, "e2e"), c.Environ(), 0, t.Output(),
			log)
	} else {
		d.functions, err = local.InProcess(c, 1, log)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.functions.Close(); err != nil {
			t.Error(err)
		}
	})
	if d.gateway, err = local.NewGateway(route.All(), d.functions.HTTP, log); err != nil {
		t.Fatal(err)
	}
	if tr != inProcess {
		server := httptest.NewServer(d.gateway)
		t.Cleanup(server.Close)
		d.url = server.URL
	}
	return d
}

// answer is a response, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// request is a request to send. A body is JSON unless the header says otherwise.
type request struct {
	method, path string
	header       map[string]string
	body         string
}

// send sends a request. If the route is the API's, it checks the answer against the OpenAPI
// document.
func (d *deployment) send(q request) answer {
	d.t.Helper()
	a := d.sendRaw(q)
	if strings.HasPrefix(q.path, "/api/") && a.status != http.StatusNotFound {
		apitest.Validate(d.t, d.newRequest(q), []byte(q.body), a.status, a.header, a.body)
	}
	if a.status >= 500 {
		d.t.Errorf("%s %s = %d %s, want no 5xx", q.method, q.path, a.status, a.body)
	}
	return a
}

func (d *deployment) newRequest(q request) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), q.method,
		"http://shop.example"+q.path, strings.NewReader(q.body))
	if d.url != "" {
		r, err = http.NewRequestWithContext(context.Background(), q.method, d.url+q.path,
			strings.NewReader(q.body))
	}
	if err != nil {
		d.t.Fatal(err)
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	return r
}

func (d *deployment) sendRaw(q request) answer {
	d.t.Helper()
	r := d.newRequest(q)
	if d.url == "" {
		recorder := httptest.NewRecorder()
		d.gateway.ServeHTTP(recorder, r)
		return answer{recorder.Code, recorder.Header(), recorder.Body.Bytes()}
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Errorf("%s %s: %v", q.method, q.path, err)
		return answer{}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Errorf("%s %s: %v", q.method, q.path, err)
	}
	return answer{response.StatusCode, response.Header, body}
}

func (d *deployment) get(path string) answer {
	d.t.Helper()
	return d.send(request{method: "GET", path: path})
}

func (d *deployment) post(path, body string) answer {
	d.t.Helper()
	return d.send(request{method: "POST", path: path, body: body})
}

// want fails the test unless the answer has this status and this problem code.
func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	var problem struct{ Code string }
	_ = json.Unmarshal(a.body, &problem) // a success has no code, and need not be an object
	if a.status != status || problem.Code != code {
		t.Fatalf("answer = %d %s, want %d %q", a.status, a.body, status, code)
	}
	return a
}

// hold is the reservation of an answer.
type hold struct {
	ID, Status             string
	Quantity               *int
	ProductID, WarehouseID *string
	Items                  []struct {
		ProductID, WarehouseID string
		Quantity               int
	}
	ExpiresAt, CreatedAt, UpdatedAt    time.Time
	ConfirmedAt, ReleasedAt, ExpiredAt *time.Time
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(&v); err != nil {
		t.Fatalf("decode %s: %v", a.body, err)
	}
	return v
}

func (a answer) hold(t *testing.T) hold {
	t.Helper()
	return decode[struct{ Reservation hold }](t, a).Reservation
}

// killDayAgo moves the times of a hold back, so that it died a day ago.
func (d *deployment) killDayAgo(h hold) {
	d.t.Helper()
	d.db.KillAgo(24*time.Hour, uuid.MustParse(h.ID))
}
