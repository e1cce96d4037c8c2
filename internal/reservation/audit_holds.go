package reservation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// This file has the promises of a hold as queries: those of its row, of its lines, of its sales and
// of its ledger. A check of holds begins with a table holds, which a part selects.

// holdsByID reads holds by their ids, with all checks of a hold.
func holdsByID(name string, size int) part {
	return part{
		name: name, after: uuid.Nil.String(), last: uuid.Max.String(),
		end: fmt.Sprintf(`
SELECT r.id::text FROM reservations r WHERE r.id > $1 ORDER BY r.id OFFSET %d LIMIT 1`, size-1),
		checks: checksOf(holdsBetweenSQL, ledgerBetweenSQL),
	}
}

// sampledHolds reads a sample of the holds, from an id on.
func sampledHolds(from string) part {
	p := holdsByID("sample", sampleSize)
	p.after, p.once = from, true
	return p
}

// newHolds counts the ledger's rows of the holds whose ids are newer than the given one. It finds a
// transition that wrote none, which the new rows of the ledger don't show.
func newHolds(newerThan uuid.UUID) part {
	p := holdsByID("new holds", maxHolds)
	p.after = newerThan.String()
	p.checks = []check{{"I10", `
SELECT format('hold %s is of version %s, and the ledger has %s rows of it', r.id, r.version, l.n)
FROM reservations r
CROSS JOIN LATERAL (SELECT count(*) AS n FROM ledger l WHERE l.hold_id = r.id) l
WHERE r.id > $1 AND r.id <= $2 AND r.version <> l.n`}}
	return p
}

// liveHolds reads the PENDING holds.
var liveHolds = part{
	name: "live holds", after: "-infinity", last: "infinity",
	end: `
SELECT r.expires_at::text FROM reservations r WHERE r.status = 'PENDING' AND r.expires_at > $1
ORDER BY r.expires_at OFFSET 1999 LIMIT 1`,
	checks: []check{
		{"I7", liveSQL + wholeCartSQL},
		{"I10", liveSQL + foldSQL("ledger", ledgerOfHoldsSQL)},
		{"payments", liveSQL + payingSQL},
	},
}

const liveSQL = `
WITH holds AS (
    SELECT * FROM reservations
    WHERE status = 'PENDING' AND expires_at > $1 AND expires_at <= $2
)`

// newTransitions reads the holds of the new rows of the ledger: those that the snapshot next sees
// and the snapshot seen doesn't. The key of a slice is a transaction's id.
func newTransitions(seen, next string) part {
	// A transaction that the snapshot seen doesn't see was running then, or began later. To look from
	// its xmin on would read the rows of every transaction since the oldest that was running.
	newRows := strings.NewReplacer("SEEN", "'"+seen+"'::pg_snapshot",
		"NEXT", "'"+next+"'::pg_snapshot").Replace(`
    SELECT l.xid, l.hold_id FROM ledger l
    WHERE l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(SEEN))) AND l.xid > $1::xid8 AND UPTO
      AND pg_visible_in_snapshot(l.xid, NEXT)
    UNION ALL
    SELECT l.xid, l.hold_id FROM ledger l
    WHERE l.xid >= pg_snapshot_xmax(SEEN) AND l.xid > $1::xid8 AND UPTO
      AND l.xid < pg_snapshot_xmax(NEXT) AND pg_visible_in_snapshot(l.xid, NEXT)`)
	upTo := func(condition string) string { return strings.ReplaceAll(newRows, "UPTO", condition) }
	holds := fmt.Sprintf(`
    SELECT r.* FROM (SELECT DISTINCT n.hold_id FROM (%s) n) d
    CROSS JOIN LATERAL (SELECT * FROM reservations h WHERE h.id = d.hold_id OFFSET 0) r`,
		upTo("l.xid <= $2::xid8"))
	missing := fmt.Sprintf(`
SELECT DISTINCT format('the ledger has rows of hold %%s, which does not exist', n.hold_id)
FROM (%s) n WHERE NOT EXISTS (SELECT FROM reservations r WHERE r.id = n.hold_id)`,
		upTo("l.xid <= $2::xid8"))
	return part{
		name: "new transitions", after: "0", last: pastTransactions,
		end: fmt.Sprintf(`
SELECT n.xid::text FROM (%s) n ORDER BY n.xid OFFSET %d LIMIT 1`, upTo("true"), maxHolds-1),
		checks: slices.Concat(checksOf(holds, ledgerOfHoldsSQL), relationChecks(holds),
			[]check{{"I10", missing}}),
	}
}

// pastTransactions is higher than every id of a transaction.
const pastTransactions = "18446744073709551615"

// The holds of a slice by id, and their rows of the ledger.
const (
	holdsBetweenSQL = `
    SELECT * FROM reservations WHERE id > $1 AND id <= $2`
	ledgerBetweenSQL = `SELECT * FROM ledger WHERE hold_id > $1 AND hold_id <= $2`
)

// ledgerOfHoldsSQL selects the rows of the ledger of few holds.
const ledgerOfHoldsSQL = `
        SELECT l.* FROM holds r
        CROSS JOIN LATERAL (SELECT * FROM ledger o WHERE o.hold_id = r.id OFFSET 0) l`

// checksOf are the checks of the holds that one query selects, with the rows of the ledger that
// another one selects.
func checksOf(holdsSQL, ledgerSQL string) []check {
	holds := "\nWITH holds AS (" + holdsSQL + "\n)"
	return []check{
		{"I4", holds + `
SELECT format('hold %s was %s at %s, after its end, %s', id, status, updated_at, expires_at)
FROM holds
WHERE status::text IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at`},
		{"I7", holds + wholeCartSQL},
		{"I8", holds + soldSQL},
		{"I9", holds + `
SELECT format('hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM holds
WHERE status::text = 'EXPIRED' AND updated_at <> expires_at`},
		{"I10", holds + foldSQL("ledger", ledgerSQL)},
		{"payments", holds + payingSQL},
	}
}

// wholeCartSQL is a check of holds.
const wholeCartSQL = `
SELECT format('cart %s holds %s units, its %s lines add up to %s',
              r.id, r.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM holds r LEFT JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NULL
GROUP BY r.id, r.quantity HAVING coalesce(sum(l.quantity), 0) <> r.quantity OR count(l.*) < 2`

// soldSQL finds the lines of CONFIRMED holds that weren't sold once. A confirm writes the ledger's
// row and the sales in one transaction, so the sales are found by its id. A hold of version 0,
// which was confirmed before there was a ledger, has no such row: there the id is the row's xmin,
// with the digits that Postgres leaves out.
//
// Neither id leads to the sales after the database has come to another server by a dump, nor when
// the xmin is older than four billion transactions. Then all movements of the stock row are looked
// at, once for a slice. A hold that was confirmed before there were movements has none.
const soldSQL = `, confirmed AS MATERIALIZED (
    SELECT r.id, r.product_id, r.warehouse_id, r.quantity, r.version, r.updated_at, t.xid
    FROM holds r
    LEFT JOIN LATERAL (
        SELECT l.xid FROM ledger l
        WHERE r.version > 0 AND l.hold_id = r.id AND l.version = r.version AND l.kind = 'c'
          AND l.xid > '3' -- the one that rebase_stream gives to all rows
        UNION ALL
        SELECT (((n.newest >> 32) - (o.low > n.newest & 4294967295)::integer << 32) + o.low)
               ::text::xid8
        FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) n,
             (SELECT h.xmin::text::bigint AS low FROM reservations h WHERE h.id = r.id) o
        WHERE r.version = 0
        OFFSET 0) t ON true
    WHERE r.status::text = 'CONFIRMED'
), sold AS MATERIALIZED (
    SELECT c.* FROM confirmed c WHERE c.product_id IS NOT NULL
    UNION ALL
    SELECT c.id, l.product_id, l.warehouse_id, l.quantity, c.version, c.updated_at, c.xid
    FROM confirmed c JOIN reservation_items l ON l.reservation_id = c.id
    WHERE c.product_id IS NULL
), near AS MATERIALIZED (
    SELECT c.id, m.product_id, m.warehouse_id, m.delta
    FROM confirmed c
    CROSS JOIN LATERAL (
        SELECT * FROM stock_movements m
        WHERE m.xid = c.xid AND m.kind = 'SALE'
          AND (m.reservation_id = c.id
               OR m.reservation_id IS NULL AND m.note = 'by the previous release') OFFSET 0) m
), others AS MATERIALIZED (
    SELECT s.id, s.product_id, s.warehouse_id FROM sold s
    WHERE (s.id IN (SELECT n.id FROM near n)) IS NOT TRUE
), sales AS (
    SELECT n.* FROM near n
    UNION ALL
    SELECT m.reservation_id, m.product_id, m.warehouse_id, m.delta
    FROM (SELECT DISTINCT o.product_id, o.warehouse_id FROM others o) o
    CROSS JOIN LATERAL (
        SELECT * FROM stock_movements m
        WHERE m.product_id = o.product_id AND m.warehouse_id = o.warehouse_id AND m.kind = 'SALE'
          -- IS TRUE makes the planner hash the ids instead of joining them
          AND (m.reservation_id IN (SELECT o.id FROM others o)) IS TRUE
        OFFSET 0) m
), counts AS MATERIALIZED (
    SELECT s.id, s.product_id, s.warehouse_id, count(*) AS n, -sum(s.delta) AS quantity
    FROM sales s GROUP BY s.id, s.product_id, s.warehouse_id
)
SELECT format('hold %s is CONFIRMED with %s of product %s in warehouse %s, its %s sales have %s',
              id, coalesce(h.quantity, 0), product_id, warehouse_id, coalesce(s.n, 0),
              coalesce(s.quantity, 0))
FROM sold h FULL JOIN counts s USING (id, product_id, warehouse_id) -- as in foldSQL
WHERE CASE WHEN s.n IS NOT NULL OR h.version > 0
           THEN (s.n, s.quantity) IS DISTINCT FROM (1, h.quantity)
           WHEN EXISTS (
               SELECT FROM stock_movements o
               WHERE o.product_id = h.product_id AND o.warehouse_id = h.warehouse_id AND o.seq = 1
                 AND o.note = 'taken over' AND o.at >= h.updated_at) THEN false
           ELSE NOT EXISTS (
               SELECT FROM stock_movements m
               WHERE m.product_id = h.product_id AND m.warehouse_id = h.warehouse_id
                 AND m.kind = 'SALE' AND m.delta = -h.quantity AND m.reservation_id IS NULL
                 AND m.note = 'by the previous release'
                 AND m.at BETWEEN h.updated_at - interval '10 s'
                              AND h.updated_at + interval '10 s') END`

// foldSQL folds the rows of the holds' ledger that a query selects from a table, and compares the
// results with the holds. Rows without a hold are wrong, too: a hold is archived together with its
// rows. The planner can't make a nested loop of a FULL JOIN, which would take long for a slice.
//
// A hold's rows are numbered 1, 2, 3, ... without a gap. Each one's time isn't before that of the
// row before. A row that ends the hold is the last one, keeps its end, and says when it ended. The
// first row is held at the hold's beginning. Or it is that of a hold that was CONFIRMED from its
// beginning, or a later transition of a hold from before the ledger, which begins with version 0.
//
// A payment is under way when the newest row of a PENDING hold says that it began. A hold that was
// released for another one has that other one.
func foldSQL(table, ledgerSQL string) string {
	return `, folded AS MATERIALIZED (
    SELECT l.hold_id, count(*) AS n, bool_and(l.follows) AS follow,
           min(l.at) FILTER (WHERE l.kind = 'h') AS held_at,
           max(l.at) FILTER (WHERE l.newest) AS at,
           max(l.expires_at) FILTER (WHERE l.newest) AS expires_at,
           max(l.kind::text) FILTER (WHERE l.newest) AS kind,
           max(l.cause::text) FILTER (WHERE l.newest) AS cause
    FROM (
        SELECT l.hold_id, l.kind, l.cause, l.at, l.expires_at,
               lead(l.version) OVER w IS NULL AS newest,
               l.version = 1 + lag(l.version, 1, 0) OVER w
               AND l.kind IN ('h', 'x', 'p', 'f', 'c', 'r', 'e')
               AND l.cause IN ('v', 's', 'm', 'o', 'r')
               AND (l.kind <> 'h' OR l.version = 1)
               AND l.at >= lag(l.at, 1, l.at) OVER w
               AND lag(l.kind, 1, 'h'::"char") OVER w NOT IN ('c', 'r', 'e')
               AND CASE WHEN l.kind = 'e' THEN l.at = l.expires_at ELSE l.at < l.expires_at END
               AND (l.kind NOT IN ('c', 'r', 'e')
                    OR l.expires_at = lag(l.expires_at, 1, l.expires_at) OVER w) AS follows
        FROM (` + ledgerSQL + `) l
        WINDOW w AS (PARTITION BY l.hold_id ORDER BY l.version)
    ) l
    GROUP BY l.hold_id
)
SELECT CASE WHEN r.id IS NULL
            THEN format('the ledger has %s rows of hold %s, which does not exist', f.n, f.hold_id)
            ELSE format('hold %s of version %s is %s since %s and ends at %s; its ledger has %s '
                        'rows: %s', r.id, r.version, r.status, r.updated_at, r.expires_at,
                        coalesce(f.n, 0),
                        (SELECT string_agg(format('version %s, %s by %s at %s until %s', l.version,
                                                  l.kind, l.cause, l.at, l.expires_at), '; '
                                           ORDER BY l.version)
                         FROM ` + table + ` l WHERE l.hold_id = r.id)) END
FROM holds r FULL JOIN folded f ON f.hold_id = r.id
WHERE r.id IS NULL OR coalesce(f.n, 0) <> r.version
   OR f.n > 0 AND (NOT f.follow OR f.held_at <> r.created_at
                   OR (f.at, f.expires_at) <> (r.updated_at, r.expires_at)
                   OR CASE f.kind WHEN 'c' THEN 'CONFIRMED' WHEN 'r' THEN 'RELEASED'
                                  WHEN 'e' THEN 'EXPIRED' ELSE 'PENDING' END <> r.status::text
                   OR r.status::text = 'PENDING' AND r.paying <> (f.kind = 'p')
                   OR f.cause = 'r' AND NOT EXISTS (
                      SELECT FROM replacements p WHERE p.old_id = r.id))`
}
