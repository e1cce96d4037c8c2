-- free_units reclaims dead holds of a stock row until _units are free there, or until no dead hold
-- is left that others haven't locked. It takes them in steps of reclaim_step() holds, and each step
-- is a transaction: a need that no single transaction could meet in time is met over several, and
-- a step that is done stays done. It serves callers who need more units than one step surely
-- frees. They take the units in a transaction of their own afterwards.
--
-- timed_out says that the steps stopped because two seconds of the caller's statement had passed.
-- The caller must hold no lock. A step that is lost in a crash is taken again, so it doesn't wait
-- for the disk.
CREATE OR REPLACE PROCEDURE free_units(
    _product uuid, _warehouse uuid, _units bigint, INOUT timed_out boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _free  bigint;
    _from  timestamptz;
    _freed bigint := 0;
BEGIN
    LOOP
        timed_out := false;
        SELECT i.total - i.reserved, i.first_end INTO _free, _from FROM inventory i
        WHERE i.product_id = _product AND i.warehouse_id = _warehouse
        ORDER BY i.epoch DESC LIMIT 1;
        EXIT WHEN _free IS NULL OR _free >= _units;
        timed_out := _freed > 0 -- a step was taken, so that each call gets further
                     AND clock_timestamp() - statement_timestamp() > interval '2 s';
        EXIT WHEN timed_out;
        _freed := reclaim_units(_product, _warehouse, _from, _units - _free);
        EXIT WHEN _freed = 0;
        PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
        UPDATE inventory SET reserved = reserved - _freed, epoch = next_epoch(epoch)
        WHERE product_id = _product AND warehouse_id = _warehouse;
        PERFORM raise_first_end(_product, _warehouse);
        COMMIT;
    END LOOP;
END $$;
