package local

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
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
