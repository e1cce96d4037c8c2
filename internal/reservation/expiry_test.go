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
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

func TestConfirmsAtTheEndOfAHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 8, raceOfConfirmAndExpiry)
}

// isDeadSQL reports whether the hold $1 is past its end.
const isDeadSQL = "SELECT expires_at <= clock_timestamp() FROM reservations WHERE id = $1"

// movedSQL follows WITH moved AS (...), which has moved the end of holds and raised their versions.
// It writes the rows of the ledger, and moves the ends of the lines.
const movedSQL = `
, written AS (
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT updated_at, expires_at, id, version, 'x', 'v' FROM moved
)
UPDATE reservation_items l SET expires_at = moved.expires_at
FROM moved WHERE l.reservation_id = moved.id`

// soon is when a hold ends while a verb waits that must find it alive first. It leaves a slow
// machine the time to make the verb wait.
const soon = 2 * time.Second

// endSoonSQL lets the hold $1 end after the time $2.
const endSoonSQL = `
WITH moved AS (
    UPDATE reservations SET expires_at = clock_timestamp() + $2::interval, version = version + 1
    WHERE id = $1
    RETURNING *
)` + movedSQL

// raceOfConfirmAndExpiry lets four callers confirm a hold around its end, while two sweeps expire
// it and two callers reserve its units. The hold has all units of its row, so a reserve can succeed
// only after the hold's death.
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
				confirmed.Add(countIf(err == nil))
				denied.Add(countIf(err != nil))
			case i < confirmers+sweepers:
				_, err := services[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
			default:
				_, err := services[i].Reserve(ctx, reservation.Request{Lines: lines[:1]})
				r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
				taken.Add(countIf(err == nil))
			}
		})

		const over = `
SELECT status <> 'PENDING' OR expires_at < clock_timestamp() FROM reservations WHERE id = $1`
		if err := pgtest.Wait(ctx, f.Admin, over, hold.ID.String()); err != nil {
			r.check(false, "error", "%v", err)
		}
		if _, err := services[0].Sweep(ctx); err != nil {
			r.check(false, "error", "Sweep() = %v", err)
		}
		status := f.status(hold)
		ended[status]++
		r.check((status == reservation.Confirmed) == (confirmed.Load() > 0), "I3",
			"%d confirms of a hold that is %s succeeded", confirmed.Load(), status)
		// Every confirm of a confirmed hold succeeds, the first and the later ones.
		r.check(status != reservation.Confirmed || denied.Load() == 0, "I4",
			"%d confirms of a CONFIRMED hold were told that it is dead", denied.Load())
		want := counts{Total: 1, Reserved: int(taken.Load())}
		if status == reservation.Confirmed {
			want.Total = 0
		}
		r.checkStock(f, lines[0], want)
	}
	r.checkRetries(services)
	f.t.Logf("the holds ended %v", ended)
}

func TestEachDeadUnitGoesToOneCaller(t *testing.T) {
	t.Parallel()

	mustHold(t, manyCallers, raceForDeadUnits)
}

// raceForDeadUnits fills a row with dead holds of one line and dead carts. Then 64 callers reserve
// its units, before any sweep.
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
		won.Add(countIf(err == nil))
		short.Add(countIf(isShort(err)))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
		// No caller may be refused while dead holds still occupy a unit.
		r.check(!isShort(err) || f.liveUnits(ctx, rows[0]) >= units, "I4",
			"Reserve() = %v while live holds have fewer than all units", err)
	})

	r.check(won.Load() == units, "I4", "%d callers got one of %d dead units (%d were refused)",
		won.Load(), units, short.Load())
	r.checkStock(f, rows[0], counts{Total: units, Reserved: units})
	// Only the lines of the short row were reclaimed.
	r.checkStock(f, rows[1], counts{Total: 2 * units, Reserved: 4})
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
    SELECT quantity FROM reservation_items
    WHERE counted AND expires_at > clock_timestamp() AND product_id = $1
) live`

// liveUnits counts the units of live holds on a row. When the query fails, it returns more than any
// row has, because the callers' own errors tell more.
func (f *fixture) liveUnits(ctx context.Context, line reservation.Line) int {
	var n int
	if err := f.Admin.QueryRow(ctx, liveUnitsSQL, line.ProductID.String()).Scan(&n); err != nil {
		return reservation.MaxQuantity
	}
	return n
}

func TestSeveralDeadUnitsGoToOneCaller(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForSeveralDeadUnits)
}

// raceForSeveralDeadUnits lets each caller reserve the units of three dead holds. Other callers may
// have locked one or two of them.
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
		won.Add(countIf(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == winners, "I4", "%d callers got three units each, want %d", won.Load(),
		winners)
	r.checkStock(f, row, counts{Total: 3 * winners, Reserved: 3 * winners})
	r.checkRetries(services)
}

func TestDeadUnitsOfSeveralRowsGoToCarts(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForDeadCarts)
}

// raceForDeadCarts fills two rows with dead holds. Then callers reserve carts of both rows, half of
// them with the lines in reverse order.
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
		won.Add(countIf(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == winners, "I4", "%d carts got dead units, want %d", won.Load(), winners)
	for _, row := range rows {
		r.checkStock(f, row, counts{Total: winners, Reserved: winners})
	}
	r.checkRetries(services)
}

func TestADeadHoldsUnitIsFreeAfterItsLockIsReleased(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForAnUnlockedDeadHold)
}

// raceForAnUnlockedDeadHold lets all callers wait for one dead hold. Another session has locked the
// hold and unlocks it without resolving it. One caller must get the hold's unit, and the others
// must be refused.
func raceForAnUnlockedDeadHold(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	row := f.stock(1)
	hold := f.hold(row)
	f.kill(hold)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, lockHoldSQL, hold.ID.String()); err != nil {
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
		won.Add(countIf(err == nil))
		r.check(err == nil || isShort(err), "error", "Reserve() = %v", err)
	})

	r.check(won.Load() == 1, "I4", "%d callers got the one dead unit", won.Load())
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

func TestReclaimTakesOnlyTheLinesOfShortRows(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(2, 9, 9)
		cart := f.hold(of(rows[0], 2), of(rows[1], 3), of(rows[2], 4))
		f.kill(cart)

		_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{rows[0], rows[1]}})
		r.check(err == nil, "I4", "Reserve() = %v, want the dead cart's units", err)

		// Row 0 was short, so the dead cart's line was reclaimed. Row 1 had enough free units.
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

// aliveAgainSQL gives the hold $1 an end in the future, if it is PENDING. A reader sees the same
// when the database's clock jumps back behind the hold's end.
const aliveAgainSQL = `
WITH moved AS (
    UPDATE reservations
    SET expires_at = clock_timestamp() + interval '1 h', version = version + 1
    WHERE id = $1 AND status = 'PENDING'
    RETURNING *
)` + movedSQL

func TestAPartlyReclaimedCartStaysDeadWhenTheClockJumpsBack(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, partlyReclaimedCart)
}

func TestAPartlyReclaimedCartRevivesWithoutALookAtItsLines(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ routine, old, replacement string }{
		{"hold_is_dead", " OR has_lost_line(_hold)", ""},
		{"resolve_hold", "OR NOT has_lost_line(reservations)", "OR true"},
		{"judge_extension", "NOT hold_is_dead(_hold, _now)", "_hold.expires_at > _now"},
		{"list_live_holds", "OR NOT has_lost_line(r)", "OR true"},
		{"list_holds", "AND NOT l.counted", "AND false"},
		{"operator_stats", "AND NOT l.counted", "AND false"},
	} {
		t.Run(c.routine, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, "I4", func(f *fixture) { f.mutate(c.routine, c.old, c.replacement) },
				partlyReclaimedCart)
		})
	}
}

// partlyReclaimedCart calls every verb and reader for a cart of which one line was reclaimed.
func partlyReclaimedCart(ctx context.Context, f *fixture, r *report) {
	s := f.services()[0]
	rows := f.stocks(1, 1)
	cart := f.hold(rows...)
	f.kill(cart)
	taken := f.hold(rows[0]) // reclaims the cart's first line
	f.Exec(aliveAgainSQL, cart.ID.String())

	for _, key := range []string{"", cart.ID.String() + "1"} {
		_, err := s.Confirm(ctx, cart.ID, key)
		r.check(errors.Is(err, reservation.ErrExpired), "I4", "Confirm() = %v", err)
		_, err = s.Extend(ctx, cart.ID, time.Minute, key)
		r.check(errors.Is(err, reservation.ErrExpired), "I4", "Extend() = %v", err)
	}
	for _, key := range []string{"", cart.ID.String() + "2", cart.ID.String() + "2"} {
		answer, err := s.Release(ctx, cart.ID, key)
		r.check(err == nil && answer.Hold.Status == reservation.Expired, "I4",
			"Release() = %+v, %v, want it EXPIRED", answer, err)
	}
	view, err := s.Get(ctx, cart.ID)
	r.check(err == nil && view.Hold.Status == reservation.Expired, "I4",
		"Get() = %+v, %v, want it EXPIRED", view, err)
	for filter, want := range map[reservation.Status][]reservation.Hold{
		"": {taken, view.Hold}, reservation.Pending: {taken}, reservation.Expired: {view.Hold},
		reservation.Confirmed: nil, reservation.Released: nil,
	} {
		for _, product := range []*uuid.UUID{nil, &rows[0].ProductID} {
			page, err := s.ListHolds(ctx,
				reservation.HoldFilter{Status: filter, ProductID: product},
				reservation.HoldCursor{}, 50)
			diff := cmp.Diff(want, page.Holds)
			r.check(err == nil && diff == "", "I4", "ListHolds(%q) differs, %v:\n%s", filter, err,
				diff)
		}
	}
	stats, err := s.Stats(ctx)
	r.check(err == nil && stats.Live == 1 && stats.LiveUnits == 1 && stats.Dead == 1 &&
		stats.SweepLag == 0, "I4", "Stats() = %+v, %v, want 1 live and 1 dead hold", stats, err)

	f.kill(cart)
	result, err := s.Sweep(ctx)
	r.check(err == nil && result.Expired == 1 && result.Units == 1, "I9",
		"Sweep() = %+v, %v, want 1 hold and 1 unit", result, err)
	r.checkStock(f, rows[0], counts{Total: 1, Reserved: 1})
	r.checkStock(f, rows[1], counts{Total: 1})
}

// The status, the end and the time of each answer must agree.
func TestGetShowsNoHoldAsPendingPastItsEnd(t *testing.T) {
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
				dead := !view.Now.Before(view.Hold.ExpiresAt)
				if dead != (view.Hold.Status == reservation.Expired) {
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

// raceOfReserveBehindAYoungerDeadHold reserves the units of two dead holds while another session
// has locked the younger one. The reserve must succeed soon after the unlock. Waiting for the
// oldest dead hold doesn't help it, because that one isn't locked.
func raceOfReserveBehindAYoungerDeadHold(ctx context.Context, f *fixture, r *report) {
	row := f.stock(2)
	older, younger := f.hold(row), f.hold(row)
	f.kill(older, younger)
	f.Exec(`
WITH moved AS (
    UPDATE reservations SET expires_at = expires_at - interval '1 s', version = version + 1
    WHERE id = $1 RETURNING *
)`+movedSQL, older.ID.String())
	tx := f.lock(lockHoldSQL, younger.ID.String())

	together(2, func(i int) {
		if i == 0 {
			_, err := newService(f.callers[0]).Reserve(ctx,
				reservation.Request{Lines: []reservation.Line{of(row, 2)}})
			r.check(err == nil, "I4", "Reserve() of two dead units, one of them locked = %v", err)
			return
		}
		const soon = "SELECT clock_timestamp() + interval '300 ms'"
		var unlock time.Time
		err := f.Admin.QueryRow(ctx, soon).Scan(&unlock)
		err = errors.Join(err,
			pgtest.Wait(ctx, f.Admin, "SELECT clock_timestamp() >= $1", unlock),
			tx.Commit(ctx))
		r.check(err == nil, "error", "the other session: %v", err)
	})
}

func TestReserveTakesTheUnitsOfAYoungerDeadHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfReserveBehindAYoungerDeadHold)
}

func TestReserveGivesUpTooSoonWithoutAPauseBetweenTries(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4",
		func(f *fixture) { f.mutate("pause_before_try", "IF _try > 2 THEN", "IF false THEN") },
		raceOfReserveBehindAYoungerDeadHold)
}
