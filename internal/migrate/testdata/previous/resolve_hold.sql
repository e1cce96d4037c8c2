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
            answer := hold_json(_hold, false);
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

-- give_up_units takes a hold's units out of its stock rows' reserved, and out of total as well
-- when they are sold. It answers false, and the caller must roll back, when a line of a cart was
-- reclaimed before its lock came: then the hold is dead.
CREATE OR REPLACE FUNCTION give_up_units(_hold reservations, _sold boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _first_end timestamptz;
    _lines     integer;
    _counted   integer;
    _rows      integer;
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        UPDATE inventory
        SET reserved = reserved - _hold.quantity,
            total    = total - CASE WHEN _sold THEN _hold.quantity ELSE 0 END,
            epoch    = next_epoch(epoch)
        WHERE product_id = _hold.product_id AND warehouse_id = _hold.warehouse_id
          AND epoch >= (SELECT i.epoch FROM inventory i -- leads to the row's newest version
                        WHERE i.product_id = _hold.product_id
                          AND i.warehouse_id = _hold.warehouse_id
                        ORDER BY i.epoch DESC LIMIT 1)
        RETURNING first_end INTO _first_end;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'I2: hold % has no stock row', _hold.id;
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
    )
    UPDATE inventory i
    SET reserved = i.reserved - l.quantity,
        total    = i.total - CASE WHEN _sold THEN l.quantity ELSE 0 END,
        epoch    = next_epoch(i.epoch)
    FROM locked l
    WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id AND i.epoch >= l.epoch;
    GET DIAGNOSTICS _rows = ROW_COUNT;
    IF _rows <> _lines THEN
        RAISE EXCEPTION 'I2: hold % lacks a stock row', _hold.id;
    END IF;
    RETURN true;
END $$;
