-- Payments of a hold, the hold that takes another one's place, and who a hold is for.
--
-- The locks are waited for in short turns, as in 0002_old_snapshots.sql. The columns have constant
-- defaults, so no row is written. They lie where a row of reservations has padding, so that a hold
-- is as long as before. The previous release works on this schema: it neither reads nor writes what
-- is new. Its release and extend of a hold that is being paid are refused (previous_release.sql).

-- +goose Up

-- Serves the lists of what was updated since a time: they begin at a tick. It is built before the
-- lock of the holds is waited for, because it takes a second for a million ticks. Until this file
-- has ended the feed takes no tick.
-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE ticks IN SHARE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF _turn = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
-- +goose StatementEnd
CREATE INDEX ticks_by_time ON ticks (at, n);

-- payment_outcome is the state of a payment of a hold.
--
--   STARTED     the customer has gone to pay
--   FAILED      the payment failed, or another one took its place
--   CONFIRMED   it confirmed the hold
--   REACQUIRED  it came when the hold was gone, and got the units as the hold successor
--   LOST        it came when the hold was gone, and so were the units: it must be refunded
CREATE TYPE payment_outcome AS ENUM ('STARTED', 'FAILED', 'CONFIRMED', 'REACQUIRED', 'LOST');

-- One row for each payment that named itself in a call. at is when it got its outcome. A payment
-- that is started again keeps the time at which it was started first, unless it failed in between.
-- short has the lines that were short, and the limits that were reached, when the payment was lost.
--
-- The rows stay when a hold is archived, because the outcome of a payment is final for ever. There
-- is no foreign key to the hold, as in 0010_ledger.sql.
CREATE TABLE hold_payments (
    hold_id   uuid            NOT NULL,
    reference text COLLATE "C" NOT NULL CHECK (length(reference) BETWEEN 1 AND 100),
    outcome   payment_outcome NOT NULL,
    at        timestamptz     NOT NULL,
    successor uuid,
    short     jsonb,
    PRIMARY KEY (hold_id, reference),
    CONSTRAINT a_reacquired_payment_has_a_successor
        CHECK ((outcome = 'REACQUIRED') = (successor IS NOT NULL)),
    CONSTRAINT a_lost_payment_says_why CHECK ((outcome = 'LOST') = (short IS NOT NULL))
);

-- One payment of a hold is under way.
CREATE UNIQUE INDEX hold_payments_started ON hold_payments (hold_id) WHERE outcome = 'STARTED';

-- One payment pays for a hold, or for its successor.
CREATE UNIQUE INDEX hold_payments_paid
    ON hold_payments (hold_id) WHERE outcome IN ('CONFIRMED', 'REACQUIRED');

-- The outcomes CONFIRMED, REACQUIRED and LOST are final: who is refunded is never contradicted.
-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'UPDATE' AND old.outcome IN ('STARTED', 'FAILED')
       AND (new.hold_id, new.reference) = (old.hold_id, old.reference) THEN
        RETURN new;
    END IF;
    RAISE EXCEPTION 'I3: payment % of hold % is % and never changes again',
                    old.reference, old.hold_id, old.outcome
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i3_payment_is_final BEFORE UPDATE OR DELETE ON hold_payments
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_payment();

-- The hold new_id took the place of the hold old_id, whose units it got or whose payment it is of.
-- A hold has at most one successor, and takes the place of at most one other. Rows are only added.
-- They stay when the holds are archived.
CREATE TABLE replacements (
    old_id uuid PRIMARY KEY,
    new_id uuid NOT NULL UNIQUE,
    CONSTRAINT a_hold_follows_another CHECK (old_id <> new_id)
);

-- +goose StatementBegin
CREATE FUNCTION refuse_change_of_replacement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'I3: hold % took the place of hold %, which never changes again',
                    old.new_id, old.old_id
        USING ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER i3_replacements_stay BEFORE UPDATE OR DELETE ON replacements
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_replacement();

-- hold_parties has the owner of a hold, who is a customer, and the caller's reference, such as the
-- number of an order. These are personal data: no other table has them, and they can be erased
-- while the hold stays (I3). A hold that names neither has no row. The rows stay when a hold is
-- archived, because the limit of an owner counts what was bought long ago (I12).
CREATE TABLE hold_parties (
    hold_id   uuid PRIMARY KEY,
    owner     text COLLATE "C" CHECK (length(owner) BETWEEN 1 AND 255),
    reference text COLLATE "C" CHECK (length(reference) BETWEEN 1 AND 100),
    CHECK (num_nonnulls(owner, reference) > 0)
);

-- Serve the lists of an owner's holds and of a reference, the newest first, because an id begins
-- with the time. The first also serves the sum of an owner's units, and the erasure.
CREATE INDEX hold_parties_by_owner ON hold_parties (owner, hold_id) WHERE owner IS NOT NULL;
CREATE INDEX hold_parties_by_reference
    ON hold_parties (reference, hold_id) WHERE reference IS NOT NULL;

-- +goose StatementBegin
DO $$
BEGIN
    SET LOCAL lock_timeout = '500 ms';
    FOR _turn IN 1..60 LOOP
        BEGIN
            LOCK TABLE reservations, archived_reservations IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF _turn = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
-- +goose StatementEnd

-- paying says that a payment is under way: hold_payments has its row STARTED. It is of no meaning
-- once the hold is resolved or dead. detailed says that hold_parties or replacements may have a row
-- that begins with this hold, as its own or as the new one, so that the others needn't be looked
-- for.
ALTER TABLE reservations
    ADD COLUMN paying   boolean NOT NULL DEFAULT false,
    ADD COLUMN detailed boolean NOT NULL DEFAULT false;
ALTER TABLE archived_reservations
    ADD COLUMN paying   boolean NOT NULL DEFAULT false,
    ADD COLUMN detailed boolean NOT NULL DEFAULT false;
