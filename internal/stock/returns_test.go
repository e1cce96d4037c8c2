package stock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// sell confirms a hold of these lines.
func (s *shelf) sell(lines ...reservation.Line) uuid.UUID {
	s.t.Helper()
	answer, err := s.holds.Reserve(s.Context(), reservation.Request{Lines: lines})
	if err != nil {
		s.t.Fatal(err)
	}
	s.confirm(answer.Hold.ID)
	return answer.Hold.ID
}

// back is units of a hold's line that go back on the shelf that they came from.
func back(product, warehouse uuid.UUID, units int) stock.ReturnLine {
	return backTo(product, warehouse, units, &warehouse)
}

// backTo is units of a hold's line that go to another warehouse, or nowhere.
func backTo(product, warehouse uuid.UUID, units int, to *uuid.UUID) stock.ReturnLine {
	return stock.ReturnLine{
		ProductID: product, WarehouseID: warehouse, Quantity: units, ToWarehouseID: to,
	}
}

func parcel(hold uuid.UUID, reference string, lines ...stock.ReturnLine) stock.Return {
	return stock.Return{Reservation: hold, Reference: reference, Lines: lines}
}

// takeBack returns goods, and ends the test when that fails.
func (s *shelf) takeBack(r stock.Return, key string) stock.Returned {
	s.t.Helper()
	returned, err := s.stock.Return(s.Context(), r, key)
	if err != nil {
		s.t.Fatalf("Return(%+v) = %v", r, err)
	}
	return returned
}

// movements lists all movements of a kind: product, warehouse, delta, total.
func (s *shelf) movements(kind string) []string {
	s.t.Helper()
	return pgtest.QueryOne[[]string](s.Fixture, `
SELECT coalesce(array_agg(concat_ws(' ', p.name, w.name, m.seq, m.delta, m.total_after)
                          ORDER BY p.name, w.name, m.seq), '{}')
FROM stock_movements m JOIN products p ON p.id = m.product_id
JOIN warehouses w ON w.id = m.warehouse_id
WHERE m.kind = $1::text::movement_kind`, kind)
}

func TestGoodsOfAConfirmedHoldComeBack(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	s.Stock(s.lamp, s.here, 10)
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 5},
		reservation.Line{ProductID: s.lamp, WarehouseID: s.here, Quantity: 2})
	s.reserve(s.mug, s.here, 1)
	before := pgtest.QueryOne[string](s.Fixture,
		"SELECT to_jsonb(r)::text || r.xmin FROM reservations r WHERE id = $1", hold.String())
	s.Exec("UPDATE products SET status = 'ARCHIVED'")
	s.Exec("UPDATE warehouses SET status = 'CLOSED'")
	s.Exec("UPDATE inventory SET open = false")

	one := s.takeBack(parcel(hold, "one", back(s.mug, s.here, 1), back(s.lamp, s.here, 2),
		backTo(s.mug, s.here, 1, nil), back(s.mug, s.here, 1)), "")
	two := s.takeBack(parcel(hold, "two", backTo(s.mug, s.here, 2, &s.there)), "")

	var got []string
	for _, line := range slices.Concat(one.Lines, two.Lines) {
		seq := int64(0)
		if line.Seq != nil {
			seq = *line.Seq
		}
		got = append(got, fmt.Sprint(line.ProductID == s.mug, " ", line.Quantity, " ", seq))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"false 2 3", "true 1 0", "true 2 2", "true 2 3"}, got); diff != "" {
		t.Errorf("the returned lines differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Lamp Here 3 2 10", "Mug Here 3 2 7", "Mug There 2 2 2"},
		s.movements("RETURN")); diff != "" {
		t.Errorf("the movements of returns differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Lamp Here 1 10 10", "Mug Here 1 10 10", "Mug There 1 0 0"},
		s.movements("OPENING")); diff != "" {
		t.Errorf("the openings differ (-want +got):\n%s", diff)
	}
	if counts := s.Counts(s.mug, s.here); counts != (pgtest.Counts{Total: 7, Reserved: 1}) {
		t.Errorf("the stock row is %+v, want 7 with 1 reserved", counts)
	}
	if one.Hold.ID != hold || one.Hold.Status != reservation.Confirmed || len(one.Hold.Lines) != 2 {
		t.Errorf("the hold is %+v, want the confirmed one", one.Hold)
	}
	if after := pgtest.QueryOne[string](s.Fixture,
		"SELECT to_jsonb(r)::text || r.xmin FROM reservations r WHERE id = $1",
		hold.String()); after != before {
		t.Errorf("the return changed the hold from %s to %s", before, after)
	}
	var excess *stock.ExcessError
	if _, err := s.stock.Return(s.Context(), parcel(hold, "three", back(s.mug, s.here, 1)),
		""); !errors.As(err, &excess) {
		t.Errorf("Return() of a sixth mug of five = %v, want it refused", err)
	}
	s.audit()
}

// Two holds may have returns of the same reference, and so may a document.
func TestAReferenceBelongsToItsHold(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	for range 2 {
		hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2})
		s.takeBack(parcel(hold, "r", back(s.mug, s.here, 1)), "")
		movements, _, err := s.stock.ListMovements(s.Context(), stock.MovementFilter{
			Source: ptr("/api/reservations/" + hold.String() + "/returns"), Reference: ptr("r"),
		}, stock.MovementCursor{}, 2)
		if err != nil || len(movements) != 1 || movements[0].Kind != "RETURN" ||
			*movements[0].ReservationID != hold {
			t.Errorf("the movements of the return are %+v, %v, want one of its hold", movements, err)
		}
	}
	d := document("r", delta(s.mug, s.here, 1))
	s.move(d, "APPLIED +1 to 9 by 6")
	d.Source = "/api/reservations/" + uuid.NewString() + "/returns"
	_, _, err := s.stock.Move(s.Context(), d, "")
	var bad *reservation.InvalidError
	if !errors.As(err, &bad) || len(bad.Fields["source"]) != 1 {
		t.Errorf("Move() from %s = %v, want the source refused", d.Source, err)
	}
	s.audit()
}

// The control: a source that doesn't name the hold makes two holds' returns the same line.
func TestAReferenceBelongsToAllHoldsWithoutTheHoldInItsSource(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	pgtest.Mutate(t, s.Database, "restock",
		"'/api/reservations/' || _line.reservation_id || '/returns'", "'/api/returns'")
	var failed error
	for range 2 {
		hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2})
		_, err := s.stock.Return(s.Context(), parcel(hold, "r", back(s.mug, s.here, 1)), "")
		failed = errors.Join(failed, err)
	}
	if failed == nil {
		t.Error("two returns of one line succeeded: the control proves nothing")
	}
}

func TestAReturnIsRepeated(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 5})
	r := parcel(hold, "r", back(s.mug, s.here, 2), backTo(s.mug, s.here, 1, nil))
	swapped := parcel(hold, "r", r.Lines[1], back(s.mug, s.here, 1), back(s.mug, s.here, 1))
	first := s.takeBack(r, "a")
	for name, c := range map[string]struct {
		r        stock.Return
		key      string
		replayed bool
	}{
		"without a key":            {r, "", false},
		"in another order":         {swapped, "", false},
		"under the key":            {r, "a", true},
		"under the key, otherwise": {swapped, "a", true},
		"under another key":        {r, "b", false},
	} {
		again := s.takeBack(c.r, c.key)
		if again.Replayed != c.replayed {
			t.Errorf("%s: replayed is %t, want %t", name, again.Replayed, c.replayed)
		}
		again.Replayed = false
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("%s: the answer differs (-first +again):\n%s", name, diff)
		}
	}
	if again := s.takeBack(r, "b"); !again.Replayed {
		t.Error("the answer under the reference wasn't stored under its key")
	}
	other := parcel(hold, "r", back(s.mug, s.here, 1))
	for key, want := range map[string]error{
		"": stock.ErrReferenceReused, "c": stock.ErrReferenceReused, "a": reservation.ErrKeyReused,
	} {
		if _, err := s.stock.Return(s.Context(), other, key); !errors.Is(err, want) {
			t.Errorf("Return() of other lines under the key %q = %v, want %v", key, err, want)
		}
	}
	elsewhere := parcel(hold, "r", backTo(s.mug, s.here, 2, &s.there), r.Lines[1])
	if _, err := s.stock.Return(s.Context(), elsewhere, ""); !errors.Is(err,
		stock.ErrReferenceReused) {
		t.Errorf("Return() to another warehouse = %v, want %v", err, stock.ErrReferenceReused)
	}
	ctx := principal.With(s.Context(), principal.Principal{Kind: principal.IAM, ID: "arn:shop"})
	if _, err := s.stock.Return(ctx, parcel(hold, "s", back(s.mug, s.here, 1)), "a"); err != nil {
		t.Errorf("Return() under another caller's key = %v, want it done", err)
	}
	const actors = `
SELECT string_agg(m.actor || ' ' || b.actor, '')
FROM returns b JOIN stock_movements m ON m.product_id = b.product_id AND m.seq = b.seq
WHERE b.reference = 's'`
	if got := pgtest.QueryOne[string](s.Fixture, actors); got != "arn:shop arn:shop" {
		t.Errorf("the actors are %q, want the caller", got)
	}
	if counts := s.Counts(s.mug, s.here); counts.Total != 8 {
		t.Errorf("the total is %d, want 8", counts.Total)
	}
	s.audit()
}

func TestAReturnIsRefused(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	s.Stock(s.lamp, s.here, 10)
	line := reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 1}
	sold := s.sell(line, reservation.Line{ProductID: s.lamp, WarehouseID: s.here, Quantity: 1})
	pending, dead := s.reserve(s.mug, s.here, 1), s.reserve(s.mug, s.here, 1)
	s.Kill(dead)
	released := s.reserve(s.mug, s.here, 1)
	if _, err := s.holds.Release(s.Context(), released, ""); err != nil {
		t.Fatal(err)
	}
	unknown := uuid.New()
	good := back(s.lamp, s.here, 1)
	for name, c := range map[string]struct {
		r    stock.Return
		want error
	}{
		"an unknown hold": {parcel(uuid.New(), "r", good), reservation.ErrNotFound},
		"a live hold":     {parcel(pending, "r", back(s.mug, s.here, 1)), stock.ErrNotConfirmed},
		"a dead hold":     {parcel(dead, "r", back(s.mug, s.here, 1)), stock.ErrNotConfirmed},
		"a released hold": {parcel(released, "r", back(s.mug, s.here, 1)), stock.ErrNotConfirmed},
		"an unknown place": {
			parcel(sold, "r", backTo(s.mug, s.here, 1, &unknown)), stock.ErrWarehouseNotFound,
		},
	} {
		for _, key := range []string{"", name} {
			if _, err := s.stock.Return(s.Context(), c.r, key); !errors.Is(err, c.want) {
				t.Errorf("Return() of %s = %v, want %v", name, err, c.want)
			}
		}
	}
	for name, c := range map[string]struct {
		lines []stock.ReturnLine
		want  []stock.Excess
	}{
		"too much": {
			[]stock.ReturnLine{good, back(s.mug, s.here, 1), backTo(s.mug, s.here, 2, nil)},
			[]stock.Excess{{ProductID: s.mug, WarehouseID: s.here, Sold: 1, Requested: 3}},
		},
		"of another warehouse": {
			[]stock.ReturnLine{good, back(s.mug, s.there, 1)},
			[]stock.Excess{{ProductID: s.mug, WarehouseID: s.there, Requested: 1}},
		},
		"of another product": {
			[]stock.ReturnLine{good, back(unknown, s.here, 7)},
			[]stock.Excess{{ProductID: unknown, WarehouseID: s.here, Requested: 7}},
		},
	} {
		_, err := s.stock.Return(s.Context(), parcel(sold, "r", c.lines...), "")
		var excess *stock.ExcessError
		if !errors.As(err, &excess) {
			t.Errorf("Return() of goods %s = %v, want it refused", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, excess.Lines); diff != "" {
			t.Errorf("the excess of goods %s differs (-want +got):\n%s", name, diff)
		}
	}
	one := s.sell(line)
	_, err := s.stock.Return(s.Context(), parcel(one, "r", back(s.lamp, s.here, 1)), "")
	var excess *stock.ExcessError
	if !errors.As(err, &excess) || excess.Lines[0].Sold != 0 {
		t.Errorf("Return() of a lamp of a hold of a mug = %v, want it refused", err)
	}
	if n := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM returns"); n != 0 {
		t.Errorf("refused returns left %d lines, want none", n)
	}
	if got := s.movements("RETURN"); len(got) != 0 {
		t.Errorf("refused returns left the movements %v, want none", got)
	}
	s.takeBack(parcel(sold, "r", good), "a live hold") // a refusal is stored neither here nor there
	s.audit()
}

// A return whose last line can't be restocked changes nothing.
func TestAReturnOfTooManyUnitsForAStockRowIsUndone(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	s.Stock(s.mug, s.there, 10)
	full := slices.MaxFunc([]uuid.UUID{s.here, s.there}, func(a, b uuid.UUID) int {
		return bytes.Compare(a[:], b[:])
	})
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2},
		reservation.Line{ProductID: s.mug, WarehouseID: s.there, Quantity: 2})
	s.move(document("much", counted(s.mug, full, 1_000_000_000, 0), delta(s.mug, full, 999_999_999)),
		"APPLIED +999999992 to 1000000000 by 3", "APPLIED +999999999 to 1999999999 by 4")
	r := parcel(hold, "r", back(s.mug, s.here, 2), back(s.mug, s.there, 2))

	if _, err := s.stock.Return(s.Context(), r, "key"); !errors.Is(err, stock.ErrTooManyUnits) {
		t.Errorf("Return() to a full shelf = %v, want %v", err, stock.ErrTooManyUnits)
	}

	if got := s.movements("RETURN"); len(got) != 0 {
		t.Errorf("the return left the movements %v, want none", got)
	}
	s.move(document("less", delta(s.mug, full, -1)), "APPLIED -1 to 1999999998 by 5")
	s.takeBack(r, "key")
	s.audit()
}

// The control: without the guard of the total, the integers of the stock row decide.
func TestATotalGrowsTooLargeWithoutItsGuard(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "restock", "<= max_total()", "<= 3000000000")
	s.Stock(s.mug, s.here, 10)
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2})
	s.move(document("much", counted(s.mug, s.here, 1_000_000_000, 0),
		delta(s.mug, s.here, 1_000_000_000)), "APPLIED +999999992 to 1000000000 by 3",
		"APPLIED +1000000000 to 2000000000 by 4")
	s.takeBack(parcel(hold, "r", back(s.mug, s.here, 2)), "")
	if total := s.Counts(s.mug, s.here).Total; total != 2_000_000_002 {
		t.Errorf("the total is %d: the control proves nothing", total)
	}
}

func TestAnInvalidReturnNamesItsFields(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	line := back(s.mug, s.here, 1)
	many := make([]stock.ReturnLine, stock.MaxReturnLines+1)
	for i := range many {
		many[i] = back(uuid.New(), s.here, 1)
	}
	for field, r := range map[string]stock.Return{
		"reference":         parcel(uuid.New(), "", line),
		"lines":             parcel(uuid.New(), "r"),
		"lines[1].quantity": parcel(uuid.New(), "r", back(s.mug, s.here, 5), back(s.mug, s.here, -1)),
		"lines[0].quantity": parcel(uuid.New(), "r", back(s.mug, s.here, reservation.MaxQuantity+1)),
	} {
		_, err := s.stock.Return(s.Context(), r, "")
		var bad *reservation.InvalidError
		if !errors.As(err, &bad) || len(bad.Fields) != 1 || len(bad.Fields[field]) != 1 {
			t.Errorf("Return() with an invalid %s = %v, want it named alone", field, err)
		}
	}
	for name, r := range map[string]stock.Return{
		"a long reference":    parcel(uuid.New(), strings.Repeat("é", 101), line),
		"a control character": parcel(uuid.New(), "a\x00b", line),
		"too many lines":      parcel(uuid.New(), "r", many...),
		"too many units together": parcel(uuid.New(), "r", line,
			back(s.mug, s.here, reservation.MaxQuantity)),
	} {
		var bad *reservation.InvalidError
		if _, err := s.stock.Return(s.Context(), r, ""); !errors.As(err, &bad) {
			t.Errorf("Return() with %s = %v, want it invalid", name, err)
		}
	}
	if _, err := s.stock.Return(s.Context(), parcel(uuid.New(), "r", many[1:]...),
		""); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("Return() of the most lines = %v, want %v", err, reservation.ErrNotFound)
	}
}

// raceOfReturns lets every caller return one unit of a line, again and again, each under a
// reference of its own. The hold may lie in the archive. It returns what went wrong.
func (s *shelf) raceOfReturns(ctx context.Context, archived bool) (wrong []string) {
	const sold, each = 2 * callers, 4
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: sold},
		reservation.Line{ProductID: s.lamp, WarehouseID: s.here, Quantity: 1})
	if archived {
		s.archive()
	}
	before := s.Counts(s.mug, s.here).Total
	var accepted, refused int
	var mu sync.Mutex
	together(callers, func(i int) {
		for n := range each {
			_, err := s.stock.Return(ctx,
				parcel(hold, fmt.Sprint(i, " ", n), back(s.mug, s.here, 1)), "")
			var excess *stock.ExcessError
			mu.Lock()
			switch {
			case err == nil:
				accepted++
			case errors.As(err, &excess) && excess.Lines[0].Returned == sold:
				refused++
			default:
				wrong = append(wrong, err.Error())
			}
			mu.Unlock()
		}
	})
	if total := s.Counts(s.mug, s.here).Total; accepted != sold || accepted+refused != callers*each ||
		total != before+sold {
		wrong = append(wrong, fmt.Sprintf("%d returns of %d units were accepted and %d refused, and "+
			"the total is %d, want %d", accepted, sold, refused, total, before+sold))
	}
	for _, v := range s.broken() {
		wrong = append(wrong, v.Promise+": "+v.Detail)
	}
	return wrong
}

func TestNoMoreComesBackThanWasSold(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 1000)
	s.Stock(s.lamp, s.here, 1000)
	for n := range 4 {
		if wrong := s.raceOfReturns(s.Context(), n%2 == 1); len(wrong) > 0 {
			t.Errorf("round %d: %q", n, wrong)
		}
	}
}

// mustGoWrong repeats a race until something goes wrong, as a control expects.
func mustGoWrong(t *testing.T, race func() (wrong []string)) {
	t.Helper()
	for range 40 {
		if wrong := race(); len(wrong) > 0 {
			t.Logf("broken, as expected: %.300q", wrong)
			return
		}
	}
	t.Error("without its guard nothing went wrong: the control proves nothing")
}

const (
	holdLock    = "WHERE id = _id FOR NO KEY UPDATE"
	archiveLock = "PERFORM pg_advisory_xact_lock(9, hashtext(_id::text));"
	noTrigger   = "DROP TRIGGER returned_within_sold ON returns"
	noIndexes   = "ALTER TABLE returns DROP CONSTRAINT returns_pkey; " +
		"DROP INDEX stock_movements_by_line"
	newIndexes = "CREATE INDEX ON returns (reservation_id); " +
		"CREATE INDEX ON stock_movements (source, reference, line)"
)

// The trigger is a guard of its own: without the verb's guards it refuses the return, and the
// caller gets an error that isn't documented.
func TestMoreComesBackThanWasSoldWithoutItsGuards(t *testing.T) {
	t.Parallel()

	const sum = "excess_of_return(_hold, _wanted)"
	for name, c := range map[string]struct{ routine, old, replacement, more string }{
		"the lock":                  {"lock_hold", holdLock, "WHERE id = _id", noTrigger},
		"the lock in the archive":   {"lock_hold", archiveLock, "", noTrigger},
		"the sum":                   {"take_back", sum, "NULL", noTrigger},
		"the sum alone":             {"take_back", sum, "NULL", "SELECT 1"},
		"the lock, with a trigger":  {"lock_hold", holdLock, "WHERE id = _id", "SELECT 1"},
		"the status of a live hold": {"take_back", "_hold.status <> 'CONFIRMED'", "false", noTrigger},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newShelf(t)
			s.Stock(s.mug, s.here, 100_000)
			s.Stock(s.lamp, s.here, 1000)
			pgtest.Mutate(t, s.Database, c.routine, c.old, c.replacement)
			s.Exec(c.more)
			if strings.Contains(name, "status") {
				hold := s.reserve(s.mug, s.here, 1)
				s.takeBack(parcel(hold, "r", back(s.mug, s.here, 1)), "")
				if broken := s.broken(); len(broken) != 1 || broken[0].Promise != "returns" {
					t.Errorf("Audit() = %v, want the return of a live hold", broken)
				}
				return
			}
			archived := strings.Contains(name, "archive")
			mustGoWrong(t, func() []string { return s.raceOfReturns(s.Context(), archived) })
		})
	}
}

// raceOfOneReturn sends one return from every caller at once. It returns what went wrong.
func (s *shelf) raceOfOneReturn(ctx context.Context) (wrong []string) {
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 50})
	before := s.Counts(s.mug, s.here).Total
	var answers []stock.Returned
	var mu sync.Mutex
	together(callers, func(i int) {
		key := ""
		if i%3 == 0 {
			key = fmt.Sprint(hold, i)
		}
		answer, err := s.stock.Return(ctx,
			parcel(hold, "r", back(s.mug, s.here, 2), backTo(s.mug, s.here, 1, nil)), key)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			wrong = append(wrong, err.Error())
			return
		}
		answers = append(answers, answer)
	})
	for _, answer := range answers {
		if diff := cmp.Diff(answers[0], answer); diff != "" {
			wrong = append(wrong, diff)
		}
	}
	if total := s.Counts(s.mug, s.here).Total; total != before+2 {
		wrong = append(wrong, fmt.Sprintf("the total is %d, want %d", total, before+2))
	}
	for _, v := range s.broken() {
		wrong = append(wrong, v.Promise+": "+v.Detail)
	}
	return wrong
}

func TestAReferenceHasOneEffect(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 1000)
	for n := range 5 {
		if wrong := s.raceOfOneReturn(s.Context()); len(wrong) > 0 {
			t.Errorf("round %d: %q", n, wrong)
		}
	}
}

func TestAReferenceHasTwoEffectsWithoutItsGuards(t *testing.T) {
	t.Parallel()

	for name, more := range map[string]string{
		"the lock alone":           noTrigger, // the indexes refuse the second return
		"the lock and the indexes": noTrigger + "; " + noIndexes + "; " + newIndexes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newShelf(t)
			s.Stock(s.mug, s.here, 100_000)
			pgtest.Mutate(t, s.Database, "lock_hold", holdLock, "WHERE id = _id")
			s.Exec(more)
			mustGoWrong(t, func() []string { return s.raceOfOneReturn(s.Context()) })
		})
	}
}

// raceOfOppositeReturns returns carts to each other's warehouses, beside documents of the same
// stock rows. It returns how many transactions ran again.
func (s *shelf) raceOfOppositeReturns(ctx context.Context) (deadlocks int64) {
	lines := []reservation.Line{
		{ProductID: s.mug, WarehouseID: s.here, Quantity: 8},
		{ProductID: s.mug, WarehouseID: s.there, Quantity: 8},
		{ProductID: s.lamp, WarehouseID: s.here, Quantity: 8},
		{ProductID: s.lamp, WarehouseID: s.there, Quantity: 8},
	}
	var holds [callers]uuid.UUID
	for i := range holds {
		holds[i] = s.sell(lines...)
	}
	before := s.holds.Retries()
	together(callers, func(i int) {
		for n := range 8 {
			var err error
			switch i % 3 {
			case 0:
				d := document(uuid.NewString(), delta(s.mug, s.here, 1), delta(s.mug, s.there, 1),
					delta(s.lamp, s.here, 1), delta(s.lamp, s.there, 1))
				d.Together = true
				_, _, err = s.stock.Move(ctx, d, "")
			default:
				_, err = s.stock.Return(ctx, parcel(holds[i], fmt.Sprint(n),
					backTo(s.lamp, s.there, 1, &s.here), backTo(s.mug, s.here, 1, &s.there),
					backTo(s.lamp, s.here, 1, &s.there), backTo(s.mug, s.there, 1, &s.here)), "")
			}
			if err != nil && s.holds.Retries() == before {
				s.t.Errorf("a call = %v", err)
			}
		}
	})
	return s.holds.Retries() - before
}

func TestReturnsNeverDeadlock(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	for _, product := range []uuid.UUID{s.mug, s.lamp} {
		s.Stock(product, s.here, 1000)
		s.Stock(product, s.there, 1000)
	}
	if n := s.raceOfOppositeReturns(s.Context()); n != 0 {
		t.Errorf("%d transactions ran again, want none", n)
	}
	s.audit()
}

func TestReturnsDeadlockWithoutTheSort(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	for _, product := range []uuid.UUID{s.mug, s.lamp} {
		s.Stock(product, s.here, 100_000)
		s.Stock(product, s.there, 100_000)
	}
	s.Exec("ALTER DATABASE " + s.Name + " SET deadlock_timeout = '20ms'")
	pgtest.Mutate(t, s.Database, "return_goods", "array_agg(l ORDER BY l.line)",
		"array_agg(l ORDER BY random())")
	for range 40 {
		if s.raceOfOppositeReturns(s.Context()) > 0 {
			return
		}
	}
	t.Error("without the sort nothing deadlocked: the control proves nothing")
}

// rowsLockedBesideTheCatalog returns goods to a stock row that exists, and to a later one that
// doesn't, while the catalog is locked. It reports whether the first row is locked by then.
func (s *shelf) rowsLockedBesideTheCatalog() bool {
	s.t.Helper()
	s.Patient()
	warehouses := []uuid.UUID{s.here, s.there}
	slices.SortFunc(warehouses, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	first, second := warehouses[0], warehouses[1]
	s.Stock(s.mug, first, 10)
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: first, Quantity: 2})
	unlock := s.Lock("SELECT pg_advisory_xact_lock(4, 0)")
	wait := begin(s.Context(), func() error {
		_, err := s.stock.Return(s.Context(), parcel(hold, "r", back(s.mug, first, 1),
			backTo(s.mug, first, 1, &second)), "")
		return err
	})
	s.WaitForBlocked(1)
	const free = `
SELECT count(*) = 1 FROM (
    SELECT FROM inventory WHERE warehouse_id = $1 FOR UPDATE SKIP LOCKED) i`
	locked := !pgtest.QueryOne[bool](s.Fixture, free, first.String())
	unlock()
	if err := wait(); err != nil {
		s.t.Errorf("Return() = %v", err)
	}
	s.audit()
	return locked
}

func TestAReturnSharesTheCatalogBeforeItLocksAStockRow(t *testing.T) {
	t.Parallel()

	if newShelf(t).rowsLockedBesideTheCatalog() {
		t.Error("a return waits for the catalog while it has locked a stock row")
	}
}

func TestAReturnWaitsForTheCatalogWithAStockRowWithoutItsGuard(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "take_back", "PERFORM share_catalog_for_new_rows(_wanted);", "")
	if !s.rowsLockedBesideTheCatalog() {
		t.Error("the stock row isn't locked: the control proves nothing")
	}
}

// The audit finds a return that contradicts its hold or its movement.
func TestTheAuditFindsWrongReturns(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	hold := s.sell(reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 3})
	s.takeBack(parcel(hold, "r", back(s.mug, s.here, 1)), "")
	s.audit()
	s.Exec(noTrigger)
	s.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay")
	for name, c := range map[string]struct {
		plant, undo string
		want        int
	}{
		"more is back than was sold": {
			"UPDATE returns SET quantity = 4, to_warehouse_id = NULL, seq = NULL",
			"UPDATE returns SET quantity = 1, to_warehouse_id = warehouse_id, seq = 3", 2,
		},
		"the movement is of more units": {
			"UPDATE returns SET quantity = 2", "UPDATE returns SET quantity = 1", 1,
		},
		"the movement is another one": {
			"UPDATE returns SET seq = 2", "UPDATE returns SET seq = 3", 2,
		},
		"the movement is of another line": {
			"UPDATE stock_movements SET line = 2 WHERE kind = 'RETURN'",
			"UPDATE stock_movements SET line = 1 WHERE kind = 'RETURN'", 2,
		},
		"the hold is missing": {
			"UPDATE returns SET reservation_id = gen_random_uuid()",
			"UPDATE returns SET reservation_id = '" + hold.String() + "'", 3,
		},
		"the line is another product's": {
			"UPDATE returns SET product_id = gen_random_uuid()",
			"UPDATE returns SET product_id = '" + s.mug.String() + "'", 2,
		},
	} {
		s.Exec(c.plant)
		broken := s.broken()
		if len(broken) != c.want {
			t.Errorf("%s: Audit() = %v, want %d", name, broken, c.want)
		}
		for _, v := range broken {
			if v.Promise != "returns" {
				t.Errorf("%s: Audit() = %v, want returns", name, v)
			}
		}
		s.Exec(c.undo)
	}
	s.audit()
}

// The schema refuses what the verb refuses.
func TestTheSchemaRefusesAReturnOfMoreThanWasSold(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 10)
	s.Stock(s.lamp, s.here, 10)
	line := reservation.Line{ProductID: s.mug, WarehouseID: s.here, Quantity: 2}
	one := s.sell(line)
	cart := s.sell(line, reservation.Line{ProductID: s.lamp, WarehouseID: s.here, Quantity: 2})
	live := s.reserve(s.mug, s.here, 2)
	insert := func(hold, product uuid.UUID, quantity int) error {
		_, err := s.Admin.Exec(s.Context(), `
INSERT INTO returns (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
VALUES ($1, gen_random_uuid()::text, 1, $2, $3, $4, now())`, hold.String(), product.String(),
			s.here.String(), quantity)
		return err
	}
	for name, err := range map[string]error{
		"of a line":          insert(one, s.mug, 3),
		"of another product": insert(one, s.lamp, 1),
		"of a cart":          insert(cart, s.lamp, 3),
		"of a live hold":     insert(live, s.mug, 1),
		"of no hold":         insert(uuid.New(), s.mug, 1),
		"of no units":        insert(one, s.mug, 0),
	} {
		if err == nil || !strings.Contains(err.Error(), "23514") {
			t.Errorf("a return %s = %v, want a check violation", name, err)
		}
	}
	if err := errors.Join(insert(one, s.mug, 2), insert(cart, s.mug, 2), insert(cart, s.lamp, 1),
		insert(cart, s.lamp, 1)); err != nil {
		t.Error(err)
	}
	s.audit()
}
