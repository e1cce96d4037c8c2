-- claim_key makes the requests of one Idempotency-Key follow one another (I6), with an advisory
-- lock of the transaction, and looks for the answer stored under the key. Outcomes: null, when the
-- caller may use the key; REPLAYED, with the stored answer; KEY_REUSED, when another request is
-- stored under the key; KEY_IN_USE, when the lock didn't come in time.
--
-- An advisory lock has two numbers: the class of its use, and a number in that class. So a caller's
-- key can't take the lock of another use. These are all classes of this database:
--
--   class  lock                                    number         taken in
--   1      an idempotency key                      hashtext(key)  here
--   2      the settings and rights of the roles    0              internal/migrate, and
--                                                                 infra/bootstrap.sql
--
-- Two keys may have the same hash. Their requests then wait for one another, and nothing else.
CREATE OR REPLACE FUNCTION claim_key(_key text, _hash bytea, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _stored idempotency_keys;
BEGIN
    BEGIN
        PERFORM pg_advisory_xact_lock(1, hashtext(_key));
    EXCEPTION WHEN lock_not_available THEN
        outcome := 'KEY_IN_USE';
        RETURN;
    END;
    -- A statement of its own, so that its snapshot is younger than the lock.
    SELECT * INTO _stored FROM idempotency_keys
    WHERE key = _key AND created_at > clock_timestamp() - interval '24 hours';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF _stored.request_hash <> _hash THEN
        outcome := 'KEY_REUSED';
        RETURN;
    END IF;
    outcome := 'REPLAYED';
    answer := _stored.answer;
END $$;

-- keep_answer stores a success under its key, in the transaction that makes the effect. It
-- replaces an answer that is older than a day and awaits removal, and no other.
--
-- If the key has an answer now, a request of the same key ran at the same time: it had claimed the
-- key by the lock of another release, while a deploy replaced claim_key. The service runs a
-- transaction that failed with this code again, and the next try finds the answer.
CREATE OR REPLACE FUNCTION keep_answer(_key text, _hash bytea, _answer jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO idempotency_keys AS k (key, request_hash, answer, created_at)
    VALUES (_key, _hash, _answer, _now)
    ON CONFLICT (key) DO UPDATE
    SET request_hash = excluded.request_hash, answer = excluded.answer,
        created_at = excluded.created_at
    WHERE k.created_at <= _now - interval '24 hours';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'I6: a key that was free when claimed has an answer now'
            USING ERRCODE = 'serialization_failure';
    END IF;
END $$;
