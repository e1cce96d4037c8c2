-- How far the live channel is. Package internal/events has the design. The previous release works
-- on this schema: it doesn't know the table.

-- +goose Up

-- done is the tick up to which all changes are published. looked is the time up to which the deaths
-- of holds are published. While a relay publishes a batch, batch is the tick and seen is the time
-- that end it. Both are null between two batches. They become done and looked when the relay has
-- published the batch.
--
-- This is no row of sinks: the archive and the pruning of ticks don't wait for the live channel.
CREATE TABLE live (
    only_row     boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    done         bigint      NOT NULL DEFAULT 0,
    looked       timestamptz NOT NULL DEFAULT '-infinity',
    batch        bigint,
    seen         timestamptz,
    lease        uuid,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    CHECK ((batch IS NULL) = (seen IS NULL))
);
INSERT INTO live DEFAULT VALUES;
