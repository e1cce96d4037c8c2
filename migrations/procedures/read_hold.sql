-- read_hold is one hold with its product and warehouse, what came back of its lines, and the clock
-- by which it was read.
--
-- The answer is durable (I5): it waits for a flush when the hold's last change isn't known to be on
-- disk, and when it tells of a return.
CREATE OR REPLACE FUNCTION read_hold(_id uuid, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz;
    _returned jsonb;
BEGIN
    SELECT s.outcome, s.answer, s.seen INTO outcome, answer, _now FROM settled_hold(_id) s;
    IF outcome = 'NOT_FOUND' THEN
        RETURN;
    END IF;
    IF outcome = 'CONFIRMED' THEN
        _returned := returned_units(_id);
    END IF;
    IF _returned IS NOT NULL OR NOT hold_is_flushed(_id) THEN
        PERFORM write_log_record();
    END IF;
    answer := jsonb_build_object(
        'hold', with_party(answer),
        'product', (SELECT to_jsonb(p) FROM products p
                    WHERE p.id = (answer ->> 'product_id')::uuid),
        'warehouse', (SELECT to_jsonb(w) FROM warehouses w
                      WHERE w.id = (answer ->> 'warehouse_id')::uuid),
        'returned', coalesce(_returned, '[]'),
        'now', _now);
END $$;

-- returned_units is how many units of each line of a hold came back, and how many of them were
-- restocked. It is null if none came back.
CREATE OR REPLACE FUNCTION returned_units(_id uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(to_jsonb(l) ORDER BY l.product_id, l.warehouse_id)
        FROM (SELECT r.product_id, r.warehouse_id, sum(r.quantity) AS quantity,
                     coalesce(sum(r.quantity) FILTER (WHERE r.seq IS NOT NULL), 0) AS restocked
              FROM returns r WHERE r.reservation_id = _id
              GROUP BY r.product_id, r.warehouse_id) l);
END $$;
