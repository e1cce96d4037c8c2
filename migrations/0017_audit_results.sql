-- Each kind of audit has a result of its own, and a stock row knows which of its movements may have
-- gone with a month.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. It makes the archive and the
-- audits wait, and no verb. The columns have constant defaults, so no row is written. The previous
-- release works on this schema: it neither reads nor writes the columns.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE last_audit, archived_stock IN ACCESS EXCLUSIVE MODE;
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

-- violations and unfinished are those of the last audit of what is new. full_violations counts what
-- the full audits have found since one was complete and found nothing. at is when the last result
-- of either kind was stored (procedures/keep_audit.sql).
ALTER TABLE last_audit
    ADD COLUMN full_violations integer NOT NULL DEFAULT 0 CHECK (full_violations >= 0);

-- Some of the stock row's movements up to this one may have gone with a detached month. The audits
-- don't miss them (procedures/detach_archive.sql).
ALTER TABLE archived_stock ADD COLUMN detached bigint NOT NULL DEFAULT 0;

-- Nobody has recorded which movements went with the months that are detached by now. So detached is
-- the last movement before the first one that lies in a later month.
UPDATE archived_stock a
SET detached = coalesce((SELECT min(m.seq) - 1 FROM archived_movements m
                         WHERE m.product_id = a.product_id AND m.warehouse_id = a.warehouse_id
                           AND m.at >= d.ended), a.seq)
FROM (SELECT (max(month) AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS ended
      FROM archived_months WHERE detached) d
WHERE d.ended IS NOT NULL AND a.seq > 0;
