package events_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events"
)

// The alarm takes a lag of zero for a healthy relay. So a relay that doesn't know the lag writes
// none.
func TestARelayWithoutAnOutboxWritesNoLag(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		page events.Page
		err  error
		want string
	}{
		"an outbox that fails": {events.Page{}, errors.New("no database"), ""},
		"an outbox":            {events.Page{Leased: true, LagSeconds: 3}, nil, `"RelayLagSeconds":3`},
	} {
		var written bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		outbox := func(context.Context, events.Request) (events.Page, error) {
			cancel()
			return c.page, c.err
		}
		relay := events.NewRelay(outbox, map[string]events.Sink{"topic": nil}, events.Options{
			Log: slog.New(slog.DiscardHandler), Metrics: emf.New(&written, "Allo"),
		})
		if err := relay.Run(ctx); (err != nil) != (c.err != nil) {
			t.Errorf("%s: Run() = %v", name, err)
		}
		line := written.String()
		knows := strings.Contains(line, "RelayLag") || strings.Contains(line, "EventsParked")
		if !strings.Contains(line, `"Sink":"topic"`) || !strings.Contains(line, c.want) ||
			c.want == "" && knows {
			t.Errorf("%s: the relay writes %s, want %q in it", name, line, c.want)
		}
	}
}
