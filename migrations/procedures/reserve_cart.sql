-- reserve_cart holds the lines of a cart, all or none (I7). The lines must come merged and sorted
-- by (product, warehouse). Outcomes as for reserve_line. SHORT names every line that isn't for
-- sale, or what the limits of the products forbid, or every short line.
--
-- The steps of one try, as in reserve_line:
--
--   step     what is known                    action                          next step
--   look     nothing                          read the stock rows, unlocked   insert, or reclaim
--   reclaim  a row seemed short or closed     refuse, or expire dead holds    insert
--   insert   the rows seem to have the units  insert the hold and its lines   take
--   take     the hold is inserted             lock the rows in order, update  commit, or look again
CREATE OR REPLACE PROCEDURE reserve_cart(
    _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[], _ttl interval,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _lines  integer := cardinality(_products);
    _units  bigint := (SELECT sum(q) FROM unnest(_quantities) q);
    _raise  bigint[]; -- by how much each line raises its stock row's reserved
    _epochs integer[];
    _now    timestamptz;
    _found  integer;
    _fits   boolean;
    _tries  integer := 0;
    _late   boolean; -- the steps that free many units took too long
    _ignored text; -- write_log_record.sql says why
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        _now := clock_timestamp();
        _raise := _quantities;
        SELECT count(*), bool_and(s.open AND s.free >= l.quantity AND s.most_per_owner IS NULL
                                  AND (s.most < l.quantity) IS NOT TRUE),
               array_agg(s.epoch ORDER BY l.n)
        INTO _found, _fits, _epochs
        FROM unnest(_products, _warehouses, _quantities)
             WITH ORDINALITY l (product_id, warehouse_id, quantity, n)
        CROSS JOIN LATERAL (
            SELECT i.total - i.reserved AS free, i.epoch, i.open, i.max_per_hold AS most,
                   i.max_per_owner AS most_per_owner
            FROM inventory i
            WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
            ORDER BY i.epoch DESC LIMIT 1
        ) s;
        IF _found < _lines THEN
            outcome := 'INVENTORY_NOT_FOUND';
            EXIT;
        END IF;
        IF NOT _fits THEN
            answer := coalesce(closed_lines(_products, _warehouses, _quantities),
                               limits_of_cart(_products, _warehouses, _quantities));
            IF answer IS NOT NULL THEN
                outcome := 'SHORT';
                EXIT;
            END IF;
            SELECT c.short, c.raise INTO answer, _raise
            FROM reclaim_for_cart(_products, _warehouses, _quantities) c;
            IF answer IS NOT NULL THEN
                outcome := 'SHORT';
                EXIT;
            END IF;
        END IF;
        WITH hold AS (
            INSERT INTO reservations (id, quantity, created_at, updated_at, expires_at, version)
            VALUES (_id, _units, _now, _now, _now + _ttl, 1)
        ), transition AS (
            INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
            VALUES (_now, _now + _ttl, _id, 1, 'h', 'v')
        )
        INSERT INTO reservation_items
               (reservation_id, product_id, warehouse_id, expires_at, quantity)
        SELECT _id, l.product_id, l.warehouse_id, _now + _ttl, l.quantity
        FROM unnest(_products, _warehouses, _quantities) l (product_id, warehouse_id, quantity);
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r, false))
            FROM reservations r WHERE r.id = _id;
        END IF;

        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction

        -- The stock rows are locked in order and then updated under the guard. One row that is
        -- short undoes the whole cart.
        WITH locked AS MATERIALIZED (
            SELECT i.product_id, i.warehouse_id, l.quantity, l.units, l.epoch
            FROM inventory i
            JOIN unnest(_products, _warehouses, _quantities, _raise, _epochs)
                 l (product_id, warehouse_id, quantity, units, epoch)
              ON i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
                 AND i.epoch >= l.epoch
            ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
        )
        UPDATE inventory i
        SET reserved = i.reserved + l.units, first_end = least(i.first_end, _now + _ttl),
            epoch = next_epoch(i.epoch)
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
          AND i.epoch >= l.epoch AND i.total - i.reserved >= l.units AND i.open
          AND (i.max_per_owner IS NOT NULL OR i.max_per_hold < l.quantity) IS NOT TRUE;
        GET DIAGNOSTICS _found = ROW_COUNT;
        IF _found = _lines THEN
            IF NOT _fits AND random() < 0.03 THEN
                PERFORM raise_first_end(l.product_id, l.warehouse_id)
                FROM unnest(_products, _warehouses) l (product_id, warehouse_id);
            END IF;
            IF clock_timestamp() > _now + lost_time(_ttl) THEN
                _now := restart_hold(_id, _ttl, _key);
            END IF;
            outcome := 'HELD';
            answer := to_jsonb(_now);
            EXIT;
        END IF;

        outcome := 'RETRY';
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
        CALL await_units(_products, _warehouses, _quantities, _tries, _late);
        EXIT WHEN _late;
    END LOOP;
    IF outcome IN ('HELD', 'REPLAYED') THEN
        COMMIT;
        _ignored := write_log_record();
    END IF;
END $$;

-- closed_lines names every line whose stock row isn't open, or is null when all are.
CREATE OR REPLACE FUNCTION closed_lines(
    _products uuid[], _warehouses uuid[], _quantities integer[]) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
                             'product_id', l.product_id, 'warehouse_id', l.warehouse_id,
                             'requested', l.quantity, 'available', 0, 'not_for_sale', true)
                         ORDER BY l.n)
        FROM unnest(_products, _warehouses, _quantities)
             WITH ORDINALITY l (product_id, warehouse_id, quantity, n)
        CROSS JOIN LATERAL (
            SELECT i.open FROM inventory i
            WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
            ORDER BY i.epoch DESC LIMIT 1
        ) s
        WHERE NOT s.open
    );
END $$;

-- reclaim_for_cart looks closely at a cart that has a line that seems short. short names every
-- line that is short even when the units of dead holds are counted as available. If short is null,
-- dead holds were expired, and raise says by how much each line then raises its stock row's
-- reserved.
CREATE OR REPLACE FUNCTION reclaim_for_cart(
    _products uuid[], _warehouses uuid[], _quantities integer[],
    OUT short jsonb, OUT raise bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    _from  timestamptz[];
    _need  bigint[];
    _freed bigint[];
    _left  bigint := reclaim_step();
BEGIN
    -- One snapshot for all lines, without a lock, as in reserve_line.
    SELECT jsonb_agg(jsonb_build_object('product_id', c.product_id, 'warehouse_id', c.warehouse_id,
                                        'requested', c.quantity, 'available', c.free + c.dead)
                     ORDER BY c.n) FILTER (WHERE c.free + c.dead < c.quantity),
           array_agg(c.first_end ORDER BY c.n),
           array_agg(greatest(c.quantity - c.free, 0) ORDER BY c.n),
           array_agg(0 ORDER BY c.n),
           array_agg(c.quantity ORDER BY c.n)
    INTO short, _from, _need, _freed, raise
    FROM (SELECT l.*, i.total - i.reserved AS free, i.first_end,
                 CASE WHEN i.total - i.reserved < l.quantity
                      THEN dead_units(l.product_id, l.warehouse_id, i.first_end,
                                      l.quantity - (i.total - i.reserved))
                      ELSE 0 END AS dead
          FROM unnest(_products, _warehouses, _quantities)
               WITH ORDINALITY l (product_id, warehouse_id, quantity, n)
          JOIN inventory i USING (product_id, warehouse_id)
          OFFSET 0) c; -- OFFSET 0: otherwise dead_units may run twice, by two clocks
    IF short IS NOT NULL THEN
        RETURN;
    END IF;
    -- All holds before all lines before any stock row: the lock order. One step for all stock rows
    -- together; a cart that needs more gets it from free_units.
    FOR n IN 1..cardinality(_products) LOOP
        _need[n] := least(_need[n], _left);
        _left := _left - _need[n];
        IF _need[n] > 0 THEN
            _freed[n] := reclaim_holds(_products[n], _warehouses[n], _from[n], _need[n]);
        END IF;
    END LOOP;
    FOR n IN 1..cardinality(_products) LOOP
        IF _need[n] > _freed[n] THEN
            _freed[n] := _freed[n] + reclaim_lines(_products[n], _warehouses[n], _from[n],
                                                   _need[n] - _freed[n]);
        END IF;
        raise[n] := _quantities[n] - _freed[n];
    END LOOP;
END $$;
