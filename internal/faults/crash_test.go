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
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// load is a set of callers who each reserve, then confirm, release or leave, one call after the
// other. Every POST has an Idempotency-Key. A caller who gets no certain answer sends the call
// again under the same key until it does. So at the end the answers and the database must agree to
// the last hold, whatever happened meanwhile.
type load struct {
	d         *deployment
	client    client
	rows      []stockRow
	calls     atomic.Int64
	uncertain atomic.Int64 // calls whose effect was uncertain

	mu          sync.Mutex
	told        map[uuid.UUID]string  // the status that callers were last told, by hold
	moved       map[string]lineResult // the movement that callers were told of, by reference
	failures    []error               // answers outside the contract, or too late
	lastSuccess time.Time
}

const loadCallers = 16

func newLoad(d *deployment) *load {
	return &load{
		d: d, client: newClient(d.url, loadCallers), rows: d.addProduct(4, 500_000_000),
		told: map[uuid.UUID]string{}, moved: map[string]lineResult{},
	}
}

// run lets the callers work until the context ends. It returns when each has a certain answer to
// its last call.
func (l *load) run(ctx context.Context, part uint64) {
	runConcurrently(loadCallers, func(n int) {
		r := newRand(part, uint64(n))
		for ctx.Err() == nil {
			l.shopOnce(r)
		}
	})
}

// start lets the callers work in the background. The returned function ends that, and verifies the
// database against the answers.
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

// shopOnce is the visit of one customer, or now and then of a delivery.
func (l *load) shopOnce(r *rand.Rand) {
	row := l.rows[r.IntN(len(l.rows))]
	if r.IntN(5) == 0 {
		l.deliver(row, 1+r.IntN(9))
		return
	}
	items := []item{{row.Product, row.Warehouse, 1 + r.IntN(3)}}
	if r.IntN(4) == 0 {
		items = nil
		for _, row := range l.rows[:2+r.IntN(2)] {
			items = append(items, item{row.Product, row.Warehouse, 1})
		}
	}
	held := l.sendUntilSettled(func(ctx context.Context, key string) reply {
		return l.client.reserve(ctx, key, 0, items...)
	})
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
	resolved := l.sendUntilSettled(func(ctx context.Context, key string) reply {
		return l.client.act(ctx, id, verb, key)
	})
	if resolved.ok() {
		l.record(id, status)
	}
}

// deliver brings units, and then counts the shelf as of the delivery's movement: one unit is
// missing.
func (l *load) deliver(row stockRow, units int) {
	line := documentLine{ProductID: row.Product, WarehouseID: row.Warehouse, Delta: &units}
	delivered, ok := l.move(line)
	if !ok {
		return
	}
	counted := delivered.TotalQuantity - 1
	line.Delta, line.Counted, line.AsOfSeq = nil, &counted, &delivered.Seq
	if found, ok := l.move(line); ok && found.Delta != -1 {
		l.fail(fmt.Errorf("a count that misses one unit changed the total by %d", found.Delta))
	}
}

// move sends a document of one line until its outcome is certain.
func (l *load) move(line documentLine) (lineResult, bool) {
	d := document{Source: loadSource, Lines: []documentLine{line}}
	r := l.sendUntilSettled(func(ctx context.Context, key string) reply {
		d.Reference = key
		return l.client.move(ctx, d)
	})
	if !r.ok() || len(r.Results) != 1 {
		return lineResult{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved[d.Reference] = r.Results[0]
	return r.Results[0], true
}

// loadSource is the source of the load's documents.
const loadSource = "load"

// movementsOf reads the movements of a source's documents of one line, by reference.
func movementsOf(t *testing.T, db *pgtest.Fixture, source string) map[string]lineResult {
	t.Helper()
	rows, err := db.Admin.Query(withTimeout(t, testLimit),
		"SELECT reference, delta, total_after, seq FROM stock_movements WHERE source = $1", source)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]lineResult{}
	var reference string
	var m lineResult
	if _, err := pgx.ForEachRow(rows, []any{&reference, &m.Delta, &m.TotalQuantity, &m.Seq},
		func() error {
			there[reference] = m
			return nil
		}); err != nil {
		t.Fatal(err)
	}
	return there
}

// lostMoves are the movements that callers were told of and that the database doesn't have as told.
func lostMoves(told, there map[string]lineResult) (lost []error) {
	for reference, was := range told {
		was.Outcome = ""
		if there[reference] != was {
			lost = append(lost, fmt.Errorf("the document %s made the movement %+v, its caller was told %+v",
				reference, there[reference], was))
		}
	}
	return lost
}

func (l *load) record(id uuid.UUID, status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[id] = status
}

// sendUntilSettled sends a call until its outcome is certain.
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
			l.uncertain.Add(1)
		}
		if r.Status/100 == 4 && r.Code != "IDEMPOTENCY_KEY_IN_USE" ||
			time.Since(start) > testLimit {
			l.fail(errors.Join(fmt.Errorf("a valid call was answered %d %s", r.Status, r.Body),
				r.Err))
			return r
		}
		time.Sleep(10 * time.Millisecond) // a client waits this long before a retry
	}
}

// checkReply checks an answer against the contract, which holds in every state of the service.
func (l *load) checkReply(r reply) {
	if err := r.documented(); err != nil {
		l.fail(fmt.Errorf("an answer outside the contract: %w", err))
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

// awaitSuccess waits for a call that succeeded after since, and returns how long after since that
// was.
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
			t.Fatalf("no call succeeded within %s of the end of the fault", testLimit)
		case <-time.After(time.Millisecond):
		}
	}
}

// verify compares the answers with the database.
func (l *load) verify(t *testing.T) {
	t.Helper()
	for n, err := range l.failures {
		if n == 5 {
			t.Errorf("and %d more", len(l.failures)-n)
			break
		}
		t.Error(err)
	}
	rows, err := l.d.db.Admin.Query(withTimeout(t, testLimit),
		"SELECT id::text, status::text FROM reservations")
	if err != nil {
		t.Fatal(err)
	}
	there := map[uuid.UUID]string{}
	var id, status string
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		there[uuid.MustParse(id)] = status
		return nil
	}); err != nil {
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
		t.Errorf("the database has %d holds, the callers were told of %d: a key made two holds, "+
			"or none", len(there), len(l.told))
	}
	movements := movementsOf(t, l.d.db, loadSource)
	lost := lostMoves(l.moved, movements)
	for _, err := range lost[:min(5, len(lost))] {
		t.Error(err)
	}
	if len(movements) != len(l.moved) || len(l.moved) == 0 {
		t.Errorf("the database has %d movements, the callers were told of %d", len(movements),
			len(l.moved))
	}
	l.d.audit()
}

// crashes is how often the server is killed; with -short it is shortCrashes.
const crashes, shortCrashes = 25, 4

// TestAcknowledgedHoldsSurviveACrash kills the server under load again and again.
func TestAcknowledgedHoldsSurviveACrash(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "200"})
	d := deploy(t, db, startInProcess)
	l := newLoad(d)
	r := newRand(3)
	stop := l.start(t, 3)

	count, want := 0, crashes
	if testing.Short() {
		want = shortCrashes
	}
	var slowest time.Duration
	for start := time.Now(); count < want || time.Since(start) < duration(0); count++ {
		l.awaitSuccess(t, time.Now())
		time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond)))) // a random moment
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(withTimeout(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		took := l.awaitSuccess(t, time.Now())
		slowest = max(slowest, took)
		if took > recoveryLimit {
			t.Errorf("after crash %d the first success took %s, want at most %s", count+1, took,
				recoveryLimit)
		}
	}
	stop()
	if l.uncertain.Load() < int64(want) {
		t.Errorf("%d calls were cut off by %d crashes", l.uncertain.Load(), count)
	}
	t.Logf("%d crashes, %d calls, %d of them uncertain, %d holds and %d movements acknowledged; "+
		"first success at most %s after a restart",
		count, l.calls.Load(), l.uncertain.Load(), len(l.told), len(l.moved), slowest)
}

// TestWithoutTheFlushACrashLosesHolds is the control: early lock release without the second,
// flushed commit.
func TestWithoutTheFlushACrashLosesHolds(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{
		"max_connections":  "200",
		"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB",
	})
	d := deploy(t, db, startInProcess)
	removeBarrier(d)
	lost, lostMovements := 0, 0
	for try := 0; try < 10 && (lost == 0 || lostMovements == 0); try++ {
		s, row := newClient(d.url, 1), d.addProduct(1, 1000)[0]
		var told []uuid.UUID
		moved := map[string]lineResult{}
		one := 1
		for range 50 {
			delivery := document{
				Source: loadSource, Reference: uuid.NewString(),
				Lines: []documentLine{
					{ProductID: row.Product, WarehouseID: row.Warehouse, Delta: &one},
				},
			}
			if r := s.move(t.Context(), delivery); r.ok() {
				moved[delivery.Reference] = r.Results[0]
			}
			if r := s.reserve(t.Context(), "", 0,
				item{row.Product, row.Warehouse, 1}); r.Status == http.StatusCreated {
				told = append(told, r.Reservation.ID)
			}
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(withTimeout(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		d.db.Admin.Reset()
		for _, id := range told {
			if pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations WHERE id = $1",
				id.String()) == 0 {
				lost++
			}
		}
		lostMovements += len(lostMoves(moved, movementsOf(t, d.db, loadSource)))
	}
	if lost == 0 || lostMovements == 0 {
		t.Error("no hold or no movement was lost: the control proves nothing")
	}
	t.Logf("%d acknowledged holds and %d movements were lost", lost, lostMovements)
}
