package stock_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/stock"
)

// newLargeShelf is a shelf with 240,000 stock rows. The mug's in the warehouse Here has a million
// movements, and one document has 500, each of another stock row.
func newLargeShelf(t *testing.T) *shelf {
	t.Helper()
	s := newShelf(t)
	err := pgx.BeginFunc(s.Context(), s.Admin, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"SET LOCAL session_replication_role = replica", // without the triggers
			"SET LOCAL enable_seqscan = on; SET LOCAL statement_timeout = '60 s'",
			`INSERT INTO products (id, name, sku)
			 SELECT gen_random_uuid(), 'product ' || n, 'SKU-' || n
			 FROM generate_series(1, 120000 - 2) n`,
			`INSERT INTO inventory (product_id, warehouse_id, total, seq, room)
			 SELECT p.id, w.id, 1,
			        CASE WHEN p.sku = 'CM-300' AND w.name = 'Here' THEN 1000000 ELSE 1 END, NULL
			 FROM products p, warehouses w`,
			`INSERT INTO stock_movements
			        (product_id, warehouse_id, seq, at, kind, delta, total_after, source, reference,
			         line)
			 SELECT product_id, warehouse_id, 1, clock_timestamp(), 'OPENING', 1, 1,
			        CASE WHEN n <= 500 THEN 'erp' END, CASE WHEN n <= 500 THEN 'document' END,
			        CASE WHEN n <= 500 THEN n END
			 FROM (SELECT *, row_number() OVER (ORDER BY epoch, product_id DESC) AS n
			       FROM inventory) i`,
			`INSERT INTO stock_movements
			        (product_id, warehouse_id, seq, at, kind, delta, total_after)
			 SELECT product_id, warehouse_id, n, clock_timestamp(), 'COUNT', 0, 1
			 FROM inventory, generate_series(2, 1000000) n WHERE seq = 1000000`,
		} {
			if _, err := tx.Exec(s.Context(), sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("ANALYZE")
	return s
}

// A page costs its own movements, however many there are. A document's page costs those of the
// document. The control takes the indexes away.
func TestAPageOfMovementsReadsItsOwn(t *testing.T) {
	t.Parallel()

	s := newLargeShelf(t)
	row := func(before, limit int) int {
		blocks, _ := s.Explain("SELECT * FROM list_movements($1, $2, $3, $4)",
			s.mug.String(), s.here.String(), before, limit)
		return blocks
	}
	document := func(line, limit int) int {
		blocks, _ := s.Explain("SELECT * FROM list_document('erp', 'document', 'infinity', $1, $2)",
			line, limit)
		return blocks
	}
	for _, before := range []int{1_000_001, 500_000, 600} {
		small, large := row(before, 51), row(before, stock.MaxMovementPage+1)
		t.Logf("before movement %d: %d and %d blocks", before, small, large)
		if small > 15 || large > 40 {
			t.Errorf("before movement %d a page of 51 reads %d blocks and one of 501 reads %d, want few",
				before, small, large)
		}
	}
	if n := document(0, 51); n > 520 {
		t.Errorf("a page of a document with 500 movements reads %d blocks, want one a movement", n)
	}

	var lines int
	filter := stock.MovementFilter{Source: ptr("erp"), Reference: ptr("document")}
	for next := new(stock.MovementCursor); next != nil; {
		page, more, err := s.stock.ListMovements(s.Context(), filter, *next, 200)
		if err != nil {
			t.Fatal(err)
		}
		lines, next = lines+len(page), more
	}
	if lines != 500 {
		t.Errorf("the pages of the document have %d movements, want 500", lines)
	}

	s.Exec("DROP INDEX stock_movements_by_line")
	s.Exec("ALTER TABLE stock_movements DROP CONSTRAINT stock_movements_pkey")
	if a, b := row(1_000_001, 51), document(0, 51); a < 10_000 || b < 10_000 {
		t.Errorf("without the indexes the pages read %d and %d blocks: the control proves nothing", a, b)
	}
}
