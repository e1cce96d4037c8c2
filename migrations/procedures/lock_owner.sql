-- These routines keep an owner's units of a limited product within the limit (I12).
--
-- There is no counter that could drift: the units of an owner are the sum of the live and confirmed
-- ones of the owner's holds, less what was returned. The sum is right until the commit, because
-- whoever adds to it has the lock of (owner, product). These locks are advisory locks with one
-- number of 64 bits, which no other use of this database has. Owners with the same number wait for
-- one another, and nothing else.
--
-- A product that gets a limit where it had none is another matter. Its stock rows learn the limit
-- one after another (follow_catalog.sql). A hold of a row that doesn't know it yet takes no owner's
-- lock, so a sum that was made before it may be too small. So whoever adds up shares the product's
-- lock until the commit, and the catalog's change takes it once when all rows know the limit
-- (await_limited_reserves). What is summed after that sees the last such hold.

-- limits_of_lines reads the limits of each line's stock row, without a lock. The caller's guard
-- compares them with those of the row that it has locked.
CREATE OR REPLACE FUNCTION limits_of_lines(
    _products uuid[], _warehouses uuid[], OUT per_hold integer[], OUT per_owner integer[])
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT array_agg(s.max_per_hold ORDER BY l.n), array_agg(s.max_per_owner ORDER BY l.n)
    INTO per_hold, per_owner
    FROM unnest(_products, _warehouses) WITH ORDINALITY l (product_id, warehouse_id, n)
    CROSS JOIN LATERAL (
        SELECT i.max_per_hold, i.max_per_owner FROM inventory i
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
        ORDER BY i.epoch DESC LIMIT 1
    ) s;
END $$;

-- lock_owner takes the locks of an owner for the limited ones among the products, and then shares
-- those of these products, each in the order of the numbers. So of one owner's callers only one at
-- a time keeps a change of the catalog waiting. Then it locks the hold _id, which may be null, and
-- those of the owner's holds that are dead, by their ids: one of them may have a confirm that came
-- in time and is about to commit. Without an owner or a limit it locks nothing.
CREATE OR REPLACE FUNCTION lock_owner(
    _owner text, _products uuid[], _per_owner integer[], _id uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _number bigint;
    _now    timestamptz;
BEGIN
    FOR _number IN
        SELECT DISTINCT hashtextextended(l.product_id || _owner, 0) AS number
        FROM unnest(_products, _per_owner) l (product_id, most)
        WHERE l.most IS NOT NULL AND _owner IS NOT NULL ORDER BY number
    LOOP
        PERFORM pg_advisory_xact_lock(_number);
    END LOOP;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR _number IN
        SELECT DISTINCT limit_number(l.product_id) AS n
        FROM unnest(_products, _per_owner) l (product_id, most)
        WHERE l.most IS NOT NULL ORDER BY n
    LOOP
        PERFORM pg_advisory_xact_lock_shared(11, _number::integer);
    END LOOP;
    _now := clock_timestamp(); -- after the locks
    PERFORM FROM reservations r
    WHERE r.id IN (SELECT p.hold_id FROM hold_parties p WHERE p.owner = _owner
                   UNION ALL SELECT _id)
      AND (r.id = _id OR r.status = 'PENDING' AND r.expires_at <= _now)
    ORDER BY r.id FOR NO KEY UPDATE;
END $$;

-- await_limited_reserves waits, for one limited product after another, until the transactions that
-- have summed an owner's units of it have ended. While it waits for them, at most for lock_timeout,
-- each new reserve of that product for an owner waits behind it.
CREATE OR REPLACE PROCEDURE await_limited_reserves(_products uuid[]) LANGUAGE plpgsql AS $$
DECLARE
    _number integer;
BEGIN
    FOR _number IN
        SELECT DISTINCT limit_number(p.id) FROM products p
        WHERE p.id = ANY (_products) AND p.max_per_owner IS NOT NULL
    LOOP
        PERFORM pg_advisory_xact_lock(11, _number);
        COMMIT;
    END LOOP;
END $$;

-- limit_number is the number of a product's lock. The planner replaces the call by the expression.
CREATE OR REPLACE FUNCTION limit_number(_product uuid) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtext(_product::text)
$$;

-- owner_units is how many units of each product an owner has in live and confirmed holds, but for
-- the hold _except, less what was returned. A product without such a hold has no row. The caller
-- has the locks of lock_owner.
--
-- All products are summed by one look at the owner's holds, of which there may be very many. A hold
-- that is RELEASED or EXPIRED costs a look by its id and no more.
--
-- A dead hold that another caller has locked counts too, because that caller may be about to
-- confirm it. The sum is then unsure. Such a hold was alive when lock_owner looked: otherwise this
-- transaction would have it locked. A wait for it now would break the lock order. So a refusal by
-- an unsure sum is no decision: its caller begins again, and lock_owner waits for the hold.
CREATE OR REPLACE FUNCTION owner_units(_owner text, _products uuid[], _except uuid)
RETURNS TABLE (product_id uuid, units bigint, unsure boolean) LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    -- OFFSET 0 lets the planner look for each hold by its id, however large the tables are.
    RETURN QUERY
    WITH mine AS MATERIALIZED (
        SELECT p.hold_id AS id, h.id IS NULL AS is_archived, h.product_id, h.warehouse_id,
               h.quantity, h.is_dead
        FROM hold_parties p
        LEFT JOIN LATERAL (
            SELECT r.id, r.product_id, r.warehouse_id, r.quantity,
                   r.status = 'PENDING' AND r.expires_at <= _now AS is_dead,
                   CASE r.status WHEN 'CONFIRMED' THEN true
                                 WHEN 'PENDING' THEN NOT has_lost_line(r) END AS counts
            FROM reservations r WHERE r.id = p.hold_id OFFSET 0
        ) h ON true
        WHERE p.owner = _owner AND p.hold_id IS DISTINCT FROM _except
          AND (h.id IS NULL OR h.counts)
    ), dead AS MATERIALIZED ( -- and locked: no one confirms them any more
        SELECT r.id FROM reservations r
        WHERE r.id = ANY (ARRAY(SELECT m.id FROM mine m WHERE m.is_dead))
          AND r.status = 'PENDING' AND r.expires_at <= _now
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ), live AS MATERIALIZED (
        SELECT m.* FROM mine m
        WHERE NOT m.is_archived AND NOT (m.is_dead AND m.id IN (SELECT d.id FROM dead d))
    ), lines AS (
        SELECT m.id, m.is_dead, m.product_id, m.warehouse_id, m.quantity FROM live m
        WHERE m.product_id IS NOT NULL
        UNION ALL
        SELECT m.id, m.is_dead, l.product_id, l.warehouse_id, l.quantity FROM live m
        CROSS JOIN LATERAL (
            SELECT * FROM reservation_items i WHERE i.reservation_id = m.id OFFSET 0
        ) l
        WHERE m.product_id IS NULL
        UNION ALL
        SELECT m.id, false, l.product_id, l.warehouse_id, l.quantity FROM mine m
        CROSS JOIN LATERAL (
            SELECT * FROM archived_reservations r
            WHERE r.id = m.id AND r.status = 'CONFIRMED' OFFSET 0
        ) a
        CROSS JOIN LATERAL (
            SELECT a.product_id, a.warehouse_id, a.quantity WHERE a.product_id IS NOT NULL
            UNION ALL
            SELECT i.product_id, i.warehouse_id, i.quantity FROM archived_items i
            WHERE a.product_id IS NULL AND i.reservation_id = a.id AND i.resolved_at = a.updated_at
        ) l
        WHERE m.is_archived
    )
    SELECT l.product_id,
           sum(l.quantity - (
               SELECT coalesce(sum(b.quantity), 0) FROM returns b
               WHERE b.reservation_id = l.id AND b.product_id = l.product_id
                 AND b.warehouse_id = l.warehouse_id))::bigint,
           bool_or(l.is_dead)
    FROM lines l WHERE l.product_id = ANY (_products) GROUP BY l.product_id;
END $$;

-- reached_limits names each product of which the lines would give the owner more than its limit, or
-- is null when there is none. used is what the owner has. Without an owner, it names each product
-- that needs one. A row is unsure when the sum was. The rows are like those of a shortage.
CREATE OR REPLACE FUNCTION reached_limits(
    _owner text, _products uuid[], _warehouses uuid[], _quantities integer[],
    _per_owner integer[], _except uuid)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _limited uuid[] := ARRAY(
        SELECT l.product_id FROM unnest(_products, _per_owner) l (product_id, most)
        WHERE l.most IS NOT NULL);
BEGIN
    IF cardinality(_limited) = 0 THEN
        RETURN NULL;
    END IF;
    RETURN (
        WITH has AS MATERIALIZED (
            SELECT * FROM owner_units(_owner, _limited, _except) WHERE _owner IS NOT NULL
        )
        SELECT jsonb_agg(jsonb_build_object(
                             'product_id', w.product_id, 'warehouse_id', w.warehouse_id,
                             'requested', w.requested, 'available', greatest(w.most - w.used, 0),
                             'max', w.most, 'used', w.used, 'unsure', w.unsure,
                             'owner_required', _owner IS NULL)
                         ORDER BY w.product_id)
        FROM (
            SELECT p.*, coalesce(h.units, 0) AS used, coalesce(h.unsure, false) AS unsure
            FROM (
                SELECT l.product_id, (array_agg(l.warehouse_id))[1] AS warehouse_id,
                       sum(l.quantity) AS requested, min(l.most) AS most
                FROM unnest(_products, _warehouses, _quantities, _per_owner)
                     l (product_id, warehouse_id, quantity, most)
                GROUP BY l.product_id HAVING min(l.most) IS NOT NULL
            ) p
            LEFT JOIN has h ON h.product_id = p.product_id
        ) w
        WHERE _owner IS NULL OR w.used + w.requested > w.most);
END $$;

-- too_large_lines names each line that has more units than a hold of its product may have, or is
-- null when there is none.
CREATE OR REPLACE FUNCTION too_large_lines(
    _products uuid[], _warehouses uuid[], _quantities integer[], _per_hold integer[])
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg(jsonb_build_object(
                         'product_id', l.product_id, 'warehouse_id', l.warehouse_id,
                         'requested', l.quantity, 'available', l.most,
                         'max', l.most, 'used', 0) ORDER BY l.n)
    FROM unnest(_products, _warehouses, _quantities, _per_hold)
         WITH ORDINALITY l (product_id, warehouse_id, quantity, most, n)
    WHERE l.quantity > l.most
$$;

-- limits_of_cart names what the limits forbid of lines that are for no owner, or is null.
CREATE OR REPLACE FUNCTION limits_of_cart(
    _products uuid[], _warehouses uuid[], _quantities integer[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _limits record := limits_of_lines(_products, _warehouses);
BEGIN
    RETURN coalesce(
        too_large_lines(_products, _warehouses, _quantities, _limits.per_hold),
        reached_limits(NULL, _products, _warehouses, _quantities, _limits.per_owner, NULL));
END $$;
