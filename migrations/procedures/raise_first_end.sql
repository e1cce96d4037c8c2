-- raise_first_end moves a stock row's first_end up, past the dead index entries that an old
-- snapshot keeps. Afterwards, as before, no PENDING hold of the row and none of its counted cart
-- lines ends earlier. Its caller must have updated the stock row in the same
-- transaction and in an earlier statement. Then:
--
--   - The statement's snapshot is younger than the row's lock. So it sees every hold that the row
--     counts, and one that another caller has locked is still PENDING in it.
--   - A reserve that hasn't taken its units yet waits for the row, and then lowers first_end to
--     the end of its own hold (reserve_line, reserve_cart, take_units). So does an update that
--     moves an end down (lower_first_end).
--
-- Without a live hold it becomes infinite, as it is for a new stock row. So a value above the clock
-- says that no hold of the row is dead, and a reserve that finds the row sold out needs no search.
--
-- A jump of the clock does no harm, because the holds' ends are compared with first_end and not
-- with the clock.
CREATE OR REPLACE FUNCTION raise_first_end(_product uuid, _warehouse uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory i
    SET first_end = coalesce(least(
        (SELECT r.expires_at FROM reservations r
         WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
           AND r.expires_at >= i.first_end
         ORDER BY r.expires_at LIMIT 1),
        (SELECT l.expires_at FROM reservation_items l
         WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
           AND l.expires_at >= i.first_end
         ORDER BY l.expires_at LIMIT 1)), 'infinity')
    WHERE i.product_id = _product AND i.warehouse_id = _warehouse
      AND i.epoch >= (SELECT n.epoch FROM inventory n -- leads to the row's newest version
                      WHERE n.product_id = _product AND n.warehouse_id = _warehouse
                      ORDER BY n.epoch DESC LIMIT 1);
END $$;

-- first_end_of is the first_end of a stock row, without a lock.
CREATE OR REPLACE FUNCTION first_end_of(_product uuid, _warehouse uuid) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT i.first_end FROM inventory i
            WHERE i.product_id = _product AND i.warehouse_id = _warehouse
            ORDER BY i.epoch DESC LIMIT 1);
END $$;

-- next_epoch is a stock row's epoch after an update of its counts. It grows at every 256th update
-- or so. An update that changes it writes to the indexes, and a search for the row's newest version
-- passes the versions of one epoch. The planner replaces the call by the expression.
CREATE OR REPLACE FUNCTION next_epoch(_epoch integer) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT _epoch + (random() < 1.0 / 256)::integer
$$;
