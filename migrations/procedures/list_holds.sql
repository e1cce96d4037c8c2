-- list_live_holds and list_holds answer up to _limit holds after (_at, _id): the live holds, the
-- next to expire first; and the holds of a status, or of all when it is null, the newest first.
-- They lock nothing. They read the clock after their caller's snapshot was taken, and show a hold
-- that is dead by it as the sweep will write it (I4). After a jump of the clock a cart that lost a
-- line may be dead before its end.
--
-- They look for a line of a product or warehouse in at most _scan holds, so that a rare product
-- doesn't make one call read the whole history. When the bound is met, the last hold that was
-- looked at is answered too, with matches false if it isn't one to show, so that the next call can
-- continue there.
CREATE OR REPLACE FUNCTION list_live_holds(
    _product uuid, _warehouse uuid, _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT hold_json(w.r, false), w.fits, w.n, _now
    FROM (
        SELECT r, r.expires_at, r.id, row_number() OVER (ORDER BY r.expires_at, r.id) AS n,
               has_line(r, _product, _warehouse) AS fits
        FROM reservations r
        WHERE r.status = 'PENDING' AND r.expires_at > _now
          AND r.expires_at >= _at AND (r.expires_at, r.id) > (_at, _id)
          AND (r.product_id IS NOT NULL OR NOT has_lost_line(r))
        ORDER BY r.expires_at, r.id LIMIT _scan
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.expires_at, w.id LIMIT _limit;
END $$;

-- Each branch of the union is in order by its index, or has only the few PENDING holds, so that
-- the merge reads no further than it must.
CREATE OR REPLACE FUNCTION list_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _at timestamptz, _id uuid,
    _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT hold_json(w.r, hold_is_dead(w.r, _now)), w.fits, w.n, _now
    FROM (
        SELECT a.r, a.created_at, a.id,
               row_number() OVER (ORDER BY a.created_at DESC, a.id DESC) AS n,
               has_line(a.r, _product, _warehouse) AS fits
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
             WHERE _status IS NULL AND r.status = 'PENDING'
               AND r.expires_at > _now AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE _status = 'EXPIRED' AND r.status = 'PENDING'
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
