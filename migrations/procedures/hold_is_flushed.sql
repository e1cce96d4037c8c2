-- hold_is_flushed says whether the last change of a hold and of its lines, and the hold that took
-- its place, are known to be on disk.
-- A verb commits before the log is flushed, so other sessions may see a change that a crash can
-- still undo. An answer that tells of such a change must write a log record first, and so wait
-- (I5). A hold that doesn't exist has no change to wait for.
--
-- The change's transaction id, xmin, is compared with the flush mark, by how many ids ago each was
-- given out (age). A mark more than 2^31 ids behind is ignored, because age can't count so far. So
-- is a mark that is ahead: it came with a restore from another server.
CREATE OR REPLACE FUNCTION hold_is_flushed(_id uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT bool_and(coalesce(age(c.xmin) > (
                   SELECT age(m.below::xid) FROM flush_mark m
                   WHERE m.only_row
                     AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint
                         - m.below::text::bigint BETWEEN 0 AND 2147483647
               ), false))
        FROM (SELECT r.xmin FROM reservations r WHERE r.id = _id
              UNION ALL
              SELECT l.xmin FROM reservation_items l WHERE l.reservation_id = _id
              UNION ALL
              SELECT p.xmin FROM replacements p WHERE p.old_id = _id) c
    ), true);
END $$;

-- next_flush_mark returns the id below which every transaction has ended, and writes a log record.
-- When the caller's transaction has committed, with its wait for the disk, the changes of all these
-- transactions are on disk. Only then may the caller store the id by keep_flush_mark, in another
-- transaction.
CREATE OR REPLACE FUNCTION next_flush_mark() RETURNS xid8 LANGUAGE plpgsql AS $$
DECLARE
    _below xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
    PERFORM write_log_record(); -- after the id was read
    RETURN _below;
END $$;

-- keep_flush_mark stores the mark. A mark that is lost in a crash is set again by the next sweep,
-- so it doesn't wait for the disk.
CREATE OR REPLACE FUNCTION keep_flush_mark(_below xid8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO flush_mark AS m (below) VALUES (_below)
    ON CONFLICT (only_row) DO UPDATE SET below = excluded.below;
END $$;
