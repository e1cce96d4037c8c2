-- settled_hold says what has become of a hold, and by which clock. A hold that looks dead may have
-- a confirm or an extend that came in time and is about to commit, so the function then takes the
-- hold's lock and looks again. A hold that isn't there may lie in the archive. Outcomes: NOT_FOUND,
-- or the hold's status.
CREATE OR REPLACE FUNCTION settled_hold(
    _id uuid, OUT outcome text, OUT answer jsonb, OUT seen timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    _hold reservations;
    _dead boolean;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = _id;
    seen := clock_timestamp();
    _dead := hold_is_dead(_hold, seen);
    IF _dead THEN
        SELECT * INTO _hold FROM reservations WHERE id = _id FOR NO KEY UPDATE;
        seen := clock_timestamp();
        _dead := hold_is_dead(_hold, seen);
    END IF;
    IF _hold.id IS NULL THEN
        answer := archived_hold(_id); -- by a younger snapshot: a hold may have moved just now
        outcome := coalesce(answer ->> 'status', 'NOT_FOUND');
        RETURN;
    END IF;
    outcome := CASE WHEN _dead THEN 'EXPIRED' ELSE _hold.status::text END;
    answer := hold_json(_hold, _dead);
END $$;
