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

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events/channel"
)

// liveScript is an outbox whose answers to the requests about the live channel are given, in their
// order. After the last one there is no news.
type liveScript struct {
	answers  []LivePage
	err      error
	requests []LiveRequest
	asked    []time.Time
}

func (s *liveScript) next(_ context.Context, r Request) (Page, error) {
	if r.Live == nil {
		return Page{Place: r.Sink, Leased: !r.Release}, nil
	}
	s.requests, s.asked = append(s.requests, *r.Live), append(s.asked, time.Now())
	if s.err != nil {
		return Page{}, s.err
	}
	page := LivePage{Leased: !r.Live.Release}
	if !r.Live.Release && len(s.answers) > 0 {
		page, s.answers = s.answers[0], s.answers[1:]
	}
	return Page{Live: &page}, nil
}

// said is what a channel was sent: of each channel, its messages.
type said struct {
	mu            sync.Mutex
	messages      map[string][]string
	calls         int
	running, most int
	takes         time.Duration
	err           error
}

func (s *said) Publish(ctx context.Context, name string, messages []json.RawMessage) error {
	s.mu.Lock()
	s.calls++
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.err != nil {
		return s.err
	}
	if s.messages == nil {
		s.messages = map[string][]string{}
	}
	for _, m := range messages {
		s.messages[name] = append(s.messages[name], string(m))
	}
	return ctx.Err()
}

func newsOf(asOf int64, rows int, holds ...uuid.UUID) LivePage {
	page := LivePage{Leased: true, AsOf: asOf, LagSeconds: 0.5}
	for range rows {
		page.Stock = append(page.Stock, channel.Stock{ProductID: uuid.New(), AsOf: asOf})
	}
	for _, id := range holds {
		page.Holds = append(page.Holds, channel.Hold{ReservationID: id, Version: 2, AsOf: asOf})
	}
	return page
}

func runLive(t *testing.T, s *liveScript, to channel.Publisher, limit time.Duration) error {
	t.Helper()
	return NewRelay(s.next, nil, Options{
		For: limit, Live: to, Log: slog.New(slog.DiscardHandler),
	}).Run(t.Context())
}

// A relay asks twice a second, and acknowledges a batch with the next request. It sends the stock
// rows to one channel, and each hold to its own. In the end it gives the lease back.
func TestALiveBatchIsPublishedAndAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold, other := uuid.New(), uuid.New()
		s := &liveScript{answers: []LivePage{newsOf(7, 3, hold, other), {Leased: true}, newsOf(9, 1)}}
		to := &said{takes: 100 * time.Millisecond}
		start := time.Now()
		if err := runLive(t, s, to, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		var acks []int64
		for n, r := range s.requests {
			acks = append(acks, r.AsOf)
			if at := s.asked[n].Sub(start); at != time.Duration(n)*time.Second/2 {
				t.Errorf("request %d comes after %s", n, at)
			}
			if r.Lease != s.requests[0].Lease || r.Release != (n == 4) || r.After != nil {
				t.Errorf("request %d is %+v", n, r)
			}
		}
		if !slices.Equal(acks, []int64{0, 7, 0, 9, 0}) {
			t.Errorf("the requests acknowledge %v", acks)
		}
		if n := len(to.messages[channel.AllStock]); n != 4 {
			t.Errorf("the channel of the stock has %d messages, want 4", n)
		}
		want := fmt.Sprintf(`{"reservationId":"%s","version":2,"asOf":7}`, hold)
		if got := to.messages[channel.OfHold(hold)]; !slices.Equal(got, []string{want}) ||
			len(to.messages) != 3 {
			t.Errorf("the channels have %v, want %s", to.messages, want)
		}
	})
}

// The pages of a batch follow one another at once. Of a large batch the rest is left out.
func TestALargeLiveBatchIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &liveScript{}
		for range maxLivePages + 1 {
			page := newsOf(7, 1)
			page.After = &LivePlace{Class: 1, ProductID: page.Stock[0].ProductID}
			s.answers = append(s.answers, page)
		}
		s.answers[maxLivePages] = newsOf(8, 1)
		to, start := &said{}, time.Now()
		if err := runLive(t, s, to, 2500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if n := len(to.messages[channel.AllStock]); n != maxLivePages+1 {
			t.Errorf("%d messages were sent, want %d of the large batch and the next one", n,
				maxLivePages)
		}
		for n, r := range s.requests[1:maxLivePages] {
			if r.After == nil || r.AsOf != 7 || s.asked[n+1].Sub(start) > 0 {
				t.Errorf("the request for page %d is %+v", n+2, r)
			}
		}
		if r := s.requests[maxLivePages]; r.AsOf != 7 || r.After != nil {
			t.Errorf("the request behind the large batch is %+v", r)
		}
	})
}

// A batch that wasn't sent whole isn't acknowledged. The pauses grow, and end with a success.
func TestALiveBatchThatFailsIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &liveScript{}
		for range 4 {
			s.answers = append(s.answers, newsOf(7, 1))
		}
		to := &said{err: errors.New("no channel")}
		err := runLive(t, s, to, 10*time.Second)
		if err == nil || !strings.Contains(err.Error(), "live channel: no channel") {
			t.Errorf("Run() = %v, want the failure", err)
		}
		var pauses []time.Duration
		for n, r := range s.requests {
			if r.AsOf != 0 {
				t.Errorf("request %d acknowledges %d", n, r.AsOf)
			}
			if n > 0 {
				pauses = append(pauses, s.asked[n].Sub(s.asked[n-1]))
			}
		}
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 3 * time.Second}
		if !slices.Equal(pauses, want) || !s.requests[len(s.requests)-1].Release {
			t.Errorf("the pauses are %v, want %v and a release", pauses, want)
		}
	})
}

// An outbox that fails for the live channel, or doesn't know it, does the sinks no harm.
func TestAnOutboxWithoutALiveChannelIsAFailure(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"fails": errors.New("no database"), "older": nil} {
		synctest.Test(t, func(t *testing.T) {
			sink := &recorder{}
			events := (&script{pages: [][]Event{{event("a", 1)}}}).next
			outbox := func(ctx context.Context, r Request) (Page, error) {
				if r.Live != nil {
					return Page{}, err
				}
				return holdsOnly(events)(ctx, r)
			}
			got := NewRelay(outbox, map[string]Sink{"topic": sink}, Options{
				For: 2 * time.Second, Live: &said{}, Log: slog.New(slog.DiscardHandler),
			}).Run(t.Context())
			if got == nil || len(sink.all()) != 1 {
				t.Errorf("%s: Run() = %v, and the sink has %v", name, got, sink.all())
			}
		})
	}
}

// Another relay may take the lease between two pages of a batch. A drain ends then, and when there
// is no news.
func TestALiveRunEndsWithItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		page := newsOf(7, 1)
		page.After = &LivePlace{}
		s := &liveScript{answers: []LivePage{page, {}, {}}}
		if err := runLive(t, s, &said{}, 0); err != nil {
			t.Fatal(err)
		}
		if n := len(s.requests); n != 4 || s.requests[2].AsOf != 0 {
			t.Errorf("the requests are %+v, want no ack", s.requests)
		}
		s = &liveScript{answers: []LivePage{newsOf(7, 1)}}
		if err := runLive(t, s, &said{}, 0); err != nil {
			t.Fatal(err)
		}
		if n := len(s.requests); n != 3 || s.requests[1].AsOf != 7 || !s.requests[2].Release {
			t.Errorf("the requests are %+v, want an ack and a release", s.requests)
		}
	})
}

// The holds' calls are bounded, and a page that takes too long is given up.
func TestTheCallsOfALivePageAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		holds := make([]uuid.UUID, 100)
		for i := range holds {
			holds[i] = uuid.New()
		}
		to := &said{takes: 100 * time.Millisecond}
		s := &liveScript{answers: []LivePage{newsOf(7, 1, holds...)}}
		if err := runLive(t, s, to, 3*time.Second); err != nil {
			t.Fatal(err)
		}
		if to.most != maxHoldCalls+1 || to.calls != 101 {
			t.Errorf("%d calls, %d at once, want 101, and %d at once", to.calls, to.most, maxHoldCalls+1)
		}
		s = &liveScript{answers: []LivePage{newsOf(7, 1)}}
		start := time.Now()
		if err := runLive(t, s, &said{takes: time.Hour}, time.Second); err == nil ||
			time.Since(start) > livePageLimit+time.Second {
			t.Errorf("Run() = %v after %s, want an error after %s", err, time.Since(start),
				livePageLimit)
		}
	})
}

// The lag is that of the oldest news when it was sent, and is written while a run goes on. A run
// that nobody answers writes none.
func TestALiveRunWritesItsMetrics(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script liveScript
		want   []string
		not    string
	}{
		"news": {
			liveScript{answers: []LivePage{newsOf(7, 2, uuid.New())}},
			[]string{`"LivePublished":3`, `"LiveLagSeconds":0.6`},
			"-",
		},
		"none":   {liveScript{}, []string{`"LivePublished":0`, `"LiveLagSeconds":0`}, "-"},
		"nobody": {liveScript{err: errors.New("no")}, []string{`"LivePublished":0`}, "LiveLagSeconds"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			_ = NewRelay(c.script.next, nil, Options{
				For: 12 * time.Second, Live: &said{takes: 100 * time.Millisecond},
				Log: slog.New(slog.DiscardHandler), Metrics: emf.New(&out, "test"),
			}).Run(t.Context())
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != 2 && name != "nobody" {
				t.Errorf("%s: the metrics are %v, want two lines in 12 s", name, lines)
			}
			for _, want := range c.want {
				if !strings.Contains(lines[0], want) || strings.Contains(lines[0], c.not) {
					t.Errorf("%s: the metrics are %s, want %s", name, lines[0], want)
				}
			}
		})
	}
}
