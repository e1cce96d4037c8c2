-- detach_archive takes the month that begins on _first out of the archive, in UTC. Its holds,
-- lines, movements and rows of the ledger then lie in tables of their own, whose names it answers,
-- and the service finds them no more. The month gets no more rows. Operators call it, and export
-- the tables before they call drop_archive. archived_stock.detached records for each stock row
-- which movements may have gone, so that the audits miss every other one.
--
-- It has its owner's rights, because an operator owns no table. It locks the archive for a moment.
CREATE OR REPLACE FUNCTION detach_archive(_first date) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _month  timestamptz := _first::timestamp AT TIME ZONE 'UTC';
    _table  text;
    _tables text[] := '{}';
BEGIN
    PERFORM refuse_other_than_operator();
    IF next_month(_month) > archive_before(interval '30 days') THEN
        RAISE EXCEPTION 'the month from % on isn''t over for 30 days', _first;
    END IF;
    PERFORM set_config('lock_timeout', '500 ms', true);
    PERFORM pg_advisory_xact_lock(8, 0);
    UPDATE archived_months m SET detached = true WHERE m.month = _month AND NOT m.detached;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the archive has no month that begins on %', _first;
    END IF;
    UPDATE archived_stock a SET detached = greatest(a.detached, g.seq)
    FROM (SELECT m.product_id, m.warehouse_id, max(m.seq) AS seq FROM archived_movements m
          WHERE m.at >= _month AND m.at < next_month(_month)
          GROUP BY m.product_id, m.warehouse_id) g
    WHERE a.product_id = g.product_id AND a.warehouse_id = g.warehouse_id;
    FOREACH _table IN ARRAY archived_tables() LOOP
        -- a month from before a table of the archive has no partition of it
        CONTINUE WHEN to_regclass(archive_partition(_table, _month)) IS NULL;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', _table,
                       archive_partition(_table, _month));
        EXECUTE format('GRANT SELECT ON %I TO pg_database_owner',
                       archive_partition(_table, _month));
        _tables := _tables || archive_partition(_table, _month);
    END LOOP;
    RETURN _tables;
END $$;

-- drop_archive drops the tables of a month that was detached. There is no way back.
CREATE OR REPLACE FUNCTION drop_archive(_first date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _month   timestamptz := _first::timestamp AT TIME ZONE 'UTC';
    _table   text;
    _dropped boolean := false;
BEGIN
    PERFORM refuse_other_than_operator();
    IF NOT EXISTS (SELECT FROM archived_months m WHERE m.month = _month AND m.detached) THEN
        RAISE EXCEPTION 'the month that begins on % isn''t detached', _first;
    END IF;
    FOREACH _table IN ARRAY archived_tables() LOOP
        CONTINUE WHEN to_regclass(archive_partition(_table, _month)) IS NULL;
        EXECUTE format('DROP TABLE %I', archive_partition(_table, _month));
        _dropped := true;
    END LOOP;
    IF NOT _dropped THEN
        RAISE EXCEPTION 'the month that begins on % was dropped before', _first;
    END IF;
END $$;

-- refuse_other_than_operator fails unless the session is of the database's owner, or of a role that
-- has the owner's rights. session_user is who logged in, also in a function with its owner's
-- rights.
CREATE OR REPLACE FUNCTION refuse_other_than_operator() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(session_user, 'pg_database_owner', 'MEMBER') THEN
        RAISE EXCEPTION 'only the database''s owner may call this'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
