-- Retention (RETENTION_DAYS) moves holds that were resolved long ago, and movements behind a
-- closing, into the tables of this file. The rows move unchanged. The tables have partitions by
-- month, in UTC. An operator can detach a month, export it and drop it
-- (procedures/detach_archive.sql).
--
-- The tables lie in the schema public: the migrations' role may create nothing elsewhere
-- (infra/bootstrap.sql). The service's role may only read them. procedures/archive_holds.sql and
-- archive_movements.sql fill them, with their owner's rights.
--
-- The two triggers need locks of tables in use. They are waited for in short turns, as in
-- 0002_old_snapshots.sql. The previous release works on this schema: it deletes no hold, and its
-- audit finds the archived units in the view stock_adjustments. It answers 404 for an archived
-- hold.

-- +goose Up

-- The columns are those of reservations, in their order. A file that adds a column there adds it
-- here too, because the rows are compared as a whole.
CREATE TABLE archived_reservations (
    LIKE reservations,
    PRIMARY KEY (id, updated_at),
    CONSTRAINT i3_only_resolved_holds CHECK (status <> 'PENDING')
) PARTITION BY RANGE (updated_at);

-- resolved_at is the updated_at of the hold. So a hold and its lines lie in the same month. The
-- other columns are those of reservation_items.
CREATE TABLE archived_items (
    resolved_at timestamptz NOT NULL,
    LIKE reservation_items,
    PRIMARY KEY (reservation_id, product_id, warehouse_id, resolved_at)
) PARTITION BY RANGE (resolved_at);

-- The columns are those of stock_movements. Movements that name a document stay there, so that a
-- line is applied once, for ever. The first and the newest movement of a stock row stay too.
CREATE TABLE archived_movements (
    LIKE stock_movements,
    PRIMARY KEY (product_id, warehouse_id, seq, at)
) PARTITION BY RANGE (at);

-- The months that have partitions, or had them. A month that was detached gets no more rows: what
-- is left of it stays where it is.
CREATE TABLE archived_months (
    month    timestamptz PRIMARY KEY, -- its beginning
    detached boolean NOT NULL DEFAULT false
);

-- One row for each stock row of which something was archived. The movements up to seq are archived,
-- except those that stay. total is the total_after of movement seq. moved is the sum of the deltas
-- of the archived movements, without sales. sold is the sum of the units of the archived CONFIRMED
-- holds.
CREATE TABLE archived_stock (
    product_id   uuid,
    warehouse_id uuid,
    seq          bigint  NOT NULL DEFAULT 0,
    total        integer NOT NULL DEFAULT 0,
    moved        bigint  NOT NULL DEFAULT 0,
    sold         bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (product_id, warehouse_id)
);

-- The stock row at which archive_movements goes on: one row, or none before its first call.
CREATE TABLE archive_position (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    product_id   uuid NOT NULL,
    warehouse_id uuid NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I3: % never changes: %', tg_table_name, to_jsonb(old)
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER archive_stays BEFORE UPDATE OR DELETE ON archived_reservations
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_archive();
CREATE TRIGGER archive_stays BEFORE UPDATE OR DELETE ON archived_items
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_archive();
CREATE TRIGGER archive_stays BEFORE UPDATE OR DELETE ON archived_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_archive();

-- I3 for deletions: a hold or a line is deleted only when the same row lies in the archive.
-- +goose StatementBegin
CREATE FUNCTION refuse_removal_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM archived_reservations a
                   WHERE a.id = old.id AND a.updated_at = old.updated_at AND a = old) THEN
        RAISE EXCEPTION 'I3: hold % isn''t in the archive, so it stays', old.id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN old;
END $$;

CREATE FUNCTION refuse_removal_of_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM reservations r
                   JOIN archived_items a ON a.resolved_at = r.updated_at
                   WHERE r.id = old.reservation_id AND a.reservation_id = old.reservation_id
                     AND a.product_id = old.product_id AND a.warehouse_id = old.warehouse_id
                     AND to_jsonb(a) - 'resolved_at' = to_jsonb(old)) THEN
        RAISE EXCEPTION 'I3: the line of product % in warehouse % of hold % isn''t in the archive, '
                        'so it stays', old.product_id, old.warehouse_id, old.reservation_id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN old;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, reservation_items IN SHARE ROW EXCLUSIVE MODE;
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

CREATE TRIGGER i3_holds_stay BEFORE DELETE ON reservations
    FOR EACH ROW EXECUTE FUNCTION refuse_removal_of_hold();
CREATE TRIGGER i3_lines_stay BEFORE DELETE ON reservation_items
    FOR EACH ROW EXECUTE FUNCTION refuse_removal_of_line();

-- The function of the trigger i8_movements_stay lets a movement go that lies in the archive.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_change_of_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'DELETE' AND EXISTS (
           SELECT FROM archived_movements a
           WHERE a.product_id = old.product_id AND a.warehouse_id = old.warehouse_id
             AND a.seq = old.seq AND a.at = old.at AND a = old) THEN
        RETURN old;
    END IF;
    RAISE EXCEPTION 'I8: movement % of product % in warehouse % never changes',
                    old.seq, old.product_id, old.warehouse_id USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

-- The view's sum less the units of the CONFIRMED holds that are left is still the total.
CREATE OR REPLACE VIEW stock_adjustments AS
SELECT product_id, warehouse_id, delta, reason, created_at FROM old_stock_adjustments
UNION ALL
SELECT product_id, warehouse_id, delta, note, at FROM stock_movements
WHERE kind <> 'SALE'
  AND (kind <> 'OPENING' OR source IS NOT NULL OR note IS DISTINCT FROM 'taken over')
UNION ALL
SELECT product_id, warehouse_id, (moved - sold)::integer, 'archived', NULL FROM archived_stock;

-- No more units of a line come back than were sold, and only of a confirmed hold. The lock of the
-- hold makes its returns follow one another, as in procedures/return_goods.sql. The statements
-- after it see each return before.
-- +goose StatementBegin
CREATE FUNCTION refuse_wrong_return() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    _hold     reservations;
    _sold     integer;
    _returned bigint;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = new.reservation_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock(9, hashtext(new.reservation_id::text));
        SELECT * INTO _hold FROM archived_reservations WHERE id = new.reservation_id;
    END IF;
    IF _hold.product_id IS NOT NULL THEN
        _sold := CASE WHEN (_hold.product_id, _hold.warehouse_id) =
                           (new.product_id, new.warehouse_id) THEN _hold.quantity ELSE 0 END;
    ELSE
        SELECT coalesce(sum(l.quantity), 0) INTO _sold
        FROM (SELECT reservation_id, product_id, warehouse_id, quantity FROM reservation_items
              UNION ALL
              SELECT reservation_id, product_id, warehouse_id, quantity FROM archived_items) l
        WHERE l.reservation_id = new.reservation_id AND l.product_id = new.product_id
          AND l.warehouse_id = new.warehouse_id;
    END IF;
    SELECT sum(r.quantity) INTO _returned FROM returns r
    WHERE r.reservation_id = new.reservation_id AND r.product_id = new.product_id
      AND r.warehouse_id = new.warehouse_id;
    IF _hold.status IS DISTINCT FROM 'CONFIRMED' OR _returned > _sold THEN
        RAISE EXCEPTION 'hold % is %: of its % units of product % in warehouse %, % would be back',
                        new.reservation_id, _hold.status, _sold, new.product_id, new.warehouse_id,
                        _returned
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER returned_within_sold AFTER INSERT ON returns
    FOR EACH ROW EXECUTE FUNCTION refuse_wrong_return();
