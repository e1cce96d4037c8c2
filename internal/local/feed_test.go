package local

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/allo/reservations/internal/events"
)

func TestAFeedPublishesThePagesOfTheOutbox(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var posted atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if posted.Add(1) == 3 {
			cancel()
		}
	}))
	t.Cleanup(server.Close)
	// The outbox gives its page of holds' events until it is acknowledged.
	var released atomic.Int64
	outbox := func(_ context.Context, r events.Request) (page events.Page, err error) {
		if r.Release {
			released.Add(1)
		}
		page.Place, page.Leased = r.Sink, true
		if r.Sink == events.Places(topicSink)[0] && r.Ack == "" && !r.Release {
			page.Events, page.Position = []events.Event{held("a", 1), held("b", 1), held("a", 2)}, "p"
		}
		return page, nil
	}
	f, err := NewFeed(outbox, dir, server.URL, quiet)
	if err != nil {
		t.Fatal(err)
	}
	last := NewQueue("q", nil, f.Topic.now, quiet)
	f.Topic.Subscribe(last)
	f.Run(ctx)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	wantIDs(t, "archived", archived(t, dir, archiveFile), string(held("a", 1).Body),
		string(held("b", 1).Body), string(held("a", 2).Body))
	if posted.Load() != 3 {
		t.Errorf("%d events were posted, want 3", posted.Load())
	}
	if n := released.Load(); n != 2 || !strings.HasPrefix(f.Secret(), "whsec_") {
		t.Errorf("%d leases were given back, want 2; the secret is %q", n, f.Secret())
	}
	ids, _ := receive(last, 10)
	wantIDs(t, "queued", ids, "a-1 1", "b-1 1", "a-2 1")
}

func TestAFeedWithoutAWebhook(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	f, err := NewFeed(nil, dir, "", quiet)
	if err != nil || f.Secret() != "" || f.Close() != nil {
		t.Errorf("a feed without a webhook has the secret %q, %v", f.Secret(), err)
	}
	if _, err := NewFeed(nil, dir, "http://example.com", quiet); err == nil {
		t.Error("a webhook elsewhere over http has no error")
	}
}

func TestTheOutboxCanBeAFunction(t *testing.T) {
	t.Parallel()

	answer, failed := `{"leased":true,"events":[{"id":"a-1"}],"position":"p"}`, error(nil)
	outbox := invokeOutbox(function(func(_ context.Context, payload []byte) ([]byte, error) {
		var r events.Request
		if err := json.Unmarshal(payload, &r); err != nil || r.Sink != "topic" {
			t.Errorf("the function got %s, %v", payload, err)
		}
		return []byte(answer), failed
	}))
	ask := func() (events.Page, error) {
		return outbox(t.Context(), events.Request{Sink: "topic"})
	}
	page, err := ask()
	if err != nil || !page.Leased || len(page.Events) != 1 || page.Position != "p" {
		t.Errorf("the page is %+v, %v", page, err)
	}
	answer = "{"
	if _, err := ask(); err == nil {
		t.Error("an answer that isn't a page has no error")
	}
	failed = errors.New("the process ended")
	if _, err := ask(); !errors.Is(err, failed) {
		t.Errorf("the function's error is %v", err)
	}
}
