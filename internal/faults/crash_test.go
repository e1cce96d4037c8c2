package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

// crowd is callers who each hold, and then confirm, release or leave, one call after the other. Every POST has an Idempotency-Key, and whoever
// isn't told what became of a call sends it again under the same key until told. So when the crowd has gone home, what everyone was told and
// what the database has must be the same to the last hold, whatever happened meanwhile.
type load struct {
	d      *deployment
	client client
	rows   []stockRow
	calls  atomic.Int64
	unsure atomic.Int64 // calls of which nobody could say whether they had taken effect

	mu          sync.Mutex
	told        map[uuid.UUID]string // what the callers know each hold to be
	failures    []error              // answers that the contract doesn't have, or that came late
	lastSuccess time.Time            // of the latest success
}

const loadCallers = 16

func newLoad(d *deployment) *load {
	return &load{d: d, client: newClient(d.url, loadCallers), rows: d.addProduct(4, 2_000_000_000), told: map[uuid.UUID]string{}}
}

// come lets the crowd in until the context ends, and returns when each has settled its last call.
func (l *load) run(ctx context.Context, part uint64) {
	runConcurrently(loadCallers, func(n int) {
		r := newRand(part, uint64(n))
		for ctx.Err() == nil {
			l.shopOnce(r)
		}
	})
}

// invite lets the crowd in. What it returns waits until all have gone home, and compares what they were told with what is there.
func (l *load) start(t *testing.T, part uint64) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx, part)
	}()
	return func() {
		cancel()
		<-done
		l.verify(t)
	}
}

// visit is one customer's.
func (l *load) shopOnce(r *rand.Rand) {
	row := l.rows[r.IntN(len(l.rows))]
	items := []item{{row.Product, row.Warehouse, 1 + r.IntN(3)}}
	if r.IntN(4) == 0 {
		items = nil
		for _, row := range l.rows[:2+r.IntN(2)] {
			items = append(items, item{row.Product, row.Warehouse, 1})
		}
	}
	held := l.sendUntilSettled(func(ctx context.Context, key string) reply { return l.client.reserve(ctx, key, 0, items...) })
	if held.Reservation == nil {
		return
	}
	id := held.Reservation.ID
	l.record(id, "PENDING")
	verb, status := "confirm", "CONFIRMED"
	switch r.IntN(3) {
	case 0:
		verb, status = "release", "RELEASED"
	case 1:
		return
	}
	if l.sendUntilSettled(func(ctx context.Context, key string) reply { return l.client.act(ctx, id, verb, key) }).ok() {
		l.record(id, status)
	}
}

func (l *load) record(id uuid.UUID, status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[id] = status
}

// settle sends a call until it is answered for certain.
func (l *load) sendUntilSettled(send func(ctx context.Context, key string) reply) reply {
	key := uuid.NewString()
	for start := time.Now(); ; {
		r := send(context.Background(), key)
		l.calls.Add(1)
		l.checkReply(r)
		if r.ok() {
			return r
		}
		if r.uncertain() {
			l.unsure.Add(1)
		}
		if r.Status/100 == 4 && r.Code != "IDEMPOTENCY_KEY_IN_USE" || time.Since(start) > testLimit {
			l.fail(errors.Join(fmt.Errorf("a call that nothing stands against ended in %d %s", r.Status, r.Body), r.Err))
			return r
		}
		time.Sleep(10 * time.Millisecond) // as long as a client may take to queryValue again
	}
}

// judge holds an answer against the contract, in whatever state the service is.
func (l *load) checkReply(r reply) {
	if err := r.documented(); err != nil {
		l.fail(fmt.Errorf("no answer that the contract has: %w", err))
	}
	if r.Took > answerLimit {
		l.fail(fmt.Errorf("an answer took %s, want at most %s", r.Took, answerLimit))
	}
	if r.ok() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lastSuccess = time.Now()
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, err)
}

// succeeded waits until a call that ended after the given instant was a success, and says how long that took.
func (l *load) awaitSuccess(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	for ctx := withTimeout(t, testLimit); ; {
		l.mu.Lock()
		last := l.lastSuccess
		l.mu.Unlock()
		if last.After(since) {
			return last.Sub(since)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no call succeeded withTimeout %s of the fault's end", testLimit)
		case <-time.After(time.Millisecond):
		}
	}
}

// leave compares what everyone was told with what is there.
func (l *load) verify(t *testing.T) {
	t.Helper()
	for n, err := range l.failures {
		if n == 5 {
			t.Errorf("and %d more", len(l.failures)-n)
			break
		}
		t.Error(err)
	}
	rows, err := l.d.admin.Query(withTimeout(t, testLimit), "SELECT id::text, status::text FROM reservations")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	there := map[uuid.UUID]string{}
	for rows.Next() {
		var id uuid.UUID
		var text, status string
		if err := rows.Scan(&text, &status); err != nil {
			t.Fatal(err)
		}
		if id, err = uuid.Parse(text); err != nil {
			t.Fatal(err)
		}
		there[id] = status
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for id, status := range l.told {
		if there[id] != status {
			if wrong++; wrong < 5 {
				t.Errorf("hold %s is %q, its caller was told %s", id, there[id], status)
			}
		}
	}
	if len(there) != len(l.told) {
		t.Errorf("there are %d holds, the callers were told of %d: a key made two, or none", len(there), len(l.told))
	}
	l.d.audit()
}

// crashes is how often the server is killed.
const crashes = 25

// TestAcknowledgedHoldsSurviveACrash kills the server under load again and again.
func TestAcknowledgedHoldsSurviveACrash(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "200"})
	d := deploy(t, db, startInProcess)
	l := newLoad(d)
	r := newRand(3)
	stop := l.start(t, 3)

	count := 0
	var slowest time.Duration
	for start := time.Now(); count < crashes || time.Since(start) < duration(0); count++ {
		l.awaitSuccess(t, time.Now())
		time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond)))) // the moment of a crash is drawn
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(withTimeout(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		took := l.awaitSuccess(t, time.Now())
		slowest = max(slowest, took)
		if took > recoveryLimit {
			t.Errorf("after crash %d the first success took %s, want at most %s", count+1, took, recoveryLimit)
		}
	}
	stop()
	if l.unsure.Load() < crashes {
		t.Errorf("%d calls were cut off by %d crashes", l.unsure.Load(), count)
	}
	t.Logf("%d crashes, %d calls, %d of them unsure, %d holds told of; the first success at most %s after a restart",
		count, l.calls.Load(), l.unsure.Load(), len(l.told), slowest)
}

// TestWithoutTheFlushACrashLosesHolds is the control: early release without its second commit.
func TestWithoutTheFlushACrashLosesHolds(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "200", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	d := deploy(t, db, startInProcess)
	for _, procedure := range []string{"reserve_line", "reserve_cart", "resolve_hold"} {
		mutate(procedure, "_nothing := pg_logical_emit_message(true, 'allo', '');", "NULL;")(d)
	}
	lost := 0
	for try := 0; try < 10 && lost == 0; try++ {
		s, row := newClient(d.url, 1), d.addProduct(1, 1000)[0]
		var told []uuid.UUID
		for range 50 {
			if r := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1}); r.Status == http.StatusCreated {
				told = append(told, r.Reservation.ID)
			}
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(withTimeout(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		d.admin.Reset()
		for _, id := range told {
			if queryValue[int](d, "SELECT count(*) FROM reservations WHERE id = $1", id.String()) == 0 {
				lost++
			}
		}
	}
	if lost == 0 {
		t.Error("no hold was lost: the control shows nothing")
	}
	t.Logf("%d holds lost that their callers were told of", lost)
}
