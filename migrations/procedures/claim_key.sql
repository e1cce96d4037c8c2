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
--   4      the catalog                             0              put_products, put_warehouses,
--                                                                 follow_catalog.sql,
--                                                                 move_stock.sql, return_goods,
--                                                                 and 0005_catalog.sql
--   5      a document of movements                 hashtext(...)  move_stock.sql
--   8      the archive                             0              archive_holds, archive_movements,
--                                                                 detach_archive
--   9      an archived hold                        hashtext(id)   lock_hold, and 0008_archive.sql
--   10     the ticks                               0              take_tick, rebase_stream
--   11     the limit of a product                  hashtext(id)   lock_owner.sql
--   < 0    an idempotency key of a named caller    see below      here
--
-- The locks with one number of 64 bits are hashes of an owner and a limited product
-- (lock_owner.sql), or of an owner (erase_owner.sql, settle_payment.sql).
--
-- Two keys of class 1 may have the same hash. Their requests then wait for one another, and nothing
-- else. It is easy to find a key whose hash is that of a known one, so that won't do for a caller
-- whom the gateway has named: nobody else may block its keys. Such a key is a comma and a SHA-256
-- (storedKey in internal/reservation/key.go), and its lock's two numbers are 63 bits of that.
CREATE OR REPLACE FUNCTION claim_key(_key text, _hash bytea, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _stored idempotency_keys;
    _below  integer; -- a class below 0
    _number integer;
BEGIN
    BEGIN
        IF left(_key, 1) = ',' THEN
            _below := ('x' || substr(_key, 2, 8))::bit(32)::integer | (1 << 31);
            _number := ('x' || substr(_key, 10, 8))::bit(32)::integer;
            PERFORM pg_advisory_xact_lock(_below, _number);
        ELSE
            PERFORM pg_advisory_xact_lock(1, hashtext(_key));
        END IF;
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
