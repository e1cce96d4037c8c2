package faults

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

const (
	// hastyLimit is the deadline of calls that meet a stalled disk or standby. The handlers answer
	// 300 ms before it.
	hastyLimit = 1300 * time.Millisecond
	// unflushed is longer than Postgres leaves a commit unflushed, unless the disk stalls or the
	// clock jumps.
	unflushed = 11 * time.Second
)

var roomy = map[string]string{"max_connections": "300"}

// removeBarrier lets the second commit of each verb wait for nothing.
func removeBarrier(d *deployment) {
	mutate("write_log_record", "setval('log_records', 1)", "NULL::bigint")(d)
	mutate("reserve_line",
		"PERFORM FROM reservations r WHERE r.ctid = _place FOR KEY SHARE SKIP LOCKED;", "")(d)
}

// crashWhileStalled kills the server while its disk stalls, and starts it again.
func crashWhileStalled(t *testing.T, server *pgtest.Disturbed, d *deployment) {
	t.Helper()
	err := server.Kill()
	server.ResumeDisk()
	if err := errors.Join(err, server.Restart(withTimeout(t, testLimit))); err != nil {
		t.Fatal(err)
	}
	d.db.Admin.Reset()
}

// commitInBackground makes one commit that waits for its flush, and for the standby.
func (d *deployment) commitInBackground() {
	go func() {
		_, _ = d.db.Admin.Exec(d.t.Context(), "SELECT pg_logical_emit_message(true, '', '')")
	}()
}

// stallDisk stalls the disk, and lets one commit wait for it. That commit was written to the page
// cache, which survives a kill. It keeps the lock that every other write of the log needs, so the
// commits after it stay in the server's memory.
func (d *deployment) stallDisk(server *pgtest.Disturbed) {
	d.t.Helper()
	server.StallDisk()
	d.commitInBackground()
	d.db.WaitUntil("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'WalSync'")
}

// unheardCalls are calls with an effect that they aren't answered for, each with the verbs whose
// answers would tell of that effect.
var unheardCalls = []struct {
	verb string
	tell []string
}{
	{"confirm", []string{"get", "release", "extend", "confirm"}},
	{"release", []string{"get", "confirm", "extend", "release"}},
	{"extend", []string{"get"}},
}

// send calls a verb of a hold.
func (w *witness) send(verb string, id uuid.UUID) reply {
	ctx := context.Background()
	switch verb {
	case "get":
		return w.client.get(ctx, id)
	case "extend":
		return w.client.extend(ctx, id, "", 1200)
	default:
		return w.client.act(ctx, id, verb, "")
	}
}

// warmUp lets each function connect and prepare its statements, for several callers. A call that
// meets a stall has a second, which a slow machine may need for that.
func (w *witness) warmUp(t *testing.T) {
	t.Helper()
	id := reserveUntilCreated(t, w.client, w.rows[2], uuid.NewString()).Reservation.ID
	ctx := withTimeout(t, testLimit)
	until := func(call func() reply) {
		for r := call(); r.Err != nil || r.Status >= 500; r = call() {
			if ctx.Err() != nil {
				t.Errorf("before the stall a call was answered %d %s %v", r.Status, r.Body, r.Err)
				return
			}
		}
	}
	runConcurrently(len(unheardCalls)+1, func(int) {
		until(func() reply {
			return w.client.reserve(ctx, "", 0, item{w.rows[2].Product, w.rows[2].Warehouse, 1})
		})
		for _, verb := range []string{"get", "extend", "confirm", "release"} {
			until(func() reply { return w.send(verb, id) })
		}
	})
}

// tellOfUnheardCalls makes commits that are visible, but neither on disk nor on the standby,
// because stall has stalled it. More than ten seconds later by the server's clock other callers ask
// for the holds.
func (w *witness) tellOfUnheardCalls(
	t *testing.T, d *deployment, server *pgtest.Disturbed, stall func(),
) {
	t.Helper()
	w.warmUp(t)
	var holds []uuid.UUID
	for range unheardCalls {
		r := reserveUntilCreated(t, w.client, w.rows[0], uuid.NewString())
		holds = append(holds, r.Reservation.ID)
	}
	const stateSQL = `
SELECT string_agg(format('%s %s %s', id, status, expires_at), ',' ORDER BY id) FROM reservations`
	before := pgtest.QueryOne[string](d.db, stateSQL)

	stall()
	runConcurrently(len(holds)+1, func(n int) {
		verb, call := "reserve", func() reply {
			return w.client.reserve(t.Context(), "", 0, item{w.rows[1].Product, w.rows[1].Warehouse, 1})
		}
		if n < len(holds) {
			verb, call = unheardCalls[n].verb, func() reply {
				return w.send(unheardCalls[n].verb, holds[n])
			}
		}
		if r := call(); r.Status != http.StatusServiceUnavailable {
			t.Errorf("a %s during the stall = %d %s, want 503", verb, r.Status, r.Body)
		}
	})
	if after := pgtest.QueryOne[string](d.db, stateSQL); after == before {
		t.Fatal("the calls have no visible effect: the test proves nothing")
	}
	unheard := uuid.MustParse(pgtest.QueryOne[string](d.db,
		"SELECT max(id::text) FROM reservations"))

	server.JumpClock(unflushed)
	runConcurrently(len(holds)+1, func(n int) {
		if n == len(holds) {
			w.hear("get", unheard, w.send("get", unheard))
			return
		}
		tell := unheardCalls[n].tell
		runConcurrently(len(tell), func(m int) {
			w.hear(tell[m], holds[n], w.send(tell[m], holds[n]))
		})
	})
}

// TestStalledDiskMakesNoAnswerUntrue kills the server while its disk stalls. What callers were told
// during the stall must be true afterwards.
func TestStalledDiskMakesNoAnswerUntrue(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startHasty(hastyLimit))
	w := newWitness(d)
	w.tellOfUnheardCalls(t, d, server, func() { d.stallDisk(server) })
	crashWhileStalled(t, server, d)
	w.verify(t, d.db)
	d.audit()
}

// TestStalledDiskUnderLoad stalls the disk at a random moment while callers and readers work, lets
// the clock jump so that no commit seems young, and kills the server. Nobody repeats a call.
func TestStalledDiskUnderLoad(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startHasty(hastyLimit))
	for n := range rounds(t, 12*time.Second) {
		w := newWitness(d)
		stop := w.start(t, n)
		w.await(t, "successes", &w.successes, witnessCalls)
		d.stallDisk(server)
		w.await(t, "failures", &w.failures, witnessCallers)
		server.JumpClock(unflushed)
		w.await(t, "reads", &w.reads, 4*witnessReaders)
		crashWhileStalled(t, server, d)
		stop()
		w.verify(t, d.db)
		d.audit()
	}
}

// TestStalledDiskFindsTheRemovedGuardOfReads is the control of the reads: they take every change
// for flushed.
func TestStalledDiskFindsTheRemovedGuardOfReads(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startHasty(hastyLimit))
	mutate("hold_is_flushed", "RETURN coalesce((", "RETURN true OR coalesce((")(d)
	w := newWitness(d)
	w.tellOfUnheardCalls(t, d, server, func() { d.stallDisk(server) })
	crashWhileStalled(t, server, d)
	if found := w.contradictions(t, d.db); len(found) < len(unheardCalls)+1 {
		t.Errorf("%d answers were untrue, want one for each call: %v", len(found), found)
	}
}

// TestStalledDiskFindsTheRemovedGuard is the control: without the barrier of the second commit,
// answers tell of commits that are lost.
func TestStalledDiskFindsTheRemovedGuard(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startHasty(hastyLimit))
	removeBarrier(d)
	w := newWitness(d)
	w.warmUp(t)
	d.stallDisk(server)
	for range 5 {
		w.shop(newRand(6))
	}
	crashWhileStalled(t, server, d)
	if found := w.contradictions(t, d.db); len(found) == 0 {
		t.Errorf("%d holds were told of and none was lost: the control proves nothing", len(w.told))
	}
}
