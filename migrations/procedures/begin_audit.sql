-- begin_audit begins an audit of a kind, or goes on with the one that is under way. It answers the
-- run's number, how far it is, since when keys and returns count as new, and two snapshots: a row
-- of the ledger is new when next_seen sees it and seen doesn't. since never falls. It leaves a
-- margin for the transactions that run now.
--
-- The snapshot is read before the transaction gets its id. So the id is higher than those of all
-- transactions that the snapshot sees, and a crash that keeps next_seen keeps them too. A server
-- that shows this run has all that next_seen sees.
--
-- A database that was moved by a dump counts its transactions anew. Then every row is new again.
CREATE OR REPLACE FUNCTION begin_audit(
    _kind text,
    OUT run bigint, OUT part text, OUT after text, OUT since timestamptz,
    OUT seen text, OUT next_seen text)
LANGUAGE plpgsql AS $$
DECLARE
    _now pg_snapshot := pg_current_snapshot();
BEGIN
    UPDATE audit_state a
    SET run = a.run + 1, began = clock_timestamp(), part = '', after = '', violations = 0,
        found = '[]', next_since = greatest(a.since, clock_timestamp() - interval '10 min'),
        seen = CASE WHEN pg_snapshot_xmax(a.seen) > pg_snapshot_xmax(_now) THEN '1:1:'
                    ELSE a.seen END,
        next_seen = _now
    WHERE a.kind = _kind AND a.began IS NULL;
    SELECT a.run, a.part, a.after, a.since, a.seen, a.next_seen
    INTO run, part, after, since, seen, next_seen
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
-- already. What was new stops being new when an audit has looked at all of it and found nothing
-- wrong: what is wrong is found again until it is repaired. _whole says whether it looked at all,
-- and _missed counts violations in slices that another call passed. _seen is the next_seen by which
-- it read the ledger, or null if it didn't read it.
CREATE OR REPLACE FUNCTION end_audit(
    _kind text, _run bigint, _whole boolean, _missed integer, _seen text)
RETURNS TABLE (violations integer, found jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE audit_state a
    SET began = NULL, part = '', after = '',
        since = CASE WHEN _whole AND a.violations + _missed = 0 THEN a.next_since ELSE a.since END,
        seen = CASE WHEN _whole AND a.violations + _missed = 0
                    THEN coalesce(_seen::pg_snapshot, a.seen) ELSE a.seen END,
        completed = CASE WHEN _whole THEN clock_timestamp() ELSE a.completed END
    WHERE a.kind = _kind AND a.run = _run AND a.began IS NOT NULL
    RETURNING a.violations, a.found;
END $$;
