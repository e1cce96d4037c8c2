-- adjust_stock changes what lies on the shelf and records the reason, or does neither (I8). Units
-- of dead holds may be taken away, as they may be reserved (I4). I1's check refuses a change that
-- would leave less than is held.
CREATE OR REPLACE FUNCTION adjust_stock(
    _product uuid, _warehouse uuid, _delta integer, _reason text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _freed bigint := reclaim_holds(_product, _warehouse, NULL);
BEGIN
    _freed := _freed + reclaim_lines(_product, _warehouse, NULL);
    UPDATE inventory SET total = total + _delta, reserved = reserved - _freed
    WHERE product_id = _product AND warehouse_id = _warehouse;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stock row for product % in warehouse %', _product, _warehouse;
    END IF;
    INSERT INTO stock_adjustments (product_id, warehouse_id, delta, reason)
    VALUES (_product, _warehouse, _delta, _reason);
END $$;
