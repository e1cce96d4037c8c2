-- list_returns is the newest _limit lines of a hold's returns, in the order in which they came
-- back, or null if there is no such hold. A hold may lie in the archive; its returns stay where
-- they are. A hold has no more lines of returns than units, and they are found by the primary key.
CREATE OR REPLACE FUNCTION list_returns(_id uuid, _limit integer) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT hold_exists(_id) THEN
        RETURN NULL;
    END IF;
    RETURN coalesce((
        SELECT jsonb_agg(to_jsonb(l) ORDER BY l.at, l.reference, l.line)
        FROM (SELECT r.reference, r.line, r.product_id, r.warehouse_id, r.quantity,
                     r.to_warehouse_id, r.at, r.actor
              FROM returns r WHERE r.reservation_id = _id
              ORDER BY r.at DESC, r.reference DESC, r.line DESC LIMIT _limit) l), '[]');
END $$;
