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

// The sizes of the races. Each is large enough for the negative controls to break a promise within
// a few rounds.
const (
	manyCallers = 64
	someCallers = 24
	fewCallers  = 16

	// otherUnits are units of other holds on the same stock row. Without them the check constraint
	// would refuse to take a unit twice, and hide the error.
	otherUnits = 50
)

func TestLastUnitGoesToOneOfManyCallers(t *testing.T) {
	t.Parallel()

	mustHold(t, manyCallers, raceForLastUnit)
}

func raceForLastUnit(ctx context.Context, f *fixture, r *report) {
	line := f.stock(1)
	services := f.services()
	answers, errs := make([]reservation.Answer, len(services)), make([]error, len(services))

	together(len(services), func(i int) {
		answers[i], errs[i] = services[i].Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{line}})
	})

	won := 0
	want := []reservation.Shortage{
		{ProductID: line.ProductID, WarehouseID: line.WarehouseID, Requested: 1, Available: 0},
	}
	for i, err := range errs {
		var short *reservation.InsufficientStockError
		switch {
		case err == nil:
			won++
			r.check(answers[i].Hold.Status == reservation.Pending, "I3",
				"Reserve(%+v) = %+v, want it PENDING", line, answers[i])
		case errors.As(err, &short):
			r.check(cmp.Equal(short.Shortages, want), "I1",
				"Reserve(%+v) is short of %+v, want %+v", line, short.Shortages, want)
		default:
			r.check(false, "error", "Reserve(%+v) = %v", line, err)
		}
	}
	r.check(won == 1, "I1", "%d of %d callers got the last unit", won, len(services))
	r.checkStock(f, line, counts{Total: 1, Reserved: 1})
}

// checkStock reports a stock row that differs: a race took a unit twice or lost one.
func (r *report) checkStock(f *fixture, line reservation.Line, want counts) {
	f.t.Helper()
	got := f.counts(line)
	r.check(got == want, "I2", "product %s: %+v, want %+v", line.ProductID, got, want)
}

func TestLastUnitGoesToOneOfManyCarts(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForLastCart)
}

// raceForLastCart lets every caller reserve a cart of the last unit of one row and a unit of a row
// of its own. A refused cart must leave the caller's own row unchanged (I7).
func raceForLastCart(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	last := f.stock(1)
	own := make([]reservation.Line, len(services))
	for i := range own {
		own[i] = f.stock(5)
	}
	errs := make([]error, len(services))

	together(len(services), func(i int) {
		_, errs[i] = services[i].Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{own[i], last}})
	})

	won := 0
	for i, err := range errs {
		reserved := 0
		if err == nil {
			won++
			reserved = 1
		} else {
			r.check(isShort(err), "error", "Reserve(%+v) = %v", last, err)
		}
		r.checkStock(f, own[i], counts{Total: 5, Reserved: reserved})
	}
	r.check(won == 1, "I1", "%d of %d carts got the last unit", won, len(services))
	r.checkStock(f, last, counts{Total: 1, Reserved: 1})
}

func TestConcurrentConfirmsTakeTheStockOnce(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfConfirms)
}

func raceOfConfirms(ctx context.Context, f *fixture, r *report) {
	raceToResolve(ctx, f, r, reservation.Confirmed, (*reservation.Service).Confirm)
}

func TestConcurrentReleasesGiveTheStockBackOnce(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfReleases)
}

func raceOfReleases(ctx context.Context, f *fixture, r *report) {
	raceToResolve(ctx, f, r, reservation.Released, (*reservation.Service).Release)
}

// raceToResolve lets every caller resolve the same hold in the same way: first a hold of one line,
// then a cart.
func raceToResolve(ctx context.Context, f *fixture, r *report, to reservation.Status,
	verb func(*reservation.Service, context.Context, uuid.UUID, string) (reservation.Answer, error),
) {
	services := f.services()
	rows := f.stocks(200, 200)
	f.hold(of(rows[0], otherUnits), of(rows[1], otherUnits))
	sold := 0
	for _, lines := range [][]reservation.Line{{rows[0]}, rows} {
		hold := f.hold(lines...)
		answers, errs := make([]reservation.Answer, len(services)), make([]error, len(services))

		together(len(services),
			func(i int) { answers[i], errs[i] = verb(services[i], ctx, hold.ID, "") })

		for i := range services {
			r.check(errs[i] == nil, "error", "%s of %s = %v", to, hold.ID, errs[i])
			diff := cmp.Diff(answers[0], answers[i])
			r.check(diff == "" && answers[i].Hold.Status == to, "I3",
				"two answers to %s of %s differ: %s", to, hold.ID, diff)
		}
		if to == reservation.Confirmed {
			sold++
		}
		r.checkStock(f, rows[0], counts{Total: 200 - sold, Reserved: otherUnits})
	}
	r.checkStock(f, rows[1], counts{Total: 200 - sold/2, Reserved: otherUnits})
}

func TestEachChangeOfATotalIsOneMovement(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfMovements)
}

// raceOfMovements lets callers confirm holds and carts of two stock rows, release others, and
// adjust the rows, all at once. Then the movements of each row are numbered up to its number, and
// there is one for each change.
func raceOfMovements(ctx context.Context, f *fixture, r *report) {
	const turns = 8
	services := f.services()
	rows := f.stocks(1000, 1000)
	var sales, adjustments [2]atomic.Int64

	together(len(services), func(i int) {
		for n := range turns {
			if r.anyBroken() {
				return
			}
			own := i % 2
			if n%4 == 3 {
				err := f.adjust(ctx, rows[own], 5-n)
				r.check(err == nil, "error", "adjust_stock() = %v", err)
				adjustments[own].Add(1)
				continue
			}
			lines := [][]reservation.Line{rows[own : own+1], rows}[n%2]
			answer, err := services[i].Reserve(ctx, reservation.Request{Lines: lines})
			if err == nil && n%4 == 2 {
				_, err = services[i].Release(ctx, answer.Hold.ID, "")
			} else if err == nil {
				_, err = services[i].Confirm(ctx, answer.Hold.ID, "")
				sales[own].Add(1)
				sales[1-own].Add(int64(len(lines) - 1))
			}
			r.check(err == nil, "error", "a hold of %d lines: %v", len(lines), err)
		}
	})

	const countsSQL = `
SELECT concat_ws(' ', i.seq, count(*) FILTER (WHERE m.kind = 'SALE'),
                 count(*) FILTER (WHERE m.kind = 'ADJUSTMENT' AND m.note = 'test'))
FROM inventory i JOIN stock_movements m USING (product_id, warehouse_id)
WHERE i.product_id = $1 GROUP BY i.seq`
	for n, row := range rows {
		got := queryOne[string](f, countsSQL, row.ProductID.String())
		sold, adjusted := int(sales[n].Load()), int(adjustments[n].Load())
		// The opening and an adjustment of the fixture come first.
		want := fmt.Sprint(2+sold+adjusted, " ", sold, " ", 1+adjusted)
		r.check(got == want, "I8", "the number, sales and adjustments of row %d: %s, want %s", n, got,
			want)
	}
}

func TestEitherAllConfirmsOrAllReleasesSucceed(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfConfirmsAndReleases)
}

func raceOfConfirmsAndReleases(ctx context.Context, f *fixture, r *report) {
	const rounds = 10
	services := f.services()
	rows := f.stocks(1000, 1000)
	f.hold(of(rows[0], otherUnits), of(rows[1], otherUnits))
	sold := 0
	for round := range rounds {
		hold := f.hold(rows[:1+round%2]...)
		var confirmed, released atomic.Int64

		together(len(services), func(i int) {
			if i%2 == 0 {
				_, err := services[i].Confirm(ctx, hold.ID, "")
				r.check(err == nil || errors.Is(err, reservation.ErrReleased), "error",
					"Confirm(%s) = %v", hold.ID, err)
				confirmed.Add(countIf(err == nil))
				return
			}
			_, err := services[i].Release(ctx, hold.ID, "")
			r.check(err == nil || errors.Is(err, reservation.ErrConfirmed), "error",
				"Release(%s) = %v", hold.ID, err)
			released.Add(countIf(err == nil))
		})

		half := int64(len(services) / 2)
		c, l := confirmed.Load(), released.Load()
		r.check(c == half && l == 0 || c == 0 && l == half, "I3",
			"%d confirms and %d releases of %s succeeded, want %d of one kind", c, l, hold.ID, half)
		if c > 0 {
			sold++
		}
		r.checkStock(f, rows[0], counts{Total: 1000 - sold, Reserved: otherUnits})
	}
}

func countIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func TestCartsInOppositeOrderNeverDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceOfOppositeCarts)
}

// raceOfOppositeCarts lets all callers reserve the same rows, half of them with the lines in
// reverse order. A third of the carts are confirmed and a third released.
func raceOfOppositeCarts(ctx context.Context, f *fixture, r *report) {
	const carts, units = 12, 10_000
	services := f.services()
	rows := f.stocks(units, units, units, units)
	rows = reservation.MergeLines(
		append(rows, f.elsewhere(rows[0], units), f.elsewhere(rows[3], units)))
	var sold, held atomic.Int64

	together(len(services), func(i int) {
		lines := slices.Clone(rows)
		if i%2 == 1 {
			slices.Reverse(lines)
		}
		for n := range carts {
			if r.anyBroken() {
				return
			}
			answer, err := services[i].Reserve(ctx, reservation.Request{Lines: lines})
			held.Add(1)
			switch {
			case err != nil:
			case n%3 == 0:
				_, err = services[i].Confirm(ctx, answer.Hold.ID, "")
				sold.Add(1)
				held.Add(-1)
			case n%3 == 1:
				_, err = services[i].Release(ctx, answer.Hold.ID, "")
				held.Add(-1)
			}
			r.check(err == nil, "error", "a cart in order %d: %v", i%2, err)
		}
	})

	r.checkRetries(services)
	for _, row := range rows {
		r.checkStock(f, row, counts{Total: units - int(sold.Load()), Reserved: int(held.Load())})
	}
}

func (r *report) checkRetries(services []*reservation.Service) {
	for _, s := range services {
		r.check(s.Retries() == 0, deadlock, "Retries() = %d, want 0", s.Retries())
	}
}

func TestAllVerbsAtOnceKeepEveryPromise(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfAllVerbs)
}

// raceOfAllVerbs runs all verbs and two sweeps on a few rows while holds die. Some rows are short
// most of the time.
func raceOfAllVerbs(ctx context.Context, f *fixture, r *report) {
	const turns = 25
	services := f.services()
	totals := []int{15, 40, 2000, 2000}
	rows := f.stocks(totals...)
	sold := make([]atomic.Int64, len(rows))
	sweepers, callers := services[:2], services[2:]
	var busy atomic.Int64
	busy.Store(int64(len(callers)))

	together(len(services), func(i int) {
		if i < len(sweepers) {
			for busy.Load() > 0 {
				_, err := sweepers[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
			}
			return
		}
		defer busy.Add(-1)
		random := rand.New(rand.NewPCG(uint64(i), 2))
		for range turns {
			takeTurn(ctx, f, r, callers[i-len(sweepers)], random, rows, sold)
		}
	})

	r.checkRetries(services)
	for i, row := range rows {
		r.check(f.counts(row).Total == totals[i]-int(sold[i].Load()), "I8",
			"row %d: %+v, want %d less %d sold", i, f.counts(row), totals[i], sold[i].Load())
	}
	if _, err := services[0].Sweep(ctx); err != nil {
		r.check(false, "error", "Sweep() = %v", err)
	}
	dead := queryOne[int](f, `
SELECT count(*) FROM reservations WHERE status = 'PENDING' AND expires_at <= clock_timestamp()`)
	r.check(dead == 0, "I9", "%d dead holds are left after the last sweep", dead)
}

// takeTurn reserves some lines in a random order, then confirms, releases or extends the hold,
// alive or dead. It adds the confirmed units to sold.
func takeTurn(
	ctx context.Context, f *fixture, r *report, s *reservation.Service, random *rand.Rand,
	rows []reservation.Line, sold []atomic.Int64,
) {
	var lines []reservation.Line
	for _, n := range random.Perm(len(rows))[:1+random.IntN(len(rows))] {
		lines = append(lines, of(rows[n], 1+random.IntN(3)))
	}
	answer, err := s.Reserve(ctx, reservation.Request{Lines: lines})
	if err != nil {
		r.check(isShort(err), "error", "Reserve(%+v) = %v", lines, err)
		return
	}
	id := answer.Hold.ID
	end := random.IntN(5)
	if end >= 3 {
		if err := pgtest.KillHold(ctx, f.Admin, id); err != nil {
			r.check(false, "error", "%v", err)
		}
	}
	switch end {
	case 0, 3:
		_, err = s.Confirm(ctx, id, "")
		for _, line := range lines {
			if err == nil {
				same := func(l reservation.Line) bool { return l.ProductID == line.ProductID }
				sold[slices.IndexFunc(rows, same)].Add(int64(line.Quantity))
			}
		}
	case 1, 4:
		_, err = s.Release(ctx, id, "")
	case 2:
		_, err = s.Extend(ctx, id, time.Minute, "")
	}
	if end == 3 {
		r.check(errors.Is(err, reservation.ErrExpired), "I4",
			"Confirm(%s) of a dead hold = %v, want %v", id, err, reservation.ErrExpired)
		return
	}
	r.check(err == nil, "error", "end %d of %s = %v", end, id, err)
}

func TestRandomVerbsSellExactlyTheStock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceToSellOut)
}

// raceToSellOut runs until every unit is sold. Taking a unit twice or losing one would change the
// number of sold units.
func raceToSellOut(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	totals := []int{25, 40, 60}
	rows := f.stocks(totals...)
	var sold [3]atomic.Int64
	soldOut := func() bool {
		for i := range sold {
			if int(sold[i].Load()) < totals[i] {
				return false
			}
		}
		return true
	}

	together(len(services), func(i int) {
		random := rand.New(rand.NewPCG(uint64(i), 9))
		for !r.anyBroken() && !soldOut() {
			n := random.IntN(len(rows))
			answer, err := services[i].Reserve(ctx,
				reservation.Request{Lines: []reservation.Line{of(rows[n], 1+random.IntN(2))}})
			if err != nil {
				r.check(isShort(err), "error", "Reserve(row %d) = %v", n, err)
				continue
			}
			if random.IntN(3) == 0 {
				_, err = services[i].Extend(ctx, answer.Hold.ID, time.Minute, "")
				r.check(err == nil, "error", "Extend() = %v", err)
			}
			if random.IntN(3) == 0 {
				_, err = services[i].Release(ctx, answer.Hold.ID, "")
			} else if _, err = services[i].Confirm(ctx, answer.Hold.ID, ""); err == nil {
				sold[n].Add(int64(answer.Hold.Quantity))
			}
			r.check(err == nil, "error", "resolve = %v", err)
		}
	})

	r.checkRetries(services)
	for i, row := range rows {
		r.check(int(sold[i].Load()) == totals[i], "I1", "%d of %d units of row %d were sold",
			sold[i].Load(), totals[i], i)
		r.checkStock(f, row, counts{})
	}
}
