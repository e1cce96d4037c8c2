-- read_events reads up to _limit events of a batch, in their order: those that tick _batch sees
-- and tick _done doesn't, behind the place _after, or from the beginning if that is null. _kinds
-- selects kinds of the ledger, and m for movements; null stands for all. age is for how long the
-- event has been late, in seconds: since it happened, but not since before tick _done, which
-- doesn't see it. A sweep writes an expiry with the hold's end, which may be a minute earlier.
--
-- First come the holds' rows by (at, version, hold), then the movements by (product, warehouse,
-- seq). at never falls along a hold, so the order within each subject is that of its transitions.
-- A place is these columns as text. Such texts are in the same order by their bytes.
--
-- All statements have the caller's snapshot.
CREATE OR REPLACE FUNCTION read_events(
    _done bigint, _batch bigint, _after text, _kinds text[], _limit integer)
RETURNS TABLE (place text, subject text, age double precision, event jsonb)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _rows  integer := 0;
    _since timestamptz := (SELECT t.at FROM ticks t WHERE t.n = _done);
BEGIN
    IF (_after IS NULL OR _after LIKE 'h%') AND _kinds IS DISTINCT FROM '{m}' THEN
        RETURN QUERY SELECT * FROM read_transitions(_done, _batch, _after, _kinds, _limit);
        GET DIAGNOSTICS _rows = ROW_COUNT;
    END IF;
    IF _rows < _limit AND (_kinds IS NULL OR 'm' = ANY (_kinds)) THEN
        RETURN QUERY
        SELECT concat_ws(' ', 'm', m.product_id, m.warehouse_id, lpad(m.seq::text, 19, '0')),
               m.product_id || '/' || m.warehouse_id,
               extract(epoch FROM clock_timestamp() - greatest(m.at, _since))::double precision,
               jsonb_build_object(
                   'kind', 'm', 'product_id', m.product_id, 'warehouse_id', m.warehouse_id,
                   'seq', m.seq, 'at', m.at, 'movement', m.kind, 'delta', m.delta,
                   'total_after', m.total_after, 'source', m.source, 'actor', m.actor,
                   'reservation_id', m.reservation_id)
        FROM read_moves(_done, _batch, CASE WHEN _after LIKE 'm%' THEN _after END,
                        _limit - _rows) m;
    END IF;
END $$;

-- read_transitions is the part of read_events with the holds' rows.
CREATE OR REPLACE FUNCTION read_transitions(
    _done bigint, _batch bigint, _after text, _kinds text[], _limit integer)
RETURNS TABLE (place text, subject text, age double precision, event jsonb)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _prev    pg_snapshot := tick_snapshot(_done);
    _this    pg_snapshot := tick_snapshot(_batch);
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
    _since   timestamptz := (SELECT t.at FROM ticks t WHERE t.n = _done);
    _parts   text[] := string_to_array(_after, ' ');
    _at      timestamptz := coalesce(_parts[2]::timestamp AT TIME ZONE 'UTC', '-infinity');
    _version integer := coalesce(_parts[3]::integer, 0);
    _hold    uuid := coalesce(_parts[4]::uuid, '00000000-0000-0000-0000-000000000000');
BEGIN
    RETURN QUERY
    WITH fresh AS MATERIALIZED ( -- by the index of the ids
        SELECT l.* FROM ledger l
        WHERE is_new(l.xid, _running, _prev, _this)
    )
    SELECT concat_ws(' ', 'h', to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
                     lpad(l.version::text, 10, '0'), l.hold_id),
           l.hold_id::text,
           extract(epoch FROM clock_timestamp() - greatest(l.at, _since))::double precision,
           jsonb_build_object(
               'kind', l.kind, 'cause', l.cause, 'actor', l.actor, 'at', l.at,
               'expires_at', l.expires_at, 'version', l.version, 'hold_id', l.hold_id,
               'created_at', r.created_at,
               'replaces', CASE WHEN r.detailed THEN (
                   SELECT p.old_id FROM replacements p WHERE p.new_id = r.id) END,
               'items', CASE WHEN r.product_id IS NOT NULL
                   THEN jsonb_build_array(jsonb_build_object(
                       'product_id', r.product_id, 'warehouse_id', r.warehouse_id,
                       'quantity', r.quantity))
                   ELSE (SELECT jsonb_agg(jsonb_build_object(
                                    'product_id', i.product_id, 'warehouse_id', i.warehouse_id,
                                    'quantity', i.quantity) ORDER BY i.product_id, i.warehouse_id)
                         FROM reservation_items i WHERE i.reservation_id = r.id) END)
    FROM (SELECT f.* FROM fresh f
          WHERE (f.at, f.version, f.hold_id) > (_at, _version, _hold)
            AND (_kinds IS NULL OR f.kind::text = ANY (_kinds))
          ORDER BY f.at, f.version, f.hold_id LIMIT _limit) l
    LEFT JOIN reservations r ON r.id = l.hold_id
    ORDER BY l.at, l.version, l.hold_id;
END $$;

-- read_moves is the part of read_events with the movements. Behind tick 0, which sees nothing, a
-- shop may have the movements of years: then the order of the primary key leads to the next ones.
CREATE OR REPLACE FUNCTION read_moves(_done bigint, _batch bigint, _after text, _limit integer)
RETURNS SETOF stock_movements LANGUAGE plpgsql STABLE AS $$
DECLARE
    _prev      pg_snapshot := tick_snapshot(_done);
    _this      pg_snapshot := tick_snapshot(_batch);
    _running   xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
    _parts     text[] := string_to_array(_after, ' ');
    _product   uuid := coalesce(_parts[2]::uuid, '00000000-0000-0000-0000-000000000000');
    _warehouse uuid := coalesce(_parts[3]::uuid, '00000000-0000-0000-0000-000000000000');
    _seq       bigint := coalesce(_parts[4]::bigint, 0);
BEGIN
    IF _done = 0 THEN
        RETURN QUERY
        SELECT * FROM stock_movements m
        WHERE (m.product_id, m.warehouse_id, m.seq) > (_product, _warehouse, _seq)
          AND pg_visible_in_snapshot(m.xid, _this)
        ORDER BY m.product_id, m.warehouse_id, m.seq LIMIT _limit;
        RETURN;
    END IF;
    RETURN QUERY
    WITH fresh AS MATERIALIZED ( -- by the index of the ids
        SELECT * FROM stock_movements m
        WHERE is_new(m.xid, _running, _prev, _this)
    )
    SELECT * FROM fresh f
    WHERE (f.product_id, f.warehouse_id, f.seq) > (_product, _warehouse, _seq)
    ORDER BY f.product_id, f.warehouse_id, f.seq LIMIT _limit;
END $$;

-- list_events reads up to _limit events behind a cursor's place, batch after batch. Each row with
-- an event has the place behind it. If there are fewer than _limit, a last row has the place that
-- was reached, and no event. Without _epoch it begins at the oldest event that is left.
--
-- outcome is OK, or the only row has another one: TOO_OLD when what follows the place was archived,
-- or is of another epoch, and UNKNOWN when no list has had the place. A server that follows the
-- database may not have the place yet: nothing lies behind it there.
--
-- The transactions of archived rows are up to _stream.archived, but not all that are before it: the
-- rows of a transaction may have been archived that ran when the tick of the place was taken, and
-- committed later. So what follows the place is whole only when all transactions up to
-- _stream.archived had ended by that tick, or no tick follows it.
--
-- A place names the tick _done behind which it lies, the tick _batch that ends the batch it is in,
-- and the place within. When one of the two was pruned, the batch is now part of a larger one, in
-- which the place within says nothing. Reading then begins at the next earlier tick that is left:
-- some events come again, and none is missed.
--
-- A page looks at a thousand batches at most, and goes to no other one behind 200,000 transaction
-- ids, so that it may be short or empty when _kinds leaves most events out.
CREATE OR REPLACE FUNCTION list_events(
    _epoch uuid, _done bigint, _batch bigint, _after text, _kinds text[], _limit integer)
RETURNS TABLE (outcome text, epoch uuid, done bigint, batch bigint, after text, event jsonb)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _stream record;
    _start  bigint;
    _tick   record;
    _least  xid8;
    _found  integer := 0;
    _rows   integer;
BEGIN
    SELECT * INTO _stream FROM stream s WHERE s.only_row;
    IF _epoch IS NULL THEN
        _done := first_listed_tick();
    END IF;
    _start := coalesce((SELECT max(t.n) FROM ticks t WHERE t.n <= _done), 0);
    IF _start <> _done THEN
        _batch := NULL;
    END IF;
    outcome := CASE WHEN _epoch <> _stream.epoch
                      OR _epoch IS NOT NULL
                         AND (NOT pg_visible_in_snapshot(_stream.archived, tick_snapshot(_start))
                              OR _stream.archived >= pg_snapshot_xmin(tick_snapshot(_start))
                                 AND _start < last_tick())
                    THEN 'TOO_OLD'
                    WHEN greatest(_done, _batch) > last_tick() AND NOT pg_is_in_recovery()
                    THEN 'UNKNOWN' ELSE 'OK' END;
    epoch := _stream.epoch;
    IF outcome <> 'OK' THEN
        RETURN NEXT;
        RETURN;
    END IF;
    _least := pg_snapshot_xmax(tick_snapshot(_start));
    FOR _tick IN SELECT t.n, pg_snapshot_xmax(t.snapshot) AS xmax FROM ticks t
                 WHERE t.n > _start ORDER BY t.n LIMIT 1000 LOOP
        RETURN QUERY
        SELECT 'OK', _stream.epoch, _start, _tick.n, e.place, e.event
        FROM read_events(_start, _tick.n, CASE WHEN _tick.n = _batch THEN _after END, _kinds,
                         _limit - _found) e;
        GET DIAGNOSTICS _rows = ROW_COUNT;
        _found := _found + _rows;
        IF _found = _limit THEN
            RETURN;
        END IF;
        _start := _tick.n;
        EXIT WHEN _tick.xmax::text::bigint - _least::text::bigint > 200000;
    END LOOP;
    done := _start;
    RETURN NEXT;
END $$;

-- follow_events is list_events for an answer. Where commits wait for a synchronous standby, it
-- writes a log record after it has read, so that its own commit waits for the standby too: a tick
-- whose wait was cut short is visible all the same. All of list_events has one snapshot.
CREATE OR REPLACE FUNCTION follow_events(
    _epoch uuid, _done bigint, _batch bigint, _after text, _kinds text[], _limit integer)
RETURNS TABLE (outcome text, epoch uuid, done bigint, batch bigint, after text, event jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM list_events(_epoch, _done, _batch, _after, _kinds, _limit);
    IF NOT pg_is_in_recovery() AND current_setting('synchronous_standby_names') <> '' THEN
        PERFORM write_log_record();
    END IF;
END $$;

-- hold_history is the newest _limit rows of the ledger of a hold, in the order of their versions,
-- or null if there is no such hold. It reads the archive too, in the same snapshot.
CREATE OR REPLACE FUNCTION hold_history(_id uuid, _limit integer) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT hold_exists(_id) THEN
        RETURN NULL;
    END IF;
    RETURN coalesce((
        SELECT jsonb_agg(jsonb_build_object(
                   'version', l.version, 'at', l.at, 'kind', l.kind, 'cause', l.cause,
                   'actor', l.actor, 'expires_at', l.expires_at) ORDER BY l.version)
        FROM (SELECT a.version, a.at, a.kind, a.cause, a.actor, a.expires_at
              FROM ledger a WHERE a.hold_id = _id
              UNION ALL
              SELECT a.version, a.at, a.kind, a.cause, a.actor, a.expires_at
              FROM archived_ledger a WHERE a.hold_id = _id
              ORDER BY version DESC LIMIT _limit) l), '[]');
END $$;
