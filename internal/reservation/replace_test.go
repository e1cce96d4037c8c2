package reservation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// replace reserves lines in the place of the hold old.
func replace(
	ctx context.Context, s *reservation.Service, old uuid.UUID, lines ...reservation.Line,
) (reservation.Answer, error) {
	return s.Reserve(ctx, reservation.Request{Lines: lines, Replaces: &old})
}

// wanted returns a line for each stock row of which units are wanted.
func wanted(rows []reservation.Line, units []int) (lines []reservation.Line) {
	for i, n := range units {
		if n > 0 {
			lines = append(lines, of(rows[i], n))
		}
	}
	return lines
}

func TestAHoldTakesThePlaceOfAnotherOfAnyShape(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfShapes)
}

// raceOfShapes replaces holds of all shapes by others. Each stock row has three units, so most of
// the new holds need the units of the old one. The first two rows are of one product.
func raceOfShapes(ctx context.Context, f *fixture, r *report) {
	s := f.services()[0]
	rows := f.stocks(3, 3)
	rows = reservation.MergeLines(append(rows, f.elsewhere(rows[0], 3)))
	for name, test := range map[string]struct{ old, units []int }{
		"grows":                      {[]int{2, 0, 0}, []int{3, 0, 0}},
		"shrinks":                    {[]int{3, 0, 0}, []int{1, 0, 0}},
		"stays":                      {[]int{3, 0, 0}, []int{3, 0, 0}},
		"moves to another warehouse": {[]int{3, 0, 0}, []int{0, 3, 0}},
		"moves to another product":   {[]int{3, 0, 0}, []int{0, 0, 2}},
		"becomes a cart":             {[]int{2, 0, 0}, []int{3, 1, 2}},
		"becomes a single line":      {[]int{2, 2, 2}, []int{0, 3, 0}},
		"a cart grows and shrinks":   {[]int{1, 3, 2}, []int{3, 1, 3}},
		"a cart moves":               {[]int{3, 3, 0}, []int{0, 3, 3}},
		"a cart becomes another":     {[]int{3, 0, 3}, []int{0, 3, 0}},
	} {
		if r.anyBroken() {
			return
		}
		old := f.hold(wanted(rows, test.old)...)
		answer, err := replace(ctx, s, old.ID, wanted(rows, test.units)...)
		if err != nil {
			r.check(false, "own units", "%s: Reserve() = %v", name, err)
			return
		}
		hold := answer.Hold
		r.check(cmp.Equal(hold.Lines, wanted(rows, test.units)) && hold.Version == 1 &&
			hold.Status == reservation.Pending && hold.Replaces != nil && *hold.Replaces == old.ID,
			"I7", "%s: the new hold is %+v", name, hold)
		view, err := s.Get(ctx, old.ID)
		r.check(err == nil && view.Hold.Status == reservation.Released && view.Hold.Version == 2 &&
			view.Hold.ReplacedBy != nil && *view.Hold.ReplacedBy == hold.ID,
			"I3", "%s: the old hold is %+v, %v", name, view.Hold, err)
		step := queryOne[string](f, `
SELECT kind::text || cause::text FROM ledger WHERE hold_id = $1 AND version = 2`, old.ID.String())
		r.check(step == "rr", "I10", "%s: the ledger of the old hold says %q", name, step)
		for i, row := range rows {
			r.checkStock(f, row, counts{Total: 3, Reserved: test.units[i]})
		}
		_, err = s.Release(ctx, hold.ID, "")
		r.check(err == nil, "error", "%s: Release() = %v", name, err)
	}
}

func TestAReplacementIsRefusedWithoutItsOwnUnits(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "own units", func(f *fixture) {
		f.mutate("reclaim_beside", "greatest(l.quantity - l.own, 0)", "l.quantity")
	}, raceOfShapes)
}

func TestAReplacementKeepsTheUnitsOfTheOldHoldWithoutTheirRows(t *testing.T) {
	t.Parallel()

	// The stock rows that only the old hold has stay as they are.
	mustBreak(t, 1, "I2", func(f *fixture) {
		f.mutate("rows_to_change", "WHERE _old.id IS NOT NULL",
			"WHERE _old.id IS NOT NULL AND u.warehouse_id = ANY (_warehouses)")
	}, raceOfShapes)
}

func TestARefusedReplacementChangesNothing(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(9, 9, 9)
		old := f.hold(of(rows[0], 2), of(rows[1], 3))
		f.hold(of(rows[0], 5))
		f.kill(f.hold(of(rows[0], 1))) // dead units count as available
		f.hold(of(rows[2], 9))

		_, err := s.Reserve(ctx, reservation.Request{
			Lines: []reservation.Line{of(rows[0], 5), of(rows[1], 9), rows[2]},
			Owner: "ann", Reference: "order 1", Replaces: &old.ID, Key: "key",
		})

		var short *reservation.InsufficientStockError
		want := []reservation.Shortage{
			{ProductID: rows[0].ProductID, WarehouseID: rows[0].WarehouseID, Requested: 5, Available: 4},
			{ProductID: rows[2].ProductID, WarehouseID: rows[2].WarehouseID, Requested: 1},
		}
		r.check(errors.As(err, &short) && cmp.Equal(short.Shortages, want), "I4",
			"Reserve() = %v %+v, want it short of %+v", err, short, want)
		view, err := s.Get(ctx, old.ID)
		r.check(err == nil && cmp.Equal(view.Hold, old), "I7", "the old hold is %+v, %v, want %+v",
			view.Hold, err, old)
		r.checkStock(f, rows[0], counts{Total: 9, Reserved: 8})
		r.checkStock(f, rows[1], counts{Total: 9, Reserved: 3})
		left := queryOne[int](f, `
SELECT (SELECT count(*) FROM replacements) + (SELECT count(*) FROM hold_parties)
     + (SELECT count(*) FROM idempotency_keys)`)
		r.check(left == 0, "I7", "a refused replacement left %d rows", left)
	})
}

func TestHoldsFollowOneAnother(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		const length = 10
		s := f.services()[0]
		rows := f.stocks(1, 1)
		chain := []reservation.Hold{f.hold(rows[0])}
		for i := range length {
			answer, err := replace(ctx, s, chain[i].ID, wanted(rows, [][]int{{1, 1}, {0, 1}, {1}}[i%3])...)
			if err != nil {
				r.check(false, "error", "replacement %d = %v", i, err)
				return
			}
			chain = append(chain, answer.Hold)
		}
		_, err := s.Confirm(ctx, chain[length].ID, "")
		r.check(err == nil, "error", "Confirm() = %v", err)
		for i, hold := range chain {
			view, err := s.Get(ctx, hold.ID)
			before, after := view.Hold.Replaces, view.Hold.ReplacedBy
			r.check(err == nil && (before == nil) == (i == 0) && (after == nil) == (i == length) &&
				(i == 0 || *before == chain[i-1].ID) && (i == length || *after == chain[i+1].ID),
				"I3", "hold %d of the chain is %+v, %v", i, view.Hold, err)
		}
	})
}

// A hold that is gone isn't replaced, and its units are free without that. The stock rows have no
// other units.
func TestAHoldThatIsGoneIsNotReplaced(t *testing.T) {
	t.Parallel()

	for name, end := range map[string]func(*fixture, *reservation.Service, reservation.Hold) error{
		"dead": func(f *fixture, _ *reservation.Service, h reservation.Hold) error {
			f.kill(h)
			return nil
		},
		"expired": func(f *fixture, s *reservation.Service, h reservation.Hold) error {
			f.kill(h)
			_, err := s.Sweep(f.Context())
			return err
		},
		"released": func(f *fixture, s *reservation.Service, h reservation.Hold) error {
			_, err := s.Release(f.Context(), h.ID, "")
			return err
		},
		"replaced": func(f *fixture, s *reservation.Service, h reservation.Hold) error {
			answer, err := replace(f.Context(), s, h.ID, h.Lines...)
			f.kill(answer.Hold)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
				s := f.services()[0]
				rows := f.stocks(2, 2)
				for n := range rows {
					old := f.hold(wanted(rows, []int{2, 2}[:n+1])...)
					r.check(end(f, s, old) == nil, "error", "end the old hold")
					answer, err := replace(ctx, s, old.ID, of(rows[0], 2), of(rows[1], 2))
					r.check(err == nil && answer.Hold.Replaces == nil, "I4", "Reserve() = %+v, %v",
						answer.Hold, err)
					if err == nil {
						f.kill(answer.Hold)
					}
				}
			})
		})
	}
}

func TestAHoldThatIsPaidIsNotReplaced(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(9)
		confirmed, paying := f.hold(row), f.hold(row)
		_, err := s.Confirm(ctx, confirmed.ID, "")
		r.check(err == nil, "error", "Confirm() = %v", err)
		started, err := s.StartPayment(ctx, paying.ID, "p", time.Minute, "")
		r.check(err == nil, "error", "StartPayment() = %v", err)
		unknown := row
		unknown.ProductID = uuid.New()

		for _, test := range []struct {
			old  uuid.UUID
			line reservation.Line
			want error
		}{
			{confirmed.ID, of(row, 20), reservation.ErrConfirmed},
			{paying.ID, of(row, 20), reservation.ErrPaymentStarted},
			{uuid.New(), of(row, 20), reservation.ErrNotFound},
			{uuid.New(), unknown, reservation.ErrInventoryNotFound},
		} {
			_, err := replace(ctx, s, test.old, test.line)
			r.check(errors.Is(err, test.want), "error", "Reserve() = %v, want %v", err, test.want)
		}
		r.checkStock(f, row, counts{Total: 8, Reserved: 1})

		f.kill(started.Hold) // a payment under way keeps no dead hold
		answer, err := replace(ctx, s, paying.ID, of(row, 8))
		r.check(err == nil && answer.Hold.Replaces == nil, "I4", "Reserve() = %+v, %v", answer.Hold, err)
	})
}

// A hold of the archive is gone. That it was confirmed is known all the same.
func TestAnArchivedHoldIsNotReplaced(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(20, 20)
		confirmed := map[int]bool{0: true, 3: true} // a hold and a cart
		holds := f.resolve(rows)
		f.age(retention + 24*time.Hour)
		swept, err := archiver(f.own).Sweep(ctx)
		r.check(err == nil && swept.Archived == 6, "error", "Sweep() = %+v, %v", swept, err)
		for i, hold := range holds {
			answer, err := replace(ctx, s, hold.ID, rows...)
			if confirmed[i] {
				r.check(errors.Is(err, reservation.ErrConfirmed), "I3", "Reserve() = %v", err)
				continue
			}
			r.check(err == nil && answer.Hold.Replaces == nil, "I3", "Reserve() = %+v, %v", answer.Hold,
				err)
		}
	})
}

// The server ends the session of a replacement in the middle: it waits for a stock row, and has
// released the old hold and inserted the new one.
func TestAReplacementThatWasCutOffHasChangedNothing(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(1, 1)
		old := f.hold(rows...)
		request := reservation.Request{
			Lines: rows[1:], Replaces: &old.ID, Owner: "ann", Key: uuid.NewString(),
		}
		tx := f.lock(lockStockSQL, rows[1].ProductID.String())
		var cut error
		together(2, func(i int) {
			if i == 0 {
				_, cut = s.Reserve(ctx, request)
				return
			}
			err := pgtest.Wait(ctx, f.Admin, terminateSQL)
			r.check(err == nil, "error", "end the session: %v", err)
		})
		r.check(tx.Rollback(ctx) == nil, "error", "roll back the other session")

		r.check(errors.Is(cut, reservation.ErrUnavailable), "error", "Reserve() = %v, want %v", cut,
			reservation.ErrUnavailable)
		view, err := s.Get(ctx, old.ID)
		r.check(err == nil && cmp.Equal(view.Hold, old), "I7", "the old hold is %+v, %v, want %+v",
			view.Hold, err, old)
		r.checkStock(f, rows[0], counts{Total: 1, Reserved: 1})
		again, err := s.Reserve(ctx, request)
		r.check(err == nil && !again.Replayed && again.Hold.Replaces != nil, "I6",
			"Reserve() again = %+v, %v", again, err)
		r.checkStock(f, rows[0], counts{Total: 1})
	})
}

func TestOneKeyMakesOneReplacement(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, func(ctx context.Context, f *fixture, r *report) {
		rows := f.stocks(1, 1)
		old := f.hold(rows...)
		request := reservation.Request{
			Lines: rows, Replaces: &old.ID, Owner: "ann", Reference: "order 1", Key: uuid.NewString(),
		}
		hold := raceOfOneKey(f, r, func(s *reservation.Service) (reservation.Answer, error) {
			return s.Reserve(ctx, request)
		})
		r.check(hold.Owner == "ann" && hold.Reference == "order 1" && hold.Replaces != nil, "I6",
			"the answer is %+v", hold)
		r.checkStock(f, rows[0], counts{Total: 1, Reserved: 1})
	})
}
