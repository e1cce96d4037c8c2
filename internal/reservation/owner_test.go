package reservation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// limit sets the limits of the lines' products, as a write of the catalog does. 0 means none.
func (f *fixture) limit(perHold, perOwner int, lines ...reservation.Line) {
	f.t.Helper()
	for _, line := range lines {
		for _, sql := range []string{
			`UPDATE products SET max_per_hold = nullif($2, 0), max_per_owner = nullif($3, 0)
WHERE id = $1`,
			`UPDATE inventory SET max_per_hold = nullif($2, 0), max_per_owner = nullif($3, 0)
WHERE product_id = $1`,
		} {
			f.Exec(sql, line.ProductID.String(), perHold, perOwner)
		}
	}
}

// reserveFor reserves lines for an owner.
func reserveFor(
	ctx context.Context, s *reservation.Service, owner string, lines ...reservation.Line,
) (reservation.Answer, error) {
	return s.Reserve(ctx, reservation.Request{Lines: lines, Owner: owner})
}

// limitsOf returns the limits that a refusal names, or nil for another answer.
func limitsOf(err error) []reservation.Limit {
	var limit *reservation.LimitError
	if !errors.As(err, &limit) {
		return nil
	}
	return limit.Limits
}

// ownerUnitsSQL is what the owner $1 has of the product $2: the live and confirmed units, less
// those that were returned. It doesn't use the service's routines.
const ownerUnitsSQL = `
WITH lines AS (
    SELECT r.id, r.product_id, r.quantity FROM reservations r WHERE r.product_id IS NOT NULL
    UNION ALL
    SELECT l.reservation_id, l.product_id, l.quantity FROM reservation_items l
)
SELECT coalesce((
    SELECT sum(l.quantity) FROM lines l
    JOIN hold_parties p ON p.hold_id = l.id
    JOIN reservations r ON r.id = l.id
    WHERE p.owner = $1 AND l.product_id = $2
      AND (r.status = 'CONFIRMED' OR r.status = 'PENDING' AND r.expires_at > clock_timestamp())), 0)
 - coalesce((
    SELECT sum(b.quantity) FROM returns b JOIN hold_parties p ON p.hold_id = b.reservation_id
    WHERE p.owner = $1 AND b.product_id = $2), 0)`

func (f *fixture) ownerUnits(
	ctx context.Context, owner string, line reservation.Line,
) (n int, err error) {
	err = f.Admin.QueryRow(ctx, ownerUnitsSQL, owner, line.ProductID.String()).Scan(&n)
	return n, err
}

// checkOwner reports an owner who has other units of the line's product than want.
func (r *report) checkOwner(
	ctx context.Context, f *fixture, owner string, line reservation.Line, want int,
) {
	f.t.Helper()
	got, err := f.ownerUnits(ctx, owner, line)
	r.check(err == nil && got == want, "I12", "%s has %d units, %v, want %d", owner, got, err, want)
}

func TestALineIsLimitedByItsProduct(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(20, 20)
		rows = append(rows, f.elsewhere(rows[0], 20))
		f.limit(3, 0, rows[0])
		old := f.hold(rows[1])

		for name, test := range map[string]struct {
			units   []int
			refused []int // the quantities of the lines that are refused
		}{
			"a line":                {units: []int{3}},
			"a large line":          {units: []int{4}, refused: []int{4}},
			"a cart":                {units: []int{3, 9}},
			"a large cart":          {units: []int{4, 9}, refused: []int{4}},
			"two warehouses":        {units: []int{3, 0, 3}},
			"too many in one":       {units: []int{1, 0, 5}, refused: []int{5}},
			"too many in each":      {units: []int{4, 1, 5}, refused: []int{4, 5}},
			"another product":       {units: []int{0, 15}},
			"large, and also short": {units: []int{4, 50}, refused: []int{4}},
		} {
			for details, request := range map[string]reservation.Request{
				"":                    {},
				" with an owner":      {Owner: "ann"},
				" with a reference":   {Reference: "order 1"},
				" in a hold's place":  {Replaces: &old.ID},
				" with all of these ": {Owner: "ann", Reference: "order 1", Replaces: &old.ID},
			} {
				request.Lines = wanted(rows, test.units)
				answer, err := s.Reserve(ctx, request)
				var refused []int
				for _, limit := range limitsOf(err) {
					refused = append(refused, limit.Requested)
					r.check(limit.Max == 3 && limit.Used == 0 && limit.ProductID == rows[0].ProductID,
						"limit", "%s%s: the limit is %+v", name, details, limit)
				}
				slices.Sort(refused)
				r.check(cmp.Equal(refused, test.refused) && (err == nil) == (refused == nil),
					"limit", "%s%s: Reserve() = %v, refused for %v", name, details, err, refused)
				if err == nil {
					_, err = s.Release(ctx, answer.Hold.ID, "")
					r.check(err == nil, "error", "Release() = %v", err)
				}
			}
		}
	})
}

// The first refusal that fits is the answer.
func TestRefusalsHaveAnOrder(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(9, 9)
		unknown := reservation.Line{ProductID: uuid.New(), WarehouseID: rows[0].WarehouseID, Quantity: 1}
		confirmed := f.hold(rows[0])
		_, err := s.Confirm(ctx, confirmed.ID, "")
		r.check(err == nil, "error", "Confirm() = %v", err)
		f.limit(3, 2, rows[0])
		refusal := func(owner string, replaces *uuid.UUID, lines ...reservation.Line) string {
			return told(s.Reserve(ctx, reservation.Request{
				Lines: lines, Owner: owner, Reference: "order 1", Replaces: replaces,
			}))
		}
		short := of(rows[1], 50)

		got := []string{
			refusal("ann", &confirmed.ID, unknown, of(rows[0], 4), short),
			refusal("ann", &confirmed.ID, of(rows[0], 4), short),
			refusal("ann", nil, of(rows[0], 4), short),
			refusal("", nil, of(rows[0], 4), short),
			refusal("", nil, of(rows[0], 3), short),
			refusal("ann", nil, of(rows[0], 3), short),
			refusal("ann", nil, of(rows[0], 2), short),
		}
		f.Exec("UPDATE inventory SET open = false WHERE product_id = $1", rows[1].ProductID.String())
		got = append(got, refusal("ann", nil, of(rows[0], 4), short))
		f.Exec("UPDATE inventory SET open = true")

		diff := cmp.Diff([]string{
			reservation.ErrInventoryNotFound.Error(),
			reservation.ErrConfirmed.Error(),
			"1 limits would be exceeded",
			"1 limits would be exceeded",
			reservation.ErrOwnerRequired.Error(),
			"1 limits would be exceeded",
			"insufficient stock for 1 lines",
			"1 lines aren't for sale",
		}, got)
		r.check(diff == "", "error", "the refusals differ (-want +got):\n%s", diff)
	})
}

// The units of an owner are the live and confirmed ones in all warehouses, less those that were
// returned.
func TestAnOwnersUnitsAreCountedEverywhere(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfAnOwnersSteps)
}

// raceOfAnOwnersSteps changes what an owner has of a product, step by step. After each step a
// reserve that would pass the limit by one unit must be refused, and say what the owner has.
func raceOfAnOwnersSteps(ctx context.Context, f *fixture, r *report) {
	s := f.services()[0]
	rows := f.stocks(50, 50)
	rows = append(rows, f.elsewhere(rows[0], 50))
	f.limit(0, 5, rows[0])
	reserve := func(hold *reservation.Hold, lines ...reservation.Line) func() error {
		return func() error {
			answer, err := reserveFor(ctx, s, "ann", lines...)
			*hold = answer.Hold
			return err
		}
	}
	var one, two, three, four reservation.Hold
	for _, step := range []struct {
		name string
		do   func() error
		used int
	}{
		{"nothing", func() error { return nil }, 0},
		{"a hold", reserve(&one, of(rows[0], 2)), 2},
		{"a cart", reserve(&two, of(rows[0], 1), rows[1], of(rows[2], 2)), 5},
		{"a confirmed cart", func() error { _, err := s.Confirm(ctx, two.ID, ""); return err }, 5},
		{"a released hold", func() error { _, err := s.Release(ctx, one.ID, ""); return err }, 3},
		{"a returned unit", func() error {
			_, err := stock.New(s).Return(ctx, stock.Return{
				Reservation: two.ID, Reference: "parcel 1", Lines: []stock.ReturnLine{
					{ProductID: rows[2].ProductID, WarehouseID: rows[2].WarehouseID, Quantity: 1},
					{ProductID: rows[1].ProductID, WarehouseID: rows[1].WarehouseID, Quantity: 1},
				},
			}, "")
			return err
		}, 2},
		{"another hold", reserve(&three, of(rows[2], 2)), 4},
		{"a dead hold", func() error { f.kill(three); return nil }, 2},
		{"a successor", func() error {
			_, err := s.ConfirmPayment(ctx, three.ID, "p", true, "")
			return err
		}, 4},
		{"the last unit", reserve(&four, rows[0]), 5},
		{"a replacement", func() error {
			_, err := s.Reserve(ctx, reservation.Request{
				Lines: []reservation.Line{rows[2], rows[1]}, Owner: "ann", Replaces: &four.ID,
			})
			return err
		}, 5},
		{"another owner's", func() error {
			_, err := reserveFor(ctx, s, "bob", of(rows[0], 5))
			return err
		}, 5},
	} {
		err := step.do()
		r.check(err == nil, "I12", "%s: %v", step.name, err)
		_, err = reserveFor(ctx, s, "ann", of(rows[2], 6-step.used), of(rows[1], 2))
		want := []reservation.Limit{
			{ProductID: rows[0].ProductID, Max: 5, Used: step.used, Requested: 6 - step.used},
		}
		r.check(cmp.Equal(limitsOf(err), want), "I12", "%s: Reserve() = %v %+v, want %+v", step.name,
			err, limitsOf(err), want)
		if r.anyBroken() {
			return
		}
	}
	_, err := s.Reserve(ctx, reservation.Request{Lines: rows[:1]})
	r.check(errors.Is(err, reservation.ErrOwnerRequired), "I12", "Reserve() for nobody = %v", err)
	r.checkOwner(ctx, f, "ann", rows[0], 5)
}

func TestAnOwnersUnitsAreMiscounted(t *testing.T) {
	t.Parallel()

	for name, mutation := range map[string][2]string{
		"without the returns":        {"AND b.warehouse_id = l.warehouse_id)", "AND false)"},
		"with dead holds":            {"m.id IN (SELECT d.id FROM dead d)", "false"},
		"with the replaced hold":     {"AND p.hold_id IS DISTINCT FROM _except", ""},
		"without confirmed holds":    {"WHEN 'CONFIRMED' THEN true", "WHEN 'CONFIRMED' THEN false"},
		"without the lines of carts": {"WHERE i.reservation_id = m.id", "WHERE false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, "I12", func(f *fixture) {
				f.mutate("owner_units", mutation[0], mutation[1])
			}, raceOfAnOwnersSteps)
		})
	}
}

// A reserve looks at the limits of a stock row that waits in a transaction of the catalog. Its
// guard must find what the catalog has written.
func TestALimitThatComesWhileAReserveWaitsIsKept(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		for _, owner := range []string{"", "ann"} {
			for lines := 1; lines <= 2; lines++ {
				for _, perOwner := range []bool{false, true} {
					raceOfNewLimit(ctx, f, r, owner, lines, perOwner)
				}
			}
		}
	})
}

// raceOfNewLimit lets a reserve of two units of each line wait for a stock row, while another
// session limits its product to one unit for each hold or for each owner.
func raceOfNewLimit(
	ctx context.Context, f *fixture, r *report, owner string, lines int, perOwner bool,
) {
	rows := f.stocks([]int{9, 9}[:lines]...)
	wants := wanted(rows, []int{2, 2}[:lines])
	column := map[bool]string{false: "max_per_hold", true: "max_per_owner"}[perOwner]
	tx := f.lock("UPDATE inventory SET "+column+" = 1 WHERE product_id = $1",
		rows[0].ProductID.String())
	var err error
	together(2, func(i int) {
		if i == 0 {
			_, err = reserveFor(ctx, f.services()[0], owner, wants...)
			return
		}
		_, failure := tx.Exec(ctx, "UPDATE products SET "+column+" = 1 WHERE id = $1",
			rows[0].ProductID.String())
		failure = errors.Join(failure, pgtest.Wait(ctx, f.Admin, waitingSQL, 1), tx.Commit(ctx))
		r.check(failure == nil, "error", "the other session: %v", failure)
	})

	refused := len(limitsOf(err)) == 1
	if owner == "" && perOwner {
		refused = errors.Is(err, reservation.ErrOwnerRequired)
	}
	r.check(refused, "I12", "Reserve() for %q of %d lines, %s: %v", owner, lines, column, err)
}

func TestALimitThatComesWhileAReserveWaitsIsPassedWithoutTheGuard(t *testing.T) {
	t.Parallel()

	const (
		cartLimits  = "AND (i.max_per_owner IS NOT NULL OR i.max_per_hold < l.quantity) IS NOT TRUE"
		ownersHold  = "AND (i.max_per_hold < l.quantity) IS NOT TRUE"
		ownersLimit = "AND i.max_per_owner IS NOT DISTINCT FROM l.most"
	)
	for name, test := range map[string]struct {
		routine, guard string
		owner          string
		lines          int
		perOwner       bool
	}{
		"a line":            {"reserve_line", "AND (max_per_hold < _quantity) IS NOT TRUE", "", 1, false},
		"a line's owner":    {"reserve_line", "open\n          AND max_per_owner IS NULL", "", 1, true},
		"a cart":            {"reserve_cart", cartLimits, "", 2, false},
		"a cart's owner":    {"reserve_cart", cartLimits, "", 2, true},
		"an owner's hold":   {"take_units", ownersHold, "ann", 1, false},
		"an owner's limit":  {"take_units", ownersLimit, "ann", 1, true},
		"an owner's limits": {"take_units", ownersLimit, "ann", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, "I12", func(f *fixture) {
				f.mutate(test.routine, test.guard, strings.Repeat("open", strings.Count(test.guard, "open")))
			}, func(ctx context.Context, f *fixture, r *report) {
				raceOfNewLimit(ctx, f, r, test.owner, test.lines, test.perOwner)
			})
		})
	}
}

// raceOfLimitUnderReserves limits a product to five units for each owner while callers reserve it
// for one owner, from two warehouses and from both at once. After the answer the owner gets units
// up to the limit, and none if there were more before.
func raceOfLimitUnderReserves(ctx context.Context, f *fixture, r *report) {
	const most, refusals = 5, 4
	services := f.services()
	sku := uuid.NewString()
	row := reservation.Line{ProductID: f.NamedProduct("Lamp", sku), Quantity: 1}
	rows := reservation.MergeLines(
		[]reservation.Line{f.elsewhere(row, 1000), f.elsewhere(row, 1000)})
	limit := most
	var answered atomic.Bool
	var atAnswer, late atomic.Int64
	together(len(services), func(i int) {
		if i == 0 {
			err := pgtest.Wait(ctx, f.Admin, "SELECT count(*) >= $1 FROM hold_parties WHERE owner = $2",
				rand.IntN(8), sku)
			_, _, failure := stock.New(services[0]).PutProducts(ctx,
				[]stock.ProductItem{{SKU: sku, MaxPerOwner: &limit}}, "")
			used, unread := f.ownerUnits(ctx, sku, row)
			err = errors.Join(err, failure, unread)
			r.check(err == nil, "error", "the catalog: %v", err)
			atAnswer.Store(int64(used))
			answered.Store(true)
			return
		}
		for left := refusals; left > 0; {
			isLate := answered.Load()
			lines := [][]reservation.Line{rows[:1], rows[1:], rows}[i%3]
			_, err := reserveFor(ctx, services[i], sku, lines...)
			switch {
			case err == nil:
				late.Add(countIf(isLate) * int64(len(lines)))
			case limitsOf(err) != nil:
				left--
			default:
				r.check(false, "error", "Reserve() = %v", err)
				return
			}
		}
	})

	used, err := f.ownerUnits(ctx, sku, row)
	r.check(err == nil && used == max(most, int(atAnswer.Load())), "I12",
		"the owner had %d units at the answer and has %d, %v, with a limit of %d; %d came late",
		atAnswer.Load(), used, err, most, late.Load())
}

func TestALimitHoldsFromItsAnswerOn(t *testing.T) {
	t.Parallel()

	mustHold(t, 10, func(ctx context.Context, f *fixture, r *report) {
		for range 8 {
			raceOfLimitUnderReserves(ctx, f, r)
		}
	})
}
