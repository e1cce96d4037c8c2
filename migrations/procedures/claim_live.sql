-- claim_live is a relay's turn with the live channel: it keeps what the relay has published since
-- its last turn, gives it the lease if the lease is free, and begins the next batch if there is
-- news. leased is false when another relay has the lease. batch is the tick that ends the batch,
-- and the asOf of its messages. It is null when there is no news, or when the last batch began less
-- than live_interval() ago.
--
-- _ack is the batch that was published, or null. A batch without an ack is a part of the next one.
-- _release gives the lease back.
--
-- News is a row of the ledger, a movement, or a hold that died by itself: its units are available
-- again (I4), and nobody has written anything. A batch takes a tick when there is news that no tick
-- sees, so that asOf rises with each message of a stock row. An idle shop writes nothing, but the
-- lease each quarter of a minute.
--
-- The messages are state. What is older than live_backlog() is left out: whoever reads the channel
-- reads the catalog each minute.
--
-- All is decided by the row as it was read first, without a lock. The update is guarded: it changes
-- the row only if that is still the same. The tick comes before the update, because a tick must be
-- the first thing that its transaction writes. The commit waits for the disk, so a tick that was
-- given to a reader is never given again.
CREATE OR REPLACE FUNCTION claim_live(
    _lease uuid, _ack bigint, _release boolean, OUT leased boolean, OUT batch bigint)
LANGUAGE plpgsql AS $$
DECLARE
    _now    timestamptz := clock_timestamp();
    _row    record;
    _done   bigint; -- what the row's columns become
    _looked timestamptz;
    _batch  bigint;
    _seen   timestamptz;
    _acked  boolean;
    _looks  boolean;
BEGIN
    SELECT * INTO STRICT _row FROM live;
    leased := CASE WHEN _row.lease IS NOT DISTINCT FROM _lease
                   THEN _row.leased_until > '-infinity'
                   ELSE _row.leased_until <= _now AND _ack IS NULL AND NOT _release END;
    IF NOT leased THEN
        RETURN;
    END IF;
    _acked := coalesce(_ack = _row.batch, false);
    _looks := NOT _release
              AND (greatest(_row.looked, _row.seen) BETWEEN _now - live_interval() AND _now)
                  IS NOT TRUE;
    IF _acked THEN
        _done := _row.batch;
        _looked := _row.seen;
    ELSE
        _done := _row.done;
        _looked := _row.looked;
        _batch := _row.batch;
        _seen := _row.seen;
    END IF;
    IF _looks THEN
        SELECT b.done, b.looked INTO _done, _looked FROM live_beginning(_done, _looked, _now) b;
        _batch := NULL;
        _seen := NULL;
        IF NOT has_live_news(_done, _looked, _now) THEN
            _looked := _now;
        ELSIF _done = 0 THEN -- the batch would have all that was ever written
            _done := take_live_tick(NULL, _looked, _now);
            _looked := _now;
        ELSE
            _batch := take_live_tick(_row.batch, _looked, _now);
            _seen := _now;
            batch := _batch;
        END IF;
    END IF;
    IF batch IS NULL AND NOT _acked AND NOT _release AND _row.lease IS NOT DISTINCT FROM _lease
       AND _row.leased_until > _now + interval '45 s' AND _done IS NOT DISTINCT FROM _row.done THEN
        RETURN;
    END IF;
    UPDATE live l
    SET done = _done, looked = _looked, batch = _batch, seen = _seen, lease = _lease,
        leased_until = CASE WHEN _release THEN '-infinity' ELSE _now + interval '1 minute' END
    WHERE l IS NOT DISTINCT FROM _row;
    leased := FOUND AND NOT _release;
    IF NOT leased THEN
        batch := NULL;
    END IF;
END $$;

-- live_interval is the least time between two batches: a stock row has at most one message in it.
CREATE OR REPLACE FUNCTION live_interval() RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT interval '1 s'
$$;

-- live_backlog is the age from which news isn't told any more.
CREATE OR REPLACE FUNCTION live_backlog() RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT interval '1 minute'
$$;

-- live_beginning is where the next batch begins: behind tick _done, with the holds that died after
-- _looked. After a pause, or when the tick is gone, it begins now.
CREATE OR REPLACE FUNCTION live_beginning(
    _done bigint, _looked timestamptz, _now timestamptz, OUT done bigint, OUT looked timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    done := _done;
    looked := least(_looked, _now); -- the clock may have jumped back
    IF looked < _now - live_backlog() OR tick_snapshot(done) IS NULL THEN
        done := last_tick();
        looked := _now;
    END IF;
END $$;

-- has_live_news says whether there is news that tick _done doesn't see, or a hold has died between
-- the two times. It reads a page or two of each index.
CREATE OR REPLACE FUNCTION has_live_news(_done bigint, _from timestamptz, _to timestamptz)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    _prev pg_snapshot := tick_snapshot(_done);
    _this pg_snapshot := pg_current_snapshot();
BEGIN
    PERFORM refuse_other_server(_prev, _this);
    RETURN last_tick() > _done OR has_new_rows(_prev, _this) OR has_died(_from, _to);
END $$;

-- has_died says whether a hold has died between the two times and nobody has written it down yet.
CREATE OR REPLACE FUNCTION has_died(_from timestamptz, _to timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM reservations r
                   WHERE r.status = 'PENDING' AND r.expires_at > _from AND r.expires_at <= _to);
END $$;

-- take_live_tick answers the tick that ends a batch. It is a new one when a row of the ledger or a
-- movement is new, when a hold has died, and when _before is the newest tick: that is the batch
-- before, some of whose messages may have been sent. The caller's transaction has written nothing.
CREATE OR REPLACE FUNCTION take_live_tick(_before bigint, _from timestamptz, _to timestamptz)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _last bigint := take_tick(); -- which locks the ticks for this transaction
    _this pg_snapshot := pg_current_snapshot();
BEGIN
    IF pg_current_xact_id_if_assigned() IS NULL
       AND (_last IS NOT DISTINCT FROM _before OR has_died(_from, _to)) THEN
        INSERT INTO ticks (n, snapshot) VALUES (_last + 1, _this);
        PERFORM count_minutes(tick_snapshot(_last), _this);
        RETURN _last + 1;
    END IF;
    RETURN _last;
END $$;
