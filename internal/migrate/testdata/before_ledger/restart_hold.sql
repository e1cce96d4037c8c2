-- restart_hold lets a new hold begin now, because the wait for its stock rows' locks has used up
-- too much of its time. It moves the hold's times and those in the answer stored under its key,
-- and answers the new beginning.
CREATE OR REPLACE FUNCTION restart_hold(_id uuid, _ttl interval, _key text) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _hold reservations;
BEGIN
    UPDATE reservations SET created_at = _now, updated_at = _now, expires_at = _now + _ttl
    WHERE id = _id
    RETURNING * INTO _hold;
    UPDATE reservation_items SET expires_at = _hold.expires_at WHERE reservation_id = _id;
    IF _key IS NOT NULL THEN
        UPDATE idempotency_keys SET answer = hold_json(_hold, false) WHERE key = _key;
    END IF;
    RETURN _now;
END $$;

-- lost_time is how much of its time a new hold may lose to the waits for locks before it is
-- restarted. The planner replaces the call by the expression.
CREATE OR REPLACE FUNCTION lost_time(_ttl interval) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT least(interval '250 ms', _ttl / 4)
$$;
