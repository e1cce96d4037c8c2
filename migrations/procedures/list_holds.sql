-- list_live_holds and list_holds answer up to _limit holds after (_at, _id): the live holds, the
-- next to expire first; and the holds of a status, or of all when it is null, the newest first.
-- list_holds_of.sql and list_updated_holds.sql have the lists of a party, and of what changed.
-- They lock nothing. They read the clock after their caller's snapshot was taken, and show a hold
-- that is dead by it as the sweep will write it (I4). After a jump of the clock a cart that lost a
-- line may be dead before its end.
--
-- A page of a product's or a warehouse's holds doesn't read everybody's. list_live_holds reads a
-- product's by the index of its stock rows, each of which has them in order. It reads the same
-- index for a warehouse, if there are fewer than _scan to be found and sorted. Otherwise it looks
-- through the next _scan holds that end.
--
-- No index has the resolved holds of a product. So list_holds looks for them in at most _scan
-- holds, and a rare product doesn't make one call read the whole history.
--
-- When a look meets its bound, the last hold that was looked at is answered too, with matches false
-- if it isn't one to show, so that the next call can continue there. walked counts the holds that
-- were looked at.
CREATE OR REPLACE FUNCTION list_live_holds(
    _product uuid, _warehouse uuid, _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    IF _product IS NOT NULL OR _warehouse IS NOT NULL AND has_few_holds(_warehouse, _scan) THEN
        RETURN QUERY
        SELECT (SELECT with_party(hold_json(r, false)) FROM reservations r WHERE r.id = f.id), true,
               row_number() OVER (ORDER BY f.expires_at, f.id), _now
        FROM (
            SELECT p.expires_at, p.id
            FROM live_holds_of_product(_product, _warehouse, _now, _at, _id, _limit) p
            WHERE _product IS NOT NULL
            UNION -- finds a cart once
            SELECT w.expires_at, w.id
            FROM live_holds_of_warehouse(_warehouse, _now, _at, _id) w
            WHERE _product IS NULL
            ORDER BY expires_at, id LIMIT _limit
        ) f
        ORDER BY f.expires_at, f.id;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT with_party(hold_json(w.r, false)), w.fits, w.n, _now
    FROM (
        SELECT a.r, a.expires_at, a.id, row_number() OVER (ORDER BY a.expires_at, a.id) AS n,
               CASE WHEN _warehouse IS NULL THEN true
                    WHEN (a.r).product_id IS NOT NULL THEN (a.r).warehouse_id = _warehouse
                    ELSE (SELECT count(*) > 0 FROM reservation_items l
                          WHERE l.reservation_id = a.id AND l.warehouse_id = _warehouse)
               END AS fits
        FROM (
            SELECT r, r.expires_at, r.id FROM reservations r
            WHERE r.status = 'PENDING' AND r.expires_at > _now
              AND r.expires_at >= _at AND (r.expires_at, r.id) > (_at, _id)
              AND (r.product_id IS NOT NULL OR NOT has_lost_line(r))
            ORDER BY r.expires_at, r.id LIMIT _scan
        ) a
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.expires_at, w.id LIMIT _limit;
END $$;

-- live_holds_of_product answers the places of a product's live holds after (_at, _id): from each
-- stock row the first _limit holds of one line, and the first _limit carts. A cart may be answered
-- for several stock rows. It goes through the warehouses instead of the stock rows, because a hot
-- stock row has many versions.
CREATE OR REPLACE FUNCTION live_holds_of_product(
    _product uuid, _warehouse uuid, _now timestamptz, _at timestamptz, _id uuid, _limit integer)
RETURNS TABLE (expires_at timestamptz, id uuid) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT f.expires_at, f.id
    FROM warehouses w
    CROSS JOIN LATERAL (
        (SELECT r.expires_at, r.id FROM reservations r
         WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = w.id
           AND r.expires_at > _now AND (r.expires_at, r.id) > (_at, _id)
         ORDER BY r.expires_at, r.id LIMIT _limit)
        UNION ALL
        (SELECT l.expires_at, l.reservation_id FROM reservation_items l
         WHERE l.counted AND l.product_id = _product AND l.warehouse_id = w.id
           AND l.expires_at > _now AND (l.expires_at, l.reservation_id) > (_at, _id)
           AND has_whole_cart(l.reservation_id)
         ORDER BY l.expires_at, l.reservation_id LIMIT _limit)
    ) f
    WHERE w.id = coalesce(_warehouse, w.id);
END $$;

-- live_holds_of_warehouse answers the places of a warehouse's live holds after (_at, _id). It reads
-- the index of all stock rows, but only the holds that match: an index by warehouse would cost
-- every reserve an entry. The bound of the product leads the planner to that index.
CREATE OR REPLACE FUNCTION live_holds_of_warehouse(
    _warehouse uuid, _now timestamptz, _at timestamptz, _id uuid)
RETURNS TABLE (expires_at timestamptz, id uuid) LANGUAGE plpgsql STABLE AS $$
DECLARE
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    RETURN QUERY
    SELECT f.expires_at, f.id
    FROM (
        SELECT r.expires_at, r.id FROM reservations r
        WHERE r.status = 'PENDING' AND r.product_id >= _least AND r.warehouse_id = _warehouse
        OFFSET 0 -- otherwise the planner may take the index by the end
    ) f
    WHERE f.expires_at > _now AND (f.expires_at, f.id) > (_at, _id);
    RETURN QUERY
    SELECT f.expires_at, f.reservation_id
    FROM (
        SELECT l.expires_at, l.reservation_id FROM reservation_items l
        WHERE l.counted AND l.product_id >= _least AND l.warehouse_id = _warehouse
        OFFSET 0
    ) f
    WHERE f.expires_at > _now AND (f.expires_at, f.reservation_id) > (_at, _id)
      AND has_whole_cart(f.reservation_id);
END $$;

-- has_few_holds says whether a warehouse has fewer than _many PENDING holds of one line, and fewer
-- counted lines of carts.
CREATE OR REPLACE FUNCTION has_few_holds(_warehouse uuid, _many integer) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    RETURN (SELECT count(*) < _many
            FROM (SELECT FROM reservations r
                  WHERE r.status = 'PENDING' AND r.product_id >= _least
                    AND r.warehouse_id = _warehouse LIMIT _many) holds)
       AND (SELECT count(*) < _many
            FROM (SELECT FROM reservation_items l
                  WHERE l.counted AND l.product_id >= _least
                    AND l.warehouse_id = _warehouse LIMIT _many) lines);
END $$;

-- Unless _since is null, only the holds are listed that were updated then or later. No hold is
-- updated more than longest_hold() after it was made, so the older ones aren't read.
--
-- Each branch of the union is in order by its index, or has only PENDING holds, so that the merge
-- reads no further than it must. The last four have the holds before their end: all, those of a
-- product or a warehouse, and the carts that lost a line, for a list of some holds and for one of
-- all.
CREATE OR REPLACE FUNCTION list_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _since timestamptz,
    _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
    _all boolean := _product IS NULL AND _warehouse IS NULL;
    _oldest timestamptz := coalesce(_since - longest_hold(), '-infinity');
BEGIN
    RETURN QUERY
    SELECT with_party(hold_json(w.r, hold_is_dead(w.r, _now))), w.fits, w.n, _now
    FROM (
        SELECT a.r, a.created_at, a.id,
               row_number() OVER (ORDER BY a.created_at DESC, a.id DESC) AS n,
               (_since IS NULL OR updated_as_shown(a.r, _now) >= _since)
               AND (_status IS DISTINCT FROM 'PENDING' OR NOT hold_is_dead(a.r, _now)) AND
               CASE WHEN _all THEN true
                    WHEN (a.r).product_id IS NOT NULL
                        THEN (a.r).product_id = coalesce(_product, (a.r).product_id)
                             AND (a.r).warehouse_id = coalesce(_warehouse, (a.r).warehouse_id)
                    ELSE (SELECT count(*) > 0 FROM reservation_items l -- one line must match both
                          WHERE l.reservation_id = a.id
                            AND l.product_id = coalesce(_product, l.product_id)
                            AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id))
               END AS fits
        FROM (
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'CONFIRMED') = 'CONFIRMED' AND r.status = 'CONFIRMED'
               AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'RELEASED') = 'RELEASED' AND r.status = 'RELEASED'
               AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'EXPIRED'
               AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'PENDING'
               AND r.expires_at <= _now AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'PENDING') = 'PENDING' AND _all AND r.status = 'PENDING'
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT (SELECT r FROM reservations r WHERE r.id = f.id), f.created_at, f.id
             FROM newest_holds_of(_product, _warehouse, _now, _at, _id,
                                  CASE WHEN _since IS NULL THEN _limit ELSE _scan END) f
             WHERE coalesce(_status, 'PENDING') = 'PENDING' AND NOT _all
               AND f.created_at >= _oldest
             ORDER BY f.created_at DESC, f.id DESC
             LIMIT CASE WHEN _since IS NULL THEN _limit ELSE _scan END)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM half_carts(_now) r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND NOT _all
               AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
               AND (_status = 'EXPIRED' OR NOT has_counted_line(r.id, _product, _warehouse))
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE _status = 'EXPIRED' AND _all AND r.status = 'PENDING'
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
               AND r.created_at >= _oldest
               AND r.product_id IS NULL -- then has_lost_line, written out, as there are many
               AND (SELECT count(*) > 0 FROM reservation_items l
                    WHERE l.reservation_id = r.id AND NOT l.counted)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
        ) a
        ORDER BY a.created_at DESC, a.id DESC LIMIT _scan
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.created_at DESC, w.id DESC LIMIT _limit;
END $$;

-- newest_holds_of answers the places of the newest _limit PENDING holds before (_at, _id) that end
-- after _now and have a counted line of the product in the warehouse; null stands for any. It reads
-- all such holds, because no index has them by their beginning. It finds them by the indexes that
-- serve the dead holds of a stock row: for a product it reads the product's part of an index, for a
-- warehouse the whole index, but only the holds that match.
--
-- The bounds are ranges, so that one plan serves every combination of nulls.
CREATE OR REPLACE FUNCTION newest_holds_of(
    _product uuid, _warehouse uuid, _now timestamptz, _at timestamptz, _id uuid, _limit integer)
RETURNS TABLE (created_at timestamptz, id uuid) LANGUAGE plpgsql STABLE AS $$
DECLARE
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    _most  CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
BEGIN
    RETURN QUERY
    SELECT r.created_at, r.id FROM reservations r
    WHERE r.status = 'PENDING' AND r.product_id IS NOT NULL
      AND r.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _most)
      AND r.warehouse_id BETWEEN coalesce(_warehouse, _least) AND coalesce(_warehouse, _most)
      AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
    ORDER BY r.created_at DESC, r.id DESC LIMIT _limit;
    RETURN QUERY
    SELECT r.created_at, r.id
    FROM (
        SELECT DISTINCT l.reservation_id AS id FROM reservation_items l
        WHERE l.counted AND l.expires_at > _now
          AND l.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _most)
          AND l.warehouse_id BETWEEN coalesce(_warehouse, _least) AND coalesce(_warehouse, _most)
    ) cart
    CROSS JOIN LATERAL (
        SELECT h.created_at, h.id FROM reservations h WHERE h.id = cart.id
        OFFSET 0 -- otherwise the planner may join the whole table
    ) r
    WHERE (r.created_at, r.id) < (_at, _id)
    ORDER BY r.created_at DESC, r.id DESC LIMIT _limit;
END $$;

-- has_counted_line says whether a cart has a counted line of the product in the warehouse; null
-- stands for any.
CREATE OR REPLACE FUNCTION has_counted_line(_hold uuid, _product uuid, _warehouse uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT count(*) > 0 FROM reservation_items l
            WHERE l.reservation_id = _hold AND l.counted
              AND l.product_id = coalesce(_product, l.product_id)
              AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id));
END $$;

-- half_carts answers the carts before their end that have lost a line. There are such carts only
-- after the database's clock has jumped back, and they end among the first. So the list of a
-- product looks through the next thousand live holds, and not through all. It misses a cart while
-- more live holds than that end before it.
CREATE OR REPLACE FUNCTION half_carts(_now timestamptz) RETURNS SETOF reservations
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT c.*
    FROM (SELECT r.* FROM reservations r
          WHERE r.status = 'PENDING' AND r.expires_at > _now
          ORDER BY r.expires_at LIMIT 1000) c
    WHERE c.product_id IS NULL
      AND (SELECT count(*) > 0 FROM reservation_items l
           WHERE l.reservation_id = c.id AND NOT l.counted);
END $$;

-- has_whole_cart says whether all lines of a cart are counted.
CREATE OR REPLACE FUNCTION has_whole_cart(_hold uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT count(*) = 0 FROM reservation_items l
            WHERE l.reservation_id = _hold AND NOT l.counted);
END $$;
