-- archived_hold is a hold of the archive in the form of hold_json, or null if the archive doesn't
-- have it. It was resolved long ago, so it is on disk.
CREATE OR REPLACE FUNCTION archived_hold(_id uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _hold reservations;
BEGIN
    SELECT * INTO _hold FROM archived_reservations WHERE id = _id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN hold_json(_hold, false);
END $$;

-- archived_lines is the lines of a cart of the archive, as hold_json has them, or null.
CREATE OR REPLACE FUNCTION archived_lines(_id uuid, _resolved_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object('product_id', l.product_id,
                                            'warehouse_id', l.warehouse_id, 'quantity', l.quantity)
                         ORDER BY l.product_id, l.warehouse_id)
        FROM archived_items l
        WHERE l.reservation_id = _id AND l.resolved_at = _resolved_at);
END $$;
