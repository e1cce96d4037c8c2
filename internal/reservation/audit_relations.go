package reservation

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// This file has the promises of the tables beside the holds as queries: those of the payments, of
// the replacements, and of the parties, whose limits they are (I12). A check begins with a table
// rows, which a part selects. No violation names an owner, because the audits store them.

// relation is a table with rows of holds.
type relation struct {
	table string
	// key is the column by which a full audit reads the table, and keys are those that name a hold.
	key  string
	keys []string
	// checks are the promises of the rows.
	checks []check
}

var relations = []relation{
	{"hold_payments", "hold_id", []string{"hold_id"}, []check{{"payments", paymentSQL}}},
	{
		"replacements", "old_id",
		[]string{"old_id", "new_id"},
		[]check{{"replacements", replacementSQL}},
	},
	{
		"hold_parties", "hold_id",
		[]string{"hold_id"},
		[]check{{"parties", partySQL}, {"I12", limitSQL}},
	},
}

// relationParts read the tables by their holds.
func relationParts() (parts []part) {
	for _, r := range relations {
		p := part{
			name: r.table, after: uuid.Nil.String(), last: uuid.Max.String(),
			end: fmt.Sprintf(`
SELECT %[1]s::text FROM %[2]s WHERE %[1]s > $1 ORDER BY %[1]s OFFSET 1999 LIMIT 1`, r.key, r.table),
		}
		rows := fmt.Sprintf("\nWITH rows AS (SELECT * FROM %[2]s WHERE %[1]s > $1 AND %[1]s <= $2)",
			r.key, r.table)
		for _, c := range r.checks {
			p.checks = append(p.checks, check{c.promise, rows + c.sql})
		}
		parts = append(parts, p)
	}
	return parts
}

// relationChecks are the checks of the rows of the holds that a query selects.
func relationChecks(holdsSQL string) (checks []check) {
	for _, r := range relations {
		var selects []string
		for _, key := range r.keys {
			selects = append(selects, fmt.Sprintf(`
    SELECT o.* FROM holds h
    CROSS JOIN LATERAL (SELECT * FROM %s t WHERE t.%s = h.id OFFSET 0) o`, r.table, key))
		}
		rows := fmt.Sprintf("\nWITH holds AS (%s\n), rows AS (%s\n)", holdsSQL,
			strings.Join(selects, "\n    UNION"))
		for _, c := range r.checks {
			checks = append(checks, check{c.promise, rows + c.sql})
		}
	}
	return checks
}

// stored is the SQL of a join with the row of a hold, which may lie in the archive.
func stored(alias, id string) string {
	return strings.NewReplacer("ALIAS", alias, "ID", id).Replace(`
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = ID
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = ID
) ALIAS ON true`)
}

// paymentSQL finds the payments that contradict their hold, or the hold that follows it.
var paymentSQL = `
SELECT format('a payment of hold %s is %s, and the hold is %s; its successor %s is %s', p.hold_id,
              p.outcome, coalesce(h.status::text, 'missing'), coalesce(p.successor::text, 'none'),
              coalesce(s.status::text, 'missing'))
FROM rows p` + stored("h", "p.hold_id") + stored("s", "p.successor") + `
LEFT JOIN replacements f ON f.old_id = p.hold_id
WHERE CASE WHEN h.id IS NULL THEN ` + lostHold("h", "p.hold_id") + `
           WHEN p.outcome = 'STARTED'
           THEN h.status = 'CONFIRMED' OR h.status = 'PENDING' AND NOT h.paying
           WHEN p.outcome = 'CONFIRMED' THEN h.status <> 'CONFIRMED'
           WHEN p.outcome = 'REACQUIRED'
           THEN h.status NOT IN ('RELEASED', 'EXPIRED')
                OR f.new_id IS DISTINCT FROM p.successor
                OR CASE WHEN s.id IS NULL THEN ` + lostHold("s", "p.successor") + `
                        ELSE s.status <> 'CONFIRMED' END
           ELSE false END`

// payingSQL is a check of holds: it finds those that are being paid, or were when they were
// confirmed, without the payment. A hold that is dead stays as it was when its payment is lost.
const payingSQL = `
SELECT format('hold %s is %s and has a payment under way, which isn''t there', h.id, h.status)
FROM holds h
WHERE h.paying AND CASE h.status::text
      WHEN 'PENDING' THEN h.expires_at > clock_timestamp() AND NOT EXISTS (
           SELECT FROM hold_payments p WHERE p.hold_id = h.id AND p.outcome IN ('STARTED', 'LOST'))
      WHEN 'CONFIRMED' THEN NOT EXISTS (
           SELECT FROM hold_payments p WHERE p.hold_id = h.id AND p.outcome = 'CONFIRMED')
      ELSE false END`

// linesOf is the SQL of the lines of a cart, which may lie in the archive.
func linesOf(alias string) string {
	return strings.ReplaceAll(`(
    SELECT array_agg(ROW (l.product_id, l.warehouse_id, l.quantity)
                     ORDER BY l.product_id, l.warehouse_id)
    FROM (SELECT product_id, warehouse_id, quantity FROM reservation_items
          WHERE reservation_id = ALIAS.id
          UNION ALL
          SELECT product_id, warehouse_id, quantity FROM archived_items
          WHERE reservation_id = ALIAS.id) l)`, "ALIAS", alias)
}

// replacementSQL finds the holds that took the place of another one wrongly. One that a payment got
// is CONFIRMED from its beginning, and has the same lines. Any other got its place in the
// transaction that released the hold before.
var replacementSQL = `
SELECT format('hold %s took the place of hold %s: they are %s and %s', p.new_id, p.old_id,
              coalesce(n.status::text, 'missing'), coalesce(o.status::text, 'missing'))
FROM rows p` + stored("o", "p.old_id") + stored("n", "p.new_id") + `
WHERE CASE WHEN o.id IS NULL OR n.id IS NULL
           THEN ` + lostHold("o", "p.old_id") + `
             OR ` + lostHold("n", "p.new_id") + `
           WHEN o.status NOT IN ('RELEASED', 'EXPIRED') OR NOT n.detailed THEN true
           WHEN EXISTS (SELECT FROM hold_payments q
                        WHERE q.hold_id = p.old_id AND q.outcome = 'REACQUIRED'
                          AND q.successor = p.new_id)
           THEN n.status <> 'CONFIRMED' OR n.version <> 1
                OR (o.product_id, o.warehouse_id, o.quantity)
                   IS DISTINCT FROM (n.product_id, n.warehouse_id, n.quantity)
                OR ` + linesOf("o") + " IS DISTINCT FROM " + linesOf("n") + `
           ELSE NOT EXISTS (
                SELECT FROM ledger l
                WHERE l.hold_id = o.id AND l.version = o.version AND l.kind = 'r' AND l.cause = 'r'
                UNION ALL
                SELECT FROM archived_ledger l
                WHERE l.hold_id = o.id AND l.version = o.version AND l.kind = 'r' AND l.cause = 'r')
           END`

// partySQL finds the parties of a hold that isn't there, or doesn't know of them.
var partySQL = `
SELECT format('hold %s has an owner or a reference, and is %s', p.hold_id,
              CASE WHEN h.id IS NULL THEN 'missing' ELSE 'not detailed' END)
FROM rows p` + stored("h", "p.hold_id") + `
WHERE CASE WHEN h.id IS NULL THEN ` + lostHold("h", "p.hold_id") + `
           ELSE NOT h.detailed END`

// limitSQL finds the owners who have more of a product than its limit. The units of a hold count
// that is CONFIRMED, or that is alive now and was when the newest was made: the clock may have
// jumped back since. When the limit is younger than the newest hold, or hardly older, the hold was
// judged by another one: the stock rows follow the catalog within a minute.
const limitSQL = `, pairs AS (
    SELECT DISTINCT p.owner, l.product_id
    FROM rows p
    CROSS JOIN LATERAL (
        SELECT product_id FROM reservations WHERE id = p.hold_id AND product_id IS NOT NULL
        UNION ALL
        SELECT product_id FROM reservation_items WHERE reservation_id = p.hold_id
    ) l
    WHERE p.owner IS NOT NULL
)
SELECT format('the owner of hold %s has %s units of product %s, and the limit is %s',
              u.newest_id, u.units, d.id, d.max_per_owner)
FROM pairs JOIN products d ON d.id = pairs.product_id
CROSS JOIN LATERAL (
    SELECT sum(c.units) FILTER (WHERE c.until > c.newest) AS units, max(c.newest) AS newest,
           (array_agg(c.id ORDER BY c.created_at DESC))[1] AS newest_id
    FROM (
        SELECT h.id, h.created_at, max(h.created_at) OVER () AS newest, h.until,
               h.units - (SELECT coalesce(sum(b.quantity), 0) FROM returns b
                          WHERE b.reservation_id = h.id AND b.product_id = d.id) AS units
        FROM (
            SELECT r.id, r.created_at,
                   CASE r.status WHEN 'PENDING' THEN r.expires_at ELSE 'infinity' END AS until,
                   CASE WHEN r.product_id IS NULL THEN (
                            SELECT sum(l.quantity) FROM reservation_items l
                            WHERE l.reservation_id = r.id AND l.product_id = d.id)
                        WHEN r.product_id = d.id THEN r.quantity END AS units
            FROM hold_parties o JOIN reservations r ON r.id = o.hold_id
            WHERE o.owner = pairs.owner
              AND (r.status = 'CONFIRMED'
                   OR r.status = 'PENDING' AND NOT hold_is_dead(r, clock_timestamp()))
            UNION ALL
            SELECT a.id, a.created_at, 'infinity',
                   CASE WHEN a.product_id IS NULL THEN (
                            SELECT sum(l.quantity) FROM archived_items l
                            WHERE l.reservation_id = a.id AND l.product_id = d.id
                              AND l.resolved_at = a.updated_at)
                        WHEN a.product_id = d.id THEN a.quantity END
            FROM hold_parties o JOIN archived_reservations a ON a.id = o.hold_id
            WHERE o.owner = pairs.owner AND a.status = 'CONFIRMED'
        ) h
        WHERE h.units IS NOT NULL
    ) c
) u
WHERE u.units > d.max_per_owner AND u.newest > d.changed_at + interval '2 min'`
