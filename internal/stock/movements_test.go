package stock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// shelf is a database with two products in two warehouses, and no stock.
type shelf struct {
	*pgtest.Fixture
	t         *testing.T
	mug, lamp uuid.UUID
	here      uuid.UUID
	there     uuid.UUID
	holds     *reservation.Service
	stock     *stock.Service
	close     func()
}

const callers = 12

func newShelf(t *testing.T) *shelf {
	t.Helper()
	return newShelfOf(t, callers+2)
}

// newShelfOf is newShelf for services that share so many connections.
func newShelfOf(t *testing.T, connections int) *shelf {
	t.Helper()
	f := pgtest.NewFixtureOfSize(t, pgtest.New(t), 4)
	s := &shelf{
		Fixture: f, t: t, mug: f.NamedProduct("Mug", "CM-300"), lamp: f.NamedProduct("Lamp", "LA-400"),
		here: f.NamedWarehouse("Here"), there: f.NamedWarehouse("There"),
	}
	pool, err := postgres.Open(postgres.URL(f.URL), connections)
	if err != nil {
		t.Fatal(err)
	}
	s.close = sync.OnceFunc(pool.Close)
	t.Cleanup(s.close)
	s.holds = reservation.New(pool,
		reservation.Options{HoldTTL: 10 * time.Minute, MaxHold: time.Hour})
	s.stock = stock.New(s.holds)
	return s
}

func (s *shelf) audit() {
	s.t.Helper()
	if broken := s.broken(); len(broken) > 0 {
		s.t.Errorf("Audit() = %v, want none", broken)
	}
}

func (s *shelf) broken() []reservation.Violation {
	s.t.Helper()
	violations, err := s.holds.Audit(s.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return violations
}

// delta changes the total of a product in a warehouse.
func delta(product, warehouse uuid.UUID, units int) stock.Line {
	return stock.Line{ProductID: &product, WarehouseID: &warehouse, Delta: &units}
}

// counted counts a product in a warehouse, as of a movement unless seq is 0.
func counted(product, warehouse uuid.UUID, units int, seq int64) stock.Line {
	line := stock.Line{ProductID: &product, WarehouseID: &warehouse, Counted: &units}
	if seq != 0 {
		line.AsOfSeq = &seq
	}
	return line
}

func document(reference string, lines ...stock.Line) stock.Document {
	return stock.Document{Source: "erp", Reference: reference, Lines: lines}
}

// text writes a result for a comparison: outcome, delta, total, number, shortfall, problem, held.
func text(r stock.LineResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %+d", r.Outcome, r.Delta)
	if r.Total != nil && r.Seq != nil {
		fmt.Fprintf(&b, " to %d by %d", *r.Total, *r.Seq)
	}
	if r.Shortfall != nil {
		fmt.Fprintf(&b, ", short of %d", *r.Shortfall)
	}
	if r.Problem != "" {
		b.WriteString(", " + r.Problem)
	}
	if r.Held != nil {
		fmt.Fprintf(&b, " %d", *r.Held)
	}
	return b.String()
}

func texts(results []stock.LineResult) (lines []string) {
	for i, r := range results {
		if r.Line != i+1 {
			return []string{fmt.Sprintf("result %d is of line %d", i, r.Line)}
		}
		lines = append(lines, text(r))
	}
	return lines
}

func (s *shelf) move(d stock.Document, want ...string) {
	s.t.Helper()
	results, _, err := s.stock.Move(s.Context(), d, "")
	if err != nil {
		s.t.Fatalf("Move(%+v) = %v", d, err)
	}
	if diff := cmp.Diff(want, texts(results)); diff != "" {
		s.t.Errorf("the results of %s differ (-want +got):\n%s", d.Reference, diff)
	}
}

func (s *shelf) reserve(product, warehouse uuid.UUID, units int) uuid.UUID {
	s.t.Helper()
	answer, err := s.holds.Reserve(s.Context(), reservation.Request{Lines: []reservation.Line{
		{ProductID: product, WarehouseID: warehouse, Quantity: units},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.Hold.ID
}

func (s *shelf) confirm(hold uuid.UUID) {
	s.t.Helper()
	if _, err := s.holds.Confirm(s.Context(), hold, ""); err != nil {
		s.t.Fatal(err)
	}
}

func TestLinesOfEachKind(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Exec("UPDATE warehouses SET code = 'W-' || name")
	s.move(document("delivery", delta(s.mug, s.here, 10), delta(s.mug, s.there, -1),
		counted(s.lamp, s.here, 0, 0), counted(s.lamp, s.there, 5, 1),
		delta(uuid.New(), s.here, 1), delta(s.mug, uuid.New(), 1),
		stock.Line{SKU: ptr("cm-300"), WarehouseID: &s.here, Delta: ptr(1)},
		stock.Line{SKU: ptr("CM-300"), Warehouse: ptr("w-here"), Delta: ptr(-1)},
		stock.Line{SKU: ptr("CM-300"), Warehouse: ptr("W-Here"), Delta: ptr(-1)}),
		"APPLIED +10 to 10 by 1", "REFUSED +0, STOCK_HELD 0", "APPLIED +0 to 0 by 1",
		"REFUSED +0, SEQ_UNKNOWN", "REFUSED +0, PRODUCT_NOT_FOUND",
		"REFUSED +0, WAREHOUSE_NOT_FOUND", "REFUSED +0, PRODUCT_NOT_FOUND",
		"REFUSED +0, WAREHOUSE_NOT_FOUND", "APPLIED -1 to 9 by 2")
	s.move(document("delivery", delta(s.mug, s.here, 10), delta(s.mug, s.there, 1),
		counted(s.lamp, s.here, 1, 0), counted(s.lamp, s.there, 5, 0)),
		"REPLAYED +10 to 10 by 1", "APPLIED +1 to 1 by 1", "REFUSED +0, REFERENCE_REUSED",
		"APPLIED +5 to 5 by 1")
	if !pgtest.QueryOne[bool](s.Fixture, "SELECT bool_and(first_end = 'infinity') FROM inventory") {
		t.Error("a stock row without a hold seems to have a dead one")
	}

	s.reserve(s.mug, s.here, 3)
	s.confirm(s.reserve(s.mug, s.here, 2)) // movement 3
	s.move(document("count", counted(s.mug, s.here, 7, 0), counted(s.mug, s.here, 8, 2),
		counted(s.mug, s.here, 8, 9), counted(s.mug, s.here, 2, 0), delta(s.mug, s.here, -4)),
		"UNCHANGED +0 to 7 by 4", "APPLIED -1 to 6 by 5", "REFUSED +0, SEQ_UNKNOWN",
		"REFUSED +0, STOCK_HELD 3", "REFUSED +0, STOCK_HELD 3")
	s.move(document("count", counted(s.mug, s.here, 7, 0), counted(s.mug, s.here, 8, 3)),
		"REPLAYED +0 to 7 by 4", "REFUSED +0, REFERENCE_REUSED")

	clamped := document("loss", delta(s.mug, s.here, -10), counted(s.mug, s.here, 1, 0),
		counted(s.mug, s.here, 1, 3), delta(s.lamp, s.there, -6))
	clamped.Clamp = true
	s.move(clamped, "APPLIED -3 to 3 by 6, short of 7", "UNCHANGED +0 to 3 by 7, short of 2",
		"UNCHANGED +0 to 3 by 8, short of 6", "APPLIED -5 to 0 by 2, short of 1")
	s.move(clamped, "REPLAYED -3 to 3 by 6, short of 7", "REPLAYED +0 to 3 by 7, short of 2",
		"REPLAYED +0 to 3 by 8, short of 6", "REPLAYED -5 to 0 by 2, short of 1")

	s.move(document("much", counted(s.mug, s.here, stock.MaxUnits, 0),
		delta(s.mug, s.here, stock.MaxUnits), delta(s.mug, s.here, 1)),
		"APPLIED +999999997 to 1000000000 by 9", "APPLIED +1000000000 to 2000000000 by 10",
		"REFUSED +0, TOO_MANY_UNITS")
	s.audit()
}

// An export may have lines of no change. Each is remembered by a movement, so that other numbers
// can't be applied under its reference.
func TestALineOfNoChangeIsRemembered(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	lines := []stock.Line{
		delta(s.mug, s.here, 5), delta(s.mug, s.here, 0), delta(s.lamp, s.there, 0),
	}
	s.move(document("export", lines...),
		"APPLIED +5 to 5 by 1", "UNCHANGED +0 to 5 by 2", "APPLIED +0 to 0 by 1")
	s.move(document("export", lines...),
		"REPLAYED +5 to 5 by 1", "REPLAYED +0 to 5 by 2", "REPLAYED +0 to 0 by 1")
	s.move(document("export", delta(s.mug, s.here, 0), delta(s.mug, s.here, 5),
		counted(s.lamp, s.there, 0, 0)), "REFUSED +0, REFERENCE_REUSED",
		"REFUSED +0, REFERENCE_REUSED", "REFUSED +0, REFERENCE_REUSED")
	together := document("together", delta(s.mug, s.here, 0), delta(s.mug, s.here, -1))
	together.Together = true
	s.move(together, "UNCHANGED +0 to 5 by 3", "APPLIED -1 to 4 by 4")
	s.audit()

	// An adjustment that no document asks for changes the total.
	_, err := s.Admin.Exec(s.Context(), "SELECT adjust_stock($1, $2, 0, 'nothing')",
		s.mug.String(), s.here.String())
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.ConstraintName != "i8_whole_movement" {
		t.Errorf("adjust_stock() by 0 = %v, want it refused", err)
	}
}

// The control: without its case in the trigger, the line is refused by the database.
func TestALineOfNoChangeFailsWithoutItsCase(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.move(document("delivery", delta(s.mug, s.here, 5)), "APPLIED +5 to 5 by 1")
	pgtest.Mutate(t, s.Database, "refuse_wrong_movement", "new.asked IS DISTINCT FROM 0", "true")
	_, _, err := s.stock.Move(s.Context(), document("export", delta(s.mug, s.here, 0)), "")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.ConstraintName != "i8_whole_movement" {
		t.Errorf("Move() by 0 = %v, want it refused by i8_whole_movement", err)
	}
}

// A key changes nothing of what a line answers that meets another one under its reference.
func TestALineOfOtherNumbersIsRefusedWithAKeyToo(t *testing.T) {
	t.Parallel()

	for _, key := range []string{"", "k"} {
		s := newShelf(t)
		s.move(document("delivery", delta(s.mug, s.here, 5), counted(s.lamp, s.here, 5, 0)),
			"APPLIED +5 to 5 by 1", "APPLIED +5 to 5 by 1")
		for name, lines := range map[string][]stock.Line{
			"another product":    {delta(s.lamp, s.there, 5), counted(s.mug, s.here, 5, 0)},
			"another kind":       {counted(s.mug, s.here, 5, 0), delta(s.lamp, s.here, 5)},
			"other numbers":      {delta(s.mug, s.here, 6), counted(s.lamp, s.here, 5, 1)},
			"an unknown product": {delta(uuid.New(), s.here, 5), counted(uuid.New(), s.here, 5, 0)},
		} {
			if key != "" {
				key = "k of " + strings.ReplaceAll(name, " ", "-")
			}
			results, _, err := s.stock.Move(s.Context(), document("delivery", lines...), key)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Outcome != "REFUSED" {
					t.Errorf("%s under the key %q = %s, want REFUSED", name, key, text(r))
				}
			}
		}
		s.move(document("delivery", delta(s.mug, s.here, 5), counted(s.lamp, s.here, 5, 0)),
			"REPLAYED +5 to 5 by 1", "REPLAYED +5 to 5 by 1")
		s.audit()
	}
}

func TestDeadUnitsMayBeTakenAway(t *testing.T) {
	t.Parallel()

	const dead = 1500 // more than a step of reclaim_step()
	s := newShelf(t)
	s.Stock(s.mug, s.here, dead+5)
	s.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), $1, $2, 1, now() - interval '2 h', now() - interval '2 h',
       now() - interval '1 h' FROM generate_series(1, $3)`,
		s.mug.String(), s.here.String(), dead)
	s.Exec("UPDATE inventory SET reserved = $1", dead)
	s.reserve(s.mug, s.here, 2)
	s.Exec("UPDATE inventory SET first_end = '-infinity'")

	s.move(document("one", delta(s.mug, s.here, -4)), "APPLIED -4 to 1501 by 2")
	s.move(document("count", counted(s.mug, s.here, 1, 0)), "REFUSED +0, STOCK_HELD 2")
	s.move(document("two", counted(s.mug, s.here, 2, 0)), "APPLIED -1499 to 2 by 3")
	s.audit()
}

func TestALineThatNeedsTooManyDeadHoldsFreesThemInSteps(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 3)
	for range 3 {
		s.Kill(s.reserve(s.mug, s.here, 1))
	}
	pgtest.Mutate(t, s.Database, "reclaim_step", "SELECT 1000", "SELECT 1")
	pgtest.Mutate(t, s.Database, "try_to_move", "interval '2 s'", "interval '0 s'")

	s.move(document("loss", delta(s.mug, s.here, -3)), "APPLIED -3 to 0 by 2")
	s.audit()
}

func TestTogetherIsAllOrNothing(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	d := document("move", delta(s.mug, s.here, 5), delta(s.lamp, s.there, 3),
		delta(s.mug, s.here, -6), delta(s.lamp, s.here, 1))
	d.Together = true

	_, _, err := s.stock.Move(s.Context(), d, "key")

	var refused *stock.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("Move() = %v, want it refused", err)
	}
	if diff := cmp.Diff([]string{
		"UNCHANGED +0", "UNCHANGED +0", "REFUSED +0, STOCK_HELD 0", "UNCHANGED +0",
	}, texts(refused.Results)); diff != "" {
		t.Errorf("the results differ (-want +got):\n%s", diff)
	}
	if n := pgtest.QueryOne[int](s.Fixture, "SELECT count(*) FROM stock_movements"); n != 0 {
		t.Errorf("a refused document left %d movements, want none", n)
	}

	d.Lines[2].Delta = ptr(-5) // the key wasn't used, as nothing was stored
	if _, _, err := s.stock.Move(s.Context(), d, "key"); err != nil {
		t.Fatal(err)
	}
	const transactions = "SELECT count(DISTINCT xid) FROM stock_movements WHERE source = 'erp'"
	if n := pgtest.QueryOne[int](s.Fixture, transactions); n != 1 {
		t.Errorf("a document together has %d transactions, want 1", n)
	}
	d.Together = false
	s.move(d, "REPLAYED +5 to 5 by 1", "REPLAYED +3 to 3 by 1", "REPLAYED -5 to 0 by 2",
		"REPLAYED +1 to 1 by 1")
	s.move(document("apart", delta(s.mug, s.here, 1), delta(s.mug, s.here, 1)),
		"APPLIED +1 to 1 by 3", "APPLIED +1 to 2 by 4")
	if n := pgtest.QueryOne[int](s.Fixture, transactions); n != 3 {
		t.Errorf("two lines apart have %d transactions, want 2", n-1)
	}
	s.audit()
}

func TestAnInvalidDocumentNamesItsFields(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	valid := func(change func(d *stock.Document)) stock.Document {
		d := document("r", delta(s.mug, s.here, 1))
		change(&d)
		return d
	}
	for name, d := range map[string]stock.Document{
		"source":    valid(func(d *stock.Document) { d.Source = "" }),
		"reference": valid(func(d *stock.Document) { d.Reference = strings.Repeat("é", 101) }),
		"lines":     valid(func(d *stock.Document) { d.Lines = slices.Repeat(d.Lines, 501) }),
		"lines[0].sku": valid(func(d *stock.Document) {
			d.Lines[0].SKU = ptr("CM-300")
		}),
		"lines[0].warehouse": valid(func(d *stock.Document) { d.Lines[0].WarehouseID = nil }),
		"lines[0].delta": valid(func(d *stock.Document) {
			d.Lines[0].Delta = ptr(stock.MaxUnits + 1)
		}),
		"lines[0].asOfSeq": valid(func(d *stock.Document) { d.Lines[0].AsOfSeq = ptr(int64(1)) }),
		"lines[0].note":    valid(func(d *stock.Document) { d.Lines[0].Note = ptr("a\x00b") }),
		"lines[0].counted": valid(func(d *stock.Document) {
			d.Lines[0].Delta, d.Lines[0].Counted = nil, ptr(-1)
		}),
	} {
		_, _, err := s.stock.Move(s.Context(), d, "")
		var bad *reservation.InvalidError
		if !errors.As(err, &bad) || len(bad.Fields) != 1 || len(bad.Fields[name]) != 1 {
			t.Errorf("Move() with an invalid %s = %v, want it named alone", name, err)
		}
	}
	wrong := document("wrong", slices.Repeat([]stock.Line{{}}, 500)...)
	_, _, err := s.stock.Move(s.Context(), wrong, "")
	var bad *reservation.InvalidError
	if !errors.As(err, &bad) || len(bad.Fields) != 300 {
		t.Errorf("Move() of 500 empty lines = %.200v, want 300 fields named", err)
	}
	s.move(document("500", slices.Repeat([]stock.Line{delta(s.mug, s.here, 1)}, 500)...),
		append([]string{"APPLIED +1 to 1 by 1"}, appliedOnes(500)...)...)
}

// appliedOnes are the results of lines 2 to n of one unit each.
func appliedOnes(n int) (want []string) {
	for i := 2; i <= n; i++ {
		want = append(want, fmt.Sprintf("APPLIED +1 to %d by %d", i, i))
	}
	return want
}

func TestAKeyHasOneAnswer(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	d := document("delivery", delta(s.mug, s.here, 10), delta(s.mug, s.there, -1))
	first, replayed, err := s.stock.Move(s.Context(), d, "key")
	if err != nil || replayed {
		t.Fatalf("Move() = %t, %v, want it done", replayed, err)
	}
	again, replayed, err := s.stock.Move(s.Context(), d, "key")
	if diff := cmp.Diff(first, again); err != nil || !replayed || diff != "" {
		t.Errorf("Move() again = %t, %v (-first +again):\n%s", replayed, err, diff)
	}
	d.Lines = d.Lines[:1]
	if _, _, err := s.stock.Move(s.Context(), d, "key"); !errors.Is(err, reservation.ErrKeyReused) {
		t.Errorf("Move() of another document under the key = %v, want %v", err,
			reservation.ErrKeyReused)
	}
	ctx := principal.With(s.Context(), principal.Principal{Kind: principal.IAM, ID: "arn:erp"})
	if _, replayed, err := s.stock.Move(ctx, document("two", delta(s.mug, s.here, 1)),
		"key"); err != nil || replayed {
		t.Errorf("Move() under another caller's key = %t, %v, want it done", replayed, err)
	}
	const actor = "SELECT actor FROM stock_movements WHERE reference = 'two'"
	if got := pgtest.QueryOne[string](s.Fixture, actor); got != "arn:erp" {
		t.Errorf("the actor is %q, want the caller", got)
	}
	s.audit()
}

// A call that fails half-way binds its key all the same, and its repeat goes on.
func TestACallThatFailedHalfWayIsRepeated(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 1)
	s.Stock(s.lamp, s.here, 1)
	d := document("delivery", delta(s.mug, s.here, 1), delta(s.lamp, s.here, 1))
	unlock := s.Lock("SELECT 1 FROM inventory WHERE product_id = $1 FOR UPDATE", s.lamp.String())

	_, _, err := s.stock.Move(s.Context(), d, "key")

	if !errors.Is(err, stock.ErrIncomplete) {
		t.Errorf("Move() beside a locked row = %v, want %v", err, stock.ErrIncomplete)
	}
	unlock()
	other := document("delivery", delta(s.mug, s.here, 1))
	if _, _, err := s.stock.Move(s.Context(), other, "key"); !errors.Is(err,
		reservation.ErrKeyReused) {
		t.Errorf("Move() of another document = %v, want %v", err, reservation.ErrKeyReused)
	}
	for _, want := range []bool{false, true} {
		results, replayed, err := s.stock.Move(s.Context(), d, "key")
		if diff := cmp.Diff([]string{"REPLAYED +1 to 2 by 2", "APPLIED +1 to 2 by 2"},
			texts(results)); err != nil || replayed != want || diff != "" {
			t.Errorf("the repeat = %t, %v (-want +got):\n%s", replayed, err, diff)
		}
	}
	s.audit()
}

// refuseThenApply sends one document twice under one key. The first call refuses line 1, because
// its units are held. Then they are released, and the second call gets the key between the first
// call's last two transactions: a lock of the mug stops it there until the first call waits for the
// key. It returns what line 1 did to the total by each answer.
func (s *shelf) refuseThenApply() (deltas []int) {
	s.t.Helper()
	s.Patient()
	s.Stock(s.mug, s.here, 5)
	s.Stock(s.lamp, s.here, 0)
	hold := s.reserve(s.mug, s.here, 5)
	const lock = "SELECT 1 FROM inventory WHERE product_id = $1 FOR UPDATE"
	unlockLamp := s.Lock(lock, s.lamp.String())
	d := document("correction", delta(s.mug, s.here, -5), delta(s.lamp, s.here, 1))
	answers := make(chan []stock.LineResult, 2)
	send := func(waiting int) {
		go func() {
			results, _, err := s.stock.Move(s.Context(), d, "key")
			if err != nil {
				s.t.Errorf("Move() = %v", err)
			}
			answers <- results
		}()
		s.WaitUntil(`
SELECT count(*) = $1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`, waiting)
	}
	send(1)
	if _, err := s.holds.Release(s.Context(), hold, ""); err != nil {
		s.t.Fatal(err)
	}
	unlockMug := s.Lock(lock, s.mug.String())
	send(2)
	unlockLamp()
	s.WaitUntil(`
SELECT count(*) > 0 FROM pg_stat_activity first, unnest(pg_blocking_pids(first.pid)) second
WHERE first.datname = current_database() AND pg_blocking_pids(second) <> '{}'`)
	unlockMug()
	for range 2 {
		if results := <-answers; len(results) == 2 {
			deltas = append(deltas, results[0].Delta)
		}
	}
	return deltas
}

func TestAnAnswerTellsOfALineThatAnEqualCallApplied(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	if diff := cmp.Diff([]int{-5, -5}, s.refuseThenApply()); diff != "" {
		t.Errorf("line 1 changed the total by (-want +got):\n%s", diff)
	}
	if total := s.Counts(s.mug, s.here).Total; total != 0 {
		t.Errorf("the total is %d, want 0", total)
	}
	s.audit()
}

func TestAnAnswerRefusesAnAppliedLineWithoutTheLastLook(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "move_stock", "_results := applied_since(_wanted, _results);", "")
	if diff := cmp.Diff([]int{0, 0}, s.refuseThenApply()); diff != "" {
		t.Errorf("line 1 changed the total by (-want +got):\n%s", diff)
	}
}

// raceOfOneDocument sends a document from every caller at once, while others reserve. It returns
// what went wrong.
func (s *shelf) raceOfOneDocument(ctx context.Context, reference string) (wrong []string) {
	const lines = 5
	before := s.Counts(s.mug, s.here).Total
	var applied, sold int
	var mu sync.Mutex
	together(callers, func(i int) {
		if i%4 == 3 {
			answer, err := s.holds.Reserve(ctx, reservation.Request{Lines: []reservation.Line{
				{ProductID: s.mug, WarehouseID: s.here, Quantity: 1},
			}})
			if err == nil {
				_, err = s.holds.Confirm(ctx, answer.Hold.ID, "")
			}
			mu.Lock()
			defer mu.Unlock()
			if sold++; err != nil {
				wrong = append(wrong, err.Error())
			}
			return
		}
		d := document(reference, slices.Repeat([]stock.Line{delta(s.mug, s.here, 3)}, lines)...)
		d.Together = i%2 == 0
		results, _, err := s.stock.Move(ctx, d, "")
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		for _, r := range results {
			if r.Outcome == stock.LineApplied {
				applied++
			}
		}
	})
	if want := before + 3*lines - sold; applied != lines || s.Counts(s.mug, s.here).Total != want {
		wrong = append(wrong, fmt.Sprintf("%d lines of %d were applied, and the total is %d, want %d",
			applied, lines, s.Counts(s.mug, s.here).Total, want))
	}
	for _, v := range s.broken() {
		wrong = append(wrong, v.Promise+": "+v.Detail)
	}
	return wrong
}

func TestADocumentIsAppliedOnce(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 100)
	for n := range 5 {
		if wrong := s.raceOfOneDocument(s.Context(), fmt.Sprint("document ", n)); len(wrong) > 0 {
			t.Errorf("round %d: %q", n, wrong)
		}
	}
}

func TestADocumentIsAppliedTwiceWithoutItsGuards(t *testing.T) {
	t.Parallel()

	const lock = "PERFORM pg_advisory_xact_lock(5, hashtext(" +
		"_wanted[1].source || E'\\n' || _wanted[1].reference));"
	for name, more := range map[string]string{
		"the lock alone":         "SELECT 1", // the index refuses the second line
		"the lock and the index": "DROP INDEX stock_movements_by_line",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newShelf(t)
			s.Stock(s.mug, s.here, 100)
			pgtest.Mutate(t, s.Database, "move_lines", lock, "")
			s.Exec(more)
			s.Exec("CREATE INDEX ON stock_movements (source, reference, line)")
			for n := range 40 {
				wrong := s.raceOfOneDocument(s.Context(), fmt.Sprint("document ", n))
				if len(wrong) > 0 {
					t.Logf("broken, as expected: %.300q", wrong)
					return
				}
			}
			t.Error("without its guards a document was applied once: the control proves nothing")
		})
	}
}

// clampBesideAReserve applies a line while another session, which has locked the only stock row,
// reserves two units of it. It returns what became of the line, and the stock row.
func (s *shelf) clampBesideAReserve(line stock.Line) (result string, counts pgtest.Counts) {
	s.t.Helper()
	s.Patient()
	ctx := s.Context()
	tx, err := s.Admin.Begin(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, sql := range []string{
		`INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), product_id, warehouse_id, 2, now(), now(), now() + interval '10 min'
FROM inventory`,
		"UPDATE inventory SET reserved = reserved + 2",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			s.t.Fatal(err)
		}
	}
	together(2, func(i int) {
		if i == 0 {
			d := document("clamp", line)
			d.Clamp = true
			results, _, err := s.stock.Move(ctx, d, "")
			if result = fmt.Sprint(err); err == nil {
				result = text(results[0])
			}
			return
		}
		err := pgtest.Wait(ctx, s.Admin, `
SELECT count(*) = 1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		if err := errors.Join(err, tx.Commit(ctx)); err != nil {
			s.t.Error(err)
		}
	})
	return result, s.Counts(s.mug, s.here)
}

func TestAClampSeesAReserveThatItWaitedFor(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 4)
	result, counts := s.clampBesideAReserve(counted(s.mug, s.here, 0, 0))
	if want := (pgtest.Counts{Total: 2, Reserved: 2}); counts != want ||
		result != "APPLIED -2 to 2 by 2, short of 2" {
		t.Errorf("the clamp = %s, and the stock row is %+v, want two units left", result, counts)
	}
	s.audit()
}

func TestAClampTakesWhatIsHeldWithoutItsGuard(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Exec("ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total")
	pgtest.Mutate(t, s.Database, "try_to_move", "SET total = greatest(_total, _lowest)",
		"SET total = greatest(_total, _look.reserved - _freed)")
	pgtest.Mutate(t, s.Database, "try_to_move",
		"(NOT _clamp OR _look.total >= _look.reserved - _look.dead)", "NOT _clamp")
	s.Stock(s.mug, s.here, 4)
	result, counts := s.clampBesideAReserve(counted(s.mug, s.here, 0, 0))
	if counts.Total >= counts.Reserved {
		t.Errorf("the clamp = %s, and the stock row is %+v: the control proves nothing", result,
			counts)
	}
}

// clampOfDeadUnits takes four of twelve units beside a reserve of two. Five more are live and four
// are dead, so eight are left without a shortfall.
func (s *shelf) clampOfDeadUnits() (result string) {
	s.t.Helper()
	s.Patient()
	s.Stock(s.mug, s.here, 12)
	s.reserve(s.mug, s.here, 5)
	for range 4 {
		s.Kill(s.reserve(s.mug, s.here, 1))
	}
	result, _ = s.clampBesideAReserve(delta(s.mug, s.here, -4))
	return result
}

func TestAClampTakesDeadUnitsBeforeItFallsShort(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	if result, want := s.clampOfDeadUnits(), "APPLIED -4 to 8 by 2"; result != want {
		t.Errorf("the clamp = %s, want %s", result, want)
	}
	s.audit()
}

func TestAClampFallsShortBesideDeadUnitsWithoutItsGuard(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "try_to_move",
		"(NOT _clamp OR _look.total >= _look.reserved - _look.dead)", "NOT _clamp")
	if result := s.clampOfDeadUnits(); !strings.Contains(result, "short of") {
		t.Errorf("the clamp = %s: the control proves nothing", result)
	}
}

// raceOfOppositeDocuments applies documents together whose lines are in opposite orders.
func (s *shelf) raceOfOppositeDocuments(ctx context.Context) (deadlocks int64) {
	lines := []stock.Line{
		delta(s.mug, s.here, 1), delta(s.mug, s.there, 1), delta(s.lamp, s.here, 1),
		delta(s.lamp, s.there, 1),
	}
	before := s.holds.Retries()
	together(callers, func(i int) {
		mine := slices.Clone(lines)
		if i%2 == 0 {
			slices.Reverse(mine)
		}
		for range 8 {
			d := document(uuid.NewString(), mine...)
			d.Together = true
			if _, _, err := s.stock.Move(ctx, d, ""); err != nil && s.holds.Retries() == before {
				s.t.Errorf("Move() = %v", err)
			}
		}
	})
	return s.holds.Retries() - before
}

func TestDocumentsInOppositeOrdersNeverDeadlock(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	if n := s.raceOfOppositeDocuments(s.Context()); n != 0 {
		t.Errorf("%d transactions ran again, want none", n)
	}
	s.audit()
}

func TestDocumentsInOppositeOrdersDeadlockWithoutTheSort(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Exec("ALTER DATABASE " + s.Name + " SET deadlock_timeout = '20ms'")
	pgtest.Mutate(t, s.Database, "wanted_movements",
		"ORDER BY CASE WHEN _together THEN found.product_id END,", "ORDER BY l.line,")
	for range 40 {
		if s.raceOfOppositeDocuments(s.Context()) > 0 {
			return
		}
	}
	t.Error("without the sort nothing deadlocked: the control proves nothing")
}

// makeARowBesideAWriteOfTheCatalog applies a document together that changes a stock row and makes
// another one, while a write of the catalog has the catalog's lock. It reports whether the document
// has locked the stock row while it waits.
func (s *shelf) makeARowBesideAWriteOfTheCatalog() (locked bool) {
	s.t.Helper()
	s.Patient()
	s.Exec(`
INSERT INTO inventory
SELECT p.id, w.id, 5 FROM products p, warehouses w ORDER BY p.id, w.id LIMIT 1`)
	unlock := s.Lock("SELECT pg_advisory_xact_lock(4, 0)")
	d := document("delivery", delta(s.mug, s.here, 1), delta(s.mug, s.there, 1),
		delta(s.lamp, s.here, 1), delta(s.lamp, s.there, 1))
	d.Together = true
	wait := begin(s.Context(), func() error {
		_, _, err := s.stock.Move(s.Context(), d, "")
		return err
	})
	s.WaitForBlocked(1)
	locked = s.someStockIsLocked()
	unlock()
	if err := wait(); err != nil {
		s.t.Errorf("Move() = %v", err)
	}
	return locked
}

// someStockIsLocked reports whether a transaction has locked a stock row.
func (s *shelf) someStockIsLocked() bool {
	s.t.Helper()
	return pgtest.QueryOne[bool](s.Fixture, `
SELECT count(*) < (SELECT count(*) FROM inventory)
FROM (SELECT FROM inventory FOR UPDATE SKIP LOCKED) free`)
}

func TestADocumentWaitsForTheCatalogBeforeItLocksStock(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	if s.makeARowBesideAWriteOfTheCatalog() {
		t.Error("a document has locked a stock row while it waits for the catalog's lock")
	}
	const counts = "SELECT array_agg(total ORDER BY total) FROM inventory"
	got := pgtest.QueryOne[[]int](s.Fixture, counts)
	if diff := cmp.Diff([]int{1, 1, 1, 6}, got); diff != "" {
		t.Errorf("the totals differ (-want +got):\n%s", diff)
	}
	s.audit()
}

func TestADocumentLocksStockBeforeTheCatalogWithoutItsGuard(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	pgtest.Mutate(t, s.Database, "move_lines", "PERFORM pg_advisory_xact_lock_shared(4, 0)",
		"PERFORM 1")
	if !s.makeARowBesideAWriteOfTheCatalog() {
		t.Error("without its guard a document has locked no stock row: the control proves nothing")
	}
}

// A document that makes no stock row doesn't wait for a write of the catalog.
func TestADocumentOfKnownStockDoesNotShareTheCatalog(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.Stock(s.mug, s.here, 5)
	s.Stock(s.lamp, s.here, 5)
	unlock := s.Lock("SELECT pg_advisory_xact_lock(4, 0)")
	d := document("delivery", delta(s.lamp, s.here, 1), delta(s.mug, s.here, 1))
	d.Together = true
	s.move(d, "APPLIED +1 to 6 by 2", "APPLIED +1 to 6 by 2")
	s.move(document("apart", delta(s.mug, s.here, 1)), "APPLIED +1 to 7 by 3")
	unlock()
	s.audit()
}

func TestMovementsAreListedInPages(t *testing.T) {
	t.Parallel()

	s := newShelf(t)
	s.move(document("one", delta(s.mug, s.here, 3), delta(s.mug, s.there, 2)),
		"APPLIED +3 to 3 by 1", "APPLIED +2 to 2 by 1")
	hold := s.reserve(s.mug, s.here, 1)
	s.confirm(hold)
	s.move(document("two", delta(s.mug, s.here, -1)), "APPLIED -1 to 1 by 3")
	late := document("late", delta(s.lamp, s.here, -1), delta(s.lamp, s.there, 1),
		delta(s.lamp, s.there, 2))
	s.move(late, "REFUSED +0, STOCK_HELD 0", "APPLIED +1 to 1 by 1", "APPLIED +2 to 3 by 2")
	s.move(document("stock", delta(s.lamp, s.here, 9)), "APPLIED +9 to 9 by 1")
	s.move(late, "APPLIED -1 to 8 by 2", "REPLAYED +1 to 1 by 1", "REPLAYED +2 to 3 by 2")

	for name, c := range map[string]struct {
		filter stock.MovementFilter
		want   []string
	}{
		"a stock row": {
			stock.MovementFilter{ProductID: &s.mug, WarehouseID: &s.here},
			[]string{"3 ADJUSTMENT -1 1 two", "2 SALE -1 2 ", "1 OPENING 3 3 one"},
		},
		"a document": {
			stock.MovementFilter{Source: ptr("erp"), Reference: ptr("one")},
			[]string{"1 OPENING 2 2 one", "1 OPENING 3 3 one"},
		},
		"a document whose first line was applied last": {
			stock.MovementFilter{Source: ptr("erp"), Reference: ptr("late")},
			[]string{"2 ADJUSTMENT -1 8 late", "2 ADJUSTMENT 2 3 late", "1 OPENING 1 1 late"},
		},
		"none": {stock.MovementFilter{Source: ptr("erp"), Reference: ptr("?")}, nil},
	} {
		for limit := 1; limit <= 4; limit++ {
			var got []string
			for next := new(stock.MovementCursor); next != nil; {
				movements, more, err := s.stock.ListMovements(s.Context(), c.filter, *next, limit)
				if err != nil || len(movements) > limit {
					t.Fatalf("ListMovements() = %v, %v, want at most %d", movements, err, limit)
				}
				for _, m := range movements {
					reference := ""
					if m.Reference != nil {
						reference = *m.Reference
					}
					if (m.ReservationID != nil) != (m.Kind == "SALE") {
						t.Errorf("movement %+v, want a hold for a sale alone", m)
					}
					got = append(got,
						fmt.Sprint(m.Seq, " ", m.Kind, " ", m.Delta, " ", m.TotalAfter, " ", reference))
				}
				next = more
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s in pages of %d differs (-want +got):\n%s", name, limit, diff)
			}
		}
	}
}
