-- dead_units counts the units that dead holds still occupy on a stock row, whose first_end is
-- _from. It is STABLE, so that it reads by its caller's snapshot, in which reserved, first_end and
-- the holds agree. It reads the clock after that snapshot was taken: a hold that died in between
-- makes the caller see more units, never fewer. It stops counting after _enough holds, because
-- each has at least one unit; null counts all.
CREATE OR REPLACE FUNCTION dead_units(
    _product uuid, _warehouse uuid, _from timestamptz, _enough bigint)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN (
        SELECT coalesce(sum(d.quantity), 0)
        FROM (SELECT r.quantity FROM reservations r
              WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
                AND r.expires_at >= _from AND r.expires_at <= _now
              ORDER BY r.expires_at LIMIT _enough) d
    ) + (
        SELECT coalesce(sum(d.quantity), 0)
        FROM (SELECT l.quantity FROM reservation_items l
              WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
                AND l.expires_at >= _from AND l.expires_at <= _now
              ORDER BY l.expires_at LIMIT _enough) d
    );
END $$;
