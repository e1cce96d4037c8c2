-- resolve_hold confirms or releases a live hold. Releasing a dead hold succeeds too, because what
-- its caller wants has happened.
--
-- Outcomes: the status that the hold has now; NOT_FOUND; REPLAYED, with the answer stored under
-- the key; KEY_IN_USE; KEY_REUSED; RETRY when the hold changed during each of max_tries() tries.
--
-- The steps of one try. Each lock may come after the hold's end, so the last step reads the clock
-- once more.
--
--   step     what is known         action                               next step
--   mark     nothing               set the status if the hold is alive  give up, or settle
--   settle   the hold isn't alive  read its status, under its lock      answer, or mark again
--   give up  the status is set     take the units from its stock rows   check
--   check    all locks are held    compare the clock with its end       commit, or mark again
CREATE OR REPLACE PROCEDURE resolve_hold(
    _id uuid, _to reservation_status, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now     timestamptz;
    _hold    reservations;
    _marked  boolean;
    _success boolean;
    _tries   integer := 0;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            _success := outcome = 'REPLAYED';
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction

        -- The update may wait for the hold's lock and then find the hold extended. The time of the
        -- resolution is then no earlier than that of the extension.
        _now := clock_timestamp();
        UPDATE reservations SET status = _to, updated_at = greatest(updated_at, _now)
        WHERE id = _id AND status::text = 'PENDING' AND expires_at - _now > '0'
          AND (product_id IS NOT NULL OR NOT has_lost_line(reservations))
        RETURNING * INTO _hold;
        _marked := FOUND;
        IF _marked THEN
            outcome := _to;
            IF _hold.product_id IS NOT NULL THEN
                answer := to_jsonb(_hold); -- as hold_json does, without the 4 us of its call
            ELSE
                answer := hold_json(_hold, false);
            END IF;
        ELSE
            SELECT s.outcome, s.answer INTO outcome, answer FROM settled_hold(_id) s;
        END IF;
        _success := outcome = _to::text OR outcome = 'EXPIRED' AND _to = 'RELEASED';
        IF _key IS NOT NULL AND _success THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
        IF _marked THEN
            -- CASE fixes the order: the clock is read after the locks.
            EXIT WHEN CASE WHEN give_up_units(_hold, _to = 'CONFIRMED')
                           THEN clock_timestamp() < _hold.expires_at ELSE false END;
        ELSE
            EXIT WHEN outcome <> 'PENDING'; -- PENDING: it was extended while it seemed dead
        END IF;

        outcome := 'RETRY';
        _success := false;
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
    END LOOP;
    IF _success THEN
        COMMIT;
        PERFORM write_log_record();
    ELSE
        ROLLBACK; -- the lock that settled_hold took needs no flush
        IF NOT hold_is_flushed(_id) THEN
            PERFORM write_log_record(); -- for the change that the refusal tells of
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
        IF random() < 0.015 AND _first_end < clock_timestamp() - interval '5 s' THEN
            PERFORM raise_first_end(_hold.product_id, _hold.warehouse_id);
        END IF;
        RETURN true;
    END IF;

    WITH locked AS MATERIALIZED (
        SELECT l.product_id, l.warehouse_id FROM reservation_items l
        WHERE l.reservation_id = _hold.id
        ORDER BY l.product_id, l.warehouse_id FOR UPDATE
    ), uncounted AS (
        UPDATE reservation_items l SET counted = false
        FROM locked
        WHERE l.reservation_id = _hold.id AND l.product_id = locked.product_id
          AND l.warehouse_id = locked.warehouse_id AND l.counted
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM uncounted) INTO _lines, _counted;
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
