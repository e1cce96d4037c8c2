package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

// load is a set of callers who each reserve, then confirm, pay, release or leave, one call after
// another. Every POST has an Idempotency-Key. A caller who gets no certain answer sends the call
// again under the same key until it does. So at the end the answers and the database must agree to
// the last hold, whatever happened meanwhile.
type load struct {
	d         *deployment
	client    client
	callers   int
	rows      []stockRow
	calls     atomic.Int64
	uncertain atomic.Int64 // calls whose effect was uncertain

	mu          sync.Mutex
	told        map[uuid.UUID]string  // the status that callers were last told, by hold
	moved       map[string]lineResult // the movement that callers were told of, by reference
	paid        map[payment]string    // what callers were told of a payment
	failures    []error               // answers outside the contract, or too late
	lastSuccess time.Time
}

// payment is a payment of a hold, by its reference.
type payment struct {
	hold      uuid.UUID
	reference string
}

const loadCallers = 16

func newLoad(d *deployment) *load { return newLoadOf(d, loadCallers) }

// newLoadOf is newLoad with another number of callers.
func newLoadOf(d *deployment, callers int) *load {
	return &load{
		d: d, client: newClient(d.url, callers), callers: callers,
		rows: d.addProduct(4, 500_000_000),
		told: map[uuid.UUID]string{}, moved: map[string]lineResult{}, paid: map[payment]string{},
	}
}

// run lets the callers work until the context ends. It returns when each has a certain answer to
// its last call.
func (l *load) run(ctx context.Context, part uint64) {
	runConcurrently(l.callers, func(n int) {
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
	switch r.IntN(5) {
	case 0:
		verb, status = "release", "RELEASED"
	case 1:
		return
	case 2, 3:
		l.payFor(id, items, r)
		return
	}
	resolved := l.sendUntilSettled(func(ctx context.Context, key string) reply {
		return l.client.act(ctx, id, verb, key)
	})
	if resolved.ok() {
		l.record(id, status)
	}
}

// payFor lets two payments come for a hold. They come in time, or when the hold was released, or
// when another hold took its place. Then the first must be kept, or both must be refunded.
func (l *load) payFor(id uuid.UUID, items []item, r *rand.Rand) {
	switch r.IntN(3) {
	case 0:
		l.sendUntilSettled(func(ctx context.Context, key string) reply {
			return l.client.pay(ctx, id, key, paymentNames[0], 600)
		})
	case 1:
		l.sendUntilSettled(func(ctx context.Context, key string) reply {
			return l.client.act(ctx, id, "release", key)
		})
		l.record(id, "RELEASED")
	default:
		made := l.sendUntilSettled(func(ctx context.Context, key string) reply {
			return l.client.order(ctx, key, reserveBody{Items: items, Replaces: &id})
		})
		l.record(id, "RELEASED")
		if made.Reservation != nil {
			l.record(made.Reservation.ID, "PENDING")
		}
	}
	for _, name := range paymentNames {
		l.settle(payment{id, name})
	}
}

// settle sends a payment until its outcome is certain, and then again: the answer must be the same.
func (l *load) settle(p payment) {
	send := func(ctx context.Context, key string) reply {
		return l.client.confirm(ctx, p.hold, key, p.reference, true)
	}
	final := []string{"ALREADY_PAID", "PAYMENT_LOST"}
	r := l.sendUntilSettled(send, final...)
	told := saidOf(r)
	if again := saidOf(l.sendUntilSettled(send, final...)); again != told {
		l.fail(fmt.Errorf("payment %v was answered %s, and then %s", p, told, again))
	}
	if r.ok() {
		l.record(r.Reservation.ID, "CONFIRMED")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paid[p] = told
}

// saidOf is what an answer says of a payment: the hold that it has paid, or the payment that was
// first.
func saidOf(r reply) string {
	switch {
	case r.ok() && r.Reservation != nil:
		return r.Outcome + " " + r.Reservation.ID.String()
	case r.PaymentReference != nil:
		return r.Code + " " + *r.PaymentReference
	default:
		return r.Code
	}
}

// verifyPayments compares what callers were told of payments with the database, and with the answer
// to each payment that comes again.
func (l *load) verifyPayments(t *testing.T) {
	t.Helper()
	kept := 0
	for p, told := range l.paid {
		if again := saidOf(l.client.confirm(t.Context(), p.hold, "", p.reference, true)); again != told {
			t.Errorf("payment %v was answered %s, and in the end %s", p, told, again)
		}
		if strings.HasPrefix(told, "CONFIRMED ") || strings.HasPrefix(told, "REACQUIRED ") {
			kept++
		}
	}
	const keptSQL = `
SELECT count(*) FROM hold_payments p
WHERE p.outcome = 'REACQUIRED' OR p.outcome = 'CONFIRMED' AND NOT EXISTS (
      SELECT FROM hold_payments r WHERE r.successor = p.hold_id)`
	if n := pgtest.QueryOne[int](l.d.db, keptSQL); n != kept || kept == 0 {
		t.Errorf("%d payments paid for a hold, %d callers were told so", n, kept)
	}
	const soldSQL = `
SELECT (SELECT coalesce(sum(quantity), 0) FROM reservations WHERE status = 'CONFIRMED')
     + (SELECT coalesce(sum(delta), 0) FROM stock_movements WHERE kind = 'SALE')`
	if n := pgtest.QueryOne[int](l.d.db, soldSQL); n != 0 {
		t.Errorf("the confirmed holds have %d units more than were sold", n)
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

// sendUntilSettled sends a call until its outcome is certain: a success, or a refusal with one of
// these codes.
func (l *load) sendUntilSettled(
	send func(ctx context.Context, key string) reply, refusals ...string,
) reply {
	key := uuid.NewString()
	for start := time.Now(); ; {
		r := send(context.Background(), key)
		l.calls.Add(1)
		l.checkReply(r)
		if r.ok() || r.Err == nil && slices.Contains(refusals, r.Code) {
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
	l.verifyPayments(t)
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
	t.Logf("%d crashes, %d calls, %d of them uncertain, %d holds, %d movements and %d payments "+
		"acknowledged; first success at most %s after a restart",
		count, l.calls.Load(), l.uncertain.Load(), len(l.told), len(l.moved), len(l.paid), slowest)
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
	lost, lostMovements, lostPayments := 0, 0, 0
	for try := 0; try < 10 && (lost == 0 || lostMovements == 0 || lostPayments == 0); try++ {
		s, row := newClient(d.url, 1), d.addProduct(1, 1000)[0]
		var told, refunded []uuid.UUID
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
			if id, ok := losePayment(t, s, row); ok {
				refunded = append(refunded, id)
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
		for _, id := range refunded {
			lostPayments += 1 - pgtest.QueryOne[int](d.db,
				"SELECT count(*) FROM hold_payments WHERE hold_id = $1 AND outcome = 'LOST'", id.String())
		}
		lostMovements += len(lostMoves(moved, movementsOf(t, d.db, loadSource)))
	}
	if lost == 0 || lostMovements == 0 || lostPayments == 0 {
		t.Errorf("%d holds, %d movements and %d refunds were forgotten: the control proves nothing", lost,
			lostMovements, lostPayments)
	}
	t.Logf("%d acknowledged holds, %d movements and %d refunds were forgotten", lost, lostMovements,
		lostPayments)
}

// losePayment makes a payment that is lost, because another hold took the place of its own. It
// returns the hold that the payment came for.
func losePayment(t *testing.T, s client, row stockRow) (uuid.UUID, bool) {
	t.Helper()
	one := item{row.Product, row.Warehouse, 1}
	held := s.reserve(t.Context(), "", 0, one)
	if held.Reservation == nil {
		return uuid.Nil, false
	}
	id := held.Reservation.ID
	s.order(t.Context(), "", reserveBody{Items: []item{one}, Replaces: &id})
	r := s.confirm(t.Context(), id, "", paymentNames[0], true)
	return id, r.Code == "PAYMENT_LOST"
}
