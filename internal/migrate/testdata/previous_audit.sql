-- The statements of the previous release's audit (commit 37f97ce). A line with ; ends each one. Those
-- that read a slice say from where to where.
;
-- I1 of the stock rows
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('product %s in warehouse %s: reserved %s of %s',
              product_id, warehouse_id, reserved, total)
FROM inventory
WHERE product_id > $1 AND product_id <= $2 AND (reserved < 0 OR reserved > total)
;
-- I2 of the stock rows
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
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
)
SELECT format('product %s in warehouse %s: reserved is %s, its holds add up to %s',
              product_id, warehouse_id, s.reserved, coalesce(h.units, 0))
FROM stock s FULL JOIN held h USING (product_id, warehouse_id)
WHERE s.reserved IS DISTINCT FROM coalesce(h.units, 0)
;
-- I4 of the stock rows
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
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
)
SELECT format('product %s in warehouse %s: a hold ends at %s, before first_end, %s',
              product_id, warehouse_id, h.first_end, s.first_end)
FROM stock s JOIN held h USING (product_id, warehouse_id)
WHERE h.first_end < s.first_end
;
-- catalog of the stock rows
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('product %s in warehouse %s: open is %s and the limits are %s and %s, '
              'but the product is %s with the limits %s and %s, and the warehouse is %s',
              i.product_id, i.warehouse_id, i.open, i.max_per_hold, i.max_per_owner,
              p.status, p.max_per_hold, p.max_per_owner, w.status)
FROM inventory i JOIN products p ON p.id = i.product_id JOIN warehouses w ON w.id = i.warehouse_id
WHERE i.product_id > $1 AND i.product_id <= $2
  AND p.id > $1 AND p.id <= $2
  AND (i.open, i.max_per_hold, i.max_per_owner) IS DISTINCT FROM
      (p.status = 'ACTIVE' AND w.status = 'OPEN', p.max_per_hold, p.max_per_owner)
  AND greatest(p.changed_at, w.changed_at) < clock_timestamp() - interval '1 min'
;
-- I8 of the stock rows
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('product %s in warehouse %s: total is %s by movement %s, but the newest is %s, to %s',
              i.product_id, i.warehouse_id, i.total, i.seq, m.seq, m.total_after)
FROM inventory i
LEFT JOIN LATERAL (
    SELECT m.seq, m.total_after FROM stock_movements m
    WHERE m.product_id = i.product_id AND m.warehouse_id = i.warehouse_id
    ORDER BY m.seq DESC LIMIT 1
) m ON true
WHERE i.product_id > $1 AND i.product_id <= $2
  AND (i.seq, i.total) IS DISTINCT FROM (m.seq, m.total_after)
;
-- I5 of the settings
SELECT r.setting || ' is ' || r.broken || r.reason
FROM (VALUES ('fsync', 'off', ', so a crash loses holds', true), ('synchronous_commit', 'off', ', so a crash loses holds', false), ('client_min_messages', 'error', ', so the server doesn''t tell that a standby lacks a commit', false)) r (setting, broken, reason, not_aurora)
WHERE current_setting(r.setting) = r.broken
  AND NOT (r.not_aurora AND to_regproc('aurora_version') IS NOT NULL)
;
-- I8 of the movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows movement %s, to %s',
              product_id, warehouse_id, seq, delta, total_after, seq_before, total_before)
FROM (SELECT m.*, greatest(lag(m.seq, 1, 0::bigint) OVER w, s.seq) AS seq_before,
             CASE WHEN s.seq >= lag(m.seq, 1, 0::bigint) OVER w THEN s.total
                  ELSE lag(m.total_after, 1, 0) OVER w END AS total_before,
             coalesce(s.seq, 0) AS archived
      FROM stock_movements m LEFT JOIN archived_stock s USING (product_id, warehouse_id)
      WHERE (m.product_id, m.warehouse_id, m.seq) >= (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
        AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
      WINDOW w AS (PARTITION BY m.product_id, m.warehouse_id ORDER BY m.seq)) m
WHERE (product_id, warehouse_id, seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND seq > archived AND (seq <> seq_before + 1 OR total_after <> total_before + delta)
;
-- I8 of the movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows one to %s',
              m.product_id, m.warehouse_id, m.seq, m.delta, m.total_after, before.total_after)
FROM stock_movements m
JOIN archived_stock s ON s.product_id = m.product_id AND s.warehouse_id = m.warehouse_id
LEFT JOIN LATERAL (
    SELECT b.total_after FROM stock_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
    UNION ALL
    SELECT b.total_after FROM archived_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
) before ON true
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
  AND m.seq BETWEEN 2 AND s.seq AND m.total_after IS DISTINCT FROM m.delta + before.total_after
  AND (before.total_after IS NOT NULL
       OR NOT EXISTS (SELECT FROM archived_months d WHERE d.detached))
;
-- I8 of the movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s has movements and no stock row',
              m.product_id, m.warehouse_id)
FROM stock_movements m LEFT JOIN inventory i USING (product_id, warehouse_id)
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
  AND m.seq = 1 AND i.product_id IS NULL
;
-- I8 of the movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s: movement %s is a sale of %s units of hold %s, '
              'which is %s and has %s in one of %s sales',
              m.product_id, m.warehouse_id, m.seq, -m.delta, m.reservation_id,
              coalesce(h.status::text, 'missing'), coalesce(h.quantity, 0), h.sales)
FROM (SELECT * FROM stock_movements m
      WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
        AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)) m
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
  AND NOT (h.status IS NULL AND h.sales < 2 AND (-m.delta IS NOT DISTINCT FROM (
          SELECT coalesce(l.quantity, a.quantity) FROM archived_reservations a
          LEFT JOIN archived_items l
               ON l.reservation_id = a.id AND l.resolved_at = a.updated_at
              AND l.product_id = m.product_id AND l.warehouse_id = m.warehouse_id
          WHERE a.id = m.reservation_id AND a.status = 'CONFIRMED'
            AND (l.product_id IS NOT NULL
                 OR (a.product_id, a.warehouse_id) = (m.product_id, m.warehouse_id)))
      OR EXISTS (SELECT FROM archived_months d
                  WHERE d.detached AND d.month <= m.at
                    AND next_month(d.month) > m.at - interval '1 hour')))
;
-- returns of the movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s: movement %s is a RETURN, and no return has it',
              m.product_id, m.warehouse_id, m.seq)
FROM (SELECT * FROM stock_movements m
      WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
        AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
     ) m
LEFT JOIN returns b ON b.reservation_id = m.reservation_id AND b.reference = m.reference
                   AND b.line = m.line
WHERE m.kind = 'RETURN' AND m.seq IS DISTINCT FROM b.seq
;
-- I6 of the keys
-- from -infinity
-- to infinity
SELECT format('key %s has the answer of hold %s, which does not exist', k.key, k.answer ->> 'id')
FROM idempotency_keys k LEFT JOIN reservations r ON r.id = (k.answer ->> 'id')::uuid
WHERE k.created_at > $1 AND k.created_at <= $2 AND NOT k.answer ? 'results'
  AND r.id IS NULL
  AND NOT EXISTS (SELECT FROM archived_reservations a WHERE a.id = (k.answer ->> 'id')::uuid)
  AND NOT EXISTS (SELECT FROM archived_months d
                  WHERE d.detached AND d.month <= (k.answer ->> 'updated_at')::timestamptz
                    AND next_month(d.month) > (k.answer ->> 'updated_at')::timestamptz - interval '1 hour')
;
-- I2 of the lines
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('hold %s is %s, but its line of product %s is still counted',
              r.id, r.status, l.product_id)
FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND l.counted AND r.status <> 'PENDING'
;
-- I3 of the lines
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM reservation_items l LEFT JOIN reservations r ON r.id = l.reservation_id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.id IS NULL
;
-- I7 of the lines
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('hold %s of one line has rows of lines too', r.id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.product_id IS NOT NULL
;
-- I7 of the lines
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('cart %s hasn''t ended and its line of product %s is not counted', r.id, l.product_id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2
  AND r.status = 'PENDING' AND NOT l.counted AND r.expires_at > clock_timestamp()
  AND r.expires_at > (SELECT max(n.created_at) FROM (
          SELECT created_at FROM reservations ORDER BY id DESC LIMIT 1000) n)
;
-- I7 of the lines
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('cart %s ends at %s, its line of product %s at %s',
              r.id, r.expires_at, l.product_id, l.expires_at)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND r.expires_at <> l.expires_at
;
-- I4 of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
)
SELECT format('hold %s was %s at %s, after its end, %s', id, status, updated_at, expires_at)
FROM holds
WHERE status::text IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at
;
-- I7 of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
)
SELECT format('cart %s holds %s units, its %s lines add up to %s',
              r.id, r.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM holds r LEFT JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NULL
GROUP BY r.id, r.quantity HAVING coalesce(sum(l.quantity), 0) <> r.quantity OR count(l.*) < 2
;
-- I8 of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
), confirmed AS MATERIALIZED (
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
                              AND h.updated_at + interval '10 s') END
;
-- I9 of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
)
SELECT format('hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM holds
WHERE status::text = 'EXPIRED' AND updated_at <> expires_at
;
-- I10 of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
), folded AS MATERIALIZED (
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
        FROM (SELECT * FROM ledger WHERE hold_id > $1 AND hold_id <= $2) l
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
                         FROM ledger l WHERE l.hold_id = r.id)) END
FROM holds r FULL JOIN folded f ON f.hold_id = r.id
WHERE r.id IS NULL OR coalesce(f.n, 0) <> r.version
   OR f.n > 0 AND (NOT f.follow OR f.held_at <> r.created_at
                   OR (f.at, f.expires_at) <> (r.updated_at, r.expires_at)
                   OR CASE f.kind WHEN 'c' THEN 'CONFIRMED' WHEN 'r' THEN 'RELEASED'
                                  WHEN 'e' THEN 'EXPIRED' ELSE 'PENDING' END <> r.status::text
                   OR r.status::text = 'PENDING' AND r.paying <> (f.kind = 'p')
                   OR f.cause = 'r' AND NOT EXISTS (
                      SELECT FROM replacements p WHERE p.old_id = r.id))
;
-- payments of the holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (
    SELECT * FROM reservations WHERE id > $1 AND id <= $2
)
SELECT format('hold %s is %s and has a payment under way, which isn''t there', h.id, h.status)
FROM holds h
WHERE h.paying AND CASE h.status::text
      WHEN 'PENDING' THEN h.expires_at > clock_timestamp() AND NOT EXISTS (
           SELECT FROM hold_payments p WHERE p.hold_id = h.id AND p.outcome IN ('STARTED', 'LOST'))
      WHEN 'CONFIRMED' THEN NOT EXISTS (
           SELECT FROM hold_payments p WHERE p.hold_id = h.id AND p.outcome = 'CONFIRMED')
      ELSE false END
;
-- returns of the returns
-- from -infinity
-- to infinity
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
WHERE CASE WHEN r.id IS NULL THEN NOT EXISTS (SELECT FROM archived_months m WHERE m.detached)
           ELSE r.status <> 'CONFIRMED' OR b.units >
                CASE WHEN r.product_id IS NULL THEN coalesce(r.of_line, 0)
                     WHEN (r.product_id, r.warehouse_id) = (b.product_id, b.warehouse_id)
                     THEN r.quantity ELSE 0 END END
;
-- returns of the returns
-- from -infinity
-- to infinity
SELECT format('hold %s: line %s of the return %s has the movement %s, which is another one',
              b.reservation_id, b.line, b.reference, b.seq)
FROM returns b
LEFT JOIN stock_movements m ON m.product_id = b.product_id AND m.warehouse_id = b.to_warehouse_id
                           AND m.seq = b.seq
WHERE b.at > $1 AND b.at <= $2 AND b.seq IS NOT NULL
  AND (m.kind::text, m.delta, m.reservation_id, m.reference, m.line) IS DISTINCT FROM
      ('RETURN', b.quantity, b.reservation_id, b.reference, b.line)
;
-- payments of the hold payments
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH rows AS (SELECT * FROM hold_payments WHERE hold_id > $1 AND hold_id <= $2)
SELECT format('a payment of hold %s is %s, and the hold is %s; its successor %s is %s', p.hold_id,
              p.outcome, coalesce(h.status::text, 'missing'), coalesce(p.successor::text, 'none'),
              coalesce(s.status::text, 'missing'))
FROM rows p
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = p.hold_id
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = p.hold_id
) h ON true
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = p.successor
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = p.successor
) s ON true
LEFT JOIN replacements f ON f.old_id = p.hold_id
WHERE CASE WHEN h.id IS NULL THEN NOT EXISTS (SELECT FROM archived_months d WHERE d.detached)
           WHEN p.outcome = 'STARTED'
           THEN h.status = 'CONFIRMED' OR h.status = 'PENDING' AND NOT h.paying
           WHEN p.outcome = 'CONFIRMED' THEN h.status <> 'CONFIRMED'
           WHEN p.outcome = 'REACQUIRED'
           THEN h.status NOT IN ('RELEASED', 'EXPIRED')
                OR f.new_id IS DISTINCT FROM p.successor
                OR CASE WHEN s.id IS NULL THEN NOT EXISTS (SELECT FROM archived_months d WHERE d.detached)
                        ELSE s.status <> 'CONFIRMED' END
           ELSE false END
;
-- replacements of the replacements
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH rows AS (SELECT * FROM replacements WHERE old_id > $1 AND old_id <= $2)
SELECT format('hold %s took the place of hold %s: they are %s and %s', p.new_id, p.old_id,
              coalesce(n.status::text, 'missing'), coalesce(o.status::text, 'missing'))
FROM rows p
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = p.old_id
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = p.old_id
) o ON true
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = p.new_id
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = p.new_id
) n ON true
WHERE CASE WHEN o.id IS NULL OR n.id IS NULL THEN NOT EXISTS (SELECT FROM archived_months d WHERE d.detached)
           WHEN o.status NOT IN ('RELEASED', 'EXPIRED') OR NOT n.detailed THEN true
           WHEN EXISTS (SELECT FROM hold_payments q
                        WHERE q.hold_id = p.old_id AND q.outcome = 'REACQUIRED'
                          AND q.successor = p.new_id)
           THEN n.status <> 'CONFIRMED' OR n.version <> 1
                OR (o.product_id, o.warehouse_id, o.quantity)
                   IS DISTINCT FROM (n.product_id, n.warehouse_id, n.quantity)
                OR (
    SELECT array_agg(ROW (l.product_id, l.warehouse_id, l.quantity)
                     ORDER BY l.product_id, l.warehouse_id)
    FROM (SELECT product_id, warehouse_id, quantity FROM reservation_items
          WHERE reservation_id = o.id
          UNION ALL
          SELECT product_id, warehouse_id, quantity FROM archived_items
          WHERE reservation_id = o.id) l) IS DISTINCT FROM (
    SELECT array_agg(ROW (l.product_id, l.warehouse_id, l.quantity)
                     ORDER BY l.product_id, l.warehouse_id)
    FROM (SELECT product_id, warehouse_id, quantity FROM reservation_items
          WHERE reservation_id = n.id
          UNION ALL
          SELECT product_id, warehouse_id, quantity FROM archived_items
          WHERE reservation_id = n.id) l)
           ELSE NOT EXISTS (
                SELECT FROM ledger l
                WHERE l.hold_id = o.id AND l.version = o.version AND l.kind = 'r' AND l.cause = 'r'
                UNION ALL
                SELECT FROM archived_ledger l
                WHERE l.hold_id = o.id AND l.version = o.version AND l.kind = 'r' AND l.cause = 'r')
           END
;
-- parties of the hold parties
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH rows AS (SELECT * FROM hold_parties WHERE hold_id > $1 AND hold_id <= $2)
SELECT format('hold %s has an owner or a reference, and is %s', p.hold_id,
              CASE WHEN h.id IS NULL THEN 'missing' ELSE 'not detailed' END)
FROM rows p
LEFT JOIN LATERAL (
    SELECT * FROM reservations WHERE id = p.hold_id
    UNION ALL
    SELECT * FROM archived_reservations WHERE id = p.hold_id
) h ON true
WHERE CASE WHEN h.id IS NULL THEN NOT EXISTS (SELECT FROM archived_months d WHERE d.detached) ELSE NOT h.detailed END
;
-- I12 of the hold parties
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH rows AS (SELECT * FROM hold_parties WHERE hold_id > $1 AND hold_id <= $2), pairs AS (
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
WHERE u.units > d.max_per_owner AND u.newest > d.changed_at + interval '2 min'
;
-- I3 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('hold %s lies in the archive and is there, as %s', a.id, r.status)
FROM archived_reservations a JOIN reservations r ON r.id = a.id
WHERE a.id > $1 AND a.id <= $2
;
-- I3 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('the archived line of product %s has no hold %s', l.product_id, l.reservation_id)
FROM archived_items l
LEFT JOIN archived_reservations a ON a.id = l.reservation_id AND a.updated_at = l.resolved_at
WHERE l.reservation_id > $1 AND l.reservation_id <= $2 AND a.id IS NULL
;
-- I4 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('the archived hold %s was %s at %s, after its end, %s', id, status, updated_at,
              expires_at)
FROM archived_reservations
WHERE id > $1 AND id <= $2 AND status IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at
;
-- I7 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('the archived hold %s holds %s units, its %s lines add up to %s',
              a.id, a.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM archived_reservations a
LEFT JOIN archived_items l ON l.reservation_id = a.id AND l.resolved_at = a.updated_at
WHERE a.id > $1 AND a.id <= $2
GROUP BY a.id, a.quantity, a.product_id
HAVING CASE WHEN a.product_id IS NULL
            THEN coalesce(sum(l.quantity), 0) <> a.quantity OR count(l.*) < 2
            ELSE count(l.*) > 0 END
;
-- I9 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('the archived hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM archived_reservations
WHERE id > $1 AND id <= $2 AND status = 'EXPIRED' AND updated_at <> expires_at
;
-- I10 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
WITH holds AS (SELECT * FROM archived_reservations WHERE id > $1 AND id <= $2), folded AS MATERIALIZED (
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
        FROM (SELECT * FROM archived_ledger WHERE hold_id > $1 AND hold_id <= $2) l
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
                         FROM archived_ledger l WHERE l.hold_id = r.id)) END
FROM holds r FULL JOIN folded f ON f.hold_id = r.id
WHERE r.id IS NULL OR coalesce(f.n, 0) <> r.version
   OR f.n > 0 AND (NOT f.follow OR f.held_at <> r.created_at
                   OR (f.at, f.expires_at) <> (r.updated_at, r.expires_at)
                   OR CASE f.kind WHEN 'c' THEN 'CONFIRMED' WHEN 'r' THEN 'RELEASED'
                                  WHEN 'e' THEN 'EXPIRED' ELSE 'PENDING' END <> r.status::text
                   OR r.status::text = 'PENDING' AND r.paying <> (f.kind = 'p')
                   OR f.cause = 'r' AND NOT EXISTS (
                      SELECT FROM replacements p WHERE p.old_id = r.id))
;
-- I10 of the archived holds
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
SELECT format('the archived ledger has version %s of hold %s, which isn''t there', l.version,
              l.hold_id)
FROM archived_ledger l
LEFT JOIN archived_reservations a ON a.id = l.hold_id AND a.updated_at = l.resolved_at
WHERE l.hold_id > $1 AND l.hold_id <= $2 AND a.id IS NULL
;
-- I8 of the archived movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('product %s in warehouse %s: movement %s, by %s to %s, follows one to %s',
              m.product_id, m.warehouse_id, m.seq, m.delta, m.total_after, before.total_after)
FROM archived_movements m
JOIN archived_stock s ON s.product_id = m.product_id AND s.warehouse_id = m.warehouse_id
LEFT JOIN LATERAL (
    SELECT b.total_after FROM stock_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
    UNION ALL
    SELECT b.total_after FROM archived_movements b
    WHERE b.product_id = m.product_id AND b.warehouse_id = m.warehouse_id AND b.seq = m.seq - 1
) before ON true
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
  AND m.seq BETWEEN 2 AND s.seq AND m.total_after IS DISTINCT FROM m.delta + before.total_after
  AND (before.total_after IS NOT NULL
       OR NOT EXISTS (SELECT FROM archived_months d WHERE d.detached))
;
-- I8 of the archived movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('movement %s of product %s in warehouse %s lies in the archive and is there',
              m.seq, m.product_id, m.warehouse_id)
FROM archived_movements m JOIN stock_movements o USING (product_id, warehouse_id, seq)
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint)
;
-- I8 of the archived movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('movement %s of product %s in warehouse %s lies in the archive, which ends at %s',
              m.seq, m.product_id, m.warehouse_id, s.seq)
FROM archived_movements m LEFT JOIN archived_stock s USING (product_id, warehouse_id)
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint) AND m.seq > coalesce(s.seq, 0)
;
-- I8 of the archived movements
-- from 00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000,0
-- to ffffffff-ffff-ffff-ffff-ffffffffffff,ffffffff-ffff-ffff-ffff-ffffffffffff,9223372036854775807
SELECT format('archived movement %s of product %s in warehouse %s sold %s units of hold %s, which '
              'isn''t in the archive with as many',
              m.seq, m.product_id, m.warehouse_id, -m.delta, m.reservation_id)
FROM archived_movements m
WHERE (m.product_id, m.warehouse_id, m.seq) > (split_part($1, ',', 1)::uuid, split_part($1, ',', 2)::uuid, split_part($1, ',', 3)::bigint)
  AND (m.product_id, m.warehouse_id, m.seq) <= (split_part($2, ',', 1)::uuid, split_part($2, ',', 2)::uuid, split_part($2, ',', 3)::bigint) AND m.kind = 'SALE' AND m.note IS DISTINCT FROM 'by the previous release'
  AND NOT (-m.delta IS NOT DISTINCT FROM (
          SELECT coalesce(l.quantity, a.quantity) FROM archived_reservations a
          LEFT JOIN archived_items l
               ON l.reservation_id = a.id AND l.resolved_at = a.updated_at
              AND l.product_id = m.product_id AND l.warehouse_id = m.warehouse_id
          WHERE a.id = m.reservation_id AND a.status = 'CONFIRMED'
            AND (l.product_id IS NOT NULL
                 OR (a.product_id, a.warehouse_id) = (m.product_id, m.warehouse_id)))
      OR EXISTS (SELECT FROM archived_months d
                  WHERE d.detached AND d.month <= m.at
                    AND next_month(d.month) > m.at - interval '1 hour'))
;
-- I8 of the archived stock
-- from 00000000-0000-0000-0000-000000000000
-- to ffffffff-ffff-ffff-ffff-ffffffffffff
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
  AND (m.total_after IS NOT NULL
       OR NOT EXISTS (SELECT FROM archived_months d WHERE d.detached))
;
-- I8
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
WHERE i.total IS DISTINCT FROM coalesce(m.delta, 0) - coalesce(s.units, 0)
