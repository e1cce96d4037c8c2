package reservation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// Violation is a broken promise, found in the data.
type Violation struct {
	Promise string // I1 to I9, catalog, or returns
	Detail  string // the rows that break it, and how
}

// maxViolations bounds the rows that one check reports. The first few are enough to see the error.
const maxViolations = 20

// check is a promise as a query. Each row of the result is a violation, described in its one
// column. A check is one statement, so it compares the numbers of one snapshot.
type check struct {
	promise string
	sql     string
}

// part is a table with the checks that read it. A snapshot makes hot rows slow while it is open
// (migrations/0002_old_snapshots.sql), so the audit reads a large table in slices, and each slice
// of each check has a snapshot of its own. The checks of such a part say of each row of a slice
// whether it breaks a promise: $1 is the key before the slice, $2 is the slice's last key.
type part struct {
	// after is a key before all keys, last one behind them.
	after, last string
	// end selects the last key of the slice that begins after $1, or nothing when fewer rows are
	// left than a slice has. It orders by the key itself, as an index does, and not by its text. It
	// is empty for a part that is read whole.
	end    string
	checks []check
	// onWriter is true for checks of the server that the verbs use. The others may read its reader.
	onWriter bool
}

// The bounds of the snapshots.
const (
	// wholeLimit bounds a check that reads whole tables. It reads about ten million holds.
	wholeLimit = 5 * time.Second
	// sliceLimit bounds each check of a slice, which takes a small part of that time.
	sliceLimit = 2 * time.Second
)

// parts lists all checks. No row has the first or the last uuid as its key.
var parts = []part{
	{
		after: uuid.Nil.String(), last: uuid.Max.String(),
		end: `
SELECT i.product_id::text FROM inventory i WHERE i.product_id > $1
ORDER BY i.product_id OFFSET 999 LIMIT 1`,
		checks: stockChecks,
	},
	{checks: wholeChecks},
	{onWriter: true, checks: settingChecks},
	{
		after: noMovement, last: lastMovement,
		end: `
SELECT concat_ws(',', m.product_id, m.warehouse_id, m.seq) FROM stock_movements m
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
ORDER BY m.product_id, m.warehouse_id, m.seq OFFSET 9999 LIMIT 1`,
		checks: movementChecks,
	},
	{
		after: "-infinity", last: "infinity",
		end: `
SELECT k.created_at::text FROM idempotency_keys k WHERE k.created_at > $1
ORDER BY k.created_at OFFSET 9999 LIMIT 1`,
		checks: keyChecks,
	},
	{
		after: uuid.Nil.String(), last: uuid.Max.String(),
		end: `
SELECT r.id::text FROM reservations r WHERE r.id > $1
ORDER BY r.id OFFSET 9999 LIMIT 1`,
		checks: holdChecks,
	},
	returnsSince("-infinity"),
}

// The key of a movement is a text: its product, its warehouse and its number, with commas between.
var (
	noMovement   = fmt.Sprintf("%s,%s,0", uuid.Nil, uuid.Nil)
	lastMovement = fmt.Sprintf("%s,%s,%d", uuid.Max, uuid.Max, math.MaxInt64)
)

// movementKey is the SQL of a movement's key as a row value, which the primary key's index finds.
func movementKey(param string) string {
	return fmt.Sprintf("(split_part(%[1]s, ',', 1)::uuid, split_part(%[1]s, ',', 2)::uuid, "+
		"split_part(%[1]s, ',', 3)::bigint)", param)
}

// heldSQL begins a check. Its table held has, for each stock row of the slice, the units that count
// towards reserved, and the first end of their holds. Indexes lead to just these holds.
const heldSQL = `
WITH held AS (
    SELECT product_id, warehouse_id, sum(quantity) AS units, min(expires_at) AS first_end
    FROM (
        SELECT r.product_id, r.warehouse_id, r.quantity, r.expires_at FROM reservations r
        WHERE r.status = 'PENDING' AND r.product_id > $1 AND r.product_id <= $2
        UNION ALL
        SELECT l.product_id, l.warehouse_id, l.quantity, l.expires_at FROM reservation_items l
        WHERE l.counted AND l.product_id > $1 AND l.product_id <= $2
    ) lines
    GROUP BY product_id, warehouse_id
), stock AS (
    SELECT * FROM inventory WHERE product_id > $1 AND product_id <= $2
)`

var stockChecks = []check{
	{"I1", `
SELECT format('product %s in warehouse %s: reserved %s of %s',
              product_id, warehouse_id, reserved, total)
FROM inventory
WHERE product_id > $1 AND product_id <= $2 AND (reserved < 0 OR reserved > total)`},
	{"I2", heldSQL + `
SELECT format('product %s in warehouse %s: reserved is %s, its holds add up to %s',
              product_id, warehouse_id, s.reserved, coalesce(h.units, 0))
FROM stock s FULL JOIN held h USING (product_id, warehouse_id)
WHERE s.reserved IS DISTINCT FROM coalesce(h.units, 0)`},
	{"I4", heldSQL + `
SELECT format('product %s in warehouse %s: a hold ends at %s, before first_end, %s',
              product_id, warehouse_id, h.first_end, s.first_end)
FROM stock s JOIN held h USING (product_id, warehouse_id)
WHERE h.first_end < s.first_end`},
	// The stock rows follow a change of the catalog within its request, so within a minute.
	{"catalog", `
SELECT format('product %s in warehouse %s: open is %s and the limits are %s and %s, '
              'but the product is %s with the limits %s and %s, and the warehouse is %s',
              i.product_id, i.warehouse_id, i.open, i.max_per_hold, i.max_per_owner,
              p.status, p.max_per_hold, p.max_per_owner, w.status)
FROM inventory i JOIN products p ON p.id = i.product_id JOIN warehouses w ON w.id = i.warehouse_id
WHERE i.product_id > $1 AND i.product_id <= $2
  AND (i.open, i.max_per_hold, i.max_per_owner) IS DISTINCT FROM
      (p.status = 'ACTIVE' AND w.status = 'OPEN', p.max_per_hold, p.max_per_owner)
  AND greatest(p.changed_at, w.changed_at) < clock_timestamp() - interval '1 min'`},
	{"I8", `
SELECT format('product %s in warehouse %s: total is %s by movement %s, but the newest is %s, to %s',
              i.product_id, i.warehouse_id, i.total, i.seq, m.seq, m.total_after)
FROM inventory i
LEFT JOIN LATERAL (
    SELECT m.seq, m.total_after FROM stock_movements m
    WHERE m.product_id = i.product_id AND m.warehouse_id = i.warehouse_id
    ORDER BY m.seq DESC LIMIT 1
) m ON true
WHERE i.product_id > $1 AND i.product_id <= $2
  AND (i.seq, i.total) IS DISTINCT FROM (m.seq, m.total_after)`},
}

// settingChecks reads the server's settings.
var settingChecks = []check{{"I5", postgres.BrokenRulesSQL(postgres.InAudit)}}

// movementChecks begin each slice with the last movement of the slice before.
var movementChecks = []check{
	{"I8", `
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows movement %s, to %s',
              product_id, warehouse_id, seq, delta, total_after, seq_before, total_before)
FROM (SELECT m.*, lag(m.seq, 1, 0::bigint) OVER w AS seq_before,
             lag(m.total_after, 1, 0) OVER w AS total_before
      FROM stock_movements m
      WHERE (m.product_id, m.warehouse_id, m.seq) >= ` + movementKey("$1") + `
        AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
      WINDOW w AS (PARTITION BY m.product_id, m.warehouse_id ORDER BY m.seq)) m
WHERE (product_id, warehouse_id, seq) > ` + movementKey("$1") + `
  AND (seq <> seq_before + 1 OR total_after <> total_before + delta)`},
	{"I8", `
SELECT format('product %s in warehouse %s has movements and no stock row',
              m.product_id, m.warehouse_id)
FROM stock_movements m LEFT JOIN inventory i USING (product_id, warehouse_id)
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
  AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
  AND m.seq = 1 AND i.product_id IS NULL`},
	returnMovementCheck,
}

// wholeChecks read whole tables.
var wholeChecks = []check{
	// The sales among the movements are those of the confirmed holds: what is left of the movements,
	// and of the adjustments before there were movements, adds up with them to the total. A stock row
	// that was deleted has no total.
	{"I8", `
WITH lines AS (
    SELECT r.product_id, r.warehouse_id, r.quantity, r.status
    FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.product_id, l.warehouse_id, l.quantity, r.status
    FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
), sold AS (
    SELECT product_id, warehouse_id,
           coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS units
    FROM lines GROUP BY product_id, warehouse_id
), moved AS (
    SELECT product_id, warehouse_id, sum(delta) AS delta
    FROM stock_adjustments GROUP BY product_id, warehouse_id
)
SELECT format('product %s in warehouse %s: total is %s, all but sales adds up to %s, sold are %s',
              product_id, warehouse_id, i.total, coalesce(m.delta, 0), coalesce(s.units, 0))
FROM inventory i
FULL JOIN sold s USING (product_id, warehouse_id)
LEFT JOIN moved m USING (product_id, warehouse_id)
WHERE i.total IS DISTINCT FROM coalesce(m.delta, 0) - coalesce(s.units, 0)`},
}

// The answer of a verb that isn't about one hold has results instead of an id.
var keyChecks = []check{
	{"I6", `
SELECT format('key %s has the answer of hold %s, which does not exist', k.key, k.answer ->> 'id')
FROM idempotency_keys k LEFT JOIN reservations r ON r.id = (k.answer ->> 'id')::uuid
WHERE k.created_at > $1 AND k.created_at <= $2 AND r.id IS NULL AND NOT k.answer ? 'results'`},
}

var holdChecks = []check{
	{"I2", `
SELECT format('hold %s is %s, but its line of product %s is still counted',
              r.id, r.status, l.product_id)
FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND l.counted AND r.status <> 'PENDING'`},
	{"I3", `
SELECT format('line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM reservation_items l LEFT JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.id IS NULL`},
	{"I4", `
SELECT format('hold %s was %s at %s, after its end, %s', id, status, updated_at, expires_at)
FROM reservations
WHERE id > $1 AND id <= $2 AND status IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at`},
	{"I7", `
SELECT format('cart %s holds %s units, its %s lines add up to %s',
              r.id, r.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM reservations r LEFT JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.id > $1 AND r.id <= $2 AND r.product_id IS NULL
GROUP BY r.id HAVING coalesce(sum(l.quantity), 0) <> r.quantity OR count(l.*) < 2`},
	{"I7", `
SELECT format('hold %s of one line has rows of lines too', r.id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.product_id IS NOT NULL`},
	// A line may be reclaimed only after its end. The clock may have jumped back behind that end
	// since then. The newest holds show how late it has been.
	{"I7", `
SELECT format('cart %s hasn''t ended and its line of product %s is not counted', r.id, l.product_id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2
  AND r.status = 'PENDING' AND NOT l.counted AND r.expires_at > clock_timestamp()
  AND r.expires_at > (SELECT max(n.created_at) FROM (
          SELECT created_at FROM reservations ORDER BY id DESC LIMIT 1000) n)`},
	{"I7", `
SELECT format('cart %s ends at %s, its line of product %s at %s',
              r.id, r.expires_at, l.product_id, l.expires_at)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.expires_at <> l.expires_at`},
	{"I9", `
SELECT format('hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM reservations
WHERE id > $1 AND id <= $2 AND status = 'EXPIRED' AND updated_at <> expires_at`},
}

// Audit checks every promise that the data can break, on the reader if the service has one. A
// reader may be a moment behind, and each of its snapshots is whole. Audit returns the violations,
// at most maxViolations for each check. It reads whole tables, but never keeps a snapshot for
// longer than wholeLimit. When a check doesn't end within its limit or before the context's
// deadline, Audit returns the violations found by the others together with the error.
func (s *Service) Audit(ctx context.Context) ([]Violation, error) {
	var found []Violation
	var errs []error
	for _, p := range parts {
		violations, err := s.audit(ctx, p)
		found = append(found, violations...)
		if err != nil {
			errs = append(errs, fmt.Errorf("audit: %w", err))
		}
	}
	return found, errors.Join(errs...)
}

// audit runs the checks of one part, slice by slice.
func (s *Service) audit(ctx context.Context, p part) (found []Violation, err error) {
	left := slices.Repeat([]int{maxViolations}, len(p.checks))
	pool := s.pool
	if s.opts.Reader != nil && !p.onWriter {
		pool = s.opts.Reader
	}
	readOnly := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}
	for after := p.after; err == nil; {
		last := p.last
		err = pool.Transaction(ctx, readOnly, func(tx pgx.Tx) error {
			var bounds []any
			if err := p.allow(ctx, tx); err != nil {
				return err
			}
			if p.end != "" {
				err := tx.QueryRow(ctx, p.end, after).Scan(&last)
				if err != nil && !errors.Is(err, pgx.ErrNoRows) {
					return err
				}
				bounds = []any{after, last}
			}
			for i, c := range p.checks {
				violations, err := c.run(ctx, tx, left[i], bounds)
				if err != nil {
					return fmt.Errorf("%s: %w", c.promise, err)
				}
				found = append(found, violations...)
				left[i] -= len(violations)
			}
			return nil
		})
		if last == p.last {
			break
		}
		after = last
	}
	return found, err
}

// allow sets the limit of each statement of a transaction. The server ends each at the context's
// deadline too, even when this client is gone by then. A part that is read whole may scan tables,
// which the role's settings forbid.
func (p part) allow(ctx context.Context, tx pgx.Tx) error {
	limit := sliceLimit
	if p.end == "" {
		limit = wholeLimit
		if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = on"); err != nil {
			return err
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Millisecond, time.Until(deadline)))
	}
	_, err := tx.Exec(ctx,
		fmt.Sprintf("SET LOCAL statement_timeout = %d", limit.Milliseconds()))
	return err
}

// run returns at most limit violations.
func (c check) run(
	ctx context.Context, tx pgx.Tx, limit int, bounds []any,
) ([]Violation, error) {
	rows, err := tx.Query(ctx, fmt.Sprintf("%s LIMIT %d", c.sql, limit), bounds...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Violation, error) {
		violation := Violation{Promise: c.promise}
		return violation, row.Scan(&violation.Detail)
	})
}
