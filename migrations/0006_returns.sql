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
-- There is no foreign key to the hold, because old holds move to an archive (0008_archive.sql). The
-- trigger returned_within_sold of that file refuses more than was sold.
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

-- Serves the audit of what is new.
CREATE INDEX returns_by_time ON returns (at);
