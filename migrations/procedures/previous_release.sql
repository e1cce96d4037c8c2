-- The routines that only the previous release calls, because their signature changed. The next
-- release deletes them. Each calls its successor.

-- The previous release keeps one result, whatever the kind of the audit.
CREATE OR REPLACE FUNCTION keep_audit(_violations integer, _unfinished boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM keep_audit(false, _violations, _unfinished);
END $$;
