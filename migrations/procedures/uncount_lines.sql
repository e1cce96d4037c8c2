-- uncount_lines locks the lines of a cart in the lock order, and marks them as not counted any
-- more. It answers how many lines there are, how many were counted until now, and these. The caller
-- takes the units of these out of their stock rows' reserved. Fewer counted lines than there are
-- mean that a line was reclaimed: the cart is dead.
CREATE OR REPLACE FUNCTION uncount_lines(
    _hold uuid, OUT lines bigint, OUT counted bigint,
    OUT products uuid[], OUT warehouses uuid[], OUT quantities integer[])
LANGUAGE plpgsql AS $$
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT l.product_id, l.warehouse_id FROM reservation_items l
        WHERE l.reservation_id = _hold
        ORDER BY l.product_id, l.warehouse_id FOR NO KEY UPDATE
    ), uncounted AS (
        UPDATE reservation_items l SET counted = false
        FROM locked
        WHERE l.reservation_id = _hold AND l.product_id = locked.product_id
          AND l.warehouse_id = locked.warehouse_id AND l.counted
        RETURNING l.product_id, l.warehouse_id, l.quantity
    )
    SELECT (SELECT count(*) FROM locked), count(*), array_agg(u.product_id),
           array_agg(u.warehouse_id), array_agg(u.quantity)
    INTO lines, counted, products, warehouses, quantities
    FROM uncounted u;
END $$;
