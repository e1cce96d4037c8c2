package reservation

// returnsSince reads the lines of returns since an instant.
func returnsSince(since string) part {
	return part{
		after: since, last: "infinity",
		end: `
SELECT b.at::text FROM returns b WHERE b.at > $1
ORDER BY b.at OFFSET 9999 LIMIT 1`,
		checks: returnChecks,
	}
}

// returnChecks compare a return with its hold, unless the hold was archived, and with its movement.
var returnChecks = []check{
	{"returns", `
SELECT format('hold %s is %s: %s units of product %s in warehouse %s are back, and its line has %s',
              r.id, r.status, b.units, n.product_id, n.warehouse_id,
              coalesce(l.quantity, r.quantity))
FROM (
    SELECT DISTINCT reservation_id, product_id, warehouse_id FROM returns
    WHERE at > $1 AND at <= $2
) n
CROSS JOIN LATERAL (
    SELECT sum(b.quantity) AS units FROM returns b
    WHERE b.reservation_id = n.reservation_id AND b.product_id = n.product_id
      AND b.warehouse_id = n.warehouse_id
) b
JOIN reservations r ON r.id = n.reservation_id
LEFT JOIN reservation_items l ON l.reservation_id = r.id AND l.product_id = n.product_id
                             AND l.warehouse_id = n.warehouse_id
WHERE r.status <> 'CONFIRMED'
   OR b.units > CASE WHEN r.product_id IS NULL THEN coalesce(l.quantity, 0)
                     WHEN (r.product_id, r.warehouse_id) = (n.product_id, n.warehouse_id)
                     THEN r.quantity ELSE 0 END`},
	{"returns", `
SELECT format('hold %s: line %s of the return %s has the movement %s, which is another one',
              b.reservation_id, b.line, b.reference, b.seq)
FROM returns b
LEFT JOIN stock_movements m ON m.product_id = b.product_id AND m.warehouse_id = b.to_warehouse_id
                           AND m.seq = b.seq
WHERE b.at > $1 AND b.at <= $2 AND b.seq IS NOT NULL
  AND (m.kind::text, m.delta, m.reservation_id, m.reference, m.line) IS DISTINCT FROM
      ('RETURN', b.quantity, b.reservation_id, b.reference, b.line)`},
}

// returnMovementCheck belongs to the movementChecks.
var returnMovementCheck = check{"returns", `
SELECT format('product %s in warehouse %s: movement %s is a RETURN, and no return has it',
              m.product_id, m.warehouse_id, m.seq)
FROM stock_movements m
LEFT JOIN returns b ON b.reservation_id = m.reservation_id AND b.reference = m.reference
                   AND b.line = m.line
WHERE (m.product_id, m.warehouse_id, m.seq) > ` + movementKey("$1") + `
  AND (m.product_id, m.warehouse_id, m.seq) <= ` + movementKey("$2") + `
  AND m.kind = 'RETURN' AND m.seq IS DISTINCT FROM b.seq`}
