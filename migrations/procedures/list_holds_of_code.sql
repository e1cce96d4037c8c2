-- list_holds_of_code answers the holds that have a short code, the newest first: those whose ids
-- lie in one of the ranges, each of a millisecond, and end with the five bits _bits. It looks at
-- _limit holds of each range at most, which is more than a millisecond has. It reads the primary
-- key.
-- matches, walked and seen_at are as in list_holds.
CREATE OR REPLACE FUNCTION list_holds_of_code(
    _first uuid[], _last uuid[], _bits integer, _limit integer)
RETURNS TABLE (id uuid, hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT f.id, with_party(hold_json(f.r, hold_is_dead(f.r, _now))), true, 0::bigint, _now
    FROM unnest(_first, _last) w (first, last)
    CROSS JOIN LATERAL (
        SELECT r, r.id FROM reservations r
        WHERE r.id BETWEEN w.first AND w.last
        ORDER BY r.id LIMIT _limit
    ) f
    WHERE get_byte(uuid_send(f.id), 15) & 31 = _bits
    ORDER BY f.id DESC LIMIT _limit;
END $$;
