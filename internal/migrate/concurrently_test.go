package migrate_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/migrations"
)

// buildTimeout bounds the building of two indexes on empty tables, and of what is waited for meanwhile.
const buildTimeout = time.Minute

// A migration that builds its indexes beside the traffic is in no transaction. So it must be possible to run it again after it failed in
// between, it must wait for a transaction that goes on for longer than the service may wait for a lock, and nobody must wait for it.
func TestIndexesAreBuiltBesideTheTraffic(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	url := pgtest.New(t).DirectURL // with the role's own lock_timeout
	connect := func() *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	exec := func(conn *pgx.Conn, statement string) {
		t.Helper()
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	slow, other := connect(), connect()
	const mug, lamp, here = "0192d000-0000-7000-8000-000000000001", "0192d000-0000-7000-8000-000000000002", "0192d000-0000-7000-8000-000000000003"
	exec(other, "INSERT INTO products VALUES ('"+mug+"', 'mug', 'M'), ('"+lamp+"', 'lamp', 'L')")
	exec(other, "INSERT INTO warehouses VALUES ('"+here+"', 'here')")
	exec(other, "INSERT INTO inventory (product_id, warehouse_id, total) SELECT p.id, w.id, 9 FROM products p, warehouses w")
	// As after a run that ended before its last statement: all is there but the note that it is.
	exec(other, "DELETE FROM goose_db_version WHERE version_id = 5")
	exec(slow, "BEGIN")
	reserve := func(product string) string {
		return "CALL reserve_line(false, gen_random_uuid(), '" + product + "', '" + here + "', 1, '1 min', NULL, NULL, NULL, NULL)"
	}
	exec(slow, reserve(mug))

	done := make(chan error, 1)
	go func() { done <- upTo(ctx, url, 5) }()
	for waited := false; !waited; {
		const waits = `
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND query ~ 'INDEX CONCURRENTLY' AND pid <> pg_backend_pid()
  AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '2500 ms'`
		if err := other.QueryRow(ctx, waits).Scan(&waited); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("the migration ended beside a transaction that uses the table: %v", err)
		default:
		}
	}
	exec(other, reserve(lamp)) // and would fail after two seconds
	exec(slow, "COMMIT")

	if err := <-done; err != nil {
		t.Fatalf("the migration after a wait = %v", err)
	}
	var valid int
	const indexes = `
SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text IN ('reservations_resolved_by_status', 'reservations_resolved_by_time')`
	if err := other.QueryRow(ctx, indexes).Scan(&valid); err != nil || valid != 2 {
		t.Errorf("%d indexes are valid, %v, want 2", valid, err)
	}
}

func upTo(ctx context.Context, url string, version int64) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = provider.UpTo(ctx, version)
	return err
}
