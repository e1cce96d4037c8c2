-- adjust_stock changes what lies on the shelf and records the reason, or does neither (I8). Units
-- of dead holds may be taken away, as they may be reserved (I4). It reclaims only the units that
-- the shelf lacks, so a delivery reclaims none. It waits for a dead hold that another caller has
-- locked, as a reserve does. I1's check refuses a change that would leave less than is held.
--
-- The change is one transaction, so it can't free a great many dead holds: after two seconds it
-- fails, and says how to free them in steps. Each adjustment should be a transaction of its own,
-- so that it waits for no dead hold while it holds a stock row.
CREATE OR REPLACE FUNCTION adjust_stock(
    _product uuid, _warehouse uuid, _delta integer, _reason text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _tries integer := 0;
BEGIN
    WHILE NOT try_to_adjust(_product, _warehouse, _delta) LOOP
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
    INSERT INTO stock_adjustments (product_id, warehouse_id, delta, reason)
    VALUES (_product, _warehouse, _delta, _reason);
END $$;

-- try_to_adjust changes a stock row's total by _delta. It answers false, and has changed and locked
-- nothing, when other callers have locked the dead holds whose units it needs, or have just changed
-- the row. The look is one snapshot without a lock, and it only refuses, as in reserve_line. The
-- guard of the update decides.
CREATE OR REPLACE FUNCTION try_to_adjust(_product uuid, _warehouse uuid, _delta integer)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _free  bigint;
    _from  timestamptz;
    _dead  bigint;
    _step  bigint;
    _freed bigint := 0;
    _start timestamptz := clock_timestamp();
BEGIN
    SELECT c.free, c.first_end,
           CASE WHEN c.free + _delta < 0
                THEN dead_units(_product, _warehouse, c.first_end, -(c.free + _delta))
                ELSE 0 END
    INTO _free, _from, _dead
    FROM (SELECT i.total::bigint - i.reserved AS free, i.first_end FROM inventory i
          WHERE i.product_id = _product AND i.warehouse_id = _warehouse) c;
    IF _free IS NULL THEN
        RAISE EXCEPTION 'there is no stock row for product % in warehouse %', _product, _warehouse;
    END IF;
    IF _free + _dead + _delta < 0 THEN
        RAISE EXCEPTION 'only % units of product % in warehouse % are not held',
                        _free + _dead, _product, _warehouse
            USING ERRCODE = 'check_violation', CONSTRAINT = 'i1_reserved_within_total';
    END IF;
    WHILE _free + _freed + _delta < 0 LOOP
        _step := reclaim_units(_product, _warehouse, _from, -(_free + _freed + _delta));
        EXIT WHEN _step = 0;
        _freed := _freed + _step;
        IF _free + _freed + _delta < 0 AND clock_timestamp() - _start > interval '2 s' THEN
            RAISE EXCEPTION 'too many dead holds occupy product % in warehouse %',
                            _product, _warehouse
                USING ERRCODE = 'program_limit_exceeded',
                      HINT = format('First CALL free_units(%L, %L, %s, NULL).', _product,
                                    _warehouse, -_delta::bigint);
        END IF;
    END LOOP;
    UPDATE inventory SET total = total + _delta, reserved = reserved - _freed,
                         epoch = next_epoch(epoch)
    WHERE product_id = _product AND warehouse_id = _warehouse
      AND total + _delta >= reserved - _freed;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'AL000'; -- undoes the reclaims
    END IF;
    IF _freed > 0 THEN
        PERFORM raise_first_end(_product, _warehouse);
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'AL000' THEN
    RETURN false;
END $$;
