-- write_flush_record writes the smallest record that the log has, so that the commit of its
-- transaction waits until the log is flushed. The log is flushed in order, so everything that was
-- committed before is then on disk. A transaction that writes nothing waits for nothing.
--
-- A verb commits twice (early lock release; doc.go of internal/reservation has the argument for
-- why its answer is durable all the same). The first commit, with synchronous_commit off, doesn't
-- wait for the disk: it releases the locks, so that the next caller gets the stock row. The second
-- commits this record.
--
-- Each verb's two commits stand in the verb itself. A procedure for both, called by each verb,
-- would keep the hot row locked while Postgres sets up the call: on one row with 32 callers that
-- was measured to cost 9 % of the rate.
CREATE OR REPLACE FUNCTION write_flush_record() RETURNS pg_lsn LANGUAGE sql VOLATILE AS $$
    SELECT pg_logical_emit_message(true, 'allo', '')
$$;
