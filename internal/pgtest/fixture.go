package pgtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// FixtureConnections is how many connections a Fixture has at most, unless NewFixtureOfSize made
// it.
const FixtureConnections = 3

// fixtureName is the application_name of a Fixture's sessions.
const fixtureName = "fixture"

// fixtureTimeout bounds a statement of a Fixture and a wait. A test that meets it has failed.
const fixtureTimeout = time.Minute

// Fixture fills a test's database and looks into it, over connections straight to the server. Its
// methods end the test when a statement fails, so call them from the test's own goroutine.
type Fixture struct {
	Database
	// Admin is for statements that the methods don't cover. It prepares none, so that a test may
	// redefine a function at any time.
	Admin *pgxpool.Pool
	t     testing.TB
}

// NewFixture makes a Fixture of a database, of which only the DirectURL matters. It connects when
// it is first used.
func NewFixture(t testing.TB, db Database) *Fixture {
	t.Helper()
	return NewFixtureOfSize(t, db, FixtureConnections)
}

// NewFixtureOfSize makes a Fixture with at most this many connections, for a test whose goroutines
// hold several at once.
func NewFixtureOfSize(t testing.TB, db Database, connections int32) *Fixture {
	t.Helper()
	config, err := pgxpool.ParseConfig(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = connections
	config.ConnConfig.RuntimeParams["application_name"] = fixtureName
	for _, limit := range limits() {
		config.ConnConfig.RuntimeParams[limit] = patience()
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	admin, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return &Fixture{Database: db, Admin: admin, t: t}
}

// limits are the settings that end a session's statement, wait or transaction. The role's values
// are for the service. A Fixture prepares tests and waits for others, which takes a slow machine
// longer.
func limits() []string {
	return []string{"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"}
}

// patience is fixtureTimeout as Postgres reads it, in milliseconds.
func patience() string { return strconv.FormatInt(fixtureTimeout.Milliseconds(), 10) }

// Patient lets the service's sessions wait for as long as a Fixture's. It is for a test that acts
// while they wait. Call it before the sessions are opened.
func (f *Fixture) Patient() {
	f.t.Helper()
	var settings strings.Builder
	for _, limit := range limits() {
		fmt.Fprintf(&settings, "ALTER ROLE CURRENT_USER IN DATABASE %s SET %s = %s;\n",
			pgx.Identifier{f.Name}.Sanitize(), limit, patience())
	}
	f.Exec("DO $$ BEGIN " + settings.String() + "END $$")
}

// Context returns a context that ends with the test, or after a minute.
func (f *Fixture) Context() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), fixtureTimeout)
	f.t.Cleanup(cancel)
	return ctx
}

// Exec runs a statement.
func (f *Fixture) Exec(sql string, args ...any) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), fixtureTimeout)
	defer cancel()
	if _, err := f.Admin.Exec(ctx, sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// QueryOne reads one value.
func QueryOne[T any](f *Fixture, sql string, args ...any) T {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), fixtureTimeout)
	defer cancel()
	var value T
	if err := f.Admin.QueryRow(ctx, sql, args...).Scan(&value); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// Lock runs a statement that locks something, in a transaction that stays open until unlock is
// called or the test ends.
func (f *Fixture) Lock(sql string, args ...any) (unlock func()) {
	f.t.Helper()
	tx, err := f.Admin.Begin(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	unlock = func() { _ = tx.Rollback(context.Background()) } // a second time it does nothing
	f.t.Cleanup(unlock)
	if _, err := tx.Exec(f.Context(), sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return unlock
}

// WaitUntil runs a query until its one value is true. The query paces the loop.
func (f *Fixture) WaitUntil(sql string, args ...any) {
	f.t.Helper()
	if err := Wait(f.Context(), f.Admin, sql, args...); err != nil {
		f.t.Fatal(err)
	}
}

// WaitForBlocked waits until at least n sessions of the database wait for a lock.
func (f *Fixture) WaitForBlocked(n int) {
	f.t.Helper()
	f.WaitUntil(`
SELECT count(*) >= $1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`, n)
}

// UntilItStalls makes a call, whose caller gives up once a session waits for a standby. It returns
// the call's error, when no session waits any more. The server must be the test's own.
func (f *Fixture) UntilItStalls(call func(context.Context) error) error {
	f.t.Helper()
	const stalled = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	ctx, giveUp := context.WithCancel(f.Context())
	defer giveUp()
	result := make(chan error, 1)
	go func() { result <- call(ctx) }()
	for {
		select {
		case err := <-result:
			// A request to cancel may get lost on a slow machine.
			f.WaitUntil("SELECT count(pg_cancel_backend(pid)) = 0 " + stalled)
			return err
		default: // the query paces the loop, and the call ends it
			if QueryOne[bool](f, "SELECT count(*) > 0 "+stalled) {
				giveUp()
			}
		}
	}
}

// Promote makes a standby a writer, and waits until it is one.
func (f *Fixture) Promote() {
	f.t.Helper()
	f.Exec("SELECT pg_promote(false)")
	f.WaitUntil("SELECT NOT pg_is_in_recovery()")
}

// EndSessions ends every session of the database except the Fixture's own, as a failover does, and
// waits until they are gone. Sessions report their statistics by then.
func (f *Fixture) EndSessions() {
	f.t.Helper()
	const others = `
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1`
	f.Exec("SELECT pg_terminate_backend(pid)"+others, fixtureName)
	f.WaitUntil("SELECT count(*) = 0"+others, fixtureName)
}

// StopLogWriter stops the process that writes out what commits that don't wait have logged, until
// the server is killed: a crash then loses them. Otherwise the process writes each page of the log
// that is full, however long its delay is. The server must be the test's own.
func (f *Fixture) StopLogWriter() {
	f.t.Helper()
	const writers = "FROM pg_stat_activity WHERE backend_type = 'walwriter'"
	f.WaitUntil("SELECT count(*) > 0 " + writers)
	process, err := os.FindProcess(QueryOne[int](f, "SELECT pid "+writers))
	if err == nil {
		err = process.Signal(syscall.SIGSTOP)
	}
	if err != nil {
		f.t.Fatalf("stop the log writer: %v", err)
	}
}

// Product makes a product and returns its id. The id makes its name and its SKU unique.
func (f *Fixture) Product() uuid.UUID {
	f.t.Helper()
	unique := uuid.NewString()
	return f.NamedProduct("product "+unique, unique)
}

// NamedProduct makes a product with a name and an SKU, and returns its id.
func (f *Fixture) NamedProduct(name, sku string) uuid.UUID {
	f.t.Helper()
	id := uuid.New()
	f.Exec("INSERT INTO products (id, name, sku) VALUES ($1, $2, $3)", id.String(), name, sku)
	return id
}

// Warehouse makes a warehouse with a unique name and returns its id.
func (f *Fixture) Warehouse() uuid.UUID {
	f.t.Helper()
	return f.NamedWarehouse("warehouse " + uuid.NewString())
}

// NamedWarehouse makes a warehouse with a name and a unique code, and returns its id.
func (f *Fixture) NamedWarehouse(name string) uuid.UUID {
	f.t.Helper()
	return f.CodedWarehouse("W-"+uuid.NewString(), name)
}

// CodedWarehouse makes a warehouse with a code and a name, and returns its id.
func (f *Fixture) CodedWarehouse(code, name string) uuid.UUID {
	f.t.Helper()
	id := uuid.New()
	f.Exec("INSERT INTO warehouses (id, code, name) VALUES ($1, $2, $3)", id.String(), code, name)
	return id
}

// Stock makes a stock row of total units.
func (f *Fixture) Stock(product, warehouse uuid.UUID, total int) {
	f.t.Helper()
	f.Exec("INSERT INTO inventory (product_id, warehouse_id, total) VALUES ($1, $2, $3)",
		product.String(), warehouse.String(), total)
}

// Counts are the numbers of a stock row.
type Counts struct{ Total, Reserved int }

// Counts reads a stock row.
func (f *Fixture) Counts(product, warehouse uuid.UUID) Counts {
	f.t.Helper()
	const sql = "SELECT total, reserved FROM inventory WHERE product_id = $1 AND warehouse_id = $2"
	var c Counts
	err := f.Admin.QueryRow(f.Context(), sql, product.String(), warehouse.String()).Scan(&c.Total,
		&c.Reserved)
	if err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return c
}

// Status reads the status that is written down for a hold. A dead hold may still be PENDING.
func (f *Fixture) Status(hold uuid.UUID) string {
	f.t.Helper()
	return QueryOne[string](f, "SELECT status::text FROM reservations WHERE id = $1", hold.String())
}

// $2 is how long ago the hold died, in seconds. The rows of its ledger move with it, which their
// trigger would refuse. So the triggers are off, and the statement lowers first_end itself.
const killSQL = `
WITH death AS (
    SELECT clock_timestamp() - make_interval(secs => $2) AS at,
           set_config('synchronous_commit', 'off', true), -- lock the stock rows for no flush
           set_config('session_replication_role', 'replica', true)
), dead AS (
    UPDATE reservations
    SET created_at = death.at - interval '1 h', updated_at = death.at - interval '1 h',
        expires_at = death.at
    FROM death
    WHERE id = $1 AND status = 'PENDING'
    RETURNING id, product_id, warehouse_id, updated_at, expires_at
), transitions AS (
    UPDATE ledger l SET at = dead.updated_at, expires_at = dead.expires_at
    FROM dead WHERE l.hold_id = dead.id
), lines AS (
    UPDATE reservation_items l SET expires_at = dead.expires_at
    FROM dead WHERE l.reservation_id = dead.id
    RETURNING l.product_id, l.warehouse_id, l.expires_at
), ends AS MATERIALIZED ( -- or a stock row that the lock waited for is dropped from the join
    SELECT product_id, warehouse_id, expires_at FROM dead WHERE product_id IS NOT NULL
    UNION ALL SELECT * FROM lines
), stock AS MATERIALIZED (
    SELECT i.product_id, i.warehouse_id, e.expires_at
    FROM inventory i JOIN ends e USING (product_id, warehouse_id)
    ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE OF i
), lowered AS (
    UPDATE inventory i SET first_end = least(i.first_end, s.expires_at)
    FROM stock s
    WHERE i.product_id = s.product_id AND i.warehouse_id = s.warehouse_id
)
SELECT count(*) FROM dead`

// MoveLedgerSQL moves the rows of each hold's ledger by as much as a test has moved the hold's
// times. Their trigger refuses that, so a test runs it in a transaction without triggers.
const MoveLedgerSQL = `
UPDATE ledger l SET at = l.at - s.by, expires_at = l.expires_at - s.by
FROM (SELECT r.id, (SELECT max(o.at) FROM ledger o WHERE o.hold_id = r.id) - r.updated_at AS by
      FROM reservations r) s
WHERE s.id = l.hold_id`

// killedAgo is how long ago a killed hold died, unless the test says so.
const killedAgo = time.Second

// Kill moves the times of PENDING holds into the past, so that they died a second ago. No sweep has
// written that down.
func (f *Fixture) Kill(holds ...uuid.UUID) {
	f.t.Helper()
	f.KillAgo(killedAgo, holds...)
}

// KillAgo moves the times of PENDING holds into the past, so that they died that long ago, after a
// life of an hour.
func (f *Fixture) KillAgo(ago time.Duration, holds ...uuid.UUID) {
	f.t.Helper()
	for _, id := range holds {
		if err := killHold(f.Context(), f.Admin, id, ago); err != nil {
			f.t.Fatal(err)
		}
	}
}

// rowQuerier is a pool, a connection or a transaction.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// KillHold kills one hold as [Fixture.Kill] does. Any goroutine may call it.
func KillHold(ctx context.Context, db rowQuerier, id uuid.UUID) error {
	return killHold(ctx, db, id, killedAgo)
}

func killHold(ctx context.Context, db rowQuerier, id uuid.UUID, ago time.Duration) error {
	var killed int
	err := db.QueryRow(ctx, killSQL, id.String(), ago.Seconds()).Scan(&killed)
	if err != nil {
		return fmt.Errorf("kill hold %s: %w", id, err)
	}
	if killed != 1 {
		return fmt.Errorf("kill hold %s: it isn't PENDING", id)
	}
	return nil
}

// Wait runs a query until its one value is true. Unlike [Fixture.WaitUntil] it may be called from
// any goroutine.
func Wait(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) error {
	for {
		var done bool
		if err := pool.QueryRow(ctx, sql, args...).Scan(&done); err != nil {
			return fmt.Errorf("wait for %s: %w", sql, err)
		}
		if done {
			return nil
		}
	}
}
