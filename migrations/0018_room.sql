-- A page of inventory has room for new versions of its rows. The fill factor has two jobs: an
-- INSERT fills a page up to it, and Postgres prunes a page that is fuller than it, at the next
-- access. With one value for both, each page was as full as it may be from the beginning, so every
-- reserve pruned a page: 59 bytes of the log and 2 us of the processor.
--
-- So a row is inserted with a filling, which goes in the same transaction. It leaves a page that is
-- filled to 28 % by a statement of many rows, and to 20 % by one of a single row, where it was
-- 40 %. The page is pruned at 70 %. A vacuumed page takes new rows up to 70 %, with their filling.
--
-- The filling stays on its page while a snapshot from before the load is open. The row's new
-- versions go to other pages then. Rows that are restored from a dump have no filling. Their pages
-- are filled to 70 % and pruned at each access. A load without the triggers must take the filling
-- out itself: UPDATE inventory SET room = NULL.
--
-- The lock is waited for in short turns, as in 0002_old_snapshots.sql. No row is written. The
-- previous release works on this schema: its rows get the filling too, and lose it.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
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

-- The pages that are there are filled to 40 % (0009_hold_guards.sql).
ALTER TABLE inventory SET (fillfactor = 70);

-- room is the filling of a new row, and null from the end of the statement that inserts it. The
-- default is set in a second step, so that the rows that are there have none.
ALTER TABLE inventory ADD COLUMN room bytea;
ALTER TABLE inventory ALTER COLUMN room SET DEFAULT decode(repeat('00', 160), 'hex');

-- The new versions of the rows go to the same page: 21 rows with their filling take 70 % of it, and
-- without it 28 %. The function has its owner's rights, as the service's role may not write room.
-- +goose StatementBegin
CREATE FUNCTION take_out_filling() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE inventory i SET room = NULL
    FROM made m
    WHERE i.product_id = m.product_id AND i.warehouse_id = m.warehouse_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER inventory_room AFTER INSERT ON inventory REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION take_out_filling();
