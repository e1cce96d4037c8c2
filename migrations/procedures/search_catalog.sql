-- search_catalog is list_catalog for the products that have each of the _words in their name or
-- their SKU, in any case. It looks at _look products at most, so a page may be short or empty
-- although more follows. If it does, there is a last row without a product_id, and place is the
-- product behind which the next page begins. The other rows are those of read_products.
--
-- It begins after the product _id, by its present name, or at the beginning if that is null. With a
-- _warehouse it begins with the rest of the product _id, after this warehouse.
CREATE OR REPLACE FUNCTION search_catalog(
    _words text[], _id uuid, _warehouse uuid, _limit integer, _look integer, _rows integer,
    _bytes integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               max_per_hold integer, max_per_owner integer,
               warehouse_id uuid, warehouse_code text, warehouse_name text,
               total integer, reserved bigint, place uuid)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _patterns text[] := word_patterns(_words);
    _from     text := coalesce((SELECT p.name FROM products p WHERE p.id = _id), '');
    _last     uuid := coalesce(_id, '00000000-0000-0000-0000-000000000000');
    _found    text[] := '{}';
    _row      record;
BEGIN
    IF _warehouse IS NOT NULL THEN
        _found := ARRAY(SELECT p.sku FROM products p WHERE p.id = _id);
    END IF;
    FOR _row IN
        SELECT l.id, l.sku, l.n, l.fits
        FROM (SELECT p.id, p.name, p.sku, row_number() OVER (ORDER BY p.name, p.id) AS n,
                     case_folded(p.name || ' ' || p.sku) LIKE ALL (_patterns) AS fits
              FROM products p
              WHERE (p.name, p.id) > (_from, _last) AND p.status = 'ACTIVE'
              ORDER BY p.name, p.id LIMIT _look) l
        WHERE l.fits OR l.n = _look
        ORDER BY l.name, l.id
    LOOP
        IF _row.fits AND cardinality(_found) >= _limit THEN
            place := _last;
            EXIT;
        ELSIF _row.fits THEN
            _found := _found || _row.sku;
        END IF;
        _last := _row.id;
        IF _row.n = _look THEN
            place := _last;
        END IF;
    END LOOP;
    RETURN QUERY
    SELECT r.*, NULL::uuid
    FROM read_products(NULL, _found, CASE WHEN _warehouse IS NOT NULL THEN _id END, _warehouse,
                       _rows, _bytes) r;
    IF place IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END $$;

-- word_patterns makes a pattern of LIKE of each word, which finds the word anywhere in a text
-- without case. A text is a name, a blank and an SKU: no word has a white space, so none is found
-- half in the one and half in the other.
CREATE OR REPLACE FUNCTION word_patterns(_words text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN ARRAY(SELECT '%' || regexp_replace(case_folded(w), '([\\%_])', '\\\1', 'g') || '%'
                 FROM unnest(_words) w);
END $$;

-- count_products counts the ACTIVE products that list_catalog lists, or with _words those that
-- search_catalog finds. It looks at _look products at most, and whole says that it saw them all.
CREATE OR REPLACE FUNCTION count_products(
    _words text[], _look integer, OUT n bigint, OUT whole boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _patterns text[] := word_patterns(_words);
BEGIN
    IF _words IS NULL THEN
        SELECT least(count(*), _look), count(*) <= _look INTO n, whole
        FROM (SELECT FROM products p WHERE p.status = 'ACTIVE' LIMIT _look + 1) l;
        RETURN;
    END IF;
    SELECT count(*) FILTER (WHERE l.n <= _look
                            AND case_folded(l.name || ' ' || l.sku) LIKE ALL (_patterns)),
           count(*) <= _look INTO n, whole
    FROM (SELECT p.name, p.sku, row_number() OVER (ORDER BY p.name, p.id) AS n FROM products p
          WHERE p.status = 'ACTIVE' ORDER BY p.name, p.id LIMIT _look + 1) l;
END $$;
