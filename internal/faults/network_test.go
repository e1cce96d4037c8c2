package faults

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/allo/reservations/internal/pgtest"
)

// wire is the way to a database, which can be cut and soiled.
type wire struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newWire puts a proxy before the database and returns the database as the service reaches it.
func newWire(t *testing.T, db pgtest.Database) (*wire, pgtest.Database) {
	t.Helper()
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics write to its one global log
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &wire{t: t, proxy: toxiproxy.NewProxy(server, "postgres", "127.0.0.1:0", u.Host)}
	w.up()
	t.Cleanup(w.proxy.Stop)
	u.Host = w.proxy.Listen
	db.URL = u.String()
	return w, db
}

func (w *wire) up() {
	w.t.Helper()
	if err := w.proxy.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// soil adds toxics to both directions, or to the one that a toxic names.
func (w *wire) soil(toxics ...string) {
	w.t.Helper()
	for n, toxic := range toxics {
		toxic = fmt.Sprintf(`{"name":"toxic%d",%s}`, n, toxic)
		if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			w.t.Fatalf("%s: %v", toxic, err)
		}
	}
}

func (w *wire) clean() { w.proxy.Toxics.ResetToxics(context.Background()) }

// trouble is a fault of the network.
type trouble struct {
	name       string
	lasts      time.Duration
	unsure     bool // whether callers can't know what became of their calls
	begin, end func(w *wire)
}

func toxics(name string, lasts time.Duration, unsure bool, toxics ...string) trouble {
	return trouble{name, lasts, unsure, func(w *wire) { w.soil(toxics...) }, (*wire).clean}
}

// How long a fault lasts: long enough for every call to meet it or, where nothing is heard any more, for calls to end by their own deadline.
const (
	short = 2 * time.Second
	long  = answerLimit + time.Second
)

var troubles = []trouble{
	toxics("latency and jitter", short, false, `"type":"latency","stream":"upstream","attributes":{"latency":100,"jitter":80}`,
		`"type":"latency","stream":"downstream","attributes":{"latency":100,"jitter":80}`),
	// An answer is cut off in its middle, some of them after the commit.
	toxics("an end in the middle of an answer", short, true, `"type":"limit_data","stream":"downstream","attributes":{"bytes":1200}`),
	toxics("an end in the middle of a question", short, true, `"type":"limit_data","stream":"upstream","attributes":{"bytes":1500}`),
	toxics("resets of every connection", short, true, `"type":"reset_peer","stream":"downstream","attributes":{"timeout":30}`),
	toxics("a black hole for answers", long, true, `"type":"timeout","stream":"downstream","attributes":{"timeout":0}`),
	toxics("a black hole for questions", long, true, `"type":"timeout","stream":"upstream","attributes":{"timeout":0}`),
	toxics("slow goodbyes", short, true, `"type":"slow_close","stream":"downstream","attributes":{"delay":1000}`,
		`"type":"limit_data","stream":"downstream","attributes":{"bytes":3000}`),
	toxics("a line of a few bytes at a time", short, false, `"type":"slicer","stream":"downstream","attributes":{"average_size":10,"size_variation":5,"delay":300}`,
		`"type":"bandwidth","stream":"upstream","attributes":{"rate":20}`),
	{"nobody listens", short, true, func(w *wire) { w.proxy.Stop() }, (*wire).up},
}

// TestEveryCallEndsWhateverTheNetworkDoes puts one fault after another between the service and its database, under load. The callers hold
// every answer against the contract and its deadline, and settle what they weren't told; then what they know must be what is there.
func TestEveryCallEndsWhateverTheNetworkDoes(t *testing.T) {
	wire, db := newWire(t, pgtest.New(t))
	w := open(t, db, inProcess)
	c := newCrowd(w)
	leave := c.invite(t, 4)

	rounds := 0
	for start := time.Now(); rounds == 0 || time.Since(start) < lasting(0); rounds++ {
		for _, trouble := range troubles {
			c.succeeded(t, time.Now())
			before := c.unsure.Load()
			trouble.begin(wire)
			time.Sleep(trouble.lasts)
			if grew := c.unsure.Load() > before; grew != trouble.unsure {
				t.Errorf("%s: calls of which nobody knows what became: %t, want %t", trouble.name, grew, trouble.unsure)
			}
			trouble.end(wire)
			if took := c.recovers(t); took > recoveryLimit {
				t.Errorf("%s: a call succeeded %s after the fault's end, want at most %s", trouble.name, took, recoveryLimit)
			} else {
				t.Logf("%s: a call succeeded %s after the fault's end", trouble.name, took.Round(time.Millisecond))
			}
		}
	}
	leave()
	t.Logf("%d rounds of %d faults, %d calls, %d of them unsure, %d holds told of", rounds, len(troubles), c.calls.Load(), c.unsure.Load(), len(c.told))
}

// recovers sends new calls until one of every verb has succeeded, and says how long that took.
func (c *crowd) recovers(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	row := c.rows[0]
	var held reply
	for ctx := within(t, testLimit); !held.ok(); {
		if ctx.Err() != nil {
			t.Fatal("the service doesn't recover")
		}
		held = c.settle(func(ctx context.Context, key string) reply {
			return c.shop.reserve(ctx, key, 0, item{row.Product, row.Warehouse, 1})
		})
	}
	id := held.Reservation.ID
	c.settle(func(ctx context.Context, _ string) reply { return c.shop.get(ctx, id) })
	c.settle(func(ctx context.Context, key string) reply { return c.shop.act(ctx, id, "confirm", key) })
	c.tell(id, "CONFIRMED")
	return time.Since(start)
}

// TestAPoolerMayBeRestartedUnderLoad ends PgBouncer, and everybody's connections with it, five times.
func TestAPoolerMayBeRestartedUnderLoad(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "100"})
	pooler := pgtest.NewPooler(t, server)
	db.URL = pooler.URL(db.DirectURL)
	w := open(t, db, inProcess)
	c := newCrowd(w)
	leave := c.invite(t, 5)
	for range 5 {
		c.succeeded(t, time.Now())
		if err := pooler.Restart(within(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		if took := c.recovers(t); took > recoveryLimit {
			t.Errorf("a call succeeded %s after the restart, want at most %s", took, recoveryLimit)
		}
	}
	leave()
	t.Logf("%d calls, %d of them unsure", c.calls.Load(), c.unsure.Load())
}
