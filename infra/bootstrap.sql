-- Creates the two roles of the database. The cluster's master user runs this.
--
-- The migrator owns the tables and changes them. The app works on them and can do nothing else, so
-- an attacker inside a function can't drop a table or delete a hold. The migrate function grants
-- the app its rights, because it knows the tables of its release.
--
-- Both roles log in by IAM where the server is RDS, which has the role rds_iam. Only a role that
-- logs in by password can create the first such role, and the master user is one. But the master
-- user must not become a member of either role. As a member of rds_iam it could no longer log in by
-- password. Since Postgres 16, the creator of a role becomes a member of it. So a third role
-- creates them and is dropped. Operators get their rights through pg_database_owner, with the other
-- grants.
--
-- The app may see the statistics of all sessions, because the sweeper reports how old the oldest
-- transaction is. The report lacks other roles' transactions on a server that refuses both grants.
--
-- The migrator has CREATEROLE and creates the app, so that it may set the app's timeouts. They are
-- defaults of the role because a pooler refuses them when a client connects.
--
-- This is one statement, and it can run repeatedly. It must not contain the character that begins a
-- parameter's name in the RDS Data API.
DO $$
DECLARE
    _statistics text;
BEGIN
    -- Two concurrent runs would both find a role missing. claim_key.sql lists the lock's class, 2.
    PERFORM pg_advisory_xact_lock(2, 0);
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'allo_migrator') THEN
        CREATE ROLE allo_maker CREATEROLE;
        GRANT allo_maker TO CURRENT_USER;
        SET LOCAL ROLE allo_maker;
        CREATE ROLE allo_migrator LOGIN CREATEROLE;
        GRANT allo_migrator TO allo_maker;
        SET LOCAL ROLE allo_migrator;
        CREATE ROLE allo_app LOGIN;
        RESET ROLE;
        DROP ROLE allo_maker;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_iam') THEN
        GRANT rds_iam TO allo_migrator, allo_app;
    END IF;
    FOREACH _statistics IN ARRAY ARRAY['pg_read_all_stats', 'pg_monitor'] LOOP
        BEGIN
            EXECUTE format('GRANT %I TO allo_app', _statistics);
            EXIT;
        EXCEPTION WHEN insufficient_privilege THEN
            -- The master user may grant the wider role alone, or neither.
            CONTINUE;
        END;
    END LOOP;

    -- Postgres grants these to everybody by default, and the app needs none of them.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA public TO allo_migrator;
    GRANT USAGE ON SCHEMA public TO allo_app;
END $$;
