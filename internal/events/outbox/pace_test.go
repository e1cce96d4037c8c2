package outbox_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// The times of a call on AWS, as these tests have them: of the outbox, and of a sink.
const outboxTime, sinkTime = 10 * time.Millisecond, 25 * time.Millisecond

// far is an outbox that is as far away as a Lambda. It counts the requests of each place, and its
// pages with events.
type far struct {
	f               *fixture
	mu              sync.Mutex
	requests, pages map[string]int
}

func (o *far) next(ctx context.Context, r events.Request) (events.Page, error) {
	time.Sleep(outboxTime)
	page, err := o.f.outbox.Next(ctx, r)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests[r.Sink]++
	if len(page.Events) > 0 {
		o.pages[r.Sink]++
	}
	return page, err
}

// read says how many pages with events each place has got.
func (o *far) read() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.pages)
}

// distant is a sink that is as far away as SNS. Its calls run side by side.
type distant struct{ memory }

func (d *distant) Publish(ctx context.Context, batch []events.Event) []error {
	time.Sleep(sinkTime)
	return d.memory.Publish(ctx, batch)
}

func (d *distant) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.got)
}

// load is what happened while holds were made.
type load struct {
	holds, ticks int
	took         time.Duration
	// behind is how many of the holds each sink had not got at the end, and rest how many pages with
	// events it got from then on.
	behind, rest map[string]int
	far          *far
}

// sellAtPace makes holds, one after another, beside a relay to the sinks. Their stock doesn't move,
// so the places of the movements have empty batches.
func (f *fixture) sellAtPace(holds int, poll time.Duration, names ...string) load {
	f.t.Helper()
	f.drain(&memory{})
	out := &far{f: f, requests: map[string]int{}, pages: map[string]int{}}
	sinks, all := map[string]*distant{}, map[string]events.Sink{}
	for _, name := range names {
		f.Exec("INSERT INTO sinks (name, done) VALUES ($1, last_tick()) ON CONFLICT DO NOTHING", name)
		sinks[name] = &distant{}
		all[name] = sinks[name]
	}
	const count = "SELECT count(*) FROM ticks"
	before := pgtest.QueryOne[int](f.Fixture, count)
	ctx, stop := context.WithCancel(f.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		_ = events.NewRelay(out.next, all,
			events.Options{For: time.Hour, Poll: poll, Log: discard}).Run(ctx)
	})
	start := time.Now()
	for range holds {
		f.reserve()
		time.Sleep(3 * time.Millisecond) // the pace of the load
	}
	l := load{holds: holds, behind: map[string]int{}, far: out}
	l.ticks = pgtest.QueryOne[int](f.Fixture, count) - before
	got := out.read()
	l.took = time.Since(start) // after the counts, which it bounds
	for name, sink := range sinks {
		l.behind[name] = holds - sink.count()
	}
	for name, sink := range sinks {
		for sink.count() < holds && ctx.Err() == nil {
			time.Sleep(time.Millisecond) // until the sink has the rest
		}
		if n := sink.count(); n != holds {
			f.t.Fatalf("%s got %d of %d holds", name, n, holds)
		}
	}
	l.rest = out.read()
	for place, pages := range got {
		l.rest[place] -= pages
	}
	stop()
	running.Wait()
	return l
}

// A shop makes some two hundred holds a second, and the outbox and the sinks are as far away as on
// AWS. The relay keeps up: it takes at most a tick in a tick_interval, each page has all the holds
// of its ticks, and when the load ends the next pages have the rest. The control takes a tick for
// each request of a place, reads them one by one, and never pauses. Then a page has a few events,
// and the sinks fall behind for as long as the load lasts. How far depends on the machine, and so
// does how many pages it gets. So the control is held to its ticks only: each request takes one.
func TestARelayKeepsUpWithALoad(t *testing.T) {
	t.Parallel()
	for name, sinks := range map[string][]string{
		"one sink": {"topic"}, "two sinks": {"topic", "bus"}, "control": {"topic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			poll, guarded := time.Duration(0), name != "control"
			if !guarded {
				f.mutate("tick_interval", "250 ms", "-1 s")
				f.mutate("joined_rows", "1000", "0")
				poll = time.Millisecond
			}
			l := f.sellAtPace(1000, poll, sinks...)
			most := int(l.took/(250*time.Millisecond)) + 2
			if (l.ticks <= most) != guarded {
				t.Errorf("there are %d ticks in %s, want at most %d: %t", l.ticks, l.took, most, guarded)
			}
			for _, sink := range sinks {
				place := sink + "-holds"
				if pages := l.far.pages[place] - l.rest[place]; guarded && pages > most {
					t.Errorf("%s got %d pages in %s, want at most %d", sink, pages, l.took, most)
				}
				if rest := l.rest[place]; guarded && rest > 3 {
					t.Errorf("%s got the rest of the holds in %d pages, want at most 3", sink, rest)
				}
				if behind := l.behind[sink]; guarded && behind > l.holds/3 {
					t.Errorf("%s is behind by %d of %d holds, want at most a third", sink, behind, l.holds)
				}
			}
			t.Logf("%d holds in %s, %d ticks; behind %v; requests %v, pages %v, of the rest %v", l.holds,
				l.took, l.ticks, l.behind, l.far.requests, l.far.pages, l.rest)
		})
	}
}

// A patient relay's request takes no tick while the last one is young, and its answer says that
// something is new. Another relay's request takes one at once, and so does every request when the
// clock was set back. In an idle shop a patient relay is told that nothing is new.
func TestAPatientRelayWaitsForADueTick(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.drain(&memory{})
	f.tick()
	request := events.Request{Sink: "topic-holds", Lease: uuid.NewString(), Patient: true}
	setAge := func(age string) {
		f.Exec("UPDATE ticks SET at = clock_timestamp() - $1::interval WHERE n = last_tick()", age)
	}
	setAge("-1 h")
	f.reserve()
	page := f.next(request)
	if len(page.Events) != 1 {
		t.Fatalf("behind a tick of the future the page is %+v, want the hold", page)
	}
	request.Ack = page.Position
	if page = f.next(request); page.Position != "" || page.More {
		t.Errorf("when nothing is new the page is %+v, want an empty one", page)
	}
	request.Ack = ""
	f.mutate("tick_interval", "250 ms", "1 h")
	f.reserve()
	setAge("59 minutes")
	last := pgtest.QueryOne[int](f.Fixture, "SELECT last_tick()")
	if page = f.next(request); page.Position != "" || !page.More {
		t.Errorf("behind a young tick the page is %+v, want an empty one and more", page)
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT last_tick()"); n != last {
		t.Errorf("behind a young tick the request took tick %d", n)
	}
	request.Patient = false
	if page = f.next(request); len(page.Events) != 1 {
		t.Errorf("a request that isn't patient gets %+v, want the hold", page)
	}
	request.Patient, request.Ack = true, page.Position
	f.reserve()
	setAge("61 minutes")
	if page = f.next(request); len(page.Events) != 1 {
		t.Errorf("behind a tick that isn't young the page is %+v, want the hold", page)
	}
}

// A sink was down while another one went on, which took a tick for each hold. When it is back, a
// page has the holds of many ticks, and the movements' place passes them all in one request. A
// batch has no more rows than joined_rows, unless it is of one tick. The first control reads the
// batches one by one. In the second a batch may have any number of rows.
func TestASinkCatchesUpInFullPages(t *testing.T) {
	t.Parallel()
	const ticks, each = 40, 5
	for _, c := range []struct {
		rows         string
		pages, empty int // requests with events of the holds, and without of the movements
	}{{"1000", 1, 1}, {"50", 4, 1}, {"7", 40, 1}, {"0", 40, 1}} {
		f := newFixture(t)
		if c.rows != "1000" {
			f.mutate("joined_rows", "1000", c.rows)
		}
		f.Exec("INSERT INTO sinks (name, done) VALUES ('bus', 0)")
		far := &far{f: f, requests: map[string]int{}, pages: map[string]int{}}
		bus := &memory{}
		drain := func() {
			if err := events.NewRelay(far.next, map[string]events.Sink{"bus": bus},
				events.Options{Log: discard}).Run(f.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.drain(&memory{})
		drain()
		clear(far.requests)
		clear(far.pages)
		for range ticks {
			for range each {
				f.reserve()
			}
			f.tick()
		}
		drain()
		f.mustBeWhole(bus.got)
		empty := far.requests["bus-stock"] - 2 // one is told that nothing is left, and one releases
		if far.pages["bus-holds"] != c.pages || empty != c.empty {
			t.Errorf("with %s joined rows %d holds come in %d pages, and the movements' place passes "+
				"them in %d requests, want %d and %d", c.rows, ticks*each, far.pages["bus-holds"], empty,
				c.pages, c.empty)
		}
	}
}

// A page that wasn't acknowledged has the same events when it is asked for again, although a batch
// could span the ticks that came meanwhile. In the control it spans them.
func TestAPageStaysTheSameWhenTicksCome(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("claim_sink", "batch := _row.batch;",
				"batch := coalesce(next_batch(_sink, _row.done), _row.batch);")
		}
		f.drain(&memory{})
		f.reserve()
		request := events.Request{Sink: "topic-holds", Lease: uuid.NewString()}
		first := f.next(request)
		f.reserve()
		f.tick()
		again := f.next(request)
		if same := slices.Equal(ids(first.Events), ids(again.Events)); same != guarded {
			t.Errorf("guarded %t: the page %v is %v when it is asked for again", guarded,
				names(first.Events), names(again.Events))
		}
	}
}

// Callers race on each hold while ticks come, and no relay runs. Then the batches span many ticks.
// Each event is published once, and in order. The control has another order within a batch.
func TestABatchOfManyTicksIsInOrder(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("read_transitions", "ORDER BY l.at, l.version, l.hold_id;",
				"ORDER BY l.version DESC;")
		}
		sink := &memory{}
		f.drain(sink)
		ctx, stop := context.WithCancel(f.Context())
		var ticking sync.WaitGroup
		ticking.Go(func() {
			for ctx.Err() == nil {
				_, _ = f.outbox.Tick(ctx) // the last one is cut off
			}
		})
		f.race(3)
		stop()
		ticking.Wait()
		ticks := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM ticks")
		far := &far{f: f, requests: map[string]int{}, pages: map[string]int{}}
		if err := events.NewRelay(far.next, map[string]events.Sink{"topic": sink},
			events.Options{Log: discard}).Run(f.Context()); err != nil {
			t.Fatal(err)
		}
		lost, disordered := f.faults(sink.got)
		if lost != 0 || (disordered == 0) != guarded {
			t.Errorf("guarded %t: %d events are lost and %d out of order", guarded, lost, disordered)
		}
		if n := far.pages["topic-holds"]; n*3 > ticks {
			t.Errorf("%d ticks came in %d pages: the batches span too few", ticks, n)
		}
	}
}

// oldTicks makes a minute's worth of old ticks, so many times, as if no sweep had pruned them.
func (f *fixture) oldTicks(minutes, each int) {
	f.t.Helper()
	f.Exec(`
INSERT INTO ticks (n, at, snapshot)
SELECT t.n + i, date_trunc('minute', clock_timestamp()) - interval '30 days'
       + (i - 1) / $2::int * interval '1 minute' + (i - 1) % $2::int * interval '1 ms', t.snapshot
FROM (SELECT * FROM ticks ORDER BY n DESC LIMIT 1) t, generate_series(1, $1::int * $2::int) i`,
		minutes, each)
	f.Exec("UPDATE sinks SET done = last_tick()")
}

// A tick doesn't prune. A call of prune_old_ticks looks at so many ticks and no more, and the next
// one goes on where it ended, until one tick a minute is left. The control looks at the ticks from
// the beginning: those that were kept are all that it sees, and it never gets on.
func TestPruningGoesOnInSteps(t *testing.T) {
	t.Parallel()
	const minutes, each, step = 100, 6, 10
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("prune_old_ticks", "l.n >= _from", "l.n >= 0")
		}
		f.drain(&memory{})
		f.oldTicks(minutes, each)
		const count = "SELECT count(*) FROM ticks WHERE at < clock_timestamp() - interval '1 day'"
		f.reserve()
		f.tick()
		if n := pgtest.QueryOne[int](f.Fixture, count); n != minutes*each {
			t.Fatalf("a tick leaves %d ticks, want %d", n, minutes*each)
		}
		steps, more := 0, true
		for left := minutes * each; more && steps < 2*minutes*each/step; steps++ {
			more = pgtest.QueryOne[bool](f.Fixture, "SELECT prune_old_ticks($1)", step)
			n := pgtest.QueryOne[int](f.Fixture, count)
			if left-n > step {
				t.Errorf("a step removes %d ticks, want at most %d", left-n, step)
			}
			left = n
		}
		// The last tick is that of the sinks, and stays.
		left := pgtest.QueryOne[int](f.Fixture, count)
		if (left <= minutes+1 && !more) != guarded {
			t.Errorf("guarded %t: after %d steps %d ticks are left, and more is %t", guarded, steps, left,
				more)
		}
		if n := pgtest.QueryOne[int](f.Fixture,
			"SELECT count(DISTINCT date_trunc('minute', at)) FROM ticks WHERE at < now() - interval '1 day'",
		); n != minutes {
			t.Errorf("guarded %t: %d of %d minutes have a tick", guarded, n, minutes)
		}
	}
}

// Prune takes as many steps as it may, and leaves the rest to the next one.
func TestPruneLeavesABacklogToTheNextSweep(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.drain(&memory{})
	f.oldTicks(125, 2000)
	const count = "SELECT count(*) FROM ticks"
	before := pgtest.QueryOne[int](f.Fixture, count)
	f.prune()
	first := before - pgtest.QueryOne[int](f.Fixture, count)
	if first > 200_000 || first < 199_000 {
		t.Errorf("a prune removes %d of %d ticks, want nearly 200,000", first, before)
	}
	f.prune()
	if n := pgtest.QueryOne[int](f.Fixture, count); n > 130 {
		t.Errorf("after the second prune %d ticks are left, want one a minute", n)
	}
}
