package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// Violation is a broken promise, found in the data.
type Violation struct {
	Promise string // I1 to I9
	Detail  string // the rows that break it, and how
}

// maxViolations bounds the rows that one check reports. The first few are enough to see the error.
const maxViolations = 20

// check is a promise as a query. Each row of the result is a violation, described in its one
// column.
type check struct {
	promise string
	sql     string
}

// heldAndSoldSQL begins a check. Its table stock has, for each stock row, the units that count
// towards reserved and the confirmed units.
const heldAndSoldSQL = `
WITH lines AS (
    SELECT r.product_id, r.warehouse_id, r.quantity, r.status = 'PENDING' AS counted, r.status
    FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.product_id, l.warehouse_id, l.quantity, l.counted, r.status
    FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
), stock AS (
    SELECT product_id, warehouse_id,
           coalesce(sum(quantity) FILTER (WHERE counted), 0) AS held,
           coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold
    FROM lines GROUP BY product_id, warehouse_id
)`

var checks = []check{
	{"I1", `
SELECT format('product %s in warehouse %s: reserved %s of %s',
              product_id, warehouse_id, reserved, total)
FROM inventory WHERE reserved < 0 OR reserved > total`},
	{"I2", heldAndSoldSQL + `
SELECT format('product %s in warehouse %s: reserved is %s, its holds add up to %s',
              product_id, warehouse_id, i.reserved, coalesce(s.held, 0))
FROM inventory i FULL JOIN stock s USING (product_id, warehouse_id)
WHERE i.reserved IS DISTINCT FROM coalesce(s.held, 0)`},
	{"I2", `
SELECT format('hold %s is %s, but its line of product %s is still counted',
              r.id, r.status, l.product_id)
FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
WHERE l.counted AND r.status <> 'PENDING'`},
	{"I3", `
SELECT format('line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM reservation_items l LEFT JOIN reservations r ON r.id = l.reservation_id
WHERE r.id IS NULL`},
	{"I4", `
SELECT format('hold %s was %s at %s, after its end, %s', id, status, updated_at, expires_at)
FROM reservations WHERE status IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at`},
	{"I5", postgres.BrokenRulesSQL(postgres.InAudit)},
	{"I6", `
SELECT format('key %s has the answer of hold %s, which does not exist', k.key, k.answer ->> 'id')
FROM idempotency_keys k LEFT JOIN reservations r ON r.id = (k.answer ->> 'id')::uuid
WHERE r.id IS NULL`},
	{"I7", `
SELECT format('cart %s holds %s units, its %s lines add up to %s',
              r.id, r.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM reservations r LEFT JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NULL
GROUP BY r.id HAVING coalesce(sum(l.quantity), 0) <> r.quantity OR count(l.*) < 2`},
	{"I7", `
SELECT format('hold %s of one line has rows of lines too', r.id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NOT NULL`},
	{"I7", `
SELECT format('cart %s is alive and its line of product %s is not counted', r.id, l.product_id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.status = 'PENDING' AND NOT l.counted AND NOT hold_is_dead(r, clock_timestamp())`},
	{"I7", `
SELECT format('cart %s ends at %s, its line of product %s at %s',
              r.id, r.expires_at, l.product_id, l.expires_at)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.expires_at <> l.expires_at`},
	{"I8", heldAndSoldSQL + `, moved AS (
    SELECT product_id, warehouse_id, sum(delta) AS delta
    FROM stock_adjustments GROUP BY product_id, warehouse_id
)
SELECT format('product %s in warehouse %s: total is %s, adjustments add up to %s, sold are %s',
              product_id, warehouse_id, i.total, coalesce(m.delta, 0), coalesce(s.sold, 0))
FROM inventory i
LEFT JOIN stock s USING (product_id, warehouse_id)
LEFT JOIN moved m USING (product_id, warehouse_id)
WHERE i.total <> coalesce(m.delta, 0) - coalesce(s.sold, 0)`},
	{"I9", `
SELECT format('hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM reservations WHERE status = 'EXPIRED' AND updated_at <> expires_at`},
}

// Audit checks every promise that the data can break, on one snapshot. It returns the violations,
// at most maxViolations for each check. It reads whole tables. When it doesn't end before the
// context's deadline, it returns the violations found so far together with the error. On a large
// database, run it on a replica or in a quiet hour.
func (s *Service) Audit(ctx context.Context) ([]Violation, error) {
	var found []Violation
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := s.pool.Transaction(ctx, snapshot, func(tx pgx.Tx) error {
		if err := allowWholeTables(ctx, tx); err != nil {
			return err
		}
		for _, c := range checks {
			violations, err := c.run(ctx, tx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.promise, err)
			}
			found = append(found, violations...)
		}
		return nil
	})
	if err != nil {
		return found, fmt.Errorf("audit: %w", err)
	}
	return found, nil
}

// allowWholeTables lifts the role's settings that keep requests short. The server still ends each
// check at the context's deadline, even when this client is gone by then.
func allowWholeTables(ctx context.Context, tx pgx.Tx) error {
	limit := "SET LOCAL statement_timeout = 0"
	if deadline, ok := ctx.Deadline(); ok {
		limit = fmt.Sprintf("SET LOCAL statement_timeout = %d",
			max(1, time.Until(deadline).Milliseconds()))
	}
	for _, sql := range []string{limit, "SET LOCAL enable_seqscan = on"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

func (c check) run(ctx context.Context, tx pgx.Tx) ([]Violation, error) {
	rows, err := tx.Query(ctx, fmt.Sprintf("%s LIMIT %d", c.sql, maxViolations))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Violation, error) {
		violation := Violation{Promise: c.promise}
		return violation, row.Scan(&violation.Detail)
	})
}
