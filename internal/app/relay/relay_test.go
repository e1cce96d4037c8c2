package relay

import (
	"strings"
	"testing"

	"github.com/allo/reservations/internal/config"
)

func TestARelayNeedsItsOutboxAndASink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config config.Config
		want   string // in the error
	}{
		{config.Config{TopicARN: "arn"}, "OUTBOX_FUNCTION"},
		{config.Config{OutboxFunction: "outbox"}, "TOPIC_ARN nor BUS_NAME"},
		{config.Config{OutboxFunction: "outbox", TopicARN: "arn"}, ""},
		{config.Config{OutboxFunction: "outbox", BusName: "bus"}, ""},
		{config.Config{OutboxFunction: "outbox", TopicARN: "arn", LiveHTTP: "https://live"}, ""},
		{config.Config{OutboxFunction: "outbox", LiveHTTP: "https://live"}, "TOPIC_ARN nor BUS_NAME"},
	} {
		relay, err := New(c.config)
		if c.want == "" && (err != nil || relay == nil) {
			t.Errorf("New(%+v) = %v", c.config, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("New(%+v) = %v, want an error with %q", c.config, err, c.want)
		}
	}
}
