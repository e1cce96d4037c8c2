package reservation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// replaced counts the answers of replacements.
type replaced struct{ first, ignored, refused atomic.Int64 }

// add counts an answer. It reports an error that isn't one of the refusals.
func (n *replaced) add(r *report, answer reservation.Answer, err error, refusals ...error) {
	switch {
	case err == nil && answer.Hold.Replaces != nil:
		n.first.Add(1)
	case err == nil:
		n.ignored.Add(1)
	default:
		known := isShort(err)
		for _, refusal := range refusals {
			known = known || errors.Is(err, refusal)
		}
		r.check(known, "error", "a replacement = %v", err)
		n.refused.Add(1)
	}
}

func TestOneOfManyReplacesAHold(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, func(ctx context.Context, f *fixture, r *report) {
		services := f.services()
		rows := f.stocks(1, 1)
		for round := range 8 {
			old := f.hold(rows[:1+round%2]...)
			if round >= 4 { // then there are units for all
				for _, row := range rows {
					r.check(f.adjust(ctx, row, len(services)) == nil, "error", "adjust the stock")
				}
			}
			var n replaced
			holds := make([]reservation.Hold, len(services))
			together(len(services), func(i int) {
				answer, err := replace(ctx, services[i], old.ID, rows...)
				holds[i] = answer.Hold
				n.add(r, answer, err)
			})

			others := n.refused.Load()
			if round >= 4 {
				others = n.ignored.Load()
			}
			r.check(n.first.Load() == 1 && int(others) == len(services)-1, "I3",
				"%d replaced the hold, %d did without, %d were refused", n.first.Load(),
				n.ignored.Load(), n.refused.Load())
			for _, hold := range holds {
				if hold.ID != uuid.Nil {
					_, err := services[0].Release(ctx, hold.ID, "")
					r.check(err == nil, "error", "Release() = %v", err)
				}
			}
		}
	})
}

func TestAHoldIsEitherReplacedOrConfirmed(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceOfReplaceAndConfirm)
}

// raceOfReplaceAndConfirm lets half of the callers confirm a hold, and the others replace it.
func raceOfReplaceAndConfirm(ctx context.Context, f *fixture, r *report) {
	const rounds = 20
	services := f.services()
	half := int64(len(services) / 2)
	rows := f.stocks(1000, 1000)
	f.hold(of(rows[0], otherUnits), of(rows[1], otherUnits))
	want := []counts{{Total: 1000, Reserved: otherUnits}, {Total: 1000, Reserved: otherUnits}}
	for round := range rounds {
		lines := rows[:1+round%2]
		old := f.hold(lines...)
		var confirmed atomic.Int64
		var n replaced
		together(len(services), func(i int) {
			if i%2 == 0 {
				_, err := services[i].Confirm(ctx, old.ID, "")
				r.check(err == nil || errors.Is(err, reservation.ErrReleased), "error",
					"Confirm() = %v", err)
				confirmed.Add(countIf(err == nil))
				return
			}
			answer, err := replace(ctx, services[i], old.ID, rows[1])
			n.add(r, answer, err, reservation.ErrConfirmed)
		})

		c, first, ignored := confirmed.Load(), n.first.Load(), n.ignored.Load()
		r.check(c == half && first+ignored == 0 || c == 0 && first == 1 && ignored == half-1, "I3",
			"%d confirms and %d replacements succeeded, %d did without", c, first, ignored)
		if len(r.found) > 0 {
			return
		}
		want[1].Reserved += int(first + ignored)
		for i := range lines {
			want[i].Total -= int(countIf(c > 0))
		}
		r.checkStock(f, rows[0], want[0])
		r.checkStock(f, rows[1], want[1])
	}
}

func TestAHoldIsReplacedAndConfirmedWithoutItsGuard(t *testing.T) {
	t.Parallel()

	// The lock of the old hold and the guard of its update each prevent it, so both go.
	mustBreak(t, fewCallers, "I3", func(f *fixture) {
		dropTrigger(f)
		dropCheck(f)
		f.mutate("lock_hold", "FOR NO KEY UPDATE", "")
		f.mutate("release_replaced",
			"AND status::text = 'PENDING' AND expires_at - _now > '0' AND NOT paying", "")
	}, raceOfReplaceAndConfirm)
}

func TestReplacementsAndReleasesGiveUnitsBackOnce(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, func(ctx context.Context, f *fixture, r *report) {
		const rounds = 20
		services := f.services()
		rows := f.stocks(1000, 1000)
		held := 0
		for round := range rounds {
			old := f.hold(rows[:1+round%2]...)
			var n replaced
			together(len(services), func(i int) {
				if i%2 == 0 {
					_, err := services[i].Release(ctx, old.ID, "")
					r.check(err == nil, "error", "Release() = %v", err)
					return
				}
				answer, err := replace(ctx, services[i], old.ID, rows...)
				n.add(r, answer, err)
			})

			held += len(services) / 2
			r.check(n.first.Load() <= 1 && n.refused.Load() == 0, "I3",
				"%d replaced the hold, %d were refused", n.first.Load(), n.refused.Load())
			r.checkStock(f, rows[0], counts{Total: 1000, Reserved: held})
			r.checkStock(f, rows[1], counts{Total: 1000, Reserved: held})
		}
	})
}

// The old hold has all units, so only one caller gets them, whether the hold was alive or not.
func TestReplacementsAtTheEndOfAHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 8, func(ctx context.Context, f *fixture, r *report) {
		const rounds, sweepers = 60, 2
		services := f.services()
		alive := 0
		for round := range rounds {
			rows := f.stocks([]int{1, 1}[:1+round%2]...)
			old := f.hold(rows...)
			f.Exec(endSoonSQL, old.ID.String(), rand.N(6*time.Millisecond))
			var n replaced
			together(len(services), func(i int) {
				if i < sweepers {
					_, err := services[i].Sweep(ctx)
					r.check(err == nil, "error", "Sweep() = %v", err)
					return
				}
				answer, err := replace(ctx, services[i], old.ID, rows...)
				n.add(r, answer, err)
			})

			r.check(n.first.Load()+n.ignored.Load() == 1, "I4", "%d replaced a hold at its end, %d did "+
				"without, %d were refused", n.first.Load(), n.ignored.Load(), n.refused.Load())
			_, err := services[0].Sweep(ctx)
			r.check(err == nil, "error", "Sweep() = %v", err)
			want := reservation.Expired
			if n.first.Load() == 1 {
				alive++
				want = reservation.Released
			}
			r.check(f.status(old) == want, "I3", "the old hold is %s, want %s", f.status(old), want)
		}
		f.t.Logf("%d of %d holds were replaced in time", alive, rounds)
	})
}

func TestReplacementsInOppositeOrderNeverDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfOppositeReplacements)
}

// raceOfOppositeReplacements lets every customer change a cart of two stock rows again and again,
// so that units move from one row to the other and back.
func raceOfOppositeReplacements(ctx context.Context, f *fixture, r *report) {
	const turns, units = 15, 10_000
	services := f.services()
	rows := f.stocks(units, units)
	last := make([]reservation.Hold, len(services))
	for i := range last {
		last[i] = f.hold(of(rows[i%2], 5))
	}

	together(len(services), func(i int) {
		random := rand.New(rand.NewPCG(uint64(i), 4))
		for range turns {
			if r.anyBroken() {
				return
			}
			lines := wanted(rows, []int{random.IntN(6), 1 + random.IntN(6)})
			answer, err := replace(ctx, services[i], last[i].ID, lines...)
			if err != nil || answer.Hold.Replaces == nil {
				r.check(false, deadlock, "a replacement = %+v, %v", answer.Hold, err)
				return
			}
			last[i] = answer.Hold
		}
	})

	r.checkRetries(services)
	held := map[uuid.UUID]int{}
	for _, hold := range last {
		for _, line := range hold.Lines {
			held[line.ProductID] += line.Quantity
		}
	}
	for _, row := range rows {
		r.checkStock(f, row, counts{Total: units, Reserved: held[row.ProductID]})
	}
}

func TestReplacementsDeadlockInAnotherLockOrder(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("take_units", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
			"ORDER BY l.units FOR NO KEY UPDATE")
		f.mutate("take_units", "l.most, l.units\n", "l.most, l.units"+restRow+"\n")
	}, raceOfOppositeReplacements)
}

func TestAReplacementThatWaitsPastTheEndFindsTheHoldDead(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfLateReplacement)
}

// raceOfLateReplacement lets a replacement wait for its stock row until the old hold is dead. Then
// the hold isn't replaced, and its units are free all the same.
func raceOfLateReplacement(ctx context.Context, f *fixture, r *report) {
	s := f.services()[0]
	for _, rows := range [][]reservation.Line{f.stocks(2), f.stocks(2, 2)} {
		old := f.hold(rows...)
		f.Exec(endSoonSQL, old.ID.String(), soon)
		tx := f.lock(lockStockSQL, rows[0].ProductID.String())
		var answer reservation.Answer
		var err error
		together(2, func(i int) {
			if i == 0 {
				answer, err = replace(ctx, s, old.ID, of(rows[0], 2))
				return
			}
			err := errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1),
				pgtest.Wait(ctx, f.Admin, isDeadSQL, old.ID.String()), tx.Commit(ctx))
			r.check(err == nil, "error", "the other session: %v", err)
		})

		r.check(err == nil && answer.Hold.Replaces == nil && f.status(old) != reservation.Released,
			"I4", "a hold that died first was replaced by %+v, %v, and is %s", answer.Hold, err,
			f.status(old))
	}
}

func TestADeadHoldIsReplacedWithoutReadingTheClockAgain(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("reserve_detailed", "clock_timestamp() < _old.expires_at", "true")
	}, raceOfLateReplacement)
}

func TestAReplacementOfACartThatLostALineFindsItDead(t *testing.T) {
	t.Parallel()

	mustHold(t, 2, raceOfReplacementAndReclaim)
}

// raceOfReplacementAndReclaim lets a replacement wait for the first line of its cart, until the
// cart is dead and another caller has reclaimed the second line.
func raceOfReplacementAndReclaim(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	rows := f.stocks(otherUnits, 1)
	old := f.hold(rows...)
	f.Exec(endSoonSQL, old.ID.String(), soon)
	tx := f.lock("SELECT 1 FROM reservation_items WHERE reservation_id = $1 AND product_id = $2 "+
		"FOR UPDATE", old.ID.String(), rows[0].ProductID.String())
	var answer reservation.Answer
	var late error
	together(2, func(i int) {
		if i == 0 {
			answer, late = replace(ctx, services[0], old.ID, rows[0])
			return
		}
		err := errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1),
			pgtest.Wait(ctx, f.Admin, isDeadSQL, old.ID.String()))
		r.check(err == nil, "error", "the other session: %v", err)
		_, err = services[1].Reserve(ctx, reservation.Request{Lines: rows[1:]})
		r.check(err == nil, "I4", "Reserve() of a line of a dead cart = %v", err)
		r.check(tx.Commit(ctx) == nil, "error", "commit the other session")
	})

	r.check(late == nil && answer.Hold.Replaces == nil, "I4",
		"a cart that lost a line was replaced by %+v, %v", answer.Hold, late)
	r.checkStock(f, rows[1], counts{Total: 1, Reserved: 1})
}

func TestACartThatLostALineIsReplacedWithoutTheCountOfItsLines(t *testing.T) {
	t.Parallel()

	// The cart is also dead by the clock, so that guard goes too.
	mustBreak(t, 2, "I2", func(f *fixture) {
		dropCheck(f)
		f.mutate("release_replaced", "RETURN _lines = _counted", "RETURN true")
		f.mutate("reserve_detailed", "clock_timestamp() < _old.expires_at", "true")
	}, raceOfReplacementAndReclaim)
}

// Two customers replace carts that die meanwhile, and each needs the other's units. Each has its
// own cart's lines before it looks for dead ones.
func TestReplacementsOfDyingCartsNeverDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, func(ctx context.Context, f *fixture, r *report) {
		const rounds = 25
		services := f.services()
		for range rounds {
			rows := f.stocks(len(services), len(services))
			old := make([]reservation.Hold, len(services))
			for i := range old {
				old[i] = f.hold(rows...)
				f.Exec(endSoonSQL, old[i].ID.String(), rand.N(8*time.Millisecond))
			}
			var n replaced
			together(len(services), func(i int) {
				answer, err := replace(ctx, services[i], old[i].ID, of(rows[0], 2), of(rows[1], 2))
				n.add(r, answer, err)
			})

			held := n.first.Load() + n.ignored.Load()
			r.check(int(held) <= len(services)/2, "I1", "%d carts of two units have %d units", held,
				len(services))
		}
		r.checkRetries(services)
	})
}
