package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

// stockedClient is a client of a service with its own small catalog: a Mug and a Lamp, with ten
// units each in East and one in West.
type stockedClient struct {
	client
	db         *pgtest.Fixture
	mug, lamp  uuid.UUID
	east, west uuid.UUID
}

func newStockedClient(t *testing.T) stockedClient {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.New(t))
	s := stockedClient{
		client: newClient(t, db.URL), db: db,
		mug: db.NamedProduct("Mug", "CM-300"), lamp: db.NamedProduct("Lamp", "LA-400"),
		east: db.NamedWarehouse("East"), west: db.NamedWarehouse("West"),
	}
	for _, product := range []uuid.UUID{s.mug, s.lamp} {
		db.Stock(product, s.east, 10)
		db.Stock(product, s.west, 1)
	}
	return s
}

// kill makes the hold at a path of the API die a second ago.
func (s stockedClient) kill(path string) {
	s.t.Helper()
	s.db.Kill(uuid.MustParse(strings.TrimPrefix(path, "/api/reservations/")))
}

// reserveBody is the body of a reserve of one line.
func reserveBody(product, warehouse uuid.UUID, quantity int) string {
	return fmt.Sprintf(
		`{"productId":%q,"warehouseId":%q,"quantity":%d}`,
		product,
		warehouse,
		quantity,
	)
}

// held is a reservation of the contract. Its pointers are the fields that may be null.
type held struct {
	ID                     string
	Status                 string
	Quantity               *int
	ProductID, WarehouseID *uuid.UUID
	Items                  []item

	ExpiresAt, CreatedAt, UpdatedAt    time.Time
	ConfirmedAt, ReleasedAt, ExpiredAt *time.Time
}

type item struct {
	ProductID, WarehouseID uuid.UUID
	Quantity               int
}

func (a answer) reservation(t *testing.T) held {
	t.Helper()
	return decode[struct{ Reservation held }](t, a).Reservation
}

// reserve makes the hold of a body and returns the hold's path.
func (s stockedClient) reserve(t *testing.T, body string) string {
	t.Helper()
	return s.post("/api/reservations", body).want(t, http.StatusCreated, "").header.Get("Location")
}

func TestReserveOneLine(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)

	a := s.post("/api/reservations", reserveBody(s.mug, s.east, 2)).want(t, http.StatusCreated, "")

	r := a.reservation(t)
	if got, want := a.header.Get("Location"), "/api/reservations/"+r.ID; got != want {
		t.Errorf("Location = %q, want %q", got, want)
	}
	two := 2
	want := held{
		ID:          r.ID,
		Status:      "PENDING",
		Quantity:    &two,
		ProductID:   &s.mug,
		WarehouseID: &s.east,
		Items:       []item{{s.mug, s.east, 2}},
		CreatedAt:   r.CreatedAt,
		UpdatedAt:   r.CreatedAt,
		ExpiresAt:   r.CreatedAt.Add(holdTTL),
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("reservation, want (-) and got (+):\n%s", diff)
	}
}

func TestReserveACart(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := fmt.Sprintf(
		`{"items":[%s,%s,%s],"ttlSeconds":60}`,
		reserveBody(s.mug, s.east, 2),
		reserveBody(s.lamp, s.west, 1),
		reserveBody(s.mug, s.east, 3),
	)

	r := s.post("/api/reservations", body).want(t, http.StatusCreated, "").reservation(t)

	if r.Quantity != nil || r.ProductID != nil || r.WarehouseID != nil {
		t.Errorf(
			"quantity, productId, warehouseId = %v, %v, %v, want nulls",
			r.Quantity,
			r.ProductID,
			r.WarehouseID,
		)
	}
	got := map[item]bool{}
	for _, i := range r.Items {
		got[i] = true
	}
	if diff := cmp.Diff(
		map[item]bool{{s.mug, s.east, 5}: true, {s.lamp, s.west, 1}: true},
		got,
	); diff != "" {
		t.Errorf("items, want (-) and got (+):\n%s", diff)
	}
	if got := r.ExpiresAt.Sub(r.CreatedAt); got != time.Minute {
		t.Errorf("the cart is held for %s, want a minute", got)
	}
}

func TestACartOfOneLineIsALine(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)

	r := s.post("/api/reservations", cartBody(
		reserveBody(s.mug, s.east, 1), reserveBody(s.mug, s.east, 1),
	)).
		want(t, http.StatusCreated, "").
		reservation(t)

	if r.Quantity == nil || *r.Quantity != 2 || r.ProductID == nil || *r.ProductID != s.mug ||
		len(r.Items) != 1 {
		t.Errorf("reservation = %+v, want one line of 2", r)
	}
}

func TestEveryShortLineIsListed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.west, 1))

	line := s.post("/api/reservations", reserveBody(s.mug, s.east, 11)).
		want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
	all := s.post("/api/reservations", cartBody(
		reserveBody(s.mug, s.west, 1), reserveBody(s.lamp, s.east, 10), reserveBody(s.lamp, s.west, 2),
	)).
		want(t, http.StatusConflict, "INSUFFICIENT_STOCK")

	if got := decode[problemBody](
		t,
		line,
	).Shortages; len(got) != 1 || got[0].Requested != 11 ||
		got[0].Available != 10 {
		t.Errorf("shortages = %+v, want 11 of 10", got)
	}
	got := map[string]string{}
	for _, short := range decode[problemBody](t, all).Shortages {
		got[short.ProductID+short.WarehouseID] = fmt.Sprint(
			short.Requested,
			" of ",
			short.Available,
		)
	}
	want := map[string]string{
		s.mug.String() + s.west.String():  "1 of 0",
		s.lamp.String() + s.west.String(): "2 of 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shortages, want (-) and got (+):\n%s", diff)
	}
}

func TestStockThatDoesNotExistIsNotFound(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)

	s.post("/api/reservations", reserveBody(uuid.New(), s.east, 1)).
		want(t, http.StatusNotFound, "INVENTORY_NOT_FOUND")
	s.post("/api/reservations", reserveBody(s.mug, uuid.New(), 1)).
		want(t, http.StatusNotFound, "INVENTORY_NOT_FOUND")
	s.post("/api/reservations", cartBody(
		reserveBody(s.mug, s.west, 99), reserveBody(uuid.New(), s.east, 1),
	)).
		want(t, http.StatusNotFound, "INVENTORY_NOT_FOUND")
	for _, verb := range verbs {
		s.send(verb.method, "/api/reservations/"+uuid.NewString()+verb.suffix, verb.body).
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
	}
}

// view is the answer of a read of one reservation.
type view struct {
	Reservation        held
	Product, Warehouse *struct{ ID, Name, SKU string }
	RemainingSeconds   int64
	Expired            bool
	ServerTime         time.Time
}

func TestAReadHasTheNamesAndTheTimeLeft(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 2))

	v := decode[view](t, s.get(path).want(t, http.StatusOK, ""))

	if v.Product == nil || v.Product.Name != "Mug" || v.Product.SKU != "CM-300" ||
		v.Warehouse == nil ||
		v.Warehouse.Name != "East" {
		t.Errorf("product, warehouse = %+v, %+v, want the Mug in East", v.Product, v.Warehouse)
	}
	left := v.Reservation.ExpiresAt.Sub(v.ServerTime)
	if v.Expired || time.Duration(v.RemainingSeconds)*time.Second < left ||
		time.Duration(v.RemainingSeconds-1)*time.Second >= left {
		t.Errorf(
			"expired, remainingSeconds = %t, %d, want false and %s rounded up",
			v.Expired,
			v.RemainingSeconds,
			left,
		)
	}
}

func TestACartIsReadWithoutAProduct(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, cartBody(reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.east, 1)))

	v := decode[view](t, s.get(path).want(t, http.StatusOK, ""))

	if v.Product != nil || v.Warehouse != nil || len(v.Reservation.Items) != 2 {
		t.Errorf(
			"product, warehouse, items = %v, %v, %v, want null, null and two",
			v.Product,
			v.Warehouse,
			v.Reservation.Items,
		)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 2))

	first := s.post(path+"/confirm", "").want(t, http.StatusOK, "")
	again := s.post(path+"/confirm", "{}").want(t, http.StatusOK, "")

	if diff := cmp.Diff(string(first.body), string(again.body)); diff != "" {
		t.Errorf("a second confirm answers otherwise:\n%s", diff)
	}
	r := first.reservation(t)
	if r.ConfirmedAt == nil || !r.ConfirmedAt.Equal(r.UpdatedAt) || r.ReleasedAt != nil ||
		r.ExpiredAt != nil {
		t.Errorf("reservation = %+v, want its confirmedAt alone", r)
	}
	s.post(path+"/release", "").want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
	s.post(path+"/extend", `{"ttlSeconds":60}`).
		want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
	if v := decode[view](
		t,
		s.get(path),
	); v.RemainingSeconds != 0 || v.Expired ||
		v.Reservation.Status != "CONFIRMED" {
		t.Errorf("view = %+v, want a confirmed one with no time left", v)
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.west, 1))

	first := s.post(path+"/release", "").want(t, http.StatusOK, "")
	again := s.post(path+"/release", "{}").want(t, http.StatusOK, "")

	if diff := cmp.Diff(string(first.body), string(again.body)); diff != "" {
		t.Errorf("a second release answers otherwise:\n%s", diff)
	}
	r := first.reservation(t)
	if r.ReleasedAt == nil || !r.ReleasedAt.Equal(r.UpdatedAt) || r.ConfirmedAt != nil ||
		r.ExpiredAt != nil {
		t.Errorf("reservation = %+v, want its releasedAt alone", r)
	}
	s.post(path+"/confirm", "").want(t, http.StatusConflict, "RESERVATION_RELEASED")
	s.post(path+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusConflict, "RESERVATION_RELEASED")
	s.reserve(t, reserveBody(s.mug, s.west, 1))
}

func TestADeadHold(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.west, 1))
	s.kill(path)

	s.post(path+"/confirm", "").want(t, http.StatusGone, "RESERVATION_EXPIRED")
	s.post(path+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusGone, "RESERVATION_EXPIRED")
	v := decode[view](t, s.get(path).want(t, http.StatusOK, ""))
	r := v.Reservation
	if !v.Expired || v.RemainingSeconds != 0 || r.Status != "EXPIRED" || r.ExpiredAt == nil ||
		!r.ExpiredAt.Equal(r.ExpiresAt) {
		t.Errorf("view = %+v, want one that expired at its end", v)
	}
	released := s.post(path+"/release", "").want(t, http.StatusOK, "").reservation(t)
	if diff := cmp.Diff(r, released); diff != "" {
		t.Errorf("a release of a dead hold answers otherwise than a read:\n%s", diff)
	}
	s.post(path+"/confirm", "").want(t, http.StatusGone, "RESERVATION_EXPIRED")
	s.reserve(t, reserveBody(s.mug, s.west, 1))
}

func TestExtend(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))

	r := s.post(path+"/extend", `{"ttlSeconds":1200}`).want(t, http.StatusOK, "").reservation(t)

	if got := r.ExpiresAt.Sub(r.UpdatedAt); got != 20*time.Minute {
		t.Errorf("the hold ends %s after it was extended, want 20m", got)
	}
	for _, seconds := range []string{
		"3600", "3601", "9223372036", "9223372037", "9223372036854775807", "9223372036854775808",
	} {
		s.post(path+"/extend", `{"ttlSeconds":`+seconds+`}`).
			want(t, http.StatusUnprocessableEntity, "EXTENSION_LIMIT")
	}
	if again := decode[view](t, s.get(path)).Reservation; !again.ExpiresAt.Equal(r.ExpiresAt) {
		t.Errorf("a refused extension moved the end from %s to %s", r.ExpiresAt, again.ExpiresAt)
	}
}

func TestAKeyMakesOneEffectAndOneAnswer(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := reserveBody(s.mug, s.west, 1)

	first := s.post("/api/reservations", body, "Idempotency-Key", "a").
		want(t, http.StatusCreated, "")
	again := s.post("/api/reservations", cartBody(body), "Idempotency-Key", "a").
		want(t, http.StatusCreated, "")
	s.post("/api/reservations", reserveBody(s.mug, s.east, 1), "Idempotency-Key", "a").
		want(t, 422, "IDEMPOTENCY_KEY_REUSED")
	path := first.header.Get("Location")
	s.post(path+"/confirm", "", "Idempotency-Key", "a").want(t, 422, "IDEMPOTENCY_KEY_REUSED")
	s.post(path+"/extend", `{"ttlSeconds":60}`, "Idempotency-Key", "a").
		want(t, 422, "IDEMPOTENCY_KEY_REUSED")

	if first.header.Get("Idempotency-Replayed") != "" ||
		again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed = %q, then %q, want none, then true",
			first.header.Get("Idempotency-Replayed"), again.header.Get("Idempotency-Replayed"))
	}
	if diff := cmp.Diff(
		string(first.body),
		string(again.body),
	); diff != "" ||
		again.header.Get("Location") != path {
		t.Errorf(
			"the replay leads to %q, want %q, and differs:\n%s",
			again.header.Get("Location"),
			path,
			diff,
		)
	}
}

func TestEveryVerbIsReplayed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	other := s.reserve(t, reserveBody(s.mug, s.east, 1))
	for _, call := range []struct{ path, body string }{
		{path + "/extend", `{"ttlSeconds":60}`}, {path + "/confirm", ""}, {other + "/release", ""},
	} {
		key := call.path
		first := s.post(call.path, call.body, "Idempotency-Key", key).want(t, http.StatusOK, "")
		again := s.post(call.path, call.body, "Idempotency-Key", key).want(t, http.StatusOK, "")
		if diff := cmp.Diff(
			string(first.body),
			string(again.body),
		); diff != "" ||
			again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf(
				"%s: Idempotency-Replayed = %q and the replay differs:\n%s",
				call.path,
				again.header.Get("Idempotency-Replayed"),
				diff,
			)
		}
	}
}

func TestAnErrorIsNotStoredUnderItsKey(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.west, 1))
	s.post("/api/reservations", reserveBody(s.mug, s.west, 1), "Idempotency-Key", "a").
		want(t, http.StatusConflict, "INSUFFICIENT_STOCK")
	s.post(path+"/release", "").want(t, http.StatusOK, "")

	a := s.post("/api/reservations", reserveBody(s.mug, s.west, 1), "Idempotency-Key", "a").
		want(t, http.StatusCreated, "")

	if got := a.header.Get("Idempotency-Replayed"); got != "" {
		t.Errorf("Idempotency-Replayed = %q, want none", got)
	}
}

func TestAKeyInUseIsRefused(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.Lock("SELECT pg_advisory_xact_lock(1, hashtext('a'))")

	s.post("/api/reservations", reserveBody(s.mug, s.east, 1), "Idempotency-Key", "a").
		want(t, http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE")
}

func TestALockedRowAnswers503(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.db.Lock("SELECT FROM inventory FOR UPDATE")

	for _, a := range []answer{
		s.post("/api/reservations", reserveBody(s.mug, s.east, 1)),
		s.post("/api/reservations", cartBody(
			reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.east, 1),
		)),
		s.post(path+"/confirm", ""),
	} {
		a.want(t, http.StatusServiceUnavailable, "STOCK_BUSY")
		if got := a.header.Get("Retry-After"); got != "1" {
			t.Errorf("%s: Retry-After = %q, want 1", a.sent, got)
		}
	}
	s.get("/api/products").want(t, http.StatusOK, "")
}

type catalogEntry struct {
	Name, SKU   string
	Inventories []struct {
		WarehouseName                                   string
		TotalQuantity, ReservedQuantity, AvailableStock int
	}
}

func TestTheCatalogCountsLiveHoldsOnly(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 3))
	dead := s.reserve(t, reserveBody(s.mug, s.east, 4))
	s.kill(dead)
	sold := s.reserve(t, reserveBody(s.lamp, s.west, 1))
	s.post(sold+"/confirm", "").want(t, http.StatusOK, "")
	s.db.NamedProduct("Apron", "AP-1")

	var got []string
	for _, p := range decode[[]catalogEntry](t, s.get("/api/products").want(t, http.StatusOK, "")) {
		if p.Inventories == nil {
			t.Errorf("inventories of %s = null, want an array", p.Name)
		}
		got = append(got, p.Name)
		for _, i := range p.Inventories {
			got = append(
				got,
				fmt.Sprint(
					i.WarehouseName,
					" ",
					i.TotalQuantity,
					"-",
					i.ReservedQuantity,
					"=",
					i.AvailableStock,
				),
			)
		}
	}

	want := []string{
		"Apron",
		"Lamp",
		"East 10-0=10",
		"West 0-0=0",
		"Mug",
		"East 10-3=7",
		"West 1-0=1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("catalog, want (-) and got (+):\n%s", diff)
	}
}

func TestProductsAreChosen(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.reserve(t, reserveBody(s.mug, s.east, 3))
	all := s.get("/api/products").want(t, http.StatusOK, "")
	entries := decode[[]json.RawMessage](t, all)

	if a := s.get("/api/products?sku=CM-300&sku=none&sku=LA-400&sku=CM-300").
		want(t, http.StatusOK, ""); string(a.body) != string(all.body) ||
		a.header.Get("Link") != "" {
		t.Errorf("both products are %s, want them as the list has them: %s", a.body, all.body)
	}
	for path, want := range map[string]string{
		"/api/products?sku=CM-300":             "[" + string(entries[1]) + "]",
		"/api/products?sku=cm-300":             "[]",
		"/api/products?sku=CM-300%20":          "[]",
		"/api/products/" + s.mug.String():      string(entries[1]),
		"/api/products/" + s.lamp.String():     string(entries[0]),
		"/api/products?sku=LA-400&unknown=yes": "[" + string(entries[0]) + "]",
	} {
		if a := s.get(path).want(t, http.StatusOK, ""); string(a.body) != want {
			t.Errorf("%s = %s, want %s", path, a.body, want)
		}
	}
	s.get("/api/products/"+uuid.NewString()).want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
	s.get("/api/products/"+s.east.String()).want(t, http.StatusNotFound, "PRODUCT_NOT_FOUND")
}

var nextLink = regexp.MustCompile(`^<(.+)>; rel="next"$`)

// pages follows the Link headers from a path and lists the names of each page.
func (s stockedClient) pages(t *testing.T, path string) (pages [][]string) {
	t.Helper()
	const most = 20
	for range most {
		a := s.get(path).want(t, http.StatusOK, "")
		names := []string{}
		for _, entry := range decode[[]struct{ Name string }](t, a) {
			names = append(names, entry.Name)
		}
		pages = append(pages, names)
		link := nextLink.FindStringSubmatch(a.header.Get("Link"))
		if link == nil {
			return pages
		}
		path = link[1]
	}
	t.Fatalf("the pages don't end: %v", pages)
	return nil
}

func TestPagesAreFollowed(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	// Two of one name, and names that a URL, a header or a JSON text would have to escape.
	names := []string{"Same", "Same", `"<Quoted>", & more`, "Ünïcödé ☕"}
	for i, name := range names {
		s.db.NamedProduct(name, fmt.Sprint("P-", i))
		s.db.NamedWarehouse(name)
	}
	products := []string{names[2], "Lamp", "Mug", "Same", "Same", names[3]}
	warehouses := []string{names[2], "East", "Same", "Same", "West", names[3]}
	for path, want := range map[string][]string{
		"/api/products": products, "/api/warehouses": warehouses,
	} {
		for limit, wantPages := range map[int][][]string{
			1: {want[:1], want[1:2], want[2:3], want[3:4], want[4:5], want[5:]},
			3: {want[:3], want[3:]},
			4: {want[:4], want[4:]},
			5: {want[:5], want[5:]},
			6: {want},
			7: {want},
		} {
			if diff := cmp.Diff(
				wantPages,
				s.pages(t, fmt.Sprint(path, "?limit=", limit)),
			); diff != "" {
				t.Errorf("pages of %s by %d, want (-) and got (+):\n%s", path, limit, diff)
			}
		}
		if diff := cmp.Diff([][]string{want}, s.pages(t, path)); diff != "" {
			t.Errorf("pages of %s, want (-) and got (+):\n%s", path, diff)
		}
	}
}

func TestAPageOfProductsHas50(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'P' || n, 'P' || n FROM generate_series(1, 199) n`)

	pages := s.pages(t, "/api/products")
	most := s.pages(t, "/api/products?limit=200")

	if len(pages) != 5 || len(pages[0]) != 50 || len(pages[4]) != 1 {
		t.Errorf(
			"201 products come in %d pages, the first of %d, want 5 of 50",
			len(pages),
			len(pages[0]),
		)
	}
	if len(most) != 2 || len(most[0]) != 200 {
		t.Errorf(
			"201 products come in %d pages of at most 200, the first of %d, want 2",
			len(most),
			len(most[0]),
		)
	}
}

func TestAnEmptyShopHasEmptyLists(t *testing.T) {
	t.Parallel()

	c := newClient(t, pgtest.New(t).URL)

	for _, path := range []string{"/api/products", "/api/warehouses"} {
		if a := c.get(path).
			want(t, http.StatusOK, ""); string(a.body) != "[]" ||
			a.header.Get("Link") != "" {
			t.Errorf("%s = %s with Link %q, want [] without", path, a.body, a.header.Get("Link"))
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()

	c := newClient(t, pgtest.New(t).URL)

	if a := c.get("/api/health").want(t, http.StatusOK, ""); string(a.body) != `{"status":"ok"}` {
		t.Errorf("health = %s, want ok", a.body)
	}
}

// The handlers of GET also answer HEAD, and net/http drops the body.
func TestHeadIsAGetWithoutABody(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(newClient(t, pgtest.New(t).URL).mux)
	defer server.Close()
	r, err := http.NewRequestWithContext(
		t.Context(),
		http.MethodHead,
		server.URL+"/api/health",
		nil,
	)
	if err != nil {
		t.Fatal(err)
	}

	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()

	if response.StatusCode != http.StatusOK || response.Header.Get("X-Request-Id") == "" {
		t.Errorf("HEAD = %d %v, want 200 and an id", response.StatusCode, response.Header)
	}
}
