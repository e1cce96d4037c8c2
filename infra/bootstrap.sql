-- The two roles of the database, made by its owner, the cluster's master user. The migrator owns the tables and changes them; the app
-- works on them and can do nothing else, so that what breaks into a function can't drop a table or delete a hold. What the app may do is granted
-- by the migrate function, which knows the tables of its release.
--
-- Both log in by IAM where the server is RDS, which has the role rds_iam. The first such role has to be made by one that logs in by password, and
-- the master user is that one. It must not become a member of either, as Postgres 16 and later make whoever creates a role, for then it were a
-- member of rds_iam too, and such a one can't log in by password any more. So a third role makes them, and goes. What an operator may do is
-- the database owner's, by pg_database_owner, and is granted with the rest.
--
-- The migrator has CREATEROLE and makes the app, so that it may set the app's time-outs, which are defaults of the role because a pooler refuses
-- them at connect.
--
-- One statement, which may be run again, and without a single character that the RDS Data API takes for the beginning of a parameter's name.
DO $$
BEGIN
    -- Two at once would both find a role missing.
    PERFORM pg_advisory_xact_lock(hashtextextended('allo role defaults', 0));
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

    -- What everybody may do by default, and the app has no use for.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA public TO allo_migrator;
    GRANT USAGE ON SCHEMA public TO allo_app;
END $$;
