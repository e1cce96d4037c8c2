-- list_movements reads a page of a stock row's movements, the newest first: those before the
-- movement _before. A movement's number says how new it is. It reads the archive too.
CREATE OR REPLACE FUNCTION list_movements(
    _product uuid, _warehouse uuid, _before bigint, _limit integer)
RETURNS SETOF stock_movements LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM (
        (SELECT * FROM stock_movements a
         WHERE a.product_id = _product AND a.warehouse_id = _warehouse AND a.seq < _before
         ORDER BY a.seq DESC LIMIT _limit)
        UNION ALL
        (SELECT * FROM archived_movements a
         WHERE a.product_id = _product AND a.warehouse_id = _warehouse AND a.seq < _before
         ORDER BY a.seq DESC LIMIT _limit)
    ) m
    ORDER BY m.seq DESC LIMIT _limit;
END $$;

-- list_document reads a page of a document's movements, the newest first: those before the time
-- _before and, of that time, before the line _line. A repeat of the document may apply a line after
-- those that follow it, so the lines alone don't say which movement is newer. A document has 500
-- movements at most, one a line, so all of them are read and sorted. None of them is archived.
CREATE OR REPLACE FUNCTION list_document(
    _source text, _reference text, _before timestamptz, _line integer, _limit integer)
RETURNS SETOF stock_movements LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM stock_movements m
    WHERE m.source = _source AND m.reference = _reference AND (m.at, m.line) < (_before, _line)
    ORDER BY m.at DESC, m.line DESC LIMIT _limit;
END $$;
