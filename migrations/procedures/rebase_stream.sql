-- rebase_stream makes the feed go on after the database came to another server: by a dump and a
-- restore, or by logical replication. The ticks then name transactions of the old server. Operators
-- call it when no verb runs, after the old server's feed was drained: the sinks, and a list without
-- a cursor, begin with what is written after the call.
--
-- Rows with an id that this server is still going to give out would later look like new ones. It
-- gives them the id 3, which every snapshot sees. Their triggers refuse any change, so they are off
-- meanwhile. It has its owner's rights, because an operator owns no table.
--
-- An audit of what is new reads the ledger in slices by these ids, and most rows would be in one
-- slice. So the next one begins with what is written after the call. What no audit has looked at
-- yet is left to a full audit, which reads the holds by their ids.
CREATE OR REPLACE FUNCTION rebase_stream() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _this pg_snapshot;
    _next bigint := greatest(last_tick(), 1) + 1; -- not 1: see oldest_tick
BEGIN
    PERFORM refuse_other_than_operator();
    PERFORM pg_advisory_xact_lock(10, 0);
    _this := pg_current_snapshot();
    IF EXISTS (SELECT FROM ledger l WHERE l.xid >= pg_snapshot_xmax(_this)) THEN
        ALTER TABLE ledger DISABLE TRIGGER i10_ledger_stays;
        UPDATE ledger SET xid = '3' WHERE xid >= pg_snapshot_xmax(_this);
        ALTER TABLE ledger ENABLE TRIGGER i10_ledger_stays;
    END IF;
    IF EXISTS (SELECT FROM stock_movements m WHERE m.xid >= pg_snapshot_xmax(_this)) THEN
        ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay;
        UPDATE stock_movements SET xid = '3' WHERE xid >= pg_snapshot_xmax(_this);
        ALTER TABLE stock_movements ENABLE TRIGGER i8_movements_stay;
    END IF;
    PERFORM FROM sinks s ORDER BY s.name FOR UPDATE; -- a sink before its places, as in claim_sink
    DELETE FROM ticks;
    INSERT INTO ticks (n, snapshot) VALUES (_next, _this);
    UPDATE sinks SET done = _next, batch = NULL, after = NULL, leased_until = '-infinity',
                     lease = NULL;
    UPDATE stream SET archived = '0';
    UPDATE audit_state SET began = NULL, part = '', after = '', seen = _this WHERE kind = 'NEW';
    PERFORM begin_epoch();
END $$;

-- begin_epoch gives the events from now on another source. Operators call it after the database was
-- restored to an earlier moment: events that were published after that moment are lost, and the
-- next ones may have their ids. The sinks keep their places.
CREATE OR REPLACE FUNCTION begin_epoch() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM refuse_other_than_operator();
    UPDATE stream SET epoch = gen_random_uuid();
END $$;
