package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

const adjustSQL = "SELECT adjust_stock($1, $2, $3, 'test')"

// adjust changes the total of a line's stock row. Any goroutine may call it.
func (f *fixture) adjust(ctx context.Context, row reservation.Line, delta int) error {
	_, err := f.Admin.Exec(ctx, adjustSQL, row.ProductID.String(), row.WarehouseID.String(), delta)
	return err
}

func (f *fixture) expired() int {
	f.t.Helper()
	return queryOne[int](f, "SELECT count(*) FROM reservations WHERE status = 'EXPIRED'")
}

func TestAdjustStockReclaimsOnlyWhatTheShelfLacks(t *testing.T) {
	t.Parallel()

	const dead = 5000
	f := newFixture(t, 0)
	row := f.stock(dead + 10)
	f.deadHolds(row, dead)
	for _, step := range []struct{ delta, expired int }{
		{10, 0},       // a delivery
		{-20, 0},      // the shelf has twenty
		{-7, 7},       // it has none
		{-1500, 1507}, // more than a step of reclaim_step()
		{3, 1507},
	} {
		if err := f.adjust(f.Context(), row, step.delta); err != nil {
			t.Fatalf("adjust_stock(%d) = %v", step.delta, err)
		}
		if n := f.expired(); n != step.expired {
			t.Errorf("after adjust_stock(%d) %d holds are EXPIRED, want %d", step.delta, n,
				step.expired)
		}
	}

	err := f.adjust(f.Context(), row, -4000)

	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.ConstraintName != "i1_reserved_within_total" {
		t.Errorf("adjust_stock() below zero = %v, want it refused by I1", err)
	}
	if got, want := f.counts(row), (counts{Total: 3496, Reserved: 3493}); got != want {
		t.Errorf("the stock row is %+v, want %+v", got, want)
	}
	f.mustAudit(t)
}

func TestAnAdjustmentThatNeedsTooManyDeadHoldsSaysHowToFreeThem(t *testing.T) {
	t.Parallel()

	const dead = 2500
	f := newFixture(t, 0)
	row := f.stock(dead)
	f.deadHolds(row, dead)
	f.mutate("try_to_move", "interval '2 s'", "interval '0 s'")

	err := f.adjust(f.Context(), row, -dead)

	const limitExceeded = "54000"
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != limitExceeded {
		t.Fatalf("adjust_stock() = %v, want SQLSTATE %s", err, limitExceeded)
	}
	if n := f.expired(); n != 0 {
		t.Errorf("a failed adjust_stock() left %d holds EXPIRED, want 0", n)
	}
	f.Exec(strings.TrimSuffix(strings.TrimPrefix(refused.Hint, "First "), "."))
	if err := f.adjust(f.Context(), row, -dead); err != nil {
		t.Errorf("adjust_stock() after its hint = %v", err)
	}
	f.mustAudit(t)
}

// raceOfAnAdjustmentAndALockedDeadHold takes the only unit off the shelf. A dead hold has it, which
// another session has locked.
func raceOfAnAdjustmentAndALockedDeadHold(ctx context.Context, f *fixture, r *report) {
	const lockLinesSQL = "SELECT 1 FROM reservation_items WHERE reservation_id = $1 FOR UPDATE"
	rows := f.stocks(1, 1)
	cart := f.hold(rows...)
	f.kill(cart)
	r.check(f.adjust(ctx, rows[1], 1) == nil, "error", "a delivery failed")
	single := f.hold(rows[1])
	f.kill(single)
	for _, c := range []struct {
		row  reservation.Line
		lock string
		hold reservation.Hold
	}{{rows[0], lockLinesSQL, cart}, {rows[1], lockHoldSQL, single}} {
		tx := f.lock(c.lock, c.hold.ID.String())
		together(2, func(i int) {
			if i == 0 {
				err := f.adjust(ctx, c.row, -1)
				r.check(err == nil, "I4", "adjust_stock() of a dead unit = %v", err)
				return
			}
			// An adjustment that doesn't wait has ended, and its session is idle.
			err := errors.Join(pgtest.Wait(ctx, f.Admin, `
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%adjust_stock%' AND pid <> pg_backend_pid()
  AND (wait_event_type = 'Lock' OR state = 'idle')`),
				tx.Commit(ctx))
			r.check(err == nil, "error", "the other session: %v", err)
		})
	}
	r.checkStock(f, rows[0], counts{})
	r.checkStock(f, rows[1], counts{Total: 1, Reserved: 1})
}

func TestAdjustStockWaitsForALockedDeadHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 0, raceOfAnAdjustmentAndALockedDeadHold)
}

func TestAdjustStockIsRefusedWithoutAnotherTry(t *testing.T) {
	t.Parallel()

	mustBreak(t, 0, "I4", func(f *fixture) {
		f.mutate("adjust_stock", "_tries = max_tries()", "true")
	}, raceOfAnAdjustmentAndALockedDeadHold)
}

// raceOfAdjustmentsAndPolls takes dead units off the shelf one by one, while callers poll the dead
// holds, sweep, and reserve. Each poll locks its hold for a moment.
func raceOfAdjustmentsAndPolls(ctx context.Context, f *fixture, r *report) {
	const units, pollers = 12, 6
	row := f.stock(units)
	var holds []reservation.Hold
	for range units {
		holds = append(holds, f.hold(row))
	}
	f.kill(holds...)
	services := f.services()
	var taken, left atomic.Int64
	left.Store(units)

	together(len(services), func(i int) {
		switch {
		case i < pollers:
			for left.Load() > 0 {
				_, err := services[i].Get(ctx, holds[i].ID)
				r.check(err == nil, "error", "Get() = %v", err)
			}
		case i == pollers:
			_, err := services[i].Sweep(ctx)
			r.check(err == nil, "error", "Sweep() = %v", err)
		default:
			for left.Add(-1) >= 0 {
				err := f.adjust(ctx, row, -1)
				r.check(err == nil, "I4", "adjust_stock() of a dead unit = %v", err)
				taken.Add(1)
			}
		}
	})

	r.checkStock(f, row, counts{Total: units - int(taken.Load())})
}

func TestAdjustmentsTakeEveryDeadUnit(t *testing.T) {
	t.Parallel()

	mustHold(t, 9, raceOfAdjustmentsAndPolls)
}

func TestAReserveOfManyDeadUnitsReclaimsThemInSteps(t *testing.T) {
	t.Parallel()

	const dead = 3500
	f := newFixture(t, 1)
	rows := f.stocks(dead, dead)
	for _, row := range rows {
		f.deadHolds(row, dead)
	}
	s := f.services()[0]
	for _, lines := range [][]reservation.Line{
		{of(rows[0], dead)},
		{of(rows[0], dead), of(rows[1], dead)}, // a cart
	} {
		answer, err := s.Reserve(f.Context(), reservation.Request{Lines: lines, Key: "key"})
		if err != nil {
			t.Fatalf("Reserve(%+v) = %v", lines, err)
		}
		if _, err := s.Release(f.Context(), answer.Hold.ID, ""); err != nil {
			t.Fatal(err)
		}
		f.Exec("DELETE FROM idempotency_keys")
	}
	if n := f.expired(); n != 2*dead {
		t.Errorf("%d holds are EXPIRED, want %d", n, 2*dead)
	}
	f.mustAudit(t)
}

// When time runs out, the steps that are done stay done: the caller's next tries end.
func TestAReserveThatRunsOutOfTimeIsBusyAndKeepsItsSteps(t *testing.T) {
	t.Parallel()

	const dead = 2500
	f := newFixture(t, 1)
	row := f.stock(dead)
	f.deadHolds(row, dead)
	f.mutate("free_units", "interval '2 s'", "interval '0 s'")
	s := f.services()[0]
	var got []string
	for range 3 {
		_, err := s.Reserve(f.Context(),
			reservation.Request{Lines: []reservation.Line{of(row, dead)}})
		got = append(got, fmt.Sprint(errors.Is(err, reservation.ErrBusy), f.expired()))
	}

	if want := "[true 1000 true 2000 false 2500]"; fmt.Sprint(got) != want {
		t.Errorf("three calls of Reserve() were busy, and left EXPIRED: %v, want %s", got, want)
	}
	f.mustAudit(t)
}

// Without steps, one transaction would expire them all.
func TestAStepBoundsTheHoldsOfOneTransaction(t *testing.T) {
	t.Parallel()

	const dead = 2500
	f := newFixture(t, 0)
	row := f.stock(dead)
	f.deadHolds(row, dead)
	f.Exec("CALL free_units($1, $2, $3, NULL)", row.ProductID.String(),
		row.WarehouseID.String(), dead)

	most := queryOne[int](f, `
SELECT max(n) FROM (SELECT count(*) AS n FROM reservations WHERE status = 'EXPIRED'
                    GROUP BY xmin::text) s`)
	if most != 1000 || f.expired() != dead {
		t.Errorf("one transaction expired %d holds of %d, want 1000 of %d", most, f.expired(), dead)
	}
	f.mustAudit(t)
}

// The time limit is for the steps that are still needed. An adjustment that has enough isn't
// refused, however long it waited.
func TestAdjustStockNeedsNoTimeForUnitsThatItHas(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	row := f.stock(3)
	f.kill(f.hold(row), f.hold(row), f.hold(row))
	f.mutate("try_to_move", "interval '2 s'", "interval '0'")

	f.Exec("SELECT adjust_stock($1, $2, -3, 'lost')", row.ProductID.String(),
		row.WarehouseID.String())
	if got := f.counts(row); got != (counts{}) {
		t.Errorf("the stock row has %+v, want nothing", got)
	}
}
