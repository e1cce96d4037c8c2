package outbox_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// sell takes n units off the stock row, a movement for each, as that many confirms do.
func (f *fixture) sell(n int) {
	f.t.Helper()
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER USER")
	f.Exec("ALTER TABLE inventory DISABLE TRIGGER i8_total_moves")
	f.Exec(`
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, seq + n, clock_timestamp(), 'ADJUSTMENT', -1, total - n
FROM inventory, generate_series(1, $1) n`, n)
	f.Exec("UPDATE inventory SET seq = seq + $1::bigint, total = total - $1", n)
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER USER")
	f.Exec("ALTER TABLE inventory ENABLE TRIGGER i8_total_moves")
}

// patient is a sink whose first movement waits until so many events of holds have come.
type patient struct {
	memory
	holds int
	seen  chan struct{} // closed when they have
	once  sync.Once
}

func (p *patient) Publish(ctx context.Context, batch []events.Event) []error {
	if batch[0].Type == events.TypeMoved {
		select {
		case <-p.seen:
		case <-ctx.Done():
		}
	}
	errs := p.memory.Publish(ctx, batch)
	p.mu.Lock()
	defer p.mu.Unlock()
	came := 0
	for _, e := range p.got {
		if e.Type != events.TypeMoved {
			came++
		}
	}
	if came == p.holds {
		p.once.Do(func() { close(p.seen) })
	}
	return errs
}

// A batch has a thousand movements of one stock row. The sink takes none of them before it has the
// holds' events of that batch and of the next one.
func TestTheHoldsOfALaterBatchComeBeforeTheMovementsOfAHotRow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.sell(1000)
	f.reserve()
	f.tick()
	f.reserve()
	f.tick()
	sink := &patient{holds: 2, seen: make(chan struct{})}
	f.drain(sink)
	f.mustBeWhole(sink.got)
	if n := len(sink.got) - len(ids(sink.got)); n != 0 {
		t.Errorf("%d events came twice", n)
	}
}

// publish asks for pages of a place and acknowledges them, until it has so many events or nothing
// is left. Then it gives the lease back. The last page is acknowledged up to its last event that
// counts.
func (f *fixture) publish(place string, most int) (got []events.Event) {
	f.t.Helper()
	request := events.Request{Sink: place, Lease: uuid.NewString()}
	for {
		page := f.next(request)
		if !page.Leased {
			f.t.Fatalf("the place %s is leased to another relay", place)
		}
		request.Ack, request.Release = page.Position, page.Position == ""
		if n := most - len(got); len(page.Events) >= n {
			page.Events = page.Events[:n]
			request.Ack, request.Release = page.Events[n-1].Position, true
		}
		got = append(got, page.Events...)
		if request.Release {
			f.next(request)
			return got
		}
	}
}

// trade makes a tick's batch with events of both parts.
func (f *fixture) trade(confirms int) {
	f.t.Helper()
	for range confirms {
		f.confirm(f.reserve())
	}
	f.tick()
}

// all is more events than there are.
const all = 1 << 20

// The previous release went by one place for both parts. This one goes on where that stood, in the
// middle of a batch, and publishes each event once. In the first control its places begin as those
// of a new sink do, and events are lost. In the second they begin with all that was ever written.
func TestAnUpgradeGoesOnWhereTheSinkStood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begin        string // replaces the place
		lost, repeat bool
	}{
		"the release":  {},
		"at the end":   {"(SELECT max(n) FROM ticks), NULL, NULL", true, false},
		"at the start": {"0, NULL, NULL", false, true},
	} {
		for _, most := range []int{3, 8} { // among the holds' events, and among the movements
			f := newFixture(t)
			if c.begin != "" {
				f.mutate("make_places", "w.done, w.batch, w.after", c.begin)
				f.mutate("lock_sink", "w.name = _sink AND", "false AND")
			}
			f.trade(1)
			before := f.publish("topic", all)
			f.trade(3)
			before = append(before, f.publish("topic", most)...)
			f.trade(1)
			sink := &memory{got: before}
			f.drain(sink)
			lost, disordered := f.faults(sink.got)
			repeats := len(sink.got) - len(ids(sink.got))
			if lost > 0 != c.lost || repeats > 0 != c.repeat || !c.lost && disordered != 0 {
				t.Errorf("%s, after %d events: %d are lost, %d came twice, %d are out of order", name,
					most, lost, repeats, disordered)
			}
		}
	}
}

// A deploy goes back while the two places stand apart, and then comes again. The previous release
// goes on from the batch that both places have passed, and this one where that stopped. Nothing is
// lost, and the first time that each event comes is in order. Each control leaves out a statement
// that brings the rows of the sink together: more events come again.
func TestAReleaseThatGoesBackLosesNothing(t *testing.T) {
	t.Parallel()
	repeats := map[string]int{}
	for name, mutation := range map[string][3]string{
		"":            {},
		"join_places": {"join_places", "w.done < p.done", "false"},
		"lock_sink":   {"lock_sink", "w.name = _sink AND", "false AND"},
	} {
		for _, ahead := range []string{"topic-holds", "topic-stock"} {
			f := newFixture(t)
			if name != "" {
				f.mutate(mutation[0], mutation[1], mutation[2])
			}
			f.trade(2)
			sink := &memory{}
			f.drain(sink)
			f.trade(2)
			sink.got = append(sink.got, f.publish(ahead, all)...)
			f.trade(2)
			sink.got = append(sink.got, f.publish(ahead, 3)...)
			sink.got = append(sink.got, f.publish("topic", all)...)
			f.trade(1)
			sink.got = append(sink.got, f.publish("topic", all)...)
			f.trade(1)
			f.drain(sink)
			f.mustBeWhole(sink.got)
			repeats[name] += len(sink.got) - len(ids(sink.got))
		}
	}
	if repeats["join_places"] <= repeats[""] || repeats["lock_sink"] <= repeats[""] {
		t.Errorf("%d events came twice, and by the controls %v", repeats[""], repeats)
	}
}

// A relay of the previous release, which publishes both parts, and one of a place exclude each
// other. The relays of the two places don't.
func TestARelayOfAllExcludesThoseOfAPart(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("claim_sink", "AND o.leased_until > _now", "AND false")
		}
		leases := map[string]string{}
		ask := func(place string, release bool) bool {
			if leases[place] == "" {
				leases[place] = uuid.NewString()
			}
			page := f.next(events.Request{Sink: place, Lease: leases[place], Release: release})
			if release {
				delete(leases, place)
			}
			return page.Leased
		}
		got := []bool{ask("topic-holds", false), ask("topic-stock", false), ask("topic", false)}
		ask("topic-holds", true)
		got = append(got, ask("topic", false))
		ask("topic-stock", true)
		got = append(got, ask("topic", false), ask("topic-holds", false))
		ask("topic", true)
		got = append(got, ask("topic-holds", false))
		want := []bool{true, true, false, false, true, false, true}
		if slices.Equal(got, want) != guarded {
			t.Errorf("guarded %t: the relays got leases %v, want %v", guarded, got, want)
		}
	}
}

// The sink itself has passed a batch when both places have. So the archive and the pruning of the
// ticks wait for the slower one.
func TestASinkIsAsFarAsItsSlowerPlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.trade(1)
	f.trade(1)
	for _, step := range []struct {
		place string
		most  int
		want  string
	}{
		{"topic-holds", 1, "topic 0, topic-holds 0, topic-stock 0"},
		{"topic-holds", all, "topic 0, topic-holds 2, topic-stock 0"},
		{"topic-stock", 3, "topic 1, topic-holds 2, topic-stock 1"},
		{"topic-stock", all, "topic 2, topic-holds 2, topic-stock 2"},
	} {
		f.publish(step.place, step.most)
		got := pgtest.QueryOne[string](f.Fixture,
			"SELECT string_agg(name || ' ' || done, ', ' ORDER BY name) FROM sinks")
		if got != step.want {
			t.Errorf("behind %d events of %s the rows are %s, want %s", step.most, step.place, got,
				step.want)
		}
	}
	if last := pgtest.QueryOne[bool](f.Fixture,
		"SELECT published_snapshot()::text = tick_snapshot(2)::text"); !last {
		t.Error("the archive doesn't take all ticks for published")
	}
}

// Only the place of the part that has a parked event goes back.
func TestARedriveLeavesTheOtherPartAlone(t *testing.T) {
	t.Parallel()
	for _, moved := range []bool{true, false} {
		f := newFixture(t)
		f.drain(&memory{})
		hold := f.reserve()
		f.confirm(hold)
		id := hold.String() + "-2"
		if moved {
			id = f.product.String() + "-" + f.west.String() + "-2"
		}
		picky := &memory{answer: func(e events.Event) error {
			if e.ID == id {
				return &events.RefusedError{Reason: "poison"}
			}
			return nil
		}}
		if err := events.NewRelay(f.outbox.Next, map[string]events.Sink{"topic": picky},
			events.Options{Retry: time.Microsecond, Log: discard}).Run(f.Context()); err != nil {
			t.Fatal(err)
		}
		if n := pgtest.QueryOne[int](f.Fixture, "SELECT redrive_parked('topic')"); n != 1 {
			t.Fatalf("redrive_parked() = %d, want 1", n)
		}
		sink := &memory{}
		f.drain(sink)
		want := []string{hold.String() + "-1", hold.String() + "-2"}
		if moved {
			want = []string{id}
		}
		if got := ids(sink.got); !slices.Equal(got, want) {
			t.Errorf("moved %t: the sink gets %v, want %v", moved, got, want)
		}
	}
}
