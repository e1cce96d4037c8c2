package httpapi_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/pgtest"
)

// The answer needs no database. It is the same for everybody, so a cache may keep it for a minute.
func TestAPageLearnsWhereTheLiveStockIs(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		socket, endpoint, want string
		status                 int
	}{
		"a channel": {
			"wss://live.example.com/event/realtime", "https://api.example.com",
			`{"url":"wss://live.example.com/event/realtime","protocol":"aws-appsync-event-ws",` +
				`"channel":"/stock/all","holdsChannel":"/holds/{id}",` +
				`"authorization":{"host":"api.example.com","Authorization":"anyone"}}`,
			http.StatusOK,
		},
		"one machine": {
			"ws://127.0.0.1:3000/event/realtime", "http://127.0.0.1:3000",
			`{"url":"ws://127.0.0.1:3000/event/realtime","protocol":"aws-appsync-event-ws",` +
				`"channel":"/stock/all","holdsChannel":"/holds/{id}",` +
				`"authorization":{"host":"127.0.0.1:3000","Authorization":"anyone"}}`,
			http.StatusOK,
		},
		"none":    {"", "", "", http.StatusNoContent},
		"no host": {"wss://live.example.com/event/realtime", "", "", http.StatusNoContent},
	} {
		api := httpapi.New(nil, httpapi.Options{
			Log: slog.New(slog.DiscardHandler), Live: httpapi.LiveOf(c.socket, c.endpoint),
		})
		w := httptest.NewRecorder()
		api.Function("live").ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/live", http.NoBody))
		age := w.Header().Get("Cache-Control")
		if w.Code != c.status || w.Body.String() != c.want || age != "public, max-age=60" {
			t.Errorf("%s: the answer is %d %s for %q, want %d %s", name, w.Code, w.Body, age, c.status,
				c.want)
		}
	}
}

// The catalog says which tick its stock has seen. The number is no part of the ETag: a copy with
// the same stock stays current, and the 304 tells the new number.
func TestTheCatalogSaysHowNewItsStockIs(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	paths := []string{
		"/api/products", "/api/products?limit=1", "/api/products?sku=CM-300",
		"/api/products/" + s.mug.String(),
	}
	for _, path := range paths {
		if got := s.get(path).want(t, http.StatusOK, "").header.Get("Stock-As-Of"); got != "0" {
			t.Errorf("%s says %q before the first tick, want 0", path, got)
		}
	}
	s.db.Exec("SELECT take_tick()")
	for _, path := range paths {
		whole := s.get(path).want(t, http.StatusOK, "")
		if got := whole.header.Get("Stock-As-Of"); got != "1" {
			t.Errorf("%s says %q after the first tick, want 1", path, got)
		}
		s.db.Exec("INSERT INTO ticks SELECT max(n) + 1, now(), pg_current_snapshot() FROM ticks")
		last := pgtest.QueryOne[string](s.db, "SELECT max(n)::text FROM ticks")
		a := s.send("GET", path, "", "If-None-Match", whole.header.Get("ETag")).
			want(t, http.StatusNotModified, "")
		if got := a.header.Get("Stock-As-Of"); got != last {
			t.Errorf("the 304 of %s says %q, want %s", path, got, last)
		}
		s.db.Exec("DELETE FROM ticks WHERE n > 1")
	}
	none := s.get("/api/products?sku=none").want(t, 200, "")
	if got := none.header.Values("Stock-As-Of"); got != nil {
		t.Errorf("an answer without a product says %v", got)
	}
}

// The number costs the catalog a few blocks, however many ticks there are.
func TestTheNumberOfTheTickCostsFewBlocks(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.Exec(`
INSERT INTO ticks SELECT n, now(), '1:1:' FROM generate_series(1, 100000) n`)
	s.db.Exec("ANALYZE ticks")
	const plain = "SELECT product_id FROM list_catalog('', $1, NULL, 50, 5000, 1000000)"
	nobody := "00000000-0000-0000-0000-000000000000"
	without, _ := s.db.Explain(plain, nobody)
	with, _ := s.db.Explain(strings.Replace(plain, " FROM", ", (SELECT last_tick()) FROM", 1), nobody)
	if with-without > 4 {
		t.Errorf("the catalog reads %d blocks, and %d with the number", without, with)
	}
	t.Logf("%d blocks, and %d with the number", without, with)
}
