-- sweep_holds expires dead holds and gives their units back (I9): up to _limit holds, and up to
-- _limit of their lines, because a cart may have a hundred. It starts with the oldest, and with
-- each takes the other dead holds of its stock row, so that one update of a stock row serves many
-- holds. It skips holds that others have locked, because these callers are resolving or reclaiming
-- them. The lock of a hold's maker, which waits for the disk, doesn't conflict (reserve_line). A
-- sweep that is lost in a crash is swept again, so it doesn't wait for the disk.
--
-- It answers how many holds it expired, the units that it gave back, for how long the oldest dead
-- hold had been dead, and whether there may be more.
--
-- Each round looks at the next _limit dead holds. It is the last round when it expired a hold or
-- when fewer were left; ten rounds bound the search past locked holds.
CREATE OR REPLACE FUNCTION sweep_holds(
    _limit integer, OUT expired bigint, OUT units bigint, OUT oldest interval, OUT more boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _taken bigint;
    _seen  bigint;
    _many  jsonb; -- stock rows that got units back, the more likely the more holds had them
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR _round IN 0..9 LOOP
        WITH first AS MATERIALIZED ( -- the oldest dead holds, locked by others or not
            SELECT r.id, r.product_id, r.warehouse_id, r.expires_at FROM reservations r
            WHERE r.status = 'PENDING' AND r.expires_at <= _now
            ORDER BY r.expires_at OFFSET _round * _limit LIMIT _limit
        ), singles AS MATERIALIZED ( -- dead holds of one line, stock row by stock row
            SELECT d.id, d.product_id, d.expires_at
            FROM (SELECT f.product_id, f.warehouse_id, min(f.expires_at) AS oldest
                  FROM first f WHERE f.product_id IS NOT NULL
                  GROUP BY f.product_id, f.warehouse_id
                  ORDER BY oldest, f.product_id, f.warehouse_id) s
            CROSS JOIN LATERAL (
                SELECT r.id, r.product_id, r.expires_at FROM reservations r
                WHERE r.status = 'PENDING' AND r.product_id = s.product_id
                  AND r.warehouse_id = s.warehouse_id
                  AND r.expires_at >= s.oldest AND r.expires_at <= _now
                ORDER BY r.expires_at LIMIT _limit FOR NO KEY UPDATE SKIP LOCKED
            ) d
            LIMIT _limit
        ), carts AS MATERIALIZED ( -- a fifth of a batch
            SELECT r.id, r.product_id, r.expires_at FROM reservations r
            WHERE r.id IN (SELECT f.id FROM first f WHERE f.product_id IS NULL
                           ORDER BY f.expires_at LIMIT greatest(_limit / 5, 1))
              AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
            FOR NO KEY UPDATE SKIP LOCKED
        ), due AS (
            SELECT * FROM singles UNION ALL SELECT * FROM carts
        ), weighed AS ( -- with the running sum of lines, the oldest first
            SELECT d.id, d.product_id, sum(
                       CASE WHEN d.product_id IS NULL
                            THEN (SELECT count(*) FROM reservation_items l
                                  WHERE l.reservation_id = d.id)
                            ELSE 1 END
                   ) OVER (ORDER BY d.expires_at, d.id) AS lines
            FROM due d
        ), taken AS MATERIALIZED (
            SELECT w.id, w.product_id FROM weighed w WHERE w.lines <= _limit
        ), marked AS (
            UPDATE reservations r
            SET status = 'EXPIRED', updated_at = r.expires_at, version = r.version + 1
            FROM taken
            WHERE r.id = taken.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
            RETURNING r.id, r.expires_at, r.version, r.product_id, r.warehouse_id, r.quantity
        ), transitions AS (
            INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
            SELECT m.expires_at, m.expires_at, m.id, m.version, 'e', 's' FROM marked m
        ), lines AS MATERIALIZED (
            SELECT l.reservation_id, l.product_id, l.warehouse_id
            FROM reservation_items l
            JOIN taken ON taken.id = l.reservation_id AND taken.product_id IS NULL
            WHERE l.counted
            ORDER BY l.product_id, l.warehouse_id, l.expires_at, l.reservation_id
            FOR NO KEY UPDATE OF l
        ), uncounted AS (
            UPDATE reservation_items l SET counted = false
            FROM lines
            WHERE l.reservation_id = lines.reservation_id AND l.product_id = lines.product_id
              AND l.warehouse_id = lines.warehouse_id AND l.counted
            RETURNING l.product_id, l.warehouse_id, l.quantity
        ), freed AS MATERIALIZED (
            SELECT f.product_id, f.warehouse_id, sum(f.quantity) AS quantity, count(*) AS n
            FROM (SELECT m.product_id, m.warehouse_id, m.quantity FROM marked m
                  WHERE m.product_id IS NOT NULL
                  UNION ALL SELECT * FROM uncounted) f
            GROUP BY f.product_id, f.warehouse_id
        ), locked AS MATERIALIZED (
            SELECT i.product_id, i.warehouse_id, f.quantity
            FROM inventory i
            JOIN freed f USING (product_id, warehouse_id)
            ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
        ), stock AS (
            UPDATE inventory i SET reserved = i.reserved - l.quantity, epoch = next_epoch(i.epoch)
            FROM locked l
            WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
            RETURNING l.quantity
        ), counts AS (
            SELECT (SELECT count(*) FROM first) AS first, (SELECT count(*) FROM taken) AS taken,
                   (SELECT count(*) FROM due) AS due
        )
        SELECT (SELECT count(*) FROM marked), (SELECT coalesce(sum(quantity), 0) FROM stock),
               greatest(oldest, _now - (SELECT min(f.expires_at) FROM first f)),
               c.taken > 0 AND (c.first = _limit OR c.taken < greatest(c.first, c.due)),
               c.taken, c.first,
               (SELECT jsonb_agg(f) FROM freed f WHERE random() < f.n / 512.0)
        INTO expired, units, oldest, more, _taken, _seen, _many
        FROM counts c;
        PERFORM raise_first_end(f.product_id, f.warehouse_id)
        FROM jsonb_to_recordset(_many) f (product_id uuid, warehouse_id uuid);
        EXIT WHEN _taken > 0 OR _seen < _limit;
    END LOOP;
END $$;
