-- list_holds_of answers up to _limit holds before the id _before that are for an owner, or have a
-- reference, the newest first: an id begins with the time. The other filters may be null, as in
-- list_holds. It looks at the next _scan holds of the reference, or else of the owner: with both,
-- the holds of the reference that are for others count too. Those of the archive are passed by.
-- matches, walked and seen_at are as in list_holds.
CREATE OR REPLACE FUNCTION list_holds_of(
    _owner text, _reference text, _status reservation_status, _product uuid, _warehouse uuid,
    _since timestamptz, _before uuid, _limit integer, _scan integer)
RETURNS TABLE (id uuid, hold jsonb, matches boolean, walked bigint, seen_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    SELECT w.hold_id, CASE WHEN w.fits THEN with_party(hold_json(w.r, w.dead)) END, w.fits, w.n,
           _now
    FROM (
        SELECT f.hold_id, f.n, h.r, h.dead,
               coalesce(f.named AND is_listed(h.r, h.dead, _status, _product, _warehouse, _since),
                        false) AS fits
        FROM (
            SELECT p.hold_id, _owner IS NULL OR p.owner = _owner AS named,
                   row_number() OVER (ORDER BY p.hold_id DESC) AS n
            FROM (
                (SELECT o.hold_id, o.owner FROM hold_parties o
                 WHERE o.reference = _reference AND o.hold_id < _before
                 ORDER BY o.hold_id DESC LIMIT _scan)
                UNION ALL
                (SELECT o.hold_id, o.owner FROM hold_parties o
                 WHERE _reference IS NULL AND o.owner = _owner AND o.hold_id < _before
                 ORDER BY o.hold_id DESC LIMIT _scan)
            ) p
        ) f
        LEFT JOIN LATERAL (
            SELECT r, hold_is_dead(r, _now) AS dead FROM reservations r
            WHERE f.named AND r.id = f.hold_id
            OFFSET 0 -- otherwise the planner may join the whole table
        ) h ON true
    ) w
    WHERE w.fits OR w.n = _scan
    ORDER BY w.hold_id DESC LIMIT _limit;
END $$;

-- is_listed says whether a hold, which is dead or not, has the status, a line of the product in the
-- warehouse, and was updated at _since or later. Null stands for any.
CREATE OR REPLACE FUNCTION is_listed(
    _hold reservations, _dead boolean, _status reservation_status, _product uuid, _warehouse uuid,
    _since timestamptz)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (CASE WHEN _dead THEN 'EXPIRED' ELSE _hold.status END) <> _status
       OR (CASE WHEN _dead THEN _hold.expires_at ELSE _hold.updated_at END) < _since THEN
        RETURN false;
    ELSIF _product IS NULL AND _warehouse IS NULL THEN
        RETURN _hold.id IS NOT NULL;
    ELSIF _hold.product_id IS NOT NULL THEN
        RETURN _hold.product_id = coalesce(_product, _hold.product_id)
               AND _hold.warehouse_id = coalesce(_warehouse, _hold.warehouse_id);
    END IF;
    RETURN (SELECT count(*) > 0 FROM reservation_items l -- one line must match both
            WHERE l.reservation_id = _hold.id
              AND l.product_id = coalesce(_product, l.product_id)
              AND l.warehouse_id = coalesce(_warehouse, l.warehouse_id));
END $$;
