-- follow_catalog makes stock rows of the given products, or of the given warehouses, agree with
-- their product and warehouse: the next follow_step() of them after (_after_product,
-- _after_warehouse), in one short transaction. last_* is the last stock row of this step, or null
-- when none follows. Rows that agree already are only read, so a call that died half-way is
-- finished by its repeat.
--
-- The rows of products and warehouses are the truth, and are written first. Three rules keep a
-- stock row from being set by an older truth than the row has, or from being missed:
--
--   - The catalog's writes take the catalog's lock alone, and commit. follow_catalog, and a new
--     stock row (0005_catalog.sql), share it until their commit, and read the truth in a statement
--     after it. So the truth can't change between the reading and the commit.
--   - So when a write has committed, every stock row that was made by the old truth is committed
--     too, and the steps that follow the write see it.
--   - follow_catalog skips a stock row that is locked, and names it in busy_*. Its caller lets
--     follow_busy_row wait for that row, before it shares the catalog's lock. So a hot row keeps no
--     other row locked, and no write of the catalog waiting.
--
-- A reserve under way either has its row's lock first, and its hold was made before the change, or
-- finds in its guard that the row isn't open any more.
CREATE OR REPLACE FUNCTION follow_catalog(
    _products uuid[], _warehouses uuid[], _after_product uuid, _after_warehouse uuid,
    OUT last_product text, OUT last_warehouse text,
    OUT busy_products text[], OUT busy_warehouses text[])
LANGUAGE plpgsql AS $$
DECLARE
    _rows_products   uuid[];
    _rows_warehouses uuid[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
    PERFORM pg_advisory_xact_lock_shared(4, 0);
    IF _products IS NOT NULL THEN
        SELECT array_agg(s.product_id ORDER BY s.product_id, s.warehouse_id),
               array_agg(s.warehouse_id ORDER BY s.product_id, s.warehouse_id)
        INTO _rows_products, _rows_warehouses
        FROM (SELECT i.product_id, i.warehouse_id FROM inventory i
              WHERE i.product_id = ANY (_products)
                AND (i.product_id, i.warehouse_id) > (_after_product, _after_warehouse)
              ORDER BY i.product_id, i.warehouse_id LIMIT follow_step()) s;
    ELSE
        SELECT array_agg(s.product_id ORDER BY s.product_id, s.warehouse_id),
               array_agg(s.warehouse_id ORDER BY s.product_id, s.warehouse_id)
        INTO _rows_products, _rows_warehouses
        FROM (SELECT i.product_id, i.warehouse_id FROM inventory i
              WHERE i.warehouse_id = ANY (_warehouses)
                AND (i.product_id, i.warehouse_id) > (_after_product, _after_warehouse)
              ORDER BY i.product_id, i.warehouse_id LIMIT follow_step()) s;
    END IF;

    WITH wrong AS MATERIALIZED (
        SELECT t.* FROM unnest(_rows_products, _rows_warehouses) k (product_id, warehouse_id)
        CROSS JOIN LATERAL truth_of_stock_row(k.product_id, k.warehouse_id) t
        JOIN inventory i ON i.product_id = k.product_id AND i.warehouse_id = k.warehouse_id
        WHERE (i.open, i.max_per_hold, i.max_per_owner)
              IS DISTINCT FROM (t.open, t.max_per_hold, t.max_per_owner)
    ), locked AS MATERIALIZED (
        SELECT wrong.* FROM inventory i
        JOIN wrong ON wrong.product_id = i.product_id AND wrong.warehouse_id = i.warehouse_id
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i SKIP LOCKED
    ), followed AS (
        UPDATE inventory i
        SET open = l.open, max_per_hold = l.max_per_hold, max_per_owner = l.max_per_owner,
            epoch = next_epoch(i.epoch)
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
    )
    SELECT array_agg(w.product_id ORDER BY w.product_id, w.warehouse_id),
           array_agg(w.warehouse_id ORDER BY w.product_id, w.warehouse_id)
    INTO busy_products, busy_warehouses
    FROM wrong w LEFT JOIN locked l USING (product_id, warehouse_id)
    WHERE l.product_id IS NULL;
    IF cardinality(_rows_products) = follow_step() THEN
        last_product := _rows_products[follow_step()];
        last_warehouse := _rows_warehouses[follow_step()];
    END IF;
END $$;

-- follow_busy_row does the same for one stock row, and waits for the row's lock. It keeps the row
-- locked during no other wait: where a write of the catalog has the catalog's lock, it lets the row
-- go, waits for that write, and begins again.
CREATE OR REPLACE PROCEDURE follow_busy_row(_product uuid, _warehouse uuid) LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM i.epoch FROM inventory i
        WHERE i.product_id = _product AND i.warehouse_id = _warehouse
          AND i.epoch >= (SELECT n.epoch FROM inventory n -- leads to the row's newest version
                          WHERE n.product_id = _product AND n.warehouse_id = _warehouse
                          ORDER BY n.epoch DESC LIMIT 1)
        FOR NO KEY UPDATE;
        EXIT WHEN pg_try_advisory_xact_lock_shared(4, 0);
        ROLLBACK;
        PERFORM pg_advisory_xact_lock_shared(4, 0);
        ROLLBACK;
    END LOOP;
    PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
    UPDATE inventory i
    SET open = t.open, max_per_hold = t.max_per_hold, max_per_owner = t.max_per_owner,
        epoch = next_epoch(i.epoch)
    FROM truth_of_stock_row(_product, _warehouse) t
    WHERE i.product_id = _product AND i.warehouse_id = _warehouse
      AND i.epoch >= (SELECT n.epoch FROM inventory n
                      WHERE n.product_id = _product AND n.warehouse_id = _warehouse
                      ORDER BY n.epoch DESC LIMIT 1);
END $$;

-- truth_of_stock_row is what a stock row must repeat of its product and its warehouse.
CREATE OR REPLACE FUNCTION truth_of_stock_row(_product uuid, _warehouse uuid)
RETURNS TABLE (product_id uuid, warehouse_id uuid, open boolean,
               max_per_hold integer, max_per_owner integer)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT p.id, w.id, p.status = 'ACTIVE' AND w.status = 'OPEN', p.max_per_hold, p.max_per_owner
    FROM products p, warehouses w WHERE p.id = _product AND w.id = _warehouse
$$;

-- follow_step is the number of stock rows of one step. To write a thousand takes about 20 ms. The
-- planner replaces the call by the constant.
CREATE OR REPLACE FUNCTION follow_step() RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT 1000
$$;
