package events

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/emf"
)

// The alarm takes a lag of zero for a healthy relay. So a relay that doesn't know the lag writes
// none.
func TestARelayWithoutAnOutboxWritesNoLag(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		page Page
		err  error
		want string
	}{
		"an outbox that fails": {Page{}, errors.New("no database"), ""},
		"an outbox":            {Page{Leased: true, LagSeconds: 3}, nil, `"RelayLagSeconds":3`},
	} {
		var written output
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		outbox := func(_ context.Context, r Request) (Page, error) {
			cancel()
			page := c.page
			page.Place = r.Sink
			return page, c.err
		}
		relay := NewRelay(outbox, map[string]Sink{"topic": nil}, Options{
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
