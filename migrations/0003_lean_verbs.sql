-- The verbs, as procedures of Postgres. Why they are shaped so, and why each is right, is told in internal/reservation/doc.go; the
-- comments here say what each statement is for.
--
-- Every verb answers (outcome, answer). With _early it ends its transactions itself: a success is committed without waiting for the
-- disk, which frees the stock row at once, and then a second, tiny transaction writes a record of its own and waits for the flush as
-- every normal commit does. The log is flushed in order, so when the CALL returns, the first one is on disk. Anything but a success is
-- rolled back or has written nothing, and what found its rows changed is tried afresh, in a new transaction, a bounded number of
-- times. Without _early, for servers that refuse COMMIT in a procedure, it leaves the end to its caller under the same rule.
--
-- Locks are taken in one order by everything here: key, hold, lines, stock rows; several lines or stock rows by (product, warehouse).
-- Whatever takes many holds, the sweep and the reclaim, skips those that are locked instead of waiting. That is why no two calls can
-- wait for one another in a circle.
--
-- The statements of a hot row's verbs are few and plain on purpose: what a call costs is the number of statements, and each SELECT of
-- a function is one. An assignment of an expression is none, hence those of set_config and pg_logical_emit_message.
--
-- The role that calls them has its sequential scans off (package migrate). A session keeps the plans that it made first, and one made
-- while a table was all but empty would go on reading the whole of it; on a hot row it would walk through every dead version too. For the
-- same reason what finds a row by its primary key writes its guards so that no other index can serve them: status::text = 'PENDING' and
-- not status, and the difference of two times. On an empty table every index looks as good.
--
-- All functions stand here, those that stay as they were too, so that one file tells everything that runs. What it replaces is gone, as
-- no release has run on it. It changes constraints of the holds and their lines, and so waits for whoever
-- uses these tables, and they for it.

-- +goose Up

-- A hold has no foreign key to its stock row any more: the update that holds the units finds the row or there is no hold, and what was
-- ever in stock is kept from deletion by its adjustments, which do refer to it. The check locked the hot row a second time in every
-- reserve, which was measured to halve what 128 callers get from one row.
ALTER TABLE reservations DROP CONSTRAINT reservations_product_id_warehouse_id_fkey;
ALTER TABLE reservation_items DROP CONSTRAINT reservation_items_product_id_warehouse_id_fkey;

-- Each check is read and prepared anew by every statement that writes a row, so there is one, of what a reserve could get wrong. What can
-- be wrong with a change is the trigger's to refuse.
ALTER TABLE reservations
    DROP CONSTRAINT reservations_quantity_check,
    DROP CONSTRAINT one_line_or_a_cart,
    DROP CONSTRAINT i4_resolved_while_alive,
    ADD CONSTRAINT units_of_a_line_or_a_cart CHECK (quantity > 0 AND (product_id IS NULL) = (warehouse_id IS NULL));

DROP TRIGGER i3_resolved_once ON reservations;
DROP FUNCTION refuse_change_of_resolved();

-- I3 and I4 in SQL: a resolved hold never changes again, and is resolved while it is alive or else expired at its end.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.status <> 'PENDING' THEN
        RAISE EXCEPTION 'I3: hold % is % and never changes again', old.id, old.status USING ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION 'I4: hold % ends at % and can''t be % at %', old.id, new.expires_at, new.status, new.updated_at
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i3_resolved_once_i4_alive BEFORE UPDATE ON reservations
    FOR EACH ROW WHEN (old.status <> 'PENDING' OR (new.status = 'EXPIRED') <> (new.updated_at = new.expires_at)
                       OR new.updated_at > new.expires_at)
    EXECUTE FUNCTION refuse_change_of_hold();

DROP PROCEDURE reserve_line_early(uuid, uuid, uuid, integer, interval, text, bytea, text, jsonb);
DROP PROCEDURE reserve_cart_early(uuid, uuid[], uuid[], integer[], interval, text, bytea, text, jsonb);
DROP PROCEDURE confirm_hold_early(uuid, text, bytea, text, jsonb);
DROP PROCEDURE release_hold_early(uuid, text, bytea, text, jsonb);
DROP PROCEDURE extend_hold_early(uuid, interval, interval, text, bytea, text, jsonb);
DROP FUNCTION restart_hold(uuid, interval, text);
DROP FUNCTION reserve_line(uuid, uuid, uuid, integer, interval, text, bytea);
DROP FUNCTION reserve_cart(uuid, uuid[], uuid[], integer[], interval, text, bytea);
DROP FUNCTION give_up_units(reservations, boolean);
DROP FUNCTION resolve_hold(uuid, reservation_status, text[], text, bytea);
DROP FUNCTION confirm_hold(uuid, text, bytea);
DROP FUNCTION release_hold(uuid, text, bytea);
DROP FUNCTION extend_hold(uuid, interval, interval, text, bytea);

-- hold_json is a hold as the service reads it back. _expired shows a hold that is dead as the sweep will write it down, so that
-- a reader can't tell whether the sweep has been (I4).
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hold_json(_hold reservations, _expired boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _items jsonb;
BEGIN
    IF _expired THEN
        _hold.status := 'EXPIRED';
        _hold.updated_at := _hold.expires_at;
    END IF;
    IF _hold.product_id IS NULL THEN
        SELECT jsonb_agg(jsonb_build_object('product_id', l.product_id, 'warehouse_id', l.warehouse_id,
                                            'quantity', l.quantity) ORDER BY l.product_id, l.warehouse_id)
        INTO _items
        FROM reservation_items l
        WHERE l.reservation_id = _hold.id;
        RETURN to_jsonb(_hold) || jsonb_build_object('items', _items);
    END IF;
    RETURN to_jsonb(_hold);
END $$;
-- +goose StatementEnd

-- claim_key makes the twins of one Idempotency-Key follow one another (I6), with a lock of the transaction, which writes nothing,
-- and looks for the answer that an earlier one was given. An outcome of null means that the key is ours to use.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION claim_key(_key text, _hash bytea, OUT outcome text, OUT answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
    _kept idempotency_keys;
BEGIN
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended(_key, 0));
    EXCEPTION WHEN lock_not_available THEN
        outcome := 'KEY_IN_USE';
        RETURN;
    END;
    -- A statement of its own, so that its snapshot is younger than the lock.
    SELECT * INTO _kept FROM idempotency_keys
    WHERE key = _key AND created_at > clock_timestamp() - interval '24 hours';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF _kept.request_hash <> _hash THEN
        outcome := 'KEY_REUSED';
        RETURN;
    END IF;
    outcome := 'REPLAYED';
    answer := _kept.answer;
END $$;
-- +goose StatementEnd

-- keep_answer stores a success under its key, in the transaction that makes the effect. It writes over a key that has outlived
-- its day and awaits removal, and over no other.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION keep_answer(_key text, _hash bytea, _answer jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO idempotency_keys AS k (key, request_hash, answer, created_at)
    VALUES (_key, _hash, _answer, _now)
    ON CONFLICT (key) DO UPDATE
    SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at
    WHERE k.created_at <= _now - interval '24 hours';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'I6: a key that was free when claimed has an answer now';
    END IF;
END $$;
-- +goose StatementEnd

-- dead_units counts the units that dead holds still occupy on a stock row, by the clock read after the caller's snapshot was
-- taken: a hold that died in between makes the caller see more to be had, never less. It is STABLE so that it reads by that very
-- snapshot, in which reserved and the holds agree. It stops counting once it has seen _enough holds, as each has a unit or more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION dead_units(_product uuid, _warehouse uuid, _enough bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN (
        SELECT coalesce(sum(d.quantity), 0)
        FROM (SELECT r.quantity FROM reservations r
              WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
                AND r.expires_at <= _now
              ORDER BY r.expires_at LIMIT _enough) d
    ) + (
        SELECT coalesce(sum(d.quantity), 0)
        FROM (SELECT l.quantity FROM reservation_items l
              WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
                AND l.expires_at <= _now
              ORDER BY l.expires_at LIMIT _enough) d
    );
END $$;
-- +goose StatementEnd

-- reclaim_holds expires up to _need dead holds of one stock row, the oldest first, as each has a unit or more, and answers
-- the units it freed, which its caller gives back to the stock row. It skips the holds that others have locked, so that sixty
-- callers take sixty different ones; a caller left without enough rolls back and waits with await_dead_hold and _line, holding nothing.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION reclaim_holds(_product uuid, _warehouse uuid, _need bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _units bigint;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT r.id FROM reservations r
        WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
          AND r.expires_at <= _now
        ORDER BY r.expires_at, r.id LIMIT _need FOR UPDATE SKIP LOCKED
    ), expired AS (
        UPDATE reservations r SET status = 'EXPIRED', updated_at = r.expires_at
        FROM due
        WHERE r.id = due.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
        RETURNING r.quantity
    )
    SELECT coalesce(sum(quantity), 0) INTO _units FROM expired;
    RETURN _units;
END $$;
-- +goose StatementEnd

-- reclaim_lines does for the lines of dead carts what reclaim_holds does for holds of one line. It touches only the lines of its
-- own row; the cart itself is written down by the sweep.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION reclaim_lines(_product uuid, _warehouse uuid, _need bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _units bigint;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT l.reservation_id FROM reservation_items l
        WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse AND l.expires_at <= _now
        ORDER BY l.expires_at, l.reservation_id LIMIT _need FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE reservation_items l SET counted = false
        FROM due
        WHERE l.reservation_id = due.reservation_id AND l.product_id = _product AND l.warehouse_id = _warehouse
          AND l.counted AND l.expires_at <= _now
        RETURNING l.quantity
    )
    SELECT coalesce(sum(quantity), 0) INTO _units FROM freed;
    RETURN _units;
END $$;
-- +goose StatementEnd

-- adjust_stock is how an operator changes what lies on the shelf: the change and its reason, or neither (I8). What dead holds occupy
-- may be taken away, as it may be reserved (I4); a change that would leave less than is held is refused by I1's check.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION adjust_stock(_product uuid, _warehouse uuid, _delta integer, _reason text) RETURNS void
LANGUAGE plpgsql AS $$
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
-- +goose StatementEnd

-- await_dead_hold and await_dead_line wait for whoever is expiring, reclaiming or resolving the oldest dead hold, or cart line, of a
-- stock row. Each is called between two attempts, in a transaction of its own that holds no other lock.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION await_dead_hold(_product uuid, _warehouse uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    PERFORM 1 FROM reservations r
    WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse AND r.expires_at <= _now
    ORDER BY r.expires_at, r.id LIMIT 1 FOR UPDATE;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION await_dead_line(_product uuid, _warehouse uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    PERFORM 1 FROM reservation_items l
    WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse AND l.expires_at <= _now
    ORDER BY l.expires_at, l.reservation_id LIMIT 1 FOR UPDATE;
END $$;
-- +goose StatementEnd

-- pause_before lets a while pass before another try, as the row to wait for may be none of the oldest. The first retry, which is that of a
-- caller who lost the last unit, comes at once; the other twenty-eight take about as long together as a lock may be waited for.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION pause_before(_retry integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _retry > 1 THEN
        PERFORM pg_sleep(0.009 * _retry * (0.25 + random() / 2));
    END IF;
END $$;
-- +goose StatementEnd

-- restart_hold lets a new hold's time begin now: one that stood in line for its stock row's lock for long lost some of it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION restart_hold(_id uuid, _ttl interval, _key text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _hold reservations;
BEGIN
    UPDATE reservations SET created_at = _now, updated_at = _now, expires_at = _now + _ttl
    WHERE id = _id
    RETURNING * INTO _hold;
    UPDATE reservation_items SET expires_at = _hold.expires_at WHERE reservation_id = _id;
    IF _key IS NOT NULL THEN
        UPDATE idempotency_keys SET answer = hold_json(_hold) WHERE key = _key;
    END IF;
    RETURN _now;
END $$;
-- +goose StatementEnd

-- make_room looks closely at a cart of which a line seems short: it names every line that is, or else reclaims from dead holds what
-- each line lacks, and answers by how much each line then raises its stock row's reserved.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION make_room(_products uuid[], _warehouses uuid[], _quantities integer[], OUT short jsonb, OUT units bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    _need  bigint[];
    _freed bigint[];
BEGIN
    -- One snapshot for all lines, without a lock, as in reserve_line.
    SELECT jsonb_agg(jsonb_build_object('product_id', c.product_id, 'warehouse_id', c.warehouse_id,
                                        'requested', c.quantity, 'available', c.free + c.dead) ORDER BY c.n)
               FILTER (WHERE c.free + c.dead < c.quantity),
           array_agg(greatest(c.quantity - c.free, 0) ORDER BY c.n), array_agg(0 ORDER BY c.n), array_agg(c.quantity ORDER BY c.n)
    INTO short, _need, _freed, units
    FROM (SELECT l.*, i.total - i.reserved AS free,
                 CASE WHEN i.total - i.reserved < l.quantity
                      THEN dead_units(l.product_id, l.warehouse_id, l.quantity - (i.total - i.reserved))
                      ELSE 0 END AS dead
          FROM unnest(_products, _warehouses, _quantities) WITH ORDINALITY l (product_id, warehouse_id, quantity, n)
          JOIN inventory i USING (product_id, warehouse_id)
          OFFSET 0) c; -- which keeps the dead from being counted twice, by two clocks
    IF short IS NOT NULL THEN
        RETURN;
    END IF;
    -- All holds before all lines before any stock row: the lock order.
    FOR n IN 1..cardinality(_products) LOOP
        IF _need[n] > 0 THEN
            _freed[n] := reclaim_holds(_products[n], _warehouses[n], _need[n]);
        END IF;
    END LOOP;
    FOR n IN 1..cardinality(_products) LOOP
        IF _need[n] > _freed[n] THEN
            _freed[n] := _freed[n] + reclaim_lines(_products[n], _warehouses[n], _need[n] - _freed[n]);
        END IF;
        units[n] := _quantities[n] - _freed[n];
    END LOOP;
END $$;
-- +goose StatementEnd

-- reserve_line holds units of one stock row. Outcomes: HELD, with the instant at which the hold begins for its answer, and REPLAYED are
-- successes; INVENTORY_NOT_FOUND, SHORT, KEY_IN_USE, KEY_REUSED; RETRY when the row changed under its look at it.
-- +goose StatementBegin
CREATE PROCEDURE reserve_line(_early boolean, _id uuid, _product uuid, _warehouse uuid, _quantity integer, _ttl interval,
                              _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _free    bigint;
    _dead    bigint;
    _freed   bigint; -- null while there is stock
    _now     timestamptz;
    _retries integer;
    _nothing text;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        -- A look without a lock, which is all that a reserve needs while there is stock.
        SELECT i.total - i.reserved INTO _free FROM inventory i WHERE i.product_id = _product AND i.warehouse_id = _warehouse;
        IF (_free >= _quantity) IS NOT TRUE THEN
            -- One statement, so one snapshot, and the clock read after it; no lock, so a refusal costs none, no log and no flush. What
            -- dead holds occupy is counted until it is enough, as each has a unit or more.
            SELECT i.total - i.reserved,
                   (SELECT coalesce(sum(d.quantity), 0)
                    FROM (SELECT r.quantity FROM reservations r
                          WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
                            AND r.expires_at <= (SELECT clock_timestamp())
                          ORDER BY r.expires_at LIMIT _quantity) d)
                   + (SELECT coalesce(sum(d.quantity), 0)
                      FROM (SELECT l.quantity FROM reservation_items l
                            WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
                              AND l.expires_at <= (SELECT clock_timestamp())
                            ORDER BY l.expires_at LIMIT _quantity) d)
            INTO _free, _dead
            FROM inventory i
            WHERE i.product_id = _product AND i.warehouse_id = _warehouse;
            IF _free IS NULL THEN
                outcome := 'INVENTORY_NOT_FOUND';
                EXIT;
            END IF;
            IF _free + _dead < _quantity THEN
                outcome := 'SHORT';
                answer := jsonb_build_array(jsonb_build_object('product_id', _product, 'warehouse_id', _warehouse,
                                                               'requested', _quantity, 'available', _free + _dead));
                EXIT;
            END IF;
            _freed := 0;
            IF _free < _quantity THEN
                _freed := reclaim_holds(_product, _warehouse, _quantity - _free);
            END IF;
            IF _free + _freed < _quantity THEN
                _freed := _freed + reclaim_lines(_product, _warehouse, _quantity - _free - _freed);
            END IF;
        END IF;

        -- The hold first and the stock row last, so that the hot row is locked for one update and the commit record.
        _now := clock_timestamp();
        INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
        VALUES (_id, _product, _warehouse, _quantity, _now, _now, _now + _ttl);
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r)) FROM reservations r WHERE r.id = _id;
        END IF;
        _nothing := CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END;
        -- The guard that decides stands in the update itself, where it is read again after a wait for the lock.
        UPDATE inventory SET reserved = reserved - coalesce(_freed, 0) + _quantity
        WHERE product_id = _product AND warehouse_id = _warehouse AND total - reserved + coalesce(_freed, 0) >= _quantity;
        IF FOUND THEN
            IF clock_timestamp() > _now + least(interval '250 ms', _ttl / 4) THEN
                _now := restart_hold(_id, _ttl, _key);
            END IF;
            outcome := 'HELD';
            answer := to_jsonb(_now);
            EXIT;
        END IF;

        outcome := 'RETRY';
        _freed := NULL;
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
        PERFORM await_dead_hold(_product, _warehouse);
        ROLLBACK;
        PERFORM await_dead_line(_product, _warehouse);
        ROLLBACK;
        PERFORM pause_before(_retries);
    END LOOP;
    IF _early AND outcome IN ('HELD', 'REPLAYED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    END IF;
END $$;
-- +goose StatementEnd

-- reserve_cart holds the lines of a cart, all or none (I7). The lines come merged and sorted by (product, warehouse). Outcomes as
-- for reserve_line; SHORT names every short line.
-- +goose StatementBegin
CREATE PROCEDURE reserve_cart(_early boolean, _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[], _ttl interval,
                              _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _lines   integer := cardinality(_products);
    _missing boolean;
    _tight   boolean;
    _units   bigint[]; -- what each line adds to its stock row's reserved
    _now     timestamptz;
    _held    integer;
    _retries integer;
    _nothing text;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        -- A first look without a lock, which is all that most carts need.
        SELECT bool_or(i.total IS NULL), bool_or(i.total - i.reserved < l.quantity)
        INTO _missing, _tight
        FROM unnest(_products, _warehouses, _quantities) l (product_id, warehouse_id, quantity)
        LEFT JOIN inventory i USING (product_id, warehouse_id);
        IF _missing THEN
            outcome := 'INVENTORY_NOT_FOUND';
            EXIT;
        END IF;
        _units := _quantities;
        IF _tight THEN
            SELECT c.short, c.units INTO answer, _units FROM make_room(_products, _warehouses, _quantities) c;
            IF answer IS NOT NULL THEN
                outcome := 'SHORT';
                EXIT;
            END IF;
        END IF;

        _now := clock_timestamp();
        WITH hold AS (
            INSERT INTO reservations (id, quantity, created_at, updated_at, expires_at)
            SELECT _id, sum(q), _now, _now, _now + _ttl FROM unnest(_quantities) q
        )
        INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, expires_at, quantity)
        SELECT _id, l.product_id, l.warehouse_id, _now + _ttl, l.quantity
        FROM unnest(_products, _warehouses, _quantities) l (product_id, warehouse_id, quantity);
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r)) FROM reservations r WHERE r.id = _id;
        END IF;
        _nothing := CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END;

        -- The rows are locked in order first, then updated under the guard; one row that is short undoes the whole cart.
        WITH locked AS MATERIALIZED (
            SELECT i.product_id, i.warehouse_id, l.units
            FROM inventory i
            JOIN unnest(_products, _warehouses, _units) l (product_id, warehouse_id, units)
              USING (product_id, warehouse_id)
            ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
        )
        UPDATE inventory i SET reserved = i.reserved + l.units
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id AND i.total - i.reserved >= l.units;
        GET DIAGNOSTICS _held = ROW_COUNT;
        IF _held = _lines THEN
            IF clock_timestamp() > _now + least(interval '250 ms', _ttl / 4) THEN
                _now := restart_hold(_id, _ttl, _key);
            END IF;
            outcome := 'HELD';
            answer := to_jsonb(_now);
            EXIT;
        END IF;
        outcome := 'RETRY';
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
        FOR n IN 1.._lines LOOP
            PERFORM await_dead_hold(_products[n], _warehouses[n]);
            ROLLBACK;
            PERFORM await_dead_line(_products[n], _warehouses[n]);
            ROLLBACK;
        END LOOP;
        PERFORM pause_before(_retries);
    END LOOP;
    IF _early AND outcome IN ('HELD', 'REPLAYED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    END IF;
END $$;
-- +goose StatementEnd

-- settled_hold says what has become of a hold, exactly, and by which clock: when it looks dead, a confirm or an extend that came in
-- time may still be about to commit, so it takes the hold's lock and looks again. Outcomes: NOT_FOUND or the hold's status.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION settled_hold(_id uuid, OUT outcome text, OUT answer jsonb, OUT seen timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    _hold reservations;
    _dead boolean;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = _id;
    IF NOT FOUND THEN
        outcome := 'NOT_FOUND';
        RETURN;
    END IF;
    seen := clock_timestamp();
    _dead := _hold.status = 'PENDING' AND _hold.expires_at <= seen;
    IF _dead THEN
        SELECT * INTO _hold FROM reservations WHERE id = _id FOR NO KEY UPDATE;
        seen := clock_timestamp();
        _dead := _hold.status = 'PENDING' AND _hold.expires_at <= seen;
    END IF;
    outcome := CASE WHEN _dead THEN 'EXPIRED' ELSE _hold.status::text END;
    answer := hold_json(_hold, _dead);
END $$;
-- +goose StatementEnd

-- give_up_lines takes the units of a cart's lines out of reserved, and out of total as well when they are sold. It answers false, and its
-- caller must roll back, when a line was reclaimed: then the hold died before its lines were locked.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION give_up_lines(_id uuid, _sold boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _lines integer;
    _count integer;
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT l.product_id, l.warehouse_id, l.counted FROM reservation_items l
        WHERE l.reservation_id = _id
        ORDER BY l.product_id, l.warehouse_id FOR UPDATE
    ), given_up AS (
        UPDATE reservation_items l SET counted = false
        FROM locked
        WHERE l.reservation_id = _id AND l.product_id = locked.product_id
          AND l.warehouse_id = locked.warehouse_id AND l.counted
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM given_up) INTO _lines, _count;
    IF _count <> _lines THEN
        RETURN false;
    END IF;
    WITH locked AS MATERIALIZED (
        SELECT i.product_id, i.warehouse_id, l.quantity
        FROM inventory i
        JOIN reservation_items l USING (product_id, warehouse_id)
        WHERE l.reservation_id = _id
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    )
    UPDATE inventory i
    SET reserved = i.reserved - l.quantity,
        total    = i.total - CASE WHEN _sold THEN l.quantity ELSE 0 END
    FROM locked l
    WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id;
    GET DIAGNOSTICS _count = ROW_COUNT;
    IF _count <> _lines THEN
        RAISE EXCEPTION 'I2: hold % lacks a stock row', _id;
    END IF;
    RETURN true;
END $$;
-- +goose StatementEnd

-- resolve_hold confirms or releases a live hold: the guarded update, then its stock rows, and then the clock, as each of these locks
-- may have come after the hold's death. A release also succeeds when the hold is dead. Outcomes: NOT_FOUND, the status that the hold
-- has now, KEY_IN_USE, KEY_REUSED, REPLAYED, RETRY.
-- +goose StatementBegin
CREATE PROCEDURE resolve_hold(_early boolean, _id uuid, _to reservation_status, _key text, _hash bytea,
                              INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now     timestamptz;
    _hold    reservations;
    _whole   boolean;
    _success boolean;
    _retries integer;
    _nothing text;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            _success := outcome = 'REPLAYED';
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        -- The update may wait for the hold and find it extended; its time is then no earlier than the extension's.
        _now := clock_timestamp();
        UPDATE reservations r SET status = _to, updated_at = greatest(r.updated_at, _now)
        WHERE r.id = _id AND r.status::text = 'PENDING' AND r.expires_at - _now > '0'
        RETURNING r.* INTO _hold;
        IF FOUND THEN
            outcome := _to;
            answer := CASE WHEN _hold.product_id IS NULL THEN hold_json(_hold) ELSE to_jsonb(_hold) END;
        ELSE
            SELECT s.outcome, s.answer INTO outcome, answer FROM settled_hold(_id) s;
        END IF;
        -- A release also succeeds when the hold is dead: what its caller wants has come about.
        _success := outcome = _to::text OR outcome = 'EXPIRED' AND _to = 'RELEASED';
        IF _key IS NOT NULL AND _success THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
        _nothing := CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END;
        IF _hold.id IS NOT NULL THEN
            IF _hold.product_id IS NULL THEN
                _whole := give_up_lines(_id, _to = 'CONFIRMED');
            ELSE
                UPDATE inventory
                SET reserved = reserved - _hold.quantity,
                    total    = total - CASE WHEN _to = 'CONFIRMED' THEN _hold.quantity ELSE 0 END
                WHERE product_id = _hold.product_id AND warehouse_id = _hold.warehouse_id;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'I2: hold % has no stock row', _id;
                END IF;
                _whole := true;
            END IF;
            EXIT WHEN _whole AND clock_timestamp() < _hold.expires_at; -- after the locks
        ELSE
            EXIT WHEN outcome <> 'PENDING';
        END IF;

        -- It died while we waited for its lines or its stock rows, or was extended while it seemed dead.
        outcome := 'RETRY';
        _success := false;
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
    END LOOP;
    IF _early AND _success THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    ELSIF _early THEN
        ROLLBACK; -- the lock that settled_hold took needs no flush
    END IF;
END $$;
-- +goose StatementEnd

-- extend_hold gives a live hold a new end, counted from now and no later than _max after it was made. Outcomes: PENDING is the
-- success; NOT_FOUND, CONFIRMED, RELEASED, EXPIRED, EXTENSION_LIMIT, KEY_IN_USE, KEY_REUSED, REPLAYED, RETRY.
-- +goose StatementBegin
CREATE PROCEDURE extend_hold(_early boolean, _id uuid, _ttl interval, _max interval, _key text, _hash bytea,
                             INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now     timestamptz;
    _hold    reservations;
    _lines   integer;
    _count   integer;
    _retries integer;
    _nothing text;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        SELECT * INTO _hold FROM reservations WHERE id = _id FOR NO KEY UPDATE;
        _now := clock_timestamp(); -- after the lock
        outcome := CASE WHEN _hold.id IS NULL THEN 'NOT_FOUND'
                        WHEN _hold.status <> 'PENDING' THEN _hold.status::text
                        WHEN _hold.expires_at <= _now THEN 'EXPIRED'
                        WHEN _now + _ttl > _hold.created_at + _max THEN 'EXTENSION_LIMIT'
                        ELSE 'PENDING' END;
        EXIT WHEN outcome <> 'PENDING';
        UPDATE reservations SET expires_at = _now + _ttl, updated_at = _now
        WHERE id = _id AND status::text = 'PENDING' AND expires_at - _now > '0'
        RETURNING * INTO _hold;
        IF _hold.product_id IS NULL THEN
            WITH locked AS MATERIALIZED (
                SELECT l.product_id, l.warehouse_id FROM reservation_items l
                WHERE l.reservation_id = _id
                ORDER BY l.product_id, l.warehouse_id FOR UPDATE
            ), extended AS (
                UPDATE reservation_items l SET expires_at = _hold.expires_at
                FROM locked
                WHERE l.reservation_id = _id AND l.product_id = locked.product_id
                  AND l.warehouse_id = locked.warehouse_id AND l.counted
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM extended) INTO _lines, _count;
            IF _count <> _lines THEN
                outcome := 'RETRY'; -- a line was reclaimed: the hold died before its lines were locked
            END IF;
        END IF;
        IF outcome = 'PENDING' THEN
            answer := hold_json(_hold);
            IF _key IS NOT NULL THEN
                PERFORM keep_answer(_key, _hash, answer);
            END IF;
            _nothing := CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END;
            EXIT;
        END IF;
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
    END LOOP;
    IF _early AND outcome IN ('PENDING', 'REPLAYED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    ELSIF _early THEN
        ROLLBACK; -- the hold's lock needs no flush
    END IF;
END $$;
-- +goose StatementEnd

-- read_hold is one hold with its product and warehouse, and the clock by which it was read. What it tells is durable (I5): a hold
-- that changed, or expired, within the last ten seconds may have been committed without its flush, so the answer waits for one. Ten seconds
-- are sixteen times the longest that Postgres leaves such a commit unflushed on its own disk (thrice wal_writer_delay, 600 ms).
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION read_hold(_id uuid, OUT outcome text, OUT answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz;
BEGIN
    SELECT s.outcome, s.answer, s.seen INTO outcome, answer, _now FROM settled_hold(_id) s;
    IF outcome = 'NOT_FOUND' THEN
        RETURN;
    END IF;
    IF (answer ->> 'updated_at')::timestamptz > _now - interval '10 s' THEN
        PERFORM pg_logical_emit_message(true, 'allo', '');
    END IF;
    answer := jsonb_build_object(
        'hold', answer,
        'product', (SELECT to_jsonb(p) FROM products p WHERE p.id = (answer ->> 'product_id')::uuid),
        'warehouse', (SELECT to_jsonb(w) FROM warehouses w WHERE w.id = (answer ->> 'warehouse_id')::uuid),
        'now', _now);
END $$;
-- +goose StatementEnd

-- list_products is a page of the catalog behind (_name, _id): a row for each product and warehouse, and one for a product that is kept
-- nowhere. The page is cut first, by the index on (name, id), so that a deep page costs what the first does. Only a row with something
-- reserved can have dead holds, so the others aren't asked. All of it is one snapshot, in which reserved and the dead holds that are
-- taken off it agree.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION list_products(_name text, _id uuid, _limit integer)
RETURNS TABLE (product_id uuid, product_name text, sku text, warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT p.id, p.name, p.sku FROM products p
        WHERE (p.name, p.id) > (_name, _id)
        ORDER BY p.name, p.id
        LIMIT _limit
    )
    SELECT p.id, p.name, p.sku, s.id, s.name, s.total, s.reserved
    FROM page p
    LEFT JOIN LATERAL (
        SELECT w.id, w.name, i.total,
               i.reserved - CASE WHEN i.reserved > 0 THEN dead_units(i.product_id, i.warehouse_id) ELSE 0 END AS reserved
        FROM inventory i
        JOIN warehouses w ON w.id = i.warehouse_id
        WHERE i.product_id = p.id
        OFFSET 0 -- which keeps the planner from joining all of the table, as it can't know how short a page is
    ) s ON true
    ORDER BY p.name, p.id, s.name, s.id;
END $$;
-- +goose StatementEnd

-- sweep_holds writes down holds that have died and gives their units back (I9): up to _limit of them, and of their lines, as a cart
-- may have a hundred. It skips what others have locked: they are resolving or reclaiming it. Losing a sweep in a crash only means
-- sweeping again, so it doesn't wait for the disk. It answers how many holds it expired, the units it gave back, how long ago the
-- oldest of them died, and whether there may be more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sweep_holds(_limit integer, OUT expired bigint, OUT units bigint, OUT oldest interval, OUT more boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH due AS MATERIALIZED (
        SELECT r.id, r.product_id, r.expires_at FROM reservations r
        WHERE r.status = 'PENDING' AND r.expires_at <= _now
        ORDER BY r.expires_at LIMIT _limit FOR UPDATE SKIP LOCKED
    ), weighed AS (
        SELECT d.id, d.product_id, sum(
                   CASE WHEN d.product_id IS NULL
                        THEN (SELECT count(*) FROM reservation_items l WHERE l.reservation_id = d.id) ELSE 1 END
               ) OVER (ORDER BY d.expires_at, d.id) AS lines
        FROM due d
    ), taken AS MATERIALIZED (
        SELECT w.id, w.product_id FROM weighed w WHERE w.lines <= _limit
    ), marked AS (
        UPDATE reservations r SET status = 'EXPIRED', updated_at = r.expires_at
        FROM taken
        WHERE r.id = taken.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
        RETURNING r.product_id, r.warehouse_id, r.quantity
    ), lines AS MATERIALIZED (
        SELECT l.reservation_id, l.product_id, l.warehouse_id
        FROM reservation_items l
        JOIN taken ON taken.id = l.reservation_id AND taken.product_id IS NULL
        WHERE l.counted
        ORDER BY l.product_id, l.warehouse_id, l.expires_at, l.reservation_id FOR UPDATE OF l
    ), uncounted AS (
        UPDATE reservation_items l SET counted = false
        FROM lines
        WHERE l.reservation_id = lines.reservation_id AND l.product_id = lines.product_id
          AND l.warehouse_id = lines.warehouse_id AND l.counted
        RETURNING l.product_id, l.warehouse_id, l.quantity
    ), freed AS MATERIALIZED (
        SELECT f.product_id, f.warehouse_id, sum(f.quantity) AS quantity
        FROM (SELECT * FROM marked WHERE marked.product_id IS NOT NULL UNION ALL SELECT * FROM uncounted) f
        GROUP BY f.product_id, f.warehouse_id
    ), locked AS MATERIALIZED (
        SELECT i.product_id, i.warehouse_id, f.quantity
        FROM inventory i
        JOIN freed f USING (product_id, warehouse_id)
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    ), stock AS (
        UPDATE inventory i SET reserved = i.reserved - l.quantity
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
        RETURNING l.quantity
    )
    SELECT (SELECT count(*) FROM marked), (SELECT coalesce(sum(quantity), 0) FROM stock),
           _now - (SELECT min(due.expires_at) FROM due),
           (SELECT count(*) FROM due) = _limit OR (SELECT count(*) FROM taken) < (SELECT count(*) FROM due)
    INTO expired, units, oldest, more;
END $$;
-- +goose StatementEnd

-- sweep_keys removes up to _limit idempotency keys that have outlived their day.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sweep_keys(_limit integer, OUT removed bigint) LANGUAGE plpgsql AS $$
DECLARE
    _cutoff timestamptz := clock_timestamp() - interval '24 hours';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH old AS MATERIALIZED (
        SELECT k.key FROM idempotency_keys k
        WHERE k.created_at <= _cutoff
        ORDER BY k.created_at LIMIT _limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM idempotency_keys k USING old WHERE k.key = old.key AND k.created_at <= _cutoff;
    GET DIAGNOSTICS removed = ROW_COUNT;
END $$;
-- +goose StatementEnd
