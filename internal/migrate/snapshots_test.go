package migrate_test

import (
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// A dump may have the tables for a while. Callers must not queue behind a deploy that waits for it.
func TestADeployThatAltersHotTablesWaitsForAReaderInTurns(t *testing.T) {
	t.Parallel()

	for next, before := range map[string]int{"0002_old_snapshots": 1, "0004_movements": 3} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()

			db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
			if _, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "",
				schemaUpTo(t, before), fstest.MapFS{}); err != nil {
				t.Fatal(err)
			}
			deployBesideAReader(t, db)
		})
	}
}

func deployBesideAReader(t *testing.T, db *pgtest.Fixture) {
	t.Helper()
	reader, err := db.Admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback(t.Context())
	if _, err := reader.Exec(t.Context(), "SELECT 1 FROM inventory"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := migrate.Up(t.Context(), postgres.URL(db.DirectURL))
		done <- err
	}()

	// The deploy sleeps between two turns. It then holds no lock, so another session can have any.
	db.WaitUntil(`
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'`)
	err = pgx.BeginFunc(t.Context(), db.Admin, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "LOCK TABLE inventory, reservations IN ROW EXCLUSIVE MODE")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("Up() = %v beside a reader, want it to wait", err)
	default:
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Up() = %v after the reader, want it to succeed", err)
	}
}

// An operator may go back to the release before 0002. Its migration gives the service's role no
// right to first_end, and that release still moves ends down.
func TestTheReleaseBeforeFirstEndMayShortenHoldsAfterADeployThatWentBack(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	role := pgx.Identifier{"before_" + db.Name}.Sanitize()
	db.Exec("CREATE ROLE " + role)
	defer db.Exec("DROP ROLE " + role)
	defer db.Exec("DROP OWNED BY " + role)
	db.Exec("GRANT SELECT, UPDATE (total, reserved) ON inventory TO " + role)
	db.Exec("GRANT SELECT, UPDATE (status, updated_at, expires_at) ON reservations TO " + role)
	product, warehouse := db.Product(), db.Warehouse()
	db.Stock(product, warehouse, 1)
	db.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
VALUES (gen_random_uuid(), $1, $2, 1, now(), now(), now() + interval '10 min')`,
		product.String(), warehouse.String())
	db.Exec("UPDATE inventory SET first_end = 'infinity', reserved = 1")

	db.Exec("BEGIN; SET LOCAL ROLE " + role +
		"; UPDATE reservations SET expires_at = now() + interval '5 min'; COMMIT")
	const same = "SELECT first_end = expires_at FROM inventory, reservations"
	if !pgtest.QueryOne[bool](db, same) {
		t.Error("first_end doesn't follow the shortened hold")
	}
}
