-- The triggers of holds and of stock rows refuse, and write nothing. Up to now
-- refuse_change_of_hold wrote the ledger row, and i8_total_moves the movement, of a release that
-- wrote none itself (0010_ledger.sql, 0004_movements.sql). Every release that can still be served
-- writes its own, the previous one too: it works on this schema.
--
-- Old rows stay valid. A hold of version 0 is from before the ledger. Its ledger begins with
-- its next transition, which the verb writes. The movements with the note 'by the previous release'
-- stay.
--
-- The table old_stock_adjustments stays: it has the history from before the movements, and the
-- audit needs its sums, because the sales of that time have no movements. So does the view
-- stock_adjustments, which adds it all up: the audits read it, and the health check of the previous
-- release asks for the right to. Only the trigger that let an INSERT into the view do nothing goes:
-- such an INSERT is refused now.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. No statement that began
-- before may call a function that goes, and a trigger of inventory is made anew.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE inventory IN ACCESS EXCLUSIVE MODE;
            DROP TRIGGER skip_adjustment ON stock_adjustments;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF _turn = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
-- +goose StatementEnd

DROP FUNCTION skip_adjustment();

-- I3, I4 and I10 in SQL. A hold's version rises by one with each change, and updated_at never
-- falls, so that the events of a hold are in order by time and version. One change keeps the
-- version: in the transaction that made the hold, restart_hold lets it begin again. The hold's
-- first row in the ledger is of this transaction then. The other conditions are those of
-- 0009_hold_guards.sql.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_change_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.status = 'PENDING'
       AND (new.status = 'EXPIRED') = (new.updated_at = new.expires_at)
       AND new.updated_at <= new.expires_at
       AND new.quantity = old.quantity
       AND new.product_id IS NOT DISTINCT FROM old.product_id
       AND new.warehouse_id IS NOT DISTINCT FROM old.warehouse_id THEN
        IF new.version = old.version + 1 AND new.updated_at >= old.updated_at
           AND new.created_at = old.created_at THEN
            RETURN NULL;
        ELSIF new.version = old.version AND new.status = 'PENDING' AND new.paying = old.paying
              AND new.updated_at = new.created_at AND EXISTS (
                  SELECT FROM ledger l
                  WHERE l.hold_id = new.id AND l.version = new.version AND l.kind = 'h'
                    AND l.xid = pg_current_xact_id()) THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'I10: hold % of version %, made at % and changed at %, can''t go to '
                        'version %, made at % and changed at %',
                        old.id, old.version, old.created_at, old.updated_at,
                        new.version, new.created_at, new.updated_at
            USING ERRCODE = 'check_violation';
    ELSIF old.status <> 'PENDING' THEN
        RAISE EXCEPTION 'I3: hold % is % and never changes again', old.id, old.status
            USING ERRCODE = 'check_violation';
    ELSIF (new.status = 'EXPIRED') <> (new.updated_at = new.expires_at)
          OR new.updated_at > new.expires_at THEN
        RAISE EXCEPTION 'I4: hold % ends at % and can''t be % at %',
                        old.id, new.expires_at, new.status, new.updated_at
            USING ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION 'I2: hold % is of % units of product % in warehouse % and never of others',
                    old.id, old.quantity, old.product_id, old.warehouse_id
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

DROP FUNCTION take_over_transition(reservations);

-- I8 for a stock row, by two triggers. This one looks at each change of total and seq before its
-- transaction commits: seq rises by one, and the movement of that number is there, with the new
-- total and the difference. The other one looks at each movement as it is written: it is what its
-- stock row says then. So if a row's movements were right before a transaction, they are right
-- after it: each change adds the next one, and no other can be written. Neither trigger needs to
-- look for the movement before.
--
-- It is deferred, because a verb changes the row and then writes the movement. When it refuses, the
-- COMMIT fails, and the whole transaction is undone. A reserve sets none of these columns, so it
-- doesn't even queue a look. A BEFORE trigger would lock the stock row first, which writes a log
-- record of its own. The old product and warehouse lead to the movement, so that a stock row can't
-- become that of another product.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_without_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.seq = old.seq + 1 AND EXISTS (
           SELECT FROM stock_movements m
           WHERE m.product_id = old.product_id AND m.warehouse_id = old.warehouse_id
             AND m.seq = new.seq AND m.total_after = new.total
             AND m.delta = new.total - old.total) THEN
        RETURN NULL;
    ELSIF new.seq = old.seq AND new.total = old.total
          AND new.product_id = old.product_id AND new.warehouse_id = old.warehouse_id THEN
        RETURN NULL; -- as the release of a cart does
    END IF;
    RAISE EXCEPTION 'I8: product % in warehouse % can''t go from movement %, to %, to movement %, '
                    'to %, without that movement',
                    old.product_id, old.warehouse_id, old.seq, old.total, new.seq, new.total
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

DROP TRIGGER i8_total_moves ON inventory;

CREATE CONSTRAINT TRIGGER i8_total_moves
    AFTER UPDATE OF product_id, warehouse_id, total, seq ON inventory
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_change_without_movement();

DROP FUNCTION take_over_movement();

-- The function of the trigger i8_movement_is_right. A statement updates the stock row, and then
-- writes the movement or does both at once. A new stock row isn't updated, so its OPENING is
-- compared with its total here. The first condition is for the row alone, as in 0004_movements.sql.
-- But a line of a document may ask for no change: its movement is how the line is remembered, as a
-- count's is that finds the total right.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_wrong_movement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _right boolean;
BEGIN
    IF (new.kind = 'OPENING') <> (new.seq = 1)
       OR new.seq = 1 AND new.delta <> new.total_after
       OR new.delta = 0 AND new.kind NOT IN ('OPENING', 'COUNT') AND new.shortfall IS NULL
          AND (new.kind <> 'ADJUSTMENT' OR new.source IS NULL OR new.asked IS DISTINCT FROM 0)
       OR new.note = ''
       OR num_nulls(new.source, new.reference, new.line) NOT IN (0, 3) THEN
        RAISE EXCEPTION 'I8: movement % of product % in warehouse % isn''t whole',
                        new.seq, new.product_id, new.warehouse_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'i8_whole_movement';
    END IF;
    SELECT i.seq = new.seq AND i.total = new.total_after
    INTO _right
    FROM inventory i
    WHERE i.product_id = new.product_id AND i.warehouse_id = new.warehouse_id
    ORDER BY i.epoch DESC LIMIT 1; -- leads to the row's newest version
    IF _right IS NOT TRUE THEN
        RAISE EXCEPTION 'I8: movement % of product % in warehouse %, by % to %, contradicts the '
                        'stock row',
                        new.seq, new.product_id, new.warehouse_id, new.delta, new.total_after
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN new;
END $$;
-- +goose StatementEnd

-- A new stock row gets an OPENING unless the statement that makes it has written one. A movement of
-- another number isn't enough: the row's movements begin with 1.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION record_opening_stock() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after, note)
    SELECT i.product_id, i.warehouse_id, 1, clock_timestamp(), 'OPENING', i.total, i.total,
           'opening stock'
    FROM made i
    WHERE NOT EXISTS (
        SELECT FROM stock_movements m
        WHERE m.product_id = i.product_id AND m.warehouse_id = i.warehouse_id AND m.seq = 1);
    RETURN NULL;
END $$;
-- +goose StatementEnd
