-- follow_events_since is follow_events from the newest tick that was taken before _since. So it
-- answers all events since then, and may begin with some that are older. When there is no such
-- tick, or events behind it were archived, it begins where a list without a cursor does.
CREATE OR REPLACE FUNCTION follow_events_since(_since timestamptz, _kinds text[], _limit integer)
RETURNS TABLE (outcome text, epoch uuid, done bigint, batch bigint, after text, event jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _epoch uuid := (SELECT s.epoch FROM stream s WHERE s.only_row);
    _done  bigint := tick_before(_since);
BEGIN
    IF coalesce(_done <= first_listed_tick(), true) THEN
        _epoch := NULL;
        _done := 0;
    END IF;
    RETURN QUERY SELECT * FROM follow_events(_epoch, _done, NULL, NULL, _kinds, _limit);
END $$;

-- first_listed_tick is the tick behind which a list without a cursor begins: the oldest one behind
-- which nothing was archived.
CREATE OR REPLACE FUNCTION first_listed_tick() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _archived xid8 := (SELECT s.archived FROM stream s WHERE s.only_row);
BEGIN
    RETURN CASE WHEN _archived = '0' THEN oldest_tick() ELSE coalesce(
        (SELECT min(t.n) FROM ticks t WHERE _archived < pg_snapshot_xmin(t.snapshot)),
        last_tick()) END;
END $$;
