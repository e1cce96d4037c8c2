-- read_hold is one hold with its product and warehouse, and the clock by which it was read.
--
-- The answer is durable (I5): it waits for a flush when the hold's last change isn't known to be on
-- disk.
CREATE OR REPLACE FUNCTION read_hold(_id uuid, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz;
BEGIN
    SELECT s.outcome, s.answer, s.seen INTO outcome, answer, _now FROM settled_hold(_id) s;
    IF outcome = 'NOT_FOUND' THEN
        RETURN;
    END IF;
    IF NOT hold_is_flushed(_id) THEN
        PERFORM write_log_record();
    END IF;
    answer := jsonb_build_object(
        'hold', with_party(answer),
        'product', (SELECT to_jsonb(p) FROM products p
                    WHERE p.id = (answer ->> 'product_id')::uuid),
        'warehouse', (SELECT to_jsonb(w) FROM warehouses w
                      WHERE w.id = (answer ->> 'warehouse_id')::uuid),
        'now', _now);
END $$;
