package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/emf"
)

// event makes the nth event of a subject.
func event(subject string, n int) Event {
	id := fmt.Sprintf("%s-%d", subject, n)
	return Event{ID: id, Subject: subject, Body: json.RawMessage(`"` + id + `"`)}
}

// hot is an outbox with one batch of events, in pages of up to 500. Its place is the number of
// events that are acknowledged.
type hot struct {
	batch     []Event
	acked     int
	parked    []string
	positions bool        // the events have their places
	asked     []time.Time // when each request came
}

func (h *hot) next(_ context.Context, r Request) (Page, error) {
	h.asked = append(h.asked, time.Now())
	if r.Ack != "" {
		_, _ = fmt.Sscanf(r.Ack, "%d", &h.acked)
	}
	for _, p := range r.Parked {
		h.parked = append(h.parked, p.ID)
	}
	if r.Release || h.acked == len(h.batch) {
		return Page{Leased: !r.Release}, nil
	}
	end := min(h.acked+500, len(h.batch))
	page := slices.Clone(h.batch[h.acked:end])
	for i := range page {
		if h.positions {
			page[i].Position = fmt.Sprint(h.acked + i + 1)
		}
	}
	return Page{Leased: true, Events: page, Position: fmt.Sprint(end)}, nil
}

// script is an outbox whose pages are given. It answers the first page that isn't acknowledged.
type script struct {
	mu       sync.Mutex
	pages    [][]Event
	acked    int
	parked   int
	requests []Request
	// answer, unless nil, may answer in its place.
	answer func(r Request) (page Page, err error, mine bool)
}

func (s *script) next(_ context.Context, r Request) (Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if s.answer != nil {
		if page, err, mine := s.answer(r); mine {
			return page, err
		}
	}
	if r.Ack != "" {
		_, _ = fmt.Sscanf(r.Ack, "%d", &s.acked)
	}
	s.parked += len(r.Parked)
	if r.Release {
		return Page{}, nil
	}
	if s.acked == len(s.pages) {
		return Page{Leased: true, Parked: s.parked}, nil
	}
	return Page{
		Leased: true, Events: s.pages[s.acked], Position: fmt.Sprint(s.acked + 1), LagSeconds: 3,
		Parked: s.parked,
	}, nil
}

// recorder is a sink that keeps what it was sent, and answers by a function.
type recorder struct {
	mu      sync.Mutex
	batches [][]string
	answer  func(e Event) error
}

func (s *recorder) Publish(_ context.Context, batch []Event) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(batch))
	var names []string
	for i, e := range batch {
		names = append(names, e.ID)
		if s.answer != nil {
			errs[i] = s.answer(e)
		}
	}
	s.batches = append(s.batches, names)
	return errs
}

func (s *recorder) all() (ids []string) {
	for _, b := range s.batches {
		ids = append(ids, b...)
	}
	return ids
}

func newRelay(outbox Outbox, sink Sink, limit time.Duration) *Relay {
	return NewRelay(holdsOnly(outbox), map[string]Sink{"topic": sink},
		Options{For: limit, Log: slog.New(slog.DiscardHandler)})
}

// holdsOnly makes an outbox answer for the places of the holds' events. The other places are empty.
func holdsOnly(outbox Outbox) Outbox {
	return func(ctx context.Context, r Request) (page Page, err error) {
		page.Leased = !r.Release
		if strings.HasSuffix(r.Sink, holdsPlace) {
			page, err = outbox(ctx, r)
		}
		page.Place = r.Sink
		return page, err
	}
}

var errDown = errors.New("the sink is down")

// The first events of all subjects are sent before the second ones, in batches of ten.
func TestAPageIsSentInWaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var page []Event
		for n := 1; n <= 2; n++ {
			for subject := range 12 {
				page = append(page, event(fmt.Sprint("s", subject), n))
			}
		}
		page = append(page, event("s0", 3))
		outbox, sink := &script{pages: [][]Event{page}}, &recorder{}
		if err := newRelay(outbox.next, sink, 0).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var sizes []int
		for _, b := range sink.batches {
			sizes = append(sizes, len(b))
		}
		slices.Sort(sizes[:2])
		slices.Sort(sizes[2:4])
		if !slices.Equal(sizes, []int{2, 10, 2, 10, 1}) {
			t.Errorf("the batches have %v events, want 10 and 2, 10 and 2, and 1", sizes)
		}
		if outbox.acked != 1 || !outbox.requests[len(outbox.requests)-1].Release {
			t.Errorf("the requests are %+v, want an ack and a release", outbox.requests)
		}
	})
}

// At most eight batches are sent at once.
func TestEightBatchesAreSentAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var page []Event
		for subject := range 200 {
			page = append(page, event(fmt.Sprint("s", subject), 1))
		}
		sink := &slow{}
		if err := newRelay((&script{pages: [][]Event{page}}).next, sink, 0).
			Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if sink.most != maxPublishes {
			t.Errorf("%d batches were sent at once, want %d", sink.most, maxPublishes)
		}
	})
}

// slow is a sink that takes a second and counts the calls that run at once. No two calls end at the
// same moment.
type slow struct {
	mu                   sync.Mutex
	calls, running, most int
}

func (s *slow) Publish(_ context.Context, batch []Event) []error {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.calls++
	took := time.Second + time.Duration(s.calls)*time.Millisecond
	s.mu.Unlock()
	time.Sleep(took)
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
	return make([]error, len(batch))
}

// An event that failed holds back its subject's later ones. The page is tried again after 1, 2, 4
// ... 30 seconds, without the events that were accepted.
func TestAFailedEventHoldsBackItsSubject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &script{pages: [][]Event{{event("a", 1), event("b", 1), event("a", 2), event("b", 2)}}}
		var at []time.Duration
		start, tries := time.Now(), 0
		sink := &recorder{answer: func(e Event) error {
			if e.ID != "a-1" {
				return nil
			}
			at = append(at, time.Since(start))
			if tries++; tries <= 7 {
				return errDown
			}
			return nil
		}}
		if err := newRelay(outbox.next, sink, 3*time.Minute).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []string{"a-1", "b-1", "b-2", "a-1", "a-1", "a-1", "a-1", "a-1", "a-1", "a-1", "a-2"}
		if diff := cmp.Diff(want, sink.all()); diff != "" {
			t.Errorf("the sink got (-want +got):\n%s", diff)
		}
		var seconds []int
		for _, d := range at {
			seconds = append(seconds, int(d.Seconds()))
		}
		if want := []int{0, 1, 3, 7, 15, 31, 61, 91}; !slices.Equal(seconds, want) {
			t.Errorf("the tries were at %v seconds, want %v", seconds, want)
		}
		if r := outbox.requests[1]; r.Ack != "" || !strings.Contains(r.Failure, errDown.Error()) {
			t.Errorf("the request after a failure is %+v", r)
		}
	})
}

// An event that is refused for good five times is parked with its subject's later ones, and the
// rest goes on.
func TestAPoisonedEventIsParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &script{pages: [][]Event{
			{event("a", 1), event("b", 1), event("a", 2), event("a", 3)}, {event("b", 2)},
		}}
		sink := &recorder{answer: func(e Event) error {
			if e.Subject == "a" {
				return &RefusedError{Reason: "too large"}
			}
			return nil
		}}
		if err := newRelay(outbox.next, sink, 0).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []string{"a-1", "b-1", "a-1", "a-1", "a-1", "a-1", "b-2"}
		if diff := cmp.Diff(want, sink.all()); diff != "" {
			t.Errorf("the sink got (-want +got):\n%s", diff)
		}
		parked := outbox.requests[5].Parked
		if len(parked) != 3 || parked[0] != (Parked{"a-1", "a", "too large"}) ||
			parked[1].ID != "a-2" || parked[2].ID != "a-3" {
			t.Errorf("the parked events are %+v", parked)
		}
		if later := outbox.requests[6].Parked; later != nil {
			t.Errorf("the next ack parks %+v again", later)
		}
	})
}

// A sink takes 0.2 s for each of the 500 sales of one stock row, and of the 50 of another one: a
// page takes more than a run. The relay acknowledges what it has done each ten seconds, before its
// lease of a minute ends, and gets on in every run. A run publishes no event twice. The control
// can't acknowledge a part of a page: it never gets on.
func TestAPageOfAHotSubjectIsAcknowledgedInParts(t *testing.T) {
	t.Parallel()
	for _, positions := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			outbox := &hot{positions: positions}
			for n := range 500 {
				outbox.batch = append(outbox.batch, event("a", n+1))
			}
			for n := range 50 {
				outbox.batch = append(outbox.batch, event("b", n+1))
			}
			var acked []int
			var repeats []int
			for range 3 {
				sink := &recorder{answer: func(Event) error {
					time.Sleep(200 * time.Millisecond)
					return nil
				}}
				start := outbox.acked
				if err := newRelay(outbox.next, sink, 55*time.Second).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				acked = append(acked, outbox.acked-start)
				got := sink.all()
				slices.Sort(got)
				repeats = append(repeats, len(got)-len(slices.Compact(got)))
			}
			if !slices.Equal(repeats, []int{0, 0, 0}) {
				t.Errorf("positions %t: the runs published %v events twice", positions, repeats)
			}
			if !positions {
				if outbox.acked != 0 {
					t.Errorf("without positions the runs acknowledged %v events, want none", acked)
				}
				return
			}
			if acked[0] < 200 || outbox.acked != len(outbox.batch) {
				t.Errorf("the runs acknowledged %v events, want 550 in all", acked)
			}
			for i, at := range outbox.asked[1:] {
				if gap := at.Sub(outbox.asked[i]); gap > 15*time.Second {
					t.Errorf("the outbox heard nothing for %s", gap)
				}
			}
		})
	}
}

// A part of a page that is acknowledged takes its parked events with it, and those behind it wait
// for their own part.
func TestAPartOfAPageHasItsOwnParkedEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &hot{positions: true, batch: []Event{event("p", 1)}}
		for n := range 80 {
			outbox.batch = append(outbox.batch, event("a", n+1))
		}
		outbox.batch = append(outbox.batch, event("q", 1), event("q", 2))
		sink := &recorder{answer: func(e Event) error {
			time.Sleep(200 * time.Millisecond)
			if e.Subject != "a" {
				return &RefusedError{Reason: "never"}
			}
			return nil
		}}
		if err := newRelay(outbox.next, sink, 55*time.Second).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"p-1", "q-1", "q-2"}; !slices.Equal(outbox.parked, want) {
			t.Errorf("%v were parked, want %v, each once", outbox.parked, want)
		}
		count := map[string]int{}
		for _, id := range sink.all() {
			count[id]++
		}
		if outbox.acked != 83 || count["a-1"] != 1 || count["a-80"] != 1 || count["q-1"] != maxRefusals ||
			count["q-2"] != 0 {
			t.Errorf("%d events were acknowledged, and the sink got %v", outbox.acked, count)
		}
	})
}

// An outbox that doesn't answer is asked the same again, so that no ack is lost.
func TestAnAckIsSentUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &script{pages: [][]Event{{event("a", 1)}, {event("a", 2)}}}
		failures := 0
		outbox.answer = func(r Request) (Page, error, bool) {
			if r.Ack == "1" && failures < 3 {
				failures++
				return Page{}, errors.New("no answer"), true
			}
			return Page{}, nil, false
		}
		sink := &recorder{}
		if err := newRelay(outbox.next, sink, 0).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a-1", "a-2"}; !slices.Equal(sink.all(), want) {
			t.Errorf("the sink got %v, want %v", sink.all(), want)
		}
	})
}

// A run ends at its end, acknowledges its last page and gives the lease back, whatever fails.
func TestARunEndsInTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outbox *script
		sink   *recorder
		fails  bool
	}{
		"idle": {&script{}, &recorder{}, false},
		"busy": {&script{answer: func(r Request) (Page, error, bool) {
			return Page{Leased: true, Events: []Event{event("a", 1)}, Position: "1"}, nil, !r.Release
		}}, &recorder{answer: func(Event) error { time.Sleep(time.Second); return nil }}, false},
		"sink down": {
			&script{pages: [][]Event{{event("a", 1)}}},
			&recorder{answer: func(Event) error { return errDown }}, true,
		},
		"outbox down": {&script{answer: func(Request) (Page, error, bool) {
			return Page{}, errDown, true
		}}, &recorder{}, true},
		"leased": {&script{answer: func(r Request) (Page, error, bool) {
			return Page{}, nil, !r.Release
		}}, &recorder{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := newRelay(c.outbox.next, c.sink, 55*time.Second).Run(t.Context())
				if took := time.Since(start); took < 55*time.Second || took > 57*time.Second {
					t.Errorf("the run took %s, want 55 s", took)
				}
				if (err != nil) != c.fails {
					t.Errorf("Run() = %v, want an error: %t", err, c.fails)
				}
				if last := c.outbox.requests[len(c.outbox.requests)-1]; !last.Release {
					t.Errorf("the last request is %+v, want a release", last)
				}
			})
		})
	}
}

// A run that drains ends when nothing is left, or when another relay has the sink.
func TestADrainEnds(t *testing.T) {
	t.Parallel()
	taken := &script{answer: func(Request) (Page, error, bool) { return Page{}, nil, true }}
	for name, outbox := range map[string]*script{
		"drained": {pages: [][]Event{{event("a", 1)}, {event("b", 1)}, nil}}, "taken": taken,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if err := newRelay(outbox.next, &recorder{}, 0).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if time.Since(start) > 0 || outbox.acked != len(outbox.pages) {
					t.Errorf("the drain took %s and acknowledged %d pages", time.Since(start), outbox.acked)
				}
			})
		})
	}
}

// A sink that is down doesn't hold up another one.
func TestSinksAreServedSideBySide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down, up := &script{pages: [][]Event{{event("a", 1)}}}, &script{pages: [][]Event{{event("a", 1)}}}
		outbox := holdsOnly(func(ctx context.Context, r Request) (Page, error) {
			return map[string]*script{"bus-holds": down, "topic-holds": up}[r.Sink].next(ctx, r)
		})
		sinks := map[string]Sink{
			"bus": &recorder{answer: func(Event) error { return errDown }}, "topic": &recorder{},
		}
		err := NewRelay(outbox, sinks, Options{Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the place bus-holds") ||
			strings.Contains(err.Error(), "topic") {
			t.Errorf("Run() = %v, want an error of the bus alone", err)
		}
		if up.acked != 1 || down.acked != 0 {
			t.Errorf("the topic has %d pages and the bus %d, want 1 and 0", up.acked, down.acked)
		}
	})
}

// A relay that lost its lease forgets its page, and a sink that answers too little breaks nothing.
func TestALostLeaseForgetsThePage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &script{pages: [][]Event{{event("a", 1)}}}
		lost := false
		outbox.answer = func(r Request) (Page, error, bool) {
			if r.Ack != "" && !lost {
				lost = true
				return Page{}, nil, true
			}
			return Page{}, nil, false
		}
		sink := &recorder{}
		if err := newRelay(outbox.next, sink, 10*time.Second).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a-1", "a-1"}; !slices.Equal(sink.all(), want) {
			t.Errorf("the sink got %v, want the page again", sink.all())
		}
	})
}

type silent struct{}

func (silent) Publish(context.Context, []Event) []error { return nil }

func TestAnEventWithoutAnAnswerIsNotAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outbox := &script{pages: [][]Event{{event("a", 1)}}}
		err := newRelay(outbox.next, silent{}, time.Minute).Run(t.Context())
		if !errors.Is(err, errNoAnswer) || outbox.acked != 0 {
			t.Errorf("Run() = %v with %d acks, want an error and none", err, outbox.acked)
		}
	})
}

// output keeps what several goroutines write.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(p)
}

// An alarm takes a missing lag for a dead relay, so even an idle run writes it every ten seconds.
// It also tells each time how many events are parked, so that their alarm rings until they are
// redriven.
func TestARunWritesItsMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out output
		outbox := &script{pages: [][]Event{{event("a", 1), event("b", 1)}}}
		sink := &recorder{answer: func(e Event) error {
			if e.Subject == "b" {
				return &RefusedError{Reason: "never"}
			}
			return nil
		}}
		relay := NewRelay(holdsOnly(outbox.next), map[string]Sink{"topic": sink}, Options{
			For: 55 * time.Second, Log: slog.New(slog.DiscardHandler), Metrics: emf.New(&out, "test"),
		})
		if err := relay.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		sum := map[string]float64{}
		lines := 0
		var parked any // of the last line
		for line := range strings.Lines(out.String()) {
			var values map[string]any
			if err := json.Unmarshal([]byte(line), &values); err != nil {
				t.Fatal(err)
			}
			if values["Place"] != "topic-holds" {
				continue
			}
			lines++
			parked = values["EventsParked"]
			for name, value := range values {
				if n, ok := value.(float64); ok {
					sum[name] = max(sum[name], n)
				}
			}
		}
		if lines < 5 || sum["RelayLagSeconds"] != 3 || sum["EventsPublished"] != 1 ||
			parked != 1.0 {
			t.Errorf("%d lines of metrics have at most %v, and the last one has %v parked", lines, sum,
				parked)
		}
	})
}

// steady is an outbox that has a page with an event for each request of the holds' place. It says
// More with so many pages after each one without. asked is when the place's requests came.
type steady struct {
	more, pages int
	asked       []time.Time
}

func (s *steady) next(_ context.Context, r Request) (Page, error) {
	if r.Release {
		return Page{}, nil
	}
	s.asked = append(s.asked, time.Now())
	s.pages++
	return Page{
		Leased: true, Events: []Event{event("a", s.pages)}, Position: fmt.Sprint(s.pages),
		More: s.pages%(s.more+1) != 0,
	}, nil
}

// While a shop is busy each page has events, and the next ones come meanwhile. The relay asks for a
// page each half second, or as soon as a slow sink has taken the page before. It asks at once when
// another page is ready. The control polls without a pause.
func TestABusyPlaceIsAskedEachHalfSecond(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		more       int
		sink, poll time.Duration
		want       int // requests in ten seconds
	}{
		"one page at a time":  {0, 25 * time.Millisecond, 0, 20},
		"three pages at once": {2, 25 * time.Millisecond, 0, 57}, // each 0.55 s
		"a slow sink":         {0, time.Second, 0, 10},
		"without a pause":     {0, 25 * time.Millisecond, 2 * time.Millisecond, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outbox := &steady{more: c.more}
				relay := NewRelay(holdsOnly(outbox.next),
					map[string]Sink{"topic": delayed{&recorder{}, c.sink}},
					Options{For: 10 * time.Second, Poll: c.poll, Log: slog.New(slog.DiscardHandler)})
				if err := relay.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if n := len(outbox.asked); n != c.want {
					t.Errorf("the outbox was asked %d times in ten seconds, want %d", n, c.want)
				}
			})
		})
	}
}

// Something is new, and no tick is due yet: the outbox answers an empty page that says More. The
// relay asks again soon, and a run that drains doesn't end before it has the event. The control is
// an outbox that doesn't say More: such a run ends, and the other one waits for a second.
func TestARelayComesBackForATickThatIsDueSoon(t *testing.T) {
	t.Parallel()
	for _, more := range []bool{true, false} {
		for _, limit := range []time.Duration{0, 10 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				start, patient := time.Now(), true
				outbox := &script{pages: [][]Event{{event("a", 1)}}}
				outbox.answer = func(r Request) (Page, error, bool) {
					patient = patient && r.Patient
					young := time.Since(start) < 200*time.Millisecond
					return Page{Leased: true, More: more}, nil, young && !r.Release
				}
				var came time.Duration
				sink := &recorder{answer: func(Event) error {
					came = time.Since(start)
					return nil
				}}
				if err := newRelay(outbox.next, sink, limit).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := 250 * time.Millisecond
				if !more {
					want = map[bool]time.Duration{true: 0, false: time.Second}[limit == 0]
				}
				if came != want || !patient {
					t.Errorf("more %t, a run of %s: the event came after %s, want %s; the requests are "+
						"patient: %t", more, limit, came, want, patient)
				}
			})
		}
	}
}
