package local

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/allo/reservations/internal/app/deliver"
)

// The endpoint is on this machine and uses the reference library. It fails the first attempt of one
// event, which then comes before its subject's next one.
func TestAWebhookGetsTheEventsOfATopic(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "data")
	var (
		mu       sync.Mutex
		receiver *standardwebhooks.Webhook
		got      []string
	)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if err := receiver.Verify(body, r.Header); err != nil {
			t.Error(err)
		}
		got = append(got, r.Header.Get("Webhook-Id"))
		if len(got) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if len(got) == 3 {
			cancel()
		}
	}))
	t.Cleanup(server.Close)
	hook, err := NewWebhook(server.URL+"/hook", dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	// The queue's lock guards its clock.
	clock := newTestClock()
	hook.Queue.now = clock.now
	if receiver, err = standardwebhooks.NewWebhook(hook.Secret); err != nil {
		t.Fatal(err)
	}
	topic := NewTopic(nil, time.Now)
	topic.Subscribe(hook.Queue)
	publish(t, topic, held("a", 1))
	publish(t, topic, held("a", 2))
	go moveOn(ctx, hook.Queue, clock, 5*time.Second)
	hook.Run(ctx)
	wantIDs(t, "posted", got, "a-1", "a-1", "a-2")

	again, err := NewWebhook(server.URL, dir, quiet)
	if err != nil || again.Secret != hook.Secret {
		t.Errorf("the next run has another secret, %v", err)
	}
}

// moveOn waits until the queue's first message is hidden for this delay, and lets the delay pass.
func moveOn(ctx context.Context, q *Queue, clock *testClock, delay time.Duration) {
	for ctx.Err() == nil {
		q.mu.Lock()
		hidden := len(q.messages) > 0 && q.messages[0].visible.Equal(clock.at.Add(delay))
		if hidden {
			clock.at = clock.at.Add(delay)
		}
		q.mu.Unlock()
		if hidden {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestAWebhookOfThisMachineIsChecked(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	for _, url := range []string{"", "example.com", "http://example.com/", "ftp://127.0.0.1/"} {
		_, err := NewWebhook(url, dir, quiet)
		if err == nil || !strings.Contains(err.Error(), "the webhook's URL") {
			t.Errorf("the error of the URL %q is %v", url, err)
		}
	}
	path := filepath.Join(dir, secretFile)
	if err := os.WriteFile(path, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewWebhook("http://127.0.0.1/", dir, quiet); err == nil ||
		!strings.Contains(err.Error(), path) {
		t.Errorf("the error of a bad secret is %v", err)
	}
}

// An endpoint that is gone gets its events after a redelivery. The state tells what became of them.
func TestAnOperatorRedeliversOnOneMachine(t *testing.T) {
	t.Parallel()

	var isGone atomic.Bool
	isGone.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if isGone.Load() {
			w.WriteHeader(http.StatusGone)
		}
	}))
	t.Cleanup(server.Close)
	f, err := NewFeed(nil, t.TempDir(), server.URL+"/hook?token=hidden", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	publish(t, f.Topic, held("a", 1))
	publish(t, f.Topic, held("b", 1))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { f.webhook.Run(ctx) })
	defer running.Wait()
	defer cancel()

	operator := f.Operator()
	state := func() deliver.State {
		t.Helper()
		states, err := operator.States(ctx)
		if err != nil || len(states) != 1 {
			t.Fatalf("States() = %v, %v, want one", states, err)
		}
		return states[0]
	}
	await := func(what string, is func(deliver.State) bool) deliver.State {
		t.Helper()
		for ctx.Err() == nil {
			if s := state(); is(s) {
				return s
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("it is never so that %s: %+v", what, state())
		return deliver.State{}
	}
	s := await("both events are dead", func(s deliver.State) bool { return s.DeadLetters == 2 })
	if !s.Parked || s.URL != server.URL || s.Name != localWebhook {
		t.Errorf("the state is %+v, want a parked endpoint at %s", s, server.URL)
	}
	if _, err := operator.Redeliver(ctx, "another"); !errors.Is(err, deliver.ErrUnknownWebhook) {
		t.Errorf("Redeliver(another) = %v", err)
	}
	isGone.Store(false)
	if n, err := operator.Redeliver(ctx, localWebhook); n != 2 || err != nil {
		t.Errorf("Redeliver() = %d, %v, want 2", n, err)
	}
	s = await("both events are delivered", func(s deliver.State) bool {
		return len(s.Deliveries) == 4 && s.Waiting == 0
	})
	if s.Parked || s.DeadLetters != 0 {
		t.Errorf("after a redelivery the state is %+v", s)
	}
	for n, d := range s.Deliveries {
		want := deliver.Delivered
		if n >= 2 { // the newest come first
			want = deliver.Dead
		}
		if d.Outcome != want || d.Type != "allo.reservation.held" || !strings.HasSuffix(d.ID, "-1") {
			t.Errorf("delivery %d is %+v, want it %s", n, d, want)
		}
	}
	if n, err := operator.Redeliver(ctx, localWebhook); n != 0 || err != nil {
		t.Errorf("the second Redeliver() = %d, %v, want 0", n, err)
	}
	none := feedOperator{}
	states, err := none.States(ctx)
	_, unknown := none.Redeliver(ctx, localWebhook)
	if err != nil || len(states) > 0 || !errors.Is(unknown, deliver.ErrUnknownWebhook) {
		t.Errorf("without a webhook there are %v, %v, %v", states, err, unknown)
	}
}
