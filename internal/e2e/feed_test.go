package e2e

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/allo/reservations/internal/local"
)

// hook is an endpoint that verifies what it gets with the reference library, and keeps it.
type hook struct {
	t  *testing.T
	mu sync.Mutex
	// receiver is nil until the signing secret is known.
	receiver *standardwebhooks.Webhook
	bodies   []string
	// enough is called when isEnough says that all is there that the test waits for.
	isEnough func(bodies []string) bool
	enough   func()
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		err = h.receiver.Verify(body, r.Header)
	}
	if err != nil {
		h.t.Errorf("the endpoint got %v %s: %v", r.Header, body, err)
	}
	if slices.Contains(h.bodies, string(body)) {
		return // a repeat
	}
	h.bodies = append(h.bodies, string(body))
	if h.isEnough(h.bodies) {
		h.enough()
	}
}

// typesOf returns the types of the events with this subject.
func typesOf(t *testing.T, bodies []string, subject string) (types []string) {
	t.Helper()
	for _, body := range bodies {
		var e struct{ Type, Subject string }
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Error(err)
		}
		if e.Subject == subject {
			types = append(types, strings.TrimPrefix(e.Type, "allo."))
		}
	}
	return types
}

// The whole way on one machine: verbs, ledger, outbox, relay, topic, and an endpoint that is told.
func TestAnEndpointIsToldOfEachTransition(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		first, second := d.reserve(line(mug, newYork, 2)), d.reserve(line(keyboard, newYork, 1))
		d.post("/api/reservations/"+first.ID+"/extend", `{"ttlSeconds":900}`).
			want(t, http.StatusOK, "")
		d.post("/api/reservations/"+first.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations/"+second.ID+"/release", "").want(t, http.StatusOK, "")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sold := mug.String() + "/" + newYork.String()
		h := &hook{t: t, enough: cancel, isEnough: func(bodies []string) bool {
			return len(typesOf(t, bodies, first.ID)) == 3 && len(typesOf(t, bodies, second.ID)) == 2 &&
				len(typesOf(t, bodies, sold)) == 2
		}}
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		feed, err := local.NewFeed(d.functions.Outbox, t.TempDir(), server.URL,
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if h.receiver, err = standardwebhooks.NewWebhook(feed.Secret()); err != nil {
			t.Fatal(err)
		}
		feed.Run(ctx)
		server.Close() // waits for the deliveries under way
		if err := feed.Close(); err != nil {
			t.Error(err)
		}
		for subject, want := range map[string][]string{
			first.ID:  {"reservation.held", "reservation.extended", "reservation.confirmed"},
			second.ID: {"reservation.held", "reservation.released"},
			sold:      {"stock.moved", "stock.moved"}, // the opening and the sale
		} {
			if got := typesOf(t, h.bodies, subject); !slices.Equal(got, want) {
				t.Errorf("the endpoint was told of %v of %s, want %v", got, subject, want)
			}
		}
	})
}
