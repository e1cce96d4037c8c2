-- hold_json is a hold in the form that the service decodes, and in which answers are stored under
-- keys: without its owner and its reference, which with_party adds. With _expired a dead hold is
-- shown as the sweep will write it, so that a reader can't tell whether the sweep has run (I4).
CREATE OR REPLACE FUNCTION hold_json(_hold reservations, _expired boolean)
RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _answer jsonb;
    _items  jsonb;
BEGIN
    IF _expired THEN
        _hold.status := 'EXPIRED';
        _hold.updated_at := _hold.expires_at;
        _hold.version := _hold.version + 1;
    END IF;
    _answer := to_jsonb(_hold);
    IF _hold.paying OR _hold.detailed OR _hold.status IN ('RELEASED', 'EXPIRED') THEN
        _answer := _answer || relations_of_hold(_hold);
    END IF;
    IF _hold.product_id IS NOT NULL THEN
        RETURN _answer;
    END IF;
    SELECT jsonb_agg(jsonb_build_object('product_id', l.product_id, 'warehouse_id', l.warehouse_id,
                                        'quantity', l.quantity)
                     ORDER BY l.product_id, l.warehouse_id)
    INTO _items
    FROM reservation_items l
    WHERE l.reservation_id = _hold.id;
    IF _items IS NULL THEN -- the cart lies in the archive
        _items := archived_lines(_hold.id, _hold.updated_at);
    END IF;
    RETURN _answer || jsonb_build_object('items', _items);
END $$;

-- relations_of_hold is the part of hold_json that other tables have: the payment under way, the
-- hold whose place it took, and the hold that took its place.
CREATE OR REPLACE FUNCTION relations_of_hold(_hold reservations) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'payment', CASE WHEN _hold.paying AND _hold.status = 'PENDING' THEN (
            SELECT jsonb_build_object('reference', p.reference, 'started_at', p.at)
            FROM hold_payments p WHERE p.hold_id = _hold.id AND p.outcome = 'STARTED') END,
        'replaces', CASE WHEN _hold.detailed THEN (
            SELECT r.old_id FROM replacements r WHERE r.new_id = _hold.id) END,
        'replaced_by', CASE WHEN _hold.status IN ('RELEASED', 'EXPIRED') THEN (
            SELECT r.new_id FROM replacements r WHERE r.old_id = _hold.id) END));
END $$;

-- with_party adds the owner and the reference of a hold to its answer, if they weren't erased.
CREATE OR REPLACE FUNCTION with_party(_answer jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT coalesce((_answer -> 'detailed')::boolean, false) THEN
        RETURN _answer;
    END IF;
    RETURN _answer || coalesce((
        SELECT jsonb_build_object('reference', p.reference, 'owner', p.owner)
        FROM hold_parties p WHERE p.hold_id = (_answer ->> 'id')::uuid), '{}');
END $$;
