-- The audit's statements of the previous release (commit 9373b8c), each ended by a line with ;
SELECT format('product %s in warehouse %s: reserved %s of %s', product_id, warehouse_id, reserved, total)
FROM inventory WHERE reserved < 0 OR reserved > total
;
WITH lines AS (
    SELECT r.product_id, r.warehouse_id, r.quantity, r.status = 'PENDING' AS counted, r.status
    FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.product_id, l.warehouse_id, l.quantity, l.counted, r.status
    FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
), stock AS (
    SELECT product_id, warehouse_id,
           coalesce(sum(quantity) FILTER (WHERE counted), 0) AS held,
           coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold
    FROM lines GROUP BY product_id, warehouse_id
)
SELECT format('product %s in warehouse %s: reserved is %s, its holds add up to %s',
              product_id, warehouse_id, i.reserved, coalesce(s.held, 0))
FROM inventory i FULL JOIN stock s USING (product_id, warehouse_id)
WHERE i.reserved IS DISTINCT FROM coalesce(s.held, 0)
;
SELECT format('hold %s is %s, yet its line of product %s is still counted', r.id, r.status, l.product_id)
FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
WHERE l.counted AND r.status <> 'PENDING'
;
SELECT format('line of product %s belongs to no hold: %s', l.product_id, l.reservation_id)
FROM reservation_items l LEFT JOIN reservations r ON r.id = l.reservation_id
WHERE r.id IS NULL
;
SELECT format('hold %s was %s at %s, when it had been dead since %s', id, status, updated_at, expires_at)
FROM reservations WHERE status IN ('CONFIRMED', 'RELEASED') AND updated_at >= expires_at
;
SELECT format('the server runs with %s = %s', name, setting)
FROM pg_settings WHERE (name IN ('fsync', 'synchronous_commit')) AND setting = 'off'
;
SELECT format('key %s answers with hold %s, which does not exist', k.key, k.answer ->> 'id')
FROM idempotency_keys k LEFT JOIN reservations r ON r.id = (k.answer ->> 'id')::uuid
WHERE r.id IS NULL
;
SELECT format('cart %s holds %s units, its %s lines add up to %s', r.id, r.quantity, count(l.*), coalesce(sum(l.quantity), 0))
FROM reservations r LEFT JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NULL
GROUP BY r.id HAVING coalesce(sum(l.quantity), 0) <> r.quantity OR count(l.*) < 2
;
SELECT format('hold %s has one line and a cart''s lines too', r.id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.product_id IS NOT NULL
;
SELECT format('cart %s is alive and its line of product %s is not counted', r.id, l.product_id)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.status = 'PENDING' AND r.expires_at > clock_timestamp() AND NOT l.counted
;
SELECT format('cart %s ends at %s, its line of product %s at %s', r.id, r.expires_at, l.product_id, l.expires_at)
FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
WHERE r.expires_at <> l.expires_at
;
WITH lines AS (
    SELECT r.product_id, r.warehouse_id, r.quantity, r.status = 'PENDING' AS counted, r.status
    FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.product_id, l.warehouse_id, l.quantity, l.counted, r.status
    FROM reservation_items l JOIN reservations r ON r.id = l.reservation_id
), stock AS (
    SELECT product_id, warehouse_id,
           coalesce(sum(quantity) FILTER (WHERE counted), 0) AS held,
           coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold
    FROM lines GROUP BY product_id, warehouse_id
), moved AS (
    SELECT product_id, warehouse_id, sum(delta) AS delta FROM stock_adjustments GROUP BY product_id, warehouse_id
)
SELECT format('product %s in warehouse %s: total is %s, adjustments of %s less %s sold say otherwise',
              product_id, warehouse_id, i.total, coalesce(m.delta, 0), coalesce(s.sold, 0))
FROM inventory i
LEFT JOIN stock s USING (product_id, warehouse_id)
LEFT JOIN moved m USING (product_id, warehouse_id)
WHERE i.total <> coalesce(m.delta, 0) - coalesce(s.sold, 0)
;
SELECT format('hold %s expired at %s, not at its end, %s', id, updated_at, expires_at)
FROM reservations WHERE status = 'EXPIRED' AND updated_at <> expires_at
