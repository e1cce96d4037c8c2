-- await_dead_hold and await_dead_line wait until the oldest dead hold, or cart line, of a stock
-- row is no longer locked by the caller that expires, reclaims or resolves it. A verb calls each
-- between two tries, in a transaction that holds no other lock.
CREATE OR REPLACE FUNCTION await_dead_hold(_product uuid, _warehouse uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _from timestamptz := first_end_of(_product, _warehouse);
BEGIN
    PERFORM FROM reservations r
    WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
      AND r.expires_at >= _from AND r.expires_at <= _now
    ORDER BY r.expires_at, r.id LIMIT 1 FOR NO KEY UPDATE;
END $$;

CREATE OR REPLACE FUNCTION await_dead_line(_product uuid, _warehouse uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _from timestamptz := first_end_of(_product, _warehouse);
BEGIN
    PERFORM FROM reservation_items l
    WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
      AND l.expires_at >= _from AND l.expires_at <= _now
    ORDER BY l.expires_at, l.reservation_id LIMIT 1 FOR NO KEY UPDATE;
END $$;
