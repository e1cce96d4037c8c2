package faults

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
)

// pair is a server with a synchronous standby. A link leads from the standby to the server, and
// another from the service to the one that serves.
type pair struct {
	t           *testing.T
	primary     *pgtest.Disturbed
	standby     *pgserver.Server
	standbyDB   *pgtest.Fixture
	replication *faultyLink
	service     *faultyLink
	d           *deployment
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t}
	var db, standbyDB pgtest.Database
	p.primary, db = pgtest.NewDisturbedServer(t, roomy)
	p.replication, _ = newFaultyLink(t, db)
	p.standby, standbyDB = pgtest.NewStandby(t, p.primary.Server, db, p.replication.proxy.Listen)
	p.standbyDB = pgtest.NewFixture(t, standbyDB)
	p.service, db = newFaultyLink(t, db)
	p.d = deploy(t, db, startHasty(hastyLimit))
	p.d.db.Exec("ALTER SYSTEM SET synchronous_standby_names = " + pgtest.StandbyName)
	p.d.db.Exec("SELECT pg_reload_conf()")
	p.d.db.WaitUntil("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
	return p
}

// stallStandby lets nothing reach the standby any more, and waits until a commit waits for it.
func (p *pair) stallStandby() {
	p.t.Helper()
	p.replication.addToxics(`"type":"timeout","stream":"downstream","attributes":{"timeout":0}`)
	p.d.commitInBackground()
	p.d.db.WaitUntil("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
}

// failOver ends the primary, promotes the standby, and leads the service to it.
func (p *pair) failOver() {
	p.t.Helper()
	if err := p.primary.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.replication.proxy.Stop()
	p.service.proxy.Stop()
	p.standbyDB.Promote()
	u, err := url.Parse(p.standbyDB.DirectURL)
	if err != nil {
		p.t.Fatal(err)
	}
	p.service.proxy.Upstream = u.Host
	p.service.start()
}

// TestStalledStandbyMakesNoAnswerUntrue promotes a standby that was stalled. What callers were told
// during the stall must be true afterwards.
func TestStalledStandbyMakesNoAnswerUntrue(t *testing.T) {
	p := newPair(t)
	w := newWitness(p.d)
	w.tellOfUnheardCalls(t, p.d, p.primary, p.stallStandby)
	p.failOver()
	w.verify(t, p.standbyDB)
}

// TestStalledStandbyIsPromoted stalls the standby while callers and readers work. Then the server
// dies and the standby takes its place: what answers said must be true there. Its clock is behind,
// too. The callers go on working.
func TestStalledStandbyIsPromoted(t *testing.T) {
	for n := range rounds(t, 20*time.Second) {
		t.Run(fmt.Sprint("round ", n), func(t *testing.T) { promoteStalledStandby(t, n) })
	}
}

func promoteStalledStandby(t *testing.T, part uint64) {
	p := newPair(t)
	w := newWitness(p.d)
	stop := w.start(t, part)
	w.await(t, "successes", &w.successes, witnessCalls)
	p.stallStandby()
	w.await(t, "failures", &w.failures, 2*witnessCallers)
	p.primary.JumpClock(unflushed)
	w.await(t, "reads", &w.reads, 4*witnessReaders)
	p.failOver()
	promoted := attach(t, p.standbyDB.Database, p.d.url)
	w.seen.Store(promoted.db.Admin)
	w.await(t, "successes on the promoted standby", &w.successes, witnessCalls)
	stop()
	w.verify(t, promoted.db)
	promoted.audit()
}

// TestStalledStandbyFindsTheRemovedGuard is the control: without the barrier of the second commit,
// answers tell of commits that the standby never had.
func TestStalledStandbyFindsTheRemovedGuard(t *testing.T) {
	p := newPair(t)
	removeBarrier(p.d)
	w := newWitness(p.d)
	w.warmUp(t)
	p.stallStandby()
	for range 5 {
		w.shop(newRand(9))
	}
	p.failOver()
	if found := w.contradictions(t, p.standbyDB); len(found) == 0 {
		t.Errorf("%d holds were told of and none was lost: the control proves nothing", len(w.told))
	}
}
