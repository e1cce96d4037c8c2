-- reserve_detailed holds the lines of a cart, all or none (I7), for an owner, under the caller's
-- reference, or in the place of the hold _replaces. Each of the three may be null. The lines must
-- come merged and sorted by (product, warehouse); there may be a single one.
--
-- A hold that is replaced becomes RELEASED in the same transaction, and its units count as free for
-- the new one. When it is released, or dead, it is ignored.
--
-- Outcomes: PENDING, with the hold; REPLAYED, with the answer stored under the key; SHORT and
-- INVENTORY_NOT_FOUND as for reserve_cart; NOT_FOUND, CONFIRMED and PAYMENT_STARTED, of the hold
-- _replaces; KEY_IN_USE; KEY_REUSED; RETRY.
--
-- The steps of one try:
--
--   step     what is known          action                                     next step
--   lock     nothing                lock the owner, then the replaced hold     refuse, or look
--   look     no one else adds to    compare the limits with the owner's units  refuse, or release
--            the owner's units
--   release  the limits allow it    release the replaced hold, and mark its    reclaim
--                                   lines as not counted
--   reclaim  its units are free     expire dead holds if more are needed       refuse, or insert
--   insert   the units seem enough  insert the new hold                        take
--   take     the hold is inserted   lock the stock rows in order, update       commit, or retry
--
-- The release comes before the reclaim, because the lines of the replaced cart are waited for while
-- no line of another cart is locked.
CREATE OR REPLACE PROCEDURE reserve_detailed(
    _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[], _ttl interval,
    _owner text, _reference text, _replaces uuid, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _limits record;
    _old    reservations; -- the hold that is replaced, or null
    _rows   record;       -- the stock rows
    _raise  bigint[];     -- by how much the reserved of each rises
    _now    timestamptz;
    _tries  integer := 0;
    _late   boolean; -- the steps that free many units took too long
    _ignored text; -- write_log_record.sql says why
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;
        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction
        _limits := limits_of_lines(_products, _warehouses);
        outcome := 'INVENTORY_NOT_FOUND';
        EXIT WHEN cardinality(_limits.per_hold) IS DISTINCT FROM cardinality(_products);

        PERFORM lock_owner(_owner, _products, _limits.per_owner, _replaces);
        _old := CASE WHEN _replaces IS NOT NULL THEN lock_hold(_replaces) END;
        _now := clock_timestamp(); -- after the locks
        outcome := judge_replaced(_replaces, _old, _now);
        EXIT WHEN outcome NOT IN ('REPLACED', 'IGNORED');
        IF outcome = 'IGNORED' THEN
            _old := NULL;
        END IF;
        outcome := 'SHORT';
        answer := coalesce(
            closed_lines(_products, _warehouses, _quantities),
            too_large_lines(_products, _warehouses, _quantities, _limits.per_hold),
            reached_limits(_owner, _products, _warehouses, _quantities, _limits.per_owner,
                           _old.id));
        EXIT WHEN NOT answer @> '[{"unsure": true}]';

        outcome := 'RETRY';
        IF answer IS NULL AND release_replaced(_old, _now) THEN
            _rows := rows_to_change(_old, _products, _warehouses, _quantities, _limits.per_owner);
            SELECT c.short, c.raise INTO answer, _raise
            FROM reclaim_beside(_rows.products, _rows.warehouses, _rows.quantities, _rows.own) c;
            IF answer IS NOT NULL THEN
                outcome := 'SHORT';
                EXIT;
            END IF;
            PERFORM insert_detailed(_id, _products, _warehouses, _quantities, _now, _now + _ttl,
                                    _owner, _reference, _old.id);
            IF _key IS NOT NULL THEN
                PERFORM keep_answer(_key, _hash, hold_json(stored_row(_id), false));
            END IF;
            IF take_units(_rows.products, _rows.warehouses, _rows.quantities, _rows.limits, _raise,
                          _now + _ttl)
               AND (_old.id IS NULL OR clock_timestamp() < _old.expires_at) THEN
                IF clock_timestamp() > _now + lost_time(_ttl) THEN
                    _now := restart_hold(_id, _ttl, _key);
                END IF;
                outcome := 'PENDING';
                answer := hold_json(stored_row(_id), false);
                EXIT;
            END IF;
        END IF;
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
        CALL await_units(_products, _warehouses, _quantities, _tries, _late);
        EXIT WHEN _late;
    END LOOP;
    IF outcome IN ('PENDING', 'REPLAYED') THEN
        answer := with_party(answer);
        COMMIT;
        _ignored := write_log_record();
    ELSE
        ROLLBACK; -- the locks need no flush
        IF NOT hold_is_flushed(_replaces) THEN
            _ignored := write_log_record(); -- for the change that the refusal tells of
        END IF;
    END IF;
END $$;

-- judge_replaced says whether a hold, which the caller has locked, can be replaced: REPLACED, or
-- IGNORED when there is nothing to replace; else NOT_FOUND, CONFIRMED or PAYMENT_STARTED.
CREATE OR REPLACE FUNCTION judge_replaced(_replaces uuid, _old reservations, _now timestamptz)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN _replaces IS NULL THEN 'IGNORED'
                WHEN _old.id IS NULL THEN 'NOT_FOUND'
                WHEN _old.status = 'CONFIRMED' THEN 'CONFIRMED'
                WHEN _old.status <> 'PENDING' OR hold_is_dead(_old, _now) THEN 'IGNORED'
                WHEN _old.paying THEN 'PAYMENT_STARTED'
                ELSE 'REPLACED' END;
END $$;

-- release_replaced releases a live hold, which the caller has locked, but leaves its units in the
-- reserved of their stock rows: take_units gives them to the new hold. It answers false, and the
-- caller must roll back, when the hold has died. Without a hold there is nothing to do.
CREATE OR REPLACE FUNCTION release_replaced(_old reservations, _now timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _lines   integer;
    _counted integer;
BEGIN
    IF _old.id IS NULL THEN
        RETURN true;
    END IF;
    UPDATE reservations
    SET status = 'RELEASED', updated_at = greatest(updated_at, _now), version = version + 1
    WHERE id = _old.id AND status::text = 'PENDING' AND expires_at - _now > '0' AND NOT paying
    RETURNING * INTO _old;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    VALUES (_old.updated_at, _old.expires_at, _old.id, _old.version, 'r', 'r');
    IF _old.product_id IS NOT NULL THEN
        RETURN true;
    END IF;
    SELECT u.lines, u.counted INTO _lines, _counted FROM uncount_lines(_old.id) u;
    RETURN _lines = _counted;
END $$;

-- rows_to_change lists the stock rows that change when lines are held in the place of the hold
-- _old, which may be null: those of the lines and those of the hold, in the lock order. quantities
-- is what the new hold wants of each, 0 where only the old hold has units. own is what the old hold
-- has. limits are those of _per_owner.
CREATE OR REPLACE FUNCTION rows_to_change(
    _old reservations, _products uuid[], _warehouses uuid[], _quantities integer[],
    _per_owner integer[],
    OUT products uuid[], OUT warehouses uuid[], OUT quantities integer[], OUT own integer[],
    OUT limits integer[])
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT array_agg(c.product_id ORDER BY c.product_id, c.warehouse_id),
           array_agg(c.warehouse_id ORDER BY c.product_id, c.warehouse_id),
           array_agg(coalesce(c.quantity, 0) ORDER BY c.product_id, c.warehouse_id),
           array_agg(coalesce(c.own, 0) ORDER BY c.product_id, c.warehouse_id),
           array_agg(c.most ORDER BY c.product_id, c.warehouse_id)
    INTO products, warehouses, quantities, own, limits
    FROM (
        SELECT product_id, warehouse_id, l.quantity, o.own, l.most
        FROM unnest(_products, _warehouses, _quantities, _per_owner)
             l (product_id, warehouse_id, quantity, most)
        FULL JOIN (SELECT u.* FROM lines_of_hold(_old) h
                   CROSS JOIN LATERAL unnest(h.products, h.warehouses, h.quantities)
                              u (product_id, warehouse_id, own)
                   WHERE _old.id IS NOT NULL) o
            USING (product_id, warehouse_id)
    ) c;
END $$;

-- reclaim_beside is reclaim_for_cart for stock rows of which _own units are for the caller alone:
-- those of a hold that it has just resolved.
CREATE OR REPLACE FUNCTION reclaim_beside(
    _products uuid[], _warehouses uuid[], _quantities integer[], _own integer[],
    OUT short jsonb, OUT raise bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    _need integer[];
BEGIN
    SELECT array_agg(greatest(l.quantity - l.own, 0) ORDER BY l.n) INTO _need
    FROM unnest(_quantities, _own) WITH ORDINALITY l (quantity, own, n);
    SELECT c.short, c.raise INTO short, raise
    FROM reclaim_for_cart(_products, _warehouses, _need) c;
    IF short IS NULL THEN
        SELECT array_agg(l.raise + l.quantity - l.own - l.need ORDER BY l.n) INTO raise
        FROM unnest(raise, _quantities, _own, _need)
             WITH ORDINALITY l (raise, quantity, own, need, n);
        RETURN;
    END IF;
    SELECT jsonb_agg(to_jsonb(s) || jsonb_build_object(
                         'requested', l.quantity, 'available', s.available + l.own) ORDER BY l.n)
    INTO short
    FROM jsonb_to_recordset(short) s (product_id uuid, warehouse_id uuid, available bigint)
    JOIN unnest(_products, _warehouses, _quantities, _own)
         WITH ORDINALITY l (product_id, warehouse_id, quantity, own, n)
      ON s.product_id = l.product_id AND s.warehouse_id = l.warehouse_id;
END $$;

-- insert_detailed inserts a hold with its lines and its row of the ledger, who it is for, and which
-- hold it replaces.
CREATE OR REPLACE FUNCTION insert_detailed(
    _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[], _now timestamptz,
    _end timestamptz, _owner text, _reference text, _old uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _single boolean := cardinality(_products) = 1;
BEGIN
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                              expires_at, version, detailed)
    SELECT _id, CASE WHEN _single THEN _products[1] END, CASE WHEN _single THEN _warehouses[1] END,
           sum(q), _now, _now, _end, 1, true
    FROM unnest(_quantities) q;
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    VALUES (_now, _end, _id, 1, 'h', 'v');
    IF NOT _single THEN
        INSERT INTO reservation_items
               (reservation_id, product_id, warehouse_id, expires_at, quantity)
        SELECT _id, l.product_id, l.warehouse_id, _end, l.quantity
        FROM unnest(_products, _warehouses, _quantities) l (product_id, warehouse_id, quantity);
    END IF;
    IF num_nonnulls(_owner, _reference) > 0 THEN
        INSERT INTO hold_parties (hold_id, owner, reference) VALUES (_id, _owner, _reference);
    END IF;
    IF _old IS NOT NULL THEN
        INSERT INTO replacements (old_id, new_id) VALUES (_old, _id);
    END IF;
END $$;

-- take_units raises the reserved of each stock row by _raise, which is below 0 where the replaced
-- hold had more. It answers false, and the caller must roll back, when the guard refuses a row of
-- which the new hold wants units: they are gone, the row isn't for sale any more, or its limits
-- aren't those that were looked at.
CREATE OR REPLACE FUNCTION take_units(
    _products uuid[], _warehouses uuid[], _quantities integer[], _limits integer[],
    _raise bigint[], _end timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _taken integer;
BEGIN
    WITH locked AS MATERIALIZED ( -- with the epoch of the snapshot, by which the update finds it
        SELECT i.product_id, i.warehouse_id, newest.epoch, l.quantity, l.most, l.units
        FROM unnest(_products, _warehouses, _quantities, _limits, _raise)
             l (product_id, warehouse_id, quantity, most, units)
        CROSS JOIN LATERAL (
            SELECT n.epoch FROM inventory n
            WHERE n.product_id = l.product_id AND n.warehouse_id = l.warehouse_id
            ORDER BY n.epoch DESC LIMIT 1
        ) newest
        JOIN inventory i ON i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
                        AND i.epoch >= newest.epoch
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    )
    UPDATE inventory i
    SET reserved = i.reserved + l.units, epoch = next_epoch(i.epoch),
        first_end = CASE WHEN l.quantity > 0 THEN least(i.first_end, _end) ELSE i.first_end END
    FROM locked l
    WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id AND i.epoch >= l.epoch
      AND (l.quantity = 0
           OR i.total - i.reserved >= l.units AND i.open
              AND (i.max_per_hold < l.quantity) IS NOT TRUE
              AND i.max_per_owner IS NOT DISTINCT FROM l.most);
    GET DIAGNOSTICS _taken = ROW_COUNT;
    IF _taken < cardinality(_products) THEN
        RETURN false;
    END IF;
    IF random() < 0.03 THEN -- often enough, and seldom noticed
        PERFORM raise_first_end(l.product_id, l.warehouse_id)
        FROM unnest(_products, _warehouses) l (product_id, warehouse_id);
    END IF;
    RETURN true;
END $$;
