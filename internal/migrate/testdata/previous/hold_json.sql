-- hold_json is a hold in the form that the service decodes. With _expired a dead hold is shown as
-- the sweep will write it, so that a reader can't tell whether the sweep has run (I4).
CREATE OR REPLACE FUNCTION hold_json(_hold reservations, _expired boolean)
RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _items jsonb;
BEGIN
    IF _expired THEN
        _hold.status := 'EXPIRED';
        _hold.updated_at := _hold.expires_at;
        _hold.version := _hold.version + 1;
    END IF;
    IF _hold.product_id IS NOT NULL THEN
        RETURN to_jsonb(_hold);
    END IF;
    SELECT jsonb_agg(jsonb_build_object('product_id', l.product_id, 'warehouse_id', l.warehouse_id,
                                        'quantity', l.quantity)
                     ORDER BY l.product_id, l.warehouse_id)
    INTO _items
    FROM reservation_items l
    WHERE l.reservation_id = _hold.id;
    IF _items IS NULL THEN -- the cart was archived after its row was read
        _items := archived_lines(_hold.id, _hold.updated_at);
    END IF;
    RETURN to_jsonb(_hold) || jsonb_build_object('items', _items);
END $$;
