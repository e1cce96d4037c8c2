-- adjust_stock changes what lies on the shelf and writes a movement with the reason (I8), as
-- try_to_move does. It waits for a dead hold that another caller has locked, as a reserve does. It
-- fails when less would be left than is held (I1).
--
-- The change is one transaction, so it can't free a great many dead holds: after two seconds it
-- fails, and says how to free them in steps. Each adjustment should be a transaction of its own,
-- so that it waits for no dead hold while it holds a stock row.
CREATE OR REPLACE FUNCTION adjust_stock(
    _product uuid, _warehouse uuid, _delta integer, _reason text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _wanted stock_movements;
    _moved  record;
    _tries  integer := 0;
BEGIN
    _wanted.product_id := _product;
    _wanted.warehouse_id := _warehouse;
    _wanted.kind := 'ADJUSTMENT';
    _wanted.asked := _delta;
    _wanted.note := _reason;
    LOOP
        SELECT t.outcome, t.units, t.free INTO _moved FROM try_to_move(_wanted, false) t;
        EXIT WHEN _moved.outcome <> 'RETRY';
        _tries := _tries + 1;
        IF _tries = max_tries() THEN
            RAISE EXCEPTION 'other callers kept changing or locking product % in warehouse %',
                            _product, _warehouse USING ERRCODE = 'lock_not_available';
        END IF;
        -- The exception undoes the block, so that the locks of the holds are released.
        BEGIN
            PERFORM await_dead_hold(_product, _warehouse);
            RAISE EXCEPTION USING ERRCODE = 'AL000';
        EXCEPTION WHEN SQLSTATE 'AL000' THEN
        END;
        BEGIN
            PERFORM await_dead_line(_product, _warehouse);
            RAISE EXCEPTION USING ERRCODE = 'AL000';
        EXCEPTION WHEN SQLSTATE 'AL000' THEN
        END;
        PERFORM pause_before_try(_tries + 1);
    END LOOP;
    CASE _moved.outcome
    WHEN 'MOVED' THEN
        RETURN;
    WHEN 'HELD' THEN
        RAISE EXCEPTION 'only % units of product % in warehouse % are not held',
                        _moved.free, _product, _warehouse
            USING ERRCODE = 'check_violation', CONSTRAINT = 'i1_reserved_within_total';
    WHEN 'MANY_DEAD' THEN
        RAISE EXCEPTION 'too many dead holds occupy product % in warehouse %', _product, _warehouse
            USING ERRCODE = 'program_limit_exceeded',
                  HINT = format('First CALL free_units(%L, %L, %s, NULL).', _product, _warehouse,
                                _moved.units);
    WHEN 'NO_STOCK_ROW' THEN
        RAISE EXCEPTION 'there is no stock row for product % in warehouse %', _product, _warehouse;
    ELSE
        RAISE EXCEPTION 'product % in warehouse % can''t have more than % units',
                        _product, _warehouse, max_total() USING ERRCODE = 'check_violation';
    END CASE;
END $$;
