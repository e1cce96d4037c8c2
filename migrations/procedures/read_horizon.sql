-- read_horizon answers how far dead row versions are kept for the sake of old transactions.
-- Postgres keeps every version that some snapshot may still see, and a statement on a hot row reads
-- past all of them. So one forgotten session makes the whole shop slow.
--
-- Four kinds of things keep versions of this database's tables: a session here, a prepared
-- transaction here, a replica that sends its oldest snapshot, and the slot of such a replica.
-- oldest_seconds is the age of the oldest session or prepared transaction, as only these have a
-- time. transactions covers all four, and counts the transactions that began since then. Both are 0
-- when nothing keeps versions. A running VACUUM doesn't count: it has a snapshot and keeps nothing.
--
-- complete is false when something is unknown. Without pg_read_all_stats the caller isn't told when
-- the sessions of other roles began their transactions, so oldest_seconds leaves them out;
-- transactions counts them all the same.
CREATE OR REPLACE FUNCTION read_horizon(
    OUT oldest_seconds double precision, OUT transactions bigint, OUT complete boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now    timestamptz := clock_timestamp();
    _reader bigint := 0;
BEGIN
    complete := pg_has_role(current_user, 'pg_read_all_stats', 'USAGE');
    SELECT greatest(coalesce(extract(epoch FROM _now - min(h.since)), 0), 0),
           coalesce(max(age(h.horizon)), 0)
    INTO oldest_seconds, transactions
    FROM (
        SELECT a.xact_start AS since, x.horizon
        FROM pg_stat_activity a, LATERAL (VALUES (a.backend_xmin), (a.backend_xid)) x (horizon)
        WHERE a.pid <> pg_backend_pid()
          AND (a.datname = current_database() OR a.datid IS NULL) -- NULL is a replica's sender
          AND a.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum v)
        UNION ALL
        SELECT p.prepared, p.transaction FROM pg_prepared_xacts p
        WHERE p.database = current_database()
        UNION ALL
        SELECT NULL, s.xmin FROM pg_replication_slots s
    ) h
    WHERE h.horizon IS NOT NULL;

    -- Aurora's readers share the writer's storage, have no sender, and report their horizon here.
    BEGIN
        IF to_regprocedure('pg_catalog.aurora_replica_status()') IS NOT NULL THEN
            EXECUTE 'SELECT coalesce(max(age(r.feedback_xmin::text::xid)), 0)
                     FROM pg_catalog.aurora_replica_status() r
                     WHERE r.feedback_xmin::text <> ''0'''
            INTO _reader;
        END IF;
    EXCEPTION WHEN OTHERS THEN -- the function's columns may differ in another version
        complete := false;
    END;
    transactions := greatest(transactions, _reader);
END $$;
