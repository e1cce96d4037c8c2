-- list_updated_holds answers up to _limit holds that were updated at _since or later, as a reader
-- sees them, in two phases: first those that are dead and not swept, by (end, id), then those with
-- a change in the ledger since, by (transaction, id). The other filters are those of list_holds,
-- and so are matches, walked and seen_at. It looks at _scan holds and changes at most.
--
-- A change since then is a row of the ledger whose transaction a tick doesn't see that was taken
-- before _since (tick_before). Every row that the tick sees is older: its time was read before its
-- transaction committed, and the tick's time after the snapshot was taken. A transaction that ran
-- while the tick was taken, and committed later, is not seen by it. So no change is missed, however
-- late its commit. is_listed then looks at the hold itself.
--
-- A hold with several changes is listed at the last of them, as it is now. The changes are those up
-- to _bound, which is read when the first phase has ended. So a list ends, even while holds change.
-- A page of many changes of one hold looks at that hold once, and may list nothing: its last row is
-- the place for the next page. A hold that changes behind the place that a caller has reached may
-- come again, and none is left out:
--
--   - A hold that is swept after the first phase has passed it may come again in the second. One
--     that is swept before it could, has its change below _bound.
--   - A hold that was dead in the first phase, and hasn't changed since that began, was listed
--     there and isn't listed again. Its transactions are below _begun.
--
-- Without a tick that is old enough it answers what list_holds does, and no tick, which tells the
-- caller to go on with that. Otherwise each row has the place behind it: _tick and _begun from the
-- first page on, _bound in the second phase, and there _at is when the first one ended. The first
-- page has _tick 0.
CREATE OR REPLACE FUNCTION list_updated_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _since timestamptz,
    _at timestamptz, _id uuid, _tick bigint, _xid bigint, _begun bigint, _bound bigint,
    _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz,
               at timestamptz, id uuid, tick bigint, xid bigint, begun bigint, bound bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _this  pg_snapshot := pg_current_snapshot();
    _first uuid := '00000000-0000-0000-0000-000000000000';
    _found integer := 0;
BEGIN
    IF _tick = 0 THEN
        _tick := tick_before(_since);
        IF _tick IS NULL THEN
            RETURN QUERY
            SELECT l.hold, l.matches, l.walked, l.seen_at, (l.hold ->> 'created_at')::timestamptz,
                   (l.hold ->> 'id')::uuid, 0::bigint, 0::bigint, 0::bigint, 0::bigint
            FROM list_holds(_status, _product, _warehouse, _since, 'infinity',
                            'ffffffff-ffff-ffff-ffff-ffffffffffff', _limit, _scan) l;
            RETURN;
        END IF;
        _begun := pg_snapshot_xmin(_this)::text::bigint;
    END IF;
    seen_at := _now;
    tick := _tick;
    xid := 0;
    begun := _begun;
    bound := 0;
    walked := 0;
    IF _bound = 0 THEN
        FOR hold, matches, walked, at, id IN
            SELECT * FROM list_dead_holds(_status, _product, _warehouse, _since, _now, _at, _id,
                                          _limit, _scan)
        LOOP
            _found := _found + matches::integer;
            RETURN NEXT;
        END LOOP;
        walked := coalesce(walked, 0); -- null after a loop over nothing
        IF _found = _limit OR walked = _scan THEN
            RETURN;
        END IF;
        _at := _now;
        _id := _first;
        _bound := pg_snapshot_xmax(_this)::text::bigint;
    END IF;
    at := _at;
    bound := _bound;
    RETURN QUERY
    SELECT c.hold, c.matches, walked + c.n, seen_at, _at, c.id, _tick, c.xid, _begun, _bound
    FROM list_changes(_status, _product, _warehouse, _since, _now, snapshot_of_tick(_tick),
                      _xid::text::xid8, _id, _at, _begun::text::xid8, _bound::text::xid8,
                      _limit - _found, _scan - walked) c;
END $$;

-- list_dead_holds is the first phase of list_updated_holds: the holds that are dead by the clock
-- _now, and end at _since or later, by (end, id), after (_at, _id). Carts that lost a line may end
-- later than that.
CREATE OR REPLACE FUNCTION list_dead_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _since timestamptz,
    _now timestamptz, _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, at timestamptz, id uuid)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT CASE WHEN w.fits THEN with_party(hold_json(w.r, true)) END, w.fits, w.n, w.expires_at,
           w.id
    FROM (
        SELECT d.r, d.expires_at, d.id, d.n, d.n = max(d.n) OVER () AS is_last,
               is_listed(d.r, true, _status, _product, _warehouse, _since) AS fits
        FROM (
            SELECT a.r, a.expires_at, a.id, row_number() OVER (ORDER BY a.expires_at, a.id) AS n
            FROM (
                (SELECT r, r.expires_at, r.id FROM reservations r
                 WHERE r.status = 'PENDING' AND r.expires_at <= _now
                   AND r.expires_at >= greatest(_since, _at) AND (r.expires_at, r.id) > (_at, _id)
                 ORDER BY r.expires_at, r.id LIMIT _scan)
                UNION ALL
                (SELECT r, r.expires_at, r.id FROM half_carts(_now) r
                 WHERE (r.expires_at, r.id) > (_at, _id))
            ) a
            ORDER BY a.expires_at, a.id LIMIT _scan
        ) d
        WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED'
    ) w
    WHERE w.fits OR w.is_last
    ORDER BY w.n LIMIT _limit;
END $$;

-- list_changes is the second phase of list_updated_holds: the holds with changes that _seen doesn't
-- see, by (transaction, id), after (_xid, _id) and below _bound. It looks at a hold and its ledger
-- only for the last of the hold's changes among the next _scan: a hold may have very many.
CREATE OR REPLACE FUNCTION list_changes(
    _status reservation_status, _product uuid, _warehouse uuid, _since timestamptz,
    _now timestamptz, _seen pg_snapshot, _xid xid8, _id uuid, _dead_at timestamptz,
    _begun xid8, _bound xid8, _limit integer, _scan bigint)
RETURNS TABLE (hold jsonb, matches boolean, n bigint, xid bigint, id uuid)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT CASE WHEN w.fits THEN with_party(hold_json(w.r, w.dead)) END, w.fits, w.n,
           w.xid::text::bigint, w.hold_id
    FROM (
        SELECT c.xid, c.hold_id, c.n, h.r, h.dead,
               coalesce(c.is_last AND is_listed(h.r, h.dead, _status, _product, _warehouse, _since)
                        AND NOT (h.dead AND (h.r).expires_at BETWEEN _since AND _dead_at
                                 AND NOT has_change(c.hold_id, _begun, NULL, _seen))
                        AND NOT has_change(c.hold_id, (c.xid::text::bigint + 1)::text::xid8,
                                           _bound, _seen), false) AS fits
        FROM (
            SELECT a.xid, a.hold_id, a.n, a.n = max(a.n) OVER (PARTITION BY a.hold_id) AS is_last
            FROM changes_after(_seen, _xid, _id, _bound, _scan) a
        ) c
        LEFT JOIN LATERAL (
            SELECT r, hold_is_dead(r, _now) AS dead FROM reservations r
            WHERE c.is_last AND r.id = c.hold_id
            OFFSET 0 -- otherwise the planner may join the whole table
        ) h ON true
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.n LIMIT _limit;
END $$;

-- changes_after answers the next _scan changes of holds, numbered by (transaction, id), that the
-- snapshot _seen doesn't see: those of the transactions that ran when it was taken, and those of
-- the later ones. The planner can't know how few rows an id has, so it may only use the index.
CREATE OR REPLACE FUNCTION changes_after(
    _seen pg_snapshot, _xid xid8, _id uuid, _bound xid8, _scan bigint)
RETURNS TABLE (xid xid8, hold_id uuid, n bigint) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashagg = off AS $$
DECLARE
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_seen));
BEGIN
    RETURN QUERY
    SELECT c.xid, c.hold_id, row_number() OVER (ORDER BY c.xid, c.hold_id)
    FROM (
        (SELECT DISTINCT l.xid, l.hold_id FROM ledger l
         WHERE l.xid = ANY (_running) AND l.xid >= _xid AND (l.xid, l.hold_id) > (_xid, _id)
         ORDER BY l.xid, l.hold_id LIMIT _scan)
        UNION ALL
        (SELECT DISTINCT l.xid, l.hold_id FROM ledger l
         WHERE l.xid >= greatest(_xid, pg_snapshot_xmax(_seen)) AND l.xid < _bound
           AND (l.xid, l.hold_id) > (_xid, _id)
         ORDER BY l.xid, l.hold_id LIMIT _scan)
    ) c
    ORDER BY c.xid, c.hold_id LIMIT _scan;
END $$;

-- has_change says whether a hold has a change from the transaction _from on, below _bound, that the
-- snapshot _seen doesn't see. Without a _bound, every later one counts.
--
-- It looks at the hold's newest versions only, because a hold may have very many. It finds a change
-- among the first of them, unless the hold has changed more often than that from _bound on. Then
-- the hold is listed once more. With no _bound it misses none: when the newest change had ended
-- before _from, so had all that it followed, because each of them locked the hold.
CREATE OR REPLACE FUNCTION has_change(_hold uuid, _from xid8, _bound xid8, _seen pg_snapshot)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    _most CONSTANT integer := 50;
BEGIN
    RETURN (SELECT count(*) > 0
            FROM (SELECT c.xid FROM ledger c
                  WHERE c.hold_id = _hold ORDER BY c.version DESC LIMIT _most) l
            WHERE l.xid >= _from AND (l.xid < _bound) IS NOT FALSE
              AND NOT pg_visible_in_snapshot(l.xid, _seen));
END $$;

-- tick_before is the tick by which list_updated_holds finds the changes since a time: the last one
-- that was taken before it. After a jump of the clock back, a later tick may have an earlier time.
-- So it also looks at the _near ticks up to this one. If some of them are of that time or later, it
-- answers the tick before the first of those. A busy shop takes up to five ticks a second
-- (tick_interval, live_interval), so _near spans a jump of an hour. tick_before is null when there
-- is no such tick, and for a tick of another server, whose transactions say nothing about this
-- one's (rebase_stream).
CREATE OR REPLACE FUNCTION tick_before(_since timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _near CONSTANT integer := 20000;
    _last bigint := (SELECT t.n FROM ticks t
                     WHERE t.at < _since ORDER BY t.at DESC, t.n DESC LIMIT 1);
    _late bigint;
BEGIN
    SELECT min(k.n) INTO _late
    FROM (SELECT t.n, t.at FROM ticks t WHERE t.n <= _last ORDER BY t.n DESC LIMIT _near) k
    WHERE k.at >= _since;
    RETURN (SELECT t.n
            FROM (SELECT * FROM ticks k WHERE k.n < coalesce(_late, _last + 1)
                  ORDER BY k.n DESC LIMIT 1) t
            WHERE pg_snapshot_xmax(t.snapshot) <= pg_snapshot_xmax(pg_current_snapshot()));
END $$;

-- snapshot_of_tick is what a tick sees, or if it was pruned, what the last one before it sees. When
-- there is none, it sees nothing.
CREATE OR REPLACE FUNCTION snapshot_of_tick(_n bigint) RETURNS pg_snapshot
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT t.snapshot FROM ticks t WHERE t.n <= _n ORDER BY t.n DESC LIMIT 1),
                    '1:1:');
END $$;

-- updated_as_shown is when a hold was updated, as a reader sees it by the clock _now: a dead one at
-- its end.
CREATE OR REPLACE FUNCTION updated_as_shown(_hold reservations, _now timestamptz)
RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN hold_is_dead(_hold, _now) THEN _hold.expires_at ELSE _hold.updated_at END;
END $$;

-- longest_hold is longer than any hold lasts: MAX_PAYMENT_HOLD is at most a week, and MAX_HOLD
-- shorter.
CREATE OR REPLACE FUNCTION longest_hold() RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT interval '8 days'
$$;
