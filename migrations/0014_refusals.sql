-- The triggers of holds and of stock rows refuse, and write nothing. Up to now refuse_change_of_hold
-- wrote the ledger row, and i8_total_moves the movement, of a release that wrote none itself
-- (0010_ledger.sql, 0004_movements.sql). Every release that can still be served writes its own, the
-- previous one too: it works on this schema.
--
-- What is old stays valid. A hold of version 0 is from before the ledger. Its ledger begins with its
-- next transition, which the verb writes. The movements with the note 'by the previous release' stay.
--
-- The table old_stock_adjustments stays: it has the history from before the movements, and the audit
-- needs its sums, because the sales of that time have no movements. So does the view
-- stock_adjustments, which adds it all up: the audits read it, and the health check of the previous
-- release asks for the right to. Only the trigger that let an INSERT into the view do nothing goes:
-- such an INSERT is refused now.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. It is needed because the
-- functions that go mustn't be called by a statement that began before.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, inventory IN SHARE ROW EXCLUSIVE MODE;
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

-- I3, I4 and I10 in SQL. A hold's version rises by one with each change, and updated_at never falls,
-- so that the events of a hold are in order by time and version. One change keeps the version: in
-- the transaction that made the hold, restart_hold lets it begin again. The hold's first row in the
-- ledger is of this transaction then. The other conditions are those of 0009_hold_guards.sql.
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

-- I8 for a stock row: a change of its total raises its seq by one, and so does nothing else.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_without_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I8: product % in warehouse % can''t go from movement % to %, with a total of %',
                    new.product_id, new.warehouse_id, old.seq, new.seq, new.total
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE OR REPLACE TRIGGER i8_total_moves AFTER UPDATE OF total, seq ON inventory
    FOR EACH ROW WHEN (new.seq <> old.seq + 1 AND (new.seq, new.total) <> (old.seq, old.total))
    EXECUTE FUNCTION refuse_change_without_movement();

DROP FUNCTION take_over_movement();
