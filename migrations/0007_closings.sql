-- Closings record which movements an audit has verified, so that the next audit reads only later
-- ones.
--
-- The previous release works on this schema: its audit reads everything, and its statements that
-- write movements only have one index more.

-- +goose Up

-- The movements of a stock row up to seq, which led to total, were verified by an audit that ended
-- at this time. There is one row for each stock row, updated in place: seq only rises.
-- procedures/close_stock.sql writes it.
CREATE TABLE stock_closings (
    product_id   uuid        NOT NULL,
    warehouse_id uuid        NOT NULL,
    seq          bigint      NOT NULL CHECK (seq > 0),
    total        integer     NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (product_id, warehouse_id)
) WITH (fillfactor = 70);

-- How far the audits are: one row for each kind. NEW is the audit of what is new, FULL the one of
-- everything. procedures/begin_audit.sql writes it.
--
-- began is null unless an audit is under way. It has looked at the parts before part, and in part
-- at the slices up to the key after. run is its number. violations counts what it found in these
-- slices, and found has the first twenty.
--
-- Every hold that was resolved before since is left to the FULL audits. next_since is the value of
-- since for the audit that follows this one. The first NEW audit begins here, and leaves all holds
-- from before the movements to the FULL ones.
CREATE TABLE audit_state (
    kind       text        PRIMARY KEY CHECK (kind IN ('NEW', 'FULL')),
    run        bigint      NOT NULL DEFAULT 0,
    began      timestamptz,
    part       text        NOT NULL DEFAULT '',
    after      text        NOT NULL DEFAULT '',
    violations integer     NOT NULL DEFAULT 0 CHECK (violations >= 0),
    found      jsonb       NOT NULL DEFAULT '[]',
    since      timestamptz NOT NULL,
    next_since timestamptz,
    completed  timestamptz
);

INSERT INTO audit_state (kind, since) VALUES ('NEW', clock_timestamp()), ('FULL', '-infinity');

-- The lock is waited for in short turns, as in 0002_old_snapshots.sql.
-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE stock_movements IN SHARE MODE;
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

-- Serves the audit, which looks for the sales of holds that were confirmed at some time. A BRIN
-- index would be smaller. But the openings and the documents stay when the archive takes the sales
-- around them, and new sales get their space: then nearly each block has old rows and new ones.
CREATE INDEX stock_movements_by_time ON stock_movements (at);
