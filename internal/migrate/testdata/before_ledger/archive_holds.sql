-- archive_holds moves up to _limit holds that were resolved at least _retention ago into the
-- archive, with their lines: the oldest first, from those resolved at _from on. It locks no stock
-- row and no live hold, and skips a hold that another caller has locked. Each call is one
-- transaction, so a hold lies in one place at any time. A call that is lost in a crash is done
-- again, so it doesn't wait for the disk.
--
-- It answers how many holds it moved, when the last one was resolved, and whether there may be
-- more. A cart has up to a hundred lines: it moves up to _limit lines too.
--
-- The function has its owner's rights, because the service may not delete a hold. The triggers of
-- 0008_archive.sql refuse each deletion of a row that isn't in the archive. Returns stay where they
-- are. A later table with rows of a hold that are as many as the holds belongs between the lines
-- and the holds below.
CREATE OR REPLACE FUNCTION archive_holds(
    _retention interval, _from timestamptz, _limit integer,
    OUT archived bigint, OUT reached timestamptz, OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _before timestamptz := archive_before(_retention);
    _least  timestamptz := greatest(_from, end_of_detached_months());
    _ids    uuid[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    archived := 0;
    more := false;
    IF NOT pg_try_advisory_xact_lock(8, 0) THEN
        RETURN; -- another sweep is archiving
    END IF;
    WITH due AS MATERIALIZED (
        SELECT r.id, r.updated_at, r.product_id FROM reservations r
        WHERE r.status <> 'PENDING' AND r.updated_at >= _least AND r.updated_at < _before
        ORDER BY r.updated_at LIMIT _limit FOR UPDATE SKIP LOCKED
    ), weighed AS ( -- with the running sum of lines
        SELECT d.id, d.updated_at, sum(
                   CASE WHEN d.product_id IS NULL
                        THEN (SELECT count(*) FROM reservation_items l
                              WHERE l.reservation_id = d.id)
                        ELSE 1 END
               ) OVER (ORDER BY d.updated_at, d.id) AS lines
        FROM due d
    )
    SELECT array_agg(w.id), max(w.updated_at), count(*),
           count(*) < (SELECT count(*) FROM due) OR count(*) = _limit
    INTO _ids, reached, archived, more
    FROM weighed w WHERE w.lines <= _limit;
    IF archived = 0 THEN
        RETURN;
    END IF;
    PERFORM make_archive_month(m.month)
    FROM (SELECT DISTINCT month_of(r.updated_at) AS month FROM reservations r
          WHERE r.id = ANY (_ids)) m;

    INSERT INTO archived_reservations SELECT r.* FROM reservations r WHERE r.id = ANY (_ids);
    INSERT INTO archived_items
    SELECT r.updated_at, l.* FROM reservations r JOIN reservation_items l ON l.reservation_id = r.id
    WHERE r.id = ANY (_ids);
    PERFORM count_archived_sales(_ids);
    DELETE FROM reservation_items l WHERE l.reservation_id = ANY (_ids);
    DELETE FROM reservations r WHERE r.id = ANY (_ids);
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

-- make_archive_month makes the partitions of a month, unless it has them. It makes each as a table
-- of its own and attaches it: PARTITION OF would lock the archive against readers.
CREATE OR REPLACE FUNCTION make_archive_month(_month timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _table text;
BEGIN
    IF EXISTS (SELECT FROM archived_months m WHERE m.month = _month) THEN
        RETURN;
    END IF;
    FOREACH _table IN ARRAY archived_tables() LOOP
        CONTINUE WHEN to_regclass(archive_partition(_table, _month)) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)',
                       archive_partition(_table, _month), _table);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       _table, archive_partition(_table, _month), _month, next_month(_month));
    END LOOP;
    INSERT INTO archived_months (month) VALUES (_month);
END $$;

-- archived_tables lists the tables that have partitions.
CREATE OR REPLACE FUNCTION archived_tables() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['archived_reservations', 'archived_items', 'archived_movements']
$$;
