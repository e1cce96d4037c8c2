-- The verbs again, with fewer statements and expressions: what a call costs the server is their number, as each is set up anew in every
-- transaction. How they work is told in 0003 and in internal/reservation/doc.go; here stand those that are replaced.
--
-- A reserve looks at the stock row, without a lock, in the very statement that inserts the hold. What a plpgsql assignment would compute,
-- the updates return. A hold begins when its call reached the server; one that had to wait since then for longer than it may lose begins
-- anew.
--
-- The sweep takes what is dead stock row by stock row, which updates each row once for many holds.

-- +goose Up

-- The trigger that refuses what I3 and I4 forbid looks at a change that was made, and so undoes it. Before the change it would lock the
-- hold in an act, and a log record, of its own.
DROP TRIGGER i3_resolved_once_i4_alive ON reservations;
CREATE TRIGGER i3_resolved_once_i4_alive AFTER UPDATE ON reservations
    FOR EACH ROW WHEN (old.status <> 'PENDING' OR (new.status = 'EXPIRED') <> (new.updated_at = new.expires_at)
                       OR new.updated_at > new.expires_at)
    EXECUTE FUNCTION refuse_change_of_hold();

-- reserve_line holds units of one stock row. Outcomes: HELD, with the instant at which the hold begins for its answer, and REPLAYED are
-- successes; INVENTORY_NOT_FOUND; SHORT, with the line that is short; KEY_IN_USE, KEY_REUSED; RETRY when the row changed under its look
-- at it.
-- +goose StatementBegin
CREATE OR REPLACE PROCEDURE reserve_line(_early boolean, _id uuid, _product uuid, _warehouse uuid, _quantity integer, _ttl interval,
                                         _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _free    bigint;
    _dead    bigint;
    _freed   bigint; -- null until the look without a lock found too little
    _late    boolean;
    _retries integer;
    _nothing text;
BEGIN
    <<tries>>
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        LOOP
            -- A look without a lock, which is all that a reserve needs while there is stock. The hold comes first and the stock row last,
            -- so that the hot row is locked for one update and the commit record.
            INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
            SELECT _id, _product, _warehouse, _quantity, statement_timestamp(), statement_timestamp(), statement_timestamp() + _ttl
            FROM inventory i
            WHERE i.product_id = _product AND i.warehouse_id = _warehouse
              AND (i.total - i.reserved >= _quantity OR _freed IS NOT NULL);
            EXIT WHEN FOUND;

            -- One statement, so one snapshot, and the clock read after it; no lock, so a refusal costs none, no log and no flush. What
            -- dead holds occupy is counted until it is enough, as each has a unit or more.
            SELECT i.total - i.reserved,
                   (SELECT coalesce(sum(d.quantity), 0)
                    FROM (SELECT r.quantity FROM reservations r
                          WHERE r.status = 'PENDING' AND r.product_id = _product AND r.warehouse_id = _warehouse
                            AND r.expires_at <= (SELECT clock_timestamp())
                          ORDER BY r.expires_at LIMIT _quantity) d)
                   + (SELECT coalesce(sum(d.quantity), 0)
                      FROM (SELECT l.quantity FROM reservation_items l
                            WHERE l.counted AND l.product_id = _product AND l.warehouse_id = _warehouse
                              AND l.expires_at <= (SELECT clock_timestamp())
                            ORDER BY l.expires_at LIMIT _quantity) d)
            INTO _free, _dead
            FROM inventory i
            WHERE i.product_id = _product AND i.warehouse_id = _warehouse;
            IF _free IS NULL THEN
                outcome := 'INVENTORY_NOT_FOUND';
                EXIT tries;
            END IF;
            IF _free + _dead < _quantity THEN
                outcome := 'SHORT';
                answer := jsonb_build_array(jsonb_build_object('product_id', _product, 'warehouse_id', _warehouse,
                                                               'requested', _quantity, 'available', _free + _dead));
                EXIT tries;
            END IF;
            _freed := 0;
            IF _free < _quantity THEN
                _freed := reclaim_holds(_product, _warehouse, _quantity - _free);
            END IF;
            IF _free + _freed < _quantity THEN
                _freed := _freed + reclaim_lines(_product, _warehouse, _quantity - _free - _freed);
            END IF;
        END LOOP;
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r)) FROM reservations r WHERE r.id = _id;
        END IF;

        -- The guard that decides stands in the update itself, where it is read again after a wait for the lock.
        UPDATE inventory SET reserved = reserved - coalesce(_freed, 0) + _quantity
        WHERE product_id = _product AND warehouse_id = _warehouse AND total - reserved + coalesce(_freed, 0) >= _quantity
        RETURNING 'HELD', to_jsonb(statement_timestamp()),
                  clock_timestamp() > statement_timestamp() + least(interval '250 ms', _ttl / 4),
                  CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END
        INTO outcome, answer, _late, _nothing;
        IF FOUND THEN
            IF _late THEN
                answer := to_jsonb(restart_hold(_id, _ttl, _key));
            END IF;
            EXIT;
        END IF;

        outcome := 'RETRY';
        _freed := NULL;
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
        PERFORM await_dead_hold(_product, _warehouse);
        ROLLBACK;
        PERFORM await_dead_line(_product, _warehouse);
        ROLLBACK;
        PERFORM pause_before(_retries);
    END LOOP;
    IF _early AND outcome IN ('HELD', 'REPLAYED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    END IF;
END $$;
-- +goose StatementEnd

-- reserve_cart holds the lines of a cart, all or none (I7). The lines come merged and sorted by (product, warehouse). Outcomes as
-- for reserve_line, but SHORT names every short line.
-- +goose StatementBegin
CREATE OR REPLACE PROCEDURE reserve_cart(_early boolean, _id uuid, _products uuid[], _warehouses uuid[], _quantities integer[],
                                         _ttl interval, _key text, _hash bytea, INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _lines   integer := cardinality(_products);
    _units   bigint[]; -- what each line adds to its stock row's reserved; null until the look without a lock found too little
    _now     timestamptz;
    _held    integer;
    _retries integer;
    _nothing text;
BEGIN
    <<tries>>
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        LOOP
            -- A look without a lock, which is all that most carts need, writes the hold and its lines when every row has enough.
            WITH lines AS MATERIALIZED (
                SELECT l.*, i.total - i.reserved >= l.quantity AS fits
                FROM unnest(_products, _warehouses, _quantities) l (product_id, warehouse_id, quantity)
                JOIN inventory i USING (product_id, warehouse_id)
            ), hold AS (
                INSERT INTO reservations (id, quantity, created_at, updated_at, expires_at)
                SELECT _id, sum(quantity), statement_timestamp(), statement_timestamp(), statement_timestamp() + _ttl
                FROM lines
                HAVING count(*) = _lines AND (bool_and(fits) OR _units IS NOT NULL)
                RETURNING id, expires_at
            )
            INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, expires_at, quantity)
            SELECT hold.id, lines.product_id, lines.warehouse_id, hold.expires_at, lines.quantity FROM hold, lines;
            EXIT WHEN FOUND;

            SELECT count(*) INTO _held
            FROM unnest(_products, _warehouses) l (product_id, warehouse_id)
            JOIN inventory i USING (product_id, warehouse_id);
            IF _held < _lines THEN
                outcome := 'INVENTORY_NOT_FOUND';
                EXIT tries;
            END IF;
            SELECT c.short, c.units INTO answer, _units FROM make_room(_products, _warehouses, _quantities) c;
            IF answer IS NOT NULL THEN
                outcome := 'SHORT';
                EXIT tries;
            END IF;
        END LOOP;
        IF _key IS NOT NULL THEN
            PERFORM keep_answer(_key, _hash, hold_json(r)) FROM reservations r WHERE r.id = _id;
        END IF;
        _nothing := CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END;

        -- The rows are locked in order first, then updated under the guard; one row that is short undoes the whole cart.
        WITH locked AS MATERIALIZED (
            SELECT i.product_id, i.warehouse_id, l.units
            FROM inventory i
            JOIN unnest(_products, _warehouses, coalesce(_units, _quantities::bigint[])) l (product_id, warehouse_id, units)
              USING (product_id, warehouse_id)
            ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
        )
        UPDATE inventory i SET reserved = i.reserved + l.units
        FROM locked l
        WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id AND i.total - i.reserved >= l.units;
        GET DIAGNOSTICS _held = ROW_COUNT;
        IF _held = _lines THEN
            _now := statement_timestamp();
            IF clock_timestamp() > _now + least(interval '250 ms', _ttl / 4) THEN
                _now := restart_hold(_id, _ttl, _key);
            END IF;
            outcome := 'HELD';
            answer := to_jsonb(_now);
            EXIT;
        END IF;

        outcome := 'RETRY';
        _units := NULL;
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
        FOR n IN 1.._lines LOOP
            PERFORM await_dead_hold(_products[n], _warehouses[n]);
            ROLLBACK;
            PERFORM await_dead_line(_products[n], _warehouses[n]);
            ROLLBACK;
        END LOOP;
        PERFORM pause_before(_retries);
    END LOOP;
    IF _early AND outcome IN ('HELD', 'REPLAYED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    END IF;
END $$;
-- +goose StatementEnd

-- resolve_hold confirms or releases a live hold: the guarded update, then its stock rows, and then the clock, as each of these locks
-- may have come after the hold's death. A release also succeeds when the hold is dead: what its caller wants has come about. Outcomes:
-- NOT_FOUND, the status that the hold has now, KEY_IN_USE, KEY_REUSED, REPLAYED, RETRY.
-- +goose StatementBegin
CREATE OR REPLACE PROCEDURE resolve_hold(_early boolean, _id uuid, _to reservation_status, _key text, _hash bytea,
                                         INOUT outcome text, INOUT answer jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    _now       timestamptz;
    _product   uuid;
    _warehouse uuid;
    _quantity  integer;
    _end       timestamptz; -- null when the update found no live hold
    _alive     boolean;
    _retries   integer;
    _nothing   text;
BEGIN
    LOOP
        IF _key IS NOT NULL THEN
            SELECT c.outcome, c.answer INTO outcome, answer FROM claim_key(_key, _hash) c;
            EXIT WHEN outcome IS NOT NULL;
        END IF;

        -- The update may wait for the hold and find it extended; its time is then no earlier than the extension's.
        _now := clock_timestamp();
        UPDATE reservations r SET status = _to, updated_at = greatest(r.updated_at, _now)
        WHERE r.id = _id AND r.status::text = 'PENDING' AND r.expires_at - _now > '0'
        RETURNING r.product_id, r.warehouse_id, r.quantity, r.expires_at, _to,
                  CASE WHEN r.product_id IS NULL THEN hold_json(r) ELSE to_jsonb(r) END,
                  CASE WHEN _early THEN set_config('synchronous_commit', 'off', true) END
        INTO _product, _warehouse, _quantity, _end, outcome, answer, _nothing;
        IF _end IS NULL THEN
            SELECT s.outcome, s.answer INTO outcome, answer FROM settled_hold(_id) s;
        END IF;
        IF _key IS NOT NULL AND (outcome = _to::text OR outcome = 'EXPIRED' AND _to = 'RELEASED') THEN
            PERFORM keep_answer(_key, _hash, answer);
        END IF;
        IF _end IS NULL THEN
            EXIT WHEN outcome <> 'PENDING';
        ELSIF _product IS NULL THEN
            _alive := CASE WHEN give_up_lines(_id, _to = 'CONFIRMED') THEN clock_timestamp() < _end END;
        ELSE
            UPDATE inventory
            SET reserved = reserved - _quantity,
                total    = total - CASE WHEN _to = 'CONFIRMED' THEN _quantity ELSE 0 END
            WHERE product_id = _product AND warehouse_id = _warehouse
            RETURNING clock_timestamp() < _end INTO _alive; -- after the locks
            IF _alive IS NULL THEN
                RAISE EXCEPTION 'I2: hold % has no stock row', _id;
            END IF;
        END IF;
        EXIT WHEN _alive;

        -- It died while we waited for its lines or its stock rows, or was extended while it seemed dead.
        outcome := 'RETRY';
        _retries := coalesce(_retries, 0) + 1;
        EXIT WHEN NOT _early;
        ROLLBACK;
        EXIT WHEN _retries = 30;
    END LOOP;
    IF _early AND (outcome IN (_to::text, 'REPLAYED') OR outcome = 'EXPIRED' AND _to = 'RELEASED') THEN
        COMMIT;
        _nothing := pg_logical_emit_message(true, 'allo', '');
    ELSIF _early THEN
        ROLLBACK; -- the lock that settled_hold took needs no flush
    END IF;
END $$;
-- +goose StatementEnd

-- sweep_holds writes down holds that have died and gives their units back (I9): up to _limit of them, and of their lines, as a cart
-- may have a hundred. It begins with the oldest, and takes with each what else is dead on its stock row, so that a row is updated once for
-- many holds. It skips what others have locked: they are resolving or reclaiming it. Losing a sweep in a crash only means sweeping again, so
-- it doesn't wait for the disk. It answers how many holds it expired, the units it gave back, how long ago the oldest of them died, and
-- whether there may be more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sweep_holds(_limit integer, OUT expired bigint, OUT units bigint, OUT oldest interval, OUT more boolean)
LANGUAGE plpgsql AS $$
DECLARE
    _now   timestamptz := clock_timestamp();
    _taken bigint;
    _first bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- What others have locked it steps past, for no more than ten times as many as it takes.
    FOR n IN 0..9 LOOP
        WITH first AS MATERIALIZED (
            SELECT r.id, r.product_id, r.warehouse_id, r.expires_at FROM reservations r
            WHERE r.status = 'PENDING' AND r.expires_at <= _now
            ORDER BY r.expires_at OFFSET n * _limit LIMIT _limit
        ), singles AS MATERIALIZED (
            SELECT d.id, d.product_id, d.expires_at
            FROM (SELECT f.product_id, f.warehouse_id FROM first f WHERE f.product_id IS NOT NULL
                  GROUP BY f.product_id, f.warehouse_id ORDER BY min(f.expires_at), f.product_id, f.warehouse_id) s
            CROSS JOIN LATERAL (
                SELECT r.id, r.product_id, r.expires_at FROM reservations r
                WHERE r.status = 'PENDING' AND r.product_id = s.product_id AND r.warehouse_id = s.warehouse_id
                  AND r.expires_at <= _now
                ORDER BY r.expires_at LIMIT _limit FOR UPDATE SKIP LOCKED
            ) d
            LIMIT _limit
        ), carts AS MATERIALIZED (
            SELECT r.id, r.product_id, r.expires_at FROM reservations r
            WHERE r.id IN (SELECT f.id FROM first f WHERE f.product_id IS NULL ORDER BY f.expires_at LIMIT greatest(_limit / 5, 1))
              AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
            FOR UPDATE SKIP LOCKED
        ), due AS (
            SELECT * FROM singles UNION ALL SELECT * FROM carts
        ), weighed AS (
            SELECT d.id, d.product_id, sum(
                       CASE WHEN d.product_id IS NULL
                            THEN (SELECT count(*) FROM reservation_items l WHERE l.reservation_id = d.id) ELSE 1 END
                   ) OVER (ORDER BY d.expires_at, d.id) AS lines
            FROM due d
        ), taken AS MATERIALIZED (
            SELECT w.id, w.product_id FROM weighed w WHERE w.lines <= _limit
        ), marked AS (
            UPDATE reservations r SET status = 'EXPIRED', updated_at = r.expires_at
            FROM taken
            WHERE r.id = taken.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'
            RETURNING r.product_id, r.warehouse_id, r.quantity
        ), lines AS MATERIALIZED (
            SELECT l.reservation_id, l.product_id, l.warehouse_id
            FROM reservation_items l
            JOIN taken ON taken.id = l.reservation_id AND taken.product_id IS NULL
            WHERE l.counted
            ORDER BY l.product_id, l.warehouse_id, l.expires_at, l.reservation_id FOR UPDATE OF l
        ), uncounted AS (
            UPDATE reservation_items l SET counted = false
            FROM lines
            WHERE l.reservation_id = lines.reservation_id AND l.product_id = lines.product_id
              AND l.warehouse_id = lines.warehouse_id AND l.counted
            RETURNING l.product_id, l.warehouse_id, l.quantity
        ), freed AS MATERIALIZED (
            SELECT f.product_id, f.warehouse_id, sum(f.quantity) AS quantity
            FROM (SELECT * FROM marked WHERE marked.product_id IS NOT NULL UNION ALL SELECT * FROM uncounted) f
            GROUP BY f.product_id, f.warehouse_id
        ), locked AS MATERIALIZED (
            SELECT i.product_id, i.warehouse_id, f.quantity
            FROM inventory i
            JOIN freed f USING (product_id, warehouse_id)
            ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
        ), stock AS (
            UPDATE inventory i SET reserved = i.reserved - l.quantity
            FROM locked l
            WHERE i.product_id = l.product_id AND i.warehouse_id = l.warehouse_id
            RETURNING l.quantity
        ), counts AS (
            SELECT (SELECT count(*) FROM first) AS first, (SELECT count(*) FROM taken) AS taken,
                   (SELECT count(*) FROM due) AS due
        )
        SELECT (SELECT count(*) FROM marked), (SELECT coalesce(sum(quantity), 0) FROM stock),
               greatest(oldest, _now - (SELECT min(f.expires_at) FROM first f)),
               c.taken > 0 AND (c.first = _limit OR c.taken < greatest(c.first, c.due)), c.taken, c.first
        INTO expired, units, oldest, more, _taken, _first
        FROM counts c;
        EXIT WHEN _taken > 0 OR _first < _limit;
    END LOOP;
END $$;
-- +goose StatementEnd
