-- put_products makes the products whose SKUs are new and changes the others, all or none. The
-- arrays have one element an item; _ids are the ids of the products that it makes. A null keeps
-- what the product has, and is the default of a new one. A limit of 0 means none.
--
-- Outcomes: PUT, with the results in the items' order; REPLAYED, with the answer stored under the
-- key; KEY_IN_USE; KEY_REUSED; INVALID, with a list of the items' problems:
--
--   NAMELESS  the product is new and the item has no name
--   REPEATED  the item other, which comes first, has the SKU too, or one of another case
--   CASE      the SKU differs from that of a product, other, by case alone
--
-- The lock of the catalog makes the catalog's writes follow one another, so that two of them can't
-- make SKUs that differ by case alone. Then the stock rows must follow (follow_catalog). The commit
-- doesn't wait for the disk: the caller writes a log record after the last stock row.
CREATE OR REPLACE FUNCTION put_products(
    _ids uuid[], _skus text[], _names text[], _statuses text[], _max_per_hold integer[],
    _max_per_owner integer[], _key text, _hash bytea, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
    IF _key IS NOT NULL THEN
        SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
        IF outcome IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;
    PERFORM pg_advisory_xact_lock(4, 0);

    -- A statement of its own, so that its snapshot is younger than the lock.
    WITH item AS MATERIALIZED (
        SELECT u.n, u.sku, u.name, case_folded(u.sku) AS folded,
               first_value(u.n) OVER (PARTITION BY case_folded(u.sku) ORDER BY u.n) AS first
        FROM unnest(_skus, _names) WITH ORDINALITY u (sku, name, n)
    )
    SELECT jsonb_agg(jsonb_build_object('item', i.n - 1, 'problem', x.problem, 'other', x.other)
                     ORDER BY i.n, x.problem)
    INTO answer
    FROM item i
    CROSS JOIN LATERAL (
        SELECT 'REPEATED' AS problem, (i.first - 1)::text AS other WHERE i.first < i.n
        UNION ALL
        SELECT 'NAMELESS', NULL
        WHERE i.name IS NULL AND (SELECT count(*) = 0 FROM products p WHERE p.sku = i.sku)
        UNION ALL
        SELECT 'CASE', (SELECT string_agg(o.sku, ' and ') FROM products o
                        WHERE case_folded(o.sku) = i.folded)
        WHERE i.first = i.n AND (SELECT count(*) = 0 FROM products p WHERE p.sku = i.sku)
    ) x
    WHERE x.problem <> 'CASE' OR x.other IS NOT NULL;
    IF answer IS NOT NULL THEN
        outcome := 'INVALID';
        RETURN;
    END IF;

    WITH item AS MATERIALIZED ( -- with the product as it was
        SELECT u.n, u.sku, coalesce(p.id, u.id) AS id, p.id IS NULL AS is_new,
               coalesce(u.name, p.name) AS name,
               coalesce(u.status::product_status, p.status, 'ACTIVE') AS status,
               nullif(coalesce(u.max_per_hold, p.max_per_hold), 0) AS max_per_hold,
               nullif(coalesce(u.max_per_owner, p.max_per_owner), 0) AS max_per_owner
        FROM unnest(_ids, _skus, _names, _statuses, _max_per_hold, _max_per_owner)
             WITH ORDINALITY u (id, sku, name, status, max_per_hold, max_per_owner, n)
        LEFT JOIN products p ON p.sku = u.sku
    ), made AS (
        INSERT INTO products (id, name, sku, status, max_per_hold, max_per_owner)
        SELECT i.id, i.name, i.sku, i.status, i.max_per_hold, i.max_per_owner
        FROM item i WHERE i.is_new
    ), changed AS (
        UPDATE products p
        SET name = i.name, status = i.status, max_per_hold = i.max_per_hold,
            max_per_owner = i.max_per_owner,
            changed_at = CASE WHEN (p.status, p.max_per_hold, p.max_per_owner)
                                   IS DISTINCT FROM (i.status, i.max_per_hold, i.max_per_owner)
                              THEN clock_timestamp() ELSE p.changed_at END
        FROM item i
        WHERE p.id = i.id AND NOT i.is_new
          AND (p.name, p.status, p.max_per_hold, p.max_per_owner)
              IS DISTINCT FROM (i.name, i.status, i.max_per_hold, i.max_per_owner)
        RETURNING p.id
    )
    SELECT jsonb_build_object('results', jsonb_agg(
               jsonb_build_object('sku', i.sku, 'product_id', i.id, 'outcome',
                                  CASE WHEN i.is_new THEN 'CREATED'
                                       WHEN c.id IS NOT NULL THEN 'UPDATED'
                                       ELSE 'UNCHANGED' END)
               ORDER BY i.n))
    INTO answer
    FROM item i LEFT JOIN changed c ON c.id = i.id;
    outcome := 'PUT';
    IF _key IS NOT NULL THEN
        PERFORM keep_answer(_key, _hash, answer);
    END IF;
END $$;
