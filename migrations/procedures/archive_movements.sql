-- archive_movements moves movements that are at least _retention old into the archive. Each must be
-- behind its stock row's closing, so the newest movement of a row always stays. So do a row's
-- OPENING, each movement that names a document, and what a sink hasn't published yet. It looks at
-- up to _limit movements of the next _rows stock rows, in the order of their keys, and begins again
-- after the last one.
--
-- It answers how many movements it moved, and whether it had _limit to look at. It locks no stock
-- row. It has its owner's rights, and each call is one transaction, as in archive_holds.
CREATE OR REPLACE FUNCTION archive_movements(
    _retention interval, _rows integer, _limit integer, OUT archived bigint, OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _before   timestamptz := archive_before(_retention);
    _position record;
    _row      record;
    _step     record;
    _seen     integer := 0; -- stock rows
    _looked   integer := 0; -- movements
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    archived := 0;
    more := false;
    IF NOT pg_try_advisory_xact_lock(8, 0) THEN
        RETURN; -- another sweep is archiving
    END IF;
    SELECT * INTO _position FROM archive_position p WHERE p.only_row;
    FOR _row IN
        SELECT c.product_id, c.warehouse_id, c.seq AS closed, coalesce(a.seq, 0) AS archived,
               (SELECT m.at FROM stock_movements m
                WHERE m.product_id = c.product_id AND m.warehouse_id = c.warehouse_id
                  AND m.seq > coalesce(a.seq, 0) AND m.seq < c.seq
                ORDER BY m.seq LIMIT 1) < _before AS due
        FROM stock_closings c LEFT JOIN archived_stock a USING (product_id, warehouse_id)
        WHERE (c.product_id, c.warehouse_id) >
              (coalesce(_position.product_id, '00000000-0000-0000-0000-000000000000'),
               coalesce(_position.warehouse_id, '00000000-0000-0000-0000-000000000000'))
        ORDER BY c.product_id, c.warehouse_id LIMIT _rows
    LOOP
        _seen := _seen + 1;
        IF _row.due THEN
            SELECT * INTO _step FROM archive_movements_of(
                _row.product_id, _row.warehouse_id, _row.archived, _row.closed, _before,
                _limit - _looked);
            archived := archived + _step.moved;
            _looked := _looked + _step.looked;
            more := _looked >= _limit;
            EXIT WHEN more; -- the next call goes on with this stock row
        END IF;
        _position.product_id := _row.product_id;
        _position.warehouse_id := _row.warehouse_id;
    END LOOP;
    IF NOT more AND _seen < _rows THEN
        _position.product_id := '00000000-0000-0000-0000-000000000000';
        _position.warehouse_id := _position.product_id;
    END IF;
    INSERT INTO archive_position AS p (product_id, warehouse_id)
    SELECT _position.product_id, _position.warehouse_id WHERE _position.product_id IS NOT NULL
    ON CONFLICT (only_row) DO UPDATE
    SET product_id = excluded.product_id, warehouse_id = excluded.warehouse_id;
END $$;

-- archive_movements_of moves the movements of one stock row that follow movement _archived and are
-- due: those up to the first one that isn't older than _before, that a sink hasn't published, or
-- that sold a hold which archive_holds hasn't moved yet. It looks at up to _limit of them, and at
-- those before _closed. None is due while an event of the stock row is parked, as in archive_holds.
--
-- A movement of a detached month stays in stock_movements. So does a sale whose hold stays.
CREATE OR REPLACE FUNCTION archive_movements_of(
    _product uuid, _warehouse uuid, _archived bigint, _closed bigint, _before timestamptz,
    _limit integer, OUT moved bigint, OUT looked integer)
LANGUAGE plpgsql AS $$
DECLARE
    _least     timestamptz := end_of_detached_months();
    _published pg_snapshot := published_snapshot();
    _last      bigint[]; -- the number of the last movement that is due, and the total after it
    _seqs      bigint[]; -- of those that move
    _delta     bigint;   -- of those, without sales
BEGIN
    moved := 0;
    looked := 0;
    IF EXISTS (SELECT FROM parked p WHERE p.subject = _product || '/' || _warehouse) THEN
        RETURN;
    END IF;
    SELECT count(*), max(ARRAY[d.seq, d.total_after]),
           array_agg(d.seq) FILTER (WHERE d.seq > 1 AND d.source IS NULL AND d.sold IS NULL
                                      AND d.at >= _least)
    INTO looked, _last, _seqs
    FROM (SELECT m.seq, m.total_after, m.source, m.at, h.sold,
                 bool_and(m.at < _before AND coalesce(h.sold < _least, true)
                          AND coalesce(pg_visible_in_snapshot(m.xid, _published), true))
                     OVER (ORDER BY m.seq) AS due
          FROM stock_movements m
          LEFT JOIN LATERAL (SELECT r.updated_at AS sold FROM reservations r
                             WHERE r.id = m.reservation_id LIMIT 1) h ON true
          WHERE m.product_id = _product AND m.warehouse_id = _warehouse
            AND m.seq > _archived AND m.seq < _closed
          ORDER BY m.seq LIMIT _limit) d
    WHERE d.due;
    IF looked = 0 THEN
        RETURN;
    END IF;
    PERFORM make_archive_month(t.month)
    FROM (SELECT DISTINCT month_of(m.at) AS month FROM stock_movements m
          WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = ANY (_seqs)) t;

    WITH moving AS (
        INSERT INTO archived_movements
        SELECT m.* FROM stock_movements m
        WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = ANY (_seqs)
        RETURNING delta, kind
    )
    SELECT count(*), coalesce(sum(n.delta) FILTER (WHERE n.kind <> 'SALE'), 0)
    INTO moved, _delta FROM moving n;
    PERFORM raise_archived(m.xid)
    FROM (SELECT m.xid FROM stock_movements m
          WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = ANY (_seqs)
          ORDER BY m.xid DESC LIMIT 1) m;
    DELETE FROM stock_movements m
    WHERE m.product_id = _product AND m.warehouse_id = _warehouse AND m.seq = ANY (_seqs);
    INSERT INTO archived_stock AS a (product_id, warehouse_id, seq, total, moved)
    VALUES (_product, _warehouse, _last[1], _last[2], _delta)
    ON CONFLICT (product_id, warehouse_id) DO UPDATE
    SET seq = excluded.seq, total = excluded.total, moved = a.moved + excluded.moved;
END $$;
