package faults

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/allo/reservations/internal/faults/model"
)

// caller plays one sequence of calls against the service and against the model, one call at a time.
type caller struct {
	w     *world
	shop  shop
	rows  []stock
	model *model.Model
	state model.State
	holds []drawn
	tries int
}

// drawn is a hold that the sequence has made.
type drawn struct {
	number int // in the model
	id     uuid.UUID
	key    string
	lines  []model.Line
	ttl    time.Duration
}

const (
	propertyRows  = 3
	propertyTotal = 6
	// propertyTries bounds a sequence's reserves, as the model has a place for each.
	propertyTries = 60
)

func newCaller(w *world) *caller {
	c := &caller{
		w: w, shop: newShop(w.url, 1), rows: w.shelf(propertyRows, propertyTotal),
		model: model.New(slices.Repeat([]int{propertyTotal}, propertyRows), propertyTries),
	}
	c.state = c.model.Init()
	return c
}

// do makes a call and lets the model judge the answer.
func (c *caller) do(t *rapid.T, call model.Call, send func() reply) reply {
	call.From = time.Now().UnixMicro()
	r := send()
	call.To = time.Now().UnixMicro()
	i := &island{rows: c.rows}
	h := &history{}
	h.finish(i, event{verb: call.Verb}, r)
	if len(h.strange) > 0 {
		t.Fatalf("%s: %s", call.Verb, h.strange)
	}
	e := i.events[0]
	answer := model.Answer{Outcome: e.outcome, Status: e.status, Rows: e.rows}
	if !e.end.IsZero() {
		answer.End = e.end.UnixMicro()
	}
	c.judge(t, call, answer)
	return r
}

func (c *caller) judge(t *rapid.T, call model.Call, answer model.Answer) {
	next := c.model.Step(c.state, call, answer)
	if len(next) != 1 {
		t.Logf("%s, in %s", model.Describe(call, answer), c.model.Describe(c.state))
		// The failure itself says nothing that differs from run to run, or rapid would take each for another and not shorten the sequence.
		t.Fatalf("the model doesn't answer a %s so", call.Verb)
	}
	c.state = next[0]
}

func (c *caller) Reserve(t *rapid.T) {
	if c.tries == propertyTries {
		t.Skip("enough holds")
	}
	d := drawn{key: uuid.NewString(), ttl: time.Duration(rapid.IntRange(5, 600).Draw(t, "ttl")) * time.Second}
	rows := rapid.Permutation([]int{0, 1, 2}).Draw(t, "rows")
	for _, row := range rows[:rapid.IntRange(1, propertyRows).Draw(t, "lines")] {
		d.lines = append(d.lines, model.Line{Row: row, Quantity: rapid.IntRange(1, 4).Draw(t, "quantity")})
	}
	n := c.tries
	c.tries++
	c.model.Name(n, d.lines)
	d.number = n
	r := c.do(t, model.Call{Verb: model.Reserve, Hold: n, Lines: d.lines, TTL: d.ttl.Microseconds()}, func() reply { return c.send(t, d) })
	if r.ok() {
		d.id = r.Reservation.ID
		c.holds = append(c.holds, d)
	}
}

func (c *caller) send(t *rapid.T, d drawn) reply {
	return c.shop.reserve(t.Context(), d.key, int(d.ttl.Seconds()), (&island{rows: c.rows}).items(d.lines)...)
}

// hold draws one of the holds made so far.
func (c *caller) hold(t *rapid.T) (int, drawn) {
	if len(c.holds) == 0 {
		t.Skip("no hold yet")
	}
	d := c.holds[rapid.IntRange(0, len(c.holds)-1).Draw(t, "hold")]
	return d.number, d
}

// Repeat sends a reserve again under its key.
func (c *caller) Repeat(t *rapid.T) {
	n, d := c.hold(t)
	call := model.Call{Verb: model.Reserve, Hold: n, Lines: d.lines, TTL: d.ttl.Microseconds(), Repeats: true}
	r := c.do(t, call, func() reply { return c.send(t, d) })
	if r.Reservation == nil || r.Reservation.ID != d.id || r.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("a repeated key was answered %d %s, want hold %s again", r.Status, r.Body, d.id)
	}
}

func (c *caller) resolve(t *rapid.T, verb model.Verb) {
	n, d := c.hold(t)
	c.do(t, model.Call{Verb: verb, Hold: n}, func() reply { return c.shop.act(t.Context(), d.id, string(verb), "") })
}

func (c *caller) Confirm(t *rapid.T) { c.resolve(t, model.Confirm) }
func (c *caller) Release(t *rapid.T) { c.resolve(t, model.Release) }

func (c *caller) Extend(t *rapid.T) {
	n, d := c.hold(t)
	ttl := rapid.IntRange(5, 600).Draw(t, "ttl")
	call := model.Call{Verb: model.Extend, Hold: n, TTL: (time.Duration(ttl) * time.Second).Microseconds()}
	c.do(t, call, func() reply { return c.shop.extend(t.Context(), d.id, "", ttl) })
}

func (c *caller) Get(t *rapid.T) {
	n, d := c.hold(t)
	c.do(t, model.Call{Verb: model.Get, Hold: n}, func() reply { return c.shop.get(t.Context(), d.id) })
}

func (c *caller) Catalog(t *rapid.T) {
	call := model.Call{Verb: model.Catalog, From: time.Now().UnixMicro()}
	shelves, r := c.shop.catalog(t.Context(), 1)
	call.To = time.Now().UnixMicro()
	if !r.ok() {
		t.Fatalf("the catalog was answered %d %s %v", r.Status, r.Body, r.Err)
	}
	answer := model.Answer{Outcome: model.Done}
	for _, shelf := range shelves {
		for _, s := range shelf.Inventories {
			if n := (&island{rows: c.rows}).number(shelf.ID, s.WarehouseID); n >= 0 {
				answer.Rows = append(answer.Rows, model.Row{Number: n, Total: s.TotalQuantity, Reserved: s.ReservedQuantity, Available: s.AvailableStock})
			}
		}
	}
	if len(answer.Rows) != propertyRows {
		t.Fatalf("the catalog shows %d of %d rows", len(answer.Rows), propertyRows)
	}
	c.judge(t, call, answer)
}

// Sweep has no effect that the model could see.
func (c *caller) Sweep(t *rapid.T) {
	if err := c.w.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (c *caller) Restock(t *rapid.T) {
	row := rapid.IntRange(0, propertyRows-1).Draw(t, "row")
	units := rapid.IntRange(1, 3).Draw(t, "units")
	_, err := c.w.admin.Exec(t.Context(), "SELECT adjust_stock($1, $2, $3, 'delivery')", c.rows[row].Product.String(), c.rows[row].Warehouse.String(), units)
	if err != nil {
		t.Fatal(err)
	}
	c.judge(t, model.Call{Verb: model.Restock, Lines: []model.Line{{Row: row, Quantity: units}}}, model.Answer{Outcome: model.Done})
}

// Die lets a pending hold's time pass: its times are moved back, and the model is told that it is dead.
func (c *caller) Die(t *rapid.T) {
	n, d := c.hold(t)
	var end time.Time
	const sql = `
WITH dead AS (
    UPDATE reservations SET created_at = created_at - interval '2 h', updated_at = updated_at - interval '2 h', expires_at = expires_at - interval '2 h'
    WHERE id = $1 AND status = 'PENDING' RETURNING expires_at
), lines AS (
    UPDATE reservation_items l SET expires_at = dead.expires_at FROM dead WHERE l.reservation_id = $1
)
SELECT expires_at FROM dead`
	if err := c.w.admin.QueryRow(t.Context(), sql, d.id.String()).Scan(&end); err != nil {
		t.Skip("it is resolved already")
	}
	c.state = c.model.Move(c.state, n, end.UnixMicro())
}

// Check looks at all that the model can see, after every call.
func (c *caller) Check(t *rapid.T) { c.Catalog(t) }

// sequences lets rapid draw sequences of calls, of which it shows the shortest that fails.
func sequences(w *world) func(*rapid.T) {
	return func(t *rapid.T) {
		c := newCaller(w)
		actions := rapid.StateMachineActions(c)
		t.Repeat(actions)
		violations, err := w.service.Audit(t.Context())
		if err != nil || len(violations) > 0 {
			t.Fatalf("Audit() = %v, %v, want none", violations, err)
		}
	}
}

// drawFrom makes rapid draw what the run's seed says.
func drawFrom(t *testing.T, part uint64) {
	t.Helper()
	if err := flag.Set("rapid.seed", strconv.FormatUint(random(part).Uint64()|1, 10)); err != nil {
		t.Fatal(err)
	}
}

// TestEverySequenceOfCallsIsTheModels draws sequences of all verbs, deaths, sweeps and deliveries.
func TestEverySequenceOfCallsIsTheModels(t *testing.T) {
	total := 0
	for start := time.Now(); total == 0 || time.Since(start) < lasting(0); total++ {
		// A database of its own keeps the catalog to one page.
		w := newWorld(t)
		drawFrom(t, uint64(total))
		rapid.Check(t, sequences(w))
	}
	t.Logf("%d times the sequences of -rapid.checks", total)
}

// TestASequenceFindsAMissingGuard is the control: a confirm that gives back a unit too few is found, and the sequence that shows it is short.
func TestASequenceFindsAMissingGuard(t *testing.T) {
	w := newWorld(t)
	unguarded(w)
	mutate("resolve_hold", "SET reserved = reserved - _quantity,", "SET reserved = reserved - 1,")(w)
	drawFrom(t, 1)
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "10s"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	found := &witness{TB: t}
	rapid.Check(found, sequences(w))
	if !strings.Contains(found.said, "the model doesn't answer a") {
		t.Fatalf("no sequence found that a confirm gives back one unit, however many it held: %s", found.said)
	}
	shortest := found.said[strings.LastIndex(found.said, "Failed test output"):]
	if calls := strings.Count(shortest, "draw action"); calls > 3 {
		t.Errorf("the sequence has %d calls, want it shortened to reserve and confirm: %s", calls, shortest)
	}
	t.Logf("found: %.2000s", found.said)
}

// witness takes a failure in the test's stead.
type witness struct {
	testing.TB
	failed bool
	said   string
}

func (s *witness) note(text string) { s.said += text + "\n" }

func (s *witness) Fail()                        { s.failed = true }
func (s *witness) FailNow()                     { s.failed = true }
func (s *witness) Failed() bool                 { return s.failed }
func (s *witness) Error(args ...any)            { s.failed = true; s.note(fmt.Sprint(args...)) }
func (s *witness) Errorf(f string, args ...any) { s.failed = true; s.note(fmt.Sprintf(f, args...)) }
func (s *witness) Fatal(args ...any)            { s.Error(args...) }
func (s *witness) Fatalf(f string, args ...any) { s.Errorf(f, args...) }
func (s *witness) Log(args ...any)              { s.note(fmt.Sprint(args...)) }
func (s *witness) Logf(f string, args ...any)   { s.note(fmt.Sprintf(f, args...)) }
