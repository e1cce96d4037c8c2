-- commit_early ends a verb's transaction in two commits (early lock release; doc.go of
-- internal/reservation has the argument for why the answer is durable all the same).
--
-- The first commit doesn't wait for the disk. It releases the locks, so that the next caller gets the
-- stock row. The second transaction writes the smallest record that the log has, and its commit waits
-- until the log is flushed up to its own commit record; the log is flushed in order, so the first
-- commit is on disk too. Without that record the second transaction would write nothing, and its
-- commit would wait for nothing.
CREATE OR REPLACE PROCEDURE commit_early() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    COMMIT;
    PERFORM pg_logical_emit_message(true, 'allo', '');
END $$;
