package stock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// Each test of this file runs a scenario on the real statements, where it must report nothing, and
// on statements that lack one guard, where it must report something.

// scenario lets callers compete, and returns what broke, or "".
type scenario func(s store) string

// mustHold fails the test when the scenario breaks something.
func mustHold(t *testing.T, callers int, run scenario) {
	t.Helper()
	s := newStore(t, callers)
	if broken := run(s); broken != "" {
		t.Error(broken)
	}
	s.mustAudit()
}

// controlRounds is how often a control runs its scenario before it fails.
const controlRounds = 30

// mustBreak is a negative control: without the guard the scenario must break something.
func mustBreak(t *testing.T, callers int, run scenario, mutate func(s store)) {
	t.Helper()
	for n := range controlRounds {
		s := newStore(t, callers)
		mutate(s)
		if broken := run(s); broken != "" {
			t.Logf("broken in round %d, as expected: %s", n+1, broken)
			return
		}
	}
	t.Errorf("without the guard nothing broke in %d rounds", controlRounds)
}

// closeUnderReserves closes a warehouse while the other callers reserve from it, and from two
// warehouses at once. No hold may be made after the answer.
func closeUnderReserves(s store) string {
	const after = 20 // reserves of each caller that begin after the answer
	s.Exec(`SELECT adjust_stock(product_id, warehouse_id, 1000000, 'test') FROM inventory
WHERE product_id = $1`, s.product.String())
	ctx := s.Context()
	var closed atomic.Bool
	var early, late atomic.Int64
	var enough sync.WaitGroup
	enough.Add(len(s.callers) - 1)
	var atAnswer int
	var failure error
	together(len(s.callers), func(i int) {
		if i == 0 {
			enough.Wait()
			_, _, failure = s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Closed), "")
			if failure == nil {
				failure = s.Admin.QueryRow(ctx, heldInSQL, s.east.String()).Scan(&atAnswer)
			}
			closed.Store(true)
			return
		}
		warehouses := []uuid.UUID{s.east, s.west}[:1+i%2]
		begun := sync.OnceFunc(enough.Done)
		defer begun()
		for made, left := 0, after; left > 0; {
			isLate := closed.Load()
			_, err := s.reserve(s.callers[i], warehouses...)
			switch {
			case err == nil && isLate:
				late.Add(1)
			case err == nil:
				early.Add(1)
			case refusedLines(err) == nil:
				s.t.Errorf("a reserve = %v, want a hold or a refusal", err)
				return
			}
			if made++; made == 5 {
				begun()
			}
			if isLate || err != nil {
				left--
			}
		}
	})
	atEnd := queryOne[int](s.fixture, heldInSQL, s.east.String())
	switch {
	case failure != nil:
		return fmt.Sprint("the closing failed: ", failure)
	case late.Load() > 0 || atEnd != atAnswer:
		return fmt.Sprintf("%d holds were made by calls that began after the answer; there were %d at "+
			"the answer and %d at the end", late.Load(), atAnswer, atEnd)
	case int(early.Load()) != atEnd:
		return fmt.Sprintf("%d reserves succeeded, and there are %d holds", early.Load(), atEnd)
	}
	return ""
}

// heldInSQL counts the holds that have units in a warehouse.
const heldInSQL = `
SELECT (SELECT count(*) FROM reservations WHERE warehouse_id = $1)
     + (SELECT count(*) FROM reservation_items WHERE warehouse_id = $1)`

func TestNoHoldIsMadeAfterTheAnswerOfAClosing(t *testing.T) {
	t.Parallel()

	mustHold(t, 17, closeUnderReserves)
}

func TestHoldsAreMadeAfterAClosingWhoseStockRowsDoNotFollow(t *testing.T) {
	t.Parallel()

	mustBreak(t, 5, closeUnderReserves, func(s store) {
		s.mutate("follow_catalog", "SET open = l.open", "SET open = i.open")
		s.mutate("follow_busy_row", "SET open = t.open", "SET open = i.open")
	})
}

// reserveBehindTheClosing lets a reserve wait for its stock row while another session closes it.
func reserveBehindTheClosing(lines int) scenario {
	return func(s store) string {
		s.Patient()
		ctx := s.Context()
		tx, err := s.Admin.Begin(ctx)
		if err != nil {
			return err.Error()
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		if _, err := tx.Exec(ctx, "UPDATE inventory SET open = false"); err != nil {
			return err.Error()
		}
		wait := begin(ctx, func() error {
			_, err := s.reserve(s.callers[0], []uuid.UUID{s.east, s.west}[:lines]...)
			return err
		})
		s.WaitForBlocked(1)
		if err := tx.Commit(ctx); err != nil {
			return err.Error()
		}
		if err := wait(); len(refusedLines(err)) != lines {
			return fmt.Sprintf("a reserve of %d lines behind the closing = %v", lines, err)
		}
		s.Exec("UPDATE inventory SET open = true")
		return ""
	}
}

func TestTheGuardRefusesAReserveThatSawItsRowOpen(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, reserveBehindTheClosing(1))
	mustHold(t, 1, reserveBehindTheClosing(2))
}

func TestAReserveThatSawItsRowOpenSucceedsWithoutTheGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, reserveBehindTheClosing(1), func(s store) {
		s.mutate("reserve_line", "_raise AND open", "_raise")
	})
	mustBreak(t, 1, reserveBehindTheClosing(2), func(s store) {
		s.mutate("reserve_cart", "l.units AND i.open", "l.units")
	})
}

// insertBesideTheClosing makes a stock row in a transaction that is open while its warehouse is
// closed. The row must be closed when both are done.
func insertBesideTheClosing(s store) string {
	s.Patient()
	ctx := s.Context()
	lamp := s.NamedProduct("Lamp", "LA-400")
	tx, err := s.Admin.Begin(ctx)
	if err != nil {
		return err.Error()
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "INSERT INTO inventory VALUES ($1, $2, 7)", lamp.String(),
		s.east.String()); err != nil {
		return err.Error()
	}
	wait := begin(ctx, func() error {
		_, _, err := s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Closed), "")
		return err
	})
	// Without the lock the closing doesn't wait for the transaction, and ends before it.
	s.WaitUntil(`
SELECT count(*) > 0 OR (SELECT status = 'CLOSED' FROM warehouses WHERE id = $1)
FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
		s.east.String())
	endsFirst := queryOne[bool](s.fixture, "SELECT status = 'CLOSED' FROM warehouses WHERE id = $1",
		s.east.String())
	if endsFirst {
		err = wait()
	}
	err = errors.Join(err, tx.Commit(ctx))
	if !endsFirst {
		err = errors.Join(err, wait())
	}
	if err != nil {
		return err.Error()
	}
	if !s.isClosed(lamp, s.east) {
		return "a stock row that was made beside the closing of its warehouse is open"
	}
	return ""
}

func TestAStockRowThatIsMadeBesideTheClosingIsClosed(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, insertBesideTheClosing)
}

func TestAStockRowThatIsMadeBesideTheClosingStaysOpenWithoutTheLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, insertBesideTheClosing, func(s store) {
		s.mutate("copy_catalog_to_stock", "PERFORM pg_advisory_xact_lock_shared(4, 0);", "")
	})
}

// A stock row takes the status and the limits of its product and its warehouse.
func insertLater(s store) string {
	s.putProducts(stock.ProductItem{
		SKU: "NEW", Name: ptr("New"), MaxPerHold: ptr(2), MaxPerOwner: ptr(4),
		Status: ptr(stock.Archived),
	}, product("OLD"))
	s.putWarehouses(warehouseStatus("W", stock.Closed)...)
	s.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 5 FROM products p, warehouses w WHERE p.sku IN ('NEW', 'OLD')`)
	got := queryOne[string](s.fixture, `
SELECT string_agg(format('%s %s %s %s %s', p.sku, w.code, i.open, i.max_per_hold, i.max_per_owner),
                  ', ' ORDER BY p.sku, w.code)
FROM inventory i JOIN products p ON p.id = product_id JOIN warehouses w ON w.id = warehouse_id
WHERE p.sku IN ('NEW', 'OLD')`)
	if want := "NEW E f 2 4, NEW W f 2 4, OLD E t  , OLD W f  "; got != want {
		return fmt.Sprintf("the new stock rows are %q, want %q", got, want)
	}
	return ""
}

func TestANewStockRowFollowsTheCatalog(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, insertLater)
}

func TestANewStockRowIsOpenWithoutTheTrigger(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, insertLater, func(s store) {
		s.Exec("DROP TRIGGER stock_follows_catalog ON inventory")
	})
}

// archiveBesideAnOlderStep archives a product while a step of an older call, which saw it ACTIVE,
// is about to commit. The stock row of the newer call must stay.
func archiveBesideAnOlderStep(s store) string {
	s.Patient()
	ctx := s.Context()
	s.Exec("UPDATE inventory SET open = false") // as a call that died has left them
	tx, err := s.Admin.Begin(ctx)
	if err != nil {
		return err.Error()
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "SELECT follow_catalog(ARRAY[$1::uuid], NULL, $2, $2)",
		s.product.String(), uuid.Nil.String()); err != nil {
		return err.Error()
	}
	wait := begin(ctx, func() error {
		_, _, err := s.callers[0].PutProducts(ctx, productStatus("CM-300", stock.Archived), "")
		return err
	})
	s.WaitUntil(`
SELECT count(*) > 0 OR (SELECT status = 'ARCHIVED' FROM products WHERE id = $1)
FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
		s.product.String())
	endsFirst := queryOne[bool](s.fixture, "SELECT status = 'ARCHIVED' FROM products WHERE id = $1",
		s.product.String())
	if endsFirst {
		err = wait()
	}
	err = errors.Join(err, tx.Commit(ctx))
	if !endsFirst {
		err = errors.Join(err, wait())
	}
	if err != nil {
		return err.Error()
	}
	if !s.isClosed(s.product, s.east) {
		return "the step of the older call has opened the archived product again"
	}
	return ""
}

func TestAnOlderStepDoesNotUndoANewerChange(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, archiveBesideAnOlderStep)
}

func TestAnOlderStepUndoesANewerChangeWithoutTheLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, archiveBesideAnOlderStep, func(s store) {
		s.mutate("follow_catalog", "PERFORM pg_advisory_xact_lock_shared(4, 0);", "")
	})
}

// oppositeChanges archives a product and makes it active again, from many callers at once. At the
// end the stock rows must agree with the product.
func oppositeChanges(s store) string {
	const turns = 15
	var failed atomic.Int64
	together(len(s.callers), func(i int) {
		for turn := range turns {
			status := []string{stock.Archived, stock.Active}[(i+turn)%2]
			_, _, err := s.callers[i].PutProducts(s.t.Context(), productStatus("CM-300", status), "")
			if err != nil {
				s.t.Errorf("PutProducts() = %v", err)
				failed.Add(1)
			}
		}
	})
	active := queryOne[bool](s.fixture, "SELECT status = 'ACTIVE' FROM products WHERE id = $1",
		s.product.String())
	if s.isOpen(s.east) != active || s.isOpen(s.west) != active || failed.Load() > 0 {
		return fmt.Sprintf("the product is active: %t, and its stock rows are open: %t, %t", active,
			s.isOpen(s.east), s.isOpen(s.west))
	}
	return ""
}

func TestOppositeChangesLeaveNoStockRowBehind(t *testing.T) {
	t.Parallel()

	mustHold(t, 8, oppositeChanges)
}

// closeBesideALock closes a warehouse while another session has locked one of its stock rows. The
// closing must wait for that row, while it keeps no other row locked.
func closeBesideALock(s store) string {
	s.Patient()
	ctx := s.Context()
	lamp := s.NamedProduct("Lamp", "LA-400")
	s.Stock(lamp, s.east, 7)
	unlock := s.Lock("SELECT 1 FROM inventory WHERE product_id = $1 AND warehouse_id = $2 FOR UPDATE",
		lamp.String(), s.east.String())
	wait := begin(ctx, func() error {
		_, _, err := s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Closed), "")
		return err
	})
	s.WaitForBlocked(1)
	closed := s.isClosed(s.product, s.east)
	var free bool
	err := s.Admin.QueryRow(ctx, `
SELECT count(*) = 1 FROM (SELECT 1 FROM inventory
                          WHERE product_id = $1 AND warehouse_id = $2 FOR UPDATE SKIP LOCKED) f`,
		s.product.String(), s.east.String()).Scan(&free)
	unlock()
	if err := errors.Join(err, wait()); err != nil {
		return err.Error()
	}
	if !closed {
		return "while it waits, the closing holds back the other stock row"
	}
	if !free {
		return "while it waits, the closing has the other stock row locked"
	}
	if !s.isClosed(lamp, s.east) {
		return "the stock row that was locked is open after the answer"
	}
	return ""
}

func TestAClosingWaitsForALockedRowAlone(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, closeBesideALock)
}

func TestAClosingLocksOtherRowsIfItDoesNotSkip(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, closeBesideALock, func(s store) {
		s.mutate("follow_catalog", "FOR NO KEY UPDATE OF i SKIP LOCKED", "FOR NO KEY UPDATE OF i")
	})
}

// followBesideAnotherWrite closes a warehouse whose only stock row is locked at first. When the
// closing gets that row, another write has the catalog's lock. The row must be free meanwhile.
func followBesideAnotherWrite(s store) string {
	s.Patient()
	ctx := s.Context()
	unlockRow := s.Lock("SELECT 1 FROM inventory WHERE warehouse_id = $1 FOR UPDATE", s.east.String())
	wait := begin(ctx, func() error {
		_, _, err := s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Closed), "")
		return err
	})
	s.WaitForBlocked(1)
	unlockCatalog := s.Lock("SELECT pg_advisory_xact_lock(4, 0)")
	unlockRow()
	s.WaitUntil(`
SELECT count(*) = 1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'`)
	free := queryOne[int](s.fixture, `
SELECT count(*) FROM (SELECT FROM inventory WHERE warehouse_id = $1 FOR UPDATE SKIP LOCKED) free`,
		s.east.String())
	unlockCatalog()
	if err := wait(); err != nil {
		return err.Error()
	}
	if free != 1 {
		return "the closing keeps a stock row locked while it waits for another write of the catalog"
	}
	if s.isOpen(s.east) {
		return "the stock row that was locked is open after the answer"
	}
	return ""
}

func TestABusyRowIsFreeWhileTheCatalogIsWaitedFor(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, followBesideAnotherWrite)
}

func TestABusyRowIsLockedWhileTheCatalogIsWaitedForWithoutTheGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, followBesideAnotherWrite, func(s store) {
		s.mutate("follow_busy_row", "EXIT WHEN pg_try_advisory_xact_lock_shared(4, 0);",
			"PERFORM pg_advisory_xact_lock_shared(4, 0); EXIT;")
	})
}

// A call whose stock row stays locked ends unfinished. Its repeat under the same key gets the same
// answer as if nothing had happened, after the row has followed.
func TestARepeatFinishesACallThatEndedHalfWay(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	ctx := s.Context()
	put := func(key string) ([]stock.WarehouseResult, bool, error) {
		return s.callers[0].PutWarehouses(ctx, warehouseStatus("E", stock.Closed), key)
	}
	unlock := s.Lock("SELECT 1 FROM inventory WHERE warehouse_id = $1 FOR UPDATE", s.east.String())
	_, _, err := put("k")
	if !errors.Is(err, stock.ErrUnfinished) || !errors.Is(err, reservation.ErrBusy) {
		t.Fatalf("PutWarehouses() beside a lock = %v, want %v", err, stock.ErrUnfinished)
	}
	unlock()
	if _, err := s.reserve(s.callers[0], s.east); err != nil {
		t.Fatalf("a reserve before the repeat = %v, want a hold: the row hasn't followed", err)
	}
	if found := s.broken(); found["catalog"] != 1 {
		t.Errorf("the audit finds %v, want the stock row that doesn't follow", found)
	}
	results, replayed, err := put("k")
	if err != nil || !replayed || results[0].Outcome != stock.Updated {
		t.Errorf("the repeat = %+v, %t, %v, want the first answer", results, replayed, err)
	}
	if s.isOpen(s.east) {
		t.Error("the stock row is open after the repeat")
	}
	s.Exec("UPDATE inventory SET open = true") // as if the first call had died again
	results, _, err = put("")
	if err != nil || results[0].Outcome != stock.Unchanged || s.isOpen(s.east) {
		t.Errorf("a repeat without a key = %+v, %v, open: %t, want the row closed", results, err,
			s.isOpen(s.east))
	}
	s.mustAudit()
}

// A call that sets a limit ends unfinished while reserves that counted are under way, and so does
// its repeat. A lock stands for such a reserve. In the control nobody waits for it.
func TestARepeatOfALimitWaitsForTheReservesThatCounted(t *testing.T) {
	t.Parallel()

	for _, guarded := range []bool{true, false} {
		s := newStore(t, 1)
		if !guarded {
			s.mutate("await_limited_reserves", "PERFORM pg_advisory_xact_lock(11, _number);", "")
		}
		s.NamedProduct("Desk", "DE-1")
		limit := 5
		put := func() (bool, error) {
			_, replayed, err := s.callers[0].PutProducts(s.Context(),
				[]stock.ProductItem{{SKU: "DE-1", MaxPerOwner: &limit}}, "k")
			return replayed, err
		}
		end := s.Lock(`
SELECT pg_advisory_xact_lock_shared(11, limit_number(id)) FROM products WHERE sku = 'DE-1'`)
		for range 2 {
			if _, err := put(); errors.Is(err, stock.ErrUnfinished) != guarded ||
				errors.Is(err, reservation.ErrBusy) != guarded {
				t.Errorf("guarded %t: PutProducts() beside a reserve = %v", guarded, err)
			}
		}
		end()
		if replayed, err := put(); err != nil || !replayed {
			t.Errorf("guarded %t: after the reserve the repeat = %t, %v", guarded, replayed, err)
		}
		s.mustAudit()
	}
}

// importTwice lets all callers import the same new products. Exactly one of them makes each.
func importTwice(s store) string {
	var items []stock.ProductItem
	for i := range 50 {
		items = append(items, product(fmt.Sprint("NEW-", i)))
	}
	outcomes := make([]map[stock.Outcome]int, len(s.callers))
	var failure atomic.Value
	together(len(s.callers), func(i int) {
		results, _, err := s.callers[i].PutProducts(s.t.Context(), items, "")
		if err != nil {
			failure.Store(err.Error())
		}
		outcomes[i] = map[stock.Outcome]int{}
		for _, result := range results {
			outcomes[i][result.Outcome]++
		}
	})
	if text, failed := failure.Load().(string); failed {
		return text
	}
	makers := 0
	for _, got := range outcomes {
		if got[stock.Created] == len(items) {
			makers++
		} else if got[stock.Unchanged] != len(items) {
			return fmt.Sprintf("an import has the outcomes %v", got)
		}
	}
	n := queryOne[int](s.fixture, "SELECT count(*) FROM products WHERE sku LIKE 'NEW-%'")
	if makers != 1 || n != len(items) {
		return fmt.Sprintf("%d imports made %d products, want one import to make %d", makers, n,
			len(items))
	}
	return ""
}

func TestOneOfManyEqualImportsMakesTheProducts(t *testing.T) {
	t.Parallel()

	mustHold(t, 12, importTwice)
}

// withoutTheCatalogsLock lets the catalog's writes run beside one another. Each rests between its
// last statement and its commit, so that one processor runs them beside one another too.
func withoutTheCatalogsLock(s store) {
	for _, routine := range []string{"put_products", "put_warehouses"} {
		s.mutate(routine, "PERFORM pg_advisory_xact_lock(4, 0);", "")
		s.mutate(routine, "outcome := 'PUT';", "PERFORM pg_sleep(0.05); outcome := 'PUT';")
	}
}

func TestEqualImportsFailWithoutTheLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 12, importTwice, withoutTheCatalogsLock)
}

// importInTwoCases lets half of the callers import an SKU and a code, and the others the same in
// another case. Only one of the two may come to be.
func importInTwoCases(s store) string {
	var made [2]atomic.Int64
	var failure atomic.Value
	together(len(s.callers), func(i int) {
		products, warehouses := []string{"new-1", "NEW-1"}, []string{"north", "NORTH"}
		_, _, err := s.callers[i].PutProducts(s.t.Context(),
			[]stock.ProductItem{product(products[i%2])}, "")
		_, _, err2 := s.callers[i].PutWarehouses(s.t.Context(),
			[]stock.WarehouseItem{{Code: warehouses[i%2], Name: ptr("North")}}, "")
		for _, err := range []error{err, err2} {
			var wrong *stock.ItemsError
			if err == nil {
				made[i%2].Add(1)
			} else if !errors.As(err, &wrong) {
				failure.Store(err.Error())
			}
		}
	})
	if text, failed := failure.Load().(string); failed {
		return text
	}
	products := queryOne[int](s.fixture, "SELECT count(*) FROM products WHERE lower(sku) = 'new-1'")
	warehouses := queryOne[int](s.fixture,
		"SELECT count(*) FROM warehouses WHERE lower(code) = 'north'")
	half := int64(len(s.callers) / 2)
	if total := made[0].Load() + made[1].Load(); products != 1 || warehouses != 1 || total != 2*half {
		return fmt.Sprintf("%d products and %d warehouses differ by case alone; %d calls succeeded, "+
			"want %d", products, warehouses, total, 2*half)
	}
	return ""
}

func TestOneOfTwoCasesIsMade(t *testing.T) {
	t.Parallel()

	mustHold(t, 12, importInTwoCases)
}

func TestBothCasesAreMadeWithoutTheLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 12, importInTwoCases, withoutTheCatalogsLock)
}

// A warehouse of 40,000 stock rows is closed while callers reserve from it.
func TestALargeWarehouseIsClosedUnderReserves(t *testing.T) {
	t.Parallel()

	const rows = 40_000
	s := newStore(t, 9)
	ctx := s.Context()
	err := pgx.BeginFunc(ctx, s.Admin, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"SET LOCAL session_replication_role = replica",
			`INSERT INTO products (id, name, sku)
			 SELECT gen_random_uuid(), 'product ' || n, 'SKU-' || n FROM generate_series(1, 40000) n`,
			`INSERT INTO inventory (product_id, warehouse_id, total)
			 SELECT p.id, w.id, 1000 FROM products p, warehouses w WHERE p.sku <> 'CM-300'`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("ANALYZE")

	if broken := closeUnderReserves(s); broken != "" {
		t.Error(broken)
	}
	const closedRows = `
SELECT count(*) FILTER (WHERE NOT open AND warehouse_id = $1)
     - count(*) FILTER (WHERE NOT open AND warehouse_id <> $1) FROM inventory`
	if n := queryOne[int](s.fixture, closedRows, s.east.String()); n != rows+1 {
		t.Errorf("%d stock rows of the warehouse are closed, want %d and no other", n, rows+1)
	}
}

// The audit looks at what was changed more than a minute ago, when each call has ended.
func TestTheAuditLeavesACallTheTimeToFinish(t *testing.T) {
	t.Parallel()

	s := newStore(t, 1)
	s.Exec("UPDATE products SET status = 'ARCHIVED', changed_at = clock_timestamp()")
	violations, err := s.callers[0].holds.Audit(s.Context())
	if err != nil || len(violations) != 0 {
		t.Errorf("Audit() = %v, %v, want none in the first minute", violations, err)
	}
	s.Exec("UPDATE products SET changed_at = clock_timestamp() - interval '61 s'")
	violations, err = s.callers[0].holds.Audit(s.Context())
	if err != nil || len(violations) != 2 || violations[0].Promise != "catalog" {
		t.Errorf("Audit() = %v, %v, want both stock rows", violations, err)
	}
	for _, change := range []string{
		"UPDATE products SET status = 'ACTIVE', max_per_hold = 3",
		"UPDATE products SET max_per_hold = NULL, max_per_owner = 3",
		"UPDATE products SET max_per_owner = NULL; UPDATE warehouses SET status = 'CLOSED'",
	} {
		s.Exec(change)
		if found := s.broken(); found["catalog"] != 2 {
			t.Errorf("after %s the audit finds %v, want both stock rows", change, found)
		}
	}
}

// lazyWriter makes Postgres's log writer sleep for as long as it can, so that a commit that doesn't
// wait for the disk is lost in a crash.
var lazyWriter = map[string]string{"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}

// closeAndCrash closes a warehouse and kills the server right after the answer. It reports whether
// the closing is there after the restart.
func closeAndCrash(t *testing.T, mutate func(f *fixture)) (survived bool) {
	t.Helper()
	server, db := pgtest.NewServer(t, lazyWriter)
	f := open(t, db, 1)
	f.Stock(f.Product(), f.CodedWarehouse("E", "East"), 5)
	mutate(f)
	f.Exec("CHECKPOINT") // so that the crash doesn't lose the set-up
	f.StopLogWriter()
	f.putWarehouses(warehouseStatus("E", stock.Closed)...)
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		t.Fatal(err)
	}
	after := open(t, db, 1)
	return queryOne[bool](after, `
SELECT NOT i.open AND w.status = 'CLOSED'
FROM inventory i JOIN warehouses w ON w.id = i.warehouse_id`)
}

func TestAnAnsweredClosingSurvivesAKill(t *testing.T) {
	t.Parallel()

	if !closeAndCrash(t, func(*fixture) {}) {
		t.Error("the closing is lost")
	}
}

func TestAnAnsweredClosingIsLostWithoutTheLogRecord(t *testing.T) {
	t.Parallel()

	if closeAndCrash(t, func(f *fixture) {
		f.mutate("write_log_record", "setval('log_records', 1)", "1::bigint")
	}) {
		t.Error("the closing is there, although nothing waited for the disk")
	}
}

// isClosed reads whether a stock row is closed.
func (s store) isClosed(product, warehouse uuid.UUID) bool {
	s.t.Helper()
	return queryOne[bool](s.fixture,
		"SELECT NOT open FROM inventory WHERE product_id = $1 AND warehouse_id = $2",
		product.String(), warehouse.String())
}
