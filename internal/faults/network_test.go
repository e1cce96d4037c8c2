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

// faultyLink is a connection to the database that can be cut and disturbed.
type faultyLink struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newFaultyLink puts a proxy in front of the database, and returns the database as reached through
// it.
func newFaultyLink(t *testing.T, db pgtest.Database) (*faultyLink, pgtest.Database) {
	t.Helper()
	return newLinkAt(t, db, "127.0.0.1:0")
}

// newLinkAt is newFaultyLink at an address of the caller's choice.
func newLinkAt(t *testing.T, db pgtest.Database, listen string) (*faultyLink, pgtest.Database) {
	t.Helper()
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics write to the global log
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &faultyLink{t: t, proxy: toxiproxy.NewProxy(server, "postgres", listen, u.Host)}
	l.start()
	t.Cleanup(l.proxy.Stop)
	u.Host = l.proxy.Listen
	db.URL = u.String()
	return l, db
}

func (l *faultyLink) start() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatal(err)
	}
}

// addToxics adds toxics in both directions, or in the one that a toxic names.
func (l *faultyLink) addToxics(toxics ...string) {
	l.t.Helper()
	for n, toxic := range toxics {
		toxic = fmt.Sprintf(`{"name":"toxic%d",%s}`, n, toxic)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			l.t.Fatalf("%s: %v", toxic, err)
		}
	}
}

func (l *faultyLink) removeToxics() { l.proxy.Toxics.ResetToxics(context.Background()) }

// networkFault is a fault of the network.
type networkFault struct {
	name string
	// The fault ends when so many calls have ended with an uncertain outcome, and after the time most
	// at the latest. When uncertain is none, no call may, and the fault lasts for all that time.
	most       time.Duration
	uncertain  int64
	begin, end func(l *faultyLink)
}

func toxicFault(
	name string, most time.Duration, uncertain int64, toxics ...string,
) networkFault {
	return networkFault{
		name, most, uncertain, func(l *faultyLink) { l.addToxics(toxics...) },
		(*faultyLink).removeToxics,
	}
}

// How long a fault lasts: until some calls of every caller have met it or, where packets vanish,
// until a call of each has reached its own deadline.
const (
	briefFault            = 2 * time.Second
	longFault             = answerLimit + time.Second
	none, some, oneOfEach = 0, 4 * loadCallers, loadCallers
)

var networkFaults = []networkFault{
	toxicFault("latency and jitter", briefFault, none,
		`"type":"latency","stream":"upstream","attributes":{"latency":100,"jitter":80}`,
		`"type":"latency","stream":"downstream","attributes":{"latency":100,"jitter":80}`),
	// Answers are cut off in their middle, some of them after the commit.
	toxicFault("connections closed in the middle of an answer", briefFault, some,
		`"type":"limit_data","stream":"downstream","attributes":{"bytes":1200}`),
	toxicFault("connections closed in the middle of a query", briefFault, some,
		`"type":"limit_data","stream":"upstream","attributes":{"bytes":1500}`),
	toxicFault("resets of every connection", briefFault, some,
		`"type":"reset_peer","stream":"downstream","attributes":{"timeout":30}`),
	toxicFault("answers vanish", longFault, oneOfEach,
		`"type":"timeout","stream":"downstream","attributes":{"timeout":0}`),
	toxicFault("queries vanish", longFault, oneOfEach,
		`"type":"timeout","stream":"upstream","attributes":{"timeout":0}`),
	toxicFault("slow closes", briefFault, some,
		`"type":"slow_close","stream":"downstream","attributes":{"delay":1000}`,
		`"type":"limit_data","stream":"downstream","attributes":{"bytes":3000}`),
	toxicFault("a few bytes at a time", briefFault, none,
		`"type":"slicer","stream":"downstream",`+
			`"attributes":{"average_size":10,"size_variation":5,"delay":300}`,
		`"type":"bandwidth","stream":"upstream","attributes":{"rate":20}`),
	{
		"nobody listens", briefFault, some, func(l *faultyLink) { l.proxy.Stop() },
		(*faultyLink).start,
	},
}

// TestEveryCallEndsDespiteNetworkFaults puts one fault after another between the service and its
// database, under load. The callers check every answer against the contract and its deadline, and
// repeat calls until their outcome is certain. Then their answers and the database must agree.
func TestEveryCallEndsDespiteNetworkFaults(t *testing.T) {
	link, db := newFaultyLink(t, pgtest.New(t))
	d := deploy(t, db, startInProcess)
	l := newLoad(d)
	stop := l.start(t, 4)

	rounds := 0
	for start := time.Now(); rounds == 0 || time.Since(start) < duration(0); rounds++ {
		for _, fault := range networkFaults {
			if testing.Short() && fault.most > briefFault {
				continue
			}
			l.awaitSuccess(t, time.Now())
			before := l.uncertain.Load()
			fault.begin(link)
			l.awaitUncertain(t, before, fault)
			fault.end(link)
			if took := l.awaitRecovery(t); took > recoveryLimit {
				t.Errorf("%s: recovered %s after the fault's end, want at most %s", fault.name,
					took, recoveryLimit)
			} else {
				t.Logf("%s: recovered %s after the fault's end", fault.name,
					took.Round(time.Millisecond))
			}
		}
	}
	stop()
	t.Logf("%d rounds of %d faults, %d calls, %d of them uncertain, %d holds acknowledged", rounds,
		len(networkFaults), l.calls.Load(), l.uncertain.Load(), len(l.told))
}

// awaitUncertain waits until a fault may end. It fails the test when the fault had another effect
// than it should have: calls had an uncertain outcome, or none had.
func (l *load) awaitUncertain(t *testing.T, before int64, fault networkFault) {
	t.Helper()
	start := time.Now()
	ctx := withTimeout(t, fault.most)
	for ctx.Err() == nil && (fault.uncertain == none || l.uncertain.Load() < before+fault.uncertain) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	grew := l.uncertain.Load() - before
	if (grew > 0) != (fault.uncertain > none) {
		t.Errorf("%s: %d calls ended with an uncertain outcome, want some: %t", fault.name, grew,
			fault.uncertain > none)
	}
	t.Logf("%s: %d calls ended with an uncertain outcome in %s", fault.name, grew,
		time.Since(start).Round(time.Millisecond))
}

// awaitRecovery sends new calls until one of every verb has succeeded, and returns how long that
// took.
func (l *load) awaitRecovery(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	row := l.rows[0]
	var held reply
	for ctx := withTimeout(t, testLimit); !held.ok(); {
		if ctx.Err() != nil {
			t.Fatal("the service did not recover")
		}
		held = l.sendUntilSettled(func(ctx context.Context, key string) reply {
			return l.client.reserve(ctx, key, 0, item{row.Product, row.Warehouse, 1})
		})
	}
	id := held.Reservation.ID
	l.sendUntilSettled(func(ctx context.Context, _ string) reply { return l.client.get(ctx, id) })
	l.sendUntilSettled(func(ctx context.Context, key string) reply {
		return l.client.act(ctx, id,
			"confirm", key)
	})
	l.record(id, "CONFIRMED")
	return time.Since(start)
}

// TestPoolerRestartsUnderLoad stops PgBouncer, and every connection with it, five times.
func TestPoolerRestartsUnderLoad(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "100"})
	pooler := pgtest.NewPooler(t, server)
	db.URL = pooler.URL(db.DirectURL)
	d := deploy(t, db, startInProcess)
	l := newLoad(d)
	stop := l.start(t, 5)
	for range 5 {
		l.awaitSuccess(t, time.Now())
		if err := pooler.Restart(withTimeout(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		took := l.awaitRecovery(t)
		t.Logf("recovered %s after the restart", took.Round(time.Millisecond))
		if took > recoveryLimit {
			t.Errorf("recovered %s after the restart, want at most %s", took, recoveryLimit)
		}
	}
	stop()
	t.Logf("%d calls, %d of them uncertain", l.calls.Load(), l.uncertain.Load())
}
