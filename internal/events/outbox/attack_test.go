package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// The obvious relays, for the controls. Each reads the ledger alone, with a cursor in memory.

// bySequence follows a column that numbers the rows as they are inserted.
type bySequence struct {
	f      *fixture
	cursor int64
	got    []events.Event
}

func (r *bySequence) poll() {
	rows := queryAll[struct {
		Seq     int64
		ID      string
		Subject string
		Version int
	}](r.f, `SELECT seq, hold_id || '-' || version, hold_id::text, version FROM ledger
WHERE seq > $1 ORDER BY seq`, r.cursor)
	for _, row := range rows {
		r.cursor = row.Seq
		r.got = append(r.got, events.Event{ID: row.ID, Subject: row.Subject, Body: sequence(row.Version)})
	}
}

// byHorizon follows the transactions' ids, below the oldest one that still runs.
type byHorizon struct {
	f   *fixture
	xid string
	got []events.Event
}

func (r *byHorizon) poll() {
	rows := queryAll[struct {
		XID     string
		ID      string
		Subject string
		Version int
	}](r.f, `SELECT xid::text, hold_id || '-' || version, hold_id::text, version FROM ledger
WHERE xid > $1::text::xid8 AND xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY xid, at, version`, r.xid)
	for _, row := range rows {
		r.xid = row.XID
		r.got = append(r.got, events.Event{ID: row.ID, Subject: row.Subject, Body: sequence(row.Version)})
	}
}

// sequence is the body of a control's event.
func sequence(version int) []byte { return fmt.Appendf(nil, `{"sequence":"%010d"}`, version) }

func queryAll[T any](f *fixture, sql string, args ...any) []T {
	f.t.Helper()
	rows, err := f.Admin.Query(f.Context(), sql, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// transition extends a hold by SQL, in a transaction that the caller commits.
func transition(ctx context.Context, tx pgx.Tx, hold uuid.UUID) error {
	if _, err := tx.Exec(ctx, `
UPDATE reservations SET expires_at = expires_at + interval '1 s', version = version + 1,
                        updated_at = greatest(updated_at, clock_timestamp())
WHERE id = $1`, hold.String()); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, version, 'x', 'v' FROM reservations WHERE id = $1`,
		hold.String())
	return err
}

// begin opens a transaction of the test and gives it an id.
func (f *fixture) begin() pgx.Tx {
	f.t.Helper()
	tx, err := f.Admin.Begin(f.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(f.Context(), "SELECT pg_current_xact_id()"); err != nil {
		f.t.Fatal(err)
	}
	return tx
}

// race makes holds and lets eight writers race on each: extends, a confirm and releases.
func (f *fixture) race(holds int) {
	f.t.Helper()
	for range holds {
		hold := f.reserve()
		var writers sync.WaitGroup
		for n := range 8 {
			writers.Go(func() {
				switch {
				case n < 5:
					_, err := f.service.Extend(f.t.Context(), hold, time.Duration(600+n)*time.Second, "")
					f.expect(err)
				case n == 5:
					_, err := f.service.Confirm(f.t.Context(), hold, "")
					f.expect(err)
				default:
					_, err := f.service.Release(f.t.Context(), hold, "")
					f.expect(err)
				}
			})
		}
		writers.Wait()
	}
}

// expect fails the test unless the verb succeeded or was refused by the hold's state.
func (f *fixture) expect(err error) {
	if err != nil && !errors.Is(err, reservation.ErrConfirmed) &&
		!errors.Is(err, reservation.ErrReleased) {
		f.t.Errorf("a verb failed: %v", err)
	}
}

// Rows 1: writers race on each hold, and slow transactions stay open meanwhile. Between two
// snapshots nothing is lost and nothing is out of order. A cursor by a sequence loses events, and
// one below the horizon publishes them out of order.
func TestReadingBetweenSnapshotsLosesNothingAndKeepsTheOrder(t *testing.T) {
	pgtest.WithoutPooler(t)
	t.Parallel()
	_, db := pgtest.NewServer(t, nil) // no other test's transaction moves the horizon
	f := open(t, db)
	f.Exec("ALTER TABLE ledger ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY")
	sink := &memory{}
	running, stop := context.WithCancel(t.Context())
	relayed := make(chan error, 1)
	go func() { relayed <- f.relay(sink, time.Minute).Run(running) }()
	a, b := &bySequence{f: f}, &byHorizon{f: f, xid: "0"}

	const rounds = 12
	for range rounds {
		// This transaction takes a number and an id, and commits after later ones were read.
		slow := f.begin()
		first, second := f.reserve(), f.reserve()
		if err := transition(t.Context(), slow, first); err != nil {
			t.Fatal(err)
		}
		// A later transaction has changed the hold before this one gets to it.
		tx := f.begin()
		if _, err := f.service.Extend(t.Context(), second, 11*time.Minute, ""); err != nil {
			t.Fatal(err)
		}
		if err := transition(t.Context(), tx, second); err != nil {
			t.Fatal(err)
		}
		f.race(2)
		a.poll()
		b.poll()
		for _, tx := range []pgx.Tx{slow, tx} {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-relayed; err != nil {
		t.Fatal(err)
	}
	f.drain(sink)
	a.poll()
	b.poll()

	f.mustBeWhole(sink.got)
	if n := len(sink.got) - len(ids(sink.got)); n != 0 {
		t.Errorf("%d events came twice, though no relay died", n)
	}
	moves := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM stock_movements")
	lostA, disorderedA := f.faults(a.got)
	if lost := lostA - moves; lost < rounds {
		t.Errorf("the control by sequence lost %d (out of order: %d), want %d or more", lost,
			disorderedA, rounds)
	}
	lostB, disorderedB := f.faults(b.got)
	if lostB != moves || disorderedB < rounds {
		t.Errorf("the control below the horizon lost %d and has %d out of order, want 0 and %d or more",
			lostB-moves, disorderedB, rounds)
	}
	t.Logf("of %d rows by sequence %d are lost, and below the horizon %d are out of order",
		len(f.written()), lostA-moves, disorderedB)
}

// Row 2: an open transaction in another database stalls nobody. Below the horizon, nothing comes.
func TestAnOpenTransactionElsewhereStallsNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	elsewhere := newFixture(t)
	tx := elsewhere.begin()
	for range 20 {
		f.confirm(f.reserve())
	}
	sink, control := &memory{}, &byHorizon{f: f, xid: "0"}
	f.drain(sink)
	control.poll()
	f.mustBeWhole(sink.got)
	if len(control.got) != 0 {
		t.Errorf("the control published %d events, want 0", len(control.got))
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// errKilled is what a killed relay's calls return. None of them reaches the outbox.
var errKilled = errors.New("the relay was killed")

// killed makes a relay that dies when it has called the outbox twice for each place. The second
// calls don't reach it.
func (f *fixture) killed(sink events.Sink, outbox events.Outbox) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	var mu sync.Mutex
	calls := map[string]int{}
	isDead := func(place string) bool {
		mu.Lock()
		defer mu.Unlock()
		calls[place]++
		if calls["topic-holds"] >= 2 && calls["topic-stock"] >= 2 {
			cancel()
		}
		return calls[place] >= 2
	}
	dying := func(ctx context.Context, r events.Request) (events.Page, error) {
		if isDead(r.Sink) {
			return events.Page{}, errKilled
		}
		return outbox(ctx, r)
	}
	_ = events.NewRelay(dying, map[string]events.Sink{"topic": sink},
		events.Options{Log: discard}).Run(ctx)
	f.Exec("UPDATE sinks SET leased_until = clock_timestamp()")
}

// Row 5: a relay that dies between publish and ack publishes again, and loses nothing. With an ack
// before the publication, the page is lost.
func TestAKilledRelayLosesNothing(t *testing.T) {
	pgtest.WithoutPooler(t)
	t.Parallel()
	for _, ackFirst := range []bool{false, true} {
		f := newFixture(t)
		for range 5 {
			f.confirm(f.reserve())
		}
		sink := &memory{}
		outbox := events.Outbox(f.outbox.Next)
		if ackFirst {
			outbox = func(ctx context.Context, r events.Request) (events.Page, error) {
				page, err := f.outbox.Next(ctx, r)
				if err == nil && page.Position != "" {
					r.Ack = page.Position
					_, err = f.outbox.Next(ctx, r)
				}
				return page, err
			}
		}
		if ackFirst {
			f.killed(dead{}, outbox)
		} else {
			f.killed(sink, outbox)
		}
		f.drain(sink)
		lost, disordered := f.faults(sink.got)
		if !ackFirst {
			f.mustBeWhole(sink.got)
			if again := len(sink.got) - len(ids(sink.got)); again != len(f.written()) {
				t.Errorf("%d events came again, want the whole page of %d", again, len(f.written()))
			}
		} else if lost != len(f.written()) || disordered != 0 {
			t.Errorf("the control lost %d, want the whole page of %d", lost, len(f.written()))
		}
	}
}

// dead is a sink that is never reached.
type dead struct{}

func (dead) Publish(_ context.Context, batch []events.Event) []error {
	errs := make([]error, len(batch))
	for i := range errs {
		errs[i] = errKilled
	}
	return errs
}

// Row 6: of two relays at once, one publishes, and each event once.
func TestTwoRelaysPublishEachEventOnce(t *testing.T) {
	pgtest.WithoutPooler(t)
	t.Parallel()
	f := newFixture(t)
	sink := &memory{}
	running, stop := context.WithCancel(t.Context())
	var relays sync.WaitGroup
	for range 2 {
		relays.Go(func() { _ = f.relay(sink, time.Minute).Run(running) })
	}
	f.race(10)
	stop()
	relays.Wait()
	f.drain(sink)
	f.mustBeWhole(sink.got)
	if n := len(sink.got) - len(ids(sink.got)); n != 0 {
		t.Errorf("%d events came twice", n)
	}
}

// gate is a sink that holds its first call with a hold's event until it is opened.
type gate struct {
	memory
	reached chan struct{}
	open    chan struct{}
	once    sync.Once
}

func (g *gate) Publish(ctx context.Context, batch []events.Event) []error {
	if batch[0].Type != events.TypeMoved {
		g.once.Do(func() {
			close(g.reached)
			<-g.open
		})
	}
	return g.memory.Publish(ctx, batch)
}

// Row 6: a relay that was frozen past its lease publishes the page that it had, and no other: its
// ack is refused. Without the fencing it goes on beside the other relay.
func TestAFrozenRelayStopsAtItsAck(t *testing.T) {
	t.Parallel()
	for _, fenced := range []bool{true, false} {
		f := newFixture(t)
		if !fenced {
			f.mutate("claim_sink", "(s.lease = _lease AND ", "(true AND ")
		}
		f.reserve()
		frozen := &gate{reached: make(chan struct{}), open: make(chan struct{})}
		woken := make(chan error, 1)
		go func() { woken <- f.relay(frozen, 0).Run(f.Context()) }()
		<-frozen.reached
		f.Exec("UPDATE sinks SET leased_until = clock_timestamp() WHERE name = 'topic-holds'")
		other := uuid.NewString()
		page := f.next(events.Request{Sink: "topic-holds", Lease: other})
		if !page.Leased || len(page.Events) != 1 {
			t.Fatalf("the other relay gets %+v, want the same page", page)
		}
		f.reserve() // for the next page
		close(frozen.open)
		if err := <-woken; err != nil {
			t.Fatal(err)
		}
		want := map[bool]int{true: 2, false: 3}[fenced]
		if len(frozen.got) != want {
			t.Errorf("fenced %t: the frozen relay published %d events, want %d", fenced,
				len(frozen.got), want)
		}
		if !fenced {
			continue
		}
		next := f.next(events.Request{Sink: "topic-holds", Lease: other, Ack: page.Position})
		if len(next.Events) != 1 {
			t.Errorf("the other relay's next page is %+v, want the new hold", next)
		}
	}
}

// atOnce is an obvious relay. It publishes each page in one call, tries again what failed, and
// leaves out what the sink refuses.
func (f *fixture) atOnce(sink events.Sink) {
	f.t.Helper()
	for _, place := range events.Places("topic") {
		request := events.Request{Sink: place, Lease: uuid.NewString()}
		for page := f.next(request); page.Position != ""; page = f.next(request) {
			for left := page.Events; len(left) > 0; {
				var again []events.Event
				for i, err := range sink.Publish(f.Context(), left) {
					var refused *events.RefusedError
					if err != nil && !errors.As(err, &refused) {
						again = append(again, left[i])
					}
				}
				left = again
			}
			request.Ack = page.Position
		}
	}
}

// relayed publishes all there is, by the relay or, in a control, by the obvious one.
func (f *fixture) relayed(sink events.Sink, guarded bool) {
	f.t.Helper()
	if !guarded {
		f.atOnce(sink)
		return
	}
	relay := events.NewRelay(f.outbox.Next, map[string]events.Sink{"topic": sink},
		events.Options{Retry: time.Microsecond, Log: discard})
	if err := relay.Run(f.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// Row 5: a sink fails 30 % of the entries, some after it has accepted them. Nothing is lost, the
// order stays, and a repeat has the same bytes. The control publishes each page at once: it loses
// nothing either, but later events overtake those that failed.
func TestPartialFailuresKeepTheOrder(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		f.race(15)
		random := rand.New(rand.NewPCG(1, 2))
		failed := 0
		sink := &memory{answer: func(events.Event) error {
			n := random.IntN(10)
			if n < 3 {
				failed++
			}
			switch {
			case n < 2:
				return errors.New("the sink is overloaded")
			case n < 3:
				return errKept
			default:
				return nil
			}
		}}
		f.relayed(sink, guarded)
		lost, disordered := f.faults(sink.got)
		if guarded {
			f.mustBeWhole(sink.got)
		} else if lost != 0 || disordered == 0 {
			t.Errorf("the control lost %d events and has %d out of order, want 0 and more", lost,
				disordered)
		}
		again := len(sink.got) - len(ids(sink.got))
		if again == 0 {
			t.Error("no event came twice, so no acceptance was lost")
		}
		t.Logf("guarded %t: of %d events %d failed, %d came twice, %d out of order", guarded,
			len(f.written()), failed, again, disordered)
	}
}

// Poison: the sink refuses the first event of a hold. Its later ones are parked too, and every
// other event comes. The control publishes the later ones without the first.
func TestPoisonStopsItsSubjectAlone(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		bad := f.reserve()
		f.confirm(bad)
		for range 10 {
			f.confirm(f.reserve())
		}
		first, second := bad.String()+"-1", bad.String()+"-2"
		sink := &memory{answer: func(e events.Event) error {
			if e.ID == first {
				return &events.RefusedError{Reason: "poison"}
			}
			return nil
		}}
		f.relayed(sink, guarded)
		lost, disordered := f.faults(sink.got)
		if disordered != 0 || slices.Contains(ids(sink.got), second) == guarded {
			t.Errorf("guarded %t: %d events are out of order, and the sink got %v", guarded, disordered,
				ids(sink.got))
		}
		if !guarded {
			continue
		}
		parked := pgtest.QueryOne[[]string](f.Fixture,
			"SELECT array_agg(id || ': ' || error ORDER BY id) FROM parked")
		want := []string{first + ": poison", second + ": an earlier event of its subject is parked"}
		if !slices.Equal(parked, want) || lost != len(want) {
			t.Errorf("%v are parked and %d are missing, want %v", parked, lost, want)
		}
		t.Logf("of %d events two are parked", len(f.written()))
	}
}

// A tick that was pruned under a cursor makes two batches one. Some events come again, and none is
// missed. With the place taken for one in the merged batch, the expiry of the later batch is lost:
// its time is before the cursor's place.
func TestAPrunedTickUnderACursorLosesNothing(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("list_events", "CASE WHEN _tick.n = _batch THEN _after END", "_after")
		}
		dead := f.reserve()
		f.tick()
		start := f.listAll("", 500)
		f.reserve()
		f.reserve()
		middle := f.tick()
		page, cursor, err := f.outbox.List(f.Context(), start.next, nil, 1)
		if err != nil || len(page) != 1 {
			t.Fatalf("List() = %v, %v, want one event", page, err)
		}
		f.KillAgo(time.Minute, dead)
		if _, err := f.service.Sweep(f.Context()); err != nil {
			t.Fatal(err)
		}
		f.tick()
		f.Exec("DELETE FROM ticks WHERE n = $1", middle)
		rest := f.listAll(cursor, 1)
		all := slices.Concat(start.events, page, rest.events)
		lost, _ := f.faults(all)
		if (lost == 0) != guarded {
			t.Errorf("guarded %t: %d events are lost of %v", guarded, lost, ids(all))
		}
	}
}

// listing is what a reader got, and the cursor at the end.
type listing struct {
	events []events.Event
	next   string
}

// listAll follows the list from a cursor to its end, in pages of limit events.
func (f *fixture) listAll(after string, limit int) (all listing) {
	f.t.Helper()
	all.next = after
	for {
		page, next, err := f.outbox.List(f.Context(), all.next, nil, limit)
		if err != nil {
			f.t.Fatalf("List(%q) = %v", all.next, err)
		}
		all.next = next
		if len(page) == 0 {
			return all
		}
		all.events = append(all.events, page...)
	}
}

// A tick whose wait for the synchronous standby was cut short is visible all the same. Its events
// wait until a later commit got through, because a fail-over would undo them.
func TestNoPageBeforeTheSynchronousStandbyHasItsTick(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		_, db := pgtest.NewServer(t, nil)
		f := open(t, db)
		f.Patient()
		if !guarded {
			f.commitLocally("claim_sink")
			f.mutate("follow_events", "PERFORM write_log_record();", "")
		}
		request := events.Request{Sink: "topic", Lease: uuid.NewString()}
		page := f.next(request)
		f.next(events.Request{Sink: "topic", Lease: request.Lease, Ack: page.Position})
		f.reserve()
		f.setStandbys("nobody")
		next := func(ctx context.Context) (err error) {
			page, err = f.outbox.Next(ctx, request)
			return err
		}
		if err := f.UntilItStalls(next); !errors.Is(err, reservation.ErrUnavailable) {
			t.Errorf("Next() with a stalled tick = %+v, %v, want ErrUnavailable", page, err)
		}
		f.WaitUntil("SELECT last_tick() = 2") // the stalled one
		if err := f.UntilItStalls(next); (err != nil) != guarded {
			t.Errorf("guarded %t: Next() after a stalled tick = %+v, %v", guarded, page, err)
		}
		var listed []events.Event
		err := f.UntilItStalls(func(ctx context.Context) (err error) {
			listed, _, err = f.outbox.List(ctx, "", nil, 500)
			return err
		})
		if (err != nil) != guarded {
			t.Errorf("guarded %t: List() after a stalled tick = %v, %v", guarded, names(listed), err)
		}
		f.setStandbys("")
		if page := f.next(request); len(page.Events) != 1 {
			t.Errorf("once commits wait for no standby the page is %+v, want the hold", page)
		}
	}
}

// A tick may come from another session between a relay's claim and its own tick, and its wait for
// the standby may have been cut short. The relay's page waits for a commit of its own, which Next
// makes by claiming once more. In the control that commit doesn't wait for the standby, as if it
// weren't there: the page comes before the tick is on the standby.
func TestAnotherSessionsTickIsNoBarrier(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		_, db := pgtest.NewServer(t, nil)
		f := open(t, db)
		f.Patient()
		if !guarded {
			f.commitLocally("claim_sink")
		}
		err := f.pageOfAnotherSessionsTick()
		if guarded && !errors.Is(err, reservation.ErrUnavailable) || !guarded && err != nil {
			t.Errorf("guarded %t: Next() before another session's tick is on the standby: %v", guarded,
				err)
		}
	}
}

// commitLocally makes the transactions of a routine that begins with last_tick wait for no standby.
func (f *fixture) commitLocally(routine string) {
	f.t.Helper()
	f.mutate(routine, "last := last_tick();",
		"PERFORM set_config('synchronous_commit', 'local', true); last := last_tick();")
}

// pageOfAnotherSessionsTick asks for a page whose tick another session takes meanwhile, and cuts
// the wait for the standby short, if there is one. It returns the error of Next.
func (f *fixture) pageOfAnotherSessionsTick() error {
	f.t.Helper()
	request := events.Request{Sink: "topic-holds", Lease: uuid.NewString()}
	page := f.next(request)
	f.next(events.Request{Sink: request.Sink, Lease: request.Lease, Ack: page.Position})
	f.reserve()
	unlock := f.Lock("SELECT pg_advisory_xact_lock(10, 0)")
	next := make(chan error, 1)
	go func() { // stands between its claim and its tick
		page, err := f.outbox.Next(f.Context(), request)
		if err == nil && len(page.Events) != 1 {
			err = fmt.Errorf("Next() = %+v, want the hold", page)
		}
		next <- err
	}()
	f.WaitForBlocked(1)
	f.Exec(`INSERT INTO ticks (n, snapshot) SELECT 2, pg_current_snapshot()`)
	f.setStandbys("nobody")
	defer f.setStandbys("")
	unlock()
	for {
		select {
		case err := <-next:
			return err
		default: // the query paces the loop, and Next ends it
			f.Exec("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		}
	}
}

// setStandbys changes the standbys for which commits wait, and waits until the server knows.
func (f *fixture) setStandbys(names string) {
	f.t.Helper()
	f.Exec("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'")
	f.Exec("SELECT pg_reload_conf()")
	for pgtest.QueryOne[string](f.Fixture, "SHOW synchronous_standby_names") != names {
		continue // the query paces the loop, and the test's deadline ends it
	}
	for range 2 { // the checkpointer tells all sessions, once it has read the settings itself
		f.Exec("CHECKPOINT")
	}
}
