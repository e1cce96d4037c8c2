package pgtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// FixtureConnections is how many connections a Fixture has at most.
const FixtureConnections = 3

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

// NewFixture makes a Fixture of a database. It connects when it is first used.
func NewFixture(t testing.TB, db Database) *Fixture {
	t.Helper()
	config, err := pgxpool.ParseConfig(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = FixtureConnections
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	admin, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return &Fixture{Database: db, Admin: admin, t: t}
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

// Product makes a product and returns its id. The id makes its name and its SKU unique.
func (f *Fixture) Product() uuid.UUID {
	f.t.Helper()
	id := uuid.New()
	f.Exec("INSERT INTO products (id, name, sku) VALUES ($1, $2, $3)", id.String(),
		"product "+id.String(), id.String())
	return id
}

// Warehouse makes a warehouse and returns its id.
func (f *Fixture) Warehouse() uuid.UUID {
	f.t.Helper()
	id := uuid.New()
	f.Exec("INSERT INTO warehouses (id, name) VALUES ($1, $2)", id.String(),
		"warehouse "+id.String())
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

// Kill moves the times of PENDING holds into the past, so that they died a second ago. No sweep has
// written that down.
func (f *Fixture) Kill(holds ...uuid.UUID) {
	f.t.Helper()
	for _, id := range holds {
		if err := KillHold(f.Context(), f.Admin, id); err != nil {
			f.t.Fatal(err)
		}
	}
}

// KillHold is [Fixture.Kill] for one hold, and for any goroutine.
func KillHold(ctx context.Context, pool *pgxpool.Pool, id uuid.UUID) error {
	var killed int
	if err := pool.QueryRow(ctx, killSQL, id.String()).Scan(&killed); err != nil {
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
