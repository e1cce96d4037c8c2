package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// options are those of every outbox of these tests.
var options = outbox.Options{Source: "allo-test"}

var discard = slog.New(slog.DiscardHandler)

// fixture is a test's database, with a service and an outbox of several connections.
type fixture struct {
	*pgtest.Fixture
	t       testing.TB
	service *reservation.Service
	outbox  *outbox.Outbox
	product uuid.UUID
	west    uuid.UUID
}

// newFixture makes a shop with one product in one warehouse.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	return open(t, pgtest.New(t))
}

// newLonelyFixture is newFixture on a server of its own, for a test that sees the transactions of
// other databases, or whose open ones other tests would see.
func newLonelyFixture(t *testing.T) *fixture {
	t.Helper()
	_, db := pgtest.NewServer(t, nil)
	return open(t, db)
}

func open(t testing.TB, db pgtest.Database) *fixture {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(db.URL), 12)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	service := reservation.New(pool, reservation.Options{
		HoldTTL: 10 * time.Minute, MaxHold: time.Hour, Retention: 0,
	})
	f := &fixture{
		Fixture: pgtest.NewFixtureOfSize(t, db, 12), t: t, service: service,
		outbox: outbox.New(service, options),
	}
	f.product, f.west = f.Product(), f.Warehouse()
	f.Stock(f.product, f.west, 1_000_000)
	return f
}

func (f *fixture) mutate(routine, old, replacement string) {
	f.t.Helper()
	pgtest.Mutate(f.t, f.Database, routine, old, replacement)
}

// reserve holds one unit.
func (f *fixture) reserve() uuid.UUID {
	f.t.Helper()
	answer, err := f.service.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{
		{ProductID: f.product, WarehouseID: f.west, Quantity: 1},
	}})
	if err != nil {
		f.t.Fatalf("Reserve() = %v", err)
	}
	return answer.Hold.ID
}

// confirm confirms a hold.
func (f *fixture) confirm(hold uuid.UUID) {
	f.t.Helper()
	if _, err := f.service.Confirm(f.Context(), hold, ""); err != nil {
		f.t.Fatalf("Confirm() = %v", err)
	}
}

func (f *fixture) tick() int64 {
	f.t.Helper()
	last, err := f.outbox.Tick(f.Context())
	if err != nil {
		f.t.Fatalf("Tick() = %v", err)
	}
	return last
}

// prune removes the old ticks.
func (f *fixture) prune() {
	f.t.Helper()
	if err := f.outbox.Prune(f.Context()); err != nil {
		f.t.Fatalf("Prune() = %v", err)
	}
}

func (f *fixture) next(r events.Request) events.Page {
	f.t.Helper()
	page, err := f.outbox.Next(f.Context(), r)
	if err != nil {
		f.t.Fatalf("Next(%+v) = %v", r, err)
	}
	return page
}

// written returns the ids of all rows of the ledger and of all movements.
func (f *fixture) written() []string {
	f.t.Helper()
	ids := pgtest.QueryOne[[]string](f.Fixture, `
SELECT array_agg(id ORDER BY id) FROM (
    SELECT hold_id || '-' || version AS id FROM ledger
    UNION ALL SELECT product_id || '-' || warehouse_id || '-' || seq FROM stock_movements
) rows`)
	slices.Sort(ids)
	return ids
}

// relay makes a relay to one sink, which polls often.
func (f *fixture) relay(sink events.Sink, limit time.Duration) *events.Relay {
	return events.NewRelay(f.outbox.Next, map[string]events.Sink{"topic": sink},
		events.Options{For: limit, Poll: 40 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
}

// drain publishes to the sink until nothing is left.
func (f *fixture) drain(sink events.Sink) {
	f.t.Helper()
	if err := f.relay(sink, 0).Run(f.Context()); err != nil {
		f.t.Fatalf("Run() = %v", err)
	}
}

// memory is a sink that keeps what it accepted. answer may refuse an event: nil accepts all.
type memory struct {
	mu     sync.Mutex
	got    []events.Event
	answer func(e events.Event) error
}

func (m *memory) Publish(_ context.Context, batch []events.Event) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, len(batch))
	for i, e := range batch {
		if m.answer != nil {
			errs[i] = m.answer(e)
		}
		if errs[i] == nil || errors.Is(errs[i], errKept) {
			m.got = append(m.got, e)
		}
	}
	return errs
}

// errKept is a failure after the sink had accepted the event.
var errKept = errors.New("the connection broke after the sink had the event")

// ids returns the ids of the events, each once, sorted.
func ids(published []events.Event) []string {
	var out []string
	for _, e := range published {
		out = append(out, e.ID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// faults returns what is wrong with what was published: an event that is missing or that nobody
// wrote, a repeat with other bytes, and an event whose first publication is before that of an
// earlier one of its subject.
func (f *fixture) faults(published []events.Event) (lost, disordered int) {
	f.t.Helper()
	got, written := ids(published), f.written()
	for _, id := range written {
		if _, found := slices.BinarySearch(got, id); !found {
			lost++
		}
	}
	for _, id := range got {
		if _, found := slices.BinarySearch(written, id); !found {
			f.t.Errorf("the event %s was never written", id)
		}
	}
	body, highest := map[string]string{}, map[string]string{}
	for _, e := range published {
		if known, again := body[e.ID]; again && known != string(e.Body) {
			f.t.Errorf("the event %s was %s and is now %s", e.ID, known, e.Body)
		} else if again {
			continue
		}
		body[e.ID] = string(e.Body)
		sequence := f.sequence(e)
		if sequence < highest[e.Subject] {
			disordered++
		}
		highest[e.Subject] = max(highest[e.Subject], sequence)
	}
	return lost, disordered
}

func (f *fixture) sequence(e events.Event) string {
	f.t.Helper()
	var body struct{ Sequence string }
	if err := json.Unmarshal(e.Body, &body); err != nil {
		f.t.Fatalf("%s: %v", e.Body, err)
	}
	return body.Sequence
}

// mustBeWhole fails the test when an event is lost or out of order.
func (f *fixture) mustBeWhole(published []events.Event) {
	f.t.Helper()
	if lost, disordered := f.faults(published); lost != 0 || disordered != 0 {
		f.t.Errorf("of %d events %d are lost and %d out of order", len(f.written()), lost, disordered)
	}
	violations, err := f.service.Audit(f.Context())
	if err != nil || len(violations) != 0 {
		f.t.Errorf("Audit() = %v, %v, want nothing", violations, err)
	}
}

// names returns the types of events, and their subjects' sequences, as short texts.
func names(page []events.Event) []string {
	var out []string
	for _, e := range page {
		out = append(out, fmt.Sprintf("%s %s", e.Type, e.ID[len(e.ID)-2:]))
	}
	return out
}
