-- count_holds counts the holds that the lists of holds show for the same filters, in which a null
-- stands for any. It counts up to _most holds where an index or the table has just these holds.
-- Otherwise it looks at _scan holds of each kind, as the lists do. whole says that it saw them all.
CREATE OR REPLACE FUNCTION count_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _owner text, _reference text,
    _most integer, _scan integer, OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    IF _owner IS NOT NULL OR _reference IS NOT NULL THEN
        SELECT * INTO n, whole
        FROM count_holds_of(_owner, _reference, _status, _product, _warehouse, _now, _scan);
    ELSIF _product IS NULL AND _warehouse IS NULL THEN
        SELECT * INTO n, whole FROM count_holds_in(_status, _now, _most);
    ELSE
        SELECT sum(c.n), bool_and(c.whole) INTO n, whole
        FROM (SELECT * FROM count_live_holds(_product, _warehouse, _now, _most) l
              WHERE coalesce(_status, 'PENDING') = 'PENDING'
              UNION ALL
              SELECT * FROM count_other_holds(_status, _product, _warehouse, _now, _scan) o
              WHERE _status IS DISTINCT FROM 'PENDING') c;
    END IF;
    n := least(n, _most);
END $$;

-- count_holds_of is the part of count_holds with the holds of an owner or a reference.
CREATE OR REPLACE FUNCTION count_holds_of(
    _owner text, _reference text, _status reservation_status, _product uuid, _warehouse uuid,
    _now timestamptz, _scan integer, OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT count(*) FILTER (WHERE p.n <= _scan AND (
               SELECT is_listed(r, hold_is_dead(r, _now), _status, _product, _warehouse, NULL)
               FROM reservations r WHERE r.id = p.hold_id)),
           count(*) <= _scan
    INTO n, whole
    FROM (
        SELECT l.hold_id, l.owner, row_number() OVER (ORDER BY l.hold_id DESC) AS n
        FROM (
            (SELECT o.hold_id, o.owner FROM hold_parties o
             WHERE o.reference = _reference ORDER BY o.hold_id DESC LIMIT _scan + 1)
            UNION ALL
            (SELECT o.hold_id, o.owner FROM hold_parties o
             WHERE _reference IS NULL AND o.owner = _owner
             ORDER BY o.hold_id DESC LIMIT _scan + 1)
        ) l
    ) p
    WHERE _owner IS NULL OR p.owner = _owner;
END $$;

-- count_holds_in is the part of count_holds with all holds of a status.
CREATE OR REPLACE FUNCTION count_holds_in(
    _status reservation_status, _now timestamptz, _most integer, OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _status IS NULL THEN
        SELECT count(*), count(*) <= _most INTO n, whole
        FROM (SELECT FROM reservations r LIMIT _most + 1) l;
    ELSIF _status = 'PENDING' OR _status = 'EXPIRED' THEN
        SELECT count(*) FILTER (WHERE l.dead = (_status = 'EXPIRED')), count(*) <= _most
        INTO n, whole
        FROM (SELECT r.expires_at <= _now OR r.product_id IS NULL
                     AND (SELECT count(*) > 0 FROM reservation_items i -- as has_lost_line does
                          WHERE i.reservation_id = r.id AND NOT i.counted) AS dead
              FROM reservations r WHERE r.status = 'PENDING' LIMIT _most + 1) l;
    ELSE
        n := 0;
        whole := true;
    END IF;
    IF _status <> 'PENDING' THEN
        SELECT n + count(*), whole AND n + count(*) <= _most INTO n, whole
        FROM (SELECT FROM reservations r
              WHERE r.status = _status AND r.status <> 'PENDING' LIMIT _most + 1) l;
    END IF;
END $$;

-- count_live_holds is the part of count_holds with the live holds of a product, in a warehouse. It
-- reads the indexes of their stock rows, and for a warehouse those of all stock rows.
CREATE OR REPLACE FUNCTION count_live_holds(
    _product uuid, _warehouse uuid, _now timestamptz, _most integer,
    OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    _last  CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
BEGIN
    WITH single AS (
        SELECT r.warehouse_id, r.expires_at FROM reservations r
        WHERE r.status = 'PENDING' AND r.product_id IS NOT NULL
          AND r.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _last)
        LIMIT _most + 1
    ), lines AS (
        SELECT l.warehouse_id, l.expires_at, l.reservation_id FROM reservation_items l
        WHERE l.counted
          AND l.product_id BETWEEN coalesce(_product, _least) AND coalesce(_product, _last)
        LIMIT _most + 1
    ), carts AS (
        SELECT DISTINCT l.reservation_id AS id FROM lines l
        WHERE l.warehouse_id = coalesce(_warehouse, l.warehouse_id) AND l.expires_at > _now
    )
    SELECT (SELECT count(*) FROM single s
            WHERE s.warehouse_id = coalesce(_warehouse, s.warehouse_id) AND s.expires_at > _now)
           + (SELECT count(*) FROM carts c WHERE has_whole_cart(c.id)),
           (SELECT count(*) FROM single) <= _most AND (SELECT count(*) FROM lines) <= _most
    INTO n, whole;
END $$;

-- count_other_holds is the part of count_holds with the resolved and the dead holds of a product,
-- in a warehouse. No index has them, so it looks at the newest _scan holds of each status. It
-- leaves out a cart that lost a line before its end (half_carts).
CREATE OR REPLACE FUNCTION count_other_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _now timestamptz, _scan integer,
    OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT count(*) FILTER (WHERE
               is_listed(l.r, (l.r).status = 'PENDING', _status, _product, _warehouse, NULL)),
           coalesce(max(l.k), 0) <= _scan
    INTO n, whole
    FROM (
        SELECT p.r, row_number() OVER (ORDER BY p.ends) AS k
        FROM (SELECT r, r.expires_at AS ends FROM reservations r
              WHERE coalesce(_status, 'EXPIRED') = 'EXPIRED' AND r.status = 'PENDING'
                AND r.expires_at <= _now
              ORDER BY r.expires_at LIMIT _scan + 1) p
        UNION ALL
        SELECT h.r, h.k
        FROM unnest(CASE WHEN _status IS NULL
                         THEN '{CONFIRMED,RELEASED,EXPIRED}'::reservation_status[]
                         ELSE ARRAY[_status] END) s (status)
        CROSS JOIN LATERAL (
            SELECT r, row_number() OVER (ORDER BY r.created_at DESC, r.id DESC) AS k
            FROM reservations r
            WHERE r.status = s.status AND r.status <> 'PENDING'
            ORDER BY r.created_at DESC, r.id DESC LIMIT _scan + 1
        ) h
    ) l;
END $$;
