-- operator_stats answers how the shop stands at this moment, by one snapshot, and what happened in
-- each of the last sixty minutes, the running one included. It reads the PENDING holds, the holds
-- that were resolved in these minutes, and the stock rows. A dead hold counts as expired since its
-- end, whether or not that is written down (I4).
CREATE OR REPLACE FUNCTION operator_stats() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _first timestamptz := date_bin('1 minute', _now, 'epoch') - interval '59 minutes';
BEGIN
    RETURN (
        WITH pending AS MATERIALIZED (
            SELECT r.created_at, r.expires_at, r.quantity,
                   r.expires_at <= _now OR r.product_id IS NULL
                   AND (SELECT count(*) > 0 FROM reservation_items l -- as has_lost_line does
                        WHERE l.reservation_id = r.id AND NOT l.counted) AS dead
            FROM reservations r WHERE r.status = 'PENDING'
        ), holds AS MATERIALIZED (
            SELECT count(*) FILTER (WHERE NOT p.dead) AS live,
                   coalesce(sum(p.quantity) FILTER (WHERE NOT p.dead), 0) AS live_units,
                   count(*) FILTER (WHERE p.dead) AS dead,
                   greatest(extract(epoch FROM
                       _now - min(p.expires_at) FILTER (WHERE p.dead)), 0) AS lag
            FROM pending p
        ), lives AS ( -- by the minutes in which holds began and ended, so that an hour has few rows
            SELECT date_bin('1 minute', r.created_at, 'epoch') AS began,
                   date_bin('1 minute', r.updated_at, 'epoch') AS ended,
                   r.status::text AS status, count(*) AS n
            FROM reservations r
            WHERE r.status <> 'PENDING' AND r.updated_at >= _first
            GROUP BY 1, 2, 3
            UNION ALL
            SELECT date_bin('1 minute', p.created_at, 'epoch'),
                   CASE WHEN p.dead THEN date_bin('1 minute', p.expires_at, 'epoch') END,
                   CASE WHEN p.dead THEN 'EXPIRED' END, count(*)
            FROM pending p
            GROUP BY 1, 2, 3
        ), events AS (
            SELECT began AS minute, 'HELD' AS event, n FROM lives
            UNION ALL
            SELECT ended, status, n FROM lives
        ), counts AS (
            SELECT e.minute,
                   coalesce(sum(e.n) FILTER (WHERE e.event = 'HELD'), 0) AS held,
                   coalesce(sum(e.n) FILTER (WHERE e.event = 'CONFIRMED'), 0) AS confirmed,
                   coalesce(sum(e.n) FILTER (WHERE e.event = 'RELEASED'), 0) AS released,
                   coalesce(sum(e.n) FILTER (WHERE e.event = 'EXPIRED'), 0) AS expired
            FROM events e GROUP BY e.minute
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
            'audit', (SELECT jsonb_build_object('at', a.at, 'violations', a.violations,
                                                'unfinished', a.unfinished)
                      FROM last_audit a WHERE a.only_row)
        )
        FROM holds h
    );
END $$;
