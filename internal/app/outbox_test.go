package app_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	feed "github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// counter is a sink that counts what it gets.
type counter struct{ n atomic.Int64 }

func (c *counter) Publish(_ context.Context, batch []feed.Event) []error {
	c.n.Add(int64(len(batch)))
	return make([]error, len(batch))
}

// Each sweep takes a tick, also one that fails, and a tick that fails stops no sweep.
func TestASweepTakesATick(t *testing.T) {
	t.Parallel()
	a, db, log, _ := newSweeper(t)
	f := pgtest.NewFixture(t, db)
	ticks := func() int { return pgtest.QueryOne[int](f, "SELECT count(*) FROM ticks") }
	sweep := func(fails bool) {
		t.Helper()
		if _, err := a.Sweep(t.Context(), events.EventBridgeEvent{}); (err != nil) != fails {
			t.Errorf("Sweep() = %v, want an error: %t", err, fails)
		}
	}
	sweep(false)
	sweep(false)
	if n := ticks(); n != 1 {
		t.Errorf("after two sweeps of a quiet shop there are %d ticks, want 1", n)
	}
	f.Exec("SELECT adjust_stock(product_id, warehouse_id, 1, 'test') FROM inventory LIMIT 1")
	f.Exec("ALTER FUNCTION sweep_keys(integer) RENAME TO hidden")
	sweep(true)
	if n := ticks(); n != 2 {
		t.Errorf("after a sweep that failed there are %d ticks, want 2", n)
	}
	f.Exec("ALTER FUNCTION hidden(integer) RENAME TO sweep_keys")
	f.Exec("UPDATE ticks SET snapshot = '9000000000:9000000000:'")
	log.Reset()
	sweep(false)
	if n := ticks(); n != 2 || log.Len() == 0 {
		t.Errorf("a tick of another server makes %d ticks and logs %s", n, log)
	}
}

// The outbox function serves a relay.
func TestTheOutboxServesARelay(t *testing.T) {
	t.Parallel()
	a, db, _, _ := newSweeper(t)
	sink := &counter{}
	err := feed.NewRelay(a.Outbox(), map[string]feed.Sink{"topic": sink},
		feed.Options{Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
	rows := pgtest.QueryOne[int](pgtest.NewFixture(t, db), "SELECT count(*) FROM stock_movements")
	if got := int(sink.n.Load()); err != nil || got != rows {
		t.Errorf("Run() = %v, and the sink has %d events, want the demo's %d", err, got, rows)
	}
}
