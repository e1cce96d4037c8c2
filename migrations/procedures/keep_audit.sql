-- keep_audit stores the result of an audit of what is new, or of a full one, and answers how many
-- violations are known: the larger number of the two kinds. An hour's audit can't see all that a
-- full one does, so neither kind's result touches the other's. An unfinished audit doesn't lower a
-- number either, because it may have missed what the one before found. When two audits run at once,
-- the later call wins.
CREATE OR REPLACE FUNCTION keep_audit(_full boolean, _violations integer, _unfinished boolean)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    _known integer;
BEGIN
    INSERT INTO last_audit AS a (at, violations, unfinished, full_violations)
    VALUES (clock_timestamp(), CASE WHEN _full THEN 0 ELSE _violations END,
            NOT _full AND _unfinished, CASE WHEN _full THEN _violations ELSE 0 END)
    ON CONFLICT (only_row) DO UPDATE
    SET at = excluded.at,
        violations = CASE WHEN _full THEN a.violations
                          WHEN _unfinished THEN greatest(a.violations, _violations)
                          ELSE _violations END,
        unfinished = CASE WHEN _full THEN a.unfinished ELSE _unfinished END,
        full_violations = CASE WHEN NOT _full THEN a.full_violations
                               WHEN _unfinished THEN greatest(a.full_violations, _violations)
                               ELSE _violations END
    RETURNING greatest(a.violations, a.full_violations) INTO _known;
    RETURN _known;
END $$;
