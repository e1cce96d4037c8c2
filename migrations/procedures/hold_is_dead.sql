-- hold_is_dead says whether a hold is dead by the clock _now: it is PENDING, and either its end has
-- come or a line of it was reclaimed. A reclaimed line stays reclaimed, so such a cart stays dead
-- even when the database's clock jumps back behind its end.
--
-- A confirm that commits between the reading of the hold and this call can make the hold look dead.
-- A caller that decides anything must have the hold's lock.
CREATE OR REPLACE FUNCTION hold_is_dead(_hold reservations, _now timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN _hold.status = 'PENDING' AND (_hold.expires_at <= _now OR has_lost_line(_hold));
END $$;

-- has_lost_line says whether a line of a PENDING cart was reclaimed: it isn't counted any more. It
-- counts instead of asking EXISTS, which the planner would compute for all carts at once.
CREATE OR REPLACE FUNCTION has_lost_line(_hold reservations) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        RETURN false; -- a single line stands in the hold's own row
    END IF;
    RETURN (SELECT count(*) > 0 FROM reservation_items l
            WHERE l.reservation_id = _hold.id AND NOT l.counted);
END $$;
