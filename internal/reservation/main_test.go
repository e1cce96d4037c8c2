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

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"github.com/allo/reservations/internal/dsn"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	// testTimeout bounds every wait of a test; one that meets it has failed.
	testTimeout = time.Minute

	holdTTL = 10 * time.Minute
	maxHold = time.Hour

	// adminConnections are in each of a world's own two pools, straight to the server.
	adminConnections = 3

	// maxConnections keeps the tests that run beside one another, as many as the machine has cores, below what the server takes.
	maxConnections = 250
)

// connections are shared out among the tests, each of which takes all of its own at once, in the order in which they ask.
var connections = semaphore.NewWeighted(maxConnections)

// world is one test's database, and the callers that meet in it. Each has a pool of a single connection, as a Lambda has.
type world struct {
	t     testing.TB
	db    pgtest.Database
	admin *pgxpool.Pool  // straight to the server, for set-up, mutations and looking
	own   *postgres.Pool // the same for a service of the world's own
	pools []*postgres.Pool
	early bool
}

func newWorld(t testing.TB, callers int) *world {
	t.Helper()
	n := int64(callers + 2*adminConnections)
	if err := connections.Acquire(t.Context(), n); err != nil {
		t.Fatalf("wait for connections: %v", err)
	}
	t.Cleanup(func() { connections.Release(n) })
	return open(t, pgtest.New(t), callers)
}

// open makes a world of a database that may be on any server.
func open(t testing.TB, db pgtest.Database, callers int) *world {
	t.Helper()
	w := &world{t: t, db: db, admin: openAdmin(t, db.DirectURL), own: openPool(t, db.DirectURL, adminConnections), early: true}
	for range callers {
		w.pools = append(w.pools, openPool(t, db.URL, 1))
	}
	return w
}

// openAdmin makes a pool with all that pgx can do, for the tests' own statements.
func openAdmin(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = adminConnections
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // functions are redefined under its connections
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openPool(t testing.TB, url string, size int, options ...postgres.Option) *postgres.Pool {
	t.Helper()
	pool, err := postgres.Open(dsn.URL(url), size, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// withoutPooler skips a test that cancels statements when they would go through a pooler: PgBouncer 1.18, which is Debian's, may end
// itself over the request to cancel (its issue 801), and every other test with it.
func withoutPooler(t *testing.T) {
	t.Helper()
	if db := pgtest.New(t); db.URL != db.DirectURL {
		t.Skip("PgBouncer 1.18 may crash over a cancelled statement")
	}
}

// services makes one service for each caller.
func (w *world) services() []*reservation.Service {
	services := make([]*reservation.Service, len(w.pools))
	for i, pool := range w.pools {
		services[i] = w.service(pool)
	}
	return services
}

func (w *world) service(pool *postgres.Pool) *reservation.Service {
	return reservation.New(pool, reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, EarlyRelease: w.early})
}

func (w *world) context() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), testTimeout)
	w.t.Cleanup(cancel)
	return ctx
}

// exec runs a statement of the set-up. Like all that calls Fatal it belongs to the test's own goroutine.
func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.admin.Exec(w.context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// ask reads one value.
func ask[T any](w *world, sql string, args ...any) T {
	w.t.Helper()
	var answer T
	if err := w.admin.QueryRow(w.context(), sql, args...).Scan(&answer); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// stock makes a new stock row and returns a line for one unit of it.
func (w *world) stock(total int) reservation.Line {
	w.t.Helper()
	line := reservation.Line{ProductID: uuid.New(), WarehouseID: uuid.New(), Quantity: 1}
	p, h := line.ProductID.String(), line.WarehouseID.String()
	w.exec("INSERT INTO products (id, name, sku) VALUES ($1, $2, $2)", p, "product "+p)
	w.exec("INSERT INTO warehouses (id, name) VALUES ($1, $2)", h, "warehouse "+h)
	w.exec("INSERT INTO inventory (product_id, warehouse_id, total) VALUES ($1, $2, $3)", p, h, total)
	return line
}

// stocks makes several stock rows, in their lock order.
func (w *world) stocks(totals ...int) []reservation.Line {
	w.t.Helper()
	var lines []reservation.Line
	for range totals {
		lines = append(lines, w.stock(0))
	}
	lines = reservation.MergeLines(lines)
	for i, total := range totals {
		if total != 0 {
			w.exec("SELECT adjust_stock($1, $2, $3, 'test')", lines[i].ProductID.String(), lines[i].WarehouseID.String(), total)
		}
	}
	return lines
}

// elsewhere makes a stock row of the same product in another warehouse.
func (w *world) elsewhere(line reservation.Line, total int) reservation.Line {
	w.t.Helper()
	line.WarehouseID = uuid.New()
	h := line.WarehouseID.String()
	w.exec("INSERT INTO warehouses (id, name) VALUES ($1, $2)", h, "warehouse "+h)
	w.exec("INSERT INTO inventory (product_id, warehouse_id, total) VALUES ($1, $2, $3)", line.ProductID.String(), h, total)
	return line
}

// of returns the line with another quantity.
func of(line reservation.Line, quantity int) reservation.Line {
	line.Quantity = quantity
	return line
}

// counts is what a stock row says.
type counts struct{ Total, Reserved int }

func (w *world) counts(line reservation.Line) counts {
	w.t.Helper()
	var c counts
	const sql = "SELECT total, reserved FROM inventory WHERE product_id = $1 AND warehouse_id = $2"
	err := w.admin.QueryRow(w.context(), sql, line.ProductID.String(), line.WarehouseID.String()).Scan(&c.Total, &c.Reserved)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return c
}

// hold reserves in the set-up, where nothing may go wrong.
func (w *world) hold(lines ...reservation.Line) reservation.Hold {
	w.t.Helper()
	answer, err := w.service(w.own).Reserve(w.context(), reservation.Request{Lines: lines})
	if err != nil {
		w.t.Fatalf("Reserve(%+v) = %v", lines, err)
	}
	return answer.Hold
}

const killSQL = `
WITH dead AS (
    UPDATE reservations
    SET created_at = clock_timestamp() - interval '1 h', updated_at = clock_timestamp() - interval '1 h',
        expires_at = clock_timestamp() - interval '1 s'
    WHERE id = $1 AND status = 'PENDING'
    RETURNING id, expires_at
), lines AS (
    UPDATE reservation_items l SET expires_at = dead.expires_at FROM dead WHERE l.reservation_id = dead.id
)
SELECT count(*) FROM dead`

// kill lets a hold's time have passed. Moving the row's times back is the one clock a test may turn.
func (w *world) kill(holds ...reservation.Hold) {
	w.t.Helper()
	for _, h := range holds {
		if n := ask[int](w, killSQL, h.ID.String()); n != 1 {
			w.t.Fatalf("hold %s is not there to be killed", h.ID)
		}
	}
}

func (w *world) status(h reservation.Hold) reservation.Status {
	w.t.Helper()
	return ask[reservation.Status](w, "SELECT status::text FROM reservations WHERE id = $1", h.ID.String())
}

// mutate takes old out of a function's source and puts replacement in, so that a control shows what old was for.
func (w *world) mutate(function, old, replacement string) {
	w.t.Helper()
	pgtest.Mutate(w.t, w.db, function, old, replacement)
}

// together runs fn n times at once: all wait until the last is ready.
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

// report gathers what a race broke. The same race that must report nothing on the real statements must report something on
// those of its negative control.
type report struct {
	mu    sync.Mutex
	found []reservation.Violation
}

// check reports a broken promise unless ok.
func (r *report) check(ok bool, promise, format string, args ...any) {
	if ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, reservation.Violation{Promise: promise, Detail: fmt.Sprintf(format, args...)})
}

// spoiled says whether something broke already. A race whose callers wait for one another at length ends then.
func (r *report) spoiled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.found) > 0
}

// deadlock is reported in place of a promise's number when calls waited for one another in a circle.
const deadlock = "deadlock"

// broken lists the promises that were.
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

// race is one contest: it sets up what is fought for, lets the callers loose, and reports what broke.
type race func(ctx context.Context, w *world, r *report)

// run holds a race and lets Audit have the last word. No race may ever deadlock.
func (w *world) run(body race) *report {
	w.t.Helper()
	ctx := w.context()
	before := w.deadlocks(ctx)
	var r report
	body(ctx, w, &r)
	r.check(w.deadlocks(ctx) == before, deadlock, "pg_stat_database counts %d deadlocks more", w.deadlocks(ctx)-before)
	violations, err := w.service(w.own).Audit(ctx)
	if err != nil {
		w.t.Fatalf("Audit() = %v", err)
	}
	r.found = append(r.found, violations...)
	return &r
}

// deadlocks is how many the server has seen in this database. Backends report what they count now and then, so each is told to.
// Through a pooler not all of them can be told; there the services' count of retries stands alone.
func (w *world) deadlocks(ctx context.Context) int {
	const flush = "SELECT pg_stat_force_next_flush()"
	for _, pool := range append(slices.Clone(w.pools), w.own) {
		if _, err := pool.Query(ctx, flush); err != nil {
			w.t.Errorf("flush a backend's counts: %v", err)
		}
	}
	if _, err := w.admin.Exec(ctx, flush); err != nil {
		w.t.Errorf("flush a backend's counts: %v", err)
	}
	return ask[int](w, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

// eachMode holds a race with early release and without, one after the other, as they share the callers' connections.
func eachMode(t *testing.T, callers int, body race) {
	t.Helper()
	w := newWorld(t, callers)
	for _, early := range []bool{true, false} {
		t.Run(modeName(early), func(t *testing.T) {
			mode := *w
			mode.t, mode.early = t, early
			if r := mode.run(body); len(r.found) != 0 {
				t.Errorf("the race broke %v:%s", r.broken(), r)
			}
		})
	}
}

func modeName(early bool) string {
	if early {
		return "early release"
	}
	return "plain"
}

// biteRounds bounds how often a control tries to break what the guard no longer holds.
const biteRounds = 40

// mustBreak is a negative control: it takes a guard away and holds the race until the promise breaks. A race that can't fail
// proves nothing.
func mustBreak(t *testing.T, callers int, promise string, mutate func(w *world), body race) {
	t.Helper()
	w := newWorld(t, callers)
	mutate(w)
	var others []string
	for range biteRounds {
		r := w.run(body)
		if slices.Contains(r.broken(), promise) {
			first := slices.IndexFunc(r.found, func(v reservation.Violation) bool { return v.Promise == promise })
			t.Logf("broken, as it must be: %.300s", r.found[first].Detail)
			return
		}
		others = r.broken()
	}
	t.Errorf("without the guard the race broke %v in %d rounds, want %s among them", others, biteRounds, promise)
}

// await asks until the answer is yes. The question paces it.
func await(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) error {
	for {
		var yes bool
		if err := pool.QueryRow(ctx, sql, args...).Scan(&yes); err != nil {
			return fmt.Errorf("wait for %s: %w", sql, err)
		}
		if yes {
			return nil
		}
	}
}

// waitingSQL says whether somebody in this database waits for a lock.
const waitingSQL = `
SELECT count(*) >= $1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

// terminateSQL ends the backend of whoever waits for a lock in this database, and says whether there was one.
const terminateSQL = `
SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

func isShort(err error) bool {
	var short *reservation.InsufficientStockError
	return errors.As(err, &short)
}
