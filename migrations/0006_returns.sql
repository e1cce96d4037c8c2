-- Goods of confirmed holds that came back.
--
-- This file creates everything anew and locks nothing that exists.

-- +goose Up

-- One row for each line of a return. Rows are only added. A return is named by its hold and its
-- reference, and its lines are numbered from 1.
--
-- product_id and warehouse_id name the line of the hold that was sold. to_warehouse_id is where the
-- units went back on the shelf, and seq is the number of the movement there. Both are null when the
-- units weren't restocked.
--
-- There is no foreign key to the hold, because old holds may move to an archive.
CREATE TABLE returns (
    reservation_id  uuid        NOT NULL,
    reference       text COLLATE "C" NOT NULL CHECK (reference <> ''),
    line            integer     NOT NULL CHECK (line > 0),
    product_id      uuid        NOT NULL,
    warehouse_id    uuid        NOT NULL,
    quantity        integer     NOT NULL CHECK (quantity > 0),
    to_warehouse_id uuid,
    seq             bigint,
    at              timestamptz NOT NULL,
    actor           text,
    PRIMARY KEY (reservation_id, reference, line),
    CONSTRAINT a_restocked_line_has_a_movement CHECK ((to_warehouse_id IS NULL) = (seq IS NULL))
);

-- Serves the audit, which reads the returns since an instant.
CREATE INDEX returns_by_time ON returns (at);

-- No more units of a line come back than were sold, and only of a confirmed hold. The lock of the
-- hold makes its returns follow one another. The statements after it see each return before.
-- +goose StatementBegin
CREATE FUNCTION refuse_wrong_return() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _hold     reservations;
    _sold     bigint := 0;
    _returned bigint;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = new.reservation_id FOR NO KEY UPDATE;
    IF _hold.product_id = new.product_id AND _hold.warehouse_id = new.warehouse_id THEN
        _sold := _hold.quantity;
    ELSIF _hold.product_id IS NULL THEN
        SELECT coalesce(sum(l.quantity), 0) INTO _sold FROM reservation_items l
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
