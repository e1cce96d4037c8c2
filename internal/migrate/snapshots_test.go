package migrate_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// schemaUpTo has the versioned files up to a number.
func schemaUpTo(t *testing.T, version int) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(migrations.Schema, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	folder := fstest.MapFS{}
	for _, name := range names[:min(version, len(names))] {
		text, err := fs.ReadFile(migrations.Schema, name)
		if err != nil {
			t.Fatal(err)
		}
		folder[name] = &fstest.MapFile{Data: text}
	}
	return folder
}

// A dump may have the tables for a while. Callers must not queue behind a deploy that waits for it.
func TestADeployThatAltersHotTablesWaitsForAReaderInTurns(t *testing.T) {
	t.Parallel()

	for next, before := range map[string]int{
		"0002_old_snapshots": 1, "0004_movements": 3, "0014_refusals": 13,
	} {
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
