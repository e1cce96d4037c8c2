-- keep_audit stores the result of an audit. When two audits run at once, the later call wins.
CREATE OR REPLACE FUNCTION keep_audit(_violations integer, _unfinished boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO last_audit AS a (at, violations, unfinished)
    VALUES (clock_timestamp(), _violations, _unfinished)
    ON CONFLICT (only_row) DO UPDATE
    SET at = excluded.at, violations = excluded.violations, unfinished = excluded.unfinished;
END $$;
