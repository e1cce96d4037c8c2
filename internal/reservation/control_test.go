package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// These are the negative controls. Each removes one guard in a database of its own. The race that
// keeps its promises on the real statements must then break one. Where other guards stand in for
// the removed one, the control removes those too.

// dropCheck drops the check constraint of I1, the last guard against overselling.
func dropCheck(f *fixture) {
	f.Exec("ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total")
}

// dropTrigger lets a resolved hold change again.
func dropTrigger(f *fixture) { f.Exec("DROP TRIGGER i3_resolved_once_i4_alive ON reservations") }

// rest lets the other callers run at the place where a control wants them to. Without it, callers
// that share one slow processor may run one after another, and the race breaks nothing.
const (
	rest    = "\nPERFORM pg_sleep(0.002);\n"
	restRow = ", pg_sleep(0.002)" // in a SELECT that locks rows: before each of them
)

// restAround lets a caller of reserve_line rest between its look and its update, and again while it
// has the stock row's lock.
func restAround(f *fixture) {
	f.mutate("reserve_line", "outcome := 'HELD';", "outcome := 'HELD';"+rest)
	f.mutate("reserve_line", "IF FOUND THEN\n            IF _raise", "IF FOUND THEN"+rest+"IF _raise")
}

const (
	lineGuard = "AND total - reserved >= _raise"
	cartGuard = "AND i.total - i.reserved >= l.units"

	// asyncCommit comes between the looks of reserve_cart and its locks.
	asyncCommit = "_ignored := set_config('synchronous_commit', 'off', true);"
)

func TestReserveOversellsWithoutTheGuardInItsUpdate(t *testing.T) {
	t.Parallel()

	// The procedure still looks at the stock row before its insert, but on a snapshot that may be
	// out of date when it updates the row.
	mustBreak(t, manyCallers, "I1", func(f *fixture) {
		dropCheck(f)
		restAround(f)
		f.mutate("reserve_line", lineGuard, "")
	}, raceForLastUnit)
}

func TestReserveOversellsWithItsGuardInASubselect(t *testing.T) {
	t.Parallel()

	// After a wait for the row's lock Postgres evaluates the WHERE again, but a sub-select in it
	// still reads the statement's old snapshot.
	const subselect = `AND (SELECT i.total - i.reserved >= _raise FROM inventory i
		WHERE i.product_id = _product AND i.warehouse_id = _warehouse)`
	mustBreak(t, manyCallers, "I1", func(f *fixture) {
		dropCheck(f)
		restAround(f)
		f.mutate("reserve_line", lineGuard, subselect)
	}, raceForLastUnit)
}

func TestTheCheckConstraintPreventsOversellingWithoutTheGuard(t *testing.T) {
	t.Parallel()

	// The constraint stays, so nobody oversells, but the losers get an internal error instead of a
	// shortage.
	mustBreak(t, manyCallers, "error", func(f *fixture) {
		restAround(f)
		f.mutate("reserve_line", lineGuard, "")
	}, raceForLastUnit)
}

func TestCartsOversellWithoutTheirGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I1", func(f *fixture) {
		dropCheck(f)
		f.mutate("reserve_cart", asyncCommit, asyncCommit+rest)
		f.mutate("reserve_cart", cartGuard, "")
	}, raceForLastCart)
}

func TestCartsAreHeldInPartWithoutTheCountOfUpdatedRows(t *testing.T) {
	t.Parallel()

	// The guard stays, so no stock row oversells. But a cart is held even though one of its lines
	// didn't pass the guard.
	mustBreak(t, someCallers, "I1", func(f *fixture) {
		f.mutate("reserve_cart", asyncCommit, asyncCommit+rest)
		f.mutate("reserve_cart", "IF _found = _lines", "IF true")
	}, raceForLastCart)
}

// checkStatusInASubselect moves the status guard of resolve_hold into a sub-select. After a wait
// for the hold's lock the sub-select still reads the statement's old snapshot.
func checkStatusInASubselect(f *fixture) {
	f.mutate("resolve_hold", "_marked := FOUND;", "_marked := FOUND;"+rest)
	f.mutate("resolve_hold", "AND status::text = 'PENDING' ",
		"AND EXISTS (SELECT FROM reservations l WHERE l.id = _id AND l.status = 'PENDING') ")
}

func TestConfirmsTakeTheStockTwiceWithoutTheStatusGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I2", func(f *fixture) {
		dropTrigger(f)
		checkStatusInASubselect(f)
	}, raceOfConfirms)
}

func TestReleasesGiveTheStockBackTwiceWithoutTheStatusGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I2", func(f *fixture) {
		dropTrigger(f)
		checkStatusInASubselect(f)
	}, raceOfReleases)
}

func TestConfirmsAndReleasesBothSucceedWithoutTheStatusGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I3", func(f *fixture) {
		dropTrigger(f)
		checkStatusInASubselect(f)
	}, raceOfConfirmsAndReleases)
}

func TestTheTriggerRefusesASecondConfirmWithoutTheStatusGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "error", checkStatusInASubselect, raceOfConfirms)
}

// The controls of the lock order call the procedure directly, without MergeLines.

const reserveCartSQL = `CALL reserve_cart($1, $2, $3, $4, '10 min', NULL, NULL, NULL, NULL)`

// reserveUnmerged holds a cart whose lines are neither merged nor sorted.
func reserveUnmerged(ctx context.Context, f *fixture, caller int, lines []reservation.Line) error {
	var products, warehouses []string
	var quantities []int
	for _, line := range lines {
		products = append(products, line.ProductID.String())
		warehouses = append(warehouses, line.WarehouseID.String())
		quantities = append(quantities, line.Quantity)
	}
	type answer struct {
		Outcome string
		Data    []byte
	}
	got, err := postgres.QueryRow(ctx, f.callers[caller], pgx.RowToStructByPos[answer],
		reserveCartSQL, uuid.New().String(), products, warehouses, quantities)
	if err == nil && got.Outcome != "HELD" {
		err = fmt.Errorf("reserve_cart(%+v) = %s, want HELD", lines, got.Outcome)
	}
	return err
}

// raceOfUnsortedCarts is like raceOfOppositeCarts, but the service doesn't sort the lines. Only the
// procedure does.
func raceOfUnsortedCarts(ctx context.Context, f *fixture, r *report) {
	const carts, units = 12, 10_000
	rows := f.stocks(units, units, units, units)
	backwards := []reservation.Line{rows[3], rows[2], rows[1], rows[0]}

	together(len(f.callers), func(i int) {
		for range carts {
			if r.anyBroken() {
				return
			}
			err := reserveUnmerged(ctx, f, i, [][]reservation.Line{rows, backwards}[i%2])
			r.check(err == nil, deadlock, "%v", err)
		}
	})
}

func TestUnsortedCartsDoNotDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceOfUnsortedCarts)
}

// checkDeadlocksSooner makes sessions that are opened later look for a deadlock after 20 ms instead
// of a second.
func checkDeadlocksSooner(f *fixture) {
	f.Exec("ALTER DATABASE " + pgx.Identifier{f.Name}.Sanitize() + " SET deadlock_timeout = '20ms'")
}

func TestUnsortedCartsDeadlockWithoutTheSort(t *testing.T) {
	t.Parallel()

	// The rows are locked in the order of the request. Without any ORDER BY the planner would choose
	// the order.
	mustBreak(t, fewCallers, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("reserve_cart", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
			"ORDER BY array_position(_products, i.product_id) FOR NO KEY UPDATE")
		f.mutate("reserve_cart", "l.units, l.epoch\n", "l.units, l.epoch"+restRow+"\n")
	}, raceOfUnsortedCarts)
}

func TestConfirmsAndReleasesDeadlockInAnotherLockOrder(t *testing.T) {
	t.Parallel()

	mustBreak(t, fewCallers, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("give_up_units", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
			"ORDER BY i.product_id DESC, i.warehouse_id FOR NO KEY UPDATE")
		f.mutate("give_up_units", "newest.epoch, l.quantity\n", "newest.epoch, l.quantity"+restRow+"\n")
	}, raceOfOppositeCarts)
}

// dropMovementTriggers leaves the movements to the statements that write them.
func dropMovementTriggers(f *fixture) {
	f.Exec("DROP TRIGGER i8_movement_is_right ON stock_movements")
	f.Exec("DROP TRIGGER i8_total_moves ON inventory")
}

// withoutSale leaves out the SALE of a hold of one line.
func withoutSale(f *fixture) {
	f.mutate("give_up_units", "IF _sold THEN\n            INSERT", "IF false THEN\n            INSERT")
}

func TestAConfirmThatWritesNoSaleBreaksTheNumbers(t *testing.T) {
	t.Parallel()

	for name, leaveOut := range map[string]func(*fixture){
		"a sale": withoutSale,
		"sales of a cart": func(f *fixture) {
			f.mutate("give_up_units", "FROM stock s WHERE _sold", "FROM stock s WHERE false")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, someCallers, "I8", func(f *fixture) {
				dropMovementTriggers(f)
				leaveOut(f)
			}, raceOfMovements)
		})
	}
}

func TestTheTriggerRefusesAConfirmThatWritesNoSale(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "error", withoutSale, raceOfMovements)
}

func TestSweepDeadlocksInAnotherLockOrder(t *testing.T) {
	t.Parallel()

	mustBreak(t, fewCallers, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("sweep_holds", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
			"ORDER BY i.product_id DESC, i.warehouse_id FOR NO KEY UPDATE")
		f.mutate("sweep_holds", "i.warehouse_id, f.quantity\n", "i.warehouse_id, f.quantity"+restRow+"\n")
	}, raceOfSweepAndCarts)
}

func TestSweepAndCartsNeverDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceOfSweepAndCarts)
}

// raceOfSweepAndCarts sweeps dead carts while other callers reserve the same rows.
func raceOfSweepAndCarts(ctx context.Context, f *fixture, r *report) {
	const turns, deadCarts, units = 10, 30, 10_000
	services := f.services()
	rows := f.stocks(units, units, units, units)
	for range deadCarts {
		f.kill(f.hold(rows...))
	}

	together(len(services), func(i int) {
		for range turns {
			if r.anyBroken() {
				return
			}
			if i == 0 {
				_, err := services[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
				continue
			}
			answer, err := services[i].Reserve(ctx, reservation.Request{Lines: rows})
			if err == nil && i%2 == 0 {
				if err = pgtest.KillHold(ctx, f.Admin, answer.Hold.ID); err == nil {
					_, err = services[i].Sweep(ctx)
				}
			}
			r.check(err == nil, "error", "caller %d: %v", i, err)
		}
	})
	r.checkRetries(services)
}

// raceOfRepeatedLines holds a cart with two lines of one stock row, which are not merged.
func raceOfRepeatedLines(ctx context.Context, f *fixture, r *report) {
	rows := f.stocks(5, 5)
	err := reserveUnmerged(ctx, f, 0, []reservation.Line{of(rows[0], 2), of(rows[0], 2), rows[1]})
	r.check(err == nil, "error", "%v", err)
	r.checkStock(f, rows[0], counts{Total: 5, Reserved: 4})
}

func TestRepeatedLinesFailWithoutMerging(t *testing.T) {
	t.Parallel()

	// The primary key of reservation_items refuses the second line.
	mustBreak(t, 1, "error", func(*fixture) {}, raceOfRepeatedLines)
}

func TestRepeatedLinesLoseUnitsWithoutThePrimaryKey(t *testing.T) {
	t.Parallel()

	// An UPDATE from a join applies only one of the two lines to the stock row, so reserved is less
	// than the sum of the holds.
	mustBreak(t, 1, "I2", func(f *fixture) {
		f.Exec("ALTER TABLE reservation_items DROP CONSTRAINT reservation_items_pkey")
		f.mutate("reserve_cart", "IF _found = _lines", "IF true")
	}, raceOfRepeatedLines)
}

// The controls of the clock make a verb wait for a lock until its hold has died.

// raceWithTheEnd calls a verb while another session has locked the verb's hold, or with lockStock
// its stock row. The hold ends while the verb waits, so the verb must return ErrExpired.
func raceWithTheEnd(
	ctx context.Context, f *fixture, r *report, lockStock bool,
	verb func(*reservation.Service, reservation.Hold) error,
) {
	for _, n := range []int{1, 2} {
		lines := f.stocks([]int{1, 1}[:n]...)
		hold := f.hold(lines...)
		tx, err := f.Admin.Begin(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		lock, id := lockHoldSQL, hold.ID
		if lockStock {
			lock, id = lockStockSQL, lines[0].ProductID
			f.Exec(endSoonSQL, hold.ID.String(), soon)
		}
		if _, err := tx.Exec(ctx, lock, id.String()); err != nil {
			f.t.Fatal(err)
		}
		var answer error

		together(2, func(i int) {
			if i == 0 {
				answer = verb(newService(f.callers[0]), hold)
				return
			}
			err := pgtest.Wait(ctx, f.Admin, waitingSQL, 1)
			if err == nil && !lockStock {
				_, err = tx.Exec(ctx, endSoonSQL, hold.ID.String(), time.Duration(0))
			} else if err == nil {
				err = pgtest.Wait(ctx, f.Admin, isDeadSQL, hold.ID.String())
			}
			r.check(err == nil, "error", "the other session: %v", err)
			r.check(tx.Commit(ctx) == nil, "error", "commit the other session")
		})

		r.check(errors.Is(answer, reservation.ErrExpired), "I4",
			"a verb that got its locks after the end of a hold of %d lines answered %v, want %v", n,
			answer, reservation.ErrExpired)
	}
}

func raceOfLateExtend(ctx context.Context, f *fixture, r *report) {
	raceWithTheEnd(ctx, f, r, false, func(s *reservation.Service, h reservation.Hold) error {
		_, err := s.Extend(ctx, h.ID, time.Minute, "late extend "+h.ID.String())
		return err
	})
}

func raceOfLateConfirm(ctx context.Context, f *fixture, r *report) {
	confirm := func(s *reservation.Service, h reservation.Hold) error {
		_, err := s.Confirm(ctx, h.ID, "late confirm "+h.ID.String())
		return err
	}
	raceWithTheEnd(ctx, f, r, false, confirm)
	raceWithTheEnd(ctx, f, r, true, confirm)
}

// raceOfLateRelease expects the status EXPIRED. It turns that into ErrExpired for raceWithTheEnd.
func raceOfLateRelease(ctx context.Context, f *fixture, r *report) {
	release := func(s *reservation.Service, h reservation.Hold) error {
		answer, err := s.Release(ctx, h.ID, "late release "+h.ID.String())
		if err == nil && answer.Hold.Status == reservation.Expired {
			return reservation.ErrExpired
		}
		return err
	}
	raceWithTheEnd(ctx, f, r, false, release)
	raceWithTheEnd(ctx, f, r, true, release)
}

func TestAVerbThatWaitsPastTheEndFindsTheHoldDead(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]race{
		"extend": raceOfLateExtend, "confirm": raceOfLateConfirm, "release": raceOfLateRelease,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustHold(t, 1, body)
		})
	}
}

func TestLateExtendSucceedsWhenTheClockIsReadBeforeTheLock(t *testing.T) {
	t.Parallel()

	const lock = "_hold := lock_hold(_id);"
	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "")
		f.mutate("extend_hold", lock, "_now := clock_timestamp(); "+lock)
	}, raceOfLateExtend)
}

func TestLateExtendSucceedsWithTheTransactionsClock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "_now := now();")
	}, raceOfLateExtend)
}

func TestLateConfirmSucceedsWithoutReadingTheClockAgain(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "true")
	}, raceOfLateConfirm)
}

func TestLateReleaseSucceedsWithTheTransactionsClock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "now() < _hold.expires_at")
	}, raceOfLateRelease)
}

func TestReserveIsRefusedWithoutCountingDeadUnits(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I4", func(f *fixture) {
		f.mutate("look_again", "ELSIF _free + _dead < _quantity THEN",
			"ELSIF _free < _quantity THEN")
	}, raceForSeveralDeadUnits)
}

func TestReserveIsRefusedByALookThatIgnoresFirstEnd(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I4", func(f *fixture) {
		f.mutate("reserve_line", "_reserved = 0 OR _first_end > clock_timestamp()", "true")
	}, raceForSeveralDeadUnits)
}

func TestDeadUnitsAreGivenBackTwiceWithoutTheReclaimsGuard(t *testing.T) {
	t.Parallel()

	// The lock and the guard each prevent a second reclaim of the same hold, so both go.
	mustBreak(t, manyCallers, "I2", func(f *fixture) {
		dropTrigger(f)
		dropCheck(f)
		f.mutate("reclaim_holds", " FOR NO KEY UPDATE SKIP LOCKED", "")
		f.mutate("reclaim_holds",
			" AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'\n        RETURNING",
			"\n        RETURNING")
	}, raceForDeadUnits)
}

func TestDeadLinesAreGivenBackTwiceWithoutTheReclaimsGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, manyCallers, "I2", func(f *fixture) {
		dropCheck(f)
		f.mutate("reclaim_lines", " FOR NO KEY UPDATE SKIP LOCKED", "")
		f.mutate("reclaim_lines", "AND l.counted AND l.expires_at <= _now\n        RETURNING",
			"\n        RETURNING")
	}, raceForDeadUnits)
}

// raceWithTheReclaimOfALine calls a verb for a live cart of two lines. The verb waits for the lock
// of the first line until the cart is dead and another caller has reclaimed the second line.
func raceWithTheReclaimOfALine(
	ctx context.Context, f *fixture, r *report,
	verb func(*reservation.Service, context.Context, uuid.UUID, string) (reservation.Answer, error),
) {
	rows := f.stocks(1, 1)
	cart := f.hold(rows...)
	f.Exec(endSoonSQL, cart.ID.String(), soon)
	const lockLineSQL = `
SELECT 1 FROM reservation_items WHERE reservation_id = $1 AND product_id = $2 FOR UPDATE`
	tx := f.lock(lockLineSQL, cart.ID.String(), rows[0].ProductID.String())
	services := f.services()
	var late error

	together(2, func(i int) {
		if i == 0 {
			answer, err := verb(services[0], ctx, cart.ID, "")
			if late = err; err == nil && answer.Hold.Status == reservation.Expired {
				late = reservation.ErrExpired // a release answers with the status
			}
			return
		}
		err := errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1),
			pgtest.Wait(ctx, f.Admin, isDeadSQL, cart.ID.String()))
		r.check(err == nil, "error", "the other session: %v", err)
		_, err = services[1].Reserve(ctx, reservation.Request{Lines: rows[1:]})
		r.check(err == nil, "I4", "Reserve() of a line of a dead cart = %v", err)
		r.check(tx.Commit(ctx) == nil, "error", "commit the other session")
	})

	r.check(errors.Is(late, reservation.ErrExpired), "I4",
		"a verb whose line was reclaimed answered %v, want %v", late, reservation.ErrExpired)
	r.checkStock(f, rows[0], counts{Total: 1, Reserved: 1})
	r.checkStock(f, rows[1], counts{Total: 1, Reserved: 1})
}

func raceOfConfirmAndReclaim(ctx context.Context, f *fixture, r *report) {
	raceWithTheReclaimOfALine(ctx, f, r, (*reservation.Service).Confirm)
}

func raceOfReleaseAndReclaim(ctx context.Context, f *fixture, r *report) {
	raceWithTheReclaimOfALine(ctx, f, r, (*reservation.Service).Release)
}

func raceOfExtendAndReclaim(ctx context.Context, f *fixture, r *report) {
	extend := func(
		s *reservation.Service, ctx context.Context, id uuid.UUID, key string,
	) (reservation.Answer, error) {
		return s.Extend(ctx, id, time.Minute, key)
	}
	raceWithTheReclaimOfALine(ctx, f, r, extend)
}

func TestAVerbWhoseLineWasReclaimedFindsTheCartDead(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]race{
		"confirm": raceOfConfirmAndReclaim, "release": raceOfReleaseAndReclaim,
		"extend": raceOfExtendAndReclaim,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustHold(t, 2, body)
		})
	}
}

func TestConfirmTakesReclaimedUnitsWithoutItsTwoGuards(t *testing.T) {
	t.Parallel()

	// Reading the clock again and counting the lines each suffice alone. Without both, the units of
	// a line are taken twice.
	mustBreak(t, 2, "I2", func(f *fixture) {
		dropCheck(f)
		f.mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "true")
		f.mutate("give_up_units", "IF _counted <> _lines THEN\n        RETURN false;",
			"IF false THEN\n        RETURN false;")
	}, raceOfConfirmAndReclaim)
}

func TestExtendRevivesAHalfReclaimedCartWithoutTheCountOfItsLines(t *testing.T) {
	t.Parallel()

	mustBreak(t, 2, "I7", func(f *fixture) {
		f.mutate("extend_lines", "RETURN _extended = _lines;", "RETURN true;")
	}, raceOfExtendAndReclaim)
}

func TestSweepsExpireEachHoldOnce(t *testing.T) {
	t.Parallel()

	mustHold(t, 4, raceOfSweeps)
}

// raceOfSweeps lets four sweeps expire the same dead holds. Together they must give each unit back
// once.
func raceOfSweeps(ctx context.Context, f *fixture, r *report) {
	const holds = 40
	services := f.services()
	rows := f.stocks(1000, 1000)
	f.hold(of(rows[0], 10*otherUnits), of(rows[1], 10*otherUnits))
	for i := range holds {
		f.kill(f.hold(rows[:1+i%2]...))
	}
	var expired, units atomic.Int64

	together(len(services), func(i int) {
		result, err := services[i].Sweep(ctx)
		r.check(err == nil, "error", "Sweep() = %v", err)
		expired.Add(result.Expired)
		units.Add(result.Units)
	})

	r.check(expired.Load() == holds && units.Load() == holds*3/2, "I9",
		"the sweeps expired %d holds of %d units, want %d of %d", expired.Load(), units.Load(),
		holds, holds*3/2)
	for _, row := range rows {
		r.checkStock(f, row, counts{Total: 1000, Reserved: 10 * otherUnits})
	}
}

func TestSweepsGiveUnitsBackTwiceWithoutTheirGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, 4, "I9", func(f *fixture) {
		dropTrigger(f)
		f.mutate("sweep_holds", "LIMIT _limit FOR NO KEY UPDATE SKIP LOCKED", "LIMIT _limit")
		f.mutate("sweep_holds",
			"WHERE r.id = taken.id AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'",
			"WHERE r.id = taken.id")
		f.mutate("sweep_holds", "EXIT WHEN _taken", rest+"EXIT WHEN _taken")
	}, raceOfSweeps)
}

// raceOfSweepAndLockedHold sweeps while another session has locked one of two dead holds. The sweep
// must not wait for it.
func raceOfSweepAndLockedHold(ctx context.Context, f *fixture, r *report) {
	row := f.stock(10)
	locked, free := f.hold(row), f.hold(row)
	f.kill(locked, free)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, lockHoldSQL, locked.ID.String()); err != nil {
		f.t.Fatal(err)
	}

	result, err := newService(f.callers[0]).Sweep(ctx)

	r.check(err == nil && result.Expired == 1, "I9",
		"Sweep() beside a locked hold = %+v, %v, want the other one expired", result, err)
	r.check(tx.Rollback(ctx) == nil, "error", "roll back the other session")
	result, err = newService(f.callers[0]).Sweep(ctx)
	r.check(err == nil && (result.Expired == 1 || len(r.found) > 0), "I9",
		"Sweep() afterwards = %+v, %v, want the first one expired", result, err)
}

func TestSweepSkipsALockedHold(t *testing.T) {
	t.Parallel()

	newFixtureWithLimits(t, 1).mustHold(raceOfSweepAndLockedHold)
}

func TestSweepWaitsForALockedHoldWithoutSkipLocked(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 1)
	f.mutate("sweep_holds", "LIMIT _limit FOR NO KEY UPDATE SKIP LOCKED",
		"LIMIT _limit FOR NO KEY UPDATE")
	f.mustBreak("I9", raceOfSweepAndLockedHold)
}

const (
	keyLock   = "PERFORM pg_advisory_xact_lock(1, hashtext(_key));"
	keepGuard = "\n    WHERE k.created_at <= _now - interval '24 hours'"
)

func TestOneKeyMakesTwoHoldsWithoutTheLock(t *testing.T) {
	t.Parallel()

	// The guard of keep_answer is the second defence, so it goes too.
	mustBreak(t, someCallers, "I6", func(f *fixture) {
		f.mutate("claim_key", keyLock, "NULL;")
		f.mutate("keep_answer", keepGuard, "")
	}, raceOfOneKeyToReserve)
}

// Two requests of one key don't exclude one another when a deploy changes the lock between them.
func TestOneKeyMakesOneHoldWhenItsLockChanges(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, func(ctx context.Context, f *fixture, r *report) {
		f.mutate("claim_key", keyLock, "NULL;")
		raceOfOneKeyToReserve(ctx, f, r)
	})
}

func TestKeepAnswerRefusesASecondHoldForGoodWithAnotherCode(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "error", func(f *fixture) {
		f.mutate("claim_key", keyLock, "NULL;")
		f.mutate("keep_answer", "'serialization_failure'", "'raise_exception'")
	}, raceOfOneKeyToReserve)
}
