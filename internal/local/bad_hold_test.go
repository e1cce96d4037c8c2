package local

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/webhook"
)

// picky is an endpoint that never takes some events, and others not at first.
type picky struct {
	mu       sync.Mutex
	taken    []string
	attempts map[string]int
	// status answers an attempt of an event.
	status func(id string, attempt int) int
}

func (p *picky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	p.attempts[id]++
	status := p.status(id, p.attempts[id])
	if status == http.StatusNoContent {
		p.taken = append(p.taken, id)
	}
	w.WriteHeader(status)
}

// deliverAll hands the messages of the queue to the deliver function's handler, one at a time,
// until the queue is empty. While all messages are hidden, it moves the clock on. It returns how
// long that took on the clock.
func deliverAll(t *testing.T, q *Queue, clock *testClock, p *picky) time.Duration {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	secrets, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	client := webhook.NewClient(webhook.Options{AllowLoopback: true})
	h := deliver.New(client, q, q.Now, []deliver.Webhook{{
		Name: "local", URL: server.URL,
		Secrets: func(context.Context) ([]webhook.Secret, error) { return secrets, nil },
	}}, nil, quiet)
	start := clock.at
	for len(q.messages) > 0 {
		batch := q.Receive(1)
		if len(batch) == 0 {
			next := slices.MinFunc(q.messages, func(a, b *queued) int {
				return hiddenUntil(a, clock).Compare(hiddenUntil(b, clock))
			})
			clock.at = next.visible
			continue
		}
		r, err := h.Handle(t.Context(), lambdaevents.SQSEvent{Records: batch})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.BatchItemFailures) > 0 {
			continue
		}
		if err := q.Delete(batch[0]); err != nil {
			t.Fatal(err)
		}
	}
	return clock.at.Sub(start)
}

// hiddenUntil returns when a hidden message comes back, and a far time for one that waits behind
// it.
func hiddenUntil(m *queued, clock *testClock) time.Time {
	if m.visible.After(clock.at) {
		return m.visible
	}
	return clock.at.AddDate(1, 0, 0)
}

// outOfOrder returns the events that were taken after a later one of their hold.
func outOfOrder(taken []string) (wrong []string) {
	last := map[string]int{}
	for _, id := range taken {
		var hold string
		var n int
		if _, err := fmt.Sscanf(id, "%4s-%d", &hold, &n); err != nil || n <= last[hold] {
			wrong = append(wrong, id)
		}
		last[hold] = n
	}
	return wrong
}

// One hold's first event is never taken, and that of every tenth hold fails once. Only the hold's
// own later events wait for it, and each hold is told in order.
func TestABadHoldAmongAThousandCostsOnlyItself(t *testing.T) {
	t.Parallel()

	const holds, each, bad = 1000, 3, "h500-1"
	status := func(id string, attempt int) int {
		if id == bad || attempt == 1 && id[3:] == "7-1" {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	}
	clock := newTestClock()
	q := NewQueue("local-webhook-local.fifo", nil, clock.now, quiet)
	for n := range each {
		for hold := range holds {
			q.Send(held(fmt.Sprintf("h%03d", hold), n+1))
		}
	}
	p := &picky{attempts: map[string]int{}, status: status}
	took := deliverAll(t, q, clock, p)
	if wrong := outOfOrder(p.taken); len(wrong) > 0 || len(p.taken) != holds*each-1 {
		t.Errorf("%d events were taken, %v out of order, want %d and none", len(p.taken), wrong,
			holds*each-1)
	}
	// The hold's later events come last, when the first one is a dead letter.
	wantIDs(t, "the last", p.taken[len(p.taken)-2:], "h500-2", "h500-3")
	schedule := time.Duration(0)
	for _, wait := range webhook.Waits() {
		schedule += wait
	}
	if dead := q.DeadLetters(); len(dead) != 1 || p.attempts[bad] != 10 || took != schedule ||
		dead[0].Attributes["MessageDeduplicationId"] != bad {
		t.Errorf("after %d attempts in %s the dead letters are %v, want the bad event after 10 in %s",
			p.attempts[bad], took, dead, schedule)
	}

	// The control: in a standard queue no message waits for another, so later events overtake.
	q = NewQueue("local-webhook-local.fifo", nil, clock.now, quiet)
	for n := range each {
		for hold := range 100 {
			e := held(fmt.Sprintf("h%03d", hold), n+1)
			q.Send(events.Event{ID: e.ID, Type: e.Type, Subject: e.ID, Body: e.Body})
		}
	}
	apart := &picky{attempts: map[string]int{}, status: status}
	deliverAll(t, q, clock, apart)
	if wrong := outOfOrder(apart.taken); len(wrong) == 0 {
		t.Error("without groups no event was taken out of order, so the test proves nothing")
	}
}
