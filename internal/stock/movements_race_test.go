package stock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// Each race of this file is about the mugs that are here. It runs on the real statements, where it
// must report nothing, and on statements that lack one guard, where it must report something.

// race is what the callers of a race were told.
type race struct {
	*shelf
	first int // the total before

	mu                sync.Mutex
	held, sold, short int // holds of one unit: live, confirmed, refused for want of units
	moved             []stock.LineResult
	wrong             []string
}

func (r *race) report(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// fail notes an error of a call. A database that can't be had in time proves nothing, also in a
// control.
func (r *race) fail(err error) {
	if errors.Is(err, reservation.ErrUnavailable) || errors.Is(err, reservation.ErrBusy) {
		r.t.Error(err)
	}
	r.wrong = append(r.wrong, err.Error())
}

// send sends a document. Each line must have an effect, and a delta just what it asks for.
func (r *race) send(ctx context.Context, d stock.Document) {
	results, _, err := r.stock.Move(ctx, d, "")
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.fail(fmt.Errorf("the document %s = %w", d.Reference, err))
	}
	for _, result := range results {
		asked := d.Lines[result.Line-1].Delta
		if result.Outcome != stock.LineApplied && result.Outcome != stock.LineUnchanged ||
			asked != nil && result.Delta != *asked {
			r.report("a line of the document %s = %s", d.Reference, text(result))
		}
		r.moved = append(r.moved, result)
	}
}

// take reserves a unit and, with sell, confirms it.
func (r *race) take(ctx context.Context, sell bool) {
	answer, err := r.holds.Reserve(ctx, reservation.Request{Lines: []reservation.Line{
		{ProductID: r.mug, WarehouseID: r.here, Quantity: 1},
	}})
	if err == nil && sell {
		_, err = r.holds.Confirm(ctx, answer.Hold.ID, "")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var short *reservation.InsufficientStockError
	switch {
	case errors.As(err, &short):
		r.short++
	case err != nil:
		r.fail(fmt.Errorf("a reserve, confirmed: %t = %w", sell, err))
	case sell:
		r.sold++
	default:
		r.held++
	}
}

// written is a movement as the table has it.
type written struct {
	Seq               int64
	Kind              string
	Delta, TotalAfter int
	Shortfall         *int
}

// compare compares the stock row and its movements with what the callers were told, and audits. It
// returns the movements.
func (r *race) compare() (movements []written) {
	r.t.Helper()
	rows, err := r.Admin.Query(r.Context(), `
SELECT seq, kind::text, delta, total_after, shortfall FROM stock_movements
WHERE product_id = $1 AND warehouse_id = $2 ORDER BY seq`, r.mug.String(), r.here.String())
	if err != nil {
		r.t.Fatal(err)
	}
	movements, err = pgx.CollectRows(rows, pgx.RowToStructByPos[written])
	if err != nil {
		r.t.Fatal(err)
	}
	total, bySeq := 0, map[int64]written{}
	for n, m := range movements {
		if total += m.Delta; m.Seq != int64(n+1) || m.TotalAfter != total {
			r.report("movement %d is %+v, want a total of %d", n+1, m, total)
			total = m.TotalAfter
		}
		bySeq[m.Seq] = m
	}
	want := pgtest.Counts{Total: r.first - r.sold, Reserved: r.held}
	for _, told := range r.moved {
		want.Total += told.Delta
		if told.Seq == nil || told.Total == nil {
			continue // it was refused, and reported
		}
		if m := bySeq[*told.Seq]; m.Delta != told.Delta || m.TotalAfter != *told.Total {
			r.report("a caller was told %s, and the movement is %+v", text(told), m)
		}
	}
	if got := r.Counts(r.mug, r.here); got != want || got.Total != total {
		r.report("the stock row is %+v, want %+v, and %d by its movements", got, want, total)
	}
	if n := 1 + len(r.moved) + r.sold; len(movements) != n {
		r.report("%d movements were written, want %d with the opening", len(movements), n)
	}
	for _, v := range r.broken() {
		r.report("%s: %s", v.Promise, v.Detail)
	}
	return movements
}

// setting is a race, with the connections and the units that it begins with.
type setting struct {
	connections, total int
	run                func(r *race)
}

// play runs the race on a database of its own, without a guard unless mutate is nil.
func (c setting) play(t *testing.T, mutate func(s *shelf)) *race {
	t.Helper()
	s := newShelfOf(t, c.connections)
	s.Patient()
	s.Stock(s.mug, s.here, c.total)
	if mutate != nil {
		mutate(s)
	}
	r := &race{shelf: s, first: c.total}
	c.run(r)
	s.close() // a control's next round has connections of its own
	return r
}

// mustHold fails the test when something goes wrong.
func (c setting) mustHold(t *testing.T) {
	t.Helper()
	t.Parallel()
	r := c.play(t, nil)
	if len(r.wrong) > 0 {
		t.Errorf("%q", r.wrong)
	}
	t.Logf("%d movements of documents, %d units sold, %d held, %d refused", len(r.moved), r.sold,
		r.held, r.short)
}

// mustGoWrong is the negative control: without any one of the guards something must go wrong.
func (c setting) mustGoWrong(t *testing.T, guards map[string]func(s *shelf)) {
	t.Helper()
	t.Parallel()
	for name, mutate := range guards {
		t.Run(name, func(t *testing.T) {
			mustGoWrong(t, func() []string { return c.play(t, mutate).wrong })
		})
	}
}

// change is a change of try_to_move's source.
func change(old, replacement string) func(s *shelf) {
	return func(s *shelf) { pgtest.Mutate(s.t, s.Database, "try_to_move", old, replacement) }
}

// rowUnlocked lets a line decide by a stock row that it hasn't locked.
var rowUnlocked = change("_wanted.warehouse_id\n    FOR NO KEY UPDATE;", "_wanted.warehouse_id;")

// dropped is a change that also drops a guard of the schema.
func dropped(mutate func(s *shelf), sql string) func(s *shelf) {
	return func(s *shelf) {
		s.Exec(sql)
		mutate(s)
	}
}

// noMovementGuard drops the trigger that refuses a movement which doesn't follow from the one
// before.
const noMovementGuard = "DROP TRIGGER i8_movement_is_right ON stock_movements"

// The callers of raceOfDeliveries, each of which delivers once or takes three units.
const (
	deliverers, takers = 50, 14
	deliverySales      = 3
	raceConnections    = deliverers + takers
)

// raceOfDeliveries delivers fifty documents at once while others reserve and confirm.
func raceOfDeliveries(r *race) {
	ctx := r.Context()
	together(deliverers+takers, func(i int) {
		if i >= deliverers {
			for n := range deliverySales {
				r.take(ctx, (i+n)%2 == 0)
			}
			return
		}
		d := document(fmt.Sprint("delivery ", i), delta(r.mug, r.here, 1+i%7),
			delta(r.mug, r.here, 2))
		d.Together = i%2 == 0
		r.send(ctx, d)
	})
	r.compare()
	if len(r.moved) != 2*deliverers || r.held+r.sold != deliverySales*takers {
		r.report("%d lines were applied and %d units taken, want %d and %d", len(r.moved),
			r.held+r.sold, 2*deliverers, deliverySales*takers)
	}
}

func TestDeliveriesUnderReservesAddUp(t *testing.T) {
	setting{raceConnections, 100, raceOfDeliveries}.mustHold(t)
}

func TestDeliveriesDoNotAddUpWithoutTheirGuards(t *testing.T) {
	byLook := change("coalesce(_before + _delta", "coalesce(_look.before + _delta")
	setting{raceConnections, 100, raceOfDeliveries}.mustGoWrong(t, map[string]func(s *shelf){
		"the row's lock":                 dropped(rowUnlocked, noMovementGuard),
		"the row's lock, with the guard": rowUnlocked, // the trigger refuses the movement
		"the look beneath the lock":      dropped(byLook, noMovementGuard),
	})
}

// raceOfCounts begins with countStock units. Each of the sellers makes as many sales as sales says,
// and the other callers count countFound units.
const (
	countStock, countFound = 200, 150
	sellers, sales         = 10, 8
)

// raceOfCounts lets callers count again and again while others sell.
func raceOfCounts(r *race, counts int, asOf int64) (movements []written) {
	ctx := r.Context()
	together(callers, func(i int) {
		if i < sellers {
			for range sales {
				r.take(ctx, true)
			}
			return
		}
		for n := range counts {
			r.send(ctx, document(fmt.Sprint("count ", i, " ", n),
				counted(r.mug, r.here, countFound, asOf)))
		}
	})
	movements = r.compare()
	if n := (callers - sellers) * counts; len(r.moved) != n || r.sold != sellers*sales {
		r.report("%d counts and %d sales, want %d and %d", len(r.moved), r.sold, n, sellers*sales)
	}
	return movements
}

// raceOfCountsAsOf counts as of the opening. A count keeps the sales since then, however many come
// before it: each of the two takes away the units that weren't found.
func raceOfCountsAsOf(r *race) {
	raceOfCounts(r, 1, 1)
	want := countStock - 2*(countStock-countFound) - sellers*sales
	if got := r.Counts(r.mug, r.here).Total; got != want {
		r.report("the total is %d, want %d", got, want)
	}
}

func TestACountKeepsTheSalesSinceItsMovement(t *testing.T) {
	setting{callers + 2, countStock, raceOfCountsAsOf}.mustHold(t)
}

func TestACountForgetsSalesWithoutItsGuards(t *testing.T) {
	setting{callers + 2, countStock, raceOfCountsAsOf}.mustGoWrong(t, map[string]func(s *shelf){
		"the movement that it names": func(s *shelf) {
			pgtest.Mutate(t, s.Database, "total_after", "AND m.seq = _seq;\n    IF NOT FOUND",
				"AND m.seq >= _seq ORDER BY m.seq DESC LIMIT 1;\n    IF NOT FOUND")
		},
		"the row's lock": dropped(rowUnlocked, noMovementGuard),
	})
}

// raceOfCountsOfNow counts what is there now. By the numbers of the movements, each count leads to
// what was found, and each sale takes one unit of what was there.
func raceOfCountsOfNow(r *race) {
	const counts = 10
	want := r.first
	for _, m := range raceOfCounts(r, counts, 0) {
		switch m.Kind {
		case "SALE":
			want--
		case "COUNT":
			want = countFound
		}
		if m.TotalAfter != want {
			r.report("movement %d, a %s, leads to %d, want %d", m.Seq, m.Kind, m.TotalAfter, want)
		}
	}
}

func TestACountOfNowIsExactAmongSales(t *testing.T) {
	setting{callers + 2, countStock, raceOfCountsOfNow}.mustHold(t)
}

func TestACountOfNowIsWrongWithoutItsGuards(t *testing.T) {
	setting{callers + 2, countStock, raceOfCountsOfNow}.mustGoWrong(t, map[string]func(s *shelf){
		"the row's lock":                 dropped(rowUnlocked, noMovementGuard),
		"the row's lock, with the guard": rowUnlocked,
		"the look beneath the lock": dropped(change("s.total - _before", "s.total - _look.before"),
			noMovementGuard),
		"what was found": dropped(change("_total := coalesce(_before + _delta, _wanted.asked)",
			"_total := coalesce(_before + _delta, _wanted.asked - _look.before + _before)"),
			noMovementGuard),
	})
}

// clampStock is how many units there are before raceOfClamps.
const clampStock = 4

// raceOfClamps empties a stock row again and again while others deliver and reserve. What is held
// must stay at each moment: a trigger notes when it doesn't. What a clamp leaves is its shortfall,
// and the last one leaves just what is held.
func raceOfClamps(r *race) {
	r.Exec(`
CREATE TABLE broken_stock (total integer, reserved integer);
CREATE FUNCTION note_broken_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO broken_stock VALUES (new.total, new.reserved);
    RETURN NULL;
END $$;
CREATE TRIGGER broken AFTER UPDATE ON inventory FOR EACH ROW WHEN (new.total < new.reserved)
    EXECUTE FUNCTION note_broken_stock()`)
	ctx := r.Context()
	clamp := func() {
		d := document(uuid.NewString(), counted(r.mug, r.here, 0, 0))
		d.Clamp = true
		r.send(ctx, d)
	}
	const turns, kinds = 6, 3
	together(callers, func(i int) {
		for n := range turns {
			switch {
			case i%kinds == 0:
				clamp()
			case i%kinds == 1 && n%2 == 0:
				r.send(ctx, document(uuid.NewString(), delta(r.mug, r.here, 2)))
			default:
				r.take(ctx, false)
			}
		}
	})
	clamp()
	for _, m := range r.compare() {
		if m.Kind == "COUNT" && m.Shortfall == nil && m.TotalAfter != 0 ||
			m.Shortfall != nil && *m.Shortfall != m.TotalAfter {
			r.report("a clamp to nothing is %+v", m)
		}
	}
	const moves, takes = callers/kinds*(turns+turns/2) + 1, callers / kinds * (turns + turns/2)
	if len(r.moved) != moves || r.held+r.short != takes {
		r.report("%d movements and %d reserves, want %d and %d", len(r.moved), r.held+r.short, moves,
			takes)
	}
	if got, want := r.Counts(r.mug, r.here), (pgtest.Counts{Total: r.held, Reserved: r.held}); got !=
		want {
		r.report("after the last clamp the stock row is %+v, want %+v", got, want)
	}
	if n := pgtest.QueryOne[int](r.Fixture, "SELECT count(*) FROM broken_stock"); n > 0 {
		r.report("%d times more was held than was there", n)
	}
}

func TestAClampNeverTakesWhatIsHeld(t *testing.T) {
	setting{callers + 2, clampStock, raceOfClamps}.mustHold(t)
}

func TestAClampTakesWhatIsHeldInARaceWithoutItsGuards(t *testing.T) {
	byLook := func(s *shelf) {
		change("SET total = greatest(_total, _lowest)",
			"SET total = greatest(_total, _look.reserved - _freed)")(s)
		change("(NOT _clamp OR _look.total >= _look.reserved - _look.dead)", "NOT _clamp")(s)
	}
	const noHeldGuard = "ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total"
	setting{callers + 2, clampStock, raceOfClamps}.mustGoWrong(t, map[string]func(s *shelf){
		"what is held now":                 dropped(byLook, noHeldGuard),
		"what is held now, with the guard": byLook, // the constraint refuses the movement
		"the row's lock":                   dropped(dropped(rowUnlocked, noMovementGuard), noHeldGuard),
	})
}
