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
            batch        = CASE WHEN _done IS NULL THEN s.batch ELSE _batch END,
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
    batch := coalesce(_row.batch, (SELECT min(t.n) FROM ticks t WHERE t.n > _row.done));
    after := _row.after;
    epoch := (SELECT s.epoch FROM stream s WHERE s.only_row);
END $$;

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
