package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// pageSize is the size of a catalog page, which is the contract's default.
const pageSize = 50

// numbered returns the id of row n of a kind. Ids are made of numbers, so that a caller needs no
// list.
func numbered(kind byte, n int) uuid.UUID {
	id := uuid.UUID{6: 0x70, 8: 0x80, 9: kind}
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

func productID(n int) uuid.UUID { return numbered(1, n) }
func holdID(n int) uuid.UUID    { return numbered(3, n) }
func productName(n int) string  { return fmt.Sprintf("Product %07d", n) }

var warehouseID = numbered(2, 0)

func stockLine(n, quantity int) reservation.Line {
	return reservation.Line{ProductID: productID(n), WarehouseID: warehouseID, Quantity: quantity}
}

// exec runs statements one after another.
func (s *server) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := s.admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// emptySQL removes the catalog, the stock and the holds with their ledger. The audit would find a
// ledger without its holds.
const emptySQL = "TRUNCATE products, warehouses, inventory, stock_movements, reservations, " +
	"reservation_items, idempotency_keys, ledger, minute_counts, hold_payments, hold_parties, " +
	"replacements, bench_outbox"

// outboxTableSQL makes the table of the usual outbox.
const outboxTableSQL = `
CREATE TABLE IF NOT EXISTS bench_outbox (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    topic   text        NOT NULL,
    subject uuid        NOT NULL,
    event   jsonb       NOT NULL
)`

// load empties the database and fills it with `rows` stock rows of `total` units each. It makes no
// checkpoint, as that would make the next writes log full pages.
func (s *server) load(ctx context.Context, rows, total int) error {
	uuidOf := func(kind int) string {
		return fmt.Sprintf("('00000000-0000-7000-80%02d-0000' || lpad(to_hex(n), 8, '0'))::uuid",
			kind)
	}
	return s.exec(ctx, outboxTableSQL, emptySQL,
		// Checking a hundred thousand rows would take most of the time.
		"SET session_replication_role = replica",
		fmt.Sprintf("INSERT INTO warehouses (id, code, name) VALUES ('%s', 'BENCH', 'Bench')",
			warehouseID),
		fmt.Sprintf(`INSERT INTO products
SELECT %s, 'Product ' || lpad(n::text, 7, '0'), 'SKU-' || n FROM generate_series(0, %d) n`,
			uuidOf(1), rows-1),
		fmt.Sprintf(`INSERT INTO inventory (product_id, warehouse_id, total, first_end)
SELECT %s, '%s', %d, 'infinity' FROM generate_series(0, %d) n`, uuidOf(1), warehouseID, total,
			rows-1),
		"UPDATE inventory SET room = NULL", // as the trigger does, which is off
		`INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, seq, now(), 'OPENING', total, total FROM inventory`,
		"RESET session_replication_role",
		"VACUUM ANALYZE products", "VACUUM ANALYZE inventory", "ANALYZE reservations",
		"VACUUM ANALYZE stock_movements",
	)
}

// hold adds n PENDING holds of one unit, spread over the first `rows` stock rows, and counts their
// units as reserved. They expire in the ten minutes before now + life, which is negative for dead
// holds, in the order of their ids.
func (s *server) hold(ctx context.Context, n, rows int, life time.Duration) error {
	lifeMs := life.Milliseconds()
	return s.exec(ctx, fmt.Sprintf(`
INSERT INTO reservations (id, product_id, warehouse_id, quantity,
                          created_at, updated_at, expires_at)
SELECT ('00000000-0000-7000-8003-0000' || lpad(to_hex(n), 8, '0'))::uuid,
       ('00000000-0000-7000-8001-0000' || lpad(to_hex(n %% %d), 8, '0'))::uuid, '%s', 1,
       now() + interval '%d ms' - interval '1 day', now() + interval '%d ms' - interval '1 day',
       now() + interval '%d ms' - interval '10 minutes' * (%d - n) / %d
FROM generate_series(0, %d) n`,
		rows, warehouseID, lifeMs, lifeMs, lifeMs, n, n, n-1),
		`UPDATE inventory i SET reserved = i.reserved + h.units, first_end = h.first_end
FROM (SELECT product_id, warehouse_id, count(*) AS units, min(expires_at) AS first_end
      FROM reservations WHERE status = 'PENDING' GROUP BY 1, 2) h
WHERE i.product_id = h.product_id AND i.warehouse_id = h.warehouse_id`,
		"VACUUM ANALYZE reservations", "VACUUM ANALYZE inventory")
}
