-- replay_answer looks for the answer stored under a key, for a reserve that would be refused
-- because the longest time, the most units or the most lines of a hold are fewer now. Outcomes:
-- UNUSED, when the key is free; else as for claim_key.
--
-- The answer is durable (I5): the first request may have been committed without a flush yet, so a
-- replay waits for one.
CREATE OR REPLACE FUNCTION replay_answer(
    _key text, _hash bytea, OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT coalesce(c.outcome, 'UNUSED'), c.answer INTO outcome, answer
    FROM claim_key(_key, _hash) c;
    IF outcome = 'REPLAYED' THEN
        answer := with_party(answer);
        PERFORM write_log_record();
    END IF;
END $$;
