-- The audit reads what is new by the ledger, from snapshot to snapshot. So two indexes by time go,
-- which each resolve and each movement paid for.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. The previous release works
-- on this schema. Until a deploy has moved the traffic, its stats and its audits read whole tables,
-- or end unfinished: they look for holds and sales by the indexes that go.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, stock_movements, audit_state IN ACCESS EXCLUSIVE MODE;
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

-- seen is a snapshot: the audits have looked at every row of the ledger that it sees, and found
-- nothing wrong. next_seen is its value for the audit that follows the one under way. At first
-- every row of the ledger is new.
ALTER TABLE audit_state
    ADD COLUMN seen      pg_snapshot NOT NULL DEFAULT '1:1:',
    ADD COLUMN next_seen pg_snapshot;

-- The stats read minute_counts, the audits go by the ledger or by id, and archive_holds goes by the
-- time at which holds were made.
DROP INDEX reservations_resolved_by_time;

-- The audits find the sales of a hold by the transaction that confirmed it.
DROP INDEX stock_movements_by_time;
