package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// The size of TestTheFeedTellsEveryTransition, and how many relays run beside it. Without a relay
// the feed is read at the end. A comparison of the two says what the relays cost the verbs. The
// times of the calls are those on AWS: without them a relay that makes too many calls keeps up.
var (
	transitions = flag.Int("transitions", 20_000, "transitions that the feed must tell of")
	relays      = flag.Int("relays", 2, "relays that run beside them")
	outboxTime  = flag.Duration("outbox-time", 10*time.Millisecond, "of a call of the outbox")
	sinkTime    = flag.Duration("sink-time", 25*time.Millisecond, "of a call of the sink")
)

// distance counts the calls of the outbox and of the sink, and makes each take its time.
type distance struct {
	outbox events.Outbox
	sink   events.Sink
	// asked counts the calls of the outbox, pages those that had events for the sink, and sent the
	// calls of the sink.
	asked, pages, sent atomic.Int64
	// short counts the pages that had room for more events of their batch, and again those that a
	// relay got once too often.
	short, again atomic.Int64
}

// fullPage is how many events a page has, unless its batch has no more. A page behind which the
// batch goes on has a position with a colon.
const fullPage = 500

// next makes the outbox of one relay. The relay asks for a page of each place before it publishes
// one, so it gets its first pages twice.
func (d *distance) next() events.Outbox {
	var mu sync.Mutex
	got := map[string]int{} // by the place and the first event of a page
	return func(ctx context.Context, r events.Request) (events.Page, error) {
		d.asked.Add(1)
		time.Sleep(*outboxTime)
		page, err := d.outbox(ctx, r)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			clear(got) // the relay doesn't know what its call did, and asks anew
		}
		if len(page.Events) == 0 || !slices.Contains(events.Places("topic"), r.Sink) {
			return page, err
		}
		d.pages.Add(1)
		if len(page.Events) < fullPage && strings.Contains(page.Position, ":") {
			d.short.Add(1)
		}
		if got[r.Sink+page.Events[0].ID]++; got[r.Sink+page.Events[0].ID] > 2 {
			d.again.Add(1)
		}
		return page, err
	}
}

// quick is a second sink, which takes no time and keeps nothing. Its places ask for pages as fast
// as they may.
type quick struct{}

func (quick) Publish(_ context.Context, batch []events.Event) []error {
	return make([]error, len(batch))
}

// Publish doesn't outlast a relay that is stopped, as a call to SNS doesn't.
func (d *distance) Publish(ctx context.Context, batch []events.Event) []error {
	d.sent.Add(1)
	select {
	case <-time.After(*sinkTime):
		return d.sink.Publish(ctx, batch)
	case <-ctx.Done():
		return nil
	}
}

// feed is a database with a service and an outbox of several connections each.
type feed struct {
	db      *pgtest.Fixture
	service *reservation.Service
	outbox  *outbox.Outbox
}

func newFeed(t testing.TB, db pgtest.Database, connections int) *feed {
	t.Helper()
	open := func(size int) *reservation.Service {
		pool, err := postgres.Open(postgres.URL(db.URL), size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return reservation.New(pool, reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour})
	}
	return &feed{
		db: pgtest.NewFixtureOfSize(t, db, ownConnections), service: open(connections),
		outbox: outbox.New(open(2), outbox.Options{Source: "faults"}),
	}
}

// written is every event that there must be, as the tables have it now: its type's last word, by
// its id.
func (f *feed) written(t *testing.T) map[string]string {
	t.Helper()
	rows, err := f.db.Admin.Query(withTimeout(t, testLimit), `
SELECT hold_id || '-' || version,
       CASE kind WHEN 'h' THEN 'held' WHEN 'x' THEN 'extended' WHEN 'c' THEN 'confirmed'
                 WHEN 'r' THEN 'released' WHEN 'e' THEN 'expired' END
FROM ledger
UNION ALL
SELECT product_id || '-' || warehouse_id || '-' || seq, 'moved' FROM stock_movements`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var id, kind string
	if _, err := pgx.ForEachRow(rows, []any{&id, &kind}, func() error {
		all[id] = kind
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// recorder is a sink that keeps what it was told.
type recorder struct {
	mu      sync.Mutex
	bodies  map[string][]byte // by id
	types   map[string]string
	last    map[string]int64 // the sequence, by subject
	repeats int
	late    []time.Duration // from a verb's transition to its publication
	faults  []error
}

func newRecorder() *recorder {
	return &recorder{
		bodies: map[string][]byte{}, types: map[string]string{}, last: map[string]int64{},
	}
}

// Publish accepts every event, and notes one that differs from an earlier one of its id, or that
// comes before its predecessor.
func (r *recorder) Publish(_ context.Context, batch []events.Event) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range batch {
		if err := r.see(e); err != nil {
			r.faults = append(r.faults, err)
		}
	}
	return make([]error, len(batch))
}

func (r *recorder) see(e events.Event) error {
	if body, ok := r.bodies[e.ID]; ok {
		r.repeats++
		if !bytes.Equal(body, e.Body) {
			return fmt.Errorf("event %s was first %s, and then %s", e.ID, body, e.Body)
		}
		return nil
	}
	var c struct {
		Sequence string
		Time     time.Time
		Data     struct{ Cause string }
	}
	if err := json.Unmarshal(e.Body, &c); err != nil {
		return fmt.Errorf("read event %s: %w", e.ID, err)
	}
	sequence, err := strconv.ParseInt(c.Sequence, 10, 64)
	if err != nil {
		return fmt.Errorf("read event %s: %w", e.ID, err)
	}
	r.bodies[e.ID], r.types[e.ID] = e.Body, e.Type
	if c.Data.Cause == "verb" {
		r.late = append(r.late, time.Since(c.Time))
	}
	before := r.last[e.Subject]
	r.last[e.Subject] = sequence
	if sequence != before+1 {
		return fmt.Errorf("event %s has sequence %d and came after %d", e.ID, sequence, before)
	}
	return nil
}

// compare returns what is missing, what is too much, and what else was wrong.
func (r *recorder) compare(written map[string]string) (faults []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	faults = slices.Clone(r.faults)
	for id, kind := range written {
		want := "allo.reservation." + kind
		if kind == "moved" {
			want = events.TypeMoved
		}
		if r.types[id] != want {
			faults = append(faults, fmt.Errorf("event %s is %q, want %s", id, r.types[id], want))
		}
	}
	for id := range r.types {
		if written[id] == "" {
			faults = append(faults, fmt.Errorf("event %s tells of what never happened", id))
		}
	}
	return faults
}

// drain publishes what is left.
func (f *feed) drain(t *testing.T, sink events.Sink) {
	t.Helper()
	relay := events.NewRelay(f.outbox.Next, map[string]events.Sink{"topic": sink},
		events.Options{Log: slog.New(slog.DiscardHandler)})
	if err := relay.Run(withTimeout(t, testLimit)); err != nil {
		t.Fatal(err)
	}
}

// quietCrashes is how often the server is killed in a quiet shop; with -short it is
// shortQuietCrashes. A run goes on until a crash has undone something, but for no more than
// mostQuietCrashes: where sweeps are quick, all of them may be on disk by the time of a kill.
const quietCrashes, shortQuietCrashes, mostQuietCrashes = 20, 4, 40

// TestNothingUndoneIsPublished kills the server of a quiet shop: only sweeps write, and they don't
// wait for the disk. Each kill comes at the moment when a relay has got a page.
func TestNothingUndoneIsPublished(t *testing.T) {
	want := quietCrashes
	if testing.Short() {
		want = shortQuietCrashes
	}
	q := newQuietShop(t)
	kills := 0
	for ; kills < want || q.lost == 0 && kills < mostQuietCrashes; kills++ {
		q.killAtAPage()
	}
	if q.undone > 0 {
		t.Errorf("%d of %d published events are of transitions that a crash has undone", q.undone,
			q.published)
	}
	if q.published == 0 || q.lost == 0 {
		t.Errorf("%d events were published and %d expiries undone: the kills prove nothing",
			q.published, q.lost)
	}
	if q.behind > 0 {
		t.Errorf("after %d crashes the server was behind its last tick", q.behind)
	}
	t.Logf("%d kills undid %d expiries; %d events were published, none of them undone; a cursor in "+
		"memory would have been ahead of the server %d times", kills, q.lost, q.published, q.ahead)
}

// TestWithoutADurableTickUndoneEventsArePublished is the control. It also shows why the place of a
// reader stands in the database: one in memory would be ahead of the server after a crash, and
// would take new transactions for old ones.
func TestWithoutADurableTickUndoneEventsArePublished(t *testing.T) {
	q := newQuietShop(t)
	pgtest.Mutate(t, q.db.Database, "take_tick", "PERFORM pg_advisory_xact_lock(10, 0);",
		"PERFORM pg_advisory_xact_lock(10, 0);"+
			"PERFORM set_config('synchronous_commit', 'off', true);")
	pgtest.Mutate(t, q.db.Database, "claim_sink", "last := last_tick();",
		"PERFORM set_config('synchronous_commit', 'off', true); last := last_tick();")
	kills := 0
	for ; kills < mostQuietCrashes && (q.undone == 0 || q.ahead == 0); kills++ {
		q.killAtAPage()
	}
	if q.undone == 0 || q.ahead == 0 {
		t.Errorf("after %d kills %d undone events were published, and a cursor in memory was ahead "+
			"%d times: the control proves nothing", kills, q.undone, q.ahead)
	}
	t.Logf("after %d kills %d of %d published events were undone", kills, q.undone, q.published)
}

// quietShop is a shop in which nobody buys, on a server of its own that flushes only for a commit
// that waits.
type quietShop struct {
	*feed
	t      *testing.T
	server interface {
		Kill() error
		Restart(context.Context) error
	}
	row stockRow
	// published and undone count events, lost counts the expiries that crashes have undone. behind
	// and ahead count the crashes after which the server was behind its last tick, and behind the
	// newest id that a reader had seen.
	published, undone, lost, behind, ahead int
}

func newQuietShop(t *testing.T) *quietShop {
	t.Helper()
	server, db := pgtest.NewServer(t, map[string]string{
		"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB",
	})
	q := &quietShop{feed: newFeed(t, db, 2), t: t, server: server}
	q.row = stockRow{q.db.Product(), q.db.Warehouse()}
	q.db.Stock(q.row.Product, q.row.Warehouse, 1_000_000)
	return q
}

// deadHolds is how many holds die for a kill.
const deadHolds = 500

// killAtAPage lets holds die and sweeps them one by one beside a relay. It kills the server when
// the relay has got a random number of pages of expiries, restarts it, and compares.
func (q *quietShop) killAtAPage() {
	q.t.Helper()
	q.db.Exec(fmt.Sprintf(`
DO $$
DECLARE
    _outcome text;
    _answer  jsonb;
BEGIN
    FOR _n IN 1..%d LOOP
        _outcome := NULL;
        _answer := NULL;
        CALL reserve_line(gen_random_uuid(), '%s', '%s', 1, '1 ms', NULL, NULL, _outcome, _answer);
    END LOOP;
END $$`, deadHolds, q.row.Product, q.row.Warehouse))
	q.drain(q.t, newRecorder())
	expired := q.expired()

	ctx, stop := context.WithCancel(withTimeout(q.t, testLimit))
	defer stop()
	var sweeper sync.WaitGroup
	var swept atomic.Bool
	sweeper.Go(func() {
		for ctx.Err() == nil {
			tag, err := q.db.Admin.Exec(ctx, "SELECT FROM sweep_holds(1) WHERE expired > 0")
			if err != nil {
				return // the server is dead
			}
			expired += tag.RowsAffected()
			if tag.RowsAffected() == 0 {
				swept.Store(true)
				return
			}
		}
	})
	seen, newest := q.follow(ctx, 1+rand.IntN(5), &swept)
	if err := q.server.Kill(); err != nil {
		q.t.Fatal(err)
	}
	stop()
	sweeper.Wait()
	if err := q.server.Restart(withTimeout(q.t, testLimit)); err != nil {
		q.t.Fatal(err)
	}
	q.db.Admin.Reset()
	q.lost += int(expired - q.expired())
	q.db.Exec("UPDATE sinks SET leased_until = '-infinity'") // the reader's, which is gone
	q.look(seen, newest)
}

func (q *quietShop) expired() int64 {
	q.t.Helper()
	return pgtest.QueryOne[int64](q.db, "SELECT count(*) FROM reservations WHERE status = 'EXPIRED'")
}

// nextID is the transaction id that the server gives out next.
func (q *quietShop) nextID() int64 {
	q.t.Helper()
	return pgtest.QueryOne[int64](q.db,
		"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
}

// follow reads pages of the holds' events as a relay does, until it has got n of them with events.
// Where the disk is slow and the sweeps are quick, they may have swept all before. Then no more
// pages come. It returns the ids of the events, and the newest transaction id that it has seen.
func (q *quietShop) follow(
	ctx context.Context, n int, swept *atomic.Bool,
) (seen []string, newest int64) {
	q.t.Helper()
	request := events.Request{Sink: "topic-holds", Lease: uuid.NewString()}
	for n > 0 {
		wasSwept := swept.Load()
		page, err := q.outbox.Next(ctx, request)
		if err != nil {
			q.t.Fatal(err)
		}
		request.Ack = page.Position
		for _, e := range page.Events {
			seen = append(seen, e.ID)
		}
		if len(page.Events) > 0 {
			n--
		} else if wasSwept && page.Position == "" {
			break
		}
	}
	return seen, q.nextID()
}

// look compares the recovered database with what was seen before the crash.
func (q *quietShop) look(seen []string, newest int64) {
	q.t.Helper()
	next := q.nextID()
	tick := pgtest.QueryOne[int64](q.db,
		"SELECT coalesce(max(pg_snapshot_xmax(snapshot)::text::bigint), 0) FROM ticks")
	if next < tick {
		q.behind++
	}
	if next < newest {
		q.ahead++
	}
	there := q.written(q.t)
	q.published += len(seen)
	for _, id := range seen {
		if there[id] == "" {
			q.undone++
		}
	}
}

// TestTheFeedTellsEveryTransition makes transitions by all verbs and by sweeps, with movements
// between them, beside two relays that take turns. Each event comes once by its id, in the order of
// its subject, and none is missing.
func TestTheFeedTellsEveryTransition(t *testing.T) {
	f := newFeed(t, pgtest.New(t), 8)
	want := *transitions
	if testing.Short() {
		want /= 4
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sink := newRecorder()
	far := &distance{outbox: f.outbox.Next, sink: sink}
	var beside sync.WaitGroup
	for range *relays {
		beside.Go(func() { f.relayInTurns(ctx, far) })
	}
	beside.Go(func() { f.sweepOften(ctx) })

	start := time.Now()
	made := f.trade(t, int64(want))
	took := time.Since(start)
	late := sink.latencies()
	stop()
	beside.Wait()
	ticks := pgtest.QueryOne[int](f.db, "SELECT count(*) FROM ticks")
	whole := time.Since(start)
	if most := int(whole/(250*time.Millisecond)) + 2; ticks > most {
		t.Errorf("there are %d ticks after %s, want at most %d", ticks, whole, most)
	}
	// Pages of a few events each would need more calls than there is time for. How many events a tick
	// has depends on the machine, but a page has all of them that fit.
	if far.short.Load() > 0 || far.again.Load() > 0 {
		t.Errorf("of %d pages %d had room for more events, and relays got %d once too often",
			far.pages.Load(), far.short.Load(), far.again.Load())
	}
	f.drain(t, sink)

	faults := sink.compare(f.written(t))
	for _, err := range faults[:min(5, len(faults))] {
		t.Error(err)
	}
	if len(faults) > 5 {
		t.Errorf("and %d more", len(faults)-5)
	}
	violations, err := f.service.Audit(withTimeout(t, 10*testLimit))
	if err != nil || len(violations) > 0 {
		t.Errorf("Audit() = %v, %v, want none", violations, err)
	}
	t.Logf("%d transitions in %s, %.0f a second; %d events, %d of them more than once; "+
		"late by %s at the median and %s at the 99th percentile; %d ticks, %d calls of the outbox, "+
		"%d pages, %d calls of the sink",
		made, took.Round(time.Second), float64(made)/took.Seconds(), len(sink.types), sink.repeats,
		percentile(late, 0.5), percentile(late, 0.99), ticks, far.asked.Load(), far.pages.Load(),
		far.sent.Load())
}

// relayInTurns runs relays one after the other. Each is stopped at a random moment.
func (f *feed) relayInTurns(ctx context.Context, far *distance) {
	for ctx.Err() == nil {
		turn, end := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(3*time.Second))))
		relay := events.NewRelay(far.next(), map[string]events.Sink{"topic": far, "bus": quick{}},
			events.Options{For: time.Minute, Log: slog.New(slog.DiscardHandler)})
		_ = relay.Run(turn) // a page that was cut off comes again
		end()
	}
}

func (f *feed) sweepOften(ctx context.Context) {
	for ctx.Err() == nil {
		_, _ = f.service.Sweep(ctx) // the next one does the rest
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond): // seldom beside the verbs
		}
	}
}

// trade lets eight callers work until they have made n transitions, and returns how many they made.
func (f *feed) trade(t *testing.T, n int64) int64 {
	t.Helper()
	var rows []reservation.Line
	for range 20 {
		row := reservation.Line{ProductID: f.db.Product(), WarehouseID: f.db.Warehouse(), Quantity: 1}
		f.db.Stock(row.ProductID, row.WarehouseID, 100_000_000)
		rows = append(rows, row)
	}
	var made atomic.Int64
	runConcurrently(8, func(caller int) {
		r := newRand(77, uint64(caller))
		for made.Load() < n && !t.Failed() {
			count, err := f.shop(t.Context(), r, rows)
			if err != nil {
				t.Error(err)
			}
			made.Add(count)
		}
	})
	return made.Load()
}

// shop makes a hold, and then up to three calls for it race. It returns the number of transitions
// that the callers were told of.
func (f *feed) shop(ctx context.Context, r *rand.Rand, rows []reservation.Line) (int64, error) {
	request := reservation.Request{Lines: []reservation.Line{rows[r.IntN(len(rows))]}}
	if r.IntN(8) == 0 {
		at := r.IntN(len(rows) - 3)
		request.Lines = slices.Clone(rows[at : at+3])
	}
	if r.IntN(10) == 0 {
		request.TTL = time.Second // the sweep or a caller finds it dead
	}
	held, err := f.service.Reserve(ctx, request)
	if err != nil {
		return 0, err
	}
	var told atomic.Int64
	told.Add(1)
	calls := []func() error{
		func() error { return f.ok(&told)(f.service.Extend(ctx, held.Hold.ID, time.Minute, "")) },
		func() error { return f.ok(&told)(f.service.Confirm(ctx, held.Hold.ID, "")) },
		func() error { return f.ok(&told)(f.service.Release(ctx, held.Hold.ID, "")) },
	}
	r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	errs := make([]error, r.IntN(len(calls)+1))
	runConcurrently(len(errs), func(i int) { errs[i] = calls[i]() })
	return told.Load(), errors.Join(errs...)
}

// ok counts an answer that tells of a transition. A refusal is no error here.
func (f *feed) ok(told *atomic.Int64) func(reservation.Answer, error) error {
	return func(a reservation.Answer, err error) error {
		for _, refusal := range []error{
			reservation.ErrConfirmed, reservation.ErrReleased, reservation.ErrExpired,
			reservation.ErrBusy,
		} {
			if errors.Is(err, refusal) {
				return nil
			}
		}
		if err == nil {
			told.Add(1)
		}
		return err
	}
}

// latencies returns how late the events of verbs were, in order.
func (r *recorder) latencies() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := slices.Clone(r.late)
	slices.Sort(late)
	return late
}
