-- list_stock is a page of the stock rows by (SKU, warehouse code): all of them, or those of an SKU,
-- of a warehouse's code, or with less than _below available. A null stands for any. reserved counts
-- live holds only (I4).
--
-- The page begins after the stock row of _after_product in _after_warehouse, or after all those of
-- _after_product if _after_warehouse is null. It has at most _limit stock rows and _bytes bytes of
-- text, but at least one row. If more follows, there is a last row without an SKU: its product and
-- its warehouse are the place where the next page begins. A page ends early when it has looked at
-- _scan stock rows and products without one, so that rare rows don't make one call read them all.
--
-- It reads no further than the page, and a deep page costs as much as the first. Only a stock row
-- that may be answered is asked for its dead holds. One snapshot serves all of it, so reserved and
-- the dead units taken off it agree.
CREATE OR REPLACE FUNCTION list_stock(
    _sku text, _warehouse text, _below bigint, _after_product uuid, _after_warehouse uuid,
    _limit integer, _scan integer, _bytes integer)
RETURNS TABLE (product_id uuid, sku text, name text, status text,
               warehouse_id uuid, warehouse_code text, warehouse_status text,
               total integer, reserved bigint, seq bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _from  text := coalesce(_sku, '');
    _after text;
    _only  uuid;
    _row   record;
    _size  integer;
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    _most  CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
BEGIN
    IF _after_product IS NOT NULL THEN
        SELECT p.sku INTO _from FROM products p WHERE p.id = _after_product;
        SELECT w.code INTO _after FROM warehouses w WHERE w.id = _after_warehouse;
    END IF;
    IF _warehouse IS NOT NULL THEN
        SELECT w.id INTO _only FROM warehouses w WHERE w.code = _warehouse;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    FOR _row IN
        SELECT p.id AS product, p.sku, p.name, p.status::text AS status, s.*
        FROM products p
        LEFT JOIN LATERAL (
            SELECT w.id AS warehouse, w.code, w.status::text AS warehouse_status,
                   i.total, i.reserved, i.first_end, i.seq
            FROM inventory i JOIN warehouses w ON w.id = i.warehouse_id
            WHERE i.product_id = p.id
              AND i.warehouse_id BETWEEN coalesce(_only, _least) AND coalesce(_only, _most)
              AND (p.id <> coalesce(_after_product, _least) OR w.code > _after)
            OFFSET 0 -- as in whole_catalog_page
        ) s ON true
        WHERE p.sku >= _from
          AND (p.id <> coalesce(_after_product, _least) OR _after IS NOT NULL)
        ORDER BY p.sku, s.code
    LOOP
        EXIT WHEN _row.sku <> _sku;
        _size := octet_length(_row.name) + octet_length(_row.sku) + octet_length(_row.code);
        IF _limit = 0 OR _scan = 0 OR _size > _bytes AND sku IS NOT NULL THEN
            product_id := _after_product;
            warehouse_id := _after_warehouse;
            sku := NULL;
            RETURN NEXT;
            RETURN;
        END IF;
        _scan := _scan - 1;
        _after_product := _row.product;
        _after_warehouse := _row.warehouse;
        reserved := _row.reserved;
        IF _row.total - reserved < coalesce(_below, 2147483648) THEN
            IF reserved > 0 THEN
                reserved := reserved
                            - dead_units(_row.product, _row.warehouse, _row.first_end, NULL);
            END IF;
            IF _row.total - reserved < coalesce(_below, 2147483648) THEN
                product_id := _row.product;
                sku := _row.sku;
                name := _row.name;
                status := _row.status;
                warehouse_id := _row.warehouse;
                warehouse_code := _row.code;
                warehouse_status := _row.warehouse_status;
                total := _row.total;
                seq := _row.seq;
                RETURN NEXT;
                _limit := _limit - 1;
                _bytes := _bytes - _size;
            END IF;
        END IF;
    END LOOP;
END $$;
