-- What the operator's page reads: the holds by filter, the figures of the last hour, and what the last audit found.
--
-- It only adds, so the release before goes on working. The indexes are built beside the traffic (CONCURRENTLY), which no transaction may
-- do; hence each statement here may be run again, after a run that ended in between.
--
-- Both indexes hold resolved holds only: a reserve, which is what a hot row's callers wait for, writes to neither, and what resolves a hold
-- writes one short entry to each, near its end. The live holds have their own indexes already, and there are few of them.

-- +goose NO TRANSACTION
-- +goose Up

-- The build waits for the transactions that began before it, an audit among them, and nobody waits for the build.
SET lock_timeout = 0;

-- Serves the lists of holds by status, the newest first. What is left of a build that failed isn't valid, and goes.
DROP INDEX CONCURRENTLY IF EXISTS reservations_resolved_by_status;
CREATE INDEX CONCURRENTLY reservations_resolved_by_status ON reservations (status, created_at, id) WHERE status <> 'PENDING';

-- Serves the minutes of the last hour. A hold is never resolved before it is made, so whatever happened to a resolved hold since some
-- instant is found from there on.
DROP INDEX CONCURRENTLY IF EXISTS reservations_resolved_by_time;
CREATE INDEX CONCURRENTLY reservations_resolved_by_time ON reservations (updated_at) WHERE status <> 'PENDING';

RESET lock_timeout;

-- What the last audit found: one row, or none before the first audit.
CREATE TABLE IF NOT EXISTS last_audit (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    at         timestamptz NOT NULL,
    violations integer     NOT NULL CHECK (violations >= 0),
    unfinished boolean     NOT NULL
);

-- has_line says whether a hold has a line of the product, in the warehouse; null stands for any. One of a cart's lines must be both.
-- The answer of its last statement can't be worked out for all carts at once, which is what the planner would do with an EXISTS.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION has_line(_hold reservations, _product uuid, _warehouse uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _product IS NULL AND _warehouse IS NULL THEN
        RETURN true;
    END IF;
    IF _hold.product_id IS NOT NULL THEN
        RETURN _hold.product_id = coalesce(_product, _hold.product_id) AND _hold.warehouse_id = coalesce(_warehouse, _hold.warehouse_id);
    END IF;
    RETURN (SELECT count(*) > 0 FROM reservation_items l
            WHERE l.reservation_id = _hold.id
              AND l.product_id = coalesce(_product, l.product_id) AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id));
END $$;
-- +goose StatementEnd

-- list_live_holds and list_holds answer up to _limit holds behind (_at, _id) in their order: those that are alive, the next to die first,
-- and those of a status, or of all where it is null, the newest first. The clock is read after the caller's snapshot was taken, and a hold
-- that is dead by it is shown as the sweep will write it down (I4). They lock nothing.
--
-- A line is looked for in no more than _scan holds, so that a rare one doesn't make a call read a whole history: then the last hold looked at
-- is answered as well, with matches false unless it is one to show, and the next call may go on behind it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION list_live_holds(_product uuid, _warehouse uuid, _at timestamptz, _id uuid, _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT hold_json(w.r), w.fits, w.n, _now
    FROM (
        SELECT r, r.expires_at, r.id, row_number() OVER (ORDER BY r.expires_at, r.id) AS n, has_line(r, _product, _warehouse) AS fits
        FROM reservations r
        WHERE r.status = 'PENDING' AND r.expires_at > _now AND r.expires_at >= _at AND (r.expires_at, r.id) > (_at, _id)
        ORDER BY r.expires_at, r.id LIMIT _scan
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.expires_at, w.id LIMIT _limit;
END $$;
-- +goose StatementEnd

-- Each branch is in order by its index, or is the few that are PENDING, so the lot is merged and read no further than is needed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION list_holds(_status reservation_status, _product uuid, _warehouse uuid, _at timestamptz, _id uuid,
                                      _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT hold_json(w.r, (w.r).status = 'PENDING' AND (w.r).expires_at <= _now), w.fits, w.n, _now
    FROM (
        SELECT a.r, a.created_at, a.id, row_number() OVER (ORDER BY a.created_at DESC, a.id DESC) AS n,
               has_line(a.r, _product, _warehouse) AS fits
        FROM (
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'CONFIRMED') = 'CONFIRMED' AND r.status = 'CONFIRMED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'RELEASED') = 'RELEASED' AND r.status = 'RELEASED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'EXPIRED'
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'PENDING' AND r.expires_at <= _now
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
            UNION ALL
            (SELECT r, r.created_at, r.id FROM reservations r
             WHERE _status IS NULL AND r.status = 'PENDING' AND r.expires_at > _now
               AND (r.created_at, r.id) < (_at, _id)
             ORDER BY r.created_at DESC, r.id DESC LIMIT _scan)
        ) a
        ORDER BY a.created_at DESC, a.id DESC LIMIT _scan
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.created_at DESC, w.id DESC LIMIT _limit;
END $$;
-- +goose StatementEnd

-- operator_stats answers how the shop stands at this moment, on one snapshot, and what happened in each of the last sixty minutes, the running
-- one included. It reads the holds that are PENDING, those that were resolved in these minutes, and the stock rows. A hold that died is
-- expired since its end, whether or not that was written down (I4).
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION operator_stats() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _first timestamptz := date_bin('1 minute', _now, 'epoch') - interval '59 minutes';
BEGIN
    RETURN (
        WITH pending AS MATERIALIZED (
            SELECT r.created_at, r.expires_at, r.quantity, r.expires_at <= _now AS dead
            FROM reservations r WHERE r.status = 'PENDING'
        ), holds AS MATERIALIZED (
            SELECT count(*) FILTER (WHERE NOT p.dead) AS live,
                   coalesce(sum(p.quantity) FILTER (WHERE NOT p.dead), 0) AS live_units,
                   count(*) FILTER (WHERE p.dead) AS dead,
                   coalesce(extract(epoch FROM _now - min(p.expires_at) FILTER (WHERE p.dead)), 0) AS lag
            FROM pending p
        ), lives AS ( -- by the minutes in which they began and ended, so that an hour's are few
            SELECT date_bin('1 minute', r.created_at, 'epoch') AS began, date_bin('1 minute', r.updated_at, 'epoch') AS ended,
                   r.status::text AS status, count(*) AS n
            FROM reservations r
            WHERE r.status <> 'PENDING' AND r.updated_at >= _first
            GROUP BY 1, 2, 3
            UNION ALL
            SELECT date_bin('1 minute', p.created_at, 'epoch'), CASE WHEN p.dead THEN date_bin('1 minute', p.expires_at, 'epoch') END,
                   CASE WHEN p.dead THEN 'EXPIRED' END, count(*)
            FROM pending p
            GROUP BY 1, 2, 3
        ), events AS (
            SELECT began AS minute, 'HELD' AS event, n FROM lives
            UNION ALL
            SELECT ended, status, n FROM lives
        ), counts AS (
            SELECT e.minute, coalesce(sum(e.n) FILTER (WHERE e.event = 'HELD'), 0) AS held,
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
                    'at', m.at, 'held', coalesce(c.held, 0), 'confirmed', coalesce(c.confirmed, 0),
                    'released', coalesce(c.released, 0), 'expired', coalesce(c.expired, 0)) ORDER BY m.at)
                FROM generate_series(_first, _now, interval '1 minute') m (at)
                LEFT JOIN counts c ON c.minute = m.at
            ),
            'audit', (SELECT jsonb_build_object('at', a.at, 'violations', a.violations, 'unfinished', a.unfinished)
                      FROM last_audit a WHERE a.only_row)
        )
        FROM holds h
    );
END $$;
-- +goose StatementEnd

-- keep_audit writes down what an audit found. Of two at once the one that is told later stays.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION keep_audit(_violations integer, _unfinished boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO last_audit AS a (at, violations, unfinished) VALUES (clock_timestamp(), _violations, _unfinished)
    ON CONFLICT (only_row) DO UPDATE SET at = excluded.at, violations = excluded.violations, unfinished = excluded.unfinished;
END $$;
-- +goose StatementEnd
