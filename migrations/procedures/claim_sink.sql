-- claim_sink is a relay's turn with a place of a sink: it keeps what the relay has done since its
-- last turn, gives it the lease if the lease is free, and answers the place from which to go on.
-- leased is false when another relay has the lease. batch is null when the place has all that the
-- ticks see.
--
-- A sink has two places: topic-holds for the holds' events, and topic-stock for the movements. So
-- neither part of the feed waits for the other. The row topic says up to where both are published
-- (join_places). A relay of the previous release names the sink itself, and publishes all events
-- from there. Such a relay has no lease while another one has a lease of a part, nor the other way
-- round.
--
-- _done, _batch and _after are the place behind the page that was published, or _done is null.
-- _failure says why a page couldn't be published, or is null. _release gives the lease back.
--
-- One guarded update does all of it. Only the relay that has the lease may move the place (the
-- fencing), and never back: a request that comes late changes nothing. A lease that was given back,
-- whose end is -infinity, isn't given to the same relay again: its request came late.
--
-- The row keeps the batch from the moment on at which a relay gets it (next_batch). So a page that
-- is asked for again has the same events, whatever ticks came meanwhile.
--
-- When there is a batch to read, it always writes. Its commit then waits until the tick is on disk,
-- and on the synchronous standby if there is one, even when the tick's own wait was cut short. When
-- there is none, it renews the lease after a quarter of its minute, so that an idle relay seldom
-- writes.
CREATE OR REPLACE FUNCTION claim_sink(
    _sink text, _lease uuid, _done bigint, _batch bigint, _after text, _parked jsonb,
    _failure text, _release boolean,
    OUT leased boolean, OUT done bigint, OUT batch bigint, OUT after text, OUT last bigint,
    OUT epoch uuid)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _whole text := sink_of(_sink);
    _row   record;
BEGIN
    last := last_tick();
    PERFORM refuse_other_server(tick_snapshot(last), pg_current_snapshot());
    PERFORM make_places(_sink, last);
    SELECT * INTO _row FROM sinks s WHERE s.name = _sink;
    IF _row.done < last OR _done IS NOT NULL OR _failure IS NOT NULL OR _release
       OR _row.lease IS DISTINCT FROM _lease OR _row.leased_until < _now + interval '45 s' THEN
        PERFORM lock_sink(_whole);
        UPDATE sinks s
        SET lease        = _lease,
            leased_until = CASE WHEN _release THEN '-infinity' ELSE _now + interval '1 minute' END,
            done         = coalesce(_done, s.done),
            batch        = coalesce(CASE WHEN _done IS NULL THEN s.batch ELSE _batch END,
                                    next_batch(_sink, coalesce(_done, s.done))),
            after        = CASE WHEN _done IS NULL THEN s.after ELSE _after END,
            failures     = CASE WHEN _failure IS NOT NULL THEN s.failures + 1
                                WHEN _done IS NOT NULL THEN 0 ELSE s.failures END,
            error        = CASE WHEN _failure IS NOT NULL THEN _failure
                                WHEN _done IS NULL THEN s.error END
        WHERE s.name = _sink
          AND (s.lease = _lease AND s.leased_until > '-infinity'
               OR s.lease IS DISTINCT FROM _lease AND s.leased_until <= _now
                  AND _done IS NULL AND NOT _release)
          AND (_done IS NULL OR (s.done, coalesce(s.after, '') COLLATE "C")
                                <= (_done, coalesce(_after, '') COLLATE "C"))
          AND NOT EXISTS (SELECT FROM sinks o
                          WHERE o.name = ANY (CASE _sink WHEN _whole THEN places_of(_whole)
                                                         ELSE ARRAY[_whole] END)
                            AND o.leased_until > _now)
        RETURNING * INTO _row;
        leased := FOUND AND NOT _release;
        IF FOUND THEN
            PERFORM park_events(_sink, _parked);
            PERFORM join_places(_whole);
        END IF;
    ELSE
        leased := true;
    END IF;
    done := _row.done;
    batch := _row.batch;
    after := _row.after;
    epoch := (SELECT s.epoch FROM stream s WHERE s.only_row);
END $$;

-- next_batch is the tick that ends the next batch of a place behind tick _done, or null when no
-- tick follows. A batch may span several ticks, so that a place that is behind gets full pages, and
-- a place for whose part nothing is new passes many ticks at once. It then has joined_rows() rows
-- of the place's part at most, and those of transactions that ran when tick _done was taken. A
-- batch is read anew for each of its pages, so a larger one would make the pages slow.
--
-- It looks at five hundred ticks: they are two minutes of a busy shop, and eight hours of one whose
-- relay didn't run. Behind tick 0 the batch is of one tick, because nothing bounds it
-- (end_of_batch).
CREATE OR REPLACE FUNCTION next_batch(_place text, _done bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _from  xid8 := pg_snapshot_xmax(tick_snapshot(_done));
    _first bigint := (SELECT min(t.n) FROM ticks t WHERE t.n > _done);
    _to    xid8;
BEGIN
    IF _done = 0 OR _first IS NULL OR _first = last_tick() THEN
        RETURN _first;
    END IF;
    _to := least(
        (SELECT l.xid FROM ledger l WHERE l.xid >= _from AND _place NOT LIKE '%-stock'
         ORDER BY l.xid OFFSET joined_rows() LIMIT 1),
        (SELECT m.xid FROM stock_movements m WHERE m.xid >= _from AND _place NOT LIKE '%-holds'
         ORDER BY m.xid OFFSET joined_rows() LIMIT 1));
    RETURN greatest(_first, (
        SELECT max(k.n)
        FROM (SELECT t.n, t.snapshot FROM ticks t WHERE t.n > _done ORDER BY t.n LIMIT 500) k
        WHERE _to IS NULL OR pg_snapshot_xmax(k.snapshot) <= _to));
END $$;

-- joined_rows is the number of rows up to which a batch spans several ticks: two pages.
CREATE OR REPLACE FUNCTION joined_rows() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 1000::bigint
$$;

-- sink_of is the sink of a place, or the sink itself.
CREATE OR REPLACE FUNCTION sink_of(_place text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN regexp_replace(_place, '-(holds|stock)$', '');
END $$;

-- places_of lists the two places of a sink.
CREATE OR REPLACE FUNCTION places_of(_sink text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN ARRAY[_sink || '-holds', _sink || '-stock'];
END $$;

-- make_places makes the row of a sink, and of its places when _sink is one of them. A sink begins
-- with all that was ever written, or that was since rebase_stream, while no other one has published
-- a batch. Later ones begin with what the ticks don't see yet. Both places begin where the sink
-- stands: a relay of the previous release may have published up to there.
CREATE OR REPLACE FUNCTION make_places(_sink text, _last bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _whole text := sink_of(_sink);
BEGIN
    INSERT INTO sinks (name, done)
    SELECT _whole, CASE WHEN EXISTS (SELECT FROM sinks s WHERE s.done > oldest_tick())
                        THEN _last ELSE oldest_tick() END
    WHERE NOT EXISTS (SELECT FROM sinks s WHERE s.name = _whole)
    ON CONFLICT (name) DO NOTHING;
    INSERT INTO sinks (name, done, batch, after)
    SELECT p.name, w.done, w.batch, w.after
    FROM sinks w, unnest(places_of(_whole)) p (name)
    WHERE w.name = _whole AND _sink <> _whole
      AND NOT EXISTS (SELECT FROM sinks s WHERE s.name = p.name)
    ON CONFLICT (name) DO NOTHING;
END $$;

-- lock_sink locks the row of a sink, which comes before those of its places. It moves a place that
-- is behind the sink up to it: a relay of the previous release has published the events between
-- them. Within a batch the place behind a hold's event is before all movements, and the place
-- behind a movement is after all events of holds.
CREATE OR REPLACE FUNCTION lock_sink(_sink text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM sinks s WHERE s.name = _sink FOR NO KEY UPDATE;
    UPDATE sinks s SET done = w.done, batch = w.batch, after = w.after
    FROM sinks w
    WHERE w.name = _sink AND s.name = ANY (places_of(_sink))
      AND (s.done, coalesce(s.after, '') COLLATE "C")
          < (w.done, coalesce(w.after, '') COLLATE "C");
END $$;

-- join_places moves a sink up to the tick that both of its places have passed. The caller has
-- called lock_sink.
CREATE OR REPLACE FUNCTION join_places(_sink text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sinks w SET done = p.done, batch = NULL, after = NULL
    FROM (SELECT min(s.done) AS done FROM sinks s WHERE s.name = ANY (places_of(_sink))) p
    WHERE w.name = _sink AND w.done < p.done;
END $$;

-- park_events sets events aside for the place _sink: an array of {id, subject, error}, or null. The
-- table parked has them by the sink itself, because an event's subject says which part it is of.
CREATE OR REPLACE FUNCTION park_events(_sink text, _parked jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO parked (sink, id, subject, error)
    SELECT sink_of(_sink), p.id, p.subject, p.error
    FROM jsonb_to_recordset(_parked) p (id text, subject text, error text)
    ON CONFLICT (sink, id) DO NOTHING;
END $$;
