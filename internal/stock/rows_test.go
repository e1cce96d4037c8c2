package stock_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/stock"
)

// allRows follows the pages of a list to its end, and returns the stock rows as SKU and code.
func (s *shelf) allRows(filter stock.RowFilter, limit int) (rows []string) {
	s.t.Helper()
	var next *stock.RowCursor
	for page := 0; page == 0 || next != nil; page++ {
		listed, more, err := s.stock.ListRows(s.Context(), filter, next, limit)
		if err != nil || len(listed) > limit {
			s.t.Fatalf("ListRows() = %d rows, %v, want at most %d", len(listed), err, limit)
		}
		for _, r := range listed {
			rows = append(rows, fmt.Sprint(r.SKU, " ", r.WarehouseCode, " ", r.Total-r.Reserved))
		}
		next = more
	}
	return rows
}

// fillShelves makes products, every third of which has no stock row, and warehouses. The stock rows
// have few units each, some of which are held, by live holds and by dead ones.
func (s *shelf) fillShelves() {
	s.t.Helper()
	s.Exec("UPDATE warehouses SET code = name")
	s.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'product', 'SKU ' || lpad((n * 7 % 40)::text, 2, '0')
FROM generate_series(1, 39) n`)
	s.Exec(`
INSERT INTO warehouses (id, name, code)
SELECT gen_random_uuid(), 'warehouse', chr(65 + n * 3 % 5) FROM generate_series(1, 5) n`)
	s.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, ascii(right(p.sku, 1)) % 5 + 1
FROM products p, warehouses w
WHERE p.sku LIKE 'SKU%' AND right(p.sku, 2)::integer % 3 > 0 AND ascii(w.code) % 2 = 1`)
	s.Exec(`
WITH held AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
    SELECT gen_random_uuid(), i.product_id, i.warehouse_id, 1, t.at, t.at, t.at + interval '1 h'
    FROM inventory i,
         LATERAL (SELECT now() - make_interval(hours => 2 * (i.total % 2)) AS at) t
    WHERE i.total < 4
    RETURNING product_id, warehouse_id
)
UPDATE inventory i SET reserved = 1, first_end = '-infinity' FROM held h
WHERE h.product_id = i.product_id AND h.warehouse_id = i.warehouse_id`)
}

// rowsSQL is the list of stock rows as one would write it without pages.
const rowsSQL = `
SELECT coalesce(array_agg(concat_ws(' ', p.sku, w.code, a.units) ORDER BY p.sku, w.code), '{}')
FROM inventory i JOIN products p ON p.id = i.product_id JOIN warehouses w ON w.id = i.warehouse_id,
     LATERAL (SELECT i.total - count(r.*) AS units FROM reservations r
              WHERE r.product_id = i.product_id AND r.warehouse_id = i.warehouse_id
                AND r.status = 'PENDING' AND r.expires_at > clock_timestamp()) a
WHERE p.sku = coalesce($1, p.sku) AND w.code = coalesce($2, w.code)
  AND a.units < coalesce($3::integer, 1000)`

func TestStockRowsAreListedInPages(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.fillShelves()
	for _, sku := range []*string{nil, ptr("SKU 01"), ptr("SKU 03"), ptr("none")} {
		for _, warehouse := range []*string{nil, ptr("A"), ptr("B"), ptr("none")} {
			for _, below := range []*int{nil, ptr(1), ptr(2), ptr(4)} {
				want := pgtest.QueryOne[[]string](s.Fixture, rowsSQL, sku, warehouse, below)
				for _, limit := range []int{1, 2, 7, 500} {
					got := s.allRows(stock.RowFilter{
						SKU: sku, Warehouse: warehouse, AvailableBelow: below,
					}, limit)
					if len(want)+len(got) > 0 && !cmp.Equal(want, got) {
						t.Errorf("the list in pages of %d differs (-want +got):\n%s", limit,
							cmp.Diff(want, got))
					}
				}
				for _, scan := range []int{1, 2, 9} {
					if got := s.scanRows(sku, warehouse, below, scan); len(want)+len(got) > 0 &&
						!cmp.Equal(want, got) {
						t.Errorf("the list in looks of %d differs (-want +got):\n%s", scan,
							cmp.Diff(want, got))
					}
				}
			}
		}
	}
}

// The control: without the dead units, a list shows them as reserved.
func TestStockRowsHoldDeadUnitsWithoutTheLook(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.fillShelves()
	pgtest.Mutate(t, s.Database, "list_stock",
		"- dead_units(_row.product, _row.warehouse, _row.first_end, NULL)", "")
	var none *string
	want := pgtest.QueryOne[[]string](s.Fixture, rowsSQL, none, none, none)
	if got := s.allRows(stock.RowFilter{}, 500); cmp.Equal(want, got) {
		t.Error("the list is right: the control proves nothing")
	}
}

// scanRows is allRows in pages that look at scan rows each.
func (s *shelf) scanRows(sku, warehouse *string, below *int, scan int) (rows []string) {
	s.t.Helper()
	var product, place *string
	for looks := 0; looks < 1000; looks++ {
		found, err := s.Admin.Query(s.Context(), `
SELECT product_id::text, warehouse_id::text, sku IS NULL,
       concat_ws(' ', sku, warehouse_code, total - reserved)
FROM list_stock($1, $2, $3, $4, $5, 500, $6, 10000)`, sku, warehouse, below, product, place, scan)
		if err != nil {
			s.t.Fatal(err)
		}
		var of, at *string
		var isPlace bool
		var row string
		product = nil
		if _, err := pgx.ForEachRow(found, []any{&of, &at, &isPlace, &row}, func() error {
			if isPlace {
				product, place = of, at
				return nil
			}
			rows = append(rows, row)
			return nil
		}); err != nil {
			s.t.Fatal(err)
		}
		if product == nil {
			return rows
		}
	}
	s.t.Fatalf("the pages don't end: %v", rows)
	return nil
}

// A cursor of a product that doesn't exist leads nowhere.
func TestNoStockFollowsAnUnknownProduct(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 1)
	rows, next, err := s.stock.ListRows(s.Context(), stock.RowFilter{},
		&stock.RowCursor{Product: uuid.New()}, 10)
	if err != nil || len(rows) > 0 || next != nil {
		t.Errorf("ListRows() = %v, %v, %v, want nothing", rows, next, err)
	}
}

// manySQL makes 40,000 products in six warehouses, and a seventh without stock. Each stock row has
// ten units, one of them held.
var manySQL = []string{
	"SET LOCAL session_replication_role = replica",
	"SET LOCAL statement_timeout = 0",
	`INSERT INTO warehouses (id, name, code)
	 SELECT gen_random_uuid(), 'warehouse ' || n, 'W' || n FROM generate_series(1, 7) n`,
	`INSERT INTO products (id, name, sku)
	 SELECT gen_random_uuid(), 'product ' || n, 'SKU-' || lpad((n * 7919 % 40000)::text, 5, '0')
	 FROM generate_series(1, 40000) n`,
	`INSERT INTO inventory (product_id, warehouse_id, total, reserved)
	 SELECT p.id, w.id, 10, 1 FROM products p, warehouses w WHERE w.code ~ '^W[1-6]$'`,
	"ANALYZE",
}

func (s *shelf) fillWithMany() {
	s.t.Helper()
	if err := pgx.BeginFunc(s.Context(), s.Admin, func(tx pgx.Tx) error {
		for _, sql := range manySQL {
			if _, err := tx.Exec(s.Context(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// A page of stock reads a bounded part of 240,000 stock rows, wherever it is and whatever it looks
// for. The control looks through ten times as many rows as a page may.
func TestAPageOfStockReadsFewRowsOfMany(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.fillWithMany()
	var none *string
	deep := pgtest.QueryOne[string](s.Fixture, "SELECT id::text FROM products WHERE sku = 'SKU-39000'")
	const (
		sql  = "SELECT * FROM list_stock($1, $2, $3, $4, NULL, $5, $6, 524288)"
		scan = stock.MaxRowScan
	)
	for name, c := range map[string]struct {
		args []any
		most int
	}{
		"the first page":               {[]any{none, none, none, none, 50, scan}, 1_000},
		"a deep page":                  {[]any{none, none, none, deep, 50, scan}, 1_000},
		"a page of 500":                {[]any{none, none, none, none, 500, scan}, 8_000},
		"an SKU":                       {[]any{"SKU-20000", none, none, none, 50, scan}, 1_000},
		"a warehouse":                  {[]any{none, "W3", none, none, 50, scan}, 1_500},
		"a warehouse without stock":    {[]any{none, "W7", none, none, 50, scan}, 45_000},
		"nothing short":                {[]any{none, none, 5, none, 50, scan}, 30_000},
		"nothing short in a warehouse": {[]any{none, "W3", 5, none, 50, scan}, 45_000},
		"everything short":             {[]any{none, none, 10, none, 500, scan}, 8_000},
	} {
		blocks, took := s.Explain(sql, c.args...)
		t.Logf("%s: %d blocks in %.1f ms", name, blocks, took)
		if blocks > c.most {
			t.Errorf("%s takes %d blocks, want at most %d", name, blocks, c.most)
		}
	}
	blocks, took := s.Explain(sql, none, none, 5, none, 50, 10*scan)
	t.Logf("a look through ten times as many: %d blocks in %.1f ms", blocks, took)
	if blocks < 80_000 {
		t.Errorf("a look through ten times as many takes %d blocks, want 80,000 or more", blocks)
	}
}
