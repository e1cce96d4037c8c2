-- list_catalog is a page of the catalog after (_name, _id): a row for each ACTIVE product and OPEN
-- warehouse, and one row for a product that has no stock row there. A product's name, sku and
-- limits stand in its first row, and the others may have them. The page has at most _limit
-- products, _rows rows and _bytes bytes of text, but at least one row. If more follows, there is a
-- last row without a product. It has a warehouse if the page ends inside a product: the last
-- warehouse that was read.
--
-- A null _name means the name that the product _id has now. With a _warehouse the page begins with
-- the rest of the product _id, after this warehouse, if the product still has its name.
--
-- Most pages fit as they are, and one statement reads such a page in half the time. Any other page
-- is cut row by row.
--
-- It reads no further than the product in which the page ends, and a deep page costs as much as the
-- first. Only a stock row with something reserved can have dead holds, so the others aren't asked
-- for theirs. One snapshot serves all of it, so reserved and the dead units taken off it agree.
CREATE OR REPLACE FUNCTION list_catalog(
    _name text, _id uuid, _warehouse uuid, _limit integer, _rows integer, _bytes integer)
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
    _after   text := '';
    _nowhere CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    IF _warehouse IS NULL AND _name IS NOT NULL
       AND catalog_page_fits(_name, _id, _limit, _rows, _bytes) THEN
        RETURN QUERY SELECT * FROM whole_catalog_page(_name, _id, _limit);
        RETURN;
    END IF;
    IF _name IS NULL THEN
        SELECT p.name INTO _name FROM products p WHERE p.id = _id;
    END IF;
    IF _warehouse IS NOT NULL THEN
        SELECT w.name INTO _after FROM warehouses w WHERE w.id = _warehouse;
    END IF;
    FOR _product IN
        SELECT p.id, p.name, p.sku, p.max_per_hold, p.max_per_owner FROM products p
        WHERE (p.name, p.id) >= (_name, _id) AND (p.id <> _id OR _warehouse IS NOT NULL)
          AND p.status = 'ACTIVE'
        ORDER BY p.name, p.id
        LIMIT _limit + 1
    LOOP
        IF _product.id <> _id THEN
            _warehouse := NULL;
            _after := '';
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
                  AND (w.name, w.id) > (_after, coalesce(_warehouse, _nowhere))
                OFFSET 0 -- otherwise the planner may walk all warehouses in their order
            ) s ON true
            ORDER BY s.name, s.id
        LOOP
            _size := _size + _stock.size;
            IF _begun AND (_limit = 0 OR _rows = 0 OR _size > _bytes) THEN
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
        _limit := _limit - 1;
    END LOOP;
END $$;

-- catalog_page_fits says whether _limit products after (_name, _id) have at most _rows stock
-- rows and _bytes bytes of text, with a product's own text counted in each of its rows.
CREATE OR REPLACE FUNCTION catalog_page_fits(
    _name text, _id uuid, _limit integer, _rows integer, _bytes integer)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        WITH page AS MATERIALIZED (
            SELECT p.id, octet_length(p.name) + octet_length(p.sku) AS size FROM products p
            WHERE (p.name, p.id) > (_name, _id) AND p.status = 'ACTIVE'
            ORDER BY p.name, p.id LIMIT _limit
        )
        SELECT count(*) <= _rows AND coalesce(sum(s.size), 0) <= _bytes
        FROM (
            SELECT p.size + coalesce(i.size, 0) AS size
            FROM page p
            LEFT JOIN LATERAL (
                SELECT octet_length(w.code) + octet_length(w.name) AS size
                FROM inventory i
                JOIN warehouses w ON w.id = i.warehouse_id AND w.status = 'OPEN'
                WHERE i.product_id = p.id
                OFFSET 0 -- as in whole_catalog_page
            ) i ON true
            LIMIT _rows + 1
        ) s
    );
END $$;

-- whole_catalog_page is a page of list_catalog that fits.
CREATE OR REPLACE FUNCTION whole_catalog_page(_name text, _id uuid, _limit integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               max_per_hold integer, max_per_owner integer,
               warehouse_id uuid, warehouse_code text, warehouse_name text,
               total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT p.id, p.name, p.sku, p.max_per_hold, p.max_per_owner,
               row_number() OVER (ORDER BY p.name, p.id) AS n
        FROM products p
        WHERE (p.name, p.id) > (_name, _id) AND p.status = 'ACTIVE'
        ORDER BY p.name, p.id
        LIMIT _limit + 1
    )
    SELECT CASE WHEN p.n <= _limit THEN p.id END, p.name, p.sku, p.max_per_hold, p.max_per_owner,
           s.id, s.code, s.name, s.total, s.reserved
    FROM page p
    LEFT JOIN LATERAL (
        SELECT w.id, w.code, w.name, i.total,
               i.reserved - CASE WHEN i.reserved > 0
                                 THEN dead_units(i.product_id, i.warehouse_id, i.first_end, NULL)
                                 ELSE 0 END AS reserved
        FROM inventory i
        JOIN warehouses w ON w.id = i.warehouse_id AND w.status = 'OPEN'
        WHERE i.product_id = p.id AND p.n <= _limit
        OFFSET 0 -- otherwise the planner, which can't know how short a page is, joins whole tables
    ) s ON true
    ORDER BY p.n, s.name, s.id;
END $$;
