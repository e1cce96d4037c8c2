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
    SELECT s.leased_until INTO _until FROM sinks s WHERE s.name = _sink FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no sink %', _sink USING ERRCODE = 'no_data_found';
    ELSIF _until > clock_timestamp() THEN
        RAISE EXCEPTION 'a relay publishes to the sink % until %', _sink, _until
            USING ERRCODE = 'object_in_use';
    END IF;
    DELETE FROM parked p WHERE p.sink = _sink;
    DELETE FROM sinks s WHERE s.name = _sink;
END $$;
