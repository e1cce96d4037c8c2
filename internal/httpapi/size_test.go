package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// sized is a database whose answers are measured.
type sized struct {
	*pgtest.Fixture
	client
	log bytes.Buffer
}

// sizedEntry has the ids of an entry of the catalog.
type sizedEntry struct {
	ID          string
	Inventories []struct{ WarehouseID string }
}

func newSized(t *testing.T, maxBody int) *sized {
	t.Helper()
	s := &sized{Fixture: pgtest.NewFixture(t, pgtest.New(t))}
	service := reservation.New(newPool(t, s.URL),
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold})
	api := httpapi.New(service, httpapi.Options{Log: newLog(&s.log), MaxBody: maxBody})
	s.client = newClientOf(t, api)
	return s
}

// size sends a request. It doesn't validate the answer, which takes long for a large one.
func (s *sized) size(method, path, body string) answer {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(s.t.Context())
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.Bytes(), method + " " + path}
}

// fill makes products and warehouses of which each name is a prefix, and a stock row of each pair.
// The names are as long as nameBytes says, of control characters, each of which JSON makes six.
func (s *sized) fill(products, warehouses, nameBytes int) {
	s.t.Helper()
	const name = "lpad(n::text, 6, '0') || repeat(E'\\x01', $2 - 6)"
	for table, n := range map[string]int{"products": products, "warehouses": warehouses} {
		columns, values := "id, name", "gen_random_uuid(), "+name
		if table == "products" {
			columns, values = columns+", sku", values+", 'SKU-' || n"
		}
		s.Exec("INSERT INTO "+table+" ("+columns+") SELECT "+values+
			" FROM generate_series(1, $1) n", n, nameBytes)
	}
	s.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 2147483647 FROM products p, warehouses w`)
}

// wantSize checks the size of an answer, and returns the answer.
func (a answer) wantSize(t *testing.T, status, most int) answer {
	t.Helper()
	t.Logf("%s: %d bytes", a.sent, len(a.body))
	if a.status != status || len(a.body) > most || len(a.header.Get("Link")) > 4000 {
		t.Errorf("%s = %d with %d bytes and a Link of %d, want %d with at most %d\n%.300s", a.sent,
			a.status, len(a.body), len(a.header.Get("Link")), status, most, a.body)
	}
	return a
}

// stockRows reads all pages of the catalog, from a path on. It returns the number of stock rows of
// each page, and fails unless each stock row of the shop comes once and each product's rows follow
// one another.
func (s *sized) stockRows(path string) (pages []int) {
	s.t.Helper()
	seen := map[[2]string]bool{}
	var order []string
	for path != "" {
		a := s.size("GET", path, "").wantSize(s.t, http.StatusOK, lambdahttp.MaxBody)
		rows := 0
		for _, p := range decode[[]sizedEntry](s.t, a) {
			if n := len(order); n == 0 || order[n-1] != p.ID {
				order = append(order, p.ID)
			}
			for _, stock := range p.Inventories {
				rows++
				key := [2]string{p.ID, stock.WarehouseID}
				if seen[key] {
					s.t.Fatalf("the stock row %v comes twice", key)
				}
				seen[key] = true
			}
		}
		pages = append(pages, rows)
		path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	want := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM inventory")
	products := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM products")
	if len(seen) != want || len(order) != products {
		s.t.Errorf("the pages have %d stock rows of %d products in turn, want %d of %d", len(seen),
			len(order), want, products)
	}
	return pages
}

// limited is the path of the catalog in pages of at most limit products.
func limited(limit int) string { return fmt.Sprint("/api/products?limit=", limit) }

func TestAPageOfProductsEndsEarly(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		products, warehouses, nameBytes, limit int
		want                                   string
	}{
		"at 5,000 stock rows": {9, 1200, 12, 200, "[4800 4800 1200]"},
		"at exactly 5,000":    {11, 1000, 12, 200, "[5000 5000 1000]"},
		"at its limit":        {5, 1000, 12, 2, "[2000 2000 1000]"},
		// Six products have more text than a page. A code has 36 bytes.
		"at 512 KiB of text":                {6, 1000, 68, 200, "[5000 1000]"},
		"at 512 KiB of text, two a product": {6, 1000, 210, 200, "[2000 2000 2000]"},
		// A product of its own page is divided.
		"inside a product of many rows":  {2, 6000, 12, 50, "[5000 1000 5000 1000]"},
		"inside a product of long names": {2, 9, 100_000, 50, "[4 4 1 4 4 1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newSized(t, lambdahttp.MaxBody)
			s.fill(c.products, c.warehouses, c.nameBytes)
			if got := fmt.Sprint(s.stockRows(limited(c.limit))); got != c.want {
				t.Errorf("the pages have %s stock rows, want %s", got, c.want)
			}
		})
	}
}

// chosen is the path of the products that fill has made.
func chosen(products int) string {
	var skus []string
	for n := range products {
		skus = append(skus, fmt.Sprint("sku=SKU-", n+1))
	}
	return "/api/products?" + strings.Join(skus, "&")
}

func TestChosenProductsEndEarlyAsAPageDoes(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		products, warehouses, nameBytes int
		want                            string
	}{
		"all at once":         {5, 1000, 12, "[5000]"},
		"at 5,000 stock rows": {50, 240, 12, "[4800 4800 2400]"},
		"at 512 KiB of text":  {6, 1000, 68, "[5000 1000]"}, // a code has 36 bytes
		"inside a product":    {2, 6000, 12, "[5000 1000 5000 1000]"},
		"at long names":       {2, 9, 100_000, "[4 4 1 4 4 1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newSized(t, lambdahttp.MaxBody)
			s.fill(c.products, c.warehouses, c.nameBytes)
			if got := fmt.Sprint(s.stockRows(chosen(c.products))); got != c.want {
				t.Errorf("the answers have %s stock rows, want %s", got, c.want)
			}
		})
	}
}

// A product of many stock rows is divided, and its Link leads to the others.
func TestAProductOfManyStockRowsIsDivided(t *testing.T) {
	t.Parallel()

	s := newSized(t, lambdahttp.MaxBody)
	s.fill(1, reservation.MaxStockPage+7, 12)
	id := pgtest.QueryOne[string](s.Fixture, "SELECT id::text FROM products")
	var rows []int
	seen := map[string]bool{}
	for path := "/api/products/" + id; path != ""; {
		a := s.size("GET", path, "").wantSize(t, http.StatusOK, lambdahttp.MaxBody)
		entry := decode[sizedEntry](t, a)
		for _, stock := range entry.Inventories {
			seen[stock.WarehouseID] = true
		}
		rows = append(rows, len(entry.Inventories))
		path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if fmt.Sprint(rows) != "[5000 7]" || len(seen) != reservation.MaxStockPage+7 {
		t.Errorf("the answers have %v stock rows, %d of them different, want 5,000 and 7", rows,
			len(seen))
	}
}

// The control: without its bounds an answer has every stock row.
func TestWithoutItsBoundsAnAnswerHasEveryStockRow(t *testing.T) {
	t.Parallel()

	s := newSized(t, 0)
	s.fill(50, 240, 12)
	pgtest.Mutate(t, s.Database, "read_products", "IF _begun AND", "IF false AND")
	if got := fmt.Sprint(s.stockRows(chosen(50))); got != "[12000]" {
		t.Errorf("the answers have %s stock rows, want all in one", got)
	}
}

// A product without stock has no stock row, and the pages go on after it.
func TestProductsWithoutStockEndNoPage(t *testing.T) {
	t.Parallel()

	s := newSized(t, lambdahttp.MaxBody)
	s.fill(2, 3, 12)
	for n := range 5 {
		s.NamedProduct(fmt.Sprint("000001 without ", n), fmt.Sprint("without ", n))
	}
	for limit := 1; limit <= 8; limit++ {
		s.stockRows(limited(limit))
	}
}

// The largest answer of each route, with the largest values that the schema and the limits allow.
func TestTheLargestAnswerOfEachRouteFits(t *testing.T) {
	t.Parallel()

	s := newSized(t, lambdahttp.MaxBody)
	s.fill(8, 1000, 520)
	s.size("GET", "/api/warehouses", "").wantSize(t, http.StatusOK, 3_300_000)
	s.size("GET", "/api/products?limit=200", "").wantSize(t, http.StatusOK, 3_300_000)

	s.Exec(`
WITH carts AS (
    INSERT INTO reservations (id, created_at, updated_at, expires_at, quantity)
    SELECT gen_random_uuid(), now(), now(), now() + interval '1 h', 100000000
    FROM generate_series(1, 200)
    RETURNING id, expires_at
)
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, expires_at, quantity)
SELECT c.id, i.product_id, i.warehouse_id, c.expires_at, 1000000
FROM carts c, (SELECT product_id, warehouse_id FROM inventory LIMIT 100) i`)
	// Each has a payment, names of the most bytes, and has taken the place of another.
	s.Exec(`
INSERT INTO hold_payments (hold_id, reference, outcome, at)
SELECT id, repeat('🛒', 100), 'STARTED', now() FROM reservations`)
	s.Exec(`
INSERT INTO hold_parties (hold_id, owner, reference)
SELECT id, repeat('🛒', 100), repeat('🛒', 100) FROM reservations`)
	s.Exec("INSERT INTO replacements (old_id, new_id) SELECT gen_random_uuid(), id FROM reservations")
	s.Exec("UPDATE reservations SET paying = true, detailed = true, version = version + 1")
	list := s.size("GET", "/api/reservations?limit=200&status=PENDING", "")
	list.wantSize(t, http.StatusOK, 3_000_000)
	s.size("GET", "/api/reservations?limit=200", "").wantSize(t, http.StatusOK, 3_000_000)
	cart := decode[[]struct{ ID string }](t, list)[0].ID
	whole := s.size("GET", "/api/reservations/"+cart, "").wantSize(t, http.StatusOK, 15_000)
	if n := strings.Count(string(whole.body), "🛒"); n != 200 {
		t.Errorf("the hold has %d characters of its payment and its reference, want 200", n)
	}
	s.Exec("UPDATE reservations SET paying = false, version = version + 1 WHERE id = $1", cart)
	s.size("POST", "/api/reservations/"+cart+"/extend", `{"ttlSeconds":60}`).
		wantSize(t, http.StatusOK, 15_000)
	s.size("GET", "/api/stats", "").wantSize(t, http.StatusOK, 7_000)
	s.size("GET", "/api/health", "").wantSize(t, http.StatusOK, 100)

	lines := func(quantity int) string {
		var items []string
		rows := decode[[]sizedEntry](t, s.size("GET", "/api/products?limit=1", ""))[0]
		for _, stock := range rows.Inventories[:100] {
			items = append(items, fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":%d}`,
				rows.ID, stock.WarehouseID, quantity))
		}
		return cartBody(items...)
	}
	s.size("POST", "/api/reservations", lines(1)).wantSize(t, http.StatusCreated, 14_000)
	s.Exec("BEGIN; SET LOCAL session_replication_role = replica; " + // without a movement for each row
		"UPDATE inventory SET total = greatest(reserved, 1); COMMIT")
	s.Exec("UPDATE reservations SET expires_at = now() + interval '2 h', version = version + 1 " +
		"WHERE status = 'PENDING'")
	s.size("POST", "/api/reservations", lines(1_000_000)).wantSize(t, http.StatusConflict, 16_000)

	many := strings.TrimSuffix(strings.Repeat("{},", maxBody/3-10), ",")
	s.size("POST", "/api/reservations", `{"items":[`+many+`]}`).
		wantSize(t, http.StatusBadRequest, 16_000)
	s.size("POST", "/api/reservations", `{"`+strings.Repeat(`\u0001`, 10_000)+`":1}`).
		wantSize(t, http.StatusBadRequest, 62_000)
	s.Exec("DROP TABLE idempotency_keys, reservation_items, last_audit; " +
		"UPDATE goose_versions SET is_applied = false; " +
		"DO $$ DECLARE r regprocedure; BEGIN FOR r IN SELECT oid FROM pg_proc WHERE pronamespace = " +
		"'public'::regnamespace LOOP EXECUTE 'DROP ROUTINE ' || r || ' CASCADE'; END LOOP; END $$")
	s.size("GET", "/api/health", "").wantSize(t, http.StatusServiceUnavailable, 6_000)
}

// A long name doesn't fit into a cursor, so the cursor has only the id. The list goes on where it
// was, even if the entry has another name by then.
func TestACursorOfALongNameIsShort(t *testing.T) {
	t.Parallel()

	s := newSized(t, lambdahttp.MaxBody)
	s.fill(3, 3, 50_000)
	s.stockRows(limited(1))
	for _, list := range []string{"products", "warehouses"} {
		var n int
		for path := "/api/" + list + "?limit=1"; path != ""; n++ {
			a := s.size("GET", path, "").wantSize(t, http.StatusOK, lambdahttp.MaxBody)
			path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		if n != 3 {
			t.Errorf("%s have %d pages, want 3", list, n)
		}
		gone := "/api/" + list + "?cursor=" + cursorOf("id", "")
		if a := s.size("GET", gone, ""); string(a.body) != "[]" || a.header.Get("Link") != "" {
			t.Errorf("after an entry that is gone %s are %.100s, want none", list, a.body)
		}
		for _, bad := range []string{cursorOf("id", "x"), "id.AAAAAAAAAAAAAAAAAAAAAA"} {
			s.get("/api/"+list+"?cursor="+bad).wantInvalid(t, "cursor")
		}
	}
}

// The last resort. The log has the status that the caller got.
func TestAnAnswerOverTheLimitIsAClearErrorInTheAnswerAndTheLog(t *testing.T) {
	t.Parallel()

	const limit = 100_000
	s := newSized(t, limit)
	s.fill(1, 1, limit)

	invoke := lambdahttp.New(s.api.Function("list-products"), newLog(io.Discard))
	response, err := invoke(t.Context(), events.APIGatewayV2HTTPRequest{
		RouteKey: "GET /api/products", RawPath: "/api/products",
		Headers: map[string]string{"host": "shop.example"},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: "GET"},
		},
	})
	if err != nil || response.StatusCode != http.StatusInternalServerError ||
		!strings.Contains(response.Body, `"code":"ANSWER_TOO_LARGE"`) {
		t.Errorf("the answer is %d %.200s, %v, want a clear error", response.StatusCode,
			response.Body, err)
	}
	var line struct {
		Level, Error string
		Status       int
	}
	if err := json.Unmarshal(s.log.Bytes(), &line); err != nil || line.Level != "ERROR" ||
		line.Status != response.StatusCode || !strings.Contains(line.Error, "the limit is 100000") {
		t.Errorf("the log is %s, %v, want the status that the caller got, and the size", &s.log, err)
	}

	// The control: without the limit the handlers answer, and log, a 200 that Lambda refuses.
	free := newSized(t, 0)
	free.fill(1, 1, limit)
	if a := free.size("GET", "/api/products", ""); a.status != http.StatusOK ||
		len(a.body) <= limit || !strings.Contains(free.log.String(), `"status":200`) {
		t.Errorf("without the limit: %d, %d bytes, log %s", a.status, len(a.body), &free.log)
	}
}

// A product may get another name while a caller reads it page by page. The pages must not lose the
// products behind it.
func TestARenamedProductHidesNoOthersFromTheNextPage(t *testing.T) {
	t.Parallel()

	s := newSized(t, lambdahttp.MaxBody)
	s.fill(1, reservation.MaxStockPage+10, 10)
	s.Exec("UPDATE products SET name = 'A'")
	s.NamedProduct("B", "B")
	first := s.size("GET", "/api/products?limit=1", "")
	next, _, _ := strings.Cut(strings.TrimPrefix(first.header.Get("Link"), "<"), ">")
	s.Exec("UPDATE products SET name = 'Z' WHERE name = 'A'")
	second := s.size("GET", next, "")
	if !strings.Contains(string(second.body), `"name":"B"`) {
		t.Errorf("the page behind the renamed product is %.200s, want the product B", second.body)
	}
}
