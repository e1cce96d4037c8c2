package stock_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// foundSQL is the list of found stock rows as one would write it without pages.
const foundSQL = `
SELECT coalesce(array_agg(concat_ws(' ', p.sku, w.code, a.units) ORDER BY p.sku, w.code), '{}')
FROM inventory i JOIN products p ON p.id = i.product_id JOIN warehouses w ON w.id = i.warehouse_id,
     LATERAL (SELECT i.total - count(r.*) AS units FROM reservations r
              WHERE r.product_id = i.product_id AND r.warehouse_id = i.warehouse_id
                AND r.status = 'PENDING' AND r.expires_at > clock_timestamp()) a
WHERE NOT EXISTS (SELECT FROM unnest($1::text[]) t
                  WHERE strpos(lower(p.name), lower(t)) = 0 AND strpos(lower(p.sku), lower(t)) = 0)
  AND p.id = coalesce($2::uuid, p.id) AND w.id = coalesce($3::uuid, w.id)
  AND p.sku = coalesce($4, p.sku) AND w.code = coalesce($5, w.code)
  AND a.units < coalesce($6::integer, 1000)`

// foundFilters are combinations of all that a filter has.
func (s *shelf) foundFilters() (all []stock.RowFilter) {
	s.t.Helper()
	id := func(sql string) *uuid.UUID {
		found := uuid.MustParse(pgtest.QueryOne[string](s.Fixture, sql))
		return &found
	}
	product := id("SELECT id::text FROM products WHERE sku = 'SKU 10'")
	warehouse := id("SELECT id::text FROM warehouses WHERE code = 'A'")
	unknown := uuid.New()
	for _, words := range [][]string{
		nil, {"sku"}, {"PRODUCT", "1"}, {"10", "sku", "prod"}, {"none"}, {"%"},
	} {
		for _, of := range []*uuid.UUID{nil, product, &unknown} {
			for _, in := range []*uuid.UUID{nil, warehouse, &unknown} {
				for _, below := range []*int{nil, ptr(1), ptr(2)} {
					f := stock.RowFilter{
						Words: words, ProductID: of, WarehouseID: in, AvailableBelow: below,
					}
					all = append(all, f)
					f.SKU, f.Warehouse = ptr("SKU 10"), ptr("A")
					all = append(all, f)
				}
			}
		}
	}
	return all
}

// foundDiffs compares every list, in pages of several sizes, and every count with the model.
func (s *shelf) foundDiffs(filters []stock.RowFilter) (diffs []string) {
	s.t.Helper()
	text := func(id *uuid.UUID) *string {
		if id == nil {
			return nil
		}
		return ptr(id.String())
	}
	for _, f := range filters {
		want := pgtest.QueryOne[[]string](s.Fixture, foundSQL, f.Words, text(f.ProductID),
			text(f.WarehouseID), f.SKU, f.Warehouse, f.AvailableBelow)
		for _, limit := range []int{1, 3, 500} {
			got := s.allRows(f, limit)
			if len(want)+len(got) > 0 && !cmp.Equal(want, got) {
				diffs = append(diffs, fmt.Sprintf("the list of %+v by %d differs (-want +got):\n%s", f,
					limit, cmp.Diff(want, got)))
			}
		}
		count, err := s.stock.CountRows(s.Context(), f)
		if err != nil || count != (reservation.Count{N: int64(len(want))}) {
			diffs = append(diffs, fmt.Sprintf("the count of %+v is %+v, %v, want %d", f, count, err,
				len(want)))
		}
	}
	return diffs
}

func TestStockIsFoundByEveryFilter(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.fillShelves()
	for _, diff := range s.foundDiffs(s.foundFilters()) {
		t.Error(diff)
	}
}

// In looks of three products, and of four stock rows, the lists are the same.
func TestStockIsFoundInSmallLooks(t *testing.T) {
	t.Parallel()

	for _, bounds := range [][2]string{{"l.n = 3", "_scan"}, {"l.n = _look", "4"}} {
		s := newShelf(t)
		s.fillShelves()
		if bounds[0] != "l.n = _look" {
			pgtest.Mutate(t, s.Database, "find_stock", "LIMIT _look", "LIMIT 3")
			pgtest.Mutate(t, s.Database, "find_stock", "l.n = _look", "l.n = 3")
			pgtest.Mutate(t, s.Database, "find_stock", "_found.n = _look", "_found.n = 3")
		} else {
			pgtest.Mutate(t, s.Database, "find_stock", "_limit, _scan,\n                    _bytes)",
				"_limit, 4,\n                    _bytes)")
		}
		for _, diff := range s.foundDiffs(s.foundFilters()) {
			t.Error(diff)
		}
	}
}

// Each case removes one part of the statements. The comparison with the model must show it.
func TestBrokenFindsDifferFromTheModel(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement string }{
		"the words don't matter": {
			"find_stock", "case_folded(p.name || ' ' || p.sku) LIKE ALL (_patterns)", "true",
		},
		"a page begins at its product": {"find_stock", "OR _after_warehouse IS NOT NULL", ""},
		"the warehouse doesn't matter": {"find_stock", "IF _in IS NOT NULL THEN", "IF false THEN"},
		"the product doesn't matter":   {"find_stock", "IF _product IS NOT NULL THEN", "IF false THEN"},
		"the rest is forgotten":        {"find_stock", "OR _found.id <> _after_product", ""},
		"dead units aren't free":       {"count_stock", "+ dead_units(", "+ 0 * dead_units("},
		"the count takes all products": {"count_stock", "p.id = coalesce(_product, p.id)", "true"},
		"the count takes all places": {
			"count_stock", "BETWEEN coalesce(_only, _least) AND coalesce(_only, _most)", "IS NOT NULL",
		},
		"the count takes all SKUs":     {"count_stock", "p.sku = coalesce(_sku, p.sku)", "true"},
		"the count takes all names":    {"count_stock", "_words IS NULL OR", "true OR"},
		"the count takes full shelves": {"count_stock", ">= _below THEN false", ">= _below THEN true"},
		"a pattern isn't a plain text": {"word_patterns", `'([\\%_])'`, `'(x)'`},
		"capital letters do matter": {
			"find_stock", "case_folded(p.name || ' ' || p.sku)", "(p.name || ' ' || p.sku)",
		},
		"the unknown warehouse has all": {"count_stock", "IF NOT FOUND THEN", "IF false THEN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newShelf(t)
			s.fillShelves()
			pgtest.Mutate(t, s.Database, c.routine, c.old, c.replacement)
			if diffs := s.foundDiffs(s.foundFilters()); len(diffs) == 0 {
				t.Error("the lists agree with the model, want a difference")
			}
		})
	}
}

// A search and a count read a bounded part of 240,000 stock rows.
func TestAFindReadsFewRowsOfMany(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.fillWithMany()
	var none *string
	product := pgtest.QueryOne[string](s.Fixture,
		"SELECT id::text FROM products WHERE sku = 'SKU-20000'")
	const (
		coded = "SELECT id::text FROM warehouses WHERE code = $1"
		find  = "SELECT * FROM " +
			"find_stock($1, $2, $3, NULL, NULL, $4, NULL, NULL, 50, 20000, 5000, 524288)"
		count = "SELECT * FROM count_stock($1, $2, $3, NULL, NULL, $4, 50000, $5)"
	)
	warehouse := pgtest.QueryOne[string](s.Fixture, coded, "W3")
	empty := pgtest.QueryOne[string](s.Fixture, coded, "W7")
	words := strings.Fields
	for name, c := range map[string]struct {
		sql  string
		args []any
		most int
	}{
		"a product":              {find, []any{none, product, none, none}, 500},
		"a stock row":            {find, []any{none, product, warehouse, none}, 500},
		"a warehouse":            {find, []any{none, none, warehouse, none}, 2_000},
		"many words":             {find, []any{words("product sku"), none, none, none}, 4_000},
		"a rare word":            {find, []any{words("39999"), none, none, none}, 45_000},
		"no word":                {find, []any{words("mug"), none, none, none}, 45_000},
		"words in no place":      {find, []any{words("product"), none, empty, none}, 140_000},
		"words, nothing short":   {find, []any{words("product"), none, none, 5}, 140_000},
		"the count of all":       {count, []any{none, none, none, none, 200_000}, 210_000},
		"the count of a word":    {count, []any{words("77"), none, none, none, 200_000}, 100_000},
		"the count of a place":   {count, []any{none, none, warehouse, none, 200_000}, 250_000},
		"the count of the short": {count, []any{none, none, none, 10, 20_000}, 200_000},
	} {
		blocks, took := s.Explain(c.sql, c.args...)
		t.Logf("%s: %d blocks in %.1f ms", name, blocks, took)
		if blocks > c.most {
			t.Errorf("%s takes %d blocks, want at most %d", name, blocks, c.most)
		}
	}
	for name, c := range map[string]struct {
		filter stock.RowFilter
		want   reservation.Count
	}{
		"all": {stock.RowFilter{}, reservation.Count{N: reservation.MaxCount, AtLeast: true}},
		"short": {
			stock.RowFilter{AvailableBelow: ptr(11)}, reservation.Count{N: 20_000, AtLeast: true},
		},
		"a place":   {stock.RowFilter{Warehouse: ptr("W3")}, reservation.Count{N: 40_002}},
		"no place":  {stock.RowFilter{Warehouse: ptr("W7")}, reservation.Count{}},
		"a product": {stock.RowFilter{Words: words("sku-20000")}, reservation.Count{N: 6}},
	} {
		if got, err := s.stock.CountRows(s.Context(), c.filter); err != nil || got != c.want {
			t.Errorf("the count of %s is %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}
