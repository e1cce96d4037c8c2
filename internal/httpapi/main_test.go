package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/httpapi/apitest"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The settings of the service under test.
const (
	holdTTL = 10 * time.Minute
	maxHold = time.Hour
)

// unreachable is the URL of a database where nothing listens. A request that reaches the database
// answers 503, so any other answer was given before.
const unreachable = "postgres://allo@127.0.0.1:1/allo?sslmode=disable"

// client sends requests to the handlers of all routes and validates each answer by the document.
type client struct {
	t   *testing.T
	api *httpapi.API
	mux *http.ServeMux
	// principal is the caller.
	principal principal.Principal
}

// newClient connects the handlers to a database with a pool of one connection, as a Lambda has.
func newClient(t *testing.T, databaseURL string) client {
	t.Helper()
	return newClientWith(t, newPool(t, databaseURL), io.Discard)
}

func newPool(t *testing.T, databaseURL string) *postgres.Pool {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(databaseURL), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newClientWith(t *testing.T, pool *postgres.Pool, log io.Writer) client {
	t.Helper()
	service := reservation.New(
		pool,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold},
	)
	return newClientOf(t, httpapi.New(service, httpapi.Options{Log: newLog(log)}))
}

func newClientOf(t *testing.T, api *httpapi.API) client {
	t.Helper()
	mux := http.NewServeMux()
	for _, r := range route.API() {
		mux.Handle(r.Key(), api.Function(r.Function))
	}
	return client{t: t, api: api, mux: mux}
}

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// in returns the client for use in another test.
func (c client) in(t *testing.T) client {
	c.t = t
	return c
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
	sent   string // the request, for failure messages
}

// send sends a request. Headers are pairs of a name and a value; a name may occur twice.
func (c client) send(method, path, body string, headers ...string) answer {
	c.t.Helper()
	ctx := principal.With(c.t.Context(), c.principal)
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(ctx)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.mux.ServeHTTP(w, r)
	apitest.Validate(c.t, r, []byte(body), w.Code, w.Header(), w.Body.Bytes())
	return answer{
		w.Code,
		w.Header(),
		w.Body.Bytes(),
		fmt.Sprintf("%s %s %.300s %q", method, path, body, headers),
	}
}

func (c client) get(path string) answer { c.t.Helper(); return c.send("GET", path, "") }

func (c client) post(path, body string, headers ...string) answer {
	c.t.Helper()
	return c.send("POST", path, body, headers...)
}

// problemBody is the body of an error, with the fields that tests look at.
type problemBody struct {
	Code      string
	Detail    string
	Details   map[string][]string
	Shortages []struct {
		ProductID, WarehouseID string
		Requested, Available   int
	}
}

// want fails the test unless the answer has the status and, for an error, the code.
func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	var got string
	if a.status >= http.StatusBadRequest {
		got = decode[problemBody](t, a).Code
	}
	if a.status != status || got != code {
		t.Errorf("%s = %d %s, want %d %s\n%s", a.sent, a.status, got, status, code, a.body)
	}
	return a
}

// wantInvalid fails the test unless the answer is a 400 about this field alone.
func (a answer) wantInvalid(t *testing.T, field string) {
	t.Helper()
	a.want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	details := decode[problemBody](t, a).Details
	if len(details) != 1 || len(details[field]) == 0 {
		t.Errorf("%s = details %v, want %s alone", a.sent, details, field)
	}
}

// wantAccepted fails the test unless the request reached the database, which is unreachable.
func (a answer) wantAccepted(t *testing.T) {
	t.Helper()
	a.want(t, http.StatusServiceUnavailable, "DATABASE_UNAVAILABLE")
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s = %d %q: %v", a.sent, a.status, a.body, err)
	}
	return v
}
