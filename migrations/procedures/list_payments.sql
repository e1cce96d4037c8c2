-- list_payments is the newest _limit payments of a hold, in the order in which they got their
-- outcomes, or null if there is no such hold. A hold may lie in the archive; its payments stay
-- where they are.
CREATE OR REPLACE FUNCTION list_payments(_id uuid, _limit integer) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT hold_exists(_id) THEN
        RETURN NULL;
    END IF;
    RETURN coalesce((
        SELECT jsonb_agg(jsonb_build_object(
                   'reference', l.reference, 'outcome', l.outcome, 'at', l.at,
                   'successor', l.successor) ORDER BY l.at, l.reference)
        FROM (SELECT p.reference, p.outcome, p.at, p.successor
              FROM hold_payments p WHERE p.hold_id = _id
              ORDER BY p.at DESC, p.reference DESC LIMIT _limit) l), '[]');
END $$;
