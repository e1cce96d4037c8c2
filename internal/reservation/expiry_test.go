package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

func TestConfirmMeetsExpiryAtTheVeryInstant(t *testing.T) {
	t.Parallel()

	mustHold(t, 8, raceOfConfirmAndExpiry)
}

const endSoonSQL = `
WITH soon AS (
    UPDATE reservations
    SET created_at = clock_timestamp() - interval '30 min', updated_at = clock_timestamp() - interval '30 min',
        expires_at = clock_timestamp() + $2::interval
    WHERE id = $1
    RETURNING id, expires_at
)
UPDATE reservation_items l SET expires_at = soon.expires_at FROM soon WHERE l.reservation_id = soon.id`

// raceOfConfirmAndExpiry lets four callers confirm a hold around its end while two sweeps and two
// reserves would have its units. The hold has the whole of its row, so whoever gets a unit must
// have taken it from the hold's death.
func raceOfConfirmAndExpiry(ctx context.Context, f *fixture, r *report) {
	const rounds, confirmers, sweepers = 60, 4, 2
	services := f.services()
	ended := map[reservation.Status]int{}
	for round := range rounds {
		lines := f.stocks([]int{1, 1}[:1+round%2]...)
		hold := f.hold(lines...)
		f.Exec(endSoonSQL, hold.ID.String(), rand.N(6*time.Millisecond))
		var confirmed, denied, taken atomic.Int64

		together(len(services), func(i int) {
			switch {
			case i < confirmers:
				_, err := services[i].Confirm(ctx, hold.ID, "")
				r.check(err == nil || errors.Is(err, reservation.ErrExpired), "error",
					"Confirm() = %v", err)
				confirmed.Add(b2i(err == nil))
				denied.Add(b2i(err != nil))
			case i < confirmers+sweepers:
				_, err := services[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
			default:
				_, err := services[i].Reserve(ctx, reservation.Request{Lines: lines[:1]})
				r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
				taken.Add(b2i(err == nil))
			}
		})

		if err := pgtest.Wait(
			ctx,
			f.Admin,
			"SELECT status <> 'PENDING' OR expires_at < clock_timestamp() FROM reservations WHERE id = $1",
			hold.ID.String(),
		); err != nil {
			r.check(false, "error", "%v", err)
		}
		if _, err := services[0].Sweep(ctx); err != nil {
			r.check(false, "error", "Sweep() = %v", err)
		}
		status := f.status(hold)
		ended[status]++
		r.check((status == reservation.Confirmed) == (confirmed.Load() > 0), "I3",
			"%d confirms of a hold that is %s succeeded", confirmed.Load(), status)
		// A confirm that came first was told of its success; one that came after it finds CONFIRMED
		// and is a success too.
		r.check(status != reservation.Confirmed || denied.Load() == 0, "I4",
			"%d confirms of a CONFIRMED hold were told it is dead", denied.Load())
		want := counts{Total: 1, Reserved: int(taken.Load())}
		if status == reservation.Confirmed {
			want.Total = 0
		}
		r.checkStock(f, lines[0], want)
	}
	r.checkRetries(services)
	f.t.Logf("the holds ended %v", ended)
}

func TestDeadUnitsGoToExactlyAsManyCallers(t *testing.T) {
	t.Parallel()

	mustHold(t, manyCallers, raceForDeadUnits)
}

// raceForDeadUnits fills a row with dead holds of one line and dead carts, then lets 64 callers
// have its units before any sweep.
func raceForDeadUnits(ctx context.Context, f *fixture, r *report) {
	const units = 12
	services := f.services()
	rows := f.stocks(units, 2*units)
	dead := []reservation.Hold{f.hold(of(rows[0], 3))}
	for range 4 {
		dead = append(dead, f.hold(rows[0]), f.hold(rows...))
	}
	dead = append(dead, f.hold(rows[0]))
	f.kill(dead...)
	r.checkStock(f, rows[0], counts{Total: units, Reserved: units})
	var won, short atomic.Int64

	together(len(services), func(i int) {
		_, err := services[i].Reserve(ctx, reservation.Request{Lines: rows[:1]})
		won.Add(b2i(err == nil))
		short.Add(b2i(isShort(err)))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
		// Nobody is told that stock is short while a unit is left that only the dead hold.
		r.check(!isShort(err) || f.liveUnits(ctx, rows[0]) >= units, "I4",
			"Reserve() = %v while live holds have fewer than all units", err)
	})

	r.check(won.Load() == units, "I4",
		"%d callers hold units that %d dead ones occupied (%d were told it is short)", won.Load(),
		units, short.Load())
	r.checkStock(f, rows[0], counts{Total: units, Reserved: units})
	r.checkStock(f, rows[1],
		counts{Total: 2 * units, Reserved: 4}) // only the short row's lines were reclaimed
	r.checkRetries(services)
	result, err := services[0].Sweep(ctx)
	r.check(err == nil && result.Expired == 4 && result.Units == 4, "I9",
		"Sweep() = %+v, %v, want 4 carts with a unit each", result, err)
	r.checkStock(f, rows[1], counts{Total: 2 * units})
}

const liveUnitsSQL = `
SELECT coalesce(sum(quantity), 0) FROM (
    SELECT quantity FROM reservations
    WHERE status = 'PENDING' AND expires_at > clock_timestamp() AND product_id = $1
    UNION ALL
    SELECT quantity FROM reservation_items WHERE counted AND expires_at > clock_timestamp() AND product_id = $1) live`

// liveUnits counts what live holds have of a row, or is huge when it can't be asked, for the
// callers' own errors tell more.
func (f *fixture) liveUnits(ctx context.Context, line reservation.Line) int {
	var n int
	if err := f.Admin.QueryRow(ctx, liveUnitsSQL, line.ProductID.String()).Scan(&n); err != nil {
		return reservation.MaxQuantity
	}
	return n
}

func TestDeadUnitsGoToCallersWhoNeedSeveral(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForSeveralDeadUnits)
}

// raceForSeveralDeadUnits lets each caller need three dead holds at once, of which others may have
// locked one or two already.
func raceForSeveralDeadUnits(ctx context.Context, f *fixture, r *report) {
	const winners = 4
	services := f.services()
	row := f.stock(3 * winners)
	for range 3 * winners {
		f.kill(f.hold(row))
	}
	var won atomic.Int64

	together(len(services), func(i int) {
		_, err := services[i].Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{of(row, 3)}})
		won.Add(b2i(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == winners, "I4", "%d callers hold three units each, want %d", won.Load(),
		winners)
	r.checkStock(f, row, counts{Total: 3 * winners, Reserved: 3 * winners})
	r.checkRetries(services)
}

func TestDeadUnitsOfSeveralRowsGoToCarts(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForDeadCarts)
}

// raceForDeadCarts fills two rows with dead holds and lets carts of both rows, listed either way
// round, have them.
func raceForDeadCarts(ctx context.Context, f *fixture, r *report) {
	const winners = 5
	services := f.services()
	rows := f.stocks(winners, winners)
	for range winners {
		f.kill(f.hold(rows[0]), f.hold(rows[1]))
	}
	var won atomic.Int64

	together(len(services), func(i int) {
		lines := slices.Clone(rows)
		if i%2 == 1 {
			slices.Reverse(lines)
		}
		_, err := services[i].Reserve(ctx, reservation.Request{Lines: lines})
		won.Add(b2i(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == winners, "I4", "%d carts hold what dead ones occupied, want %d",
		won.Load(), winners)
	for _, row := range rows {
		r.checkStock(f, row, counts{Total: winners, Reserved: winners})
	}
	r.checkRetries(services)
}

func TestADeadHoldsUnitIsFreeAfterItsLockIsReleased(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceAfterALockGoesBack)
}

// raceAfterALockGoesBack lets all callers stand in line for the one dead hold, which another
// session has locked and lets go without resolving it: one of them must have its unit, and the
// others learn that there is none.
func raceAfterALockGoesBack(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	row := f.stock(1)
	hold := f.hold(row)
	f.kill(hold)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "SELECT 1 FROM reservations WHERE id = $1 FOR UPDATE",
		hold.ID.String()); err != nil {
		f.t.Fatal(err)
	}
	var won atomic.Int64

	together(len(services)+1, func(i int) {
		if i == len(services) {
			if err := pgtest.Wait(ctx, f.Admin, waitingSQL, len(services)/2); err != nil {
				r.check(false, "error", "%v", err)
			}
			r.check(tx.Rollback(ctx) == nil, "error", "roll back the other session")
			return
		}
		_, err := services[i].Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}})
		won.Add(b2i(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == 1, "I4", "%d callers hold the unit that a dead one occupied", won.Load())
	r.checkStock(f, row, counts{Total: 1, Reserved: 1})
}

func TestDeadHoldIsDeadForEveryoneBeforeTheSweep(t *testing.T) {
	t.Parallel()

	for _, lines := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d lines", lines), func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			testDeadHold(t, f, f.stocks([]int{5, 5, 5}[:lines]...))
		})
	}
}

func testDeadHold(t *testing.T, f *fixture, lines []reservation.Line) {
	t.Helper()
	ctx := f.Context()
	s := f.services()[0]
	hold := f.hold(lines...)
	f.kill(hold)

	before, err := s.Get(ctx, hold.ID)
	if err != nil || before.Hold.Status != reservation.Expired ||
		!before.Hold.UpdatedAt.Equal(before.Hold.ExpiresAt) {
		t.Errorf("Get(%s) = %+v, %v, want it EXPIRED at its end", hold.ID, before.Hold, err)
	}
	if _, err := s.Confirm(ctx, hold.ID, ""); !errors.Is(err, reservation.ErrExpired) {
		t.Errorf("Confirm(%s) = %v, want %v", hold.ID, err, reservation.ErrExpired)
	}
	if _, err := s.Extend(ctx, hold.ID, time.Minute, ""); !errors.Is(err, reservation.ErrExpired) {
		t.Errorf("Extend(%s) = %v, want %v", hold.ID, err, reservation.ErrExpired)
	}
	released, err := s.Release(ctx, hold.ID, "release")
	if err != nil {
		t.Errorf("Release(%s) = %v", hold.ID, err)
	}
	if diff := cmp.Diff(before.Hold, released.Hold); diff != "" {
		t.Errorf("Release(%s) differs from Get (-want +got):\n%s", hold.ID, diff)
	}
	entries, _, err := s.ListProducts(ctx, reservation.Cursor{}, 10)
	if err != nil {
		t.Errorf("ListProducts() = %v", err)
	}
	for _, e := range entries {
		if e.Stocks[0].Total != 5 || e.Stocks[0].Reserved != 0 {
			t.Errorf("the catalog shows %+v, want none reserved of 5", e.Stocks[0])
		}
	}

	result, err := s.Sweep(ctx)
	if err != nil || result.Expired != 1 || result.Units != int64(len(lines)) {
		t.Errorf("Sweep() = %+v, %v, want one hold of %d units expired", result, err, len(lines))
	}
	after, err := s.Get(ctx, hold.ID)
	after.Now = before.Now
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("Get(%s) after the sweep differs from before (-before +after), %v:\n%s", hold.ID,
			err, diff)
	}
	replay, err := s.Release(ctx, hold.ID, "release")
	if diff := cmp.Diff(released.Hold, replay.Hold); err != nil || diff != "" || !replay.Replayed {
		t.Errorf("Release(%s) again = %+v, %v, want the same answer", hold.ID, replay, err)
	}
	f.mustAudit(t)
}

func (f *fixture) mustAudit(t *testing.T) {
	t.Helper()
	violations, err := newService(f.own).Audit(f.Context())
	if err != nil || len(violations) != 0 {
		t.Errorf("Audit() = %v, %v, want none", violations, err)
	}
}

func TestReclaimTakesOnlyTheLinesOfShortRowsAndTheSweepTheRest(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(2, 9, 9)
		cart := f.hold(of(rows[0], 2), of(rows[1], 3), of(rows[2], 4))
		f.kill(cart)

		_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{rows[0], rows[1]}})
		r.check(err == nil, "I4", "Reserve() = %v, want the dead cart's units", err)

		// Row 0 was short, so its line went; row 1 had enough of its own.
		r.checkStock(f, rows[0], counts{Total: 2, Reserved: 1})
		r.checkStock(f, rows[1], counts{Total: 9, Reserved: 4})
		r.checkStock(f, rows[2], counts{Total: 9, Reserved: 4})
		view, err := s.Get(ctx, cart.ID)
		r.check(err == nil && view.Hold.Status == reservation.Expired && len(view.Hold.Lines) == 3,
			"I4", "Get() = %+v, %v", view, err)
		_, err = s.Confirm(ctx, cart.ID, "")
		r.check(errors.Is(err, reservation.ErrExpired), "I4",
			"Confirm() of a half reclaimed cart = %v", err)
		answer, err := s.Release(ctx, cart.ID, "")
		r.check(err == nil && answer.Hold.Status == reservation.Expired, "I4",
			"Release() = %+v, %v", answer, err)

		result, err := s.Sweep(ctx)
		r.check(err == nil && result.Expired == 1 && result.Units == 7, "I9",
			"Sweep() = %+v, %v, want 1 hold and 7 units", result, err)
		r.checkStock(f, rows[0], counts{Total: 2, Reserved: 1})
		r.checkStock(f, rows[1], counts{Total: 9, Reserved: 1})
		r.checkStock(f, rows[2], counts{Total: 9, Reserved: 0})
	})
}

// TestReadIsNeverPendingPastItsEnd reads a hold over and over around its end: what one answer says
// must fit together.
func TestReadIsNeverPendingPastItsEnd(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 2)
	services := f.services()
	ctx := f.Context()
	for range 25 {
		hold := f.hold(f.stock(1))
		f.Exec(endSoonSQL, hold.ID.String(), 5*time.Millisecond)

		together(len(services), func(i int) {
			for {
				view, err := services[i].Get(ctx, hold.ID)
				if err != nil {
					t.Errorf("Get() = %v", err)
					return
				}
				if dead := !view.Now.Before(
					view.Hold.ExpiresAt); dead != (view.Hold.Status == reservation.Expired) {
					t.Errorf("Get() = %s at %s, when its end is %s", view.Hold.Status, view.Now,
						view.Hold.ExpiresAt)
				}
				if view.Hold.Status == reservation.Expired {
					return
				}
			}
		})
	}
}

// raceOfReserveBehindAYoungerDeadHold needs two dead holds of which somebody has the younger locked
// for a while: the reserve must have its units as soon as they can be had, though the oldest dead
// hold is none to wait for.
func raceOfReserveBehindAYoungerDeadHold(ctx context.Context, f *fixture, r *report) {
	row := f.stock(2)
	older, younger := f.hold(row), f.hold(row)
	f.kill(older, younger)
	f.Exec("UPDATE reservations SET expires_at = expires_at - interval '1 s' WHERE id = $1",
		older.ID.String())
	tx := f.lock("SELECT 1 FROM reservations WHERE id = $1 FOR UPDATE", younger.ID.String())

	together(2, func(i int) {
		if i == 0 {
			_, err := newService(f.callers[0]).Reserve(ctx,
				reservation.Request{Lines: []reservation.Line{of(row, 2)}})
			r.check(err == nil, "I4",
				"Reserve() of two dead units, of which somebody had one locked for a while = %v",
				err)
			return
		}
		var released time.Time
		err := errors.Join(
			f.Admin.QueryRow(ctx, "SELECT clock_timestamp() + interval '300 ms'").Scan(&released),
			pgtest.Wait(ctx, f.Admin, "SELECT clock_timestamp() >= $1", released),
			tx.Commit(ctx))
		r.check(err == nil, "error", "the other session: %v", err)
	})
}

func TestReserveTakesTheUnitsOfAYoungerDeadHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfReserveBehindAYoungerDeadHold)
}

func TestReserveGivesUpAtOnceWithoutAPauseBetweenItsTries(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4",
		func(f *fixture) { f.mutate("pause_before_try", "IF _try > 2 THEN", "IF false THEN") },
		raceOfReserveBehindAYoungerDeadHold)
}
