-- The routines that only the previous release calls, because their signature changed. The next
-- release deletes them. Each calls its successor.
--
-- The previous release passed _early: whether the procedure was to commit by itself. It passed false
-- only with EARLY_RELEASE=off, a setting for servers that refuse COMMIT in a procedure. None of ours
-- does, and the setting is gone: such a call fails here, before it has done anything.

CREATE OR REPLACE PROCEDURE reserve_line(
    _early boolean, _id uuid, _product uuid, _warehouse uuid, _quantity integer, _ttl interval,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL reserve_line(_id, _product, _warehouse, _quantity, _ttl, _key, _hash, outcome, answer);
END $$;

CREATE OR REPLACE PROCEDURE reserve_cart(
    _early boolean, _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[],
    _ttl interval, _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL reserve_cart(_id, _products, _warehouses, _quantities, _ttl, _key, _hash, outcome, answer);
END $$;

CREATE OR REPLACE PROCEDURE resolve_hold(
    _early boolean, _id uuid, _to reservation_status, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL resolve_hold(_id, _to, _key, _hash, outcome, answer);
END $$;

CREATE OR REPLACE PROCEDURE extend_hold(
    _early boolean, _id uuid, _ttl interval, _max interval, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL extend_hold(_id, _ttl, _max, _key, _hash, outcome, answer);
END $$;

-- The previous release takes the end of the page for the end of the catalog, unless it has _limit
-- products. So this page has all of them, however many stock rows they have.
CREATE OR REPLACE FUNCTION list_products(_name text, _id uuid, _limit integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT w.product_id, w.product_name, w.sku, w.warehouse_id, w.warehouse_name,
                        w.total, w.reserved
                 FROM whole_catalog_page(_name, _id, _limit) w
                 WHERE w.product_id IS NOT NULL;
END $$;

-- list_catalog has taken the place of this one, because it answers more columns.
CREATE OR REPLACE FUNCTION list_products(
    _name text, _id uuid, _warehouse uuid, _limit integer, _rows integer, _bytes integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT c.product_id, c.product_name, c.sku, c.warehouse_id, c.warehouse_name,
                        c.total, c.reserved
                 FROM list_catalog(_name, _id, _warehouse, _limit, _rows, _bytes) c;
END $$;
