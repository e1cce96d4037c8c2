-- read_hold is one hold with its product and warehouse, and the clock by which it was read.
--
-- The answer is durable (I5): a hold that changed or expired within the last ten seconds may have
-- been committed without a flush, so the answer waits for one. Postgres flushes such a commit
-- within three times wal_writer_delay (600 ms), a sixteenth of that.
CREATE OR REPLACE FUNCTION read_hold(_id uuid, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz;
BEGIN
    SELECT s.outcome, s.answer, s.seen INTO outcome, answer, _now FROM settled_hold(_id) s;
    IF outcome = 'NOT_FOUND' THEN
        RETURN;
    END IF;
    IF (answer ->> 'updated_at')::timestamptz > _now - interval '10 s' THEN
        PERFORM write_flush_record();
    END IF;
    answer := jsonb_build_object(
        'hold', answer,
        'product', (SELECT to_jsonb(p) FROM products p
                    WHERE p.id = (answer ->> 'product_id')::uuid),
        'warehouse', (SELECT to_jsonb(w) FROM warehouses w
                      WHERE w.id = (answer ->> 'warehouse_id')::uuid),
        'now', _now);
END $$;
