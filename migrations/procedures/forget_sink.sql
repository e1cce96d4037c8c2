-- forget_sink removes a sink that nobody publishes to any more, with its parked events. Until then
-- the archive and the pruning of the ticks wait for it. Operators call it after the relay runs
-- without the sink. A sink that comes back begins as a new one does (claim_sink.sql). It has its
-- owner's rights, because an operator may not change a sink.
CREATE OR REPLACE FUNCTION forget_sink(_sink text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _until timestamptz;
BEGIN
    PERFORM refuse_other_than_operator();
    PERFORM lock_named_sink(_sink);
    SELECT max(l.leased_until) INTO _until
    FROM (SELECT s.leased_until FROM sinks s WHERE sink_of(s.name) = _sink
          ORDER BY s.name FOR UPDATE) l;
    IF _until > clock_timestamp() THEN
        RAISE EXCEPTION 'a relay publishes to the sink % until %', _sink, _until
            USING ERRCODE = 'object_in_use';
    END IF;
    DELETE FROM parked p WHERE p.sink = _sink;
    DELETE FROM sinks s WHERE sink_of(s.name) = _sink;
END $$;

-- lock_named_sink locks the sink that an operator names, before its places. It refuses a place of a
-- sink: what an operator does is done for the whole sink.
CREATE OR REPLACE FUNCTION lock_named_sink(_sink text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _sink <> sink_of(_sink) THEN
        RAISE EXCEPTION '% is a place of the sink %: name the sink', _sink, sink_of(_sink)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM sinks s WHERE s.name = _sink FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no sink %', _sink USING ERRCODE = 'no_data_found';
    END IF;
END $$;
