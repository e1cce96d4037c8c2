-- find_stock is list_stock for the stock rows of a product, in a warehouse, and with _words for
-- those of the products that have each of the words in their name or their SKU, in any case. A null
-- stands for any. Its rows, its order and its places are those of list_stock. With _words it also
-- looks at _look products at most.
CREATE OR REPLACE FUNCTION find_stock(
    _words text[], _product uuid, _in uuid, _sku text, _warehouse text, _below bigint,
    _after_product uuid, _after_warehouse uuid, _limit integer, _look integer, _scan integer,
    _bytes integer)
RETURNS TABLE (product_id uuid, sku text, name text, status text,
               warehouse_id uuid, warehouse_code text, warehouse_status text,
               total integer, reserved bigint, seq bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _patterns text[] := word_patterns(_words);
    _from     text;
    _found    record;
BEGIN
    -- The list knows products by their SKU, and warehouses by their code.
    IF _product IS NOT NULL THEN
        SELECT p.sku INTO _sku FROM products p
        WHERE p.id = _product AND p.sku = coalesce(_sku, p.sku);
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF _in IS NOT NULL THEN
        SELECT w.code INTO _warehouse FROM warehouses w
        WHERE w.id = _in AND w.code = coalesce(_warehouse, w.code);
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF _words IS NULL THEN
        RETURN QUERY
        SELECT * FROM list_stock(_sku, _warehouse, _below, _after_product, _after_warehouse, _limit,
                                 _scan, _bytes);
        RETURN;
    END IF;
    _from := coalesce((SELECT p.sku FROM products p WHERE p.id = _after_product), _sku, '');
    FOR _found IN
        SELECT l.id, l.sku, l.n, l.fits
        FROM (SELECT p.id, p.sku, row_number() OVER (ORDER BY p.sku) AS n,
                     case_folded(p.name || ' ' || p.sku) LIKE ALL (_patterns) AS fits
              FROM products p
              WHERE p.sku >= _from AND (_sku IS NULL OR p.sku = _sku)
                AND (p.id <> _after_product OR _after_warehouse IS NOT NULL
                     OR _after_product IS NULL)
              ORDER BY p.sku LIMIT _look) l
        WHERE l.fits OR l.n = _look
        ORDER BY l.sku
    LOOP
        IF _found.fits THEN
            EXIT WHEN _limit <= 0 OR _scan <= 0 OR _bytes <= 0;
            FOR product_id, sku, name, status, warehouse_id, warehouse_code, warehouse_status,
                total, reserved, seq IN
                SELECT * FROM list_stock(
                    _found.sku, _warehouse, _below,
                    CASE WHEN _found.id = _after_product THEN _after_product END,
                    CASE WHEN _found.id = _after_product THEN _after_warehouse END, _limit, _scan,
                    _bytes)
            LOOP
                RETURN NEXT;
                IF sku IS NULL THEN
                    RETURN;
                END IF;
                _limit := _limit - 1;
                _bytes := _bytes - octet_length(name) - octet_length(sku)
                          - octet_length(warehouse_code);
            END LOOP;
            _scan := _scan - (SELECT count(*) FROM inventory i WHERE i.product_id = _found.id);
        END IF;
        _after_product := _found.id;
        _after_warehouse := NULL;
    END LOOP;
    -- The loop ended early, or its last product was the last one to look at.
    IF _found.n = _look OR _found.id <> _after_product THEN
        product_id := _after_product;
        warehouse_id := _after_warehouse;
        sku := NULL;
        RETURN NEXT;
    END IF;
END $$;

-- count_stock counts the stock rows that find_stock finds. It looks at _look products and _scan
-- stock rows at most, and whole says that it saw them all.
CREATE OR REPLACE FUNCTION count_stock(
    _words text[], _product uuid, _in uuid, _sku text, _warehouse text, _below bigint,
    _look integer, _scan integer, OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _patterns text[] := word_patterns(_words);
    _only     uuid;
    _least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    _most  CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
BEGIN
    IF num_nonnulls(_words, _product, _in, _sku, _warehouse, _below) = 0 THEN
        SELECT least(count(*), _scan), count(*) <= _scan INTO n, whole
        FROM (SELECT FROM inventory i LIMIT _scan + 1) l;
        RETURN;
    END IF;
    IF _in IS NOT NULL OR _warehouse IS NOT NULL THEN
        SELECT w.id INTO _only FROM warehouses w
        WHERE w.id = coalesce(_in, w.id) AND w.code = coalesce(_warehouse, w.code);
        IF NOT FOUND THEN
            n := 0;
            whole := true;
            RETURN;
        END IF;
    END IF;
    WITH looked AS MATERIALIZED (
        SELECT p.id, p.name, p.sku FROM products p
        WHERE p.sku >= coalesce(_sku, '')
          AND p.sku = coalesce(_sku, p.sku) AND p.id = coalesce(_product, p.id)
        ORDER BY p.sku LIMIT _look + 1
    ), scanned AS MATERIALIZED (
        SELECT i.product_id, i.warehouse_id, i.total, i.reserved, i.first_end
        FROM looked p
        CROSS JOIN LATERAL (
            SELECT v.* FROM inventory v
            WHERE v.product_id = p.id
              AND v.warehouse_id BETWEEN coalesce(_only, _least) AND coalesce(_only, _most)
            OFFSET 0 -- as in whole_catalog_page
        ) i
        WHERE _words IS NULL OR case_folded(p.name || ' ' || p.sku) LIKE ALL (_patterns)
        LIMIT _scan + 1
    )
    SELECT least(count(*) FILTER (WHERE
               CASE WHEN _below IS NULL THEN true
                    WHEN s.total - s.reserved >= _below THEN false
                    WHEN s.reserved = 0 THEN true
                    ELSE s.total - s.reserved
                         + dead_units(s.product_id, s.warehouse_id, s.first_end, NULL) < _below
               END), _scan),
           count(*) <= _scan AND (SELECT count(*) <= _look FROM looked)
    INTO n, whole
    FROM scanned s;
END $$;
