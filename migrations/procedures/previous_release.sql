-- The routines that only the previous release calls, because their signature changed. The next
-- release deletes them. Each calls its successor.
--
-- The previous release passed _early: whether the procedure was to commit by itself. It passed false
-- only with EARLY_RELEASE=off, a setting for servers that refuse COMMIT in a procedure. None of ours
-- does, and the setting is gone: such a call fails here, before it has done anything.

CREATE OR REPLACE PROCEDURE reserve_line(
    _early boolean, _id uuid, _product uuid, _warehouse uuid, _quantity integer, _ttl interval,
    _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL reserve_line(_id, _product, _warehouse, _quantity, _ttl, _key, _hash, outcome, answer);
END $$;

CREATE OR REPLACE PROCEDURE reserve_cart(
    _early boolean, _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[],
    _ttl interval, _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL reserve_cart(_id, _products, _warehouses, _quantities, _ttl, _key, _hash, outcome, answer);
END $$;

-- The releases that know of no payments refuse, with an outcome that they know, what a payment under
-- way forbids.
CREATE OR REPLACE PROCEDURE resolve_hold(
    _id uuid, _to reservation_status, _cause "char", _actor text, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    CALL resolve_hold(_id, _to, _cause, _actor, NULL, NULL, _key, _hash, outcome, answer);
    IF outcome = 'PAYMENT_STARTED' THEN
        outcome := 'RETRY';
    END IF;
END $$;

CREATE OR REPLACE PROCEDURE extend_hold(
    _id uuid, _ttl interval, _max interval, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    CALL extend_hold(_id, 'x', NULL, NULL, _ttl, NULL, _max, _key, _hash, outcome, answer);
    IF outcome = 'PAYMENT_STARTED' THEN
        outcome := 'EXTENSION_LIMIT';
    END IF;
END $$;

CREATE OR REPLACE PROCEDURE resolve_hold(
    _early boolean, _id uuid, _to reservation_status, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL resolve_hold(_id, _to, 'v', NULL, _key, _hash, outcome, answer);
END $$;

-- A release that doesn't say who calls.
CREATE OR REPLACE PROCEDURE resolve_hold(
    _id uuid, _to reservation_status, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    CALL resolve_hold(_id, _to, 'v', NULL, _key, _hash, outcome, answer);
END $$;

CREATE OR REPLACE PROCEDURE extend_hold(
    _early boolean, _id uuid, _ttl interval, _max interval, _key text, _hash bytea,
    INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _early THEN
        RAISE EXCEPTION 'EARLY_RELEASE=off is not supported any more';
    END IF;
    CALL extend_hold(_id, _ttl, _max, _key, _hash, outcome, answer);
END $$;

-- The previous release takes the end of the page for the end of the catalog, unless it has _limit
-- products. So this page has all of them, however many stock rows they have.
CREATE OR REPLACE FUNCTION list_products(_name text, _id uuid, _limit integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT w.product_id, w.product_name, w.sku, w.warehouse_id, w.warehouse_name,
                        w.total, w.reserved
                 FROM whole_catalog_page(_name, _id, _limit) w
                 WHERE w.product_id IS NOT NULL;
END $$;

-- list_catalog has taken the place of this one, because it answers more columns.
CREATE OR REPLACE FUNCTION list_products(
    _name text, _id uuid, _warehouse uuid, _limit integer, _rows integer, _bytes integer)
RETURNS TABLE (product_id uuid, product_name text, sku text,
               warehouse_id uuid, warehouse_name text, total integer, reserved bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT c.product_id, c.product_name, c.sku, c.warehouse_id, c.warehouse_name,
                        c.total, c.reserved
                 FROM list_catalog(_name, _id, _warehouse, _limit, _rows, _bytes) c;
END $$;

-- The audit of a release that finds what is new by time. The next one reads the same rows of the
-- ledger again.
CREATE OR REPLACE FUNCTION begin_audit(
    _kind text, _next timestamptz,
    OUT run bigint, OUT part text, OUT after text, OUT since timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_state a
    SET run = a.run + 1, began = clock_timestamp(), part = '', after = '', violations = 0,
        found = '[]', next_since = greatest(a.since, _next), next_seen = NULL
    WHERE a.kind = _kind AND a.began IS NULL;
    SELECT a.run, a.part, a.after, a.since INTO run, part, after, since
    FROM audit_state a WHERE a.kind = _kind;
END $$;

CREATE OR REPLACE FUNCTION end_audit(
    _kind text, _run bigint, _whole boolean, _missed integer)
RETURNS TABLE (violations integer, found jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.violations, e.found
                 FROM end_audit(_kind, _run, _whole, _missed, NULL) e;
END $$;

-- The previous release keeps one result, whatever the kind of the audit.
CREATE OR REPLACE FUNCTION keep_audit(_violations integer, _unfinished boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM keep_audit(false, _violations, _unfinished);
END $$;

CREATE OR REPLACE FUNCTION list_holds(
    _status reservation_status, _product uuid, _warehouse uuid, _at timestamptz, _id uuid,
    _limit integer, _scan integer)
RETURNS TABLE (hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.hold, l.matches, l.walked, l.seen_at
                 FROM list_holds(_status, _product, _warehouse, NULL, _at, _id, _limit, _scan) l;
END $$;
