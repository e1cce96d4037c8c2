package reservation

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/postgres"
)

// This file has the promises as queries, and the slices in which the audits read the tables.

const (
	// sampleSize is the number of old holds that each audit looks at.
	sampleSize = 1000
	// maxHolds is the number of holds in a slice. Each may be a cart of a hundred lines.
	maxHolds = 2000
)

// fullParts reads everything that can be read in slices.
func fullParts() []part {
	stock := stockRows(append(slices.Clone(stockChecks), newestChecks...))
	parts := []part{
		stock, settings, movements, keys("-infinity"), lines(uuid.Nil), holdsByID("holds", maxHolds),
		returned("-infinity"),
	}
	parts = append(parts, relationParts()...)
	return append(parts, closings, archivedHolds, archivedMovements, archivedStock, archivedSums)
}

// newParts reads the stock rows and the live holds, which are no more than the shop has, and of the
// rest what is new for a run of AuditNew: the movements behind the closings, the keys and the
// returns since an instant, the holds and lines with newer ids than the given one, and the holds of
// the new rows of the ledger. sample is an earlier id: the holds that follow it are a sample of the
// old ones.
func newParts(run auditRun, newerThan uuid.UUID, sample string) []part {
	since := run.Since.Time.UTC().Format(time.RFC3339Nano)
	stock := stockRows(stockChecks)
	stock.closes = true
	parts := []part{
		stock, settings, triggers, keys(since), lines(newerThan), liveHolds, newHolds(newerThan),
		newTransitions(run.Seen, run.next()), returned(since), sampledHolds(sample),
	}
	for i, p := range parts {
		if onlyNew := p.name != stock.name && p.name != liveHolds.name; onlyNew {
			parts[i].run = run.Run
		}
	}
	return parts
}

// No row has the first or the last uuid as its key.

// stockRows reads the stock rows, product by product.
func stockRows(checks []check) part {
	return part{
		name: "stock rows", after: uuid.Nil.String(), last: uuid.Max.String(),
		end: `
SELECT i.product_id::text FROM inventory i WHERE i.product_id > $1
ORDER BY i.product_id OFFSET 9999 LIMIT 1`,
		checks: checks,
	}
}

// settings reads the server's settings.
var settings = part{
	name: "settings", onWriter: true,
	checks: []check{{"I5", postgres.BrokenRulesSQL(postgres.InAudit)}},
}

// triggers reads whether the triggers are there that refuse to change or delete a resolved hold, a
// payment's final outcome, a replacement, a movement or a row of the ledger, to change a total
// without a movement, or to take back more than was sold, and that copy the catalog to a new stock
// row. Such a change leaves no trace for an audit of what is new.
var triggers = part{
	name: "triggers",
	checks: []check{{
		"I3", triggerSQL("reservations", "i3_resolved_once_i4_alive") + " UNION ALL " +
			triggerSQL("reservations", "i3_holds_stay") + " UNION ALL " +
			triggerSQL("reservation_items", "i3_lines_stay") + " UNION ALL " +
			triggerSQL("archived_reservations", "archive_stays") + " UNION ALL " +
			triggerSQL("archived_items", "archive_stays") + " UNION ALL " +
			triggerSQL("hold_payments", "i3_payment_is_final") + " UNION ALL " +
			triggerSQL("replacements", "i3_replacements_stay"),
	}, {
		"I8", triggerSQL("stock_movements", "i8_movement_is_right") + " UNION ALL " +
			triggerSQL("stock_movements", "i8_movements_stay") + " UNION ALL " +
			triggerSQL("inventory", "i8_stock_stays") + " UNION ALL " +
			triggerSQL("inventory", "i8_total_moves") + " UNION ALL " +
			triggerSQL("archived_movements", "archive_stays"),
	}, {
		"I10", triggerSQL("ledger", "i10_ledger_stays") + " UNION ALL " +
			triggerSQL("archived_ledger", "archive_stays"),
	}, {
		"returns", triggerSQL("returns", "returned_within_sold"),
	}, {
		"catalog", triggerSQL("inventory", "stock_follows_catalog"),
	}},
}

// triggerSQL finds a trigger that is missing or switched off.
func triggerSQL(table, trigger string) string {
	return fmt.Sprintf(`
SELECT 'the trigger %[2]s of %[1]s is missing or switched off'
WHERE NOT EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = '%[1]s'::regclass AND t.tgname = '%[2]s' AND t.tgenabled = 'O')`,
		table, trigger)
}

var movements = part{
	name: "movements", after: noMovement, last: lastMovement,
	end: `
SELECT concat_ws(',', m.product_id, m.warehouse_id, m.seq) FROM stock_movements m
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
ORDER BY m.product_id, m.warehouse_id, m.seq OFFSET 9999 LIMIT 1`,
	checks: movementChecks,
}

// keys reads the idempotency keys since an instant.
func keys(since string) part {
	return part{
		name: "keys", after: since, last: "infinity",
		end: `
SELECT k.created_at::text FROM idempotency_keys k WHERE k.created_at > $1
ORDER BY k.created_at OFFSET 9999 LIMIT 1`,
		checks: keyChecks,
	}
}

// lines reads the lines of carts whose ids are newer than the given one.
func lines(newerThan uuid.UUID) part {
	return part{
		name: "lines", after: newerThan.String(), last: uuid.Max.String(),
		end: `
SELECT l.reservation_id::text FROM reservation_items l WHERE l.reservation_id > $1
ORDER BY l.reservation_id OFFSET 9999 LIMIT 1`,
		checks: lineChecks,
	}
}

// returned reads the returns since an instant.
func returned(since string) part {
	return part{
		name: "returns", after: since, last: "infinity",
		end: `
SELECT b.at::text FROM returns b WHERE b.at > $1 ORDER BY b.at OFFSET 9999 LIMIT 1`,
		checks: returnChecks,
	}
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

// stockChecks compare the stock rows with what is live.
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
  AND p.id > $1 AND p.id <= $2
  AND (i.open, i.max_per_hold, i.max_per_owner) IS DISTINCT FROM
      (p.status = 'ACTIVE' AND w.status = 'OPEN', p.max_per_hold, p.max_per_owner)
  AND greatest(p.changed_at, w.changed_at) < clock_timestamp() - interval '1 min'`},
}

// newestChecks compare each stock row with its newest movement.
var newestChecks = []check{
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

// movementChecks begin each slice with the last movement of the slice before.
var movementChecks = []check{
	{"I8", `
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows movement %s, to %s',
              product_id, warehouse_id, seq, delta, total_after, seq_before, total_before)
FROM (SELECT m.*, greatest(lag(m.seq, 1, 0::bigint) OVER w, s.seq) AS seq_before,
             CASE WHEN s.seq >= lag(m.seq, 1, 0::bigint) OVER w THEN s.total
                  ELSE lag(m.total_after, 1, 0) OVER w END AS total_before,
             coalesce(s.seq, 0) AS archived
      FROM stock_movements m LEFT JOIN archived_stock s USING (product_id, warehouse_id)
      WHERE (m.product_id, m.warehouse_id, m.seq) >= ` + movementKey("$1") + `
        AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
      WINDOW w AS (PARTITION BY m.product_id, m.warehouse_id ORDER BY m.seq)) m
WHERE (product_id, warehouse_id, seq) > ` + movementKey("$1") + `
  AND seq > archived AND (seq <> seq_before + 1 OR total_after <> total_before + delta)`},
	followsCheck("stock_movements"), // those that stay behind the archive's end
	{"I8", `
SELECT format('product %s in warehouse %s has movements and no stock row',
              m.product_id, m.warehouse_id)
FROM stock_movements m LEFT JOIN inventory i USING (product_id, warehouse_id)
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
  AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
  AND m.seq = 1 AND i.product_id IS NULL`},
	{"I8", `
SELECT format('product %s in warehouse %s: movement %s is a sale of %s units of hold %s, '
              'which is %s and has %s in one of %s sales',
              m.product_id, m.warehouse_id, m.seq, -m.delta, m.reservation_id,
              coalesce(h.status::text, 'missing'), coalesce(h.quantity, 0), h.sales)
FROM (SELECT * FROM stock_movements m
      WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
        AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `) m` + wrongSaleSQL},
	{"returns", `
SELECT format('product %s in warehouse %s: movement %s is a RETURN, and no return has it',
              m.product_id, m.warehouse_id, m.seq)
FROM (SELECT * FROM stock_movements m
      WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
        AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
     ) m` + wrongReturnSQL},
}

// wrongReturnSQL follows movements m, and leaves the RETURN movements that no return names.
const wrongReturnSQL = `
LEFT JOIN returns b ON b.reservation_id = m.reservation_id AND b.reference = m.reference
                   AND b.line = m.line
WHERE m.kind = 'RETURN' AND m.seq IS DISTINCT FROM b.seq`

// wrongSaleSQL follows movements m, and leaves the sales that contradict their hold h: it isn't
// CONFIRMED, has another quantity of this stock row, or was sold twice. A SALE is written in the
// transaction that confirms its hold, so only a SALE of another transaction makes it worthwhile to
// look for a second one. A hold of version 0 has no ledger, so there the time must do.
//
// A confirm of a release from before the movements may have got a SALE without the hold.
var wrongSaleSQL = `
CROSS JOIN LATERAL (
    SELECT r.status, -- one row, also when there is no hold
           CASE WHEN r.product_id IS NULL THEN l.quantity
                WHEN (r.product_id, r.warehouse_id) = (m.product_id, m.warehouse_id)
                THEN r.quantity END AS quantity,
           CASE WHEN r.version > 0 AND m.xid = (
                    SELECT l.xid FROM ledger l
                    WHERE l.hold_id = r.id AND l.version = r.version AND l.kind = 'c') THEN 1
                WHEN r.version = 0 AND m.at BETWEEN r.updated_at - interval '10 s'
                                                AND r.updated_at + interval '10 s' THEN 1
                ELSE (SELECT count(*) FROM stock_movements s
                      WHERE s.product_id = m.product_id AND s.warehouse_id = m.warehouse_id
                        AND s.reservation_id = m.reservation_id AND s.kind = 'SALE') END AS sales
    FROM (SELECT) one
    LEFT JOIN reservations r ON r.id = m.reservation_id
    LEFT JOIN reservation_items l
         ON l.reservation_id = m.reservation_id AND l.product_id = m.product_id
        AND l.warehouse_id = m.warehouse_id
) h
WHERE m.kind = 'SALE' AND m.note IS DISTINCT FROM 'by the previous release'
  AND (h.status IS DISTINCT FROM 'CONFIRMED' OR h.quantity IS DISTINCT FROM -m.delta
       OR h.sales > 1)
  AND NOT (h.status IS NULL AND h.sales < 2 AND ` + soldInArchive + `)`

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

// The answer of a verb that isn't about one hold has results instead of an id. That of a payment
// that is lost says what was short.
var keyChecks = []check{
	{"I6", `
SELECT format('key %s has the answer of hold %s, which does not exist', k.key, k.answer ->> 'id')
FROM idempotency_keys k LEFT JOIN reservations r ON r.id = (k.answer ->> 'id')::uuid
WHERE k.created_at > $1 AND k.created_at <= $2 AND NOT k.answer ? 'results'
  AND ` + missingHold("r.id", "(k.answer ->> 'id')::uuid",
		"(k.answer ->> 'updated_at')::timestamptz")},
}

// lineChecks read the lines of carts.
var lineChecks = []check{
	{"I2", `
SELECT format('hold %s is %s, but its line of product %s is still counted',
              r.id, r.status, l.product_id)
FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND l.counted AND r.status <> 'PENDING'`},
	{"I3", `
SELECT format('line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM reservation_items l LEFT JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.id IS NULL`},
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
}

var returnChecks = []check{
	{"returns", `
SELECT format('hold %s is %s: %s units of product %s in warehouse %s are back, and its line has %s',
              b.reservation_id, coalesce(r.status::text, 'missing'), b.units, b.product_id,
              b.warehouse_id, coalesce(r.of_line, r.quantity, 0))
FROM (
    SELECT a.reservation_id, a.product_id, a.warehouse_id, sum(a.quantity) AS units
    FROM (SELECT DISTINCT n.reservation_id FROM returns n WHERE n.at > $1 AND n.at <= $2) n
    JOIN returns a USING (reservation_id)
    GROUP BY a.reservation_id, a.product_id, a.warehouse_id
) b
LEFT JOIN LATERAL (
    SELECT r.id, r.status, r.product_id, r.warehouse_id, r.quantity, l.quantity AS of_line
    FROM reservations r
    LEFT JOIN reservation_items l ON l.reservation_id = r.id AND l.product_id = b.product_id
                                 AND l.warehouse_id = b.warehouse_id
    WHERE r.id = b.reservation_id
    UNION ALL
    SELECT r.id, r.status, r.product_id, r.warehouse_id, r.quantity, l.quantity
    FROM archived_reservations r
    LEFT JOIN archived_items l ON l.reservation_id = r.id AND l.product_id = b.product_id
                              AND l.warehouse_id = b.warehouse_id AND l.resolved_at = r.updated_at
    WHERE r.id = b.reservation_id
) r ON true
WHERE CASE WHEN r.id IS NULL THEN ` + lostHold("r", "b.reservation_id") + `
           ELSE r.status <> 'CONFIRMED' OR b.units >
                CASE WHEN r.product_id IS NULL THEN coalesce(r.of_line, 0)
                     WHEN (r.product_id, r.warehouse_id) = (b.product_id, b.warehouse_id)
                     THEN r.quantity ELSE 0 END END`},
	{"returns", `
SELECT format('hold %s: line %s of the return %s has the movement %s, which is another one',
              b.reservation_id, b.line, b.reference, b.seq)
FROM returns b
LEFT JOIN stock_movements m ON m.product_id = b.product_id AND m.warehouse_id = b.to_warehouse_id
                           AND m.seq = b.seq
WHERE b.at > $1 AND b.at <= $2 AND b.seq IS NOT NULL
  AND (m.kind::text, m.delta, m.reservation_id, m.reference, m.line) IS DISTINCT FROM
      ('RETURN', b.quantity, b.reservation_id, b.reference, b.line)`},
}
