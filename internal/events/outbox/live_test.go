package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/channel"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// follower is a relay's side of the live channel, in a test.
type follower struct {
	f     *fixture
	o     *outbox.Outbox
	lease string
	asOf  int64 // the batch to acknowledge
}

// follow begins to follow the live channel of a shop that has a tick. Batches may follow one
// another at once.
func (f *fixture) follow() *follower {
	f.t.Helper()
	f.mutate("live_interval", "1 s", "0 s")
	f.tick()
	l := &follower{f: f, o: f.outbox, lease: uuid.NewString()}
	if page := l.next(); !page.Leased || page.AsOf != 0 {
		f.t.Fatalf("the first page is %+v, want the lease alone", page)
	}
	return l
}

func (l *follower) ask(r events.LiveRequest) events.LivePage {
	l.f.t.Helper()
	r.Lease = l.lease
	page, err := l.o.Live(l.f.Context(), r)
	if err != nil {
		l.f.t.Fatalf("Live(%+v) = %v", r, err)
	}
	return page
}

// next acknowledges the last batch and asks for the next one.
func (l *follower) next() events.LivePage {
	l.f.t.Helper()
	page := l.ask(events.LiveRequest{AsOf: l.asOf})
	l.asOf = page.AsOf
	return page
}

// stock returns a page's stock rows as texts: product, total, reserved and available.
func (f *fixture) stock(page events.LivePage) []string {
	var out []string
	for _, m := range page.Stock {
		out = append(out, f.text(m))
	}
	slices.Sort(out)
	return out
}

func (f *fixture) text(m channel.Stock) string {
	name := "another"
	if m.ProductID == f.product {
		name = "first"
	}
	return fmt.Sprint(name, " ", figure(m.TotalQuantity), " ", figure(m.ReservedQuantity), " ",
		m.AvailableStock)
}

func figure(n *int) any {
	if n == nil {
		return "-"
	}
	return *n
}

// A batch has each stock row that changed once, as it is now, and the holds that changed.
func TestALiveBatchHasEachRowOnceAsItIsNow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other, third := f.Product(), f.Product()
	f.Stock(other, f.west, 10)
	f.Stock(third, f.west, 10)
	l := f.follow()

	first, second := f.reserve(), f.reserve()
	f.confirm(first)
	cart := f.reserveCart(f.product, other)
	if _, err := f.service.Extend(t.Context(), second, 20*time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	page := l.next()
	want := []string{"another 10 1 9", "first 999999 2 999997"}
	if diff := cmp.Diff(want, f.stock(page)); diff != "" || page.After != nil {
		t.Errorf("the stock of the batch: %s", diff)
	}
	changed := map[uuid.UUID]int{}
	for _, h := range page.Holds {
		changed[h.ReservationID] = h.Version
	}
	if diff := cmp.Diff(map[uuid.UUID]int{first: 2, second: 2}, changed); diff != "" {
		t.Errorf("the holds of the batch: %s", diff)
	}
	if last := f.tick(); page.AsOf != last || page.Stock[0].AsOf != last ||
		page.Holds[0].AsOf != last {
		t.Errorf("asOf is %d, %+v, want the tick %d", page.AsOf, page.Stock[0], last)
	}
	if page := l.next(); page.AsOf != 0 || page.Stock != nil || page.Holds != nil {
		t.Errorf("without news there is the page %+v", page)
	}
	if _, err := f.service.Release(t.Context(), cart, ""); err != nil {
		t.Fatal(err)
	}
	f.Exec("SELECT adjust_stock($1, $2, 5, 'test')", third.String(), f.west.String())
	want = []string{"another 10 0 10", "another 15 0 15", "first 999999 1 999998"}
	if diff := cmp.Diff(want, f.stock(l.next())); diff != "" {
		t.Errorf("the stock of the next batch: %s", diff)
	}
}

// reserveCart holds one unit of each product.
func (f *fixture) reserveCart(products ...uuid.UUID) uuid.UUID {
	f.t.Helper()
	var lines []reservation.Line
	for _, p := range products {
		lines = append(lines, reservation.Line{ProductID: p, WarehouseID: f.west, Quantity: 1})
	}
	answer, err := f.service.Reserve(f.Context(), reservation.Request{Lines: lines})
	if err != nil {
		f.t.Fatalf("Reserve() = %v", err)
	}
	return answer.Hold.ID
}

// The stock rows of a hold that dies by itself are told, with nobody else in the shop, and once:
// the sweep that writes the death changes no figure. The control doesn't look for the dead.
func TestADeathIsToldInAnIdleShop(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("has_died", "r.expires_at > _from", "false AND r.expires_at > _from")
			f.mutate("live_rows", "r.expires_at > _from", "false AND r.expires_at > _from")
		}
		other := f.Product()
		f.Stock(other, f.west, 10)
		l := f.follow()
		alone, cart := f.reserve(), f.reserveCart(f.product, other)
		before := l.next().AsOf
		if page := l.next(); page.AsOf != 0 {
			t.Errorf("guarded %t: without news there is the page %+v", guarded, page)
		}
		f.KillAgo(0, alone, cart)
		page := l.next()
		want := []string{"another 10 0 10", "first 1000000 0 1000000"}
		if told := cmp.Diff(want, f.stock(page)) == ""; told != guarded {
			t.Errorf("guarded %t: the batch has %v", guarded, f.stock(page))
		}
		if !guarded {
			continue
		}
		if page.AsOf <= before || page.Holds != nil || page.LagSeconds > 60 {
			t.Errorf("behind batch %d comes %+v", before, page)
		}
		if _, err := f.service.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		page = l.next()
		if page.Stock != nil || len(page.Holds) != 2 {
			t.Errorf("after the sweep the batch is %+v, want the two holds alone", page)
		}
	}
}

// A sweep may write a death before the channel has looked for it.
func TestADeathThatASweepFindsFirstIsTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow()
	hold := f.reserve()
	l.next()
	f.KillAgo(0, hold)
	if _, err := f.service.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	page := l.next()
	if got := f.stock(page); !slices.Equal(got, []string{"first 1000000 0 1000000"}) ||
		len(page.Holds) != 1 {
		t.Errorf("the batch is %v and %v", got, page.Holds)
	}
}

// An idle shop writes nothing for the live channel, and reads few blocks, however long its ledger
// and however many holds are live.
func TestAnIdleShopReadsFewBlocksForTheLiveChannel(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.pile(200)
	f.Exec("ANALYZE")
	l := f.follow()
	l.next()
	const state = "SELECT (SELECT count(*) FROM ticks) || ' ' || (SELECT xmin FROM live)"
	before := pgtest.QueryOne[string](f.Fixture, state)
	const few = 30
	blocks, took := f.Explain("SELECT leased, batch FROM claim_live($1, NULL, false)", l.lease)
	if blocks > few {
		t.Errorf("a look without news reads %d blocks, want at most %d", blocks, few)
	}
	t.Logf("%d blocks, %.2f ms", blocks, took)
	for range 5 {
		l.next()
	}
	if after := pgtest.QueryOne[string](f.Fixture, state); after != before {
		t.Errorf("the ticks and the version of live were %q and are %q", before, after)
	}
	// After a quarter of the lease it is renewed, and a later look begins there.
	f.Exec("UPDATE live SET leased_until = leased_until - interval '20 s', " +
		"looked = looked - interval '20 s'")
	l.next()
	if fresh := pgtest.QueryOne[bool](f.Fixture, `
SELECT leased_until > clock_timestamp() + interval '50 s'
       AND looked > clock_timestamp() - interval '10 s' FROM live`); !fresh {
		t.Error("the lease wasn't renewed, or the look stays where it was")
	}
}

// asOf rises with each message of a stock row, also when a batch isn't acknowledged: then its rows
// come again, as they are by then. In the control such a batch keeps its number.
func TestAsOfRises(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("take_live_tick", "_last IS NOT DISTINCT FROM _before", "false")
		}
		l := f.follow()
		f.reserve()
		first := l.next()
		l.asOf = 0 // the messages may have been sent
		second := l.next()
		if rises := second.AsOf > first.AsOf; rises != guarded {
			t.Errorf("guarded %t: the batch %d comes again as %d", guarded, first.AsOf, second.AsOf)
		}
		if diff := cmp.Diff(f.stock(first), f.stock(second)); diff != "" {
			t.Errorf("guarded %t: a batch that wasn't acknowledged differs: %s", guarded, diff)
		}
		f.reserve()
		third := l.next()
		want := []string{"first 1000000 2 999998"}
		if third.AsOf <= second.AsOf || !slices.Equal(f.stock(third), want) {
			t.Errorf("guarded %t: behind %d comes %d with %v", guarded, second.AsOf, third.AsOf,
				f.stock(third))
		}
	}
}

// Another sink's tick may be newer than the last batch. A death after it gets a tick of its own: a
// page that polled in between has seen that tick, and not the death. The control uses the tick.
func TestADeathTakesATickOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("take_live_tick", "OR has_died(_from, _to)", "")
		}
		l := f.follow()
		hold := f.reserve()
		l.next()
		other := f.reserve()
		seen := f.tick()
		f.KillAgo(0, hold, other)
		if page := l.next(); (page.AsOf > seen) != guarded {
			t.Errorf("guarded %t: a page that has polled at tick %d hears of the death as of %d", guarded,
				seen, page.AsOf)
		}
	}
}

// A transaction that stays open while others commit is told when it commits, though its id is lower
// than theirs. The control goes by the ids alone.
func TestASlowTransactionIsToldWhenItCommits(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("live_rows", "is_new(m.xid, _running, _prev, _this)",
				"m.xid >= pg_snapshot_xmax(_prev) AND m.xid < pg_snapshot_xmax(_this)")
		}
		other := f.Product()
		f.Stock(other, f.west, 10)
		l := f.follow()
		hold := f.reserve()
		l.next()
		slow := f.begin()
		if err := transition(t.Context(), slow, hold); err != nil {
			t.Fatal(err)
		}
		if _, err := slow.Exec(t.Context(), "SELECT adjust_stock($1, $2, 5, 'test')", other.String(),
			f.west.String()); err != nil {
			t.Fatal(err)
		}
		f.reserve()
		page := l.next()
		if got := f.stock(page); len(got) != 1 || len(page.Holds) != 0 {
			t.Errorf("guarded %t: before the commit the batch has %v and %v", guarded, got, page.Holds)
		}
		f.commit(slow)
		page = l.next()
		if told := slices.Equal(f.stock(page), []string{"another 15 0 15"}); told != guarded {
			t.Errorf("guarded %t: after the commit the batch has %v", guarded, f.stock(page))
		}
		if len(page.Holds) != 1 || page.Holds[0].ReservationID != hold {
			t.Errorf("guarded %t: after the commit the batch has the holds %v", guarded, page.Holds)
		}
	}
}

// The live channel leaves out the changes from the time when no relay ran, because the pages have
// read the catalog meanwhile. It tells the next change. The control tells all of them.
func TestABacklogIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		l := f.follow()
		if !guarded {
			f.mutate("live_backlog", "1 minute", "1 day")
		}
		other := f.Product()
		f.Stock(other, f.west, 10)
		hold := f.reserve()
		f.tick()
		f.Exec("UPDATE live SET looked = looked - interval '2 min'")
		f.KillAgo(90*time.Second, hold)
		page := l.next()
		if told := len(page.Stock) > 0; told == guarded {
			t.Errorf("guarded %t: after a pause the batch has %v", guarded, f.stock(page))
		}
		f.reserve()
		if got := f.stock(l.next()); !slices.Equal(got, []string{"first 1000000 1 999999"}) {
			t.Errorf("guarded %t: after the pause a change is told as %v", guarded, got)
		}
	}
}

// A tick that was pruned, or dropped by rebase_stream, is a pause too.
func TestALostTickIsAPause(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow()
	f.reserve()
	l.next()
	l.next()
	f.Exec("SELECT rebase_stream()")
	f.reserve()
	l.next()
	f.reserve()
	if got := f.stock(l.next()); !slices.Equal(got, []string{"first 1000000 3 999997"}) {
		t.Errorf("after rebase_stream() a change is told as %v", got)
	}
}

// A new shop has no tick. Then all that was ever written would be the first batch.
func TestTheFirstBatchOfAShopIsLeftOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mutate("live_interval", "1 s", "0 s")
	f.reserve()
	l := &follower{f: f, o: f.outbox, lease: uuid.NewString()}
	if page := l.next(); !page.Leased || page.AsOf != 0 {
		t.Errorf("the first page of a shop is %+v, want the lease alone", page)
	}
	f.reserve()
	if page := l.next(); len(page.Stock) != 1 || page.AsOf != 2 {
		t.Errorf("the next page is %+v, want the stock row as of tick 2", page)
	}
}

// Batches begin at least a second apart, whoever asks: a stock row has at most one message in it.
func TestABatchBeginsASecondAfterTheLastOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow()
	// On a slow machine these calls take longer than a second. So the interval is a minute here, and
	// SQL lets it pass.
	f.mutate("live_interval", "0 s", "1 minute")
	f.mutate("live_backlog", "1 minute", "1 hour")
	const pass = `
UPDATE live SET looked = looked - interval '1 minute', seen = seen - interval '1 minute'`
	f.reserve()
	f.Exec(pass)
	first := l.next()
	f.reserve()
	if page := l.next(); first.AsOf == 0 || page.AsOf != 0 || !page.Leased {
		t.Errorf("before its time, after %+v comes %+v", first, page)
	}
	l.ask(events.LiveRequest{AsOf: first.AsOf, Release: true})
	l.lease, l.asOf = uuid.NewString(), 0
	if page := l.next(); page.AsOf != 0 || !page.Leased {
		t.Errorf("before its time another relay gets %+v", page)
	}
	f.Exec(pass)
	if page := l.next(); len(page.Stock) != 1 {
		t.Errorf("at its time comes %+v", page)
	}
	// A clock that has jumped back by an hour must not stop the channel for an hour.
	f.Exec("UPDATE live SET looked = looked + interval '1 h', batch = NULL, seen = NULL")
	f.reserve()
	if page := l.next(); len(page.Stock) != 1 {
		t.Errorf("after a jump of the clock comes %+v", page)
	}
}

// One relay at a time has the channel. Two that find the lease free at the same moment don't both
// get it. In the control both do.
func TestOneRelayAtATimeHasTheLiveChannel(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		f.Patient()
		l := f.follow()
		l.ask(events.LiveRequest{Release: true})
		if page := l.ask(events.LiveRequest{}); page.Leased {
			t.Errorf("guarded %t: a request that comes late takes the lease again", guarded)
		}
		if !guarded {
			f.mutate("claim_live", "WHERE l IS NOT DISTINCT FROM _row", "WHERE true")
		}
		f.reserve()
		unlock := f.Lock("SELECT FROM live FOR UPDATE")
		pages := make([]events.LivePage, 2)
		var asking sync.WaitGroup
		for i := range pages {
			asking.Go(func() {
				var err error
				pages[i], err = f.outbox.Live(f.Context(), events.LiveRequest{Lease: uuid.NewString()})
				if err != nil {
					t.Error(err)
				}
			})
		}
		f.WaitForBlocked(2)
		unlock()
		asking.Wait()
		if both := pages[0].Leased && pages[1].Leased; both == guarded {
			t.Errorf("guarded %t: two relays get %+v", guarded, pages)
		}
		if n := len(pages[0].Stock) + len(pages[1].Stock); guarded && n != 1 {
			t.Errorf("two relays send the change %d times", n)
		}
	}
}

// A relay that was frozen past its lease can't acknowledge, and reads no page.
func TestALostLeaseEndsTheLiveChannelOfARelay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	frozen := f.follow()
	f.reserve()
	page := frozen.next()
	f.Exec("UPDATE live SET leased_until = clock_timestamp()")
	other := &follower{f: f, o: f.outbox, lease: uuid.NewString()}
	taken := other.next()
	if !taken.Leased || taken.AsOf <= page.AsOf || len(taken.Stock) != 1 {
		t.Errorf("behind batch %d another relay gets %+v, want it again", page.AsOf, taken)
	}
	more := frozen.ask(events.LiveRequest{AsOf: page.AsOf, After: &events.LivePlace{Class: -1}})
	if len(more.Stock) > 0 {
		t.Errorf("the frozen relay reads %+v", more)
	}
	if got := frozen.next(); got.Leased {
		t.Errorf("the frozen relay gets %+v", got)
	}
	if late := frozen.ask(events.LiveRequest{AsOf: page.AsOf, Release: true}); late.Leased {
		t.Errorf("the frozen relay gets %+v", late)
	}
	if got := other.next(); !got.Leased {
		t.Errorf("the other relay gets %+v", got)
	}
}

// A delivery moves all stock rows of a shop. They come in pages, each once, behind the rows that
// shoppers changed. The size of a page is bounded.
func TestALargeLiveBatchHasPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const rows, holds = 2500, 700
	l := f.follow()
	f.Exec(`
WITH made AS (
    INSERT INTO products (id, name, sku) SELECT gen_random_uuid(), 'p' || n, 's' || n
    FROM generate_series(1, $2::integer) n RETURNING id
)
INSERT INTO inventory (product_id, warehouse_id, total) SELECT id, $1, 7 FROM made`,
		f.west.String(), rows)
	var last uuid.UUID
	for range holds / 100 {
		f.Exec(`
WITH made AS (
    INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                              expires_at, version)
    SELECT gen_random_uuid(), $1, $2, 1, now(), now(), now() + interval '1 h', 2
    FROM generate_series(1, 100)
    RETURNING *
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT m.updated_at, m.expires_at, m.id, v, CASE v WHEN 1 THEN 'h' ELSE 'x' END, 'v'
FROM made m, generate_series(1, 2) v`, f.product.String(), f.west.String())
	}
	last = f.reserve()
	seen, told := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	pages := 0
	page := l.next()
	if page.Stock[0].ProductID != f.product {
		t.Errorf("the first stock row isn't that of the holds")
	}
	for {
		pages++
		text, err := json.Marshal(page)
		if err != nil || len(text) > 400<<10 {
			t.Errorf("page %d has %d bytes, %v", pages, len(text), err)
		}
		if len(page.Stock) > outbox.MaxLiveStock || len(page.Holds) > outbox.MaxLiveHolds {
			t.Errorf("page %d has %d stock rows and %d holds", pages, len(page.Stock), len(page.Holds))
		}
		for _, m := range page.Stock {
			seen[m.ProductID]++
		}
		for _, m := range page.Holds {
			told[m.ReservationID]++
		}
		if page.After == nil {
			break
		}
		page = l.ask(events.LiveRequest{AsOf: page.AsOf, After: page.After})
	}
	if pages != 3 || len(seen) != rows+1 || len(told) != holds || told[last] != 0 {
		t.Errorf("%d pages have %d stock rows and %d holds, want 3, %d and %d", pages, len(seen),
			len(told), rows+1, holds)
	}
	blocks, took := f.Explain("SELECT count(*) FROM live_page($1, $2, -1, $3, $3, $3, 1000, 500)",
		l.lease, page.AsOf, uuid.Nil.String())
	t.Logf("a page of 1000 stock rows reads %d blocks in %.1f ms", blocks, took)
	if blocks > 20_000 {
		t.Errorf("a page of 1000 stock rows reads %d blocks, want some 6,000", blocks)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("the stock row of %s was sent %d times", id, n)
		}
	}
	if next := l.next(); next.AsOf != 0 {
		t.Errorf("after the last page comes %+v", next)
	}
}

// The channel hides what the catalog hides, and leaves out what isn't for sale.
func TestTheLiveChannelShowsWhatTheCatalogShows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow()
	l.o = outbox.New(f.service, outbox.Options{StockShown: 5})
	archived := f.Product()
	f.Stock(archived, f.west, 3)
	few := f.Product()
	f.Stock(few, f.west, 4)
	f.reserve()
	f.Exec("UPDATE inventory SET open = false WHERE product_id = $1", archived.String())
	page := l.next()
	want := []string{"another - - 4", "first - - 5"}
	if got := f.stock(page); !slices.Equal(got, want) {
		t.Errorf("the batch has %v, want %v", got, want)
	}
	for _, m := range page.Stock {
		if m.OrMore != (m.ProductID == f.product) {
			t.Errorf("the message is %+v", m)
		}
	}
}

// shelf is what a page knows of the stock rows: of each the message with the highest asOf.
type shelf struct {
	mu    sync.Mutex
	known map[uuid.UUID]channel.Stock
	heard []channel.Stock // all messages, in the order in which they came

	underWay sync.WaitGroup // the messages that were published and not heard yet
}

func (s *shelf) hear(m channel.Stock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, m)
	if m.AsOf > s.known[m.ProductID].AsOf {
		s.known[m.ProductID] = m
	}
}

// poll reads the catalog, as a page does now and then.
func (s *shelf) poll(ctx context.Context, service *reservation.Service) error {
	entries, _, err := service.ListProducts(ctx, reservation.Cursor{}, 50)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		stock := e.Stocks[0]
		if e.AsOf >= s.known[e.ID].AsOf {
			s.known[e.ID] = channel.Stock{
				ProductID: e.ID, TotalQuantity: &stock.Total, ReservedQuantity: &stock.Reserved,
				AsOf: e.AsOf,
			}
		}
	}
	return err
}

// Publish delivers the messages late and in any order.
func (s *shelf) Publish(_ context.Context, _ string, messages []json.RawMessage) error {
	for _, text := range messages {
		var m channel.Stock
		if err := json.Unmarshal(text, &m); err != nil || m.TotalQuantity == nil {
			continue // of a hold
		}
		s.underWay.Add(1)
		time.AfterFunc(rand.N(30*time.Millisecond), func() {
			defer s.underWay.Done()
			s.hear(m)
		})
	}
	return nil
}

// views returns what the page knows, what another page would know that heard the same messages the
// other way round, and the same without regard to asOf.
func (s *shelf) views() (known, late, ignorant map[uuid.UUID]channel.Stock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known = maps.Clone(s.known)
	late, ignorant = map[uuid.UUID]channel.Stock{}, map[uuid.UUID]channel.Stock{}
	for _, m := range slices.Backward(s.heard) {
		if ignorant[m.ProductID] = m; m.AsOf > late[m.ProductID].AsOf {
			late[m.ProductID] = m
		}
	}
	return known, late, ignorant
}

// Shoppers hold, pay, leave and let holds die, while a page polls and hears messages late and in
// another order. In the end it shows the stock as it is. So does a page that heard the messages the
// other way round. The control ignores asOf.
func TestAPageEndsWithTheStockAsItIs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mutate("live_interval", "1 s", "0 s")
	products := []uuid.UUID{f.product, f.Product(), f.Product()}
	for _, p := range products[1:] {
		f.Stock(p, f.west, 1_000_000)
	}
	f.tick()
	page := &shelf{known: map[uuid.UUID]channel.Stock{}}
	ctx, stop := context.WithCancel(f.Context())
	var relaying, shopping sync.WaitGroup
	for range 2 { // one of them has the lease
		relaying.Go(func() {
			_ = events.NewRelay(f.outbox.Next, nil, events.Options{
				For: time.Minute, Poll: 10 * time.Millisecond, Live: page, Log: discard,
			}).Run(ctx)
		})
	}
	for n := range 4 {
		shopping.Go(func() {
			for i := range 25 {
				f.shop(products[(n+i)%3], i)
				if err := page.poll(f.Context(), f.service); err != nil {
					t.Error(err)
				}
			}
		})
	}
	shopping.Wait()
	// All that lives dies within two seconds. After that the page only hears, until it knows all.
	f.WaitUntil(`
SELECT count(*) = 0 FROM reservations WHERE status = 'PENDING' AND expires_at > clock_timestamp()`)
	knowsAll := func() bool {
		known, late, _ := page.views()
		return len(f.wrong(known, products)) == 0 && len(f.wrong(late, products)) == 0
	}
	for ctx.Err() == nil && !knowsAll() {
		continue // the queries pace the loop
	}
	stop()
	relaying.Wait()
	page.underWay.Wait()
	known, late, ignorant := page.views()
	f.shows(known, products, true)
	f.shows(late, products, true)
	f.shows(ignorant, products, false)
}

// shows fails the test unless a page shows each stock row as it is, or unless it shows one wrongly.
func (f *fixture) shows(known map[uuid.UUID]channel.Stock, products []uuid.UUID, right bool) {
	f.t.Helper()
	if wrong := f.wrong(known, products); (len(wrong) == 0) != right {
		f.t.Errorf("a page shows %v, and must be right: %t", wrong, right)
	}
}

// wrong lists the stock rows that a page doesn't show as they are.
func (f *fixture) wrong(known map[uuid.UUID]channel.Stock, products []uuid.UUID) (wrong []string) {
	f.t.Helper()
	for _, p := range products {
		c := f.Counts(p, f.west)
		c.Reserved -= pgtest.QueryOne[int](f.Fixture, "SELECT coalesce(sum(quantity), 0) "+
			"FROM reservations WHERE status = 'PENDING' AND product_id = $1", p.String())
		m, heard := known[p]
		if !heard {
			wrong = append(wrong, fmt.Sprintf("nothing, want %+v", c))
			continue
		}
		got := pgtest.Counts{Total: *m.TotalQuantity, Reserved: *m.ReservedQuantity}
		if got != c {
			wrong = append(wrong, fmt.Sprintf("%+v as of %d, want %+v", got, m.AsOf, c))
		}
	}
	return wrong
}

// shop holds a unit, and pays, leaves, or lets it die after a second.
func (f *fixture) shop(product uuid.UUID, i int) {
	request := reservation.Request{
		Lines: []reservation.Line{{ProductID: product, WarehouseID: f.west, Quantity: 1}},
	}
	if i%3 == 2 {
		request.TTL = time.Second
	}
	answer, err := f.service.Reserve(f.Context(), request)
	switch {
	case err != nil:
	case i%3 == 0:
		_, err = f.service.Confirm(f.Context(), answer.Hold.ID, "")
	case i%3 == 1:
		_, err = f.service.Release(f.Context(), answer.Hold.ID, "")
	}
	if err != nil {
		f.t.Error(err)
	}
}
