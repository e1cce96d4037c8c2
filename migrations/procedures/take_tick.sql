-- take_tick records what is committed now, if a ledger row or a movement has come since the last
-- tick: an idle shop writes no tick. It answers the number of the last tick, or 0 before the first.
-- internal/events/doc.go has the design.
--
-- Three things make a tick what the relay relies on:
--
--   - The snapshot is read before the transaction gets its id. So the tick's own id is none of
--     those that the snapshot counts as given out, and after a crash the server goes on above them.
--   - Ticks follow one another, so that each sees all that the one before it sees.
--   - The commit waits for the disk. It comes after the commits of all that the snapshot sees, in
--     one log, so they are on disk with it. That is why the call must be a transaction of its own.
CREATE OR REPLACE FUNCTION take_tick(OUT last bigint) LANGUAGE plpgsql AS $$
DECLARE
    _prev    pg_snapshot;
    _this    pg_snapshot;
    _running xid8[];
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'a tick must be the first statement of its transaction'
            USING ERRCODE = 'active_sql_transaction';
    END IF;
    PERFORM pg_advisory_xact_lock(10, 0);
    last := last_tick();
    _prev := tick_snapshot(last);
    _running := ARRAY(SELECT pg_snapshot_xip(_prev));
    _this := pg_current_snapshot(); -- after the lock, and before the insert
    PERFORM refuse_other_server(_prev, _this);
    IF NOT EXISTS (SELECT FROM ledger l WHERE is_new(l.xid, _running, _prev, _this))
       AND NOT EXISTS (SELECT FROM stock_movements m WHERE is_new(m.xid, _running, _prev, _this))
    THEN
        RETURN;
    END IF;
    last := last + 1;
    INSERT INTO ticks (n, snapshot) VALUES (last, _this);
    INSERT INTO minute_counts AS c (minute, held, confirmed, released, expired)
    SELECT date_bin('1 minute', l.at, 'epoch'),
           count(*) FILTER (WHERE l.kind = 'h'), count(*) FILTER (WHERE l.kind = 'c'),
           count(*) FILTER (WHERE l.kind = 'r'), count(*) FILTER (WHERE l.kind = 'e')
    FROM ledger l WHERE is_new(l.xid, _running, _prev, _this)
    GROUP BY 1
    ON CONFLICT (minute) DO UPDATE
    SET held = c.held + excluded.held, confirmed = c.confirmed + excluded.confirmed,
        released = c.released + excluded.released, expired = c.expired + excluded.expired;
    PERFORM prune_ticks();
END $$;

-- last_tick is the number of the newest tick, or 0.
CREATE OR REPLACE FUNCTION last_tick() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT max(t.n) FROM ticks t), 0);
END $$;

-- tick_snapshot is what a tick sees, or null for a tick that was pruned. Tick 0, which is in no
-- table, sees nothing.
CREATE OR REPLACE FUNCTION tick_snapshot(_n bigint) RETURNS pg_snapshot
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE _n WHEN 0 THEN '1:1:' ELSE (SELECT t.snapshot FROM ticks t WHERE t.n = _n) END;
END $$;

-- is_new says whether the snapshot _this sees the transaction _xid and the earlier snapshot _prev
-- doesn't. _running are the transactions that ran when _prev was taken. Those and the ones that
-- began after _prev are all that can be new, so an index of the ids finds them, however long the
-- oldest transaction has been open. The planner replaces the call by the expression.
CREATE OR REPLACE FUNCTION is_new(
    _xid xid8, _running xid8[], _prev pg_snapshot, _this pg_snapshot)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (_xid = ANY (_running)
            OR _xid >= pg_snapshot_xmax(_prev) AND _xid < pg_snapshot_xmax(_this))
           AND pg_visible_in_snapshot(_xid, _this)
$$;

-- refuse_other_server fails when this server has given out fewer ids than the tick _prev saw. The
-- database then comes from another server, and its ticks say nothing about this one's transactions.
CREATE OR REPLACE FUNCTION refuse_other_server(_prev pg_snapshot, _this pg_snapshot) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_snapshot_xmax(_this) < pg_snapshot_xmax(_prev) THEN
        RAISE EXCEPTION 'the ticks are of another server: it had given out % transaction ids, and '
                        'this one %. Call rebase_stream()',
                        pg_snapshot_xmax(_prev), pg_snapshot_xmax(_this)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END $$;

-- prune_ticks leaves of the ticks that all sinks have passed, and that are older than a week, the
-- first one of each hour. The batches between them become one. It runs with the first tick of an
-- hour. It has its owner's rights, because the service may not delete a tick.
CREATE OR REPLACE FUNCTION prune_ticks() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _last   bigint := last_tick();
    _passed bigint := coalesce((SELECT min(s.done) FROM sinks s), _last);
BEGIN
    IF EXISTS (SELECT FROM ticks t
               WHERE t.n = _last - 1
                 AND date_trunc('hour', t.at) = date_trunc('hour', clock_timestamp())) THEN
        RETURN;
    END IF;
    DELETE FROM ticks t
    WHERE t.n < _passed AND t.at < clock_timestamp() - interval '7 days'
      AND date_trunc('hour', t.at) = (SELECT date_trunc('hour', b.at) FROM ticks b
                                      WHERE b.n < t.n ORDER BY b.n DESC LIMIT 1);
END $$;
