package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	// testTimeout bounds every wait. A test that reaches it has failed.
	testTimeout = time.Minute

	holdTTL = 10 * time.Minute
	maxHold = time.Hour

	// ownConnections is the size of a fixture's own pool.
	ownConnections = 3

	// maxConnections bounds the connections of all running tests together. The server allows 500.
	maxConnections = 250
)

// connections counts the connections of all running tests. A test acquires all of its connections
// at once, so that two tests can't wait for each other.
var connections = semaphore.NewWeighted(maxConnections)

// fixture is a test's database and its callers. Each caller has a pool of one connection, like a
// Lambda.
type fixture struct {
	*pgtest.Fixture
	t       testing.TB
	own     *postgres.Pool // leads to the server itself; for the set-up and the audit
	callers []*postgres.Pool
}

// newFixture makes a fixture whose callers wait for a lock for as long as the test may. A slow
// machine takes longer than the role's limits for what a test does meanwhile.
func newFixture(t testing.TB, callers int) *fixture {
	t.Helper()
	f := newFixtureWithLimits(t, callers)
	f.Patient()
	return f
}

// newFixtureWithLimits makes a fixture whose callers have the role's limits, for a test of these.
func newFixtureWithLimits(t testing.TB, callers int) *fixture {
	t.Helper()
	n := int64(callers + ownConnections + pgtest.FixtureConnections)
	if err := connections.Acquire(t.Context(), n); err != nil {
		t.Fatalf("wait for connections: %v", err)
	}
	t.Cleanup(func() { connections.Release(n) })
	return open(t, pgtest.New(t), callers)
}

// open makes a fixture of a database on any server.
func open(t testing.TB, db pgtest.Database, callers int) *fixture {
	t.Helper()
	f := &fixture{
		Fixture: pgtest.NewFixture(t, db),
		t:       t,
		own:     openPool(t, db.DirectURL, ownConnections),
	}
	for range callers {
		f.callers = append(f.callers, openPool(t, db.URL, 1))
	}
	return f
}

func openPool(t testing.TB, url string, size int, options ...postgres.Option) *postgres.Pool {
	t.Helper()
	pool, err := postgres.Open(postgres.URL(url), size, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// asReader makes a reader of the fixture's server, however far it is behind.
func (f *fixture) asReader() *postgres.Reader {
	f.t.Helper()
	reader := openReader(f.t, f.DirectURL)
	if err := reader.Connect(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return reader
}

func openReader(t testing.TB, url string) *postgres.Reader {
	t.Helper()
	reader, err := postgres.OpenReader(postgres.URL(url), ownConnections,
		postgres.ReaderOptions{MaxLag: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	return reader
}

// services makes a Service for each caller.
func (f *fixture) services() []*reservation.Service {
	services := make([]*reservation.Service, len(f.callers))
	for i, pool := range f.callers {
		services[i] = newService(pool)
	}
	return services
}

func newService(pool *postgres.Pool) *reservation.Service {
	return reservation.New(pool, reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold})
}

// queryOne reads one value.
func queryOne[T any](f *fixture, sql string, args ...any) T {
	f.t.Helper()
	return pgtest.QueryOne[T](f.Fixture, sql, args...)
}

// stock makes a stock row of a new product in a new warehouse. It returns a line for one unit.
func (f *fixture) stock(total int) reservation.Line {
	f.t.Helper()
	return f.elsewhere(reservation.Line{ProductID: f.Product(), Quantity: 1}, total)
}

// stocks makes several stock rows, in their lock order.
func (f *fixture) stocks(totals ...int) []reservation.Line {
	f.t.Helper()
	var lines []reservation.Line
	for range totals {
		lines = append(lines, f.stock(0))
	}
	lines = reservation.MergeLines(lines)
	for i, total := range totals {
		if total != 0 {
			f.Exec("SELECT adjust_stock($1, $2, $3, 'test')", lines[i].ProductID.String(),
				lines[i].WarehouseID.String(), total)
		}
	}
	return lines
}

// elsewhere makes a stock row of the line's product in a new warehouse.
func (f *fixture) elsewhere(line reservation.Line, total int) reservation.Line {
	f.t.Helper()
	line.WarehouseID = f.Warehouse()
	f.Stock(line.ProductID, line.WarehouseID, total)
	f.Exec("UPDATE inventory SET first_end = 'infinity' WHERE product_id = $1 AND warehouse_id = $2",
		line.ProductID.String(), line.WarehouseID.String()) // as for a row that the API makes
	return line
}

// of returns the line with another quantity.
func of(line reservation.Line, quantity int) reservation.Line {
	line.Quantity = quantity
	return line
}

type counts = pgtest.Counts

func (f *fixture) counts(line reservation.Line) counts {
	f.t.Helper()
	return f.Counts(line.ProductID, line.WarehouseID)
}

// hold reserves the lines, over the fixture's own pool. It ends the test when it fails.
func (f *fixture) hold(lines ...reservation.Line) reservation.Hold {
	f.t.Helper()
	answer, err := newService(f.own).Reserve(f.Context(), reservation.Request{Lines: lines})
	if err != nil {
		f.t.Fatalf("Reserve(%+v) = %v", lines, err)
	}
	return answer.Hold
}

// kill moves the holds' times into the past. A test can't change the database's clock.
func (f *fixture) kill(holds ...reservation.Hold) {
	f.t.Helper()
	for _, h := range holds {
		f.Kill(h.ID)
	}
}

func (f *fixture) status(h reservation.Hold) reservation.Status {
	f.t.Helper()
	return reservation.Status(f.Status(h.ID))
}

// mutate replaces a part of a routine's source. Negative controls use it to remove a guard.
func (f *fixture) mutate(function, old, replacement string) {
	f.t.Helper()
	pgtest.Mutate(f.t, f.Database, function, old, replacement)
}

// together runs n calls of fn at the same moment, each in a goroutine of its own, and waits for
// them.
func together(n int, fn func(i int)) {
	var ready, done sync.WaitGroup
	gate := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-gate
			fn(i)
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
}

// report collects the violations of a race. A race must report none on the real statements, and at
// least one on the statements of its negative control.
type report struct {
	mu    sync.Mutex
	found []reservation.Violation
}

// check reports a broken promise unless ok is true.
func (r *report) check(ok bool, promise, format string, args ...any) {
	if ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found,
		reservation.Violation{Promise: promise, Detail: fmt.Sprintf(format, args...)})
}

// anyBroken reports whether a promise is broken already. A long race then ends early.
func (r *report) anyBroken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.found) > 0
}

// deadlock stands for a promise in a report: no two calls deadlock.
const deadlock = "deadlock"

// broken lists the broken promises.
func (r *report) broken() []string {
	var names []string
	for _, v := range r.found {
		names = append(names, v.Promise)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *report) String() string {
	var b strings.Builder
	for i, v := range r.found {
		if i == 8 {
			fmt.Fprintf(&b, "\n... and %d more", len(r.found)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s: %s", v.Promise, v.Detail)
	}
	return b.String()
}

// race sets up stock and holds, lets the callers compete for them, and reports broken promises.
type race func(ctx context.Context, f *fixture, r *report)

// run runs a race and then checks that there was no deadlock and that Audit finds no violation.
func (f *fixture) run(body race) *report {
	f.t.Helper()
	ctx := f.Context()
	before := f.deadlocks(ctx)
	var r report
	body(ctx, f, &r)
	r.check(f.deadlocks(ctx) == before, deadlock, "pg_stat_database counts %d more deadlocks",
		f.deadlocks(ctx)-before)
	violations, err := newService(f.own).Audit(ctx)
	if err != nil {
		f.t.Fatalf("Audit() = %v", err)
	}
	r.found = append(r.found, violations...)
	return &r
}

// nothing is a race without callers: run then only audits.
func nothing(context.Context, *fixture, *report) {}

// deadlocks returns how many deadlocks the server has counted in this database. Backends report
// their counts from time to time, so it first makes each backend report. A pooler may hide some
// backends. There the services' count of retries must show the deadlocks.
func (f *fixture) deadlocks(ctx context.Context) int {
	const flush = "SELECT pg_stat_force_next_flush()"
	for _, pool := range append(slices.Clone(f.callers), f.own) {
		if err := pool.Exec(ctx, flush); err != nil {
			f.t.Errorf("flush a backend's counts: %v", err)
		}
	}
	if _, err := f.Admin.Exec(ctx, flush); err != nil {
		f.t.Errorf("flush a backend's counts: %v", err)
	}
	return queryOne[int](f,
		"SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

// mustHold runs a race on a fixture of its own and fails the test when a promise breaks.
func mustHold(t *testing.T, callers int, body race) {
	t.Helper()
	newFixture(t, callers).mustHold(body)
}

func (f *fixture) mustHold(body race) {
	f.t.Helper()
	r := f.run(body)
	if len(r.found) != 0 {
		f.t.Errorf("the race broke %v:%s", r.broken(), r)
	}
	if slices.Contains(r.broken(), deadlock) {
		f.t.Logf("the server's log says of the deadlocks:\n%.20000s",
			pgtest.Deadlocks(f.t, f.Database))
	}
}

// controlRounds is how often a negative control runs its race before it fails.
const controlRounds = 40

// mustBreak is a negative control. It removes a guard with mutate, on a fixture of its own, and
// runs the race until the promise breaks. It fails the test when the promise never breaks, because
// a race that can't fail proves nothing.
func mustBreak(t *testing.T, callers int, promise string, mutate func(f *fixture), body race) {
	t.Helper()
	f := newFixture(t, callers)
	mutate(f)
	f.mustBreak(promise, body)
}

func (f *fixture) mustBreak(promise string, body race) {
	f.t.Helper()
	var others []string
	for n := range controlRounds {
		r := f.run(body)
		if slices.Contains(r.broken(), promise) {
			first := slices.IndexFunc(r.found,
				func(v reservation.Violation) bool { return v.Promise == promise })
			f.t.Logf("broken in round %d, as expected: %.300s", n+1, r.found[first].Detail)
			return
		}
		others = r.broken()
	}
	f.t.Errorf("without the guard the race broke %v in %d rounds, want %s among them", others,
		controlRounds, promise)
}

// waitingSQL reports whether at least $1 sessions of this database wait for a lock.
const waitingSQL = `
SELECT count(*) >= $1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`

// terminateSQL ends the session that waits for a lock in this database. It reports whether there
// was one.
const terminateSQL = `
SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`

func isShort(err error) bool {
	var short *reservation.InsufficientStockError
	return errors.As(err, &short)
}
