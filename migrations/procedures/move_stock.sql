-- move_stock applies the lines of a document, which came from _source under _reference: deliveries,
-- losses and counts. Each line is a transaction of its own, so that a hot row is locked for one
-- movement. If _together is true, all lines are one transaction, and a line that is refused undoes
-- the others. _lines is an array of objects:
--
--   line, sku or product_id, warehouse or warehouse_id, delta or counted, as_of_seq, note
--
-- Outcomes: MOVED, with the result of each line; REFUSED, when _together is true and a line was
-- refused, with the results; REPLAYED, with the answer stored under the key; KEY_IN_USE;
-- KEY_REUSED; RETRY when a stock row or its holds changed during each of max_tries() tries. After a
-- RETRY or an error, lines may have been applied. The caller sends all of them again: each is
-- applied once.
--
-- A key binds its request from the first line's transaction on, with an answer that is still
-- pending. A repeat that finds it pending goes through the lines too, because nobody knows how far
-- the first call came. Each line's transaction claims the key, so no line is applied after the
-- answer is stored. The call that ends first stores its answer, and the other one returns it. A
-- line that this call refused may have been applied by the other one since: the last transaction,
-- which claims the key too, looks once more (applied_since).
CREATE OR REPLACE PROCEDURE move_stock(
    _source text, _reference text, _actor text, _clamp boolean, _together boolean, _lines jsonb,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _wanted  stock_movements[];
    _results jsonb[] := '{}';
    _batch   jsonb[]; -- the results of one transaction
    _result  jsonb;   -- the last one of the batch
    _first   integer := 1;
    _last    integer;
    _tries   integer;
    _late    boolean;
    _ignored text; -- write_log_record.sql says why
BEGIN
    _wanted := wanted_movements(_source, _reference, _actor, _together, _lines);
    WHILE _first <= cardinality(_wanted) LOOP
        _last := CASE WHEN _together THEN cardinality(_wanted) ELSE _first END;
        _tries := 0;
        LOOP
            _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
            IF _key IS NOT NULL THEN
                SELECT c.outcome, c.answer INTO outcome, answer FROM claim_pending(_key, _hash) c;
                EXIT WHEN outcome IS NOT NULL;
            END IF;
            _batch := move_lines(_wanted[_first:_last], _clamp);
            _result := _batch[cardinality(_batch)];
            EXIT WHEN _result ->> 'outcome' <> 'RETRY';

            ROLLBACK;
            _tries := _tries + 1;
            IF _tries = max_tries() THEN
                outcome := 'RETRY';
                EXIT;
            END IF;
            PERFORM await_dead_hold((_result ->> 'product_id')::uuid,
                                    (_result ->> 'warehouse_id')::uuid);
            ROLLBACK;
            PERFORM await_dead_line((_result ->> 'product_id')::uuid,
                                    (_result ->> 'warehouse_id')::uuid);
            ROLLBACK;
            IF _result ->> 'units' IS NOT NULL THEN
                CALL free_units((_result ->> 'product_id')::uuid,
                                (_result ->> 'warehouse_id')::uuid,
                                (_result ->> 'units')::bigint, _late);
            END IF;
            PERFORM pause_before_try(_tries + 1);
        END LOOP;
        EXIT WHEN outcome IS NOT NULL;
        _results := _results || _batch;
        _first := _last + 1;
        IF NOT _together THEN
            COMMIT;
        END IF;
    END LOOP;
    IF outcome IS NULL AND _key IS NOT NULL AND NOT _together THEN
        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
        SELECT c.outcome, c.answer INTO outcome, answer FROM claim_pending(_key, _hash) c;
        _results := applied_since(_wanted, _results);
    END IF;
    IF outcome IS NULL THEN
        SELECT jsonb_build_object('results', jsonb_agg(r ORDER BY (r ->> 'line')::integer)),
               CASE WHEN _together AND bool_or(r ->> 'outcome' = 'REFUSED')
                    THEN 'REFUSED' ELSE 'MOVED' END
        INTO answer, outcome
        FROM unnest(_results) r;
    END IF;
    IF outcome NOT IN ('MOVED', 'REPLAYED') THEN
        ROLLBACK;
        IF outcome = 'REFUSED' THEN
            _ignored := write_log_record(); -- for the lines that were applied before
        END IF;
        RETURN;
    END IF;
    IF outcome = 'MOVED' AND _key IS NOT NULL THEN
        UPDATE idempotency_keys k SET answer = move_stock.answer WHERE k.key = _key;
    END IF;
    COMMIT;
    _ignored := write_log_record();
END $$;

-- claim_pending claims a key as claim_key does, and stores that its answer is pending. outcome is
-- null while that is so.
CREATE OR REPLACE FUNCTION claim_pending(
    _key text, _hash bytea, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _pending constant jsonb := '{"results": null}';
BEGIN
    SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
    IF outcome IS NULL THEN
        PERFORM keep_answer(_key, _hash, _pending);
    ELSIF answer = _pending THEN
        outcome := NULL;
        answer := NULL;
    END IF;
END $$;

-- applied_since gives each line that was refused, and that another call has applied since, the
-- result of a replay.
CREATE OR REPLACE FUNCTION applied_since(_wanted stock_movements[], _results jsonb[])
RETURNS jsonb[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(CASE WHEN r.result ->> 'outcome' = 'REFUSED'
                              THEN coalesce((
                                  SELECT line_result(m, 'REPLAYED') FROM stock_movements m
                                  WHERE m.source = _wanted[r.n].source
                                    AND m.reference = _wanted[r.n].reference
                                    AND m.line = _wanted[r.n].line
                                    AND is_same_line(m, _wanted[r.n])), r.result)
                              ELSE r.result END ORDER BY r.n)
        FROM unnest(_results) WITH ORDINALITY r (result, n));
END $$;

-- is_same_line says whether the movement that a line has made is what _wanted asks for. An OPENING
-- that was counted has as_of_seq 0.
CREATE OR REPLACE FUNCTION is_same_line(_done stock_movements, _wanted stock_movements)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN (_done.product_id, _done.warehouse_id, _done.asked) IS NOT DISTINCT FROM
           (_wanted.product_id, _wanted.warehouse_id, _wanted.asked)
       AND CASE WHEN _done.kind = 'OPENING'
                THEN _wanted.as_of_seq IS NULL
                     AND (_done.as_of_seq IS NOT NULL) = (_wanted.kind = 'COUNT')
                ELSE _done.kind = _wanted.kind
                     AND _done.as_of_seq IS NOT DISTINCT FROM _wanted.as_of_seq END;
END $$;

-- wanted_movements reads the lines of a document. kind is COUNT for a line with counted, else
-- ADJUSTMENT, and asked is what was counted or the delta. A product or a warehouse that doesn't
-- exist is null. The lines of one transaction are in the lock order of their stock rows.
CREATE OR REPLACE FUNCTION wanted_movements(
    _source text, _reference text, _actor text, _together boolean, _lines jsonb)
RETURNS stock_movements[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(
            jsonb_populate_record(NULL::stock_movements, jsonb_build_object(
                'product_id', found.product_id, 'warehouse_id', found.warehouse_id,
                'line', l.line, 'source', _source, 'reference', _reference, 'actor', _actor,
                'note', l.note,
                'kind', CASE WHEN l.counted IS NULL THEN 'ADJUSTMENT' ELSE 'COUNT' END,
                'asked', coalesce(l.counted, l.delta), 'as_of_seq', l.as_of_seq))
            ORDER BY CASE WHEN _together THEN found.product_id END,
                     CASE WHEN _together THEN found.warehouse_id END, l.line)
        FROM jsonb_to_recordset(_lines) l (
            line integer, sku text, product_id uuid, warehouse text, warehouse_id uuid,
            delta integer, counted integer, as_of_seq bigint, note text)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN l.sku IS NULL THEN (SELECT a.id FROM products a
                                                 WHERE a.id = l.product_id)
                        ELSE (SELECT a.id FROM products a WHERE a.sku = l.sku) END AS product_id,
                   CASE WHEN l.warehouse IS NULL THEN (SELECT a.id FROM warehouses a
                                                       WHERE a.id = l.warehouse_id)
                        ELSE warehouse_of(l.warehouse) END AS warehouse_id
        ) found);
END $$;

-- warehouse_of finds a warehouse by its code.
CREATE OR REPLACE FUNCTION warehouse_of(_code text) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT w.id FROM warehouses w WHERE w.code = _code);
END $$;

-- move_lines applies lines in the caller's transaction. If a result is RETRY, it is the last one,
-- and the caller must roll back and do the lines again.
--
-- Two locks come before those of holds and stock rows. The document's lock makes the calls of one
-- document follow one another. If a line makes a stock row, the catalog's lock is shared: the new
-- row needs it (0005_catalog.sql), and no stock row may be locked while a write of the catalog is
-- waited for. Stock rows are never deleted, so the look for a missing one needs no lock.
CREATE OR REPLACE FUNCTION move_lines(_wanted stock_movements[], _clamp boolean) RETURNS jsonb[]
LANGUAGE plpgsql AS $$
DECLARE
    _results jsonb[] := '{}';
    _line    stock_movements;
    _result  jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(5, hashtext(_wanted[1].source || E'\n' || _wanted[1].reference));
    PERFORM pg_advisory_xact_lock_shared(4, 0)
    FROM unnest(_wanted) w
    WHERE w.product_id IS NOT NULL AND w.warehouse_id IS NOT NULL
      AND (SELECT i.epoch FROM inventory i -- leads to the row's newest version
           WHERE i.product_id = w.product_id AND i.warehouse_id = w.warehouse_id
           ORDER BY i.epoch DESC LIMIT 1) IS NULL
    LIMIT 1;
    FOREACH _line IN ARRAY _wanted LOOP
        _result := move_line(_line, _clamp);
        _results := _results || _result;
        EXIT WHEN _result ->> 'outcome' = 'RETRY';
    END LOOP;
    RETURN _results;
END $$;

-- move_line applies a line unless that was done before, and answers its result: APPLIED; UNCHANGED,
-- when the movement's delta is 0; REPLAYED, with the movement that the line made; REFUSED, with the
-- problem; RETRY. The caller has the document's lock.
CREATE OR REPLACE FUNCTION move_line(_wanted stock_movements, _clamp boolean) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _moved record;
    _done  stock_movements;
BEGIN
    IF _wanted.product_id IS NULL THEN
        RETURN refused_line(_wanted, 'PRODUCT_NOT_FOUND', NULL);
    END IF;
    IF _wanted.warehouse_id IS NULL THEN
        RETURN refused_line(_wanted, 'WAREHOUSE_NOT_FOUND', NULL);
    END IF;
    SELECT * INTO _done FROM stock_movements m
    WHERE m.source = _wanted.source AND m.reference = _wanted.reference AND m.line = _wanted.line;
    IF FOUND THEN
        IF NOT is_same_line(_done, _wanted) THEN
            RETURN refused_line(_wanted, 'REFERENCE_REUSED', NULL);
        END IF;
        RETURN line_result(_done, 'REPLAYED');
    END IF;

    SELECT t.outcome, t.held, t.units, t.movement INTO _moved FROM try_to_move(_wanted, _clamp) t;
    IF _moved.outcome = 'NO_STOCK_ROW' THEN
        SELECT t.outcome, t.held, t.units, t.movement INTO _moved
        FROM open_stock_row(_wanted, _clamp) t;
    END IF;
    CASE _moved.outcome
    WHEN 'MOVED' THEN
        _done := _moved.movement;
        RETURN line_result(_done, CASE WHEN _done.delta = 0 AND _done.kind <> 'OPENING'
                                       THEN 'UNCHANGED' ELSE 'APPLIED' END);
    WHEN 'HELD' THEN
        RETURN refused_line(_wanted, 'STOCK_HELD', _moved.held);
    WHEN 'RETRY', 'MANY_DEAD' THEN
        RETURN line_result(_wanted, 'RETRY') || jsonb_build_object(
            'units', CASE _moved.outcome WHEN 'MANY_DEAD' THEN _moved.units END);
    ELSE
        RETURN refused_line(_wanted, _moved.outcome, NULL);
    END CASE;
END $$;

-- try_to_move changes a stock row's total as a line asks, and writes the movement. Units of dead
-- holds may be taken away, as they may be reserved (I4). It reclaims only the units that the shelf
-- lacks, so a delivery reclaims none. Below what is held, the total goes only with _clamp, and then
-- just down to what is held.
--
-- Outcomes: MOVED, with the movement; HELD, with the units that live holds have; SEQ_UNKNOWN, when
-- neither the row nor the archive has a movement as_of_seq; TOO_MANY_UNITS, when the total would be
-- too large; NO_STOCK_ROW; RETRY, when other callers have locked the dead holds whose units it
-- needs, or have just changed the row; MANY_DEAD, when it took more than two seconds to reclaim
-- them. After the last two it has changed and locked nothing. units is how many must be free for
-- the line, and free is how many are.
--
-- The look is one snapshot without a lock, and it only refuses, as in reserve_line. The locked
-- row decides.
CREATE OR REPLACE FUNCTION try_to_move(
    _wanted stock_movements, _clamp boolean,
    OUT outcome text, OUT held bigint, OUT units bigint, OUT free bigint,
    OUT movement stock_movements)
LANGUAGE plpgsql AS $$
DECLARE
    _delta  bigint; -- null for a count of now
    _look   record;
    _before bigint; -- the total
    _total  bigint; -- afterwards, if nothing prevents it
    _lowest bigint; -- the total can't be less: the units of live holds
    _step   bigint;
    _freed  bigint := 0;
    _start  timestamptz := clock_timestamp();
BEGIN
    IF _wanted.as_of_seq IS NOT NULL THEN
        _delta := _wanted.asked - total_after(_wanted.product_id, _wanted.warehouse_id,
                                              _wanted.as_of_seq);
        IF _delta IS NULL THEN
            outcome := 'SEQ_UNKNOWN';
            RETURN;
        END IF;
    ELSIF _wanted.kind = 'ADJUSTMENT' THEN
        _delta := _wanted.asked;
    END IF;

    SELECT c.reserved, c.total, c.first_end, c.before,
           CASE WHEN c.total < c.reserved
                THEN dead_units(_wanted.product_id, _wanted.warehouse_id, c.first_end,
                                c.reserved - c.total)
                ELSE 0 END AS dead
    INTO _look
    FROM (SELECT i.reserved::bigint, i.first_end, i.total AS before,
                 coalesce(i.total + _delta, _wanted.asked) AS total
          FROM inventory i
          WHERE i.product_id = _wanted.product_id AND i.warehouse_id = _wanted.warehouse_id) c;
    IF NOT FOUND THEN
        outcome := 'NO_STOCK_ROW';
        RETURN;
    END IF;
    _lowest := _look.reserved - _look.dead;
    units := _look.before - greatest(_look.total, _lowest);
    free := _look.before - _lowest;
    IF _look.total < _lowest AND NOT _clamp THEN
        outcome := 'HELD';
        held := _lowest;
        RETURN;
    END IF;
    IF _look.total > max_total() THEN
        outcome := 'TOO_MANY_UNITS';
        RETURN;
    END IF;
    WHILE _look.reserved - _freed > greatest(_look.total, _lowest) LOOP
        _step := reclaim_units(_wanted.product_id, _wanted.warehouse_id, _look.first_end,
                               _look.reserved - _freed - greatest(_look.total, _lowest));
        IF _step = 0 THEN
            RAISE EXCEPTION USING ERRCODE = 'AL000'; -- undoes the reclaims
        END IF;
        _freed := _freed + _step;
        IF _look.reserved - _freed > greatest(_look.total, _lowest)
           AND clock_timestamp() - _start > interval '2 s' THEN
            RAISE EXCEPTION USING ERRCODE = 'AL001';
        END IF;
    END LOOP;

    SELECT i.total, i.reserved - _freed INTO _before, _lowest
    FROM inventory i
    WHERE i.product_id = _wanted.product_id AND i.warehouse_id = _wanted.warehouse_id
    FOR NO KEY UPDATE;
    _total := coalesce(_before + _delta, _wanted.asked);
    -- Where the look found enough dead holds, there may be more of them to reclaim.
    IF _total < _lowest AND (NOT _clamp OR _look.total >= _look.reserved - _look.dead)
       OR _total > max_total() THEN
        RAISE EXCEPTION USING ERRCODE = 'AL000';
    END IF;
    WITH stock AS (
        UPDATE inventory i
        SET total = greatest(_total, _lowest), seq = i.seq + 1, reserved = _lowest,
            epoch = next_epoch(i.epoch)
        WHERE i.product_id = _wanted.product_id AND i.warehouse_id = _wanted.warehouse_id
        RETURNING i.seq, i.total
    )
    INSERT INTO stock_movements AS m
           (product_id, warehouse_id, seq, at, kind, delta, total_after, source, reference, line,
            note, actor, asked, as_of_seq, shortfall)
    SELECT _wanted.product_id, _wanted.warehouse_id, s.seq, clock_timestamp(), _wanted.kind,
           s.total - _before, s.total, _wanted.source, _wanted.reference, _wanted.line,
           _wanted.note, _wanted.actor, _wanted.asked, _wanted.as_of_seq,
           nullif(s.total - _total, 0)
    FROM stock s
    RETURNING m.* INTO movement;
    IF _freed > 0 THEN
        PERFORM raise_first_end(_wanted.product_id, _wanted.warehouse_id);
    END IF;
    outcome := 'MOVED';
EXCEPTION
    WHEN SQLSTATE 'AL001' THEN -- before AL000, which stands for all its class
        outcome := 'MANY_DEAD';
    WHEN SQLSTATE 'AL000' THEN
        outcome := 'RETRY';
END $$;

-- total_after is the total after a stock row's movement _seq, or null if there is none. The archive
-- is read second: a movement may move there at any time, and never back.
CREATE OR REPLACE FUNCTION total_after(_product uuid, _warehouse uuid, _seq bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _total bigint;
BEGIN
    SELECT m.total_after INTO _total FROM stock_movements m
    WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = _seq;
    IF NOT FOUND THEN
        SELECT m.total_after INTO _total FROM archived_movements m
        WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = _seq;
    END IF;
    RETURN _total;
END $$;

-- max_total is the most units of a stock row after a movement. A row of integers holds a few more.
CREATE OR REPLACE FUNCTION max_total() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 2000000000
$$;

-- open_stock_row makes the stock row of a line, with the line's movement as its OPENING. Outcomes:
-- MOVED, HELD, SEQ_UNKNOWN, as of try_to_move; RETRY, when another caller has just made the row.
CREATE OR REPLACE FUNCTION open_stock_row(
    _wanted stock_movements, _clamp boolean,
    OUT outcome text, OUT held bigint, OUT units bigint, OUT movement stock_movements)
LANGUAGE plpgsql AS $$
BEGIN
    IF _wanted.as_of_seq IS NOT NULL THEN
        outcome := 'SEQ_UNKNOWN';
        RETURN;
    END IF;
    IF _wanted.asked < 0 AND NOT _clamp THEN
        outcome := 'HELD';
        held := 0;
        RETURN;
    END IF;
    WITH made AS (
        INSERT INTO inventory (product_id, warehouse_id, total, first_end)
        VALUES (_wanted.product_id, _wanted.warehouse_id, greatest(_wanted.asked, 0), 'infinity')
        ON CONFLICT DO NOTHING
        RETURNING seq, total
    )
    INSERT INTO stock_movements AS m
           (product_id, warehouse_id, seq, at, kind, delta, total_after, source, reference, line,
            note, actor, asked, as_of_seq, shortfall)
    SELECT _wanted.product_id, _wanted.warehouse_id, s.seq, clock_timestamp(), 'OPENING', s.total,
           s.total, _wanted.source, _wanted.reference, _wanted.line, _wanted.note, _wanted.actor,
           _wanted.asked, CASE WHEN _wanted.kind = 'COUNT' THEN 0 END,
           nullif(s.total - _wanted.asked, 0)
    FROM made s
    RETURNING m.* INTO movement;
    outcome := CASE WHEN FOUND THEN 'MOVED' ELSE 'RETRY' END;
END $$;

-- line_result is the result of a line as move_stock answers it, with the line's movement, or with
-- the line itself when it has none.
CREATE OR REPLACE FUNCTION line_result(_m stock_movements, _outcome text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'line', _m.line, 'product_id', _m.product_id, 'warehouse_id', _m.warehouse_id,
        'outcome', _outcome, 'delta', coalesce(_m.delta, 0), 'total', _m.total_after,
        'seq', _m.seq, 'shortfall', _m.shortfall)
$$;

-- refused_line is the result of a line that has a problem. held is there with STOCK_HELD only.
CREATE OR REPLACE FUNCTION refused_line(_wanted stock_movements, _problem text, _held bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT line_result(_wanted, 'REFUSED')
           || jsonb_build_object('problem', _problem, 'held', _held)
$$;
