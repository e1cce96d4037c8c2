-- put_warehouses makes and changes warehouses by their codes, as put_products does products by
-- their SKUs.
CREATE OR REPLACE FUNCTION put_warehouses(
    _ids uuid[], _codes text[], _names text[], _statuses text[], _key text, _hash bytea,
    OUT outcome text, OUT answer jsonb)
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

    WITH item AS MATERIALIZED (
        SELECT u.n, u.code, u.name, case_folded(u.code) AS folded,
               first_value(u.n) OVER (PARTITION BY case_folded(u.code) ORDER BY u.n) AS first
        FROM unnest(_codes, _names) WITH ORDINALITY u (code, name, n)
    )
    SELECT jsonb_agg(jsonb_build_object('item', i.n - 1, 'problem', x.problem, 'other', x.other)
                     ORDER BY i.n, x.problem)
    INTO answer
    FROM item i
    CROSS JOIN LATERAL (
        SELECT 'REPEATED' AS problem, (i.first - 1)::text AS other WHERE i.first < i.n
        UNION ALL
        SELECT 'NAMELESS', NULL
        WHERE i.name IS NULL AND (SELECT count(*) = 0 FROM warehouses w WHERE w.code = i.code)
        UNION ALL
        SELECT 'CASE', (SELECT string_agg(o.code, ' and ') FROM warehouses o
                        WHERE case_folded(o.code) = i.folded)
        WHERE i.first = i.n AND (SELECT count(*) = 0 FROM warehouses w WHERE w.code = i.code)
    ) x
    WHERE x.problem <> 'CASE' OR x.other IS NOT NULL;
    IF answer IS NOT NULL THEN
        outcome := 'INVALID';
        RETURN;
    END IF;

    WITH item AS MATERIALIZED ( -- with the warehouse as it was
        SELECT u.n, u.code, coalesce(w.id, u.id) AS id, w.id IS NULL AS is_new,
               coalesce(u.name, w.name) AS name,
               coalesce(u.status::warehouse_status, w.status, 'OPEN') AS status
        FROM unnest(_ids, _codes, _names, _statuses)
             WITH ORDINALITY u (id, code, name, status, n)
        LEFT JOIN warehouses w ON w.code = u.code
    ), made AS (
        INSERT INTO warehouses (id, name, code, status)
        SELECT i.id, i.name, i.code, i.status FROM item i WHERE i.is_new
    ), changed AS (
        UPDATE warehouses w
        SET name = i.name, status = i.status,
            changed_at = CASE WHEN w.status <> i.status THEN clock_timestamp()
                              ELSE w.changed_at END
        FROM item i
        WHERE w.id = i.id AND NOT i.is_new
          AND (w.name, w.status) IS DISTINCT FROM (i.name, i.status)
        RETURNING w.id
    )
    SELECT jsonb_build_object('results', jsonb_agg(
               jsonb_build_object('code', i.code, 'warehouse_id', i.id, 'outcome',
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
