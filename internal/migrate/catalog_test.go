package migrate_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// A shop from before 0005_catalog.sql has warehouses without codes.
func TestEveryWarehouseOfBeforeGetsACode(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	source := postgres.URL(db.DirectURL)
	_, err := migrate.UpWith(t.Context(), source, "", schemaUpTo(t, 4), fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", 101)
	for i, name := range []string{
		"New York", "north", "NORTH", " south", "Basel", "BASEL", long,
		"0192d000-0000-7000-8000-000000000000",
	} {
		db.Exec("INSERT INTO warehouses (id, name) VALUES ($1::uuid, $2)",
			"0192d000-0000-7000-8000-00000000000"+string(rune('0'+i)), name)
	}

	if _, err := migrate.Up(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	const id = "0192d000-0000-7000-8000-00000000000"
	want := []string{
		"New York", id + "1", id + "2", id + "3", id + "4", id + "5", id + "6", id + "7",
	}
	got := pgtest.QueryOne[[]string](db, "SELECT array_agg(code ORDER BY id) FROM warehouses")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the codes differ (-want +got):\n%s", diff)
	}
	const later = `
WITH made AS (INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'later') RETURNING code)
SELECT count(*) FROM made WHERE code <> ''`
	if pgtest.QueryOne[int](db, later) != 1 {
		t.Error("a warehouse that is inserted without a code has none")
	}
}
