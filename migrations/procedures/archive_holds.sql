-- archive_holds moves holds that were resolved at least _retention ago into the archive, with their
-- lines and their rows of the ledger. It looks at up to _limit of them, those that were made first,
-- from those made at _from on. It locks no stock row and no live hold, and skips a hold that
-- another caller has locked. Each call is one transaction, so a hold lies in one place at any time.
-- A call that is lost in a crash is done again, so it doesn't wait for the disk.
--
-- It answers how many holds it moved, from when on the next call is to look, and whether there may
-- be more. A cart has up to a hundred lines: it moves up to _limit lines too. Few holds have more
-- than four rows of the ledger: it moves up to four times _limit of these. A hold that has more
-- moves alone.
--
-- A hold stays until every sink has published its rows, and while an event of it is parked.
-- Younger rows are published later, so when none of the holds may move, there is no use in a look
-- at more. An event is parked before its sink's place passes it, and this looks at the places
-- first.
--
-- The function has its owner's rights, because the service may not delete a hold. The triggers of
-- 0008_archive.sql and 0010_ledger.sql refuse each deletion of a row that isn't in the archive.
-- Returns stay where they are, and so do the payments, the replacements and the parties of a hold:
-- what became of a payment is final for ever, a payment may come for an archived hold, and the
-- limit of an owner counts what was bought long ago (I12). A later table with rows of a hold that
-- are as many as the holds belongs between the ledger and the holds below.
CREATE OR REPLACE FUNCTION archive_holds(
    _retention interval, _from timestamptz, _limit integer,
    OUT archived bigint, OUT reached timestamptz, OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _before    timestamptz := archive_before(_retention);
    _least     timestamptz := end_of_detached_months();
    _published pg_snapshot := published_snapshot();
    _ids       uuid[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    archived := 0;
    more := false;
    IF NOT pg_try_advisory_xact_lock(8, 0) THEN
        RETURN; -- another sweep is archiving
    END IF;
    WITH due AS MATERIALIZED (
        SELECT * FROM archivable_holds(greatest(_from, _least - longest_hold()), _least, _before,
                                       _limit)
    ), free AS MATERIALIZED (
        SELECT r.id, r.created_at, r.product_id FROM reservations r
        WHERE r.id IN (SELECT d.id FROM due d)
          AND NOT EXISTS (SELECT FROM ledger l
                          WHERE l.hold_id = r.id AND NOT pg_visible_in_snapshot(l.xid, _published))
          AND NOT EXISTS (SELECT FROM parked p WHERE p.subject = r.id::text)
        FOR UPDATE SKIP LOCKED
    ), weighed AS ( -- by the running sums of lines and of rows of the ledger
        SELECT f.id, f.created_at,
               row_number() OVER w = 1
               OR sum(CASE WHEN f.product_id IS NULL
                           THEN (SELECT count(*) FROM reservation_items l
                                 WHERE l.reservation_id = f.id)
                           ELSE 1 END) OVER w <= _limit
                  AND sum((SELECT count(*) FROM ledger l WHERE l.hold_id = f.id)) OVER w
                      <= 4 * _limit::bigint AS fits
        FROM free f WINDOW w AS (ORDER BY f.created_at, f.id)
    )
    SELECT array_agg(w.id) FILTER (WHERE w.fits),
           coalesce(min(w.created_at) FILTER (WHERE NOT w.fits),
                    (SELECT max(d.created_at) FROM due d)),
           count(*) FILTER (WHERE w.fits),
           count(*) FILTER (WHERE NOT w.fits) > 0 OR (SELECT count(*) = _limit FROM due)
    INTO _ids, reached, archived, more
    FROM weighed w;
    IF archived = 0 THEN
        more := false;
        RETURN;
    END IF;
    PERFORM make_archive_month(m.month)
    FROM (SELECT DISTINCT month_of(r.updated_at) AS month FROM reservations r
          WHERE r.id = ANY (_ids)) m;

    INSERT INTO archived_reservations SELECT r.* FROM reservations r WHERE r.id = ANY (_ids);
    INSERT INTO archived_items
    SELECT r.updated_at, l.* FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
    WHERE r.id = ANY (_ids);
    INSERT INTO archived_ledger
    SELECT r.updated_at, l.* FROM reservations r JOIN ledger l ON l.hold_id = r.id
    WHERE r.id = ANY (_ids);
    PERFORM count_archived_sales(_ids);
    PERFORM raise_archived(l.xid)
    FROM (SELECT l.xid FROM ledger l WHERE l.hold_id = ANY (_ids) ORDER BY l.xid DESC LIMIT 1) l;
    DELETE FROM reservation_items l WHERE l.reservation_id = ANY (_ids);
    DELETE FROM ledger l WHERE l.hold_id = ANY (_ids);
    DELETE FROM reservations r WHERE r.id = ANY (_ids);
END $$;

-- archivable_holds answers the first _limit holds that were made at _from or later, and resolved at
-- _least or later and before _before. No index has the resolved holds by the time of their
-- resolution. A hold is made before it is resolved, and at most longest_hold() before. So the look
-- passes by few holds that it doesn't answer.
CREATE OR REPLACE FUNCTION archivable_holds(
    _from timestamptz, _least timestamptz, _before timestamptz, _limit integer)
RETURNS TABLE (id uuid, created_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT a.id, a.created_at
    FROM (
        (SELECT r.id, r.created_at FROM reservations r
         WHERE r.status = 'CONFIRMED' AND r.created_at >= _from AND r.created_at < _before
           AND r.updated_at >= _least AND r.updated_at < _before
         ORDER BY r.created_at, r.id LIMIT _limit)
        UNION ALL
        (SELECT r.id, r.created_at FROM reservations r
         WHERE r.status = 'RELEASED' AND r.created_at >= _from AND r.created_at < _before
           AND r.updated_at >= _least AND r.updated_at < _before
         ORDER BY r.created_at, r.id LIMIT _limit)
        UNION ALL
        (SELECT r.id, r.created_at FROM reservations r
         WHERE r.status = 'EXPIRED' AND r.created_at >= _from AND r.created_at < _before
           AND r.updated_at >= _least AND r.updated_at < _before
         ORDER BY r.created_at, r.id LIMIT _limit)
    ) a
    ORDER BY a.created_at, a.id LIMIT _limit;
END $$;

-- published_snapshot sees the transactions whose events every sink has published: those that the
-- tick sees up to which all have come. Without a sink it is null, and everything may be archived.
CREATE OR REPLACE FUNCTION published_snapshot() RETURNS pg_snapshot LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce((SELECT t.snapshot FROM ticks t WHERE t.n <= s.done
                             ORDER BY t.n DESC LIMIT 1), '1:1:')
            FROM (SELECT min(k.done) AS done FROM sinks k) s
            WHERE s.done IS NOT NULL);
END $$;

-- raise_archived records that a row of the transaction _xid is archived.
CREATE OR REPLACE FUNCTION raise_archived(_xid xid8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stream SET archived = _xid WHERE archived < _xid;
END $$;

-- count_archived_sales adds the units of the CONFIRMED ones among the holds to archived_stock.
CREATE OR REPLACE FUNCTION count_archived_sales(_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO archived_stock AS a (product_id, warehouse_id, sold)
    SELECT s.product_id, s.warehouse_id, sum(s.quantity)
    FROM (SELECT r.product_id, r.warehouse_id, r.quantity FROM reservations r
          WHERE r.id = ANY (_ids) AND r.status = 'CONFIRMED' AND r.product_id IS NOT NULL
          UNION ALL
          SELECT l.product_id, l.warehouse_id, l.quantity
          FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
          WHERE r.id = ANY (_ids) AND r.status = 'CONFIRMED') s
    GROUP BY s.product_id, s.warehouse_id
    ON CONFLICT (product_id, warehouse_id) DO UPDATE SET sold = a.sold + excluded.sold;
END $$;

-- archive_before is the time before which rows may be archived. It refuses a shorter retention than
-- 30 days: any role may call the routines of this file.
CREATE OR REPLACE FUNCTION archive_before(_retention interval) RETURNS timestamptz
LANGUAGE plpgsql AS $$
BEGIN
    IF _retention >= interval '30 days' THEN
        RETURN clock_timestamp() - _retention;
    END IF;
    RAISE EXCEPTION 'the retention is %, and must be at least 30 days', _retention
        USING ERRCODE = 'check_violation';
END $$;

-- month_of is the beginning of a time's month, in UTC.
CREATE OR REPLACE FUNCTION month_of(_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT date_trunc('month', _at, 'UTC')
$$;

-- next_month is the beginning of the month after the one that begins at _month.
CREATE OR REPLACE FUNCTION next_month(_month timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT (_month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'
$$;

-- end_of_detached_months is the time from which on rows may be archived. A month that was detached
-- gets no more rows.
CREATE OR REPLACE FUNCTION end_of_detached_months() RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT next_month(max(m.month)) FROM archived_months m WHERE m.detached),
                    '-infinity');
END $$;

-- archive_partition is the name of a table's partition of the month that begins at _month.
CREATE OR REPLACE FUNCTION archive_partition(_table text, _month timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT _table || to_char(_month AT TIME ZONE 'UTC', '_YYYY_MM')
$$;

-- make_archive_month makes the partitions of a month, unless it has them. A month from before a
-- table of the archive lacks that table's. It makes each as a table of its own and attaches it:
-- PARTITION OF would lock the archive against readers.
CREATE OR REPLACE FUNCTION make_archive_month(_month timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _table text;
BEGIN
    FOREACH _table IN ARRAY archived_tables() LOOP
        CONTINUE WHEN to_regclass(archive_partition(_table, _month)) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)',
                       archive_partition(_table, _month), _table);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       _table, archive_partition(_table, _month), _month, next_month(_month));
    END LOOP;
    INSERT INTO archived_months (month) VALUES (_month) ON CONFLICT (month) DO NOTHING;
END $$;

-- archived_tables lists the tables that have partitions.
CREATE OR REPLACE FUNCTION archived_tables() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['archived_reservations', 'archived_items', 'archived_movements',
                 'archived_ledger']
$$;
