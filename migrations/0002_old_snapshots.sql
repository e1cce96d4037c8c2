-- Two columns of a stock row let a verb start its index scans past dead index entries. An index
-- keeps an entry for every dead row version that the oldest snapshot may still read. Under a
-- snapshot of an hour a hot row has a million of them.
--
-- The locks are taken together, and waited for in short turns: until this file has them, callers
-- queue behind it for one turn at most. Then they wait while the index is built, about a second for
-- a million stock rows. The columns have constant defaults, so no row is written. The previous
-- release works on this schema: it neither reads nor writes the columns.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, reservation_items IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE inventory IN ACCESS EXCLUSIVE MODE;
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

-- first_end: no PENDING hold of the stock row and none of its counted cart lines ends earlier. A
-- search for dead holds starts there. raise_first_end moves it up and says why it stays true. A
-- reserve lowers it to the new hold's end. The triggers below lower it when an end moves down.
--
-- epoch: a counter that an update of the counts now and then adds 1 to. It never falls. The newest
-- version of the row has the highest epoch, so the index below leads to it past the older ones.
ALTER TABLE inventory
    ADD COLUMN first_end timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN epoch     integer     NOT NULL DEFAULT 0;

CREATE INDEX inventory_by_epoch ON inventory (product_id, warehouse_id, epoch);

-- When the end of a hold or of a cart line moves down, its stock row's first_end must follow. The
-- update locks the stock row even if the value stays: raise_first_end may be about to move it up by
-- a snapshot that has the later end. It has its owner's rights, because a deploy that goes back to
-- the release before this file gives the service's role no right to first_end.
-- +goose StatementBegin
CREATE FUNCTION lower_first_end() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE inventory SET first_end = least(first_end, new.expires_at)
    WHERE product_id = new.product_id AND warehouse_id = new.warehouse_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER first_end_follows_hold AFTER UPDATE OF expires_at ON reservations
    FOR EACH ROW WHEN (new.expires_at < old.expires_at AND new.product_id IS NOT NULL)
    EXECUTE FUNCTION lower_first_end();

CREATE TRIGGER first_end_follows_line AFTER UPDATE OF expires_at ON reservation_items
    FOR EACH ROW WHEN (new.expires_at < old.expires_at)
    EXECUTE FUNCTION lower_first_end();
