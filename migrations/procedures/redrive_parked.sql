-- redrive_parked lets the relay publish a sink's parked events again, and returns how many there
-- were. Operators call it when the cause is repaired. It has its owner's rights, because an
-- operator may not change the place of a sink.
--
-- The sink, and the place of each part that has such an event, goes back to the last tick that saw
-- none of the part's, so that they come before the later events of their subjects. Every event of
-- the part since then is published again too: consumers know its id. An event whose row lies in the
-- archive can't be published any more. It isn't counted, a warning names it, and it is parked no
-- longer, so that the later events of its subject go out.
--
-- The lease ends, so that a relay that publishes at this moment can't move the sink's place forward
-- again (the fencing in claim_sink), nor park a later event of the subject (park_followers).
CREATE OR REPLACE FUNCTION redrive_parked(_sink text) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _holds xid8[];
    _moves xid8[];
    _lost  text[];
BEGIN
    PERFORM refuse_other_than_operator();
    PERFORM lock_named_sink(_sink);
    PERFORM FROM sinks s WHERE s.name = ANY (places_of(_sink)) ORDER BY s.name FOR UPDATE;
    SELECT coalesce(array_agg(r.xid) FILTER (WHERE r.xid IS NOT NULL AND NOT r.moved), '{}'),
           coalesce(array_agg(r.xid) FILTER (WHERE r.xid IS NOT NULL AND r.moved), '{}'),
           array_agg(r.id ORDER BY r.id) FILTER (WHERE r.xid IS NULL)
    INTO _holds, _moves, _lost
    FROM (SELECT p.id, strpos(p.subject, '/') > 0 AS moved, parked_xid(p.id, p.subject) AS xid
          FROM parked p WHERE p.sink = _sink) r;
    IF _lost IS NOT NULL THEN
        RAISE WARNING 'archived, and not published to %: %', _sink, _lost;
    END IF;
    DELETE FROM parked p WHERE p.sink = _sink;
    PERFORM take_place_back(_sink, _holds || _moves);
    PERFORM take_place_back(_sink || '-holds', _holds);
    PERFORM take_place_back(_sink || '-stock', _moves);
    RETURN cardinality(_holds || _moves);
END $$;

-- take_place_back takes a place back to the last tick that saw none of the transactions, if there
-- are any, and ends its lease.
CREATE OR REPLACE FUNCTION take_place_back(_place text, _xids xid8[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sinks s
    SET done = least(s.done, (
            SELECT coalesce(max(t.n), 0) FROM ticks t
            WHERE NOT EXISTS (
                SELECT FROM unnest(_xids) x WHERE pg_visible_in_snapshot(x, t.snapshot)))),
        batch = NULL, after = NULL, lease = NULL, leased_until = '-infinity', failures = 0,
        error = NULL
    WHERE s.name = _place AND _xids <> '{}';
END $$;

-- parked_xid is the transaction that wrote the row of an event, or null if the row is archived. The
-- id of a hold's event is <hold>-<version>, and that of a movement <product>-<warehouse>-<seq>.
CREATE OR REPLACE FUNCTION parked_xid(_id text, _subject text) RETURNS xid8
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF strpos(_subject, '/') > 0 THEN
        RETURN (SELECT m.xid FROM stock_movements m
                WHERE m.product_id = split_part(_subject, '/', 1)::uuid
                  AND m.warehouse_id = split_part(_subject, '/', 2)::uuid
                  AND m.seq = substr(_id, length(_subject) + 2)::bigint);
    END IF;
    RETURN (SELECT l.xid FROM ledger l
            WHERE l.hold_id = _subject::uuid
              AND l.version = substr(_id, length(_subject) + 2)::integer);
END $$;

-- park_followers sets events aside that follow a parked one, for the place _sink: an array of {id,
-- subject, error}. Only the relay that has the lease may do so. Otherwise an operator has redriven
-- the events meanwhile.
CREATE OR REPLACE FUNCTION park_followers(_sink text, _lease uuid, _followers jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM sinks s WHERE s.name = _sink AND s.lease = _lease FOR UPDATE;
    IF FOUND THEN
        PERFORM park_events(_sink, _followers);
    END IF;
END $$;
