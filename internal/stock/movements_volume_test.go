package stock_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// grow adds products until there are so many, each with a stock row and the movement that opened
// it. Their warehouses take turns.
func (s *shelf) grow(products int) {
	s.t.Helper()
	ctx := s.Context()
	err := pgx.BeginFunc(ctx, s.Admin, func(tx pgx.Tx) error {
		// The triggers of each row would take long. A slow machine takes longer than a call may.
		if _, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica; "+
			"SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		for _, sql := range []string{
			`INSERT INTO products (id, name, sku)
			 SELECT gen_random_uuid(), 'product ' || n, 'SKU ' || n
			 FROM generate_series((SELECT count(*) FROM products), $1 - 1) n`,
			`INSERT INTO inventory (product_id, warehouse_id, total, seq, room)
			 SELECT p.id, w.id, 1000, 1, NULL
			 FROM products p
			 JOIN (SELECT id, row_number() OVER (ORDER BY name) AS n FROM warehouses) w
			   ON w.n = 1 + ascii(right(p.sku, 1)) % 2
			 WHERE p.sku LIKE 'SKU %'
			   AND NOT EXISTS (SELECT FROM inventory i WHERE i.product_id = p.id)
			 LIMIT $1`,
			`INSERT INTO stock_movements
			        (product_id, warehouse_id, seq, at, kind, delta, total_after, source,
			         reference, line)
			 SELECT i.product_id, i.warehouse_id, 1, now(), 'OPENING', 1000, 1000,
			        'first', i.product_id::text, 1
			 FROM inventory i
			 WHERE NOT EXISTS (SELECT FROM stock_movements m WHERE m.product_id = i.product_id)
			 LIMIT $1`,
		} {
			if _, err := tx.Exec(ctx, sql, products); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, table := range []string{"products", "inventory", "stock_movements"} {
		s.Exec("VACUUM ANALYZE " + table)
	}
}

// linesSQL draws $1 stock rows, and makes a line of each: a delivery by ids, a loss by SKU and
// code, or a count as of the opening.
const linesSQL = `
SELECT jsonb_agg(CASE d.n % 3
    WHEN 0 THEN jsonb_build_object('line', d.n, 'product_id', d.product_id,
                                   'warehouse_id', d.warehouse_id, 'delta', 2)
    WHEN 1 THEN jsonb_build_object('line', d.n, 'sku', d.sku, 'warehouse', d.code, 'delta', -1)
    ELSE jsonb_build_object('line', d.n, 'sku', d.sku, 'warehouse', d.code, 'counted', 999,
                            'as_of_seq', 1) END)::text
FROM (SELECT row_number() OVER () AS n, l.*
      FROM (SELECT i.product_id, i.warehouse_id, p.sku, w.code
            FROM inventory i JOIN products p ON p.id = i.product_id
            JOIN warehouses w ON w.id = i.warehouse_id
            ORDER BY random() LIMIT $1) l) d`

// The work of a document as move_stock does it, in one transaction for all lines or for each. Each
// call has a reference of its own.
const (
	explainTogetherSQL = `
SELECT move_lines(wanted_movements('erp', gen_random_uuid()::text, NULL, true, $1::jsonb), false)`
	explainApartSQL = `
SELECT count(move_lines(ARRAY[w], false))
FROM unnest(wanted_movements('erp', gen_random_uuid()::text, NULL, false, $1::jsonb)) w`
)

// blocksByRows counts the blocks that a document of so many lines reads, in a shop of 2,000 stock
// rows and then in one of more.
func (s *shelf) blocksByRows(sql string, lines, more int) (few, many int) {
	s.t.Helper()
	s.Exec("UPDATE warehouses SET code = name")
	count := func(rows int) (blocks int) {
		s.grow(rows)
		moved := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM stock_movements")
		document := pgtest.QueryOne[string](s.Fixture, linesSQL, lines)
		blocks, _ = s.Explain(sql, document)
		moved = pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM stock_movements") - moved
		if moved != 2*lines { // Explain runs it twice
			s.t.Fatalf("two documents of %d lines made %d movements", lines, moved)
		}
		return blocks
	}
	few, many = count(2_000), count(more)
	s.t.Logf("%d lines read %d blocks of 2,000 stock rows, and %d of %d", lines, few, many, more)
	return few, many
}

// tooMany reports whether the larger shop costs more than the deeper trees of its indexes, which
// have one level more.
func tooMany(few, many int) bool { return 2*many > 3*few }

// linesBlocks bounds the blocks that a line reads, most of them of indexes, in a shop of 100,000
// stock rows.
const linesBlocks = 60

func TestFiveHundredLinesCostTheSameAtManyStockRows(t *testing.T) {
	t.Parallel()

	const lines = 500
	for name, sql := range map[string]string{
		"together": explainTogetherSQL, "apart": explainApartSQL,
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			few, many := s.blocksByRows(sql, lines, 100_000)
			if tooMany(few, many) || many > linesBlocks*lines {
				t.Errorf("%d lines read %d blocks of 2,000 stock rows and %d of 100,000, want at most half "+
					"as many more, and at most %d a line", lines, few, many, linesBlocks)
			}
		})
	}
}

func TestLinesCostMoreAtManyStockRowsWithoutAnIndex(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement string }{
		"the product by its SKU": {"wanted_movements", "a.sku = l.sku", "a.sku || '' = l.sku"},
		"the line of before": {
			"move_line", "m.source = _wanted.source AND m.reference = _wanted.reference",
			"m.source || '' = _wanted.source AND m.reference || '' = _wanted.reference",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			pgtest.Mutate(t, s.Database, c.routine, c.old, c.replacement)
			if few, many := s.blocksByRows(explainTogetherSQL, 20, 20_000); !tooMany(few, many) {
				t.Errorf("20 lines read %d blocks, and then %d: the control proves nothing", few, many)
			}
		})
	}
}
