-- How far the old ticks are pruned. The previous release works on this schema: it doesn't know the
-- column. Its ticks are pruned by nobody until a deploy has moved the traffic.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. The column has a constant
-- default, so no row is written.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE stream IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF _turn = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
-- +goose StatementEnd

-- pruned is the last tick that was kept by prune_old_ticks. It looks at none before it.
ALTER TABLE stream ADD COLUMN pruned bigint NOT NULL DEFAULT 0;
