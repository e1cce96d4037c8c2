-- sweep_keys removes up to _limit idempotency keys that are older than a day, and what was counted
-- in minutes before then.
CREATE OR REPLACE FUNCTION sweep_keys(_limit integer, OUT removed bigint) LANGUAGE plpgsql AS $$
DECLARE
    _cutoff timestamptz := clock_timestamp() - interval '24 hours';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM minute_counts m WHERE m.minute < _cutoff;
    WITH old AS MATERIALIZED (
        SELECT k.key FROM idempotency_keys k
        WHERE k.created_at <= _cutoff
        ORDER BY k.created_at LIMIT _limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM idempotency_keys k USING old WHERE k.key = old.key AND k.created_at <= _cutoff;
    GET DIAGNOSTICS removed = ROW_COUNT;
END $$;
