-- The ledger has one row for each transition of a hold (I10). The relay publishes these rows, and
-- the stock movements, as events (I11). Package internal/events has the design and its proof.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. The columns have constant
-- defaults, so no row is written. The previous release works on this schema: its routines make
-- holds of version 0, and the trigger of a hold writes the ledger row for its other transitions.
-- A later release drops that part of the trigger.

-- +goose Up

-- One row for each transition, written in its transaction. Rows are only added, but restart_hold
-- moves the times of its own transaction's row. There is no CHECK, because Postgres reads the text
-- of a CHECK anew for each statement. The audit compares the rows with the holds.
--
-- at is the hold's updated_at after the transition, and expires_at its end. The actor is the
-- gateway's principal for a confirm whose route needs a scope, and otherwise null: no other
-- transition says who asked for it. xid is the transaction that wrote the row: readers that must
-- miss no row go by it.
--
-- There is no foreign key to the hold: its check would lock the hold once more.
--
--   kind                         cause
--   h  held                      v  a verb
--   x  extended                  s  the sweep
--   p  payment started           m  a reserve that took the units of a dead hold
--   f  payment failed            o  an operator
--   c  confirmed                 r  replaced by another hold
--   r  released
--   e  expired
CREATE TABLE ledger (
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    at         timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    hold_id    uuid        NOT NULL,
    version    integer     NOT NULL,
    kind       "char"      NOT NULL,
    cause      "char"      NOT NULL,
    actor      text,
    PRIMARY KEY (hold_id, version)
);

-- Serves the relay, the audit and the operator's minutes.
CREATE INDEX ledger_by_xid ON ledger (xid);

-- Batch n is what tick n sees and the tick before doesn't. internal/events says why a reader that
-- goes from snapshot to snapshot misses nothing and keeps the order.
CREATE TABLE ticks (
    n        bigint      PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot pg_snapshot NOT NULL
);

-- How far each sink has published: the batches up to tick done, and of the next one, which ends at
-- tick batch, the events up to the position after. Both are null between two batches. A relay may
-- publish while it has the lease.
CREATE TABLE sinks (
    name         text        PRIMARY KEY,
    done         bigint      NOT NULL,
    batch        bigint,
    after        text,
    lease        uuid,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    failures     integer     NOT NULL DEFAULT 0,
    error        text
);

-- The events that a sink refused for good. The later events of the same subject follow them here,
-- so that none overtakes another.
CREATE TABLE parked (
    sink    text        NOT NULL,
    id      text        NOT NULL,
    subject text        NOT NULL,
    error   text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sink, id)
);

-- Serves the question whether an earlier event of a subject is parked.
CREATE INDEX parked_by_subject ON parked (sink, subject);

-- epoch is part of the events' source, so that the events after a restore have other ids than those
-- before, which were published and are lost. archived is the newest transaction of which a ledger
-- row or a movement is archived: events before it can't be read any more.
CREATE TABLE stream (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    uuid    NOT NULL,
    archived xid8    NOT NULL DEFAULT '0'
);
INSERT INTO stream (epoch) VALUES (gen_random_uuid());

-- The number of holds that were made and resolved in each minute, in UTC, by the ledger. Each tick
-- adds its batch.
CREATE TABLE minute_counts (
    minute    timestamptz PRIMARY KEY,
    held      bigint NOT NULL DEFAULT 0,
    confirmed bigint NOT NULL DEFAULT 0,
    released  bigint NOT NULL DEFAULT 0,
    expired   bigint NOT NULL DEFAULT 0
);

-- The columns are those of ledger. resolved_at is the updated_at of the hold, so that a hold and
-- its ledger lie in the same month.
CREATE TABLE archived_ledger (
    resolved_at timestamptz NOT NULL,
    LIKE ledger,
    PRIMARY KEY (hold_id, version, resolved_at)
) PARTITION BY RANGE (resolved_at);

CREATE TRIGGER archive_stays BEFORE UPDATE OR DELETE ON archived_ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_archive();

-- A row of the ledger changes only in the transaction that wrote it (restart_hold). It is deleted
-- only when the same row lies in the archive.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'UPDATE' AND old.xid = pg_current_xact_id() AND new.xid = old.xid
       AND (new.hold_id, new.version, new.kind) = (old.hold_id, old.version, old.kind) THEN
        RETURN new;
    ELSIF tg_op = 'DELETE' AND EXISTS (
        SELECT FROM archived_ledger a
        WHERE a.hold_id = old.hold_id AND a.version = old.version
          AND to_jsonb(a) - 'resolved_at' = to_jsonb(old)) THEN
        RETURN old;
    END IF;
    RAISE EXCEPTION 'I10: version % of hold % never changes', old.version, old.hold_id
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

-- A hold isn't deleted while it has rows in the ledger: a routine that archives holds and knows of
-- no ledger, as the previous release's, fails and archives nothing. The other condition is that of
-- 0008_archive.sql.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_removal_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM archived_reservations a
                   WHERE a.id = old.id AND a.updated_at = old.updated_at AND a = old) THEN
        RAISE EXCEPTION 'I3: hold % isn''t in the archive, so it stays', old.id
            USING ERRCODE = 'check_violation';
    ELSIF EXISTS (SELECT FROM ledger l WHERE l.hold_id = old.id) THEN
        RAISE EXCEPTION 'I10: the ledger of hold % isn''t in the archive, so the hold stays', old.id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN old;
END $$;
-- +goose StatementEnd

CREATE TRIGGER i10_ledger_stays BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_ledger();

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, archived_reservations IN ACCESS EXCLUSIVE MODE;
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

-- The number of a hold's newest transition. It is 0 for a hold from before the ledger, or one that
-- a routine of the previous release made. Its ledger begins at its next transition, with 1.
ALTER TABLE reservations ADD COLUMN version integer NOT NULL DEFAULT 0;
ALTER TABLE archived_reservations ADD COLUMN version integer NOT NULL DEFAULT 0;

-- A change of a hold by a routine of the previous release, which keeps the version: this writes its
-- ledger row and raises the version. A hold of version 0 has no ledger yet, and stays as it is. In
-- the transaction that made the hold, the change is that of restart_hold: it moves the times of the
-- hold's row in the ledger. Any other change leaves the hold's beginning, and its time doesn't
-- fall. The function has its owner's rights, because a deploy that goes back gives the service's
-- role the previous release's rights only.
--
-- A verb of this release that writes neither the version nor its row looks the same. It isn't
-- refused: its row is written here, so the ledger stays whole, but the row has no actor, an extend
-- stands for each change that leaves the hold PENDING, and the cause is taken from the routines
-- that call. A verb that raises the version and writes no row leaves a gap, which the audit finds.
-- +goose StatementBegin
CREATE FUNCTION take_over_transition(_hold reservations) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    _callers text;
BEGIN
    IF _hold.version = 0 THEN
        RETURN;
    END IF;
    UPDATE ledger SET at = _hold.updated_at, expires_at = _hold.expires_at
    WHERE hold_id = _hold.id AND version = _hold.version AND xid = pg_current_xact_id();
    IF FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM ledger l
               WHERE l.hold_id = _hold.id
                 AND (l.version = _hold.version AND l.at > _hold.updated_at
                      OR l.kind = 'h' AND l.at <> _hold.created_at)) THEN
        RAISE EXCEPTION 'I10: hold % of version % can''t be made at % and changed at %',
                        _hold.id, _hold.version, _hold.created_at, _hold.updated_at
            USING ERRCODE = 'check_violation';
    END IF;
    GET DIAGNOSTICS _callers = PG_CONTEXT;
    UPDATE reservations SET version = version + 1 WHERE id = _hold.id;
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    VALUES (_hold.updated_at, _hold.expires_at, _hold.id, _hold.version + 1,
            CASE _hold.status WHEN 'PENDING' THEN 'x' WHEN 'CONFIRMED' THEN 'c'
                              WHEN 'RELEASED' THEN 'r' ELSE 'e' END,
            CASE WHEN strpos(_callers, 'sweep_holds') > 0 THEN 's'
                 WHEN strpos(_callers, 'reclaim_holds') > 0 THEN 'm' ELSE 'v' END);
END $$;
-- +goose StatementEnd

-- I3, I4 and I10 in SQL. A hold's version rises by one with each change but that of restart_hold.
-- updated_at never falls, so that the events of a hold are in order by time and version. The other
-- conditions are those of 0009_hold_guards.sql.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_change_of_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.status = 'PENDING'
       AND (new.status = 'EXPIRED') = (new.updated_at = new.expires_at)
       AND new.updated_at <= new.expires_at
       AND new.quantity = old.quantity
       AND new.product_id IS NOT DISTINCT FROM old.product_id
       AND new.warehouse_id IS NOT DISTINCT FROM old.warehouse_id THEN
        IF new.version = old.version + 1 AND new.updated_at >= old.updated_at
           AND new.created_at = old.created_at THEN
            RETURN NULL;
        ELSIF new.version = old.version THEN
            PERFORM take_over_transition(new);
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'I10: hold % of version %, made at % and changed at %, can''t go to '
                        'version %, made at % and changed at %',
                        old.id, old.version, old.created_at, old.updated_at,
                        new.version, new.created_at, new.updated_at
            USING ERRCODE = 'check_violation';
    ELSIF pg_trigger_depth() > 1 AND new.version = old.version + 1
          AND to_jsonb(new) - 'version' = to_jsonb(old) - 'version' THEN
        RETURN NULL; -- by take_over_transition
    ELSIF old.status <> 'PENDING' THEN
        RAISE EXCEPTION 'I3: hold % is % and never changes again', old.id, old.status
            USING ERRCODE = 'check_violation';
    ELSIF (new.status = 'EXPIRED') <> (new.updated_at = new.expires_at)
          OR new.updated_at > new.expires_at THEN
        RAISE EXCEPTION 'I4: hold % ends at % and can''t be % at %',
                        old.id, new.expires_at, new.status, new.updated_at
            USING ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION 'I2: hold % is of % units of product % in warehouse % and never of others',
                    old.id, old.quantity, old.product_id, old.warehouse_id
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd
