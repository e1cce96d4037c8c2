-- resolve_hold confirms or releases a live hold. Releasing a dead hold succeeds too, because what
-- its caller wants has happened. _cause and _actor are those of the ledger (0010_ledger.sql).
-- _payment is the reference of the payment that confirms, or null. When the hold is gone, a payment
-- with a _successor takes the units anew, as a hold with that id (settle_payment).
--
-- Outcomes: the status that the hold has now; PAYMENT_STARTED, when a shopper would release a hold
-- that is being paid; those of settle_payment; NOT_FOUND; REPLAYED, with the answer stored under
-- the key; KEY_IN_USE; KEY_REUSED; RETRY when the rows changed during each of max_tries() tries.
--
-- The steps of one try. Each lock may come after the hold's end, so the last step reads the clock
-- once more. A payment with a _successor that finds the hold gone begins again, with the locks of
-- the hold's owner: they come before that of the hold, which the mark may have taken.
--
--   step     what is known         action                               next step
--   mark     nothing               set the status if the hold is alive  give up, or settle
--   settle   the hold isn't alive  read its status, under its lock      answer, or mark again
--   give up  the status is set     take the units from its stock rows   check
--   check    all locks are held    compare the clock with its end       commit, or mark again
CREATE OR REPLACE PROCEDURE resolve_hold(
    _id uuid, _to reservation_status, _cause "char", _actor text, _payment text, _successor uuid,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now     timestamptz;
    _hold    reservations;
    _marked  boolean;
    _success boolean;
    _gone    boolean := false; -- a payment with a _successor has found the hold gone
    _limits  integer[];        -- for each owner, of the hold's lines
    _tries   integer := 0;
    _changed boolean; -- the stock rows that a payment would take units of have changed
    _late    boolean; -- the steps that free many units took too long
    _ignored text; -- write_log_record.sql says why
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            _success := outcome = 'REPLAYED';
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
        IF _gone THEN
            _limits := lock_owner_of_hold(_id);
        END IF;

        -- The update may wait for the hold's lock and then find the hold extended. The time of the
        -- resolution is then no earlier than that of the extension.
        _now := clock_timestamp();
        UPDATE reservations
        SET status = _to, updated_at = greatest(updated_at, _now), version = version + 1
        WHERE id = _id AND status::text = 'PENDING' AND expires_at - _now > '0'
          AND (product_id IS NOT NULL OR NOT has_lost_line(reservations))
          AND (NOT paying OR _to::text = 'CONFIRMED' OR _cause = 'o')
        RETURNING * INTO _hold;
        _marked := FOUND;
        IF _marked THEN
            outcome := _to;
            _success := true;
            INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause, actor)
            VALUES (_hold.updated_at, _hold.expires_at, _id, _hold.version,
                    CASE _to WHEN 'CONFIRMED' THEN 'c' ELSE 'r' END, _cause, _actor);
            IF _payment IS NOT NULL OR _hold.paying AND _to = 'CONFIRMED' THEN
                PERFORM confirm_payment(_id, _payment);
            END IF;
            IF _hold.product_id IS NOT NULL AND NOT _hold.detailed THEN
                answer := to_jsonb(_hold); -- as hold_json does, without the 4 us of its call
            ELSE
                answer := hold_json(_hold, false);
            END IF;
        ELSE
            IF _payment IS NULL THEN
                SELECT s.outcome, s.answer INTO outcome, answer FROM settled_hold(_id) s;
                IF outcome = 'PENDING' AND _to = 'RELEASED' AND _cause <> 'o'
                   AND (answer -> 'paying')::boolean THEN
                    outcome := 'PAYMENT_STARTED';
                END IF;
            ELSIF _successor IS NOT NULL AND NOT _gone THEN
                _gone := true;
                ROLLBACK;
                CONTINUE;
            ELSE
                SELECT s.outcome, s.answer INTO outcome, answer
                FROM settle_payment(_id, _payment, _successor, _actor, _limits) s;
            END IF;
            _success := outcome = _to::text OR outcome = 'EXPIRED' AND _to = 'RELEASED'
                        OR outcome IN ('REACQUIRED', 'PAYMENT_LOST');
        END IF;
        IF _key IS NOT NULL AND _success THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
        IF _marked THEN
            -- CASE fixes the order: the clock is read after the locks.
            EXIT WHEN CASE WHEN give_up_units(_hold, _to = 'CONFIRMED')
                           THEN clock_timestamp() < _hold.expires_at ELSE false END;
        ELSE
            -- PENDING: it was extended while it seemed dead. RETRY: the stock rows have changed.
            EXIT WHEN outcome NOT IN ('PENDING', 'RETRY');
        END IF;

        _changed := outcome = 'RETRY';
        outcome := 'RETRY';
        _success := false;
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
        IF _changed THEN
            CALL await_units_of_hold(_id, _tries, _late);
            EXIT WHEN _late;
        END IF;
    END LOOP;
    IF _success THEN
        IF _marked IS NOT TRUE OR _hold.detailed THEN
            answer := with_party(answer);
        END IF;
        COMMIT;
        _ignored := write_log_record();
    ELSE
        ROLLBACK; -- the lock that settled_hold took needs no flush
        IF _payment IS NOT NULL OR NOT hold_is_flushed(_id) THEN
            _ignored := write_log_record(); -- for the change that the refusal tells of
        END IF;
    END IF;
END $$;

-- give_up_units takes a hold's units out of its stock rows' reserved. When they are sold, it takes
-- them out of total as well, and writes a SALE for each line (I8). It answers false, and the caller
-- must roll back, when a line of a cart was reclaimed before its lock came: then the hold is dead.
--
-- For one line, the SALE is a statement of its own: in one statement with the update, the two take
-- 8 us more of the processor, and the stock row is locked for that long too.
CREATE OR REPLACE FUNCTION give_up_units(_hold reservations, _sold boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _first_end timestamptz;
    _seq       bigint;
    _total     integer;
    _lines     integer;
    _counted   integer;
    _rows      integer;
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        IF _sold THEN
            UPDATE inventory
            SET reserved = reserved - _hold.quantity, total = total - _hold.quantity,
                seq = seq + 1, epoch = next_epoch(epoch)
            WHERE product_id = _hold.product_id AND warehouse_id = _hold.warehouse_id
              AND epoch >= (SELECT i.epoch FROM inventory i -- leads to the row's newest version
                            WHERE i.product_id = _hold.product_id
                              AND i.warehouse_id = _hold.warehouse_id
                            ORDER BY i.epoch DESC LIMIT 1)
            RETURNING seq, total, first_end INTO _seq, _total, _first_end;
        ELSE
            UPDATE inventory
            SET reserved = reserved - _hold.quantity, epoch = next_epoch(epoch)
            WHERE product_id = _hold.product_id AND warehouse_id = _hold.warehouse_id
              AND epoch >= (SELECT i.epoch FROM inventory i
                            WHERE i.product_id = _hold.product_id
                              AND i.warehouse_id = _hold.warehouse_id
                            ORDER BY i.epoch DESC LIMIT 1)
            RETURNING first_end INTO _first_end;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'I2: hold % has no stock row', _hold.id;
        END IF;
        IF _sold THEN
            INSERT INTO stock_movements (product_id, warehouse_id, seq, at, reservation_id, kind,
                                         delta, total_after)
            VALUES (_hold.product_id, _hold.warehouse_id, _seq, clock_timestamp(), _hold.id, 'SALE',
                    -_hold.quantity, _total);
        END IF;
        IF random() < 0.015 THEN
            PERFORM raise_first_end(_hold.product_id, _hold.warehouse_id)
            WHERE _first_end < clock_timestamp() - interval '5 s';
        END IF;
        RETURN true;
    END IF;

    SELECT u.lines, u.counted INTO _lines, _counted FROM uncount_lines(_hold.id) u;
    IF _counted <> _lines THEN
        RETURN false;
    END IF;
    WITH locked AS MATERIALIZED ( -- with the epoch of the snapshot, by which the update finds it
        SELECT i.product_id, i.warehouse_id, newest.epoch, l.quantity
        FROM reservation_items l
        CROSS JOIN LATERAL (
            SELECT n.epoch FROM inventory n
            WHERE n.product_id = l.product_id AND n.warehouse_id = l.warehouse_id
            ORDER BY n.epoch DESC LIMIT 1
        ) newest
        JOIN inventory i ON i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
                        AND i.epoch >= newest.epoch
        WHERE l.reservation_id = _hold.id
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    ), stock AS (
        UPDATE inventory i
        SET reserved = i.reserved - l.quantity,
            total    = i.total - CASE WHEN _sold THEN l.quantity ELSE 0 END,
            seq      = i.seq + _sold::integer,
            epoch    = next_epoch(i.epoch)
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
          AND i.epoch >= l.epoch
        RETURNING i.product_id, i.warehouse_id, i.seq, i.total, l.quantity
    ), sales AS (
        INSERT INTO stock_movements (product_id, warehouse_id, seq, at, reservation_id, kind,
                                     delta, total_after)
        SELECT s.product_id, s.warehouse_id, s.seq, clock_timestamp(), _hold.id, 'SALE',
               -s.quantity, s.total
        FROM stock s WHERE _sold
    )
    SELECT count(*) INTO _rows FROM stock;
    IF _rows <> _lines THEN
        RAISE EXCEPTION 'I2: hold % lacks a stock row', _hold.id;
    END IF;
    RETURN true;
END $$;
