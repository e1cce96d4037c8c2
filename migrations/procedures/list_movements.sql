-- list_movements reads a page of movements, the newest first: those of a stock row before the
-- movement _before, or those of a document before the line _before. A document has a movement for
-- each line that was applied, and its lines are applied in their order. The movements of a stock
-- row are read from the archive too. Those of a document are never archived.
CREATE OR REPLACE FUNCTION list_movements(
    _product uuid, _warehouse uuid, _source text, _reference text, _before bigint, _limit integer)
RETURNS SETOF stock_movements LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _product IS NOT NULL THEN
        RETURN QUERY
        SELECT * FROM (
            SELECT * FROM stock_movements a
            WHERE a.product_id = _product AND a.warehouse_id = _warehouse AND a.seq < _before
            UNION ALL
            SELECT * FROM archived_movements a
            WHERE a.product_id = _product AND a.warehouse_id = _warehouse AND a.seq < _before
        ) m
        ORDER BY m.seq DESC LIMIT _limit;
    ELSE
        RETURN QUERY
        SELECT * FROM stock_movements m
        WHERE m.source = _source AND m.reference = _reference AND m.line < _before
        ORDER BY m.line DESC LIMIT _limit;
    END IF;
END $$;
