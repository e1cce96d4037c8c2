-- reserve_line holds units of one stock row.
--
-- Outcomes: HELD, with the time at which the hold begins; REPLAYED, with the answer stored under
-- the key; INVENTORY_NOT_FOUND; SHORT, with the shortage; KEY_IN_USE; KEY_REUSED; RETRY when the
-- stock row changed during each of max_tries() tries, or time ran out while many dead holds were
-- reclaimed in steps.
--
-- When the product is archived or the warehouse is closed, the outcome is SHORT too: the shortage
-- has nothing available, and not_for_sale. It is SHORT as well when a hold may not have so many
-- units of the product, or when the product has a limit for each owner: such a hold is made by
-- reserve_detailed, with its owner (lock_owner.sql).
--
-- The steps of one try. Only the last one locks the stock row, so that a hot row is locked for one
-- UPDATE and one commit record.
--
--   step     what is known                    action                          next step
--   look     nothing                          read the stock row, unlocked    refuse, or go on
--   again    the row lacks units and a hold   read it with its dead holds     refuse, or reclaim
--            may be dead, or isn't for sale
--   reclaim  the row lacks units, dead holds  expire as many dead holds       insert
--            have them
--   insert   the row seems to have the units  insert the hold                 take
--   take     the hold is inserted             update the row under the guard  commit, or look again
--
-- A look is one statement, so it has one snapshot. A refusal takes no lock, writes no log record
-- and waits for no flush. The first look refuses only when no hold of the row can be dead: the row
-- counts no hold's units, or its first_end is above a clock that was read after the snapshot. Most
-- calls that find a row sold out end there. The second look is look_again, which also reclaims.
--
-- PL/pgSQL and the executor prepare each expression anew in each transaction. So a call that finds
-- units passes one condition of the look and one behind the update, and what can be computed before
-- the stock row is locked is computed before. The look has no LIMIT, because PL/pgSQL asks it for
-- one row. The hold and its row of the ledger are one statement. Together these were measured to
-- save 6 % of the processor time, and a hot row is locked for a shorter time.
--
-- The second transaction locks the row of the new hold, and its commit flushes the record of that
-- lock. The record takes 56 bytes of the log, and that of write_log_record 104. The lock costs 2 %
-- of a reserve's processor time. The row is found by its place, because a search by the id costs
-- another 2 %. A hold that has changed since its insert lies elsewhere. Then no row is in that
-- place, or the row of another hold, and the lock of any row makes the commit wait for the disk.
-- Without a row, or when it is locked, the record is that of write_log_record.
--
-- No other verb and no sweep waits for the lock: each locks a hold FOR NO KEY UPDATE. So a hold can
-- be resolved, swept and reclaimed while its maker waits for the disk. When another session locks
-- the whole table, this verb may end by lock_timeout after its first commit: service.go knows that
-- error by the text of the statement.
CREATE OR REPLACE PROCEDURE reserve_line(
    _id uuid, _product uuid, _warehouse uuid, _quantity integer, _ttl interval,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now       timestamptz;
    _free      integer;
    _reserved  integer;
    _epoch     integer;
    _first_end timestamptz;
    _takes     boolean; -- the row is for sale, and no limit of the product forbids the hold
    _raise     integer; -- by how much the row's reserved rises
    _place     tid; -- where the row of the hold lies
    _latest    timestamptz; -- a hold that has its stock row's lock after this is restarted
    _tries     integer := 0;
    _late      boolean; -- the steps that free many units took too long
    _ignored   text; -- write_log_record.sql says why
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        _now := clock_timestamp();
        SELECT i.total - i.reserved, i.reserved, i.epoch, i.first_end,
               i.open AND i.max_per_owner IS NULL AND (i.max_per_hold < _quantity) IS NOT TRUE
        INTO _free, _reserved, _epoch, _first_end, _takes
        FROM inventory i
        WHERE i.product_id = _product AND i.warehouse_id = _warehouse
        ORDER BY i.epoch DESC;
        IF _free >= _quantity AND _takes THEN
            _raise := _quantity;
        ELSIF _takes AND (_reserved = 0 OR _first_end > clock_timestamp()) THEN
            outcome := 'SHORT';
            answer := shortage_of_line(_product, _warehouse, _quantity, _free);
            EXIT;
        ELSE
            SELECT l.outcome, l.answer, _quantity - l.freed INTO outcome, answer, _raise
            FROM look_again(_product, _warehouse, _quantity) l;
            EXIT WHEN outcome IS NOT NULL;
        END IF;
        WITH transition AS (
            INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
            VALUES (_now, _now + _ttl, _id, 1, 'h', 'v')
        )
        INSERT INTO reservations
               (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, version)
        VALUES (_id, _product, _warehouse, _quantity, _now, _now, _now + _ttl, 1)
        RETURNING ctid INTO _place;
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r, false))
            FROM reservations r WHERE r.id = _id;
        END IF;

        outcome := 'HELD';
        answer := to_jsonb(_now);
        _latest := _now + lost_time(_ttl);
        _ignored := set_config('synchronous_commit', 'off', true); -- for this transaction

        -- The guard on the last line decides. Postgres evaluates it again after a wait for the
        -- row's lock. The epoch only leads to the row (0002_old_snapshots.sql).
        UPDATE inventory
        SET reserved = reserved + _raise, first_end = least(first_end, _now + _ttl),
            epoch = next_epoch(epoch)
        WHERE product_id = _product AND warehouse_id = _warehouse AND epoch >= _epoch
          AND total - reserved >= _raise AND open
          AND max_per_owner IS NULL AND (max_per_hold < _quantity) IS NOT TRUE;
        IF FOUND THEN
            IF _raise < _quantity OR clock_timestamp() > _latest THEN
                PERFORM raise_first_end(_product, _warehouse)
                WHERE _raise < _quantity AND random() < 0.03; -- often enough, and seldom noticed
                IF clock_timestamp() > _latest THEN
                    answer := to_jsonb(restart_hold(_id, _ttl, _key));
                END IF;
            END IF;
            COMMIT;
            PERFORM FROM reservations r WHERE r.ctid = _place FOR KEY SHARE SKIP LOCKED;
            IF NOT FOUND THEN
                _ignored := write_log_record();
            END IF;
            RETURN;
        END IF;

        outcome := 'RETRY';
        answer := NULL;
        ROLLBACK;
        _tries := _tries + 1;
        EXIT WHEN _tries = max_tries();
        PERFORM await_dead_hold(_product, _warehouse);
        ROLLBACK;
        PERFORM await_dead_line(_product, _warehouse);
        ROLLBACK;
        IF _quantity > reclaim_step() THEN
            CALL free_units(_product, _warehouse, _quantity, _late);
            EXIT WHEN _late;
        END IF;
        PERFORM pause_before_try(_tries + 1);
    END LOOP;
    IF outcome = 'REPLAYED' THEN
        COMMIT;
        _ignored := write_log_record();
    END IF;
END $$;

-- look_again reads a stock row that seems to lack units, or not to be for sale. When the row lacks
-- units, it counts those of the dead holds as available (I4), by a clock that it reads after the
-- snapshot. outcome is why the hold is refused, or null when there are units: then freed counts
-- those of dead holds, which are expired.
CREATE OR REPLACE FUNCTION look_again(
    _product uuid, _warehouse uuid, _quantity integer,
    OUT outcome text, OUT answer jsonb, OUT freed bigint)
LANGUAGE plpgsql AS $$
DECLARE
    _free  integer;
    _from  timestamptz;
    _takes boolean;
    _dead  bigint;
BEGIN
    freed := 0;
    SELECT i.total - i.reserved, i.first_end,
           i.open AND i.max_per_owner IS NULL AND (i.max_per_hold < _quantity) IS NOT TRUE,
           CASE WHEN i.total - i.reserved < _quantity
                THEN dead_units(_product, _warehouse, i.first_end, _quantity) ELSE 0 END
    INTO _free, _from, _takes, _dead
    FROM inventory i
    WHERE i.product_id = _product AND i.warehouse_id = _warehouse
    ORDER BY i.epoch DESC;
    IF _free IS NULL THEN
        outcome := 'INVENTORY_NOT_FOUND';
    ELSIF NOT _takes THEN
        answer := coalesce(
            closed_lines(ARRAY[_product], ARRAY[_warehouse], ARRAY[_quantity]),
            limits_of_cart(ARRAY[_product], ARRAY[_warehouse], ARRAY[_quantity]));
        outcome := CASE WHEN answer IS NOT NULL THEN 'SHORT' END;
    ELSIF _free + _dead < _quantity THEN
        outcome := 'SHORT';
        answer := shortage_of_line(_product, _warehouse, _quantity, _free + _dead);
    ELSE
        freed := reclaim_units(_product, _warehouse, _from, _quantity - _free);
    END IF;
END $$;

-- shortage_of_line is the answer to a caller who wants more units than there are. The planner
-- replaces the call by the expression.
CREATE OR REPLACE FUNCTION shortage_of_line(
    _product uuid, _warehouse uuid, _requested integer, _available bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_array(jsonb_build_object(
               'product_id', _product, 'warehouse_id', _warehouse,
               'requested', _requested, 'available', _available))
$$;
