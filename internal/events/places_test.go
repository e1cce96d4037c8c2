package events

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Each type of event is published from one of a sink's two places, and from no other.
func TestEachTypeHasItsPlace(t *testing.T) {
	t.Parallel()
	var all []string
	for _, place := range Places("topic") {
		all = append(all, TypesAt(place)...)
	}
	want := Types()
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("the places have the types %v, want each once of %v", all, want)
	}
	if types := TypesAt("topic"); types != nil {
		t.Errorf("the sink itself has the types %v, want all", types)
	}
}

// sale is an outbox with the batches of each place. A page is a part of a batch, of up to 500
// events.
type sale struct {
	mu      sync.Mutex
	batches map[string][][]Event
	// from is how many events of the first batch are acknowledged.
	from map[string]int
}

func (s *sale) next(_ context.Context, r Request) (Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.batches[r.Sink]
	if r.Ack != "" {
		acked, err := strconv.Atoi(r.Ack)
		if err != nil {
			return Page{}, err
		}
		s.from[r.Sink] = acked
		for len(left) > 0 && s.from[r.Sink] >= len(left[0]) {
			s.from[r.Sink] -= len(left[0])
			left = left[1:]
		}
		s.batches[r.Sink] = left
	}
	page := Page{Place: r.Sink, Leased: !r.Release}
	if r.Release || len(left) == 0 {
		return page, nil
	}
	page.More = len(left) > 1
	for n := s.from[r.Sink]; n < len(left[0]) && len(page.Events) < 500; n++ {
		e := left[0][n]
		e.Position = fmt.Sprint(n + 1)
		page.Events, page.Position = append(page.Events, e), e.Position
	}
	return page, nil
}

// run publishes all to a sink. apart says that each part of the feed has a place of its own.
// Otherwise both go by one, as they would with a single place: in a batch the events of the holds
// come before the movements.
func (s *sale) run(t *testing.T, apart bool, sink Sink, limit time.Duration) {
	t.Helper()
	places := Places("topic")
	if !apart {
		for i, batch := range s.batches[places[1]] {
			s.batches[places[0]][i] = append(s.batches[places[0]][i], batch...)
		}
		delete(s.batches, places[1])
	}
	s.from = map[string]int{}
	relay := NewRelay(s.next, map[string]Sink{"topic": sink},
		Options{For: limit, Log: slog.New(slog.DiscardHandler)})
	if err := relay.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// holds makes the first events of so many holds.
func holds(n int) (batch []Event) {
	for i := range n {
		batch = append(batch, event(fmt.Sprint("hold", i), 1))
	}
	return batch
}

// sales makes so many movements of a stock row.
func sales(row string, n int) (batch []Event) {
	for i := range n {
		batch = append(batch, event(row+"/here", i+1))
	}
	return batch
}

func isSale(id string) bool { return strings.Contains(id, "/") }

// A batch has a thousand sales of one stock row, which take a call each, one after another. The
// holds' events of that batch and of the two after it are out before the sales are. The control has
// one place for both: the holds of the second batch wait for all sales of the first one.
func TestHoldsDoNotWaitForAHotStockRow(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := &sale{batches: map[string][][]Event{
				"topic-holds": {holds(100), holds(200)[100:], holds(300)[200:]},
				"topic-stock": {sales("hot", 1000), {}, sales("hot", 1001)[1000:]},
			}}
			sink := &recorder{}
			s.run(t, apart, delayed{sink, 25 * time.Millisecond}, 55*time.Second)
			got := sink.all()
			if len(got) != 1301 {
				t.Fatalf("%d events were published, want 1301", len(got))
			}
			lastHold := len(got) - 1
			for isSale(got[lastHold]) {
				lastHold--
			}
			before := 0 // sales before the last hold
			for _, id := range got[:lastHold] {
				if isSale(id) {
					before++
				}
			}
			if apart && before > 20 || !apart && before < 1000 {
				t.Errorf("apart %t: the last hold's event came after %d sales", apart, before)
			}
			var row []string
			for _, id := range got {
				if isSale(id) {
					row = append(row, id)
				}
			}
			for i, id := range row {
				if want := fmt.Sprintf("hot/here-%d", i+1); id != want {
					t.Fatalf("apart %t: the sale %d is %s, want %s", apart, i+1, id, want)
				}
			}
		})
	}
}

// A hot stock row's movements come before a cold one's. The cold one waits for the pages before its
// own, which end after ten seconds each, at 400 calls. In its own page it is in the first wave,
// with the hot row's next movement. So it waits longer, the more movements the hot row has.
func TestAColdRowWaitsForThePagesBeforeItsOwn(t *testing.T) {
	t.Parallel()
	for hot, want := range map[int]int{300: 0, 700: 400, 1100: 800} {
		synctest.Test(t, func(t *testing.T) {
			s := &sale{batches: map[string][][]Event{
				"topic-holds": {{}}, "topic-stock": {append(sales("hot", hot), sales("cold", 1)...)},
			}}
			sink := &recorder{}
			s.run(t, true, delayed{sink, 25 * time.Millisecond}, 55*time.Second)
			got := sink.all()
			if len(got) != hot+1 {
				t.Fatalf("%d events were published, want %d", len(got), hot+1)
			}
			before := slices.Index(got, "cold/here-1")
			if before < want || before > want+1 {
				t.Errorf("behind %d sales of a hot row the cold row's came after %d, want %d", hot, before,
					want)
			}
		})
	}
}

// delayed is a sink that takes its time for each call. Calls run side by side.
type delayed struct {
	Sink
	delay time.Duration
}

func (d delayed) Publish(ctx context.Context, batch []Event) []error {
	time.Sleep(d.delay)
	return d.Sink.Publish(ctx, batch)
}

// A sink takes no event of a hold. The movements go on.
func TestMovementsDoNotWaitForHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &sale{from: map[string]int{}, batches: map[string][][]Event{
			"topic-holds": {holds(2)},
			"topic-stock": {sales("a", 2), sales("b", 2)},
		}}
		sink := &recorder{answer: func(e Event) error {
			if isSale(e.ID) {
				return nil
			}
			return errDown
		}}
		err := NewRelay(s.next, map[string]Sink{"topic": sink},
			Options{Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "topic-holds") {
			t.Errorf("Run() = %v, want an error of the holds' place", err)
		}
		if left := s.batches["topic-stock"]; len(left) != 0 {
			t.Errorf("the movements %v weren't acknowledged", left)
		}
	})
}

// Both places of a sink share its eight calls. The movements of many stock rows leave turns to the
// holds' events: these are out long before the movements are.
func TestThePlacesOfASinkTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var moves []Event
		for n := range 500 {
			moves = append(moves, sales(fmt.Sprint("row", n), 1)...)
		}
		s := &sale{from: map[string]int{}, batches: map[string][][]Event{
			"topic-holds": {holds(100)}, "topic-stock": {moves},
		}}
		sink := &slow{}
		kept := &recorder{}
		both := pair{sink, kept}
		if err := NewRelay(s.next, map[string]Sink{"topic": both},
			Options{Log: slog.New(slog.DiscardHandler)}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if sink.most != maxPublishes {
			t.Errorf("%d calls ran at once, want %d", sink.most, maxPublishes)
		}
		last := 0 // the last call with holds
		for i, ids := range kept.batches {
			if !isSale(ids[0]) {
				last = i
			}
		}
		if len(kept.batches) != 60 || last > 32 {
			t.Errorf("of %d calls the last one with holds was call %d, want 60 and 32 at most",
				len(kept.batches), last)
		}
	})
}

// pair is a sink that publishes to two, and answers as the second one.
type pair struct{ first, second Sink }

func (p pair) Publish(ctx context.Context, batch []Event) []error {
	p.first.Publish(ctx, batch)
	return p.second.Publish(ctx, batch)
}

// An outbox of the previous release knows of no places: its page has events of both. The relay
// doesn't publish it, and the control shows that it is a page like any other.
func TestAPageWithoutAPlaceIsNotPublished(t *testing.T) {
	t.Parallel()
	for _, knows := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			outbox := &script{pages: [][]Event{{event("a", 1)}}}
			asked := holdsOnly(outbox.next)
			relay := NewRelay(func(ctx context.Context, r Request) (Page, error) {
				page, err := asked(ctx, r)
				if !knows {
					page.Place = ""
				}
				return page, err
			}, map[string]Sink{"topic": &recorder{}},
				Options{For: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
			if err := relay.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if (outbox.acked == 1) != knows {
				t.Errorf("knows places %t: %d pages were acknowledged", knows, outbox.acked)
			}
		})
	}
}

// The outbox lets the sinks of a new feed begin together while none has published, so each place is
// asked for before any page is acknowledged.
func TestEveryPlaceIsAskedForBeforeAnyIsPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var first []string
		relay := NewRelay(func(_ context.Context, r Request) (Page, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(first) < 4 {
				first = append(first, r.Sink)
			}
			return Page{Place: r.Sink, Leased: true}, nil
		}, map[string]Sink{"topic": nil, "bus": nil}, Options{Log: slog.New(slog.DiscardHandler)})
		if err := relay.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := append(Places("bus"), Places("topic")...); !slices.Equal(first, want) {
			t.Errorf("the first requests are for %v, want each place once: %v", first, want)
		}
	})
}
