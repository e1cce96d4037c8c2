-- reclaim_holds expires dead holds of one stock row, the oldest first, and answers the units that
-- they held; its caller gives these back to the stock row. It takes up to _need holds, because each
-- has at least one unit, and at most reclaim_step() of them. _from is the stock row's first_end.
--
-- It skips holds that others have locked, so that sixty callers take sixty different holds. A
-- caller that is left without enough rolls back, and then waits with await_dead_hold and
-- await_dead_line while it holds no lock.
CREATE OR REPLACE FUNCTION reclaim_holds(
    _product uuid, _warehouse uuid, _from timestamptz, _need bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _units bigint;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT r.id FROM reservations r
        WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
          AND r.expires_at >= _from AND r.expires_at <= _now
        ORDER BY r.expires_at, r.id LIMIT least(_need, reclaim_step()) FOR NO KEY UPDATE SKIP LOCKED
    ), expired AS (
        UPDATE reservations r
        SET status = 'EXPIRED', updated_at = r.expires_at, version = r.version + 1
        FROM due
        WHERE r.id = due.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
        RETURNING r.id, r.expires_at, r.version, r.quantity
    ), transitions AS (
        INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
        SELECT e.expires_at, e.expires_at, e.id, e.version, 'e', 'm' FROM expired e
    )
    SELECT coalesce(sum(quantity), 0) INTO _units FROM expired;
    RETURN _units;
END $$;

-- reclaim_lines does the same for the lines of dead carts. It touches only the lines of its own
-- stock row; the sweep expires the cart itself.
CREATE OR REPLACE FUNCTION reclaim_lines(
    _product uuid, _warehouse uuid, _from timestamptz, _need bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _units bigint;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT l.reservation_id FROM reservation_items l
        WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
          AND l.expires_at >= _from AND l.expires_at <= _now
        ORDER BY l.expires_at, l.reservation_id
        LIMIT least(_need, reclaim_step()) FOR NO KEY UPDATE SKIP LOCKED
    ), uncounted AS (
        UPDATE reservation_items l SET counted = false
        FROM due
        WHERE l.reservation_id = due.reservation_id AND l.product_id = _product
          AND l.warehouse_id = _warehouse AND l.counted AND l.expires_at <= _now
        RETURNING l.quantity
    )
    SELECT coalesce(sum(quantity), 0) INTO _units FROM uncounted;
    RETURN _units;
END $$;

-- reclaim_units frees _need units of one stock row if it can: it reclaims dead holds, and then the
-- lines of dead carts. It answers how many units it freed. It frees none when none is needed.
CREATE OR REPLACE FUNCTION reclaim_units(
    _product uuid, _warehouse uuid, _from timestamptz, _need bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _freed bigint := 0;
BEGIN
    IF _need > 0 THEN
        _freed := reclaim_holds(_product, _warehouse, _from, _need);
    END IF;
    IF _need > _freed THEN
        _freed := _freed + reclaim_lines(_product, _warehouse, _from, _need - _freed);
    END IF;
    RETURN _freed;
END $$;

-- reclaim_step bounds the holds, and the lines, that one transaction reclaims on a stock row. A
-- thousand take about 50 ms. The planner replaces the call by the constant.
CREATE OR REPLACE FUNCTION reclaim_step() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 1000
$$;
