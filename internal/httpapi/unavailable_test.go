package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// everyRoute sends each route one request that needs the database.
func (c client) everyRoute() []answer {
	c.t.Helper()
	return []answer{
		c.get("/api/products"),
		c.get("/api/products/" + hold),
		c.get("/api/products?sku=CM-300"),
		c.get("/api/warehouses"),
		c.post(putProducts, `{"items":[{"sku":"A"}]}`, "Idempotency-Key", "k"),
		c.post(putWarehouses, "code\nA\n", "Content-Type", "text/csv"),
		c.post(movementsPath, `{"source":"s","reference":"r","lines":[{"sku":"A","warehouse":"W",
"delta":1}]}`),
		c.post(movementsPath+"?source=s&reference=r&together=true", "sku,warehouse,delta\nA,W,1\n",
			"Content-Type", "text/csv", "Idempotency-Key", "k"),
		c.get(movementsPath + "?source=s&reference=r"),
		c.get(movementsPath + "?productId=" + hold + "&warehouseId=" + hold),
		c.post("/api/reservations", lineBody("1", "")),
		c.post("/api/reservations", cartBody(differentLines(2)...)),
		c.get("/api/reservations"),
		c.get("/api/reservations?status=PENDING"),
		c.get("/api/stats"),
		c.get("/api/stock"),
		c.get("/api/events"),
		c.get("/api/reservations/" + hold + "/history"),
		c.get("/api/reservations/" + hold + "/payments"),
		c.get("/api/reservations/" + hold + "/returns"),
		c.get("/api/reservations/" + hold),
		c.post("/api/reservations/"+hold+"/confirm", "", "Idempotency-Key", "k"),
		c.post("/api/reservations/"+hold+"/release", ""),
		c.post("/api/reservations/"+hold+"/extend", `{"ttlSeconds":60}`),
		c.post("/api/reservations/"+hold+"/returns", returnBody("r", lineBody("1", ""))),
		c.post("/api/reservations", ordered(lineBody("1", ""), `"owner":"ann"`)),
		c.post("/api/reservations/"+hold+"/confirm", confirmBody("p")),
		c.post("/api/reservations/"+hold+"/payment", startBody("p")),
		c.post("/api/reservations/"+hold+"/payment/failed", failBody("p")),
		c.post("/api/reservations/"+hold+"/cancel", ""),
		c.post("/api/owners/erase", `{"owner":"ann"}`),
		c.get("/api/reservations?owner=ann"),
		c.get("/api/reservations?updatedSince=2026-03-01T10:00:00Z"),
		c.get("/api/health"),
	}
}

func wantUnavailable(t *testing.T, answers ...answer) {
	t.Helper()
	for _, a := range answers {
		a.want(t, http.StatusServiceUnavailable, "DATABASE_UNAVAILABLE")
		if got := a.header.Get("Retry-After"); got != "1" {
			t.Errorf("%s: Retry-After = %q, want 1", a.sent, got)
		}
	}
}

func TestNothingListensAtTheDatabase(t *testing.T) {
	t.Parallel()

	wantUnavailable(t, newClient(t, unreachable).everyRoute()...)
}

func TestTheDatabaseDoesNotExist(t *testing.T) {
	t.Parallel()

	wantUnavailable(
		t,
		newClient(
			t,
			strings.Replace(pgtest.New(t).URL, "allo_test_", "allo_nowhere_", 1),
		).everyRoute()...)
}

func TestTheServerHangsUp(t *testing.T) {
	t.Parallel()

	address := listen(t, func(conn net.Conn) { conn.Close() })

	wantUnavailable(
		t,
		newClient(t, "postgres://allo@"+address+"/allo?sslmode=disable").everyRoute()...)
}

// A frozen host or a full accept queue looks like this: the server accepts and stays silent.
func TestTheServerStaysSilent(t *testing.T) {
	t.Parallel()

	address := listen(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	c := newClient(t, "postgres://allo@"+address+"/allo?sslmode=disable")
	start := time.Now()

	wantUnavailable(t, c.post("/api/reservations", lineBody("1", "")))

	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("the answer took %s, want less than a function has", took)
	}
}

// listen serves every connection until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { conn.Close() })
			conns.Go(func() {
				defer stop()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return listener.Addr().String()
}

func TestThePoolIsExhausted(t *testing.T) {
	t.Parallel()

	pool := newPool(t, pgtest.New(t).URL)
	c := newClientWith(t, pool, io.Discard)
	// The platform's deadline is shorter than ours here, as on a function with a lower timeout.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r := httptest.NewRequest("GET", "/api/products", nil).WithContext(ctx)
	w := httptest.NewRecorder()

	err := pool.Transaction(t.Context(), pgx.TxOptions{}, func(pgx.Tx) error {
		c.mux.ServeHTTP(w, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, answer{w.Code, w.Header(), w.Body.Bytes(), "GET /api/products"})
}

// panicky has the options of an API without a service, whose handlers panic.
func panicky(log io.Writer) httpapi.Options {
	return httpapi.Options{
		Log:       newLog(log),
		RequestID: func(context.Context) string { return "the request's id" },
	}
}

func TestAPanicAnswersAGeneric500AndLogsItsStack(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	r := httptest.NewRequest("GET", "/api/health", nil)
	w := httptest.NewRecorder()

	httpapi.New(nil, panicky(&log)).Function("health").ServeHTTP(w, r)

	a := answer{w.Code, w.Header(), w.Body.Bytes(), "GET /api/health"}
	a.want(t, http.StatusInternalServerError, "INTERNAL")
	if want := "Something went wrong on our side."; decode[problemBody](t, a).Detail != want ||
		bytes.Contains(a.body, []byte("nil")) {
		t.Errorf("body = %s, want %q and nothing of the cause", a.body, want)
	}
	var entry struct {
		Level, Msg, Route, RequestID, Error string
		Status                              int
	}
	if err := json.Unmarshal(log.Bytes(), &entry); err != nil {
		t.Fatalf("the log is %q: %v", log.String(), err)
	}
	if entry.Level != "ERROR" || entry.Status != 500 || entry.Route != "GET /api/health" ||
		entry.RequestID != "the request's id" {
		t.Errorf("the log's line is %+v, want an error with the route and the id", entry)
	}
	if !strings.Contains(entry.Error, "nil pointer") ||
		!strings.Contains(entry.Error, "catalog.go") {
		t.Errorf("the log's error is %q, want the panic and its stack", entry.Error)
	}
}

func TestTheLogHasOneLineARequestAndNoTextOfTheClient(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	c := newClientWith(t, newPool(t, unreachable), &log)

	c.post("/api/reservations", lineBody("1", `,"secret":1`), "Idempotency-Key", "secret").
		want(t, 400, "VALIDATION_FAILED")
	c.get("/api/reservations/secret").want(t, 404, "RESERVATION_NOT_FOUND")
	c.get("/api/products?cursor=secret").want(t, 400, "VALIDATION_FAILED")

	if got := strings.Count(
		log.String(),
		"\n",
	); got != 3 ||
		strings.Contains(log.String(), "secret") {
		t.Errorf("the log of three requests is\n%s", log.String())
	}
}

func TestEveryProblemHasTheSevenFields(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	var log bytes.Buffer
	bug := httptest.NewRecorder()
	httpapi.New(nil, panicky(&log)).
		Function("health").
		ServeHTTP(bug, httptest.NewRequest("GET", "/api/health", nil))
	seven := []string{"code", "detail", "error", "requestId", "status", "title", "type"}

	for _, a := range []answer{
		c.get("/api/reservations/x"),
		c.get("/api/health"),
		c.post("/api/reservations", strings.Repeat(" ", maxBody+1)),
		c.post("/api/reservations", "{}", "Content-Type", "text/plain"),
		{bug.Code, bug.Header(), bug.Body.Bytes(), "a bug"},
	} {
		if diff := cmp.Diff(
			seven,
			slices.Sorted(maps.Keys(decode[map[string]any](t, a))),
		); diff != "" {
			t.Errorf("%s: the fields, want (-) and got (+):\n%s", a.sent, diff)
		}
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control = %q, want no-store", a.sent, got)
		}
	}
	invalid := c.post("/api/reservations", "{}")
	if diff := cmp.Diff(
		append([]string{"code", "detail", "details"}, seven[2:]...),
		slices.Sorted(maps.Keys(decode[map[string]any](t, invalid))),
	); diff != "" {
		t.Errorf("%s: the fields, want (-) and got (+):\n%s", invalid.sent, diff)
	}
}

func TestTheRequestIDIsThePlatformsOrRandom(t *testing.T) {
	t.Parallel()

	id := func(options httpapi.Options) string {
		options.Log = newLog(io.Discard)
		pool := newPool(t, unreachable)
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/api/health", nil)
		r.Header.Set("X-Request-Id", "the caller's")
		httpapi.New(reservation.New(pool, reservation.Options{}), options).
			Function("health").
			ServeHTTP(w, r)
		return w.Header().Get("X-Request-Id")
	}

	if got := id(panicky(io.Discard)); got != "the request's id" {
		t.Errorf("X-Request-Id = %q, want the platform's", got)
	}
	one, two := id(
		httpapi.Options{},
	), id(
		httpapi.Options{RequestID: func(context.Context) string { return "" }},
	)
	if one == "" || two == "" || one == two || one == "the caller's" {
		t.Errorf("X-Request-Id = %q and %q, want two fresh ones", one, two)
	}
}
