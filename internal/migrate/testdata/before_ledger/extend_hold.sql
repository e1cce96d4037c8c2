-- extend_hold gives a live hold a new end: _ttl from now, and at most _max after the hold was
-- made.
--
-- Outcomes: PENDING, which is the success; NOT_FOUND; CONFIRMED; RELEASED; EXPIRED;
-- EXTENSION_LIMIT; REPLAYED, with the answer stored under the key; KEY_IN_USE; KEY_REUSED; RETRY
-- when the hold changed during each of max_tries() tries.
--
-- The steps of one try:
--
--   step     what is known          action                                next step
--   lock     nothing                lock the hold, then read the clock    refuse, or move
--   move     the hold is alive      set its new end                       lines, or commit
--   lines    it is a cart           move the end of its counted lines     commit, or lock again
CREATE OR REPLACE PROCEDURE extend_hold(
    _id uuid, _ttl interval, _max interval, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz;
    _hold  reservations;
    _tries integer := 0;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        SELECT * INTO _hold FROM reservations WHERE id = _id FOR NO KEY UPDATE;
        _now := clock_timestamp(); -- after the lock
        outcome := CASE WHEN _hold.id IS NULL
                        THEN coalesce(archived_hold(_id) ->> 'status', 'NOT_FOUND')
                        WHEN _hold.status <> 'PENDING' THEN _hold.status::text
                        WHEN hold_is_dead(_hold, _now) THEN 'EXPIRED'
                        WHEN _now + _ttl > _hold.created_at + _max THEN 'EXTENSION_LIMIT'
                        ELSE 'PENDING' END;
        EXIT WHEN outcome <> 'PENDING';
        PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
        UPDATE reservations SET expires_at = _now + _ttl, updated_at = _now
        WHERE id = _id AND status::text = 'PENDING' AND expires_at - _now > '0'
        RETURNING * INTO _hold;
        IF extend_lines(_hold) THEN
            answer := hold_json(_hold, false);
            IF _key IS NOT NULL THEN
                PERFORM keep_answer(_key, _hash, answer);
            END IF;
            EXIT;
        END IF;

        outcome := 'RETRY';
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
    END LOOP;
    IF outcome IN ('PENDING', 'REPLAYED') THEN
        COMMIT;
        PERFORM write_log_record();
    ELSE
        ROLLBACK; -- the hold's lock needs no flush
        IF NOT hold_is_flushed(_id) THEN
            PERFORM write_log_record(); -- for the change that the refusal tells of
        END IF;
    END IF;
END $$;

-- extend_lines moves the end of a cart's lines to the hold's new end. It answers false, and the
-- caller must roll back, when a line was reclaimed before its lock came: then the hold is dead.
CREATE OR REPLACE FUNCTION extend_lines(_hold reservations) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _lines    integer;
    _extended integer;
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        RETURN true; -- a single line stands in the hold's own row
    END IF;
    PERFORM lock_stock_of_shortened_cart(_hold);
    WITH locked AS MATERIALIZED (
        SELECT l.product_id, l.warehouse_id FROM reservation_items l
        WHERE l.reservation_id = _hold.id
        ORDER BY l.product_id, l.warehouse_id FOR UPDATE
    ), extended AS (
        UPDATE reservation_items l SET expires_at = _hold.expires_at
        FROM locked
        WHERE l.reservation_id = _hold.id AND l.product_id = locked.product_id
          AND l.warehouse_id = locked.warehouse_id AND l.counted
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM extended) INTO _lines, _extended;
    RETURN _extended = _lines;
END $$;

-- lock_stock_of_shortened_cart locks the lines and the stock rows of a cart whose lines end later
-- than it does, in the lock order. When the lines' ends move down, a trigger updates the stock
-- rows, in no certain order (lower_first_end in 0002_old_snapshots.sql).
CREATE OR REPLACE FUNCTION lock_stock_of_shortened_cart(_hold reservations) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM reservation_items l
    WHERE l.reservation_id = _hold.id AND l.expires_at > _hold.expires_at
    ORDER BY l.product_id, l.warehouse_id FOR UPDATE;
    IF FOUND THEN
        PERFORM FROM inventory i
        JOIN reservation_items l USING (product_id, warehouse_id)
        WHERE l.reservation_id = _hold.id
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i;
    END IF;
END $$;
