-- close_stock records that an audit has verified stock rows: their movements after the one numbered
-- _closed, up to the one numbered _seqs, which leads to _totals. _closed is 0 when the audit
-- began with the first movement. The arrays name each stock row once.
--
-- An audit may have read a server that lags behind, and two audits may close at once. So a closing
-- only moves forward, from where the audit began or beyond, and only to a movement that this server
-- has. Rows for which that isn't so are left alone. A closing that is lost in a crash is verified
-- again, so this doesn't wait for the disk.
CREATE OR REPLACE FUNCTION close_stock(
    _products uuid[], _warehouses uuid[], _closed bigint[], _seqs bigint[], _totals integer[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
    INSERT INTO stock_closings AS c (product_id, warehouse_id, seq, total, at)
    SELECT k.product_id, k.warehouse_id, k.seq, k.total, clock_timestamp()
    FROM unnest(_products, _warehouses, _closed, _seqs, _totals)
         k (product_id, warehouse_id, closed, seq, total)
    LEFT JOIN stock_closings b
         ON b.product_id = k.product_id AND b.warehouse_id = k.warehouse_id
    WHERE coalesce(b.seq, 0) >= k.closed
      AND EXISTS (SELECT FROM stock_movements m
                  WHERE m.product_id = k.product_id AND m.warehouse_id = k.warehouse_id
                    AND m.seq = k.seq AND m.total_after = k.total)
    ORDER BY k.product_id, k.warehouse_id -- two audits lock the rows in this order
    ON CONFLICT (product_id, warehouse_id) DO UPDATE
    SET seq = excluded.seq, total = excluded.total, at = excluded.at
    WHERE c.seq < excluded.seq;
END $$;
