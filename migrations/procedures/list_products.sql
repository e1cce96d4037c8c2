-- list_products is a page of the catalog after (_name, _id): a row for each product and warehouse,
-- and one row for a product that has no stock row.
--
-- The page is cut first, by the index on (name, id), so that a deep page costs as much as the
-- first. Only a stock row with something reserved can have dead holds, so the others aren't asked
-- for theirs. One snapshot serves all of it, so reserved and the dead units taken off it agree.
CREATE OR REPLACE FUNCTION list_products(_name text, _id uuid, _limit integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT p.id, p.name, p.sku FROM products p
        WHERE (p.name, p.id) > (_name, _id)
        ORDER BY p.name, p.id
        LIMIT _limit
    )
    SELECT p.id, p.name, p.sku, s.id, s.name, s.total, s.reserved
    FROM page p
    LEFT JOIN LATERAL (
        SELECT w.id, w.name, i.total,
               i.reserved - CASE WHEN i.reserved > 0
                                 THEN dead_units(i.product_id, i.warehouse_id, i.first_end, NULL)
                                 ELSE 0 END AS reserved
        FROM inventory i
        JOIN warehouses w ON w.id = i.warehouse_id
        WHERE i.product_id = p.id
        OFFSET 0 -- otherwise the planner, which can't know how short a page is, joins whole tables
    ) s ON true
    ORDER BY p.name, p.id, s.name, s.id;
END $$;
