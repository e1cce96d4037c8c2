-- list_live_holds and list_holds answer up to _limit holds after (_at, _id): the live holds, the
-- next to expire first; and the holds of a status, or of all when it is null, the newest first.
-- They lock nothing. They read the clock after their caller's snapshot was taken, and show a hold
-- that is dead by it as the sweep will write it (I4). After a jump of the clock a cart that lost a
-- line may be dead before its end.
--
-- A page of a product's or a warehouse's holds doesn't read everybody's. list_live_holds looks
-- through the next _scan holds that end. That fills the page of a product that many hold. The rest
-- of the page it finds by the indexes of the stock rows (pending_holds_of).
--
-- No index has the resolved holds of a product. So list_holds looks for them in at most _scan
-- holds, and a rare product doesn't make one call read the whole history. When the bound is met,
-- the last hold that was looked at is answered too, with matches false if it isn't one to show, so
-- that the next call can continue there. walked counts the holds that were looked at.
CREATE OR REPLACE FUNCTION list_live_holds(
    _product uuid, _warehouse uuid, _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _read integer := 0;
    _hold reservations;
BEGIN
    matches := true;
    walked := 0;
    seen_at := _now;
    FOR _hold IN
        SELECT r.* FROM reservations r
        WHERE r.status = 'PENDING' AND r.expires_at > _now
          AND r.expires_at >= _at AND (r.expires_at, r.id) > (_at, _id)
          AND (r.product_id IS NOT NULL OR NOT has_lost_line(r))
        ORDER BY r.expires_at, r.id LIMIT _scan
    LOOP
        _read := _read + 1;
        IF has_line(_hold, _product, _warehouse) THEN
            hold := hold_json(_hold, false);
            walked := walked + 1;
            RETURN NEXT;
        END IF;
        IF walked = _limit THEN
            RETURN;
        END IF;
    END LOOP;
    IF _read = _scan THEN
        RETURN QUERY
        SELECT hold_json(r, false), true, 0::bigint, _now
        FROM pending_holds_of(_product, _warehouse) r
        WHERE (r.expires_at, r.id) > (_hold.expires_at, _hold.id) -- so it is alive
          AND (r.product_id IS NOT NULL OR NOT has_lost_line(r))
        ORDER BY r.expires_at, r.id LIMIT _limit - walked;
    END IF;
END $$;

-- Each branch of the union is in order by its index, or has only PENDING holds, so that the merge
-- reads no further than it must. The last four have the holds before their end: all, those of a
-- product or a warehouse, and the carts that lost a line, for a list of some holds and for one of
-- all.
CREATE OR REPLACE FUNCTION list_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _at timestamptz, _id uuid,
    _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
    _all boolean := _product IS NULL AND _warehouse IS NULL;
BEGIN
    RETURN QUERY
    SELECT hold_json(w.r, hold_is_dead(w.r, _now)), w.fits, w.n, _now
    FROM (
        SELECT a.r, a.created_at, a.id,
               row_number() OVER (ORDER BY a.created_at DESC, a.id DESC) AS n,
               CASE WHEN (a.r).product_id IS NULL THEN has_line(a.r, _product, _warehouse)
                    ELSE -- has_line, written out for a hold of one line, as there are many
                        (a.r).product_id = coalesce(_product, (a.r).product_id)
                        AND (a.r).warehouse_id = coalesce(_warehouse, (a.r).warehouse_id)
               END AS fits
        FROM (
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'CONFIRMED') = 'CONFIRMED' AND r.status = 'CONFIRMED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'RELEASED') = 'RELEASED' AND r.status = 'RELEASED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'EXPIRED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'PENDING'
               AND r.expires_at <= _now AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE _status IS NULL AND _all AND r.status = 'PENDING'
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM pending_holds_of(_product, _warehouse) r
             WHERE _status IS NULL AND NOT _all
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
               AND (r.product_id IS NOT NULL OR NOT has_lost_line(r))
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM half_carts(_now) r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND NOT _all
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE _status = 'EXPIRED' AND _all AND r.status = 'PENDING'
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
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

-- pending_holds_of answers the PENDING holds that have a counted line of the product in the
-- warehouse; null stands for any. It finds them by the indexes that serve the dead holds of a stock
-- row, which have PENDING holds and counted lines only. For a product it reads the product's part
-- of an index. For a warehouse it reads the whole index, but only the holds that match: an index by
-- warehouse would cost every reserve an entry.
--
-- The bounds are ranges, so that one plan serves every combination of nulls.
CREATE OR REPLACE FUNCTION pending_holds_of(_product uuid, _warehouse uuid)
RETURNS SETOF reservations LANGUAGE plpgsql STABLE AS $$
DECLARE
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    _most  CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
BEGIN
    RETURN QUERY
    SELECT r.* FROM reservations r
    WHERE r.status = 'PENDING' AND r.product_id IS NOT NULL
      AND r.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _most)
      AND r.warehouse_id BETWEEN coalesce(_warehouse, _least) AND coalesce(_warehouse, _most);
    RETURN QUERY
    SELECT r.*
    FROM (
        SELECT DISTINCT l.reservation_id AS id FROM reservation_items l
        WHERE l.counted
          AND l.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _most)
          AND l.warehouse_id BETWEEN coalesce(_warehouse, _least) AND coalesce(_warehouse, _most)
    ) cart
    CROSS JOIN LATERAL (
        SELECT * FROM reservations h WHERE h.id = cart.id
        OFFSET 0 -- otherwise the planner may join the whole table
    ) r;
END $$;

-- half_carts answers the carts before their end that have lost a line and still have another. There
-- are such carts only after the database's clock has jumped back. The list of a product finds them
-- here, without a look at every live hold. It misses a cart that has lost all of its lines, until
-- the cart's end comes again.
CREATE OR REPLACE FUNCTION half_carts(_now timestamptz) RETURNS SETOF reservations
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT r.*
    FROM (
        SELECT DISTINCT l.reservation_id AS id FROM reservation_items l
        WHERE l.counted AND l.expires_at > _now
    ) cart
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM reservation_items l
        WHERE l.reservation_id = cart.id AND NOT l.counted
    ) lost
    CROSS JOIN LATERAL (
        SELECT * FROM reservations h WHERE h.id = cart.id
        OFFSET 0 -- otherwise the planner may join the whole table
    ) r
    WHERE lost.n > 0;
END $$;

-- has_line says whether a hold has a line of the product in the warehouse; null stands for any.
-- One line of a cart must match both. The last statement counts instead of asking EXISTS, because
-- the planner would compute an EXISTS for all carts at once.
CREATE OR REPLACE FUNCTION has_line(_hold reservations, _product uuid, _warehouse uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _product IS NULL AND _warehouse IS NULL THEN
        RETURN true;
    END IF;
    IF _hold.product_id IS NOT NULL THEN
        RETURN _hold.product_id = coalesce(_product, _hold.product_id)
           AND _hold.warehouse_id = coalesce(_warehouse, _hold.warehouse_id);
    END IF;
    RETURN (SELECT count(*) > 0 FROM reservation_items l
            WHERE l.reservation_id = _hold.id
              AND l.product_id = coalesce(_product, l.product_id)
              AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id));
END $$;
