-- The tables, types, triggers, constraints and indexes. The promises I1 to I9 named here are those
-- of internal/reservation/doc.go. The routines that work on these tables are in procedures/;
-- package migrate tells how they are installed. A trigger's function stands here, beside its
-- trigger.
--
-- This file creates everything anew and locks nothing that exists.

-- +goose Up

-- Names sort by their bytes (COLLATE "C"), so that the catalog's order and its cursors survive an
-- upgrade of the operating system's collations.
CREATE TABLE products (
    id   uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    sku  text COLLATE "C" NOT NULL UNIQUE CHECK (sku <> '')
);

-- Serves the catalog's pages: ORDER BY name, id after a cursor.
CREATE INDEX products_by_name ON products (name, id);

CREATE TABLE warehouses (
    id   uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL CHECK (name <> '')
);

-- Serves the pages of warehouses, as above.
CREATE INDEX warehouses_by_name ON warehouses (name, id);

-- One row for each product and warehouse: the row that a flash sale fights for. Only the key is
-- indexed, so that every change of the counts is a heap-only update. The fill factor leaves room
-- for the new row versions on the same page.
CREATE TABLE inventory (
    product_id   uuid    NOT NULL REFERENCES products,
    warehouse_id uuid    NOT NULL REFERENCES warehouses,
    total        integer NOT NULL,
    reserved     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (product_id, warehouse_id),
    CONSTRAINT i1_reserved_within_total CHECK (0 <= reserved AND reserved <= total)
) WITH (fillfactor = 70);

-- I8: every change of total, except by confirming a hold. Rows are only added.
CREATE TABLE stock_adjustments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id   uuid        NOT NULL,
    warehouse_id uuid        NOT NULL,
    delta        integer     NOT NULL CHECK (delta <> 0),
    reason       text        NOT NULL CHECK (reason <> ''),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (product_id, warehouse_id) REFERENCES inventory
);

-- A new stock row's opening count is an adjustment too, whichever statement inserts the row.
-- +goose StatementBegin
CREATE FUNCTION record_opening_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock_adjustments (product_id, warehouse_id, delta, reason)
    VALUES (new.product_id, new.warehouse_id, new.total, 'opening stock');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER inventory_opening AFTER INSERT ON inventory
    FOR EACH ROW WHEN (new.total <> 0) EXECUTE FUNCTION record_opening_stock();

CREATE TYPE reservation_status AS ENUM ('PENDING', 'CONFIRMED', 'RELEASED', 'EXPIRED');

-- A hold. Most holds have a single line, which stands in the row itself and so costs one insert. A
-- cart of several lines has no product and no warehouse here, but rows in reservation_items.
--
-- A resolved hold never changes again (I3), so updated_at is also the time when it was confirmed
-- or released. An expired hold expired at expires_at, whenever that was written down.
--
-- The key is a UUIDv7, which begins with the time: random keys write nineteen times the log after
-- each checkpoint.
--
-- A hold has no foreign key to its stock row: the check would lock the hot row a second time in
-- every reserve, and was measured to halve the rate of 128 callers on one row. The UPDATE that
-- takes the units finds the stock row, or there is no hold. A stock row that ever had stock can't
-- be deleted, because its adjustments refer to it. Audit looks for holds without a stock row.
--
-- Each CHECK is prepared anew by every statement that writes a row, so there is one.
--
-- Only a small share of the holds is ever live, so vacuum and analyze start at a hundredth of the
-- table, not at a fifth.
CREATE TABLE reservations (
    id           uuid PRIMARY KEY,
    product_id   uuid,
    warehouse_id uuid,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    quantity     integer NOT NULL,
    status       reservation_status NOT NULL DEFAULT 'PENDING',
    CONSTRAINT units_of_a_line_or_a_cart
        CHECK (quantity > 0 AND (product_id IS NULL) = (warehouse_id IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
        autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 5000);

-- Serves the sweep: the dead holds, the oldest first. It has PENDING holds only, so an idle sweep
-- reads a page or two, however many resolved holds there are.
CREATE INDEX reservations_live_by_expiry ON reservations (expires_at) WHERE status = 'PENDING';

-- Serves the dead holds of one stock row: a reserve that is short reclaims them, and the catalog
-- counts them as available.
CREATE INDEX reservations_live_by_stock
    ON reservations (product_id, warehouse_id, expires_at, id)
    WHERE status = 'PENDING' AND product_id IS NOT NULL;

-- The next two indexes have resolved holds only. A reserve writes to neither, and resolving a hold
-- writes one short entry to each, near its end.

-- Serves the lists of holds by status, the newest first.
CREATE INDEX reservations_resolved_by_status
    ON reservations (status, created_at, id) WHERE status <> 'PENDING';

-- Serves the counts of the last hour. A hold is never resolved before it is made, so the holds
-- that were resolved since an instant are found from there on.
CREATE INDEX reservations_resolved_by_time ON reservations (updated_at) WHERE status <> 'PENDING';

-- I3 and I4 in SQL: a resolved hold never changes again; a hold is confirmed or released while it
-- is alive, and expires exactly at its end.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.status <> 'PENDING' THEN
        RAISE EXCEPTION 'I3: hold % is % and never changes again', old.id, old.status
            USING ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION 'I4: hold % ends at % and can''t be % at %',
                    old.id, new.expires_at, new.status, new.updated_at
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

-- The trigger runs after the update, and its exception undoes the update. A BEFORE trigger would
-- lock the hold first, which writes a log record of its own.
CREATE TRIGGER i3_resolved_once_i4_alive AFTER UPDATE ON reservations
    FOR EACH ROW
    WHEN (old.status <> 'PENDING'
          OR (new.status = 'EXPIRED') <> (new.updated_at = new.expires_at)
          OR new.updated_at > new.expires_at)
    EXECUTE FUNCTION refuse_change_of_hold();

-- The lines of a cart. counted says whether the line's units are still part of its stock row's
-- reserved: a reserve that is short of one stock row takes back only that row's lines of a dead
-- cart, and the sweep takes back the rest. expires_at repeats the hold's, so that an index finds
-- the dead lines of a stock row.
CREATE TABLE reservation_items (
    reservation_id uuid        NOT NULL REFERENCES reservations,
    product_id     uuid        NOT NULL,
    warehouse_id   uuid        NOT NULL,
    expires_at     timestamptz NOT NULL,
    quantity       integer     NOT NULL CHECK (quantity > 0),
    counted        boolean     NOT NULL DEFAULT true,
    PRIMARY KEY (reservation_id, product_id, warehouse_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
        autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 5000);

-- Serves the dead cart lines of one stock row, as reservations_live_by_stock does for single
-- lines.
CREATE INDEX reservation_items_counted_by_stock
    ON reservation_items (product_id, warehouse_id, expires_at, reservation_id) WHERE counted;

-- I6: the answer given under an Idempotency-Key, with a hash of the request that it answered. The
-- key of a caller whom the gateway has named begins with a comma, which no caller can send, and is
-- a hash of the caller and the key (storedKey in internal/reservation/key.go). So each such caller
-- has keys of its own, and all others share theirs.
CREATE TABLE idempotency_keys (
    key          text COLLATE "C" PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea       NOT NULL CHECK (octet_length(request_hash) = 32),
    answer       jsonb       NOT NULL,
    created_at   timestamptz NOT NULL
);

-- Serves the removal of keys older than a day, the oldest first.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The result of the last audit: one row, or none before the first audit.
CREATE TABLE last_audit (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    at         timestamptz NOT NULL,
    violations integer     NOT NULL CHECK (violations >= 0),
    unfinished boolean     NOT NULL
);
