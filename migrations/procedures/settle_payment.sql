-- settle_payment says what becomes of a payment that came for a hold that isn't alive. It locks the
-- hold, and every decision is by what it then says. With a _successor, a payment of a hold that is
-- gone takes the hold's units anew, as a CONFIRMED hold with that id, or is lost. Both are final:
-- every repeat gets the same answer, whatever the stock does later. The caller then has the locks
-- of lock_owner_of_hold, and _limits are those that it answered.
--
-- Outcomes, of which the first that fits is the answer:
--
--   NOT_FOUND     there is no such hold
--   PENDING       the hold is alive after all: the caller begins again
--   PAYMENT_LOST  the payment is lost, now or before; the answer says what was short
--   CONFIRMED     this payment confirmed the hold
--   REACQUIRED    this payment got the units anew, now or before; the answer is the successor
--   ALREADY_PAID  another payment, or a confirm that named none, was first; the answer names it
--   RELEASED, EXPIRED  without a _successor
--   RETRY         the stock rows have changed: the caller rolls back, waits and begins again
CREATE OR REPLACE FUNCTION settle_payment(
    _id uuid, _payment text, _successor uuid, _actor text, _limits integer[],
    OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _hold  reservations;
    _dead  boolean;
    _mine  hold_payments;
    _first hold_payments;
BEGIN
    _hold := lock_hold(_id);
    _dead := hold_is_dead(_hold, clock_timestamp()); -- by the clock after the lock
    SELECT * INTO _mine FROM hold_payments p WHERE p.hold_id = _id AND p.reference = _payment;
    SELECT * INTO _first FROM hold_payments p
    WHERE p.hold_id = _id AND p.outcome IN ('CONFIRMED', 'REACQUIRED');
    IF _hold.id IS NULL THEN
        outcome := 'NOT_FOUND';
    ELSIF _hold.status = 'PENDING' AND NOT _dead THEN
        outcome := 'PENDING';
    ELSIF _mine.outcome = 'LOST' THEN
        outcome := 'PAYMENT_LOST';
        answer := lost_answer(_mine.short);
    ELSIF _first.reference = _payment AND _first.outcome = 'CONFIRMED' THEN
        outcome := 'CONFIRMED';
        answer := hold_json(_hold, false);
    ELSIF _first.reference = _payment THEN
        outcome := 'REACQUIRED';
        answer := reacquired_answer(_first.successor);
    ELSIF _hold.status = 'CONFIRMED' OR _first.reference IS NOT NULL THEN
        outcome := 'ALREADY_PAID';
        answer := jsonb_build_object('payment', _first.reference);
    ELSIF _successor IS NULL THEN
        outcome := CASE WHEN _dead THEN 'EXPIRED' ELSE _hold.status::text END;
    ELSE
        SELECT r.outcome, r.answer INTO outcome, answer
        FROM reacquire_units(_hold, _payment, _successor, _actor, _limits) r;
    END IF;
END $$;

-- lock_owner_of_hold takes the locks of lock_owner for a hold, if it has an owner. It also shares
-- the owner's own lock, so that the owner isn't erased meanwhile (erase_owner). It answers the
-- limits for each owner that the hold's lines had before, by which the locks were chosen.
CREATE OR REPLACE FUNCTION lock_owner_of_hold(_id uuid) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    _owner  text := (SELECT p.owner FROM hold_parties p WHERE p.hold_id = _id);
    _lines  record := lines_of_hold(stored_row(_id));
    _limits integer[] := (SELECT l.per_owner
                          FROM limits_of_lines(_lines.products, _lines.warehouses) l);
BEGIN
    IF _owner IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended(_owner, 0));
        PERFORM lock_owner(_owner, _lines.products, _limits, _id);
    END IF;
    RETURN _limits;
END $$;

-- stored_row is a hold's row, or that of the archive. A row that is null has no id.
CREATE OR REPLACE FUNCTION stored_row(_id uuid) RETURNS reservations LANGUAGE plpgsql STABLE AS $$
DECLARE
    _hold reservations;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = _id;
    IF NOT FOUND THEN
        SELECT * INTO _hold FROM archived_reservations WHERE id = _id;
    END IF;
    RETURN _hold;
END $$;

-- reacquired_answer and lost_answer are the answers of a payment that came too late, in the form
-- that is stored under a key. A stored answer without results has the id of a hold, for the audits,
-- also of the previous release.
CREATE OR REPLACE FUNCTION reacquired_answer(_successor uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN hold_json(stored_row(_successor), false) || jsonb_build_object('outcome', 'REACQUIRED');
END $$;

CREATE OR REPLACE FUNCTION lost_answer(_short jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('outcome', 'PAYMENT_LOST', 'short', _short, 'results', '[]'::jsonb)
$$;

-- lock_hold locks a hold and answers its newest row, or null if there is none. A hold of the
-- archive can't be locked, and never comes back from there: an advisory lock takes the place of its
-- own.
CREATE OR REPLACE FUNCTION lock_hold(_id uuid) RETURNS reservations LANGUAGE plpgsql AS $$
DECLARE
    _hold reservations;
BEGIN
    SELECT * INTO _hold FROM reservations WHERE id = _id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock(9, hashtext(_id::text));
        SELECT * INTO _hold FROM archived_reservations WHERE id = _id;
    END IF;
    RETURN _hold;
END $$;

-- reacquire_units takes the units of a hold that is gone anew, for a payment that came too late:
-- the successor is CONFIRMED at once, with the lines and the parties of the hold. The caller has
-- the locks of the hold and of its owner. Outcomes: REACQUIRED, PAYMENT_LOST, and RETRY, after
-- which the caller must roll back.
--
-- A payment is lost when units are missing, a line isn't for sale any more, the owner's limit is
-- reached (I12), or another hold has taken the place of this one. Dead holds of just these stock
-- rows are reclaimed first, as by a reserve.
--
-- In both cases the hold's death is written down first. So no jump of the clock back brings a hold
-- to life again whose payment has its final answer. The hold's own lines are then locked before the
-- dead ones of other carts: two payments of two carts never wait for each other's lines.
CREATE OR REPLACE FUNCTION reacquire_units(
    _hold reservations, _payment text, _successor uuid, _actor text, _limits integer[],
    OUT outcome text, OUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _owner text := (SELECT p.owner FROM hold_parties p WHERE p.hold_id = _hold.id);
    _lines record := lines_of_hold(_hold);
    _own   integer[] := expire_for_payment(_hold, _lines.products, _lines.warehouses);
    _raise bigint[]; -- by how much each line raises its stock row's reserved, before it is sold
    _short jsonb;
BEGIN
    IF EXISTS (SELECT FROM replacements r WHERE r.old_id = _hold.id) THEN
        _short := '[]';
    ELSE
        _short := closed_lines(_lines.products, _lines.warehouses, _lines.quantities);
    END IF;
    IF _short IS NULL AND _owner IS NOT NULL THEN
        _short := reached_limits(_owner, _lines.products, _lines.warehouses, _lines.quantities,
                                 _limits, NULL);
    END IF;
    IF _short @> '[{"unsure": true}]' THEN
        outcome := 'RETRY';
        RETURN;
    ELSIF _short IS NULL THEN
        SELECT c.short, c.raise INTO _short, _raise
        FROM reclaim_beside(_lines.products, _lines.warehouses, _lines.quantities, _own) c;
    END IF;
    IF _short IS NOT NULL THEN
        PERFORM keep_payment(_hold.id, _payment, 'LOST', NULL, _short);
        PERFORM give_back_units(_lines.products, _lines.warehouses, _own);
        outcome := 'PAYMENT_LOST';
        answer := lost_answer(_short);
        RETURN;
    END IF;
    PERFORM insert_successor(_hold, _successor, _now, _actor);
    PERFORM keep_payment(_hold.id, _payment, 'REACQUIRED', _successor, NULL);
    PERFORM keep_payment(_successor, _payment, 'CONFIRMED', NULL, NULL);
    IF sell_units(_successor, _lines.products, _lines.warehouses, _lines.quantities, _limits,
                  _raise) THEN
        outcome := 'REACQUIRED';
        answer := reacquired_answer(_successor);
    ELSE
        outcome := 'RETRY';
    END IF;
END $$;

-- lines_of_hold is the lines of a hold, which may lie in the archive, in the lock order.
CREATE OR REPLACE FUNCTION lines_of_hold(
    _hold reservations, OUT products uuid[], OUT warehouses uuid[], OUT quantities integer[])
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _hold.product_id IS NOT NULL THEN
        products := ARRAY[_hold.product_id];
        warehouses := ARRAY[_hold.warehouse_id];
        quantities := ARRAY[_hold.quantity];
        RETURN;
    END IF;
    SELECT array_agg(l.product_id ORDER BY l.product_id, l.warehouse_id),
           array_agg(l.warehouse_id ORDER BY l.product_id, l.warehouse_id),
           array_agg(l.quantity ORDER BY l.product_id, l.warehouse_id)
    INTO products, warehouses, quantities
    FROM (SELECT i.product_id, i.warehouse_id, i.quantity FROM reservation_items i
          WHERE i.reservation_id = _hold.id
          UNION ALL
          SELECT a.product_id, a.warehouse_id, a.quantity FROM archived_items a
          WHERE a.reservation_id = _hold.id AND a.resolved_at = _hold.updated_at) l;
END $$;

-- expire_for_payment writes down that a hold is dead, unless that is done. It answers how many
-- units of each line the hold still occupied. The caller takes these out of their stock rows'
-- reserved.
CREATE OR REPLACE FUNCTION expire_for_payment(
    _hold reservations, _products uuid[], _warehouses uuid[]) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
    WITH expired AS (
        UPDATE reservations r
        SET status = 'EXPIRED', updated_at = r.expires_at, version = r.version + 1
        WHERE r.id = _hold.id AND r.status::text = 'PENDING'
        RETURNING r.expires_at, r.version
    )
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT e.expires_at, e.expires_at, _hold.id, e.version, 'e', 'm' FROM expired e;
    IF NOT FOUND THEN
        RETURN array_fill(0, ARRAY[cardinality(_products)]);
    ELSIF _hold.product_id IS NOT NULL THEN
        RETURN ARRAY[_hold.quantity];
    END IF;
    RETURN (
        SELECT array_agg(coalesce(u.quantity, 0) ORDER BY w.n)
        FROM uncount_lines(_hold.id) l
        CROSS JOIN LATERAL unnest(_products, _warehouses)
             WITH ORDINALITY w (product_id, warehouse_id, n)
        LEFT JOIN LATERAL unnest(l.products, l.warehouses, l.quantities)
             u (product_id, warehouse_id, quantity) USING (product_id, warehouse_id));
END $$;

-- give_back_units takes units that a hold occupied out of their stock rows' reserved.
CREATE OR REPLACE FUNCTION give_back_units(
    _products uuid[], _warehouses uuid[], _units integer[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH locked AS MATERIALIZED ( -- by epoch, as in give_up_units
        SELECT i.product_id, i.warehouse_id, newest.epoch, l.units
        FROM unnest(_products, _warehouses, _units) l (product_id, warehouse_id, units)
        CROSS JOIN LATERAL (
            SELECT n.epoch FROM inventory n
            WHERE n.product_id = l.product_id AND n.warehouse_id = l.warehouse_id
            ORDER BY n.epoch DESC LIMIT 1
        ) newest
        JOIN inventory i ON i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
                        AND i.epoch >= newest.epoch
        WHERE l.units > 0
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    )
    UPDATE inventory i SET reserved = i.reserved - l.units, epoch = next_epoch(i.epoch)
    FROM locked l
    WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id AND i.epoch >= l.epoch;
END $$;

-- insert_successor makes the CONFIRMED hold that takes the place of one that is gone. It has one
-- row in the ledger. Its end is as long after its beginning as that of the hold it follows, and
-- says nothing.
CREATE OR REPLACE FUNCTION insert_successor(
    _hold reservations, _successor uuid, _now timestamptz, _actor text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _end timestamptz := _now + (_hold.expires_at - _hold.created_at);
BEGIN
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                              expires_at, status, version, detailed)
    VALUES (_successor, _hold.product_id, _hold.warehouse_id, _hold.quantity, _now, _now,
            _end, 'CONFIRMED', 1, true);
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause, actor)
    VALUES (_now, _end, _successor, 1, 'c', 'v', _actor);
    INSERT INTO replacements (old_id, new_id) VALUES (_hold.id, _successor);
    INSERT INTO hold_parties (hold_id, owner, reference)
    SELECT _successor, p.owner, p.reference FROM hold_parties p WHERE p.hold_id = _hold.id;
    IF _hold.product_id IS NULL THEN
        INSERT INTO reservation_items
               (reservation_id, product_id, warehouse_id, expires_at, quantity, counted)
        SELECT _successor, l.product_id, l.warehouse_id, _end, l.quantity, false
        FROM lines_of_hold(_hold) h,
             unnest(h.products, h.warehouses, h.quantities)
             l (product_id, warehouse_id, quantity);
    END IF;
END $$;

-- sell_units takes units that aren't held out of stock, and writes a SALE for each line (I8).
-- _raise says by how much each stock row's reserved would rise if the units were held first: the
-- quantity less what was reclaimed. _limits are those that the owner's units were compared with. It
-- answers false, and the caller must roll back, when the guard refuses a line.
CREATE OR REPLACE FUNCTION sell_units(
    _hold uuid, _products uuid[], _warehouses uuid[], _quantities integer[], _limits integer[],
    _raise bigint[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _rows integer;
BEGIN
    WITH locked AS MATERIALIZED ( -- by epoch, as in give_up_units
        SELECT i.product_id, i.warehouse_id, newest.epoch, l.quantity, l.most, l.units
        FROM unnest(_products, _warehouses, _quantities, _limits, _raise)
             l (product_id, warehouse_id, quantity, most, units)
        CROSS JOIN LATERAL (
            SELECT n.epoch FROM inventory n
            WHERE n.product_id = l.product_id AND n.warehouse_id = l.warehouse_id
            ORDER BY n.epoch DESC LIMIT 1
        ) newest
        JOIN inventory i ON i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
                        AND i.epoch >= newest.epoch
        ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
    ), stock AS (
        UPDATE inventory i
        SET reserved = i.reserved + l.units - l.quantity, total = i.total - l.quantity,
            seq = i.seq + 1, epoch = next_epoch(i.epoch)
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
          AND i.epoch >= l.epoch AND i.total - i.reserved >= l.units AND i.open
          AND i.max_per_owner IS NOT DISTINCT FROM l.most
        RETURNING i.product_id, i.warehouse_id, i.seq, i.total, l.quantity
    ), sales AS (
        INSERT INTO stock_movements (product_id, warehouse_id, seq, at, reservation_id, kind,
                                     delta, total_after)
        SELECT s.product_id, s.warehouse_id, s.seq, clock_timestamp(), _hold, 'SALE',
               -s.quantity, s.total
        FROM stock s
    )
    SELECT count(*) INTO _rows FROM stock;
    RETURN _rows = cardinality(_products);
END $$;

-- keep_payment writes what became of a payment.
CREATE OR REPLACE FUNCTION keep_payment(
    _hold uuid, _payment text, _outcome payment_outcome, _successor uuid, _short jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hold_payments AS p (hold_id, reference, outcome, at, successor, short)
    VALUES (_hold, _payment, _outcome, clock_timestamp(), _successor, _short)
    ON CONFLICT (hold_id, reference) DO UPDATE
    SET outcome = excluded.outcome, successor = excluded.successor, short = excluded.short,
        at = CASE WHEN (p.outcome, excluded.outcome) = ('STARTED', 'STARTED')
                  THEN p.at ELSE excluded.at END;
END $$;

-- confirm_payment writes which payment confirms a hold. A confirm that names none is of the payment
-- under way.
CREATE OR REPLACE FUNCTION confirm_payment(_hold uuid, _payment text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _started text := (SELECT p.reference FROM hold_payments p
                      WHERE p.hold_id = _hold AND p.outcome = 'STARTED');
BEGIN
    IF _started <> _payment THEN
        PERFORM keep_payment(_hold, _started, 'FAILED', NULL, NULL);
    END IF;
    PERFORM keep_payment(_hold, coalesce(_payment, _started), 'CONFIRMED', NULL, NULL);
END $$;
