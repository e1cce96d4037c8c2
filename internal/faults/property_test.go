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
	"github.com/allo/reservations/internal/pgtest"
)

// sequence plays one sequence of calls against the service and the model, one call at a time. Its
// exported methods are the actions that rapid draws.
type sequence struct {
	d      *deployment
	client client
	rows   []stockRow
	model  *model.Model
	state  model.State
	holds  []drawnHold
	tries  int
}

// drawnHold is a hold that the sequence has made.
type drawnHold struct {
	number int // in the model
	id     uuid.UUID
	key    string
	lines  []model.Line
	ttl    time.Duration
}

const (
	propertyRows  = 3
	propertyTotal = 6
	// propertyTries bounds the reserves of a sequence: the model has a fixed number of holds.
	propertyTries = 60
)

func newSequence(d *deployment) *sequence {
	c := &sequence{
		d: d, client: newClient(d.url, 1), rows: d.addProduct(propertyRows, propertyTotal),
		model: model.New(slices.Repeat([]int{propertyTotal}, propertyRows), propertyTries),
	}
	c.state = c.model.Init()
	return c
}

// do makes a call and checks the answer against the model.
func (c *sequence) do(t *rapid.T, call model.Call, send func() reply) reply {
	call.From = time.Now().UnixMicro()
	r := send()
	call.To = time.Now().UnixMicro()
	p := &partition{rows: c.rows}
	h := &history{}
	h.finish(p, event{verb: call.Verb}, r)
	if len(h.unexpected) > 0 {
		t.Fatalf("%s: %s", call.Verb, h.unexpected)
	}
	e := p.events[0]
	answer := model.Answer{Outcome: e.outcome, Status: e.status, Rows: e.rows}
	if !e.end.IsZero() {
		answer.End = e.end.UnixMicro()
	}
	c.compare(t, call, answer)
	return r
}

func (c *sequence) compare(t *rapid.T, call model.Call, answer model.Answer) {
	next := c.model.Step(c.state, call, answer)
	if len(next) != 1 {
		t.Logf("%s, in %s", model.Describe(call, answer), c.model.Describe(c.state))
		// The failure text must not differ from run to run: rapid would see different failures, and
		// would not shorten the sequence.
		t.Fatalf("the model answers a %s differently", call.Verb)
	}
	c.state = next[0]
}

func (c *sequence) Reserve(t *rapid.T) {
	if c.tries == propertyTries {
		t.Skip("the model has no hold left")
	}
	hold := drawnHold{
		key: uuid.NewString(),
		ttl: time.Duration(rapid.IntRange(5, 600).Draw(t, "ttl")) * time.Second,
	}
	rows := rapid.Permutation([]int{0, 1, 2}).Draw(t, "rows")
	for _, row := range rows[:rapid.IntRange(1, propertyRows).Draw(t, "lines")] {
		hold.lines = append(hold.lines,
			model.Line{Row: row, Quantity: rapid.IntRange(1, 4).Draw(t, "quantity")})
	}
	n := c.tries
	c.tries++
	c.model.SetLines(n, hold.lines)
	hold.number = n
	r := c.do(t, model.Call{
		Verb: model.Reserve, Hold: n, Lines: hold.lines,
		TTL: hold.ttl.Microseconds(),
	}, func() reply { return c.send(t, hold) })
	if r.ok() {
		hold.id = r.Reservation.ID
		c.holds = append(c.holds, hold)
	}
}

func (c *sequence) send(t *rapid.T, hold drawnHold) reply {
	return c.client.reserve(t.Context(), hold.key, int(hold.ttl.Seconds()),
		(&partition{rows: c.rows}).items(hold.lines)...)
}

// hold draws one of the holds made so far.
func (c *sequence) hold(t *rapid.T) (int, drawnHold) {
	if len(c.holds) == 0 {
		t.Skip("no hold yet")
	}
	hold := c.holds[rapid.IntRange(0, len(c.holds)-1).Draw(t, "hold")]
	return hold.number, hold
}

// Repeat sends a reserve again under its key.
func (c *sequence) Repeat(t *rapid.T) {
	n, hold := c.hold(t)
	call := model.Call{
		Verb: model.Reserve, Hold: n, Lines: hold.lines,
		TTL: hold.ttl.Microseconds(), Repeats: true,
	}
	r := c.do(t, call, func() reply { return c.send(t, hold) })
	if r.Reservation == nil || r.Reservation.ID != hold.id ||
		r.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("a repeated reserve was answered %d %s, want hold %s again", r.Status, r.Body,
			hold.id)
	}
}

func (c *sequence) resolve(t *rapid.T, verb model.Verb) {
	n, hold := c.hold(t)
	c.do(t, model.Call{Verb: verb, Hold: n},
		func() reply { return c.client.act(t.Context(), hold.id, string(verb), "") })
}

func (c *sequence) Confirm(t *rapid.T) { c.resolve(t, model.Confirm) }
func (c *sequence) Release(t *rapid.T) { c.resolve(t, model.Release) }

func (c *sequence) Extend(t *rapid.T) {
	n, hold := c.hold(t)
	ttl := rapid.IntRange(5, 600).Draw(t, "ttl")
	call := model.Call{
		Verb: model.Extend, Hold: n,
		TTL: (time.Duration(ttl) * time.Second).Microseconds(),
	}
	c.do(t, call, func() reply { return c.client.extend(t.Context(), hold.id, "", ttl) })
}

func (c *sequence) Get(t *rapid.T) {
	n, hold := c.hold(t)
	c.do(t, model.Call{Verb: model.Get, Hold: n},
		func() reply { return c.client.get(t.Context(), hold.id) })
}

func (c *sequence) Catalog(t *rapid.T) {
	call := model.Call{Verb: model.Catalog, From: time.Now().UnixMicro()}
	shelves, r := c.client.catalog(t.Context(), 1)
	call.To = time.Now().UnixMicro()
	if !r.ok() {
		t.Fatalf("the catalog was answered %d %s %v", r.Status, r.Body, r.Err)
	}
	answer := model.Answer{Outcome: model.Done}
	for _, shelf := range shelves {
		for _, s := range shelf.Inventories {
			if n := (&partition{rows: c.rows}).rowNumber(shelf.ID, s.WarehouseID); n >= 0 {
				answer.Rows = append(answer.Rows, model.Row{
					Number: n, Total: s.TotalQuantity,
					Reserved: s.ReservedQuantity, Available: s.AvailableStock,
				})
			}
		}
	}
	if len(answer.Rows) != propertyRows {
		t.Fatalf("the catalog shows %d of %d rows", len(answer.Rows), propertyRows)
	}
	c.compare(t, call, answer)
}

// Sweep has no effect that the model can see.
func (c *sequence) Sweep(t *rapid.T) {
	if err := c.d.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (c *sequence) Restock(t *rapid.T) {
	row := rapid.IntRange(0, propertyRows-1).Draw(t, "row")
	units := rapid.IntRange(1, 3).Draw(t, "units")
	_, err := c.d.db.Admin.Exec(t.Context(), "SELECT adjust_stock($1, $2, $3, 'delivery')",
		c.rows[row].Product.String(), c.rows[row].Warehouse.String(), units)
	if err != nil {
		t.Fatal(err)
	}
	c.compare(t, model.Call{Verb: model.Restock, Lines: []model.Line{{Row: row, Quantity: units}}},
		model.Answer{Outcome: model.Done})
}

// Die expires a pending hold: it moves the hold's times back, and tells the model.
func (c *sequence) Die(t *rapid.T) {
	n, hold := c.hold(t)
	if c.d.db.Status(hold.id) != "PENDING" {
		t.Skip("the hold is resolved already")
	}
	c.d.db.Kill(hold.id)
	end := pgtest.QueryOne[time.Time](c.d.db, "SELECT expires_at FROM reservations WHERE id = $1",
		hold.id.String())
	c.state = c.model.SetEnd(c.state, n, end.UnixMicro())
}

// Check compares all that the model can see, after every call.
func (c *sequence) Check(t *rapid.T) { c.Catalog(t) }

// checkSequences lets rapid draw sequences of calls. Rapid shows the shortest that fails.
func checkSequences(d *deployment) func(*rapid.T) {
	return func(t *rapid.T) {
		c := newSequence(d)
		actions := rapid.StateMachineActions(c)
		t.Repeat(actions)
		violations, err := d.service.Audit(t.Context())
		if err != nil || len(violations) > 0 {
			t.Fatalf("Audit() = %v, %v, want none", violations, err)
		}
	}
}

// seedRapid makes rapid draw from the run's seed.
func seedRapid(t *testing.T, part uint64) {
	t.Helper()
	setFlag(t, "rapid.seed", strconv.FormatUint(newRand(part).Uint64()|1, 10))
}

func setFlag(t *testing.T, name, value string) {
	t.Helper()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

// TestEverySequenceMatchesTheModel draws sequences of all verbs, expiries, sweeps and deliveries.
func TestEverySequenceMatchesTheModel(t *testing.T) {
	total := 0
	for start := time.Now(); total == 0 || time.Since(start) < duration(0); total++ {
		// A fresh database keeps the catalog to one page.
		d := newDeployment(t)
		seedRapid(t, uint64(total))
		rapid.Check(t, checkSequences(d))
	}
	t.Logf("rapid checked its sequences %d times", total)
}

// TestSequencesFindARemovedGuard is the control: rapid must find a confirm that gives back one unit
// too few.
func TestSequencesFindARemovedGuard(t *testing.T) {
	d := newDeployment(t)
	dropSchemaGuards(d)
	mutate("give_up_units", "SET reserved = reserved - _hold.quantity, total",
		"SET reserved = reserved - 1, total")(d)
	seedRapid(t, 1)
	setFlag(t, "rapid.nofailfile", "true")
	setFlag(t, "rapid.shrinktime", "10s")
	found := &failureRecorder{TB: t}
	rapid.Check(found, checkSequences(d))
	if !strings.Contains(found.output, "the model answers a") {
		t.Fatalf("no sequence found the confirm that gives back one unit: %s", found.output)
	}
	// How far rapid shortens the sequence in its time depends on the seed and on the machine.
	shortest := found.output[strings.LastIndex(found.output, "Failed test output"):]
	t.Logf("shortened to %d calls", strings.Count(shortest, "draw action"))
	t.Logf("found: %.2000s", found.output)
}

// failureRecorder records the failures of a check without failing the test.
type failureRecorder struct {
	testing.TB
	failed bool
	output string
}

func (f *failureRecorder) note(text string) { f.output += text + "\n" }

func (f *failureRecorder) Fail()             { f.failed = true }
func (f *failureRecorder) FailNow()          { f.failed = true }
func (f *failureRecorder) Failed() bool      { return f.failed }
func (f *failureRecorder) Error(args ...any) { f.failed = true; f.note(fmt.Sprint(args...)) }
func (f *failureRecorder) Errorf(format string, args ...any) {
	f.failed = true
	f.note(fmt.Sprintf(format, args...))
}
func (f *failureRecorder) Fatal(args ...any)                 { f.Error(args...) }
func (f *failureRecorder) Fatalf(format string, args ...any) { f.Errorf(format, args...) }
func (f *failureRecorder) Log(args ...any)                   { f.note(fmt.Sprint(args...)) }
func (f *failureRecorder) Logf(format string, args ...any) {
	f.note(fmt.Sprintf(format, args...))
}
