package faults

import (
	"fmt"
	"net"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
)

// writerName is the name under which the service finds the writer. The two servers have addresses
// of their own and one port, as they have in a region.
const (
	writerName     = "writer.db.example"
	primaryAddress = "127.0.0.2"
	standbyAddress = "127.0.0.3"
)

// region is a server with its standby, and a name server that says which of them is the writer. The
// service is the one that runs on AWS, but for its process: it finds the writer by its name.
type region struct {
	t           *testing.T
	names       *pgtest.NameServer
	d           *deployment
	primary     *pgserver.Server
	primaryLink *faultyLink
	replication *faultyLink // from the standby to the primary
	standby     *pgtest.Fixture

	endedAt, promotedAt time.Time
}

// newRegion starts the servers and the service. With synchronous set, commits wait for the standby.
func newRegion(t *testing.T, synchronous bool) *region {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has the addresses 127.0.0.2 and 127.0.0.3")
	}
	r := &region{t: t, names: resolveBy(t)}
	var db, standby, named pgtest.Database
	r.primary, db = pgtest.NewServer(t, roomy)
	r.replication, _ = newFaultyLink(t, db)
	_, standby = pgtest.NewStandby(t, r.primary, db, r.replication.proxy.Listen)
	r.standby = pgtest.NewFixture(t, standby)

	r.primaryLink, named = newLinkAt(t, db, net.JoinHostPort(primaryAddress, "0"))
	u, err := url.Parse(named.URL)
	if err != nil {
		t.Fatal(err)
	}
	newLinkAt(t, standby, net.JoinHostPort(standbyAddress, u.Port()))
	u.Host = net.JoinHostPort(writerName, u.Port())
	db.URL = u.String()
	r.names.Point(writerName, primaryAddress)
	r.d = deploy(t, db, startInProcess)
	if synchronous {
		r.d.db.Exec("ALTER SYSTEM SET synchronous_standby_names = " + pgtest.StandbyName)
		r.d.db.Exec("SELECT pg_reload_conf()")
		r.d.db.WaitUntil("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
	}
	return r
}

// resolveBy lets this process look up names at a name server of the test's own, as a function does
// at the one of its VPC. The tests of this package run one after another.
func resolveBy(t *testing.T) *pgtest.NameServer {
	t.Helper()
	names, before := pgtest.NewNameServer(t), net.DefaultResolver
	net.DefaultResolver = names.Resolver()
	t.Cleanup(func() { net.DefaultResolver = before })
	return names
}

// killPrimary ends the server, and with it every connection.
func (r *region) killPrimary() {
	r.t.Helper()
	r.endedAt = time.Now()
	if err := r.primary.Kill(); err != nil {
		r.t.Fatal(err)
	}
	r.primaryLink.proxy.Stop()
}

// demotePrimary lets the server take no writes any more. It runs on with its sessions.
func (r *region) demotePrimary() {
	r.t.Helper()
	r.endedAt = time.Now()
	r.d.db.Exec("ALTER SYSTEM SET default_transaction_read_only = on")
	r.d.db.Exec("SELECT pg_reload_conf()")
}

// promote makes the standby the writer, and leads the writer's name to it.
func (r *region) promote() {
	r.t.Helper()
	r.replication.proxy.Stop()
	r.standby.Promote()
	r.promotedAt = time.Now()
	r.names.Point(writerName, standbyAddress)
}

// promoted is the deployment with the new writer's database.
func (r *region) promoted() *deployment {
	r.t.Helper()
	return attach(r.t, r.standby.Database, r.d.url)
}

// inTime checks how soon after the promotion a call succeeded.
func (r *region) inTime(took time.Duration) {
	r.t.Helper()
	if took > recoveryLimit {
		r.t.Errorf("the first success came %s after the promotion, want at most %s", took,
			recoveryLimit)
	}
	r.t.Logf("the first success came %s after the promotion, and that %s after the writer's end",
		took.Round(time.Millisecond), r.promotedAt.Sub(r.endedAt).Round(time.Millisecond))
}

// TestFailOverToASynchronousStandby kills the writer under load and promotes the standby for which
// every commit has waited. The callers repeat their calls until they have an answer. Nothing is
// restarted. Then the new writer must have all that was answered, and each key made one hold.
func TestFailOverToASynchronousStandby(t *testing.T) {
	failOverUnderLoad(t, 11, (*region).killPrimary)
}

// TestFailOverFromADemotedWriter is the same for a writer that works on after it was demoted: it
// answers each write with SQLSTATE 25006.
func TestFailOverFromADemotedWriter(t *testing.T) {
	failOverUnderLoad(t, 12, (*region).demotePrimary)
}

func failOverUnderLoad(t *testing.T, part uint64, end func(*region)) {
	for n := range rounds(t, 0) {
		t.Run(fmt.Sprint("round ", n), func(t *testing.T) {
			r := newRegion(t, true)
			l := newLoad(r.d)
			stop := l.start(t, part+n)
			l.awaitSuccess(t, time.Now())
			random := newRand(part, n)
			time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond)))) // a random moment
			end(r)
			refused := l.uncertain.Load()
			for ctx := withTimeout(t, testLimit); l.uncertain.Load() < refused+loadCallers; {
				if sleep(ctx, time.Millisecond); ctx.Err() != nil {
					t.Fatal("no call was refused")
				}
			}
			r.promote()
			r.inTime(l.awaitSuccess(t, r.promotedAt))
			took := l.awaitRecovery(t)
			t.Logf("all verbs worked %s later", took.Round(time.Millisecond))
			if took > recoveryLimit {
				t.Errorf("all verbs worked %s later, want at most %s", took, recoveryLimit)
			}
			l.d = r.promoted()
			stop()
			t.Logf("%d calls, %d of them uncertain, %d holds, %d movements and %d payments "+
				"acknowledged, all on the new writer", l.calls.Load(), l.uncertain.Load(), len(l.told),
				len(l.moved), len(l.paid))
		})
	}
}

// TestFailOverToAnAsynchronousStandby promotes a standby that no commit has waited for. What it
// didn't have is lost, although it was answered: this says how much. The promises about the stock
// hold all the same, because the standby's log is a prefix of the writer's.
func TestFailOverToAnAsynchronousStandby(t *testing.T) {
	for n := range rounds(t, 0) {
		t.Run(fmt.Sprint("round ", n), func(t *testing.T) {
			lost := failOverAsynchronously(t, 13+n, func(*region, *witness) {})
			t.Logf("a standby that keeps up: %d acknowledged holds and movements are lost or older", lost)
		})
	}
}

// TestFailOverFindsWhatALateStandbyLoses is the control: a standby that gets nothing for a while.
func TestFailOverFindsWhatALateStandbyLoses(t *testing.T) {
	lost := failOverAsynchronously(t, 14, func(r *region, w *witness) {
		r.replication.addToxics(`"type":"timeout","stream":"downstream",` +
			`"attributes":{"timeout":0}`)
		w.await(t, "successes that the standby doesn't get", &w.successes, witnessCalls)
	})
	if lost == 0 {
		t.Error("a standby that got nothing has lost nothing: the tests can't find a loss")
	}
	t.Logf("a standby that is late: %d acknowledged holds and movements are lost or older", lost)
}

// failOverAsynchronously fails over under load. before runs just before the end of the writer. It
// returns how many of the acknowledged holds and movements the new writer doesn't have as told.
func failOverAsynchronously(t *testing.T, part uint64, before func(*region, *witness)) (lost int) {
	t.Helper()
	r := newRegion(t, false)
	w := newWitness(r.d)
	stop := w.start(t, part)
	w.await(t, "successes", &w.successes, witnessCalls)
	before(r, w)
	r.killPrimary()
	stop()
	for _, err := range w.problems {
		t.Error(err)
	}

	// From now on, answers come from the new writer, and must be true there.
	after := &witness{
		client: w.client, rows: w.rows, told: map[uuid.UUID]testimony{},
		moved: map[string]lineResult{},
	}
	after.seen.Store(r.standby.Admin)
	stop = after.start(t, part)
	after.await(t, "failures", &after.failures, witnessCallers)
	r.promote()
	after.await(t, "successes", &after.successes, 1)
	r.inTime(time.Since(r.promotedAt))
	lost = len(w.contradictions(t, r.standby))
	after.await(t, "successes on the new writer", &after.successes, witnessCalls)
	stop()
	promoted := r.promoted()
	after.verify(t, promoted.db)
	promoted.audit()
	t.Logf("before the fail-over %d holds and %d movements were acknowledged", len(w.told),
		len(w.moved))
	return lost
}
