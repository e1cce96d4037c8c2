-- SKUs and codes that differ by case alone are the same also where a letter has two small forms: a
-- final sigma is a sigma, and a long s is an s. And a line of a document may ask for no change.
--
-- Reserves and readers wait for nothing here. A write of the catalog waits while the two indexes
-- are built, a quarter of a second for 300,000 products. The previous release works on this schema:
-- it compares by without_case, which stays as it is, with its indexes. A later release drops them.

-- +goose Up

-- case_folded is an SKU or a code as it is compared with others: two that differ by case alone are
-- the same. lower() alone would tell small letters apart that have one capital letter. Postgres 17
-- has Unicode's case on every system. An older one has the case of the database's locale. The
-- function stands here, because indexes call it.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('
CREATE FUNCTION case_folded(_code text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN lower(upper(_code COLLATE %1$I) COLLATE %1$I) COLLATE "C"',
        coalesce((SELECT c.collname FROM pg_collation c WHERE c.collname = 'pg_c_utf8'),
                 'default'));
END $$;
-- +goose StatementEnd

-- Serve the catalog's writes. They aren't unique, because a shop may have had such SKUs before.
CREATE INDEX products_by_folded_sku ON products (case_folded(sku));
CREATE INDEX warehouses_by_folded_code ON warehouses (case_folded(code));

-- As before (0004_movements.sql), except that a line of a document may be an ADJUSTMENT by 0. Its
-- movement is how the line is remembered, as a count's is that finds the total right.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_wrong_movement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _right boolean;
BEGIN
    IF (new.kind = 'OPENING') <> (new.seq = 1)
       OR new.delta = 0 AND new.kind NOT IN ('OPENING', 'COUNT') AND new.shortfall IS NULL
          AND (new.kind <> 'ADJUSTMENT' OR new.source IS NULL OR new.asked IS DISTINCT FROM 0)
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
