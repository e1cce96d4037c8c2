package outbox_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// A relay gets what was written before it first asked, and then what is new.
func TestAPageHasWhatIsNewInOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	hold := f.reserve()
	f.confirm(hold)
	lease := uuid.NewString()

	page := f.next(events.Request{Sink: "topic", Lease: lease})
	want := []string{
		"allo.reservation.held -1", "allo.reservation.confirmed -2",
		"allo.stock.moved -1", "allo.stock.moved -2",
	}
	if diff := cmp.Diff(want, names(page.Events)); diff != "" || !page.Leased || page.More {
		t.Errorf("the first page is %+v: %s", page, diff)
	}
	again := f.next(events.Request{Sink: "topic", Lease: lease})
	if diff := cmp.Diff(page.Events, again.Events); diff != "" {
		t.Errorf("a page that wasn't acknowledged has other bytes: %s", diff)
	}
	page = f.next(events.Request{Sink: "topic", Lease: lease, Ack: page.Position})
	if len(page.Events) != 0 || page.Position != "" || !page.Leased {
		t.Errorf("the page after the last one is %+v, want an empty one", page)
	}
	f.reserve()
	page = f.next(events.Request{Sink: "topic", Lease: lease})
	if got := names(page.Events); !slices.Equal(got, []string{"allo.reservation.held -1"}) {
		t.Errorf("the next page is %v, want the new hold", got)
	}
}

// An idle relay and an idle shop write nothing.
func TestAnIdleShopWritesNoTick(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lease := uuid.NewString()
	page := f.next(events.Request{Sink: "topic", Lease: lease})
	f.next(events.Request{Sink: "topic", Lease: lease, Ack: page.Position})
	const state = "SELECT (SELECT count(*) FROM ticks) || ' ' || (SELECT xmin FROM sinks)"
	before := pgtest.QueryOne[string](f.Fixture, state)
	for range 5 {
		f.next(events.Request{Sink: "topic", Lease: lease})
		f.tick()
	}
	if after := pgtest.QueryOne[string](f.Fixture, state); after != before {
		t.Errorf("the ticks and the sink's version were %q and are %q", before, after)
	}
}

// A batch of more than a page is read in pages, each event once.
func TestABatchHasManyPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Exec(`
WITH made AS (
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                              expires_at, version)
    SELECT gen_random_uuid(), $1, $2, 1, now(), now(), now() + interval '1 h', 1
    FROM generate_series(1, 1200)
    RETURNING *
), transitions AS (
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT m.updated_at, m.expires_at, m.id, 1, 'h', 'v' FROM made m
)
UPDATE inventory SET reserved = 1200, first_end = '-infinity', epoch = next_epoch(epoch)`,
		f.product.String(), f.west.String())
	sink := &memory{}
	f.drain(sink)
	f.mustBeWhole(sink.got)
	if len(sink.got) != 1201 {
		t.Errorf("%d events were published, want each of 1201 once", len(sink.got))
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM ticks"); n != 1 {
		t.Errorf("there are %d ticks, want one batch", n)
	}
}

// A long pause's events are split into batches that a statement can read. All of them are
// published, and counted, in order: the second transition of a hold may have a lower id than the
// first, and the boundary between two batches may fall between the two. The control cuts there.
func TestALargeBatchIsSplit(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newLonelyFixture(t)
		f.mutate("batch_rows", "50000", "5")
		f.mutate("joined_rows", "1000", "0") // so that each batch is published by itself
		if !guarded {
			f.mutate("end_of_batch", "SELECT early_ids(", "SELECT NULL::xid8 FROM early_ids(")
		}
		sink := &memory{}
		f.reserve()
		f.drain(sink)
		for range 4 {
			first, second := f.reserve(), f.reserve()
			early, next := f.begin(), f.begin()
			for range 6 {
				f.reserve()
			}
			if _, err := f.service.Extend(t.Context(), first, 11*time.Minute, ""); err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				tx   pgx.Tx
				hold uuid.UUID
			}{{early, first}, {early, second}, {next, second}} {
				if step.tx == next {
					f.commit(early)
				}
				if err := transition(t.Context(), step.tx, step.hold); err != nil {
					t.Fatal(err)
				}
			}
			f.commit(next)
			f.confirm(second)
		}
		f.race(3)
		f.drain(sink)
		lost, disordered := f.faults(sink.got)
		if lost != 0 || (disordered == 0) != guarded {
			t.Errorf("guarded %t: %d events are lost and %d out of order", guarded, lost, disordered)
		}
		if most := f.largestBatch(); most > 12 {
			t.Errorf("guarded %t: a batch has %d rows of the ledger, want about 5", guarded, most)
		}
		if counted := pgtest.QueryOne[bool](f.Fixture, `
SELECT sum(held) = (SELECT count(*) FROM ledger WHERE kind = 'h') FROM minute_counts`); !counted {
			t.Errorf("guarded %t: the minutes don't count each hold once", guarded)
		}
	}
}

func (f *fixture) commit(tx pgx.Tx) {
	f.t.Helper()
	if err := tx.Commit(f.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// largestBatch returns the most rows of the ledger that a batch has.
func (f *fixture) largestBatch() int {
	f.t.Helper()
	return pgtest.QueryOne[int](f.Fixture, `
SELECT max(rows) FROM (
    SELECT count(*) AS rows FROM ledger l
    JOIN LATERAL (SELECT min(t.n) AS n FROM ticks t
                  WHERE pg_visible_in_snapshot(l.xid, t.snapshot)) b ON true
    GROUP BY b.n) batches`)
}

// Each tick adds its batch to the counts of the minutes.
func TestATickCountsItsBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.confirm(f.reserve())
	f.tick()
	hold := f.reserve()
	if _, err := f.service.Release(f.Context(), hold, ""); err != nil {
		t.Fatal(err)
	}
	dead := f.reserve()
	f.Kill(dead)
	if _, err := f.service.Sweep(f.Context()); err != nil {
		t.Fatal(err)
	}
	f.tick()
	f.tick()
	got := pgtest.QueryOne[string](f.Fixture, `
SELECT concat_ws(' ', sum(held), sum(confirmed), sum(released), sum(expired)) FROM minute_counts`)
	if got != "3 1 1 1" {
		t.Errorf("held, confirmed, released, expired are %s, want 3 1 1 1", got)
	}
}

// A tick sees what was committed while it waited for the tick before, and gets its id after it has
// read its snapshot: none of the ids that the snapshot counts as given out is lost with the tick.
// The control takes the id before the wait.
func TestATickIsYoungerThanItsLock(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		f.Patient()
		f.tick()
		if !guarded {
			f.mutate("take_tick", "PERFORM pg_advisory_xact_lock(10, 0);",
				"PERFORM pg_current_xact_id(); PERFORM pg_advisory_xact_lock(10, 0);")
		}
		unlock := f.Lock("SELECT pg_advisory_xact_lock(10, 0)")
		ticked := make(chan error, 1)
		go func() {
			_, err := f.outbox.Tick(f.Context())
			ticked <- err
		}()
		f.WaitForBlocked(1)
		hold := f.reserve()
		unlock()
		if err := <-ticked; err != nil {
			t.Fatal(err)
		}
		seen := pgtest.QueryOne[bool](f.Fixture, `
SELECT pg_visible_in_snapshot(l.xid, tick_snapshot(last_tick())) FROM ledger l WHERE hold_id = $1`,
			hold.String())
		if !seen {
			t.Errorf("guarded %t: the tick doesn't see the hold", guarded)
		}
		above := pgtest.QueryOne[bool](f.Fixture, `
SELECT age(xmin) <= age(pg_snapshot_xmax(snapshot)::xid) FROM ticks ORDER BY n DESC LIMIT 1`)
		if above != guarded {
			t.Errorf("guarded %t: the tick's id isn't below its snapshot's end: %t", guarded, above)
		}
	}
}

// A tick that isn't the first statement of its transaction would have an id that its snapshot
// counts as given out.
func TestATickIsATransactionOfItsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tx, err := f.Admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), "SELECT take_tick()")
	if err == nil || !strings.Contains(err.Error(), "first statement of its transaction") {
		t.Errorf("take_tick() in a transaction = %v, want a refusal", err)
	}
}

// One relay at a time has a sink. The lease ends after a minute, or when it is given back.
func TestOneRelayAtATimeHasASink(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, second := uuid.NewString(), uuid.NewString()
	page := f.next(events.Request{Sink: "topic", Lease: first})
	if got := f.next(events.Request{Sink: "topic", Lease: second}); got.Leased || got.Events != nil {
		t.Errorf("a second relay gets %+v", got)
	}
	if got := f.next(events.Request{Sink: "bus", Lease: second}); !got.Leased {
		t.Error("another sink is leased to the first relay too")
	}
	f.next(events.Request{Sink: "topic", Lease: first, Release: true})
	if got := f.next(events.Request{Sink: "topic", Lease: second}); !got.Leased {
		t.Error("the lease that was given back isn't free")
	}
	if got := f.next(events.Request{Sink: "topic", Lease: first, Ack: page.Position}); got.Leased {
		t.Error("the ack of a relay that lost its lease counts")
	}
	f.Exec("UPDATE sinks SET leased_until = clock_timestamp()")
	if got := f.next(events.Request{Sink: "topic", Lease: first}); !got.Leased ||
		len(got.Events) != len(page.Events) {
		t.Errorf("after the lease's end the other relay gets %+v", got)
	}
}

// A page can be acknowledged up to each of its events. The next page begins behind it.
func TestAPageIsAcknowledgedUpToAnyEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 3 {
		f.confirm(f.reserve())
	}
	lease := uuid.NewString()
	want := f.next(events.Request{Sink: "topic", Lease: lease}).Events
	if len(want) < 9 {
		t.Fatalf("the page has %d events, want those of three holds and their movements", len(want))
	}
	ack := ""
	for n := range want {
		page := f.next(events.Request{Sink: "topic", Lease: lease, Ack: ack})
		if got := ids(page.Events); !slices.Equal(got, ids(want[n:])) {
			t.Fatalf("behind event %d the page has %v, want %v", n, got, ids(want[n:]))
		}
		ack = page.Events[0].Position
	}
	if page := f.next(events.Request{Sink: "topic", Lease: lease, Ack: ack}); len(page.Events) != 0 {
		t.Errorf("behind the last event the page has %v", ids(page.Events))
	}
}

// A request that comes late, from the same relay, moves nothing back.
func TestASinksPlaceNeverMovesBack(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("claim_sink", "<= (_done, coalesce(_after, '')", ">= (0, ''")
		}
		lease := uuid.NewString()
		first := f.next(events.Request{Sink: "topic", Lease: lease})
		f.next(events.Request{Sink: "topic", Lease: lease, Ack: first.Position})
		f.reserve()
		second := f.next(events.Request{Sink: "topic", Lease: lease})
		f.next(events.Request{Sink: "topic", Lease: lease, Ack: second.Position})
		f.next(events.Request{Sink: "topic", Lease: lease, Ack: first.Position})
		done := pgtest.QueryOne[int](f.Fixture, "SELECT done FROM sinks")
		if want := map[bool]int{true: 2, false: 1}[guarded]; done != want {
			t.Errorf("guarded %t: the sink is at tick %d, want %d", guarded, done, want)
		}
	}
}

// The sink's failures and the last error stand in its row until a page is acknowledged.
func TestFailuresAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lease := uuid.NewString()
	const state = "SELECT failures || ' ' || coalesce(error, '-') FROM sinks"
	for i, step := range []struct {
		request events.Request
		want    string
	}{
		{events.Request{}, "0 -"},
		{events.Request{Failure: "no topic"}, "1 no topic"},
		{events.Request{Failure: "no right"}, "2 no right"},
		{events.Request{}, "2 no right"},
		{events.Request{Ack: "1"}, "0 -"},
	} {
		step.request.Sink, step.request.Lease = "topic", lease
		f.next(step.request)
		if got := pgtest.QueryOne[string](f.Fixture, state); got != step.want {
			t.Errorf("step %d: the sink has %q, want %q", i, got, step.want)
		}
	}
}

// An expiry has the time of the hold's end, which is before the sweep that writes it. It isn't late
// as long as the sink has all that the tick before saw.
func TestAnExpiryIsNotLateBeforeItsSweep(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("read_transitions", "greatest(l.at, _since)", "l.at")
		}
		f.reserve()
		hold := f.reserve()
		f.drain(&memory{})
		f.KillAgo(time.Hour, hold)
		if _, err := f.service.Sweep(f.Context()); err != nil {
			t.Fatal(err)
		}
		request := events.Request{Sink: "topic", Lease: uuid.NewString()}
		if lag := f.next(request).LagSeconds; (lag < 3600) != guarded {
			t.Errorf("guarded %t: behind a tick of now the lag is %v s", guarded, lag)
		}
		f.Exec("UPDATE ticks SET at = at - interval '2 h'")
		if lag := f.next(request).LagSeconds; lag < 3600 || lag >= 7200 {
			t.Errorf("guarded %t: behind a tick of 2 h ago the lag is %v s, want the event's age",
				guarded, lag)
		}
	}
}

// The later events of a parked subject follow it, in later pages too, and the others go on.
func TestFollowersOfAParkedEventAreParked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bad := f.reserve()
	refused := 0
	sink := &memory{answer: func(e events.Event) error {
		if e.Subject != bad.String() {
			return nil
		}
		refused++
		return &events.RefusedError{Reason: "too large"}
	}}
	f.Exec("INSERT INTO parked (sink, id, subject, error) VALUES ('topic', $1 || '-1', $1, 'x')",
		bad.String())
	f.confirm(bad)
	good := f.reserve()
	f.drain(sink)
	if refused != 0 || !slices.Contains(ids(sink.got), good.String()+"-1") {
		t.Errorf("the sink saw %d events of a parked subject, and has %v", refused, ids(sink.got))
	}
	parked := pgtest.QueryOne[[]string](f.Fixture, "SELECT array_agg(id ORDER BY id) FROM parked")
	if want := []string{bad.String() + "-1", bad.String() + "-2"}; !slices.Equal(parked, want) {
		t.Errorf("%v are parked, want %v", parked, want)
	}
}

// A request of a finished relay that comes late doesn't take the lease again.
func TestALateRequestDoesNotTakeTheLeaseAgain(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("claim_sink", "AND s.leased_until > '-infinity'", "")
		}
		first := uuid.NewString()
		for _, release := range []bool{false, true} {
			f.next(events.Request{Sink: "topic", Lease: first, Release: release})
		}
		late := f.next(events.Request{Sink: "topic", Lease: first})
		other := f.next(events.Request{Sink: "topic", Lease: uuid.NewString()})
		if late.Leased == guarded || other.Leased != guarded {
			t.Errorf("guarded %t: the late request is leased: %t, the next relay: %t", guarded,
				late.Leased, other.Leased)
		}
	}
}

// The sinks of a new feed get all that was ever written, whichever is asked for first. One that is
// added when another has published begins with what is new.
func TestANewSinkBeginsWithWhatIsNew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.reserve()
	f.tick()
	lease := uuid.NewString()
	first := f.next(events.Request{Sink: "topic", Lease: lease})
	beside := f.next(events.Request{Sink: "bus", Lease: lease})
	for _, page := range []events.Page{first, beside} {
		if len(page.Events) != 2 {
			t.Errorf("a sink of a new feed gets %v, want all", names(page.Events))
		}
	}
	f.next(events.Request{Sink: "topic", Lease: lease, Ack: first.Position})
	if page := f.next(events.Request{Sink: "added", Lease: lease}); len(page.Events) != 0 {
		t.Errorf("a sink on a running shop gets %v at once", names(page.Events))
	}
	hold := f.reserve()
	page := f.next(events.Request{Sink: "added", Lease: lease})
	if want := []string{hold.String() + "-1"}; !slices.Equal(ids(page.Events), want) {
		t.Errorf("the new sink gets %v, want %v", ids(page.Events), want)
	}
}

// Ticks older than a week that all sinks have passed are pruned to one a minute.
func TestOldTicksArePruned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 6 {
		f.reserve()
		f.tick()
	}
	sink := &memory{}
	f.drain(sink)
	f.Exec(`UPDATE ticks SET at = date_trunc('hour', clock_timestamp()) - interval '8 days'
                                  + (n / 3) * interval '1 minute' + n * interval '1 s'`)
	f.Exec("INSERT INTO sinks (name, done) VALUES ('bus', 5)")
	f.reserve()
	f.tick()
	f.prune()
	left := pgtest.QueryOne[string](f.Fixture, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM ticks")
	// Of 1, 2 and 3, 4, 5 the sink bus has passed all before 5.
	if left != "1 3 5 6 7" {
		t.Errorf("the ticks %s are left, want 1 3 5 6 7", left)
	}
	bus := &memory{}
	if err := events.NewRelay(f.outbox.Next, map[string]events.Sink{"bus": bus},
		events.Options{Log: discard}).Run(f.Context()); err != nil {
		t.Fatal(err)
	}
	if len(bus.got) != 2 {
		t.Errorf("the bus got %v, want the last two holds", names(bus.got))
	}
}

// movedDatabase is a database after a restore from a server that had given out more transaction
// ids. A hold was published before, and another one is made after it.
func movedDatabase(t *testing.T) (f *fixture, later uuid.UUID) {
	t.Helper()
	f = newFixture(t)
	f.reserve()
	f.drain(&memory{})
	f.Exec("UPDATE ticks SET snapshot = '9000000000:9000000000:'")
	f.Exec("ALTER TABLE ledger DISABLE TRIGGER i10_ledger_stays")
	f.Exec("UPDATE ledger SET xid = '8999999999'")
	f.Exec("ALTER TABLE ledger ENABLE TRIGGER i10_ledger_stays")
	return f, f.reserve()
}

// The control of the next test: an outbox that goes on says nothing of what happens on the new
// server.
func TestAMovedDatabaseTellsNothingWithoutTheRefusal(t *testing.T) {
	t.Parallel()
	f, _ := movedDatabase(t)
	f.mutate("refuse_other_server", "pg_snapshot_xmax(_this) < pg_snapshot_xmax(_prev)", "false")
	sink := &memory{}
	f.drain(sink)
	if len(sink.got) != 0 {
		t.Errorf("the sink got %v, want nothing: the control proves nothing", names(sink.got))
	}
}

// After a move to another server the outbox refuses to go on, until the stream is rebased.
func TestAMovedDatabaseNeedsARebase(t *testing.T) {
	t.Parallel()
	f, old := movedDatabase(t)
	lease := uuid.NewString()
	_, nextErr := f.outbox.Next(t.Context(), events.Request{Sink: "topic", Lease: lease})
	_, tickErr := f.outbox.Tick(t.Context())
	for _, err := range []error{nextErr, tickErr} {
		if err == nil || !strings.Contains(err.Error(), "rebase_stream()") {
			t.Errorf("the outbox of a moved database says %v", err)
		}
	}
	epoch := pgtest.QueryOne[string](f.Fixture, "SELECT epoch::text FROM stream")
	f.Exec("SELECT rebase_stream()")
	if pgtest.QueryOne[string](f.Fixture, "SELECT epoch::text FROM stream") == epoch {
		t.Error("the epoch is the old one")
	}
	if n := pgtest.QueryOne[int](f.Fixture,
		"SELECT count(*) FROM ledger WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"); n != 0 {
		t.Errorf("%d rows have ids that this server will give out", n)
	}
	if listed := f.listAll("", 500).events; len(listed) != 0 {
		t.Errorf("after the rebase the list begins with %v, want nothing", names(listed))
	}
	fresh := &memory{}
	f.confirm(old)
	f.drain(fresh)
	want := []string{"allo.reservation.confirmed -2", "allo.stock.moved -2"}
	got := names(fresh.got)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("after the rebase the sink gets %v, want %v", got, want)
	}
	if !strings.Contains(string(fresh.got[0].Body),
		`"source":"/allo-test/`+pgtest.QueryOne[string](f.Fixture, "SELECT epoch::text FROM stream")) {
		t.Errorf("the event %s lacks the new epoch", fresh.got[0].Body)
	}
}

// The ids of a batch lead to its rows by an index, even when an old transaction is open.
func TestAnIndexLeadsToABatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, table := range []string{"ledger", "stock_movements"} {
		plan := string(pgtest.QueryOne[[]byte](f.Fixture, "EXPLAIN (FORMAT JSON) SELECT * FROM "+table+
			" l WHERE is_new(l.xid, '{700,800}'::xid8[], '700:900:700,800', '1000:1000:')"))
		if !strings.Contains(plan, table+"_by_xid") || strings.Contains(plan, "is_new") {
			t.Errorf("the plan of %s is %s, want an index of the ids", table, plan)
		}
	}
}
