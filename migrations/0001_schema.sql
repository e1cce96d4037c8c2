-- The tables. The promises I1 to I9 named here are those of internal/reservation/doc.go.
-- It creates everything anew and locks nothing that exists.

-- +goose Up

-- Names sort by their bytes (COLLATE "C"), so that the catalog's order and its cursors survive an upgrade of the operating
-- system's collations.
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

-- Serves the list of warehouses, as above.
CREATE INDEX warehouses_by_name ON warehouses (name, id);

-- One row for each product and warehouse: the row that a flash sale fights for. Nothing but the key is indexed, so that every
-- change of the counts is a heap-only update; the fill factor leaves room for its new versions on the same page.
CREATE TABLE inventory (
    product_id   uuid    NOT NULL REFERENCES products,
    warehouse_id uuid    NOT NULL REFERENCES warehouses,
    total        integer NOT NULL,
    reserved     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (product_id, warehouse_id),
    CONSTRAINT i1_reserved_within_total CHECK (0 <= reserved AND reserved <= total)
) WITH (fillfactor = 70);

-- I8: every cause of a change of total but a confirmed hold. Rows are only ever added.
CREATE TABLE stock_adjustments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id   uuid        NOT NULL,
    warehouse_id uuid        NOT NULL,
    delta        integer     NOT NULL CHECK (delta <> 0),
    reason       text        NOT NULL CHECK (reason <> ''),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (product_id, warehouse_id) REFERENCES inventory
);

-- A new stock row's opening count is an adjustment too, however the row was made.
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

-- A hold. The common one has a single line, which stands in the row itself, so that it costs one inserted row; a cart of
-- several lines has no product and no warehouse here but rows in reservation_items. A resolved hold never changes again (I3),
-- so updated_at is also the instant at which it was confirmed or released; a hold that expired did so at expires_at, whenever
-- that was written down.
--
-- The key is a UUIDv7, made in order of time: random keys write nineteen times the log after each checkpoint.
-- The foreign key is checked at commit, after the stock row has been updated: its KEY SHARE then falls on a row version that
-- the transaction owns already, and never on one that sixty others are waiting for.
-- Only a small share of a hundred million rows is ever live, so vacuum and analyze start at a hundredth of the table, not a fifth.
CREATE TABLE reservations (
    id           uuid PRIMARY KEY,
    product_id   uuid,
    warehouse_id uuid,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    quantity     integer NOT NULL CHECK (quantity > 0),
    status       reservation_status NOT NULL DEFAULT 'PENDING',
    FOREIGN KEY (product_id, warehouse_id) REFERENCES inventory DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT one_line_or_a_cart CHECK ((product_id IS NULL) = (warehouse_id IS NULL)),
    CONSTRAINT i4_resolved_while_alive CHECK (
        CASE status WHEN 'EXPIRED' THEN updated_at = expires_at ELSE updated_at < expires_at END)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
        autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 5000);

-- Serves the sweep: the holds that are due, the oldest first. It holds live holds only, so an idle sweep reads a page or two
-- however many resolved ones there are.
CREATE INDEX reservations_live_by_expiry ON reservations (expires_at) WHERE status = 'PENDING';

-- Serves the dead holds of one stock row: a reserve that is short reclaims them, the catalog counts them as available.
CREATE INDEX reservations_live_by_stock ON reservations (product_id, warehouse_id, expires_at, id)
    WHERE status = 'PENDING' AND product_id IS NOT NULL;

-- I3 in SQL: a resolved hold never changes again.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_resolved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I3: hold % is % and never changes again', old.id, old.status USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i3_resolved_once BEFORE UPDATE ON reservations
    FOR EACH ROW WHEN (old.status <> 'PENDING') EXECUTE FUNCTION refuse_change_of_resolved();

-- The lines of a cart. counted says whether the line's units are still part of its stock row's reserved: a reserve that is
-- short of one row takes back just the lines of that row from a dead cart, and the sweep does the rest. expires_at repeats
-- the hold's, so that the dead lines of a row are found by an index.
CREATE TABLE reservation_items (
    reservation_id uuid        NOT NULL REFERENCES reservations,
    product_id     uuid        NOT NULL,
    warehouse_id   uuid        NOT NULL,
    expires_at     timestamptz NOT NULL,
    quantity       integer     NOT NULL CHECK (quantity > 0),
    counted        boolean     NOT NULL DEFAULT true,
    PRIMARY KEY (reservation_id, product_id, warehouse_id),
    FOREIGN KEY (product_id, warehouse_id) REFERENCES inventory DEFERRABLE INITIALLY DEFERRED
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
        autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 5000);

-- Serves the dead cart lines of one stock row, as reservations_live_by_stock does for holds of one line.
CREATE INDEX reservation_items_counted_by_stock
    ON reservation_items (product_id, warehouse_id, expires_at, reservation_id) WHERE counted;

-- I6: the answer given under an Idempotency-Key, with a hash of the request that it answered.
CREATE TABLE idempotency_keys (
    key          text COLLATE "C" PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea       NOT NULL CHECK (octet_length(request_hash) = 32),
    answer       jsonb       NOT NULL,
    created_at   timestamptz NOT NULL
);

-- Serves the removal of keys older than a day, the oldest first.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
