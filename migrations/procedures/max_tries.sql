-- max_tries bounds the tries of one call of a verb whose rows changed during the try. With the
-- pauses of pause_before_try they take about as long as a lock may be waited for (lock_timeout, 2
-- s). The planner replaces the call by the constant.
CREATE OR REPLACE FUNCTION max_tries() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 30 $$;

-- pause_before_try waits before another try of a reserve, because the hold that blocks it may not
-- be one of the oldest. The second try comes at once: it is the try of a caller who lost the last
-- unit.
CREATE OR REPLACE FUNCTION pause_before_try(_try integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _try > 2 THEN
        PERFORM pg_sleep(0.009 * (_try - 1) * (0.25 + random() / 2));
    END IF;
END $$;
