-- operator_stats answers how the shop stands at this moment, by one snapshot, and what happened in
-- each of the last sixty minutes, the running one included. It reads the PENDING holds, the stock
-- rows, the minutes that the ticks have counted, and the rows of the ledger that no tick has
-- counted yet. A dead hold counts as expired since its end, whether or not that is written down
-- (I4).
--
-- A tick counts the rows that its snapshot sees. The others were written by transactions that ran
-- then, or that began later. This holds on a reader too: it has a tick together with all that the
-- tick's snapshot sees.
CREATE OR REPLACE FUNCTION operator_stats() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _first timestamptz := date_bin('1 minute', _now, 'epoch') - interval '59 minutes';
    _last  pg_snapshot;
BEGIN
    -- A STABLE function's statements have one snapshot, that of its caller.
    SELECT t.snapshot INTO _last FROM ticks t ORDER BY t.n DESC LIMIT 1;
    _last := coalesce(_last, '1:1:');
    RETURN (
        WITH pending AS MATERIALIZED ( -- by the minute of their end, if they are dead
            SELECT CASE WHEN r.dead THEN date_bin('1 minute', r.expires_at, 'epoch') END AS ended,
                   count(*) AS n, sum(r.quantity) AS units, min(r.expires_at) AS first_end
            FROM (SELECT r.expires_at, r.quantity,
                         r.expires_at <= _now OR r.product_id IS NULL
                         AND (SELECT count(*) > 0 FROM reservation_items l -- as has_lost_line does
                              WHERE l.reservation_id = r.id AND NOT l.counted) AS dead
                  FROM reservations r WHERE r.status = 'PENDING' OFFSET 0) r
            GROUP BY 1
        ), holds AS MATERIALIZED (
            SELECT coalesce(sum(p.n) FILTER (WHERE p.ended IS NULL), 0) AS live,
                   coalesce(sum(p.units) FILTER (WHERE p.ended IS NULL), 0) AS live_units,
                   coalesce(sum(p.n) FILTER (WHERE p.ended IS NOT NULL), 0) AS dead,
                   greatest(extract(epoch FROM
                       _now - min(p.first_end) FILTER (WHERE p.ended IS NOT NULL)), 0) AS lag
            FROM pending p
        ), uncounted AS (
            SELECT l.at, l.kind FROM ledger l
            WHERE l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(_last)))
            UNION ALL
            SELECT l.at, l.kind FROM ledger l WHERE l.xid >= pg_snapshot_xmax(_last)
        ), parts AS (
            SELECT c.minute, c.held, c.confirmed, c.released, c.expired
            FROM minute_counts c WHERE c.minute >= _first
            UNION ALL
            SELECT date_bin('1 minute', u.at, 'epoch'),
                   count(*) FILTER (WHERE u.kind = 'h'), count(*) FILTER (WHERE u.kind = 'c'),
                   count(*) FILTER (WHERE u.kind = 'r'), count(*) FILTER (WHERE u.kind = 'e')
            FROM uncounted u WHERE u.at >= _first
            GROUP BY 1
            UNION ALL
            SELECT p.ended, 0, 0, 0, p.n FROM pending p WHERE p.ended >= _first
        ), counts AS (
            SELECT p.minute, sum(p.held) AS held, sum(p.confirmed) AS confirmed,
                   sum(p.released) AS released, sum(p.expired) AS expired
            FROM parts p GROUP BY p.minute
        )
        SELECT jsonb_build_object(
            'now', _now, 'live', h.live, 'live_units', h.live_units, 'dead', h.dead, 'lag', h.lag,
            'total', (SELECT coalesce(sum(i.total), 0) FROM inventory i),
            'minutes', (
                SELECT jsonb_agg(jsonb_build_object(
                    'at', m.at,
                    'held', coalesce(c.held, 0), 'confirmed', coalesce(c.confirmed, 0),
                    'released', coalesce(c.released, 0), 'expired', coalesce(c.expired, 0))
                    ORDER BY m.at)
                FROM generate_series(_first, _now, interval '1 minute') m (at)
                LEFT JOIN counts c ON c.minute = m.at
            ),
            'audit', (SELECT jsonb_build_object(
                          'at', a.at, 'unfinished', a.unfinished,
                          'violations', greatest(a.violations, a.full_violations))
                      FROM last_audit a WHERE a.only_row),
            'events', feed_stats(_now)
        )
        FROM holds h
    );
END $$;

-- feed_stats answers how far the sinks have published, without the places of which a sink is made.
-- A sink's lag is the time since the first tick that it hasn't published, in seconds. It counts up
-- to 10,000 parked events of a sink.
CREATE OR REPLACE FUNCTION feed_stats(_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'lag', coalesce(max(f.lag), 0), 'parked', coalesce(sum(f.parked), 0),
            'sinks', coalesce(jsonb_agg(jsonb_build_object(
                'name', f.name, 'lag', f.lag, 'parked', f.parked, 'failures', f.failures,
                'error', f.error) ORDER BY f.name), '[]'))
        FROM (
            SELECT s.name,
                   coalesce((SELECT greatest(extract(epoch FROM _now - t.at), 0) FROM ticks t
                             WHERE t.n > s.done ORDER BY t.n LIMIT 1), 0) AS lag,
                   (SELECT count(*) FROM (SELECT FROM parked p WHERE p.sink = s.name LIMIT 10000) l)
                       AS parked,
                   w.failures, w.error
            FROM sinks s
            CROSS JOIN LATERAL ( -- a relay writes its failures beside the place that it has
                SELECT max(p.failures) AS failures, max(p.error) AS error FROM sinks p
                WHERE sink_of(p.name) = s.name
            ) w
            WHERE sink_of(s.name) = s.name
        ) f
    );
END $$;
