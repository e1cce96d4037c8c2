package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// loadSQL fills the tables like those of a shop that has been open for a while: most holds are
// resolved, some are live, every product is in four warehouses, and every tenth hold is a cart of
// two lines. The tables are so large that reading a whole one is slower than using an index.
// Triggers and foreign keys are off, because they would take most of the time.
var loadSQL = []string{
	"SET LOCAL session_replication_role = replica",
	`INSERT INTO warehouses (id, name)
	 SELECT gen_random_uuid(), 'warehouse ' || n FROM generate_series(1, 3000) n`,
	`INSERT INTO products (id, name, sku)
	 SELECT gen_random_uuid(), 'product ' || n, 'sku ' || n FROM generate_series(1, 30000) n`,
	`INSERT INTO inventory (product_id, warehouse_id, total)
	 SELECT p.id, w.id, 1000 FROM products p, (SELECT id FROM warehouses LIMIT 4) w`,
	`INSERT INTO reservations
	        (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
	 SELECT gen_random_uuid(), product_id, warehouse_id, 1,
	        now() - interval '2 h', now() - interval '90 min', now() - interval '1 h', 'RELEASED'
	 FROM inventory LIMIT 30000`,
	`WITH carts AS (
	     INSERT INTO reservations (id, quantity, created_at, updated_at, expires_at, status)
	     SELECT gen_random_uuid(), 2,
	            now() - interval '2 h', now() - interval '90 min', now() - interval '1 h', 'RELEASED'
	     FROM generate_series(1, 3000)
	     RETURNING id, expires_at
	 )
	 INSERT INTO reservation_items
	        (reservation_id, product_id, warehouse_id, expires_at, quantity, counted)
	 SELECT c.id, i.product_id, i.warehouse_id, c.expires_at, 1, false
	 FROM (SELECT *, row_number() OVER () AS n FROM carts) c
	 CROSS JOIN generate_series(0, 1) second
	 JOIN (SELECT *, row_number() OVER () AS n FROM inventory LIMIT 3001) i ON i.n = c.n + second`,
	`WITH held AS (
	     INSERT INTO reservations
	            (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
	     SELECT gen_random_uuid(), product_id, warehouse_id, 1, now(), now(), now() + interval '1 h'
	     FROM inventory LIMIT 3000
	     RETURNING product_id, warehouse_id
	 )
	 UPDATE inventory i SET reserved = 1 FROM held
	 WHERE held.product_id = i.product_id AND held.warehouse_id = i.warehouse_id`,
	`INSERT INTO idempotency_keys (key, request_hash, answer, created_at)
	 SELECT 'key ' || row_number() OVER (), sha256('request'), jsonb_build_object('id', id), now()
	 FROM reservations LIMIT 10000`,
	"ANALYZE",
}

// scans returns how often each index was scanned, by its name, and how often each table was read
// whole, by "all of " and its name.
func scans(ctx context.Context, f *fixture) map[string]int {
	f.t.Helper()
	f.deadlocks(ctx) // makes the backends report their counts
	rows, err := f.Admin.Query(ctx, `
SELECT indexrelname::text, idx_scan FROM pg_stat_user_indexes WHERE relname NOT LIKE 'goose%'
UNION ALL
SELECT 'all of ' || relname, seq_scan FROM pg_stat_user_tables WHERE relname NOT LIKE 'goose%'`)
	if err != nil {
		f.t.Fatal(err)
	}
	counted := map[string]int{}
	var name string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&name, &n},
		func() error { counted[name] = n; return nil }); err != nil {
		f.t.Fatal(err)
	}
	return counted
}

// The test counts the scans of all verbs on large tables. It calls each verb often enough for the
// server to use a generic plan.
func TestEveryIndexServesAVerbAndNoVerbReadsAWholeTable(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	err := pgx.BeginFunc(ctx, f.Admin, func(tx pgx.Tx) error {
		for _, sql := range loadSQL {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var rows [][2]reservation.Line
	for range 8 {
		rows = append(rows, [2]reservation.Line{f.stock(8), f.stock(100)})
	}
	f.Exec(firstTickSQL)
	before := scans(ctx, f)

	for _, pair := range rows {
		callEveryVerb(ctx, t, f, pair[0], pair[1])
	}

	var unused, whole []string
	for name, n := range scans(ctx, f) {
		isTable := strings.HasPrefix(name, "all of ")
		switch {
		case name == "all of sinks" || name == "sinks_pkey": // the stats read its few rows either way
		case isTable && n > before[name]:
			whole = append(whole, name)
		case !isTable && n == before[name]:
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	slices.Sort(whole)
	// These indexes only keep values unique, or serve the previous release, the audits or the relay.
	if diff := cmp.Diff([]string{
		"archive_position_pkey", "archived_months_pkey", "archived_stock_pkey",
		"audit_state_pkey", "live_pkey", "parked_by_subject", "parked_pkey", "products_by_name",
		"products_by_sku_without_case", "returns_by_time", "stock_adjustments_pkey",
		"stock_closings_pkey", "stock_movements_by_line", "stock_movements_by_xid", "stream_pkey",
		"warehouses_by_code_without_case",
	}, unused); diff != "" {
		t.Errorf("indexes that no verb uses differ (-want +got):\n%s", diff)
	}
	// The stats add up the stock of all rows. Nothing else reads a whole table.
	if diff := cmp.Diff([]string{"all of inventory"}, whole); diff != "" {
		t.Errorf("tables that are read whole differ (-want +got):\n%s", diff)
	}
	if n := scans(ctx, f)["all of inventory"] - before["all of inventory"]; n != len(rows) {
		t.Errorf("%d calls of Stats() read all stock rows %d times, want once each", len(rows), n)
	}
}

// A session keeps the plans that it made while the tables were empty, when every index seems as
// good as the primary key. A statement that finds a hold by its id must not scan all live holds
// later.
func TestVerbsFindAHoldByItsPrimaryKeyEvenWithPlansOfEmptyTables(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	f.Exec("VACUUM ANALYZE")
	rows := f.stocks(100, 100)
	// raise_first_end, which a resolve calls now and then, looks at all live holds of a stock row.
	f.Exec("UPDATE inventory SET first_end = 'infinity'")
	s := f.services()[0]
	for range 3 {
		for _, lines := range [][]reservation.Line{rows[:1], rows} {
			for _, to := range []reservation.Status{reservation.Confirmed, reservation.Released} {
				resolve := s.Confirm
				if to == reservation.Released {
					resolve = s.Release
				}
				answer, err := s.Reserve(ctx,
					reservation.Request{Lines: lines, Key: uuid.NewString()})
				id := answer.Hold.ID
				_, extendErr := s.Extend(ctx, id, time.Minute, "")
				_, getErr := s.Get(ctx, id)
				_, resolveErr := resolve(ctx, id, "")
				_, againErr := resolve(ctx, id, "")
				if err := errors.Join(err, extendErr, getErr, resolveErr, againErr); err != nil {
					t.Fatal(err)
				}
			}
		}
	}

	for name, n := range scans(ctx, f) {
		if strings.HasPrefix(name, "reservations_live") && n != 0 {
			t.Errorf("verbs that know the hold's id scanned %s %d times, want 0", name, n)
		}
	}
}

// callEveryVerb makes each verb run each of its statements, including those for dead holds and old
// keys. Its own statements use primary keys only, so they don't disturb the counts of scans.
func callEveryVerb(ctx context.Context, t *testing.T, f *fixture, row, other reservation.Line) {
	t.Helper()
	s := f.services()[0]
	must := func(answer reservation.Answer, err error) uuid.UUID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer.Hold.ID
	}
	key := ""
	reserve := func(lines ...reservation.Line) uuid.UUID {
		t.Helper()
		key = uuid.NewString()
		return must(s.Reserve(ctx, reservation.Request{Lines: lines, Key: key}))
	}

	f.Kill(reserve(of(row, 4)))
	f.Kill(reserve(of(row, 4), other))
	extended := reserve(row, other) // reclaims the dead hold
	must(s.Extend(ctx, extended, time.Minute, uuid.NewString()))
	resolved := reserve(of(row, 7), other) // reclaims the dead cart's line
	must(s.Confirm(ctx, resolved, uuid.NewString()))
	takeBack(ctx, t, stock.New(s), resolved, row)
	must(s.Release(ctx, reserve(other), ""))
	for _, id := range []uuid.UUID{resolved, reserve(other)} {
		if _, err := s.Get(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.ListProducts(ctx, reservation.Cursor{Name: "product 2", ID: uuid.Max},
		20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ListWarehouses(ctx, reservation.Cursor{Name: "warehouse 2", ID: uuid.Max},
		20); err != nil {
		t.Fatal(err)
	}
	payInEveryWay(ctx, t, f, other)
	putCatalog(ctx, t, stock.New(s))
	operatorReads(ctx, t, s, row)
	below := 1001
	if _, _, err := stock.New(s).ListRows(ctx, stock.RowFilter{AvailableBelow: &below}, nil,
		20); err != nil {
		t.Fatal(err)
	}
	f.Exec("SELECT adjust_stock($1, $2, 7, 'test')", row.ProductID.String(),
		row.WarehouseID.String())
	f.Kill(reserve(other))
	f.Kill(reserve(row, other))
	f.Exec(`
UPDATE idempotency_keys SET created_at = clock_timestamp() - interval '25 h' WHERE key = $1`, key)
	if result, err := s.Sweep(ctx); err != nil || result.Expired != 3 || result.Keys != 1 {
		t.Fatalf("Sweep() = %+v, %v, want 3 holds and a key", result, err)
	}
}

// payInEveryWay reserves for an owner, replaces the hold, starts payments, one of which fails, and
// confirms. Another payment comes too late. Then it lists the owner's holds and erases the owner.
func payInEveryWay(ctx context.Context, t *testing.T, f *fixture, row reservation.Line) {
	t.Helper()
	s := f.services()[0]
	request := reservation.Request{
		Lines: []reservation.Line{row}, Owner: uuid.NewString(), Reference: uuid.NewString(),
	}
	reserve := func() uuid.UUID {
		t.Helper()
		answer, err := s.Reserve(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Hold.ID
	}
	replaced, late := reserve(), reserve()
	request.Replaces = &replaced
	paid := reserve()
	_, startErr := s.StartPayment(ctx, paid, "p", time.Minute, uuid.NewString())
	_, failErr := s.FailPayment(ctx, paid, "p", nil, uuid.NewString())
	_, againErr := s.StartPayment(ctx, paid, "q", time.Minute, "")
	_, confirmErr := s.ConfirmPayment(ctx, paid, "q", true, uuid.NewString())
	f.Kill(late)
	_, lateErr := s.ConfirmPayment(ctx, late, "p", true, uuid.NewString())
	errs := []error{startErr, failErr, againErr, confirmErr, lateErr}
	for _, filter := range []reservation.HoldFilter{
		{Owner: request.Owner},
		{Reference: request.Reference},
		{UpdatedSince: time.Now().Add(-time.Hour)},
	} {
		page, err := s.ListHolds(ctx, filter, reservation.HoldCursor{}, 20)
		if len(page.Holds) < 4 {
			t.Errorf("ListHolds(%+v) = %d holds, want 4 or more", filter, len(page.Holds))
		}
		errs = append(errs, err)
	}
	erased, err := s.EraseOwner(ctx, request.Owner, uuid.NewString())
	if err := errors.Join(append(errs, err)...); err != nil || erased.Holds != 4 {
		t.Fatalf("%d holds erased, %v, want 4", erased.Holds, err)
	}
}

// takeBack returns one unit of a confirmed hold's line.
func takeBack(
	ctx context.Context, t *testing.T, s *stock.Service, hold uuid.UUID, row reservation.Line,
) {
	t.Helper()
	_, err := s.Return(ctx, stock.Return{
		Reservation: hold, Reference: uuid.NewString(), Lines: []stock.ReturnLine{{
			ProductID: row.ProductID, WarehouseID: row.WarehouseID, Quantity: 1,
			ToWarehouseID: &row.WarehouseID,
		}},
	}, uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
}

// putCatalog makes and changes products and warehouses.
func putCatalog(ctx context.Context, t *testing.T, s *stock.Service) {
	t.Helper()
	name, status := "a new name", stock.Archived
	_, _, err := s.PutProducts(ctx, []stock.ProductItem{
		{SKU: uuid.NewString(), Name: &name}, {SKU: "sku 7", Status: &status},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.PutWarehouses(ctx, []stock.WarehouseItem{{Code: uuid.NewString(), Name: &name}}, "")
	if err != nil {
		t.Fatal(err)
	}
}

// operatorReads lists the holds of each status, with and without a product and a warehouse, and
// reads the stats.
func operatorReads(
	ctx context.Context, t *testing.T, s *reservation.Service, row reservation.Line,
) {
	t.Helper()
	for _, status := range append([]reservation.Status{""}, allStatuses...) {
		for _, filter := range []reservation.HoldFilter{
			{Status: status},
			{Status: status, ProductID: &row.ProductID, WarehouseID: &row.WarehouseID},
		} {
			page, err := s.ListHolds(ctx, filter, reservation.HoldCursor{}, 20)
			if err == nil && page.Next != nil {
				_, err = s.ListHolds(ctx, filter, *page.Next, 20)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Stats(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestTheSchemaRefusesBrokenPromises(t *testing.T) {
	t.Parallel()

	const checkViolation, uniqueViolation, foreignKeyViolation = "23514", "23505", "23503"
	shop := newRelationShop(t)
	for code, statements := range map[string]map[string]string{
		checkViolation: {
			"I1: reserved exceeds total": "UPDATE inventory SET reserved = total + 1",
			"I1: reserved is negative":   "UPDATE inventory SET reserved = -1",
			"I1: an adjustment leaves less than is held": `
SELECT adjust_stock(product_id, warehouse_id, -1000, 'test') FROM inventory`,
			"I3: the status of a resolved hold changes": `
UPDATE reservations SET status = 'RELEASED' WHERE status = 'CONFIRMED'`,
			"I3: the end of a resolved hold changes": `
UPDATE reservations SET expires_at = expires_at + interval '1 h' WHERE status = 'RELEASED'`,
			"I3: a hold is deleted": "DELETE FROM reservations",
			"I3: a payment's final outcome changes": `
UPDATE hold_payments SET outcome = 'FAILED' WHERE outcome = 'CONFIRMED'`,
			"I3: a payment moves to another hold": `
UPDATE hold_payments SET hold_id = gen_random_uuid() WHERE outcome = 'STARTED'`,
			"I3: a payment is deleted":     "DELETE FROM hold_payments",
			"a payment gets no hold":       "UPDATE hold_payments SET outcome = 'REACQUIRED'",
			"a lost payment isn't told":    "UPDATE hold_payments SET outcome = 'LOST'",
			"I3: a replacement changes":    "UPDATE replacements SET new_id = gen_random_uuid()",
			"I3: a replacement is deleted": "DELETE FROM replacements",
			"a hold replaces itself": `
INSERT INTO replacements SELECT r.id, r.id FROM reservations r LIMIT 1`,
			"a party is nobody":                   "UPDATE hold_parties SET owner = NULL, reference = NULL",
			"an owner is too long":                "UPDATE hold_parties SET owner = repeat('a', 256)",
			"I10: a row of the ledger changes":    "UPDATE ledger SET at = at - interval '1 s'",
			"I10: a row of the ledger is deleted": "DELETE FROM ledger",
			"I10: a hold's version jumps": `
UPDATE reservations SET version = version + 2 WHERE status = 'PENDING'`,
			"I10: a hold's version falls": `
UPDATE reservations SET version = version - 1 WHERE status = 'PENDING'`,
			"I10: a hold's version stays": `
UPDATE reservations SET expires_at = expires_at + interval '1 s' WHERE status = 'PENDING'`,
			"I10: a hold's time falls": `
UPDATE reservations SET version = version + 1, updated_at = updated_at - interval '1 us'
WHERE status = 'PENDING'`,
			"I10: a hold is made at another time": `
UPDATE reservations SET version = version + 1, created_at = created_at - interval '1 us'
WHERE status = 'PENDING'`,
			"I3: a line is deleted": "DELETE FROM reservation_items",
			"I4: a hold is confirmed at its end": `
UPDATE reservations SET status = 'CONFIRMED', updated_at = expires_at WHERE status = 'PENDING'`,
			"I4: a hold expires before its end": `
UPDATE reservations SET status = 'EXPIRED', updated_at = expires_at - interval '1 s'
WHERE status = 'PENDING'`,
			"I7: a hold has a warehouse and no product": `
UPDATE reservations SET product_id = NULL WHERE status = 'PENDING' AND product_id IS NOT NULL`,
			"a hold of no units":       insertHoldSQL("i.product_id, i.warehouse_id, 0"),
			"a hold without a product": insertHoldSQL("NULL, i.warehouse_id, 1"),
			"I2: a hold's units change": `
UPDATE reservations SET quantity = quantity + 1 WHERE status = 'PENDING'`,
			"I2: a hold moves": `
UPDATE reservations SET warehouse_id = product_id
WHERE status = 'PENDING' AND product_id IS NOT NULL`,
			"a line of no units": "UPDATE reservation_items SET quantity = 0",
			"an adjustment by 0": `
SELECT adjust_stock(product_id, warehouse_id, 0, 'test') FROM inventory`,
			"an adjustment without a reason": `
SELECT adjust_stock(product_id, warehouse_id, 1, '') FROM inventory`,
			"I8: a stock row is deleted":     "DELETE FROM inventory",
			"I8: a movement changes":         "UPDATE stock_movements SET note = 'other'",
			"I8: a movement is deleted":      "DELETE FROM stock_movements",
			"I8: a movement is left out":     "UPDATE inventory SET total = total + 1, seq = seq + 2",
			"I8: a movement is taken back":   "UPDATE inventory SET seq = seq - 1",
			"I8: a new stock row is further": insertStockSQL("total, seq", "1, 2"),
			"I8: a movement without a change of the stock row": insertMovementSQL(
				"i.seq + 1", "ADJUSTMENT", "1", "i.total + 1"),
			"I8: a movement leads to another total": "UPDATE inventory SET seq = seq + 1;" +
				insertMovementSQL("i.seq", "COUNT", "1", "i.total + 1"),
			"I8: a movement's delta isn't the difference": "UPDATE inventory SET seq = seq + 1;" +
				insertMovementSQL("i.seq", "COUNT", "1", "i.total"),
			"I8: the movement before is missing": `
UPDATE inventory SET seq = seq + 1; UPDATE inventory SET seq = seq + 1;` +
				insertMovementSQL("i.seq", "COUNT", "0", "i.total"),
			"I8: a row opens twice": "UPDATE inventory SET seq = seq + 1;" +
				insertMovementSQL("i.seq", "OPENING", "0", "i.total"),
			"I8: a sale of nothing": "UPDATE inventory SET seq = seq + 1;" +
				insertMovementSQL("i.seq", "SALE", "0", "i.total"),
			"a movement of a source without a line": "UPDATE inventory SET seq = seq + 1;" +
				strings.NewReplacer("note", "source").Replace(
					insertMovementSQL("i.seq", "COUNT", "0", "i.total")),
			"a key that is too long": "UPDATE idempotency_keys SET key = repeat('k', 256)",
			"an empty key":           "UPDATE idempotency_keys SET key = ''",
		},
		uniqueViolation: {
			"I6: the same key twice": "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys",
			"I7: the same line twice": `
INSERT INTO reservation_items SELECT * FROM reservation_items`,
			"I10: the same transition twice": "INSERT INTO ledger SELECT * FROM ledger",
			"two payments are under way": `
INSERT INTO hold_payments SELECT hold_id, 'other', 'STARTED', at FROM hold_payments
WHERE outcome = 'STARTED'`,
			"two payments have paid": `
INSERT INTO hold_payments SELECT hold_id, 'other', 'CONFIRMED', at FROM hold_payments
WHERE outcome = 'CONFIRMED'`,
			"a hold has two successors": `
INSERT INTO replacements SELECT old_id, gen_random_uuid() FROM replacements`,
			"a hold replaces two": `
INSERT INTO replacements SELECT gen_random_uuid(), new_id FROM replacements`,
			"I8: the same movement twice": `
INSERT INTO stock_movements SELECT m.* FROM stock_movements m JOIN inventory i
USING (product_id, warehouse_id, seq)`,
		},
		foreignKeyViolation: {
			"a line without a hold": `
UPDATE reservation_items SET reservation_id = gen_random_uuid()`,
		},
	} {
		for name, sql := range statements {
			_, err := shop.Admin.Exec(shop.Context(), sql)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != code {
				t.Errorf("%s: %s = %v, want SQLSTATE %s", name, sql, err, code)
			}
		}
	}
	shop.mustAudit(t)
}

// madeNowSQL makes a hold as a reserve does, in a transaction that has begun.
const madeNowSQL = `
WITH held AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, version)
    SELECT 'f0000000-0000-7000-8000-000000000001', product_id, warehouse_id, 1, now(), now(),
           now() + interval '1 h', 1
    FROM inventory ORDER BY product_id LIMIT 1
    RETURNING *
), stock AS (
    UPDATE inventory i
    SET reserved = i.reserved + 1, first_end = least(i.first_end, h.expires_at)
    FROM held h
    WHERE h.product_id = i.product_id AND h.warehouse_id = i.warehouse_id
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, 1, 'h', 'v' FROM held;`

// In the transaction that makes a hold, restart_hold lets it begin again. Every other change that
// keeps the version is refused. Without the guard it is made, and the audit finds it.
func TestOnlyARestartKeepsTheVersionOfAHold(t *testing.T) {
	t.Parallel()

	const id = " WHERE id = 'f0000000-0000-7000-8000-000000000001';"
	const extend = `
UPDATE reservations SET version = 2` + id + `
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, 2, 'x', 'v' FROM reservations` + id
	f := newFixture(t, 0)
	f.stock(5)
	f.Exec("BEGIN;" + madeNowSQL + `
SELECT restart_hold('f0000000-0000-7000-8000-000000000001', '2 h', NULL); COMMIT`)
	f.mustAudit(t)

	for name, c := range map[string]struct{ sql, guard string }{
		"it is extended": {
			"UPDATE reservations SET expires_at = expires_at + interval '1 s', " +
				"updated_at = updated_at + interval '1 us'" + id,
			" AND new.updated_at = new.created_at",
		},
		"it is released": {
			"UPDATE reservations SET status = 'RELEASED'" + id, " AND new.status = 'PENDING'",
		},
		"a payment begins": {
			"UPDATE reservations SET paying = true" + id, " AND new.paying = old.paying",
		},
		"it has another version": {
			extend + "UPDATE reservations SET expires_at = expires_at + interval '1 s'" + id,
			" AND l.kind = 'h'",
		},
		"its ledger isn't there": {
			"UPDATE reservations SET version = 2" + id +
				"UPDATE reservations SET expires_at = expires_at + interval '1 s'" + id,
			" AND l.version = new.version",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			f.stock(5)
			change := "BEGIN;" + madeNowSQL + c.sql + "COMMIT"
			_, err := f.Admin.Exec(f.Context(), change)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "23514" ||
				!strings.Contains(refused.Message, "I10") {
				t.Errorf("%s = %v, want I10", c.sql, err)
			}
			f.mutate("refuse_change_of_hold", c.guard, "")
			f.Exec(change)
			violations, err := newService(f.own).Audit(f.Context())
			if err != nil || len(violations) == 0 {
				t.Errorf("without the guard Audit() = %v, %v, want a violation", violations, err)
			}
		})
	}
}

// numberChanges are changes of a stock row, or of its movements, that break I8. A routine has the
// guard that refuses each. Without the guards the change is made, and the audit finds it.
var numberChanges = map[string]struct {
	sql    string
	guards []guard
}{
	"total changes alone": {
		"UPDATE inventory SET total = total + 1",
		[]guard{{total, " AND new.total = old.total\n", "\n"}},
	},
	"seq rises alone": {"UPDATE inventory SET seq = seq + 1", []guard{anyMovement}},
	"seq falls": {
		"UPDATE inventory SET seq = seq - 1", []guard{{total, "new.seq = old.seq AND", "true AND"}},
	},
	"the movement isn't written": {
		"UPDATE inventory SET total = total + 1, seq = seq + 1", []guard{anyMovement},
	},
	"one of two movements isn't written": {
		changeSQL + changeSQL + insertMovementSQL("i.seq", "ADJUSTMENT", "1", "i.total"),
		[]guard{anyMovement},
	},
	"seq jumps": {
		"UPDATE inventory SET total = total + 1, seq = seq + 2;" +
			insertMovementSQL("i.seq", "ADJUSTMENT", "1", "i.total"),
		[]guard{{total, "new.seq = old.seq + 1", "new.seq > old.seq"}},
	},
	"the delta isn't the difference": {
		changeSQL + insertMovementSQL("i.seq", "ADJUSTMENT", "2", "i.total"),
		[]guard{{total, "AND m.delta = new.total - old.total", ""}},
	},
	"the movement leads to another total": {
		changeSQL + insertMovementSQL("i.seq", "ADJUSTMENT", "1", "i.total + 1"),
		[]guard{
			{movement, " AND i.total = new.total_after", ""},
			{total, "AND m.total_after = new.total", ""},
		},
	},
	"a movement comes without a change": {
		insertMovementSQL("i.seq + 1", "ADJUSTMENT", "1", "i.total"),
		[]guard{{movement, "i.seq = new.seq AND ", ""}},
	},
	"a movement comes behind the change": {
		changeSQL + insertMovementSQL("i.seq", "ADJUSTMENT", "1", "i.total") + ";" +
			insertMovementSQL("i.seq + 1", "COUNT", "0", "i.total"),
		[]guard{{movement, "i.seq = new.seq AND ", ""}},
	},
	"a row opens with another total": {
		openedSQL("1", "OPENING", "4"), []guard{{movement, "new.delta <> new.total_after", "false"}},
	},
	"a row opens with movement 2": {
		openedSQL("2", "ADJUSTMENT", "5"), []guard{{"record_opening_stock", " AND m.seq = 1", ""}},
	},
	"a stock row moves to another warehouse": {
		`
INSERT INTO warehouses (id, name) VALUES ('0192d000-0000-7000-8000-000000000002', 'other');
UPDATE inventory SET warehouse_id = '0192d000-0000-7000-8000-000000000002'`,
		[]guard{{total, " AND new.warehouse_id = old.warehouse_id", ""}},
	},
	"a stock row becomes another product's": {
		`
INSERT INTO products VALUES ('0192d000-0000-7000-8000-000000000001', 'other', 'other');
UPDATE inventory SET product_id = '0192d000-0000-7000-8000-000000000001'`,
		[]guard{{total, "new.product_id = old.product_id AND", ""}},
	},
	"a movement changes": {
		"UPDATE stock_movements SET total_after = total_after + 1",
		[]guard{{"refuse_change_of_movement", "RAISE EXCEPTION", "RETURN new; RAISE EXCEPTION"}},
	},
	"a movement is deleted": {
		"DELETE FROM stock_movements",
		[]guard{{"refuse_change_of_movement", "RAISE EXCEPTION", "RETURN old; RAISE EXCEPTION"}},
	},
}

// guard is a part of a routine's source, and what a control puts in its place.
type guard struct{ routine, part, without string }

// The routines with the guards of I8.
const (
	total    = "refuse_change_without_movement"
	movement = "refuse_wrong_movement"
)

var anyMovement = guard{total, "new.seq = old.seq + 1 AND EXISTS (", "true OR EXISTS ("}

// changeSQL changes the stock row as a delivery does, and leaves its movement out.
const changeSQL = "UPDATE inventory SET total = total + 1, seq = seq + 1;"

// openedSQL makes a stock row of 5 units together with a movement.
func openedSQL(seq, kind, delta string) string {
	return fmt.Sprintf(`
WITH made AS (
    INSERT INTO inventory (product_id, warehouse_id, total, seq)
    SELECT p.id, w.id, 5, %[1]s
    FROM products p, warehouses w ORDER BY w.name <> 'empty', p.id LIMIT 1
    RETURNING *
)
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after, note)
SELECT product_id, warehouse_id, seq, clock_timestamp(), '%[2]s', %[3]s, total, 'test' FROM made`,
		seq, kind, delta)
}

func TestTheSchemaKeepsTheNumbers(t *testing.T) {
	t.Parallel()

	for name, c := range numberChanges {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			f.stock(5)
			f.NamedWarehouse("empty")
			_, err := f.Admin.Exec(f.Context(), c.sql)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "23514" ||
				!strings.Contains(refused.Message, "I8") {
				t.Errorf("%s = %v, want I8", c.sql, err)
			}
			f.mustAudit(t)
			for _, g := range c.guards {
				f.mutate(g.routine, g.part, g.without)
			}
			f.Exec(c.sql)
			wantBroken(t, f.own, "I8")
		})
	}
}

// Several changes of a stock row may come in one transaction, each with its movement, and one that
// changes nothing needs none. So it is with a part of the transaction that is undone.
func TestTheSchemaTakesEachChangeWithItsMovement(t *testing.T) {
	t.Parallel()

	move := changeSQL + insertMovementSQL("i.seq", "ADJUSTMENT", "1", "i.total") + ";"
	f := newFixture(t, 0)
	row := f.stock(5)
	f.Exec("BEGIN; " + move + move + `
UPDATE inventory SET total = total, seq = seq, reserved = 0;
SAVEPOINT undone;` + changeSQL + `
ROLLBACK TO undone;` + move + `
COMMIT`)
	if got := queryOne[int](f, "SELECT total FROM inventory WHERE product_id = $1 AND seq = 4",
		row.ProductID.String()); got != 8 {
		t.Errorf("the total is %d, want 8", got)
	}
	f.mustAudit(t)

	// Postgres may be told to look at once, and not to look at all.
	const atOnce = "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; "
	_, err := f.Admin.Exec(f.Context(), atOnce+move+"COMMIT")
	if err == nil || !strings.Contains(err.Error(), "I8") {
		t.Errorf("a change before its movement = %v, want it refused at once", err)
	}
	f.Exec(atOnce + `
WITH made AS (UPDATE inventory SET total = total + 1, seq = seq + 1 RETURNING *)
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, seq, clock_timestamp(), 'ADJUSTMENT', 1, total FROM made;
COMMIT`)
	f.mustAudit(t)
}

// A verb that leaves its movement out fails at its first COMMIT, which undoes all that it did.
func TestAConfirmWithoutItsSaleIsUndone(t *testing.T) {
	t.Parallel()

	for lines, leaveOut := range map[int]func(*fixture){
		1: withoutSale,
		2: func(f *fixture) {
			f.mutate("give_up_units", "FROM stock s WHERE _sold", "FROM stock s WHERE false")
		},
	} {
		f := newFixture(t, 0)
		rows := f.stocks(9, 9)[:lines]
		hold := f.hold(rows...)
		leaveOut(f)
		_, err := newService(f.own).Confirm(f.Context(), hold.ID, uuid.NewString())
		if err == nil || !strings.Contains(err.Error(), "I8") {
			t.Errorf("Confirm() of %d lines = %v, want I8", lines, err)
		}
		for _, row := range rows {
			if got := f.Counts(row.ProductID, row.WarehouseID); got.Total != 9 || got.Reserved != 1 {
				t.Errorf("the stock row is %+v, want 1 of 9 reserved", got)
			}
		}
		const left = `
SELECT concat_ws(' ', status, (SELECT count(*) FROM ledger),
                 (SELECT count(*) FROM idempotency_keys))
FROM reservations`
		if got := queryOne[string](f, left); got != "PENDING 1 0" {
			t.Errorf("the hold, its ledger and its keys are %s, want PENDING 1 0", got)
		}
		f.mustAudit(t)
	}
}

// A hold of version 0 is from before there was a ledger. Its next transition writes row 1.
func TestAHoldFromBeforeTheLedgerBeginsItWithItsNextTransition(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(9, 9)
	for n := range 2 {
		hold := func() uuid.UUID { return f.hold(rows[:1+n]...).ID }
		confirmed, released, extended, swept := hold(), hold(), hold(), hold()
		f.unguarded("DELETE FROM ledger WHERE hold_id IN (SELECT id FROM reservations "+
			"WHERE status = 'PENDING')", "UPDATE reservations SET version = 0 WHERE status = 'PENDING'")
		f.Kill(swept)
		_, confirmErr := s.Confirm(ctx, confirmed, "")
		_, releaseErr := s.Release(ctx, released, "")
		_, extendErr := s.Extend(ctx, extended, time.Minute, "")
		_, againErr := s.Confirm(ctx, extended, "")
		_, sweepErr := s.Sweep(ctx)
		if err := errors.Join(confirmErr, releaseErr, extendErr, againErr, sweepErr); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[uuid.UUID]string{
			confirmed: "1cv", released: "1rv", extended: "1xv 2cv", swept: "1es",
		} {
			got := queryOne[string](f, `
SELECT string_agg(concat(version, kind, cause), ' ' ORDER BY version) FROM ledger
WHERE hold_id = $1`, id.String())
			if got != want {
				t.Errorf("the ledger of a hold with %d lines is %s, want %s", n+1, got, want)
			}
		}
	}
	f.mustAudit(t)
	f.unguarded("DELETE FROM ledger WHERE kind = 'x'")
	wantBroken(t, f.own, "I10")
}

// insertMovementSQL inserts a movement into the first stock row.
func insertMovementSQL(seq, kind, delta, total string) string {
	return fmt.Sprintf(`
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after, note)
SELECT i.product_id, i.warehouse_id, %s, clock_timestamp(), '%s', %s, %s, 'test'
FROM inventory i ORDER BY i.product_id LIMIT 1`, seq, kind, delta, total)
}

// insertHoldSQL inserts a hold. line is its product, warehouse and quantity.
func insertHoldSQL(line string) string {
	return fmt.Sprintf(`
INSERT INTO reservations
       (id, created_at, updated_at, expires_at, product_id, warehouse_id, quantity)
SELECT gen_random_uuid(), now(), now(), now() + interval '1 h', %s
FROM inventory i LIMIT 1`, line)
}

// insertStockSQL inserts a stock row of the first product in a new warehouse.
func insertStockSQL(columns, values string) string {
	return fmt.Sprintf(`
WITH made AS (INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'new') RETURNING id)
INSERT INTO inventory (product_id, warehouse_id, %s)
SELECT p.id, made.id, %s FROM made, (SELECT id FROM products ORDER BY id LIMIT 1) p`,
		columns, values)
}

func TestAdjustStockRecordsEachChange(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	row := f.stock(10)
	f.Exec("SELECT adjust_stock($1, $2, -3, 'broken')", row.ProductID.String(),
		row.WarehouseID.String())
	f.Exec("SELECT adjust_stock($1, $2, 5, 'found')", row.ProductID.String(),
		row.WarehouseID.String())

	got := queryOne[[]string](f, `
SELECT array_agg(concat_ws(' ', seq, kind, note, delta, total_after) ORDER BY seq)
FROM stock_movements`)
	if diff := cmp.Diff([]string{
		"1 OPENING opening stock 10 10", "2 ADJUSTMENT broken -3 7", "3 ADJUSTMENT found 5 12",
	}, got); diff != "" {
		t.Errorf("the movements differ (-want +got):\n%s", diff)
	}
	_, err := f.Admin.Exec(f.Context(),
		"SELECT adjust_stock(gen_random_uuid(), gen_random_uuid(), 1, 'nowhere')")
	if err == nil {
		t.Error("adjust_stock() without a stock row succeeded, want an error")
	}
	f.mustAudit(t)
}
