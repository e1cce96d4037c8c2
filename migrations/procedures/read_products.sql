-- read_products reads the ACTIVE product _id, or the ACTIVE products with one of the _skus, ordered
-- by name. Its rows are those of list_catalog: one for each product and OPEN warehouse, and one for
-- a product that has no stock row there. There are at most _rows rows and _bytes bytes of text, but
-- at least one row. If more follows, there is a last row without a product. It has a warehouse if
-- the rows end inside a product: the last warehouse that was read.
--
-- The rows begin after the product _after, or with the first product if that is null. With a
-- _warehouse they begin with the rest of the product _after, after this warehouse.
CREATE OR REPLACE FUNCTION read_products(
    _id uuid, _skus text[], _after uuid, _warehouse uuid, _rows integer, _bytes integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               max_per_hold integer, max_per_owner integer,
               warehouse_id uuid, warehouse_code text, warehouse_name text,
               total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _product record;
    _stock   record;
    _size    integer;
    _begun   boolean := false;
    _from    text;
    _nowhere CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    FOR _product IN
        SELECT p.id, p.name, p.sku, p.max_per_hold, p.max_per_owner FROM products p
        WHERE (p.id = _id OR p.sku = ANY (_skus)) AND p.status = 'ACTIVE'
          AND (_after IS NULL
               OR (p.name, p.id) > ((SELECT a.name FROM products a WHERE a.id = _after), _after)
               OR p.id = _after AND _warehouse IS NOT NULL)
        ORDER BY p.name, p.id
    LOOP
        _from := '';
        IF _product.id <> _after THEN
            _warehouse := NULL;
        ELSIF _warehouse IS NOT NULL THEN
            SELECT w.name INTO _from FROM warehouses w WHERE w.id = _warehouse;
        END IF;
        product_id := _product.id;
        product_name := _product.name;
        sku := _product.sku;
        max_per_hold := _product.max_per_hold;
        max_per_owner := _product.max_per_owner;
        warehouse_id := NULL;
        _size := octet_length(_product.name) + octet_length(_product.sku);
        FOR _stock IN
            SELECT s.id, s.code, s.name, s.total, s.reserved, s.first_end,
                   coalesce(octet_length(s.code) + octet_length(s.name), 0) AS size
            FROM (SELECT) one
            LEFT JOIN (
                SELECT w.id, w.code, w.name, i.total, i.reserved, i.first_end
                FROM inventory i
                JOIN warehouses w ON w.id = i.warehouse_id AND w.status = 'OPEN'
                WHERE i.product_id = _product.id
                  AND (w.name, w.id) > (_from, coalesce(_warehouse, _nowhere))
                OFFSET 0 -- otherwise the planner may walk all warehouses in their order
            ) s ON true
            ORDER BY s.name, s.id
        LOOP
            _size := _size + _stock.size;
            IF _begun AND (_rows = 0 OR _size > _bytes) THEN
                product_id := NULL;
                product_name := NULL;
                sku := NULL;
                RETURN NEXT;
                RETURN;
            END IF;
            warehouse_id := _stock.id;
            warehouse_code := _stock.code;
            warehouse_name := _stock.name;
            total := _stock.total;
            reserved := _stock.reserved;
            IF reserved > 0 THEN
                reserved := reserved - dead_units(product_id, warehouse_id, _stock.first_end, NULL);
            END IF;
            RETURN NEXT;
            _begun := true;
            _rows := _rows - 1;
            _bytes := _bytes - _size;
            _size := 0;
            product_name := NULL;
            sku := NULL;
        END LOOP;
    END LOOP;
END $$;
