package reservation_test

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
)

// updateEach updates the rows of the first page of inventory, one after the other, and returns how
// many rows there are and how many log records that took.
func (f *fixture) updateEach() (rows, records int) {
	f.t.Helper()
	const update = `
EXPLAIN (ANALYZE, WAL, FORMAT JSON)
UPDATE inventory SET reserved = reserved + 1 WHERE product_id = $1::uuid`
	found, err := f.Admin.Query(f.Context(),
		"SELECT product_id::text FROM inventory WHERE ctid < '(1,0)'")
	if err != nil {
		f.t.Fatal(err)
	}
	products, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		f.t.Fatal(err)
	}
	for _, product := range products {
		var plans []struct {
			Plan struct {
				Records int `json:"WAL Records"`
			}
		}
		if err := json.Unmarshal(queryOne[[]byte](f, update, product), &plans); err != nil {
			f.t.Fatal(err)
		}
		rows, records = rows+1, records+plans[0].Plan.Records
	}
	return rows, records
}

// A new stock row leaves room on its page: a change of its counts writes one record to the log, and
// none about a page that was pruned.
func TestAPageOfStockHasRoom(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		setup  string
		prunes bool
	}{
		"with the filling": {"", false},
		"without the filling": {`
DROP TRIGGER inventory_room ON inventory;
ALTER TABLE inventory ALTER COLUMN room DROP DEFAULT`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			f.Exec(`INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), n::text, n::text FROM generate_series(1, 300) n`)
			f.Warehouse()
			f.Exec(test.setup)
			f.Exec(`INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 1000 FROM products p, warehouses w`)
			if kept := queryOne[int](f, "SELECT count(room) FROM inventory"); kept != 0 {
				t.Errorf("%d stock rows kept their filling, want 0", kept)
			}
			f.Exec("VACUUM inventory")

			rows, records := f.updateEach()

			if prunes := records > rows; rows < 10 || prunes != test.prunes {
				t.Errorf("the update of %d rows wrote %d records, want more than one a row: %t", rows,
					records, test.prunes)
			}
		})
	}
}
