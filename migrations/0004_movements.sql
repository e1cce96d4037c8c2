-- A stock row's movements say how its total came about (I8). stock_movements takes the place of
-- stock_adjustments and has the sales too. inventory.seq is the number of a row's newest movement.
--
-- Each stock row that exists gets one movement, its OPENING. They are written before the locks are
-- taken. Under the locks, only those of the rows whose total has changed since are written anew.
-- The locks are waited for in short turns, as in 0002_old_snapshots.sql.
--
-- The previous release works on this schema. Its confirm and its adjust_stock change total and not
-- seq: the trigger i8_total_moves writes their movements. Its audit reads stock_adjustments, which
-- is a view now. A later release drops the view, the table old_stock_adjustments, and that part of
-- the trigger.

-- +goose Up

CREATE TYPE movement_kind AS ENUM ('OPENING', 'ADJUSTMENT', 'COUNT', 'SALE', 'RETURN');

-- One row for each change of a total, and for each count that found the total right. Rows are only
-- added.
--
-- source, reference and line name a line of the document that asked for the movement. Each line is
-- applied once. asked is the line's delta, or its count, as of the movement as_of_seq unless that
-- is null. An OPENING that was counted has as_of_seq 0. shortfall is by how many units the movement
-- missed what the line asked for.
--
-- reservation_id is the hold that was sold. xid is the transaction that wrote the row: readers that
-- must miss no row go by it.
--
-- There is no foreign key to inventory: its check would look for the hot row and lock it once more.
-- A trigger refuses to delete a stock row instead.
CREATE TABLE stock_movements (
    product_id     uuid          NOT NULL,
    warehouse_id   uuid          NOT NULL,
    seq            bigint        NOT NULL,
    at             timestamptz   NOT NULL,
    xid            xid8          NOT NULL DEFAULT pg_current_xact_id(),
    reservation_id uuid,
    kind           movement_kind NOT NULL,
    delta          integer       NOT NULL,
    total_after    integer       NOT NULL,
    line           integer,
    source         text COLLATE "C",
    reference      text COLLATE "C",
    note           text,
    actor          text,
    asked          integer,
    as_of_seq      bigint,
    shortfall      integer,
    PRIMARY KEY (product_id, warehouse_id, seq)
);

-- Serves the readers that follow the movements by transaction.
CREATE INDEX stock_movements_by_xid ON stock_movements (xid);

-- Keeps a line from being applied twice.
CREATE UNIQUE INDEX stock_movements_by_line
    ON stock_movements (source, reference, line) WHERE source IS NOT NULL;

-- The role's settings forbid to read whole tables, which this file does.
SET LOCAL enable_seqscan = on;

-- +goose StatementBegin
DO $$
BEGIN
    FOR _pass IN 1..2 LOOP
        IF _pass = 2 THEN
            SET LOCAL lock_timeout = '500 ms';
            FOR _turn IN 1..60 LOOP
                BEGIN
                    LOCK TABLE inventory, stock_adjustments IN ACCESS EXCLUSIVE MODE;
                    EXIT;
                EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                    IF _turn = 60 THEN
                        RAISE;
                    END IF;
                    PERFORM pg_sleep(0.5);
                END;
            END LOOP;
        END IF;
        DELETE FROM stock_movements m
        WHERE NOT EXISTS (
            SELECT FROM inventory i
            WHERE i.product_id = m.product_id AND i.warehouse_id = m.warehouse_id
              AND i.total = m.total_after);
        INSERT INTO stock_movements
               (product_id, warehouse_id, seq, at, kind, delta, total_after, note)
        SELECT i.product_id, i.warehouse_id, 1, clock_timestamp(), 'OPENING', i.total, i.total,
               'taken over'
        FROM inventory i
        WHERE NOT EXISTS (
            SELECT FROM stock_movements m
            WHERE m.product_id = i.product_id AND m.warehouse_id = i.warehouse_id);
    END LOOP;
END $$;
-- +goose StatementEnd

-- A new stock row begins with movement 1, as the rows that exist do. The constant default writes no
-- row.
ALTER TABLE inventory ADD COLUMN seq bigint NOT NULL DEFAULT 1;

-- A stock row's opening count is a movement too, whichever statement inserts the row. A statement
-- that writes the OPENING itself, with the line that asked for it, gets no second one. The function
-- has its owner's rights, as take_over_movement below.
DROP TRIGGER inventory_opening ON inventory;

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
        WHERE m.product_id = i.product_id AND m.warehouse_id = i.warehouse_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER inventory_opening AFTER INSERT ON inventory REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION record_opening_stock();

-- I8 for one movement: it is what its stock row says now, and follows from the movement before it.
-- So a statement updates the stock row, and then writes the movement or does both at once.
--
-- The first condition is for the row alone. It isn't a CHECK, because Postgres reads the text of a
-- CHECK again for each statement: that took a tenth of a confirm's time.
-- +goose StatementBegin
CREATE FUNCTION refuse_wrong_movement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _right boolean;
BEGIN
    IF (new.kind = 'OPENING') <> (new.seq = 1)
       OR new.delta = 0 AND new.kind NOT IN ('OPENING', 'COUNT') AND new.shortfall IS NULL
       OR new.note = ''
       OR num_nulls(new.source, new.reference, new.line) NOT IN (0, 3) THEN
        RAISE EXCEPTION 'I8: movement % of product % in warehouse % isn''t whole',
                        new.seq, new.product_id, new.warehouse_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'i8_whole_movement';
    END IF;
    SELECT i.seq = new.seq AND i.total = new.total_after
           AND new.total_after = new.delta + CASE WHEN new.seq = 1 THEN 0 ELSE (
               SELECT m.total_after FROM stock_movements m
               WHERE m.product_id = new.product_id AND m.warehouse_id = new.warehouse_id
                 AND m.seq = new.seq - 1) END
    INTO _right
    FROM inventory i
    WHERE i.product_id = new.product_id AND i.warehouse_id = new.warehouse_id
    ORDER BY i.epoch DESC LIMIT 1; -- leads to the row's newest version
    IF _right IS NOT TRUE THEN
        RAISE EXCEPTION 'I8: movement % of product % in warehouse %, by % to %, contradicts the '
                        'stock row or the movement before',
                        new.seq, new.product_id, new.warehouse_id, new.delta, new.total_after
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN new;
END $$;
-- +goose StatementEnd

CREATE TRIGGER i8_movement_is_right BEFORE INSERT ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_wrong_movement();

-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I8: movement % of product % in warehouse % never changes',
                    old.seq, old.product_id, old.warehouse_id USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i8_movements_stay BEFORE UPDATE OR DELETE ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_movement();

-- +goose StatementBegin
CREATE FUNCTION refuse_removal_of_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I8: product % in warehouse % has movements, so its stock row stays',
                    old.product_id, old.warehouse_id USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i8_stock_stays AFTER DELETE ON inventory
    FOR EACH ROW EXECUTE FUNCTION refuse_removal_of_stock();

-- Refuses a jump of seq. When total has changed and seq hasn't, a routine of the previous release
-- has done it: this writes the movement and raises seq. An adjustment may take as many units out of
-- reserved as out of total, so only the calling routine tells whether it is a sale.
--
-- The function has its owner's rights, because a deploy that goes back gives the service's role the
-- previous release's rights only.
-- +goose StatementBegin
CREATE FUNCTION take_over_movement() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _callers text;
BEGIN
    IF new.seq = old.seq AND new.total = old.total THEN
        RETURN NULL;
    ELSIF new.seq <> old.seq THEN
        RAISE EXCEPTION 'I8: product % in warehouse % can''t go from movement % to %',
                        new.product_id, new.warehouse_id, old.seq, new.seq
            USING ERRCODE = 'check_violation';
    END IF;
    GET DIAGNOSTICS _callers = PG_CONTEXT;
    UPDATE inventory SET seq = seq + 1
    WHERE product_id = new.product_id AND warehouse_id = new.warehouse_id;
    INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after, note)
    VALUES (new.product_id, new.warehouse_id, new.seq + 1, clock_timestamp(),
            CASE WHEN strpos(_callers, 'give_up_units') > 0 THEN 'SALE' ELSE 'ADJUSTMENT'
            END::movement_kind,
            new.total - old.total, new.total, 'by the previous release');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A reserve sets neither column, so it doesn't even evaluate the condition. A BEFORE trigger would
-- lock the stock row first, which writes a log record of its own.
--
-- A change by hand of total and seq, without the movement, passes: to look for the movement here
-- would cost each confirm as much as the movement's own check. The next movement of the row is
-- refused then, and the audit finds the row.
CREATE TRIGGER i8_total_moves AFTER UPDATE OF total, seq ON inventory
    FOR EACH ROW WHEN (new.seq <> old.seq + 1)
    EXECUTE FUNCTION take_over_movement();

ALTER TABLE stock_adjustments
    DROP CONSTRAINT stock_adjustments_product_id_warehouse_id_fkey;
ALTER TABLE stock_adjustments RENAME TO old_stock_adjustments;

-- What the totals are made of, except sales. So a row's total is the sum of its adjustments, less
-- the units that were sold from the beginning on.
CREATE VIEW stock_adjustments AS
SELECT product_id, warehouse_id, delta, reason, created_at FROM old_stock_adjustments
UNION ALL
SELECT product_id, warehouse_id, delta, note, at FROM stock_movements
WHERE kind <> 'SALE'
  AND (kind <> 'OPENING' OR source IS NOT NULL OR note IS DISTINCT FROM 'taken over');

-- The previous release's adjust_stock inserts into the view. The trigger above has written the
-- movement by then.
-- +goose StatementBegin
CREATE FUNCTION skip_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER skip_adjustment INSTEAD OF INSERT ON stock_adjustments
    FOR EACH ROW EXECUTE FUNCTION skip_adjustment();

-- The roles have the same rights to the view as they had to the table, until this release's rights
-- are granted.
-- +goose StatementBegin
DO $$
DECLARE
    _right record;
BEGIN
    FOR _right IN
        SELECT a.privilege_type, a.grantee::regrole AS role
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'old_stock_adjustments'::regclass AND a.grantee NOT IN (0, c.relowner)
          AND a.privilege_type IN ('SELECT', 'INSERT')
    LOOP
        EXECUTE format('GRANT %s ON stock_adjustments TO %s', _right.privilege_type, _right.role);
    END LOOP;
END $$;
-- +goose StatementEnd
