package reservation

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// missingHold is the SQL of a condition: a hold, of which hold is the row or null, is missing. A
// hold that lies in the archive isn't, and neither is one whose month may have been detached. at is
// about when it was resolved.
func missingHold(hold, id, at string) string {
	return hold + ` IS NULL
  AND NOT EXISTS (SELECT FROM archived_reservations a WHERE a.id = ` + id + `)
  AND NOT ` + detachedAt(at)
}

// detachedAt is the SQL of a condition: the month of the time at, or of the hour before, was
// detached.
func detachedAt(at string) string {
	return `EXISTS (SELECT FROM archived_months d
                  WHERE d.detached AND d.month <= ` + at + `
                    AND next_month(d.month) > ` + at + ` - interval '1 hour')`
}

// lostHold is the SQL of a condition: a hold, of which hold is the stored row or null, isn't there,
// and didn't lie in a month that was detached. A hold is resolved at most longest_hold() after it
// was made, which its id tells: a UUIDv7 begins with the milliseconds since 1970. The hour is for a
// service whose clock is ahead of the database's.
func lostHold(hold, id string) string {
	return hold + `.id IS NULL AND NOT EXISTS (
               SELECT FROM archived_months d
               CROSS JOIN (SELECT to_timestamp(('x' || left(replace(` + id + `::text, '-', ''), 12)
                                               )::bit(48)::bigint / 1000.0) AS made) t
               WHERE d.detached AND d.month <= t.made + longest_hold()
                 AND next_month(d.month) > t.made - interval '1 hour')`
}

// goneWithAMonth is the SQL of a condition: the movement seq of the stock row of s, its row of
// archived_stock, may have gone with a month that was detached.
func goneWithAMonth(seq string) string { return seq + " <= s.detached" }

// soldInArchive is the SQL of a condition: the hold that the movement m sold lies in the archive,
// CONFIRMED and with as many units of the stock row. Its month may have been detached.
var soldInArchive = `(-m.delta IS NOT DISTINCT FROM (
          SELECT coalesce(l.quantity, a.quantity) FROM archived_reservations a
          LEFT JOIN archived_items l
               ON l.reservation_id = a.id AND l.resolved_at = a.updated_at
              AND l.product_id = m.product_id AND l.warehouse_id = m.warehouse_id
          WHERE a.id = m.reservation_id AND a.status = 'CONFIRMED'
            AND (l.product_id IS NOT NULL
                 OR (a.product_id, a.warehouse_id) = (m.product_id, m.warehouse_id)))
      OR ` + detachedAt("m.at") + `)`

// The parts of the archive. What lies in a detached month isn't read, and isn't missed. They come
// after the other tables, so that a row that moves meanwhile is read at least once. The slices are
// small, because a look for one row asks each month's partition.
var (
	archivedHolds = part{
		name: "archived holds", after: uuid.Nil.String(), last: uuid.Max.String(),
		end: `
SELECT r.id::text FROM archived_reservations r WHERE r.id > $1
ORDER BY r.id OFFSET 999 LIMIT 1`,
		checks: archivedHoldChecks,
	}
	archivedMovements = part{
		name: "archived movements", after: noMovement, last: lastMovement,
		end: `
SELECT concat_ws(',', m.product_id, m.warehouse_id, m.seq) FROM archived_movements m
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
ORDER BY m.product_id, m.warehouse_id, m.seq OFFSET 999 LIMIT 1`,
		checks: archivedMovementChecks,
	}
	archivedStock = part{
		name: "archived stock", after: uuid.Nil.String(), last: uuid.Max.String(),
		end: `
SELECT a.product_id::text FROM archived_stock a WHERE a.product_id > $1
ORDER BY a.product_id OFFSET 9999 LIMIT 1`,
		checks: archivedStockChecks,
	}
)

var archivedHoldChecks = []check{
	{"I3", `
SELECT format('hold %s lies in the archive and is there, as %s', a.id, r.status)
FROM archived_reservations a JOIN reservations r ON r.id = a.id
WHERE a.id > $1 AND a.id <= $2`},
	{"I3", `
SELECT format('the archived line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM archived_items l
LEFT JOIN archived_reservations a ON a.id = l.reservation_id AND a.updated_at = l.resolved_at
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND a.id IS NULL`},
	{"I4", `
SELECT format('the archived hold %s was %s at %s, after its end, %s', id, status, updated_at,
              expires_at)
FROM archived_reservations
WHERE id > $1 AND id <= $2 AND status IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at`},
	{"I7", `
SELECT format('the archived hold %s holds %s units, its %s lines add up to %s',
              a.id, a.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM archived_reservations a
LEFT JOIN archived_items l ON l.reservation_id = a.id AND l.resolved_at = a.updated_at
WHERE a.id > $1 AND a.id <= $2
GROUP BY a.id, a.quantity, a.product_id
HAVING CASE WHEN a.product_id IS NULL
            THEN coalesce(sum(l.quantity), 0) <> a.quantity OR count(l.*) < 2
            ELSE count(l.*) > 0 END`},
	{"I9", `
SELECT format('the archived hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM archived_reservations
WHERE id > $1 AND id <= $2 AND status = 'EXPIRED' AND updated_at <> expires_at`},
	{"I10", `
WITH holds AS (SELECT * FROM archived_reservations WHERE id > $1 AND id <= $2)` +
		foldSQL("archived_ledger", "SELECT * FROM archived_ledger WHERE hold_id > $1 AND hold_id <= $2")},
	{"I10", `
SELECT format('the archived ledger has version %s of hold %s, which isn''t there', l.version,
              l.hold_id)
FROM archived_ledger l
LEFT JOIN archived_reservations a ON a.id = l.hold_id AND a.updated_at = l.resolved_at
WHERE l.hold_id > $1 AND l.hold_id <= $2 AND a.id IS NULL`},
}

// inSlice is the SQL of a condition: the movement m lies in the slice.
var inSlice = "(m.product_id, m.warehouse_id, m.seq) > " + movementKey("$1") + `
  AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2")

// followsCheck finds each movement of a table whose total doesn't follow from the movement before,
// wherever that lies. The one before may have gone with a month that was detached.
func followsCheck(table string) check {
	return check{"I8", `
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows one to %s',
              m.product_id, m.warehouse_id, m.seq, m.delta, m.total_after, before.total_after)
FROM ` + table + ` m
JOIN archived_stock s ON s.product_id = m.product_id AND s.warehouse_id = m.warehouse_id
LEFT JOIN LATERAL (
    SELECT b.total_after FROM stock_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
    UNION ALL
    SELECT b.total_after FROM archived_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
) before ON true
WHERE ` + inSlice + `
  AND m.seq BETWEEN 2 AND s.seq AND m.total_after IS DISTINCT FROM m.delta + before.total_after
  AND (before.total_after IS NOT NULL OR NOT ` + goneWithAMonth("m.seq - 1") + `)`}
}

var archivedMovementChecks = []check{
	followsCheck("archived_movements"),
	{"I8", `
SELECT format('movement %s of product %s in warehouse %s lies in the archive and is there',
              m.seq, m.product_id, m.warehouse_id)
FROM archived_movements m JOIN stock_movements o USING (product_id, warehouse_id, seq)
WHERE ` + inSlice},
	{"I8", `
SELECT format('movement %s of product %s in warehouse %s lies in the archive, which ends at %s',
              m.seq, m.product_id, m.warehouse_id, s.seq)
FROM archived_movements m LEFT JOIN archived_stock s USING (product_id, warehouse_id)
WHERE ` + inSlice + ` AND m.seq > coalesce(s.seq, 0)`},
	// A hold is archived before its sales.
	{"I8", `
SELECT format('archived movement %s of product %s in warehouse %s sold %s units of hold %s, which '
              'isn''t in the archive with as many',
              m.seq, m.product_id, m.warehouse_id, -m.delta, m.reservation_id)
FROM archived_movements m
WHERE ` + inSlice + ` AND m.kind = 'SALE' AND m.note IS DISTINCT FROM 'by the previous release'
  AND NOT ` + soldInArchive},
}

var archivedStockChecks = []check{
	{"I8", `
SELECT format('product %s in warehouse %s: the archive ends with movement %s to %s, not %s',
              s.product_id, s.warehouse_id, s.seq, s.total, m.total_after)
FROM archived_stock s
LEFT JOIN LATERAL (
    SELECT o.total_after FROM stock_movements o
    WHERE o.product_id = s.product_id AND o.warehouse_id = s.warehouse_id AND o.seq = s.seq
    UNION ALL
    SELECT o.total_after FROM archived_movements o
    WHERE o.product_id = s.product_id AND o.warehouse_id = s.warehouse_id AND o.seq = s.seq
) m ON true
WHERE s.product_id > $1 AND s.product_id <= $2 AND s.seq > 0
  AND m.total_after IS DISTINCT FROM s.total
  AND (m.total_after IS NOT NULL OR NOT ` + goneWithAMonth("s.seq") + `)`},
}

// archivedSums compares the sums of each row of archived_stock, sold and moved, with each other.
// A stock row may have too many archived movements for one slice, and some of them may have been
// detached. The check reads only the movements that are there. All deltas up to the archive's end
// add up to its total, so this tells the sum of those that were archived: moved, less their sales.
// sold has these sales, and those whose hold was archived before them. An error that is the same in
// both sums isn't found: only their difference is ever read.
//
// The check reads the first maxLater movements behind the archive's end. When there are more, it
// finds only a sum that is too low. It doesn't judge a stock row that is older than the movements,
// because what was sold before has none, nor one with a SALE that names no hold, because that hold
// may be archived or not.
var archivedSums = part{
	name: "archived sums", after: uuid.Nil.String() + "," + uuid.Nil.String(),
	last: uuid.Max.String() + "," + uuid.Max.String(),
	end: `
SELECT concat_ws(',', a.product_id, a.warehouse_id) FROM archived_stock a
WHERE (a.product_id, a.warehouse_id) > ` + stockKey("$1") + `
ORDER BY a.product_id, a.warehouse_id OFFSET 99 LIMIT 1`,
	checks: []check{{"I8", `
SELECT format('product %s in warehouse %s: %s units were sold from the archive, and the movements '
              'say %s', s.product_id, s.warehouse_id, s.sold, s.moved + m.rest)
FROM archived_stock s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(l.delta) FILTER (WHERE l.seq <= s.seq), 0) - s.total
           - coalesce(sum(l.delta) FILTER (WHERE l.kind = 'SALE' AND r.id IS NULL), 0) AS rest,
           coalesce(bool_or(l.kind = 'SALE' AND l.reservation_id IS NULL
                            OR l.kind = 'OPENING' AND l.note = 'taken over'), false) AS unsure,
           count(*) FILTER (WHERE l.seq > s.seq) <= ` + strconv.Itoa(maxLater) + ` AS complete
    FROM (
        SELECT o.seq, o.kind, o.delta, o.reservation_id, o.note FROM stock_movements o
        WHERE o.product_id = s.product_id AND o.warehouse_id = s.warehouse_id AND o.seq <= s.seq
        UNION ALL
        (SELECT o.seq, o.kind, o.delta, o.reservation_id, o.note FROM stock_movements o
         WHERE o.product_id = s.product_id AND o.warehouse_id = s.warehouse_id AND o.seq > s.seq
         ORDER BY o.seq LIMIT ` + strconv.Itoa(maxLater+1) + `)
    ) l
    LEFT JOIN reservations r ON l.kind = 'SALE' AND r.id = l.reservation_id
) m
WHERE (s.product_id, s.warehouse_id) > ` + stockKey("$1") + `
  AND (s.product_id, s.warehouse_id) <= ` + stockKey("$2") + `
  AND NOT m.unsure
  AND (s.sold < s.moved + m.rest OR m.complete AND s.sold > s.moved + m.rest)`}},
}

// maxLater bounds the movements behind the archive's end that a slice reads of a stock row. A slice
// of a hundred such rows is read in a fraction of sliceLimit.
const maxLater = 2000

// stockKey is the SQL of a stock row's key as a row value: its product and its warehouse, with a
// comma between.
func stockKey(param string) string {
	return fmt.Sprintf("(split_part(%[1]s, ',', 1)::uuid, split_part(%[1]s, ',', 2)::uuid)", param)
}

// closings compares each closing with the movement that it names. The archive takes no movement
// that a closing names, but a closing that was repaired may name the archive's end.
var closings = part{
	name: "closings", after: uuid.Nil.String(), last: uuid.Max.String(),
	end: `
SELECT c.product_id::text FROM stock_closings c WHERE c.product_id > $1
ORDER BY c.product_id OFFSET 999 LIMIT 1`,
	checks: []check{{"I8", `
SELECT format('product %s in warehouse %s: its closing says that movement %s leads to %s, and it '
              '%s', c.product_id, c.warehouse_id, c.seq, c.total,
              coalesce('leads to ' || m.total_after, 'isn''t there'))
FROM stock_closings c
LEFT JOIN stock_movements m USING (product_id, warehouse_id, seq)
WHERE c.product_id > $1 AND c.product_id <= $2 AND m.total_after IS DISTINCT FROM c.total
  AND NOT EXISTS (SELECT FROM archived_stock s
                  WHERE s.product_id = c.product_id AND s.warehouse_id = c.warehouse_id
                    AND s.seq = c.seq AND s.total = c.total AND m.seq IS NULL)`}},
}
