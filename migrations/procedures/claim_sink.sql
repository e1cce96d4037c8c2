-- claim_sink is a relay's turn with a sink: it keeps what the relay has done since its last turn,
-- gives it the lease if the lease is free, and answers the place from which to go on. leased is
-- false when another relay has the lease. batch is null when the sink has all that the ticks see.
--
-- _done, _batch and _after are the place behind the page that was published, or _done is null.
-- _failure says why a page couldn't be published, or is null. _release gives the lease back.
--
-- One guarded update does all of it. Only the relay that has the lease may move the sink's place
-- (the fencing), and never back: a request that comes late changes nothing. A lease that was given
-- back, whose end is -infinity, isn't given to the same relay again: its request came late.
--
-- The first sink begins with all that was ever written, or that was since rebase_stream. Another
-- one begins with what the ticks don't see yet.
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
    _now timestamptz := clock_timestamp();
    _row record;
BEGIN
    last := last_tick();
    PERFORM refuse_other_server(tick_snapshot(last), pg_current_snapshot());
    INSERT INTO sinks (name, done)
    SELECT _sink, CASE WHEN EXISTS (SELECT FROM sinks) THEN last ELSE oldest_tick() END
    WHERE NOT EXISTS (SELECT FROM sinks s WHERE s.name = _sink)
    ON CONFLICT (name) DO NOTHING;
    SELECT * INTO _row FROM sinks s WHERE s.name = _sink;
    IF _row.done < last OR _done IS NOT NULL OR _failure IS NOT NULL OR _release
       OR _row.lease IS DISTINCT FROM _lease OR _row.leased_until < _now + interval '45 s' THEN
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
        RETURNING * INTO _row;
        leased := FOUND AND NOT _release;
        IF FOUND THEN
            PERFORM park_events(_sink, _parked);
        END IF;
    ELSE
        leased := true;
    END IF;
    done := _row.done;
    batch := coalesce(_row.batch, (SELECT min(t.n) FROM ticks t WHERE t.n > _row.done));
    after := _row.after;
    epoch := (SELECT s.epoch FROM stream s WHERE s.only_row);
END $$;

-- park_events sets events of a sink aside: an array of {id, subject, error}, or null.
CREATE OR REPLACE FUNCTION park_events(_sink text, _parked jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO parked (sink, id, subject, error)
    SELECT _sink, p.id, p.subject, p.error
    FROM jsonb_to_recordset(_parked) p (id text, subject text, error text)
    ON CONFLICT (sink, id) DO NOTHING;
END $$;
