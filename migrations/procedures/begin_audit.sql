-- begin_audit begins an audit of a kind, or goes on with the one that is under way. It answers the
-- run's number, how far it is, and since when holds count as new. _next is the value of since for
-- the audit after this one, as far as is known. since never falls.
CREATE OR REPLACE FUNCTION begin_audit(
    _kind text, _next timestamptz,
    OUT run bigint, OUT part text, OUT after text, OUT since timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_state a
    SET run = a.run + 1, began = clock_timestamp(), part = '', after = '', violations = 0,
        found = '[]', next_since = greatest(a.since, _next)
    WHERE a.kind = _kind AND a.began IS NULL;
    SELECT a.run, a.part, a.after, a.since INTO run, part, after, since
    FROM audit_state a WHERE a.kind = _kind;
END $$;

-- pass_slice moves an audit on from where it was to the next slice, and adds the violations of the
-- slice between. It answers whether the audit was there: otherwise another call has passed the
-- slice. A step that is lost in a crash is made again, so this doesn't wait for the disk.
CREATE OR REPLACE FUNCTION pass_slice(
    _kind text, _run bigint, _part text, _after text, _next_part text, _next_after text,
    _violations integer, _found jsonb)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- for this transaction
    UPDATE audit_state a
    SET part = _next_part, after = _next_after, violations = a.violations + _violations,
        found = jsonb_path_query_array(a.found || _found, '$[0 to 19]')
    WHERE a.kind = _kind AND a.run = _run AND a.began IS NOT NULL
      AND a.part = _part AND a.after = _after;
    RETURN FOUND;
END $$;

-- end_audit ends an audit, and answers what it found. It answers no row if the audit has ended
-- already. Holds stop being new when an audit has looked at all of them and found nothing wrong:
-- what is wrong is found again until it is repaired. _whole says whether it looked at all, and
-- _missed counts violations in slices that another call passed.
CREATE OR REPLACE FUNCTION end_audit(
    _kind text, _run bigint, _whole boolean, _missed integer)
RETURNS TABLE (violations integer, found jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE audit_state a
    SET began = NULL, part = '', after = '',
        since = CASE WHEN _whole AND a.violations + _missed = 0 THEN a.next_since ELSE a.since END,
        completed = CASE WHEN _whole THEN clock_timestamp() ELSE a.completed END
    WHERE a.kind = _kind AND a.run = _run AND a.began IS NOT NULL
    RETURNING a.violations, a.found;
END $$;
