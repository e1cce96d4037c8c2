-- hold_exists says whether there is a hold, in its table or in the archive. It is STABLE, so that
-- it reads both by its caller's snapshot: a hold may be moving to the archive.
CREATE OR REPLACE FUNCTION hold_exists(_id uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM reservations r WHERE r.id = _id)
           OR EXISTS (SELECT FROM archived_reservations r WHERE r.id = _id);
END $$;
