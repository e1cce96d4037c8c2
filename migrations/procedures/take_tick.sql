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
--
-- After a pause there may be millions of new rows, too many for one statement. Then it takes ticks
-- of parts of them (end_of_batch): eight at most, and no more after a second, because a statement
-- that runs into its timeout undoes all of them. The next calls go on.
CREATE OR REPLACE FUNCTION take_tick(OUT last bigint) LANGUAGE plpgsql AS $$
DECLARE
    _prev  pg_snapshot;
    _this  pg_snapshot;
    _end   pg_snapshot;
    _start timestamptz;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'a tick must be the first statement of its transaction'
            USING ERRCODE = 'active_sql_transaction';
    END IF;
    PERFORM pg_advisory_xact_lock(10, 0);
    _start := clock_timestamp();
    last := last_tick();
    _prev := tick_snapshot(last);
    _this := pg_current_snapshot(); -- after the lock, and before the insert
    PERFORM refuse_other_server(_prev, _this);
    IF NOT has_new_rows(_prev, _this) THEN
        RETURN;
    END IF;
    FOR _part IN 1..8 LOOP
        _end := end_of_batch(_prev, _this);
        last := last + 1;
        INSERT INTO ticks (n, snapshot) VALUES (last, _end);
        PERFORM count_minutes(_prev, _end);
        EXIT WHEN _end::text = _this::text OR clock_timestamp() - _start > interval '1 s';
        _prev := _end;
    END LOOP;
END $$;

-- take_due_tick is take_tick for a relay that comes again soon: it takes no tick while the last one
-- is younger than tick_interval(). more then says that something is new. Without it, each place of
-- each sink would take a tick for each of its requests under load.
--
-- When the clock was set back, the last tick seems to be of the future: then it isn't young.
CREATE OR REPLACE FUNCTION take_due_tick(OUT last bigint, OUT more boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(10, 0);
    last := last_tick();
    more := false;
    IF (SELECT clock_timestamp() - t.at BETWEEN interval '0' AND tick_interval()
        FROM ticks t WHERE t.n = last) THEN
        more := has_new_rows(tick_snapshot(last), pg_current_snapshot());
    ELSE
        last := take_tick();
    END IF;
END $$;

-- tick_interval is the least age of the last tick at which a relay's request takes the next one: at
-- most four ticks a second, however many places ask. An event waits that long at most.
CREATE OR REPLACE FUNCTION tick_interval() RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT interval '250 ms'
$$;

-- has_new_rows says whether the snapshot _this sees a row of the ledger or a movement that the
-- earlier snapshot _prev doesn't (is_new). Each search has one condition on the ids, so that the
-- index serves it. With both conditions in one search the planner may prefer to read the table up
-- to its first new row. When nothing is new that is the whole table.
CREATE OR REPLACE FUNCTION has_new_rows(_prev pg_snapshot, _this pg_snapshot) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _from    xid8 := pg_snapshot_xmax(_prev);
    _to      xid8 := pg_snapshot_xmax(_this);
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
BEGIN
    RETURN EXISTS (SELECT FROM ledger l
                   WHERE l.xid >= _from AND l.xid < _to AND pg_visible_in_snapshot(l.xid, _this))
           OR EXISTS (SELECT FROM stock_movements m
                      WHERE m.xid >= _from AND m.xid < _to AND pg_visible_in_snapshot(m.xid, _this))
           OR EXISTS (SELECT FROM unnest(_running) r JOIN ledger l ON l.xid = r
                      WHERE pg_visible_in_snapshot(r, _this))
           OR EXISTS (SELECT FROM unnest(_running) r JOIN stock_movements m ON m.xid = r
                      WHERE pg_visible_in_snapshot(r, _this));
END $$;

-- count_minutes adds to minute_counts what the snapshot _this sees and _prev doesn't.
CREATE OR REPLACE FUNCTION count_minutes(_prev pg_snapshot, _this pg_snapshot) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
BEGIN
    INSERT INTO minute_counts AS c (minute, held, confirmed, released, expired)
    SELECT date_bin('1 minute', l.at, 'epoch'),
           count(*) FILTER (WHERE l.kind = 'h'), count(*) FILTER (WHERE l.kind = 'c'),
           count(*) FILTER (WHERE l.kind = 'r'), count(*) FILTER (WHERE l.kind = 'e')
    FROM ledger l WHERE is_new(l.xid, _running, _prev, _this)
    GROUP BY 1
    ON CONFLICT (minute) DO UPDATE
    SET held = c.held + excluded.held, confirmed = c.confirmed + excluded.confirmed,
        released = c.released + excluded.released, expired = c.expired + excluded.expired;
END $$;

-- batch_rows is the number of rows of a table beyond which a batch is split.
CREATE OR REPLACE FUNCTION batch_rows() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 50000::bigint
$$;

-- end_of_batch is the snapshot that ends the batch behind _prev: _this, or one between the two when
-- a table has more than batch_rows() new rows. That one sees the transactions that _this sees, up
-- to the one of the last row that still belongs to the batch, but not those that came too early:
--
-- A transaction gets its id before it waits for the lock of its hold or stock row. So a later
-- transition may have the lower id, and the boundary may fall between the two. Then the batch would
-- have the later one alone. So the transaction of the later one is left to the next batch, and with
-- it every one that follows it, on a hold or a stock row. They are few: they were running when the
-- id at the boundary was given out.
--
-- Behind tick 0 there may be the movements of years, so the first batch isn't split. The planner
-- can't know how few rows an id has, so it may only use the indexes.
CREATE OR REPLACE FUNCTION end_of_batch(_prev pg_snapshot, _this pg_snapshot) RETURNS pg_snapshot
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
DECLARE
    _from  xid8 := pg_snapshot_xmax(_prev);
    _to    xid8;
    _early xid8[];
    _more  xid8[];
BEGIN
    _to := least(
        (SELECT l.xid FROM ledger l WHERE l.xid >= _from
         ORDER BY l.xid OFFSET batch_rows() - 1 LIMIT 1),
        (SELECT m.xid FROM stock_movements m WHERE m.xid >= _from
         ORDER BY m.xid OFFSET batch_rows() - 1 LIMIT 1));
    _to := (_to::text::bigint + 1)::text::xid8;
    IF _prev::text = tick_snapshot(0)::text OR _to IS NULL OR _to >= pg_snapshot_xmax(_this) THEN
        RETURN _this;
    END IF;
    _early := ARRAY(SELECT early_ids(ARRAY(SELECT pg_snapshot_xip(_prev)), _from, _to, _this));
    LOOP
        _more := ARRAY(
            SELECT n.xid FROM unnest(_early) e JOIN ledger l ON l.xid = e
            JOIN ledger n ON (n.hold_id, n.version) = (l.hold_id, l.version + 1)
            WHERE n.xid < _to AND n.xid <> ALL (_early) AND pg_visible_in_snapshot(n.xid, _this)
            UNION
            SELECT n.xid FROM unnest(_early) e JOIN stock_movements m ON m.xid = e
            JOIN stock_movements n ON (n.product_id, n.warehouse_id, n.seq)
                                      = (m.product_id, m.warehouse_id, m.seq + 1)
            WHERE n.xid < _to AND n.xid <> ALL (_early) AND pg_visible_in_snapshot(n.xid, _this));
        EXIT WHEN _more = '{}';
        _early := _early || _more;
    END LOOP;
    RETURN (
        SELECT concat_ws(':', coalesce((array_agg(x.id))[1], _to), _to,
                         coalesce(string_agg(x.id::text, ','), ''))
        FROM (SELECT i.id FROM (SELECT pg_snapshot_xip(_this) UNION SELECT unnest(_early)) i (id)
              WHERE i.id < _to ORDER BY i.id) x)::pg_snapshot;
END $$;

-- early_ids lists the transactions below _to, of those in _running and from _from on, that made a
-- transition or a movement directly behind that of a transaction from _to on.
CREATE OR REPLACE FUNCTION early_ids(_running xid8[], _from xid8, _to xid8, _this pg_snapshot)
RETURNS SETOF xid8 LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT l.xid
    FROM (SELECT * FROM ledger a WHERE a.xid >= _from AND a.xid < _to
          UNION ALL SELECT * FROM ledger b WHERE b.xid = ANY (_running)) l
    JOIN ledger p ON (p.hold_id, p.version) = (l.hold_id, l.version - 1)
    WHERE p.xid >= _to AND pg_visible_in_snapshot(l.xid, _this)
    UNION
    SELECT m.xid
    FROM (SELECT * FROM stock_movements a WHERE a.xid >= _from AND a.xid < _to
          UNION ALL SELECT * FROM stock_movements b WHERE b.xid = ANY (_running)) m
    JOIN stock_movements p ON (p.product_id, p.warehouse_id, p.seq)
                              = (m.product_id, m.warehouse_id, m.seq - 1)
    WHERE p.xid >= _to AND pg_visible_in_snapshot(m.xid, _this);
END $$;

-- last_tick is the number of the newest tick, or 0.
CREATE OR REPLACE FUNCTION last_tick() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT max(t.n) FROM ticks t), 0);
END $$;

-- oldest_tick is the tick behind which the feed begins: 0, or after a rebase_stream, which drops
-- tick 1, the tick that it took.
CREATE OR REPLACE FUNCTION oldest_tick() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _first bigint := (SELECT min(t.n) FROM ticks t);
BEGIN
    RETURN CASE WHEN _first > 1 THEN _first ELSE 0 END;
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
