-- return_goods takes goods of a confirmed hold back. _reference names the return, which has one
-- effect, for ever. The hold itself doesn't change (I3). _lines is an array of objects, one for
-- each product, warehouse and destination. They are in the lock order of the stock rows that they
-- go to:
--
--   line, product_id, warehouse_id, quantity, to_warehouse_id
--
-- Outcomes: RETURNED, now or before under this reference, with the hold and the lines of the
-- return; NOT_FOUND; NOT_CONFIRMED; REFERENCE_REUSED, when the return of this reference had other
-- lines; WAREHOUSE_NOT_FOUND, when a to_warehouse_id is unknown; EXCEEDS_SOLD, with each line of
-- which more would be back than was sold; TOO_MANY_UNITS, when a total would be too large;
-- REPLAYED, with the answer stored under the key; KEY_IN_USE; KEY_REUSED.
CREATE OR REPLACE PROCEDURE return_goods(
    _id uuid, _reference text, _actor text, _lines jsonb, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _wanted returns[];
    _ignored text; -- write_log_record.sql says why
BEGIN
    _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
    SELECT array_agg(l ORDER BY l.line) INTO _wanted
    FROM jsonb_populate_recordset(NULL::returns, _lines) l;
    IF _key IS NOT NULL THEN
        SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
    END IF;
    IF outcome IS NULL THEN
        SELECT t.outcome, t.answer INTO outcome, answer
        FROM take_back(_id, _reference, _actor, _wanted) t;
        IF _key IS NOT NULL AND outcome = 'RETURNED' THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
    END IF;
    IF outcome IN ('RETURNED', 'REPLAYED') THEN
        answer := with_party(answer);
        COMMIT;
    ELSE
        ROLLBACK; -- also the lines before the one that was refused
    END IF;
    _ignored := write_log_record(); -- a refusal tells of an earlier change, so it waits too
END $$;

-- take_back does the work of return_goods in the caller's transaction. Its outcomes are those that
-- don't concern the key. After any other than RETURNED the caller must roll back.
--
-- The lock of the hold makes its returns follow one another, so what was returned before is known
-- until the commit. Each statement after the lock has a younger snapshot.
CREATE OR REPLACE FUNCTION take_back(
    _id uuid, _reference text, _actor text, _wanted returns[], OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _hold reservations;
    _done returns[];
    _line returns;
    _excess jsonb;
BEGIN
    PERFORM share_catalog_for_new_rows(_wanted);
    _hold := lock_hold(_id);
    IF _hold.id IS NULL THEN
        outcome := 'NOT_FOUND';
        RETURN;
    END IF;
    answer := hold_json(_hold, false);
    SELECT array_agg(r ORDER BY r.line) INTO _done FROM returns r
    WHERE r.reservation_id = _id AND r.reference = _reference;
    IF _done IS NOT NULL AND lines_of_return(_done) <> lines_of_return(_wanted) THEN
        outcome := 'REFERENCE_REUSED';
        RETURN;
    END IF;
    IF _done IS NULL THEN
        IF _hold.status <> 'CONFIRMED' THEN
            outcome := 'NOT_CONFIRMED';
            RETURN;
        END IF;
        _excess := excess_of_return(_hold, _wanted);
        IF _excess IS NOT NULL THEN
            outcome := 'EXCEEDS_SOLD';
            answer := _excess;
            RETURN;
        END IF;
        IF has_unknown_warehouse(_wanted) THEN
            outcome := 'WAREHOUSE_NOT_FOUND';
            RETURN;
        END IF;
        FOREACH _line IN ARRAY _wanted LOOP
            _line.reservation_id := _id;
            _line.reference := _reference;
            _line.actor := _actor;
            IF _line.to_warehouse_id IS NOT NULL THEN
                _line.seq := restock(_line);
                IF _line.seq IS NULL THEN
                    outcome := 'TOO_MANY_UNITS';
                    RETURN;
                END IF;
            END IF;
            _line.at := clock_timestamp();
            INSERT INTO returns SELECT _line.*;
            _done := _done || _line;
        END LOOP;
    END IF;
    outcome := 'RETURNED';
    answer := answer || jsonb_build_object('returned', to_jsonb(_done));
END $$;

-- lines_of_return is what a caller asks of a return, for a comparison.
CREATE OR REPLACE FUNCTION lines_of_return(_lines returns[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg(jsonb_build_array(l.product_id, l.warehouse_id, l.quantity, l.to_warehouse_id)
                     ORDER BY l.line)
    FROM unnest(_lines) l
$$;

-- has_unknown_warehouse says whether a line would go to a warehouse that doesn't exist.
CREATE OR REPLACE FUNCTION has_unknown_warehouse(_wanted returns[]) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT count(*) > 0
            FROM unnest(_wanted) l LEFT JOIN warehouses w ON w.id = l.to_warehouse_id
            WHERE l.to_warehouse_id IS NOT NULL AND w.id IS NULL);
END $$;

-- excess_of_return lists each line of which more would be back than was sold, or answers null if
-- there is none. Of a line that the hold doesn't have, nothing was sold. The caller has the hold's
-- lock.
CREATE OR REPLACE FUNCTION excess_of_return(_hold reservations, _wanted returns[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(to_jsonb(u) ORDER BY u.product_id, u.warehouse_id)
        FROM (
            SELECT w.product_id, w.warehouse_id, w.requested,
                   sold_units(_hold, w.product_id, w.warehouse_id) AS sold,
                   coalesce((
                       SELECT sum(r.quantity) FROM returns r
                       WHERE r.reservation_id = _hold.id AND r.product_id = w.product_id
                         AND r.warehouse_id = w.warehouse_id), 0) AS returned
            FROM (SELECT l.product_id, l.warehouse_id, sum(l.quantity) AS requested
                  FROM unnest(_wanted) l GROUP BY l.product_id, l.warehouse_id) w
        ) u
        WHERE u.returned + u.requested > u.sold);
END $$;

-- sold_units is how many units of a product and a warehouse a confirmed hold has, which may lie in
-- the archive.
CREATE OR REPLACE FUNCTION sold_units(_hold reservations, _product uuid, _warehouse uuid)
RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        RETURN CASE WHEN (_hold.product_id, _hold.warehouse_id) = (_product, _warehouse)
                    THEN _hold.quantity ELSE 0 END;
    END IF;
    RETURN coalesce(
        (SELECT l.quantity FROM reservation_items l
         WHERE l.reservation_id = _hold.id AND l.product_id = _product
           AND l.warehouse_id = _warehouse),
        (SELECT l.quantity FROM archived_items l
         WHERE l.reservation_id = _hold.id AND l.product_id = _product
           AND l.warehouse_id = _warehouse AND l.resolved_at = _hold.updated_at),
        0);
END $$;

-- share_catalog_for_new_rows shares the catalog's lock if a line's stock row is to be made, because
-- the insert shares it (0005_catalog.sql), and neither a hold nor a stock row may be locked before.
-- A stock row is never deleted, so a row that is there now isn't made later.
CREATE OR REPLACE FUNCTION share_catalog_for_new_rows(_wanted returns[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM unnest(_wanted) l
    LEFT JOIN inventory i ON i.product_id = l.product_id AND i.warehouse_id = l.to_warehouse_id
    WHERE l.to_warehouse_id IS NOT NULL AND i.product_id IS NULL;
    IF FOUND THEN
        PERFORM pg_advisory_xact_lock_shared(4, 0);
    END IF;
END $$;

-- restock puts a line's units on the shelf, writes the RETURN, and answers the movement's number. A
-- stock row that doesn't exist begins empty. It answers null when the total would be too large. It
-- doesn't touch reserved.
--
-- The movement's source names the hold. No document of move_stock has such a source (Document in
-- internal/stock), so the two never meet in the index of lines.
CREATE OR REPLACE FUNCTION restock(_line returns) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _seq bigint;
BEGIN
    PERFORM FROM inventory i
    WHERE i.product_id = _line.product_id AND i.warehouse_id = _line.to_warehouse_id;
    IF NOT FOUND THEN
        INSERT INTO inventory (product_id, warehouse_id, total, first_end)
        VALUES (_line.product_id, _line.to_warehouse_id, 0, 'infinity')
        ON CONFLICT DO NOTHING;
    END IF;
    WITH stock AS (
        UPDATE inventory i
        SET total = i.total + _line.quantity, seq = i.seq + 1, epoch = next_epoch(i.epoch)
        WHERE i.product_id = _line.product_id AND i.warehouse_id = _line.to_warehouse_id
          AND i.total::bigint + _line.quantity <= max_total()
        RETURNING i.seq, i.total
    )
    INSERT INTO stock_movements AS m
           (product_id, warehouse_id, seq, at, reservation_id, kind, delta, total_after, source,
            reference, line, actor)
    SELECT _line.product_id, _line.to_warehouse_id, s.seq, clock_timestamp(), _line.reservation_id,
           'RETURN', _line.quantity, s.total,
           '/api/reservations/' || _line.reservation_id || '/returns', _line.reference, _line.line,
           _line.actor
    FROM stock s
    RETURNING m.seq INTO _seq;
    RETURN _seq;
END $$;
