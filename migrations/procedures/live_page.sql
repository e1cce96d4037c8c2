-- live_page reads the next part of the batch that a relay has claimed: up to _rows stock rows, each
-- as it is now, and up to _holds holds that have changed, with their versions. Each stock row and
-- each hold is in a batch once. The part begins behind a stock row, by its class, its product and
-- its warehouse, and behind a hold. It has no rows when the relay has lost the lease.
--
-- The class of a stock row is 0 when a hold of it was made, resolved or died, and 1 when only its
-- total moved: shoppers wait for the first, and a delivery may move all rows of the shop at once.
-- total is null when the product is archived or the warehouse closed.
--
-- age is for how long the change has been waiting, in seconds: since it happened, but not since
-- before the last look.
--
-- The statement's snapshot is younger than the tick that ends the batch. So a reader who keeps the
-- message with the highest asOf has the state that the tick sees, or a younger one. What comes
-- later is in a later batch.
CREATE OR REPLACE FUNCTION live_page(
    _lease uuid, _batch bigint, _class integer, _product uuid, _warehouse uuid, _hold uuid,
    _rows integer, _holds integer)
RETURNS TABLE (class integer, product_id uuid, warehouse_id uuid, total integer, reserved bigint,
               age double precision, hold_id uuid, version integer)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _live record;
BEGIN
    SELECT * INTO _live FROM live l
    WHERE l.lease = _lease AND l.batch = _batch AND l.leased_until > clock_timestamp();
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF _class < 2 THEN
        RETURN QUERY
        SELECT s.class, s.product_id, s.warehouse_id, s.total, s.reserved, s.age,
               NULL::uuid, NULL::integer
        FROM live_rows(_live.done, _batch, _live.looked, _live.seen, _class, _product, _warehouse,
                       _rows) s;
    END IF;
    RETURN QUERY
    SELECT NULL::integer, NULL::uuid, NULL::uuid, NULL::integer, NULL::bigint, h.age, h.hold_id,
           h.version
    FROM live_holds(_live.done, _batch, _live.looked, _hold, _holds) h;
END $$;

-- live_rows is the part of live_page with the stock rows: those of a batch, and those whose holds
-- died by themselves between two times. An expiry that a sweep has written is news only if the hold
-- died since the last look: otherwise its units were told to be available before. An extension or a
-- payment changes no stock row.
--
-- The planner can't know how few rows a batch has, and would rather read whole tables than look up
-- many rows one by one. OFFSET 0 and LIMIT 1 keep it from that.
CREATE OR REPLACE FUNCTION live_rows(
    _done bigint, _batch bigint, _from timestamptz, _to timestamptz,
    _class integer, _product uuid, _warehouse uuid, _limit integer)
RETURNS TABLE (class integer, product_id uuid, warehouse_id uuid, total integer, reserved bigint,
               age double precision)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _prev    pg_snapshot := tick_snapshot(_done);
    _this    pg_snapshot := tick_snapshot(_batch);
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
BEGIN
    RETURN QUERY
    WITH fresh AS MATERIALIZED ( -- by the index of the ids
        SELECT l.hold_id, min(l.at) AS at FROM ledger l
        WHERE is_new(l.xid, _running, _prev, _this)
          AND (l.kind IN ('h', 'c', 'r') OR l.kind = 'e' AND l.at > _from)
        GROUP BY l.hold_id
    ), holds AS MATERIALIZED (
        SELECT f.at, r.* FROM fresh f
        CROSS JOIN LATERAL (SELECT r.id, r.product_id, r.warehouse_id FROM reservations r
                            WHERE r.id = f.hold_id OFFSET 0) r
        UNION ALL
        SELECT r.expires_at, r.id, r.product_id, r.warehouse_id FROM reservations r
        WHERE r.status = 'PENDING' AND r.expires_at > _from AND r.expires_at <= _to
    ), changed AS (
        SELECT 0 AS class, h.product_id, h.warehouse_id, h.at FROM holds h
        WHERE h.product_id IS NOT NULL
        UNION ALL
        SELECT 0, i.product_id, i.warehouse_id, h.at FROM holds h
        CROSS JOIN LATERAL (SELECT i.product_id, i.warehouse_id FROM reservation_items i
                            WHERE i.reservation_id = h.id OFFSET 0) i
        WHERE h.product_id IS NULL
        UNION ALL
        SELECT 1, m.product_id, m.warehouse_id, m.at FROM stock_movements m
        WHERE is_new(m.xid, _running, _prev, _this)
    ), page AS MATERIALIZED (
        SELECT min(c.class) AS class, c.product_id, c.warehouse_id, min(c.at) AS at FROM changed c
        GROUP BY c.product_id, c.warehouse_id
        HAVING (min(c.class), c.product_id, c.warehouse_id) > (_class, _product, _warehouse)
        ORDER BY 1, 2, 3 LIMIT _limit
    )
    SELECT p.class, p.product_id, p.warehouse_id, s.total, s.reserved,
           extract(epoch FROM clock_timestamp() - greatest(p.at, _from))::double precision
    FROM page p
    LEFT JOIN LATERAL (
        SELECT i.total,
               i.reserved - CASE WHEN i.reserved > 0
                                 THEN dead_units(i.product_id, i.warehouse_id, i.first_end, NULL)
                                 ELSE 0 END AS reserved
        FROM inventory i
        WHERE i.product_id = p.product_id AND i.warehouse_id = p.warehouse_id AND i.open
        ORDER BY i.epoch DESC LIMIT 1
    ) s ON true
    ORDER BY p.class, p.product_id, p.warehouse_id;
END $$;

-- live_holds is the part of live_page with the holds. A hold that was just made has no reader yet,
-- because nobody knew its id. One that died by itself is in no batch: its reader knows the end.
CREATE OR REPLACE FUNCTION live_holds(
    _done bigint, _batch bigint, _from timestamptz, _hold uuid, _limit integer)
RETURNS TABLE (hold_id uuid, version integer, age double precision)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _prev    pg_snapshot := tick_snapshot(_done);
    _this    pg_snapshot := tick_snapshot(_batch);
    _running xid8[] := ARRAY(SELECT pg_snapshot_xip(_prev));
BEGIN
    RETURN QUERY
    SELECT l.hold_id, max(l.version),
           extract(epoch FROM clock_timestamp()
                              - greatest(min(l.at), _from))::double precision
    FROM ledger l
    WHERE is_new(l.xid, _running, _prev, _this) AND l.kind <> 'h' AND l.hold_id > _hold
    GROUP BY l.hold_id
    ORDER BY l.hold_id LIMIT _limit;
END $$;
