-- extend_hold moves the end of a live hold. _kind says why, as in the ledger (0010_ledger.sql):
--
--   x  the shopper asks for more time: the end is _ttl from now. Not while a payment is under way.
--   p  the payment _payment begins: the end is _ttl from now, or stays if it is later. The payment
--      takes the place of another one that is under way.
--   f  the payment _payment failed: the end is _ttl from now, or _default if that is null. Another
--      payment than the one under way changes nothing.
--
-- An end may be at most _max after the hold was made. The _default is shortened instead.
--
-- Outcomes: PENDING, which is the success; UNCHANGED, which is one too; PAYMENT_STARTED;
-- ALREADY_PAID, with the payment; NOT_FOUND; CONFIRMED; RELEASED; EXPIRED; EXTENSION_LIMIT;
-- REPLAYED, with the answer stored under the key; KEY_IN_USE; KEY_REUSED; RETRY when the hold
-- changed during each of max_tries() tries.
--
-- The steps of one try:
--
--   step     what is known          action                                next step
--   lock     nothing                lock the hold, then read the clock    refuse, or move
--   move     the hold is alive      set its new end                       lines, or commit
--   lines    it is a cart           move the end of its counted lines     commit, or lock again
CREATE OR REPLACE PROCEDURE extend_hold(
    _id uuid, _kind "char", _payment text, _actor text, _ttl interval, _default interval,
    _max interval, _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz;
    _end   timestamptz;
    _hold  reservations;
    _tries integer := 0;
    _ignored text; -- write_log_record.sql says why
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
        _hold := lock_hold(_id);
        _now := clock_timestamp(); -- after the lock
        _end := greatest(_now, _hold.updated_at) -- updated_at never falls
                + coalesce(_ttl, _default);
        outcome := judge_extension(_hold, _kind, _payment, _now, _end,
                                   CASE WHEN _ttl IS NOT NULL THEN _max END);
        answer := CASE outcome
                  WHEN 'UNCHANGED' THEN hold_json(_hold, hold_is_dead(_hold, _now))
                  WHEN 'ALREADY_PAID' THEN jsonb_build_object('payment', paying_reference(_id)) END;
        IF outcome = 'UNCHANGED' AND _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
        EXIT WHEN outcome <> 'PENDING';
        _end := CASE WHEN _kind = 'p' THEN greatest(_end, _hold.expires_at)
                     WHEN _ttl IS NULL
                     THEN least(_end, greatest(_hold.expires_at, _hold.created_at + _max))
                     ELSE _end END;
        UPDATE reservations
        SET expires_at = _end, updated_at = greatest(updated_at, _now), version = version + 1,
            paying = _kind = 'p'
        WHERE id = _id AND status::text = 'PENDING' AND expires_at - _now > '0'
        RETURNING * INTO _hold;
        INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause, actor)
        VALUES (_hold.updated_at, _hold.expires_at, _id, _hold.version, _kind, 'v', _actor);
        IF _kind = 'p' THEN
            PERFORM start_payment(_id, _payment);
        ELSIF _kind = 'f' THEN
            PERFORM keep_payment(_id, _payment, 'FAILED', NULL, NULL);
        END IF;
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
    IF outcome IN ('PENDING', 'UNCHANGED', 'REPLAYED') THEN
        answer := with_party(answer);
        COMMIT;
        _ignored := write_log_record();
    ELSE
        ROLLBACK; -- the hold's lock needs no flush
        IF _payment IS NOT NULL OR NOT hold_is_flushed(_id) THEN
            _ignored := write_log_record(); -- for the change that the refusal tells of
        END IF;
    END IF;
END $$;

-- judge_extension is the outcome of extend_hold for a hold that the caller has locked, by the clock
-- _now. _end is the end that is asked for, and may be at most _max after the hold was made, unless
-- that is null.
CREATE OR REPLACE FUNCTION judge_extension(
    _hold reservations, _kind "char", _payment text, _now timestamptz, _end timestamptz,
    _max interval)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    _alive boolean := _hold.status = 'PENDING' AND NOT hold_is_dead(_hold, _now);
    _paid  boolean;
    _first text;
BEGIN
    IF _hold.id IS NULL THEN
        RETURN 'NOT_FOUND';
    ELSIF _kind = 'f' AND NOT (_alive AND _hold.paying AND _payment = (
              SELECT p.reference FROM hold_payments p
              WHERE p.hold_id = _hold.id AND p.outcome = 'STARTED')) THEN
        RETURN 'UNCHANGED';
    ELSIF _kind = 'p' AND NOT _alive THEN
        _first := paying_reference(_hold.id);
        _paid := _hold.status = 'CONFIRMED' OR _first IS NOT NULL;
        IF _paid THEN
            RETURN CASE WHEN _first = _payment THEN 'UNCHANGED' ELSE 'ALREADY_PAID' END;
        END IF;
    END IF;
    RETURN CASE WHEN _hold.status <> 'PENDING' THEN _hold.status::text
                WHEN NOT _alive THEN 'EXPIRED'
                WHEN _kind = 'x' AND _hold.paying THEN 'PAYMENT_STARTED'
                WHEN _end > _hold.created_at + _max THEN 'EXTENSION_LIMIT'
                ELSE 'PENDING' END;
END $$;

-- paying_reference is the payment that paid for a hold or for its successor, or null.
CREATE OR REPLACE FUNCTION paying_reference(_id uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT p.reference FROM hold_payments p
            WHERE p.hold_id = _id AND p.outcome IN ('CONFIRMED', 'REACQUIRED'));
END $$;

-- start_payment writes that a payment is under way, in the place of another one.
CREATE OR REPLACE FUNCTION start_payment(_id uuid, _payment text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hold_payments SET outcome = 'FAILED', at = clock_timestamp()
    WHERE hold_id = _id AND outcome = 'STARTED' AND reference <> _payment;
    PERFORM keep_payment(_id, _payment, 'STARTED', NULL, NULL);
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
        ORDER BY l.product_id, l.warehouse_id FOR NO KEY UPDATE
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
    ORDER BY l.product_id, l.warehouse_id FOR NO KEY UPDATE;
    IF FOUND THEN
        PERFORM FROM inventory i
        JOIN reservation_items l USING (product_id, warehouse_id)
        WHERE l.reservation_id = _hold.id
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i;
    END IF;
END $$;
