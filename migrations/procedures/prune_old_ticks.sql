-- prune_old_ticks leaves of the ticks that all sinks have passed, and that are older than a week,
-- the first one of each minute: half a million in a year. The batches between them become one,
-- which is read anew for each page, so it mustn't be large. The sweep calls it, after it has taken
-- a tick. No tick waits for it, and the feed goes on when it fails.
--
-- A call looks at _most ticks, and begins with the last one that an earlier call has kept
-- (stream.pruned). So it takes the same time however many ticks are due, and reads none again of
-- those that were kept. more says that others may be due. When two calls meet, the second does
-- nothing.
--
-- It has its owner's rights, because the service may not delete a tick.
CREATE OR REPLACE FUNCTION prune_old_ticks(_most integer, OUT more boolean) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _old    timestamptz := clock_timestamp() - interval '7 days';
    _passed bigint := coalesce((SELECT min(s.done) FROM sinks s), last_tick());
    _newest bigint := (SELECT t.n FROM ticks t WHERE t.at < _old
                       ORDER BY t.at DESC, t.n DESC LIMIT 1);
    _from   bigint;
    _kept   bigint;
    _due    bigint[];
BEGIN
    more := false;
    SELECT s.pruned INTO _from FROM stream s FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(k.n) FILTER (WHERE k.due), max(k.n) FILTER (WHERE NOT k.due),
           count(*) > _most
    INTO _due, _kept, more
    FROM (SELECT t.n, -- a later tick may have an earlier time, after a jump of the clock
                 t.at < _old AND coalesce(date_trunc('minute', t.at) = date_trunc(
                     'minute', lag(t.at) OVER (ORDER BY t.n)), false) AS due
          FROM (SELECT l.n, l.at FROM ticks l
                WHERE l.n >= _from AND l.n < _passed AND l.n <= _newest
                ORDER BY l.n LIMIT _most + 1) t) k;
    DELETE FROM ticks t -- waits for no lock, as rebase_stream may hold one and wait for stream
    WHERE t.n = ANY (ARRAY(SELECT l.n FROM ticks l WHERE l.n = ANY (_due)
                           FOR UPDATE SKIP LOCKED));
    UPDATE stream s SET pruned = _kept WHERE s.pruned < _kept;
END $$;
