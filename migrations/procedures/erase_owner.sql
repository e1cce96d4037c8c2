-- erase_owner forgets up to _limit holds of an owner: whose they are, and what the caller calls
-- them. The holds stay as they are (I3). Only hold_parties names owners and references, so nothing
-- has them then. The limit of a product (I12) doesn't count a forgotten hold any more.
--
-- A caller erases in several transactions, and says in _before how many holds it has forgotten in
-- those before this one. Outcomes: MORE, when some may be left, unless this is the _last
-- transaction of the call; ERASED; REPLAYED, KEY_IN_USE and KEY_REUSED as for claim_key. The answer
-- has how many holds the call forgot so far, and whether some may be left. The answer of ERASED is
-- stored under the key. Each transaction claims the key anew, so two calls under one key may erase
-- side by side. The one that doesn't end first gets the answer of the other one.
--
-- A payment that comes too late copies the parties of its hold to the successor, and shares the
-- owner's lock until its commit (lock_owner_of_hold). So this either sees the successor, or has
-- forgotten the hold before.
CREATE OR REPLACE FUNCTION erase_owner(
    _owner text, _limit integer, _before bigint, _last boolean, _key text, _hash bytea,
    OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _erased bigint;
BEGIN
    IF _key IS NOT NULL THEN
        SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
        IF outcome IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(_owner, 0));
    DELETE FROM hold_parties p
    WHERE p.hold_id IN (SELECT o.hold_id FROM hold_parties o
                        WHERE o.owner = _owner ORDER BY o.hold_id LIMIT _limit);
    GET DIAGNOSTICS _erased = ROW_COUNT;
    -- The answer is about no single hold, so it has results instead of an id.
    answer := jsonb_build_object('results', '[]'::jsonb, 'erased', _before + _erased,
                                 'more', _erased = _limit);
    outcome := CASE WHEN _erased = _limit AND NOT _last THEN 'MORE' ELSE 'ERASED' END;
    IF _key IS NOT NULL AND outcome = 'ERASED' THEN
        PERFORM keep_answer(_key, _hash, answer);
    END IF;
END $$;
