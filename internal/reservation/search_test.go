package reservation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// catalogued are the products of the search's tests, as name and SKU, in the list's order.
var catalogued = [][2]string{
	{"100% Wool_Hat", "HAT-1"},
	{"Blue Ceramic Mug", "CM-300"},
	{"Ceramic mug", "CM-200"},
	{"Mug", `a\b`},
	{"Mug", "RED-MUG"},
	{"Écharpe bleue", "SC-1"},
}

func (f *fixture) makeNamed() {
	f.t.Helper()
	for _, p := range catalogued {
		f.NamedProduct(p[0], p[1])
	}
	f.Exec("UPDATE products SET id = gen_random_uuid()") // in an order of their own
	f.Exec("INSERT INTO products (id, name, sku, status) VALUES ($1, 'Old Mug', 'OLD', 'ARCHIVED')",
		uuid.NewString())
}

// searchAll reads all pages of a search, and returns the SKUs.
func searchAll(
	t *testing.T, f *fixture, words []string, limit int,
) (skus []string) {
	t.Helper()
	s := f.services()[0]
	readAll(t, func(after reservation.Cursor) (reservation.Cursor, bool) {
		page, next, err := s.SearchProducts(f.Context(), words, after, limit)
		if err != nil || len(page) > limit {
			t.Fatalf("SearchProducts(%q, %+v, %d) = %d entries, %v", words, after, limit, len(page), err)
		}
		for _, e := range page {
			skus = append(skus, e.SKU)
		}
		if next == nil {
			return reservation.Cursor{}, false
		}
		return *next, true
	})
	return skus
}

func TestASearchFindsTheProductsWithEachWord(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.makeNamed()
	s := f.services()[0]
	byOrder := pgtest.QueryOne[[]string](f.Fixture,
		"SELECT array_agg(sku ORDER BY name, id) FROM products WHERE status = 'ACTIVE'")
	searches := map[string][]string{
		"mug":           {"CM-300", "CM-200", `a\b`, "RED-MUG"},
		"MUG":           {"CM-300", "CM-200", `a\b`, "RED-MUG"},
		"mug ceramic":   {"CM-300", "CM-200"},
		"cm- blue":      {"CM-300"},
		"mug cm-200":    {"CM-200"},
		"%":             {"HAT-1"},
		"_":             {"HAT-1"},
		`\`:             {`a\b`},
		"É":             {"SC-1"},
		"g c":           {"CM-300", "CM-200"},
		"mug%":          nil,
		"old":           nil,
		"mug lamp":      nil,
		"t":             {"HAT-1"},
		"a b c d e f g": nil,
	}
	const unicode = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'pg_c_utf8'"
	if pgtest.QueryOne[bool](f.Fixture, unicode) { // as in Postgres 17: see case_folded
		searches["éCHARPE"] = []string{"SC-1"}
	}
	for text, want := range searches {
		words := strings.Fields(text)
		slices.SortFunc(want, func(a, b string) int {
			return slices.Index(byOrder, a) - slices.Index(byOrder, b)
		})
		for _, limit := range []int{1, 2, 5, reservation.MaxProductPage} {
			if diff := cmp.Diff(want, searchAll(t, f, words, limit)); diff != "" {
				t.Errorf("the products of %q in pages of %d differ (-want +got):\n%s", text, limit, diff)
			}
		}
		count, err := s.CountProducts(f.Context(), words)
		if err != nil || count != (reservation.Count{N: int64(len(want))}) {
			t.Errorf("the count of %q is %+v, %v, want %d", text, count, err, len(want))
		}
	}
	count, err := s.CountProducts(f.Context(), nil)
	if err != nil || count != (reservation.Count{N: int64(len(catalogued))}) {
		t.Errorf("the count of all is %+v, %v, want %d", count, err, len(catalogued))
	}
}

// A search of a few looks is the same in small ones, although some pages are empty then.
func TestASearchGoesOnWhereItStoppedLooking(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.makeNamed()
	want := searchAll(t, f, []string{"mug"}, 10)
	f.mutate("search_catalog", "    _patterns text[] :=", "    _few integer := 2; _patterns text[] :=")
	f.mutate("search_catalog", "LIMIT _look)", "LIMIT _few)")
	f.mutate("search_catalog", "OR l.n = _look", "OR l.n = _few")
	f.mutate("search_catalog", "IF _row.n = _look", "IF _row.n = _few")
	for _, limit := range []int{1, 2, 10} {
		if diff := cmp.Diff(want, searchAll(t, f, []string{"mug"}, limit)); diff != "" {
			t.Errorf("in looks of two and pages of %d a search differs (-want +got):\n%s", limit, diff)
		}
	}
	f.mutate("search_catalog", "IF _row.n = _few", "IF false")
	if cmp.Equal(want, searchAll(t, f, []string{"mug"}, 10)) {
		t.Error("without its place a search is whole: the control proves nothing")
	}
}

// A product with more stock rows than a page goes on at the top of the next one, as in the catalog.
func TestASearchDividesAProduct(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.makeNamed()
	f.Exec(`INSERT INTO warehouses (id, name, code)
	        SELECT gen_random_uuid(), 'w ' || n, 'w' || n FROM generate_series(1, 7) n`)
	f.Exec(`INSERT INTO inventory (product_id, warehouse_id, total)
	        SELECT p.id, w.id, 1 FROM products p, warehouses w WHERE p.name ILIKE '%mug'`)
	f.mutate("search_catalog", "_rows, _bytes) r", "3, _bytes) r")
	s := f.services()[0]
	var got []string
	readAll(t, func(after reservation.Cursor) (reservation.Cursor, bool) {
		page, next, err := s.SearchProducts(f.Context(), []string{"mug"}, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			for _, stock := range e.Stocks {
				got = append(got, e.SKU+" "+stock.WarehouseName)
			}
		}
		if next == nil {
			return reservation.Cursor{}, false
		}
		return *next, true
	})
	want := pgtest.QueryOne[[]string](f.Fixture, `
SELECT array_agg(p.sku || ' ' || w.name ORDER BY p.name, p.id, w.name)
FROM inventory i JOIN products p ON p.id = i.product_id JOIN warehouses w ON w.id = i.warehouse_id
WHERE p.status = 'ACTIVE'`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the stock rows differ (-want +got):\n%s", diff)
	}
}

// A search among 40,000 products looks at 20,000 for a page, and a count at 50,000. The control
// looks at all of them.
func TestASearchReadsABoundedPartOfManyProducts(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	f.script(settingsSQL + `
INSERT INTO warehouses (id, name, code)
SELECT gen_random_uuid(), 'w ' || n, 'w' || n FROM generate_series(1, 6) n;
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'Ceramic thing no. ' || n, 'SKU-' || n FROM generate_series(1, 40000) n;
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 10 FROM products p, warehouses w;
VACUUM ANALYZE products, inventory, warehouses`)
	const (
		search = "SELECT * FROM search_catalog($1, NULL, NULL, 50, $2, 5000, 524288)"
		count  = "SELECT * FROM count_products($1, $2)"
		look   = reservation.MaxSearch
	)
	for name, c := range map[string]struct {
		sql   string
		words []string
		look  int
		most  int
	}{
		"a search that finds many":    {search, []string{"ceramic", "thing"}, look, 1_500},
		"a search that finds a few":   {search, []string{"no.", "sku-1234"}, look, 15_000},
		"a search that finds nothing": {search, []string{"mug"}, look, 11_000},
		"the count of a search":       {count, []string{"7"}, reservation.MaxCountSearch, 45_000},
		"the count of all":            {count, nil, reservation.MaxCount, 1_000},
	} {
		blocks, took := f.Explain(c.sql, c.words, c.look)
		t.Logf("%s: %d blocks in %.1f ms", name, blocks, took)
		if blocks > c.most {
			t.Errorf("%s reads %d blocks, want at most %d", name, blocks, c.most)
		}
	}
	blocks, took := f.Explain(search, []string{"mug"}, 100_000)
	t.Logf("a search among all that finds nothing: %d blocks in %.1f ms", blocks, took)
	few, _ := f.Explain(search, []string{"mug"}, reservation.MaxSearch)
	if blocks < 3*few/2 {
		t.Errorf("a search among all reads %d blocks: the control proves nothing", blocks)
	}
	var n int64
	var whole bool
	for _, words := range [][]string{nil, {"ceramic"}} {
		err := f.Admin.QueryRow(f.Context(), count, words, 1000).Scan(&n, &whole)
		if err != nil || n != 1000 || whole {
			t.Errorf("a bounded count of %q is %d, whole %t, %v", words, n, whole, err)
		}
	}
	if got := len(searchAll(t, f, []string{"sku-39999"}, 50)); got != 1 {
		t.Errorf("the search of one SKU finds %d products", got)
	}
}
