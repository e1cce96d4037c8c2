-- await_units waits, between two tries of a verb, until the callers who have dead holds or lines of
-- the stock rows locked are done, and then for a moment that grows with the tries. When many units
-- are needed, it frees dead holds in steps. late says that these steps took too long. The caller
-- must hold no lock.
CREATE OR REPLACE PROCEDURE await_units(
    _products uuid[], _warehouses uuid[], _quantities integer[], _tries integer,
    INOUT late boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _units bigint := (SELECT sum(q) FROM unnest(_quantities) q);
BEGIN
    late := false;
    FOR n IN 1..cardinality(_products) LOOP
        PERFORM await_dead_hold(_products[n], _warehouses[n]);
        ROLLBACK;
        PERFORM await_dead_line(_products[n], _warehouses[n]);
        ROLLBACK;
        IF _units > reclaim_step() THEN
            CALL free_units(_products[n], _warehouses[n], _quantities[n], late);
            IF late THEN
                RETURN;
            END IF;
        END IF;
    END LOOP;
    PERFORM pause_before_try(_tries + 1);
END $$;

-- await_units_of_hold does so for the lines of a hold.
CREATE OR REPLACE PROCEDURE await_units_of_hold(_id uuid, _tries integer, INOUT late boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _lines record := lines_of_hold(stored_row(_id));
BEGIN
    CALL await_units(_lines.products, _lines.warehouses, _lines.quantities, _tries, late);
END $$;
