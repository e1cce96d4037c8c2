-- The catalog's own columns: a product is ACTIVE or ARCHIVED and may have limits, a warehouse has a
-- code and is OPEN or CLOSED. inventory repeats what a reserve must know of them, so that the hot
-- path reads no further table.
--
-- The locks are taken together, and waited for in short turns, as in 0002_old_snapshots.sql. The
-- columns of products and inventory have constant defaults, so none of their rows is written. Only
-- the rows of warehouses are: each gets a code. The previous release works on this schema: it
-- neither reads nor writes the columns, and a warehouse that is made without a code gets one.

-- +goose Up

CREATE TYPE product_status AS ENUM ('ACTIVE', 'ARCHIVED');
CREATE TYPE warehouse_status AS ENUM ('OPEN', 'CLOSED');

-- without_case is an SKU or a code as it is compared with others: two that differ by case alone are
-- the same. Postgres 17 has Unicode's case on every system. An older one has the case of the
-- database's locale. The function stands here, because indexes call it.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('
CREATE FUNCTION without_case(_code text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN lower(_code COLLATE %I) COLLATE "C"',
        coalesce((SELECT c.collname FROM pg_collation c WHERE c.collname = 'pg_c_utf8'),
                 'default'));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE products, warehouses, inventory IN ACCESS EXCLUSIVE MODE;
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

-- changed_at is when status or a limit was last set. The audit knows by it which stock rows may
-- still be about to follow.
ALTER TABLE products
    ADD COLUMN status        product_status NOT NULL DEFAULT 'ACTIVE',
    ADD COLUMN max_per_hold  integer CHECK (max_per_hold > 0),
    ADD COLUMN max_per_owner integer CHECK (max_per_owner > 0),
    ADD COLUMN changed_at    timestamptz NOT NULL DEFAULT '-infinity';

ALTER TABLE warehouses
    ADD COLUMN code       text COLLATE "C",
    ADD COLUMN status     warehouse_status NOT NULL DEFAULT 'OPEN',
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT '-infinity';

-- A warehouse's code is its name, where that will do as a code: it is short, has no white space
-- around it, and no other warehouse has it in any case. Otherwise the code is the id.
UPDATE warehouses w SET code = c.code
FROM (SELECT id, CASE WHEN length(name) <= 100 AND name !~ '^\s|\s$|[[:cntrl:]]'
                           AND name !~* '^[0-9a-f-]{36}$' -- another warehouse's id
                           AND count(*) OVER (PARTITION BY without_case(name)) = 1
                      THEN name ELSE id::text END AS code
      FROM warehouses) c
WHERE c.id = w.id;

-- A warehouse that SQL inserts without a code gets a random one.
ALTER TABLE warehouses
    ALTER COLUMN code SET DEFAULT gen_random_uuid()::text,
    ALTER COLUMN code SET NOT NULL,
    ADD UNIQUE (code),
    ADD CHECK (code <> '');

-- Serve the catalog's writes, which refuse what differs by case alone. They aren't unique, because
-- a shop may have had such SKUs before.
CREATE INDEX products_by_sku_without_case ON products (without_case(sku));
CREATE INDEX warehouses_by_code_without_case ON warehouses (without_case(code));

-- Serves the catalog's pages, however many products are archived. A later release drops
-- products_by_name, which serves those of the previous release.
CREATE INDEX products_active_by_name ON products (name, id) WHERE status = 'ACTIVE';

-- open says whether the row's product is ACTIVE and its warehouse is OPEN: whether a reserve may
-- take units. The limits are the product's. procedures/follow_catalog.sql sets all three when the
-- catalog changes. No index has them, so that this is a heap-only update.
ALTER TABLE inventory
    ADD COLUMN open          boolean NOT NULL DEFAULT true,
    ADD COLUMN max_per_hold  integer,
    ADD COLUMN max_per_owner integer;

-- A new stock row takes the three from its product and its warehouse. The lock lets it see each
-- change of the catalog that is done, and lets each later change see the row
-- (procedures/follow_catalog.sql). The SELECT is a statement of its own, so that its snapshot is
-- younger than the lock. A dump is loaded without a search path, so the function sets its own.
-- +goose StatementBegin
CREATE FUNCTION copy_catalog_to_stock() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4, 0);
    SELECT p.status = 'ACTIVE' AND w.status = 'OPEN', p.max_per_hold, p.max_per_owner
    INTO new.open, new.max_per_hold, new.max_per_owner
    FROM products p, warehouses w
    WHERE p.id = new.product_id AND w.id = new.warehouse_id;
    IF NOT FOUND THEN
        new.open := false; -- and the foreign key refuses the row
    END IF;
    RETURN new;
END $$;
-- +goose StatementEnd

CREATE TRIGGER stock_follows_catalog BEFORE INSERT ON inventory
    FOR EACH ROW EXECUTE FUNCTION copy_catalog_to_stock();
