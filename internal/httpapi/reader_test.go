package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

// readShop is a shop on a server with a standby that stands still. What happened since then is on
// the server alone: a product, its stock, a warehouse, a hold, and changes of older ones.
type readShop struct {
	stockedClient
	followed *pgtest.Fixture
	standby  *pgserver.Server
	// old, paid and sold are holds from before the standby stood still, fresh is one from after, and
	// freshProduct is a product from after.
	old, paid, sold, fresh, freshProduct string
}

func newReadShop(t *testing.T) readShop {
	t.Helper()
	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	standby, followed := pgtest.NewStandby(t, primary, db, u.Host)
	s := readShop{
		stockedClient: stockedClient{client: newClient(t, db.URL), db: pgtest.NewFixture(t, db)},
		followed:      pgtest.NewFixture(t, followed), standby: standby,
	}
	s.mug, s.east = s.db.NamedProduct("Mug", "CM-300"), s.db.NamedWarehouse("East")
	s.db.Stock(s.mug, s.east, 10)
	s.old = s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.paid = s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.sold = s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(s.sold+"/confirm", "").want(t, http.StatusOK, "")
	s.tick()
	written := pgtest.QueryOne[string](s.db, "SELECT pg_current_wal_insert_lsn()::text")
	s.followed.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
	s.followed.Exec("SELECT pg_wal_replay_pause()")
	s.followed.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")

	product, warehouse := s.db.NamedProduct("Fresh", "FRESH-1"), s.db.CodedWarehouse("FRESH-W", "New")
	s.freshProduct = "/api/products/" + product.String()
	s.post("/api/catalog/products", `{"items":[{"sku":"CM-300","name":"Fresh mug"}]}`).
		want(t, http.StatusOK, "")
	s.post("/api/stock/movements", fmt.Sprintf(
		`{"source":"erp","reference":"fresh","lines":[{"productId":%q,"warehouseId":%q,"delta":77}]}`,
		product, warehouse)).want(t, http.StatusOK, "")
	s.post(s.old+"/release", "").want(t, http.StatusOK, "")
	s.post(s.paid+"/payment", `{"paymentReference":"pay-fresh","ttlSeconds":600}`).
		want(t, http.StatusOK, "")
	s.post(s.sold+"/returns", returnBody("back-fresh", returnLine(s.mug, s.east, 1, ""))).
		want(t, http.StatusOK, "")
	s.fresh = s.reserve(t, reserveBody(product, warehouse, 7))
	s.tick()
	return s
}

// reads maps each route that reads on the reader, as a path, to a text that only its answer by the
// server has.
func (s readShop) reads() map[string]string {
	id := strings.TrimPrefix(s.fresh, "/api/reservations/")
	return map[string]string{
		"/api/products":                                       "FRESH-1",
		"/api/products?sku=FRESH-1":                           "FRESH-1",
		"/api/products?q=fresh":                               "FRESH-1",
		"/api/products/" + s.mug.String():                     "Fresh mug",
		"/api/warehouses":                                     "FRESH-W",
		"/api/reservations":                                   id,
		"/api/reservations?updatedSince=2020-01-01T00:00:00Z": id,
		"/api/stock":                                          "FRESH-1",
		"/api/stock?q=fresh":                                  "FRESH-1",
		"/api/stock/movements?source=erp&reference=fresh":     "fresh",
		s.old + "/history":                                    "released",
		s.paid + "/payments":                                  "pay-fresh",
		s.sold + "/returns":                                   "back-fresh",
		"/api/stats":                                          `"liveUnits":8`,
		"/api/events":                                         id,
	}
}

// by returns a client of the same routes whose service has a reader at a URL, and the reasons for
// which it didn't answer.
func (s readShop) by(t *testing.T, url string, maxLag time.Duration) (client, *[]string) {
	t.Helper()
	reasons := &[]string{}
	reader, err := postgres.OpenReader(postgres.URL(url), 1, postgres.ReaderOptions{
		MaxLag:     maxLag,
		OnFallback: func(why postgres.Fallback, _ error) { *reasons = append(*reasons, string(why)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	_ = reader.Connect(t.Context()) // one that is away stays away; a slow one must not look like it
	service := reservation.New(newPool(t, s.db.URL),
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: reader})
	return newClientOf(t, httpapi.New(service, httpapi.Options{Log: newLog(io.Discard)})), reasons
}

func TestEachReadGoesToTheReader(t *testing.T) {
	t.Parallel()

	s := newReadShop(t)
	patient, reasons := s.by(t, s.followed.DirectURL, time.Hour)
	for path, mark := range s.reads() {
		a := patient.get(path).want(t, http.StatusOK, "")
		if strings.Contains(string(a.body), mark) {
			t.Errorf("%s has %s, which the reader doesn't have: %s", path, mark, a.body)
		}
		a = s.get(path).want(t, http.StatusOK, "")
		if !strings.Contains(string(a.body), mark) {
			t.Errorf("%s on the writer lacks %s: the mark proves nothing: %s", path, mark, a.body)
		}
		isOpen := strings.HasPrefix(path, "/api/products") || path == "/api/warehouses"
		a = patient.send("GET", path, "", "Cache-Control", "max-age=0, No-Cache")
		if strings.Contains(string(a.body), mark) == isOpen {
			t.Errorf("%s with no-cache has %s: %t, want %t", path, mark, isOpen, !isOpen)
		}
	}
	if len(*reasons) != 0 {
		t.Errorf("reads fell back because of %v", *reasons)
	}
	// What its caller knows by an id isn't missing because the reader is behind.
	patient.get(s.freshProduct).want(t, http.StatusOK, "")
	patient.get(s.fresh+"/history").want(t, http.StatusOK, "")
	patient.get(s.fresh+"/payments").want(t, http.StatusOK, "")
	patient.get(s.fresh+"/returns").want(t, http.StatusOK, "")
	patient.get(s.fresh).want(t, http.StatusOK, "")
	patient.get("/api/products/"+uuid.NewString()).want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
}

func TestEachReadFallsBackToTheWriter(t *testing.T) {
	t.Parallel()

	s := newReadShop(t)
	s.followed.WaitUntil("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
	s.followed.WaitUntil(
		"SELECT clock_timestamp() - pg_last_xact_replay_timestamp() > interval '20 ms'")
	check := func(reason string, c client, reasons *[]string) {
		t.Helper()
		for path, mark := range s.reads() {
			*reasons = nil
			a := c.get(path).want(t, http.StatusOK, "")
			if !strings.Contains(string(a.body), mark) || !slices.Contains(*reasons, reason) {
				t.Errorf("%s, while the reader is %s because of %v, lacks %s: %s", path, reason, *reasons,
					mark, a.body)
			}
		}
	}
	hasty, reasons := s.by(t, s.followed.DirectURL, 10*time.Millisecond)
	check("lagging", hasty, reasons)
	if err := s.standby.Stop(); err != nil {
		t.Fatal(err)
	}
	patient, reasons := s.by(t, s.followed.DirectURL, time.Hour)
	check("unreachable", patient, reasons)
}

// A release that a migration hasn't brought to the reader yet asks the writer.
func TestAReadThatTheReadersSchemaLacksFallsBack(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	reader := pgtest.NewFixture(t, pgtest.New(t))
	reader.Exec("DROP FUNCTION last_tick")
	c, reasons := readShop{stockedClient: s}.by(t, reader.DirectURL, time.Hour)
	a := c.get("/api/products").want(t, http.StatusOK, "")
	if !strings.Contains(string(a.body), "CM-300") || !slices.Equal(*reasons, []string{"schema"}) {
		t.Errorf("the catalog, while the reader lacks a routine, fell back because of %v: %s", *reasons,
			a.body)
	}
}

// Every GET is read on the reader, or is named here with a reason.
func TestEachGetIsOnTheReaderOrStaysOnTheWriter(t *testing.T) {
	t.Parallel()

	onWriter := map[string]string{
		"/api/reservations/{id}": "a shopper reads it just after the reserve or the payment",
		"/api/live":              "it reads no database",
		"/api/health":            "it tells whether one can reserve",
	}
	const hold = "/api/reservations/{id}"
	shop := readShop{old: hold, paid: hold, sold: hold}
	read := map[string]bool{}
	for path := range shop.reads() {
		path, _, _ = strings.Cut(path, "?")
		read[strings.Replace(path, uuid.Nil.String(), "{id}", 1)] = true
	}
	for _, r := range route.API() {
		if r.Method == http.MethodGet && read[r.Path] == (onWriter[r.Path] != "") {
			t.Errorf("%s is read on the reader: %t, on the writer because %q", r.Path, read[r.Path],
				onWriter[r.Path])
		}
	}
}
