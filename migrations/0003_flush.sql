-- Setting the sequence log_records writes a record to the log (procedures/write_log_record.sql).
-- The table flush_mark says which transactions are known to be on disk
-- (procedures/hold_is_flushed.sql).
--
-- This file creates everything anew and locks nothing that exists.

-- +goose Up

CREATE SEQUENCE log_records;

-- Every change by a transaction whose id is below this one is on disk, and on the synchronous
-- standby if there is one: one row, or none before the first sweep.
CREATE TABLE flush_mark (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    below    xid8    NOT NULL
);
