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

// newWith makes a database with the schema up to a file's number, and without routines.
func newWith(t *testing.T, version int) (*pgtest.Fixture, postgres.URL) {
	t.Helper()
	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	source := postgres.URL(db.DirectURL)
	_, err := migrate.UpWith(t.Context(), source, "", schemaUpTo(t, version), fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	return db, source
}

// A shop from before 0015_case.sql may have SKUs and codes that are the same since then. They stay,
// and each still names what is its own.
func TestSKUsThatAreTheSameSinceAReleaseStay(t *testing.T) {
	t.Parallel()

	db, source := newWith(t, 14)
	for _, code := range []string{"ΣΑΣ", "σας", "σασ", "Basel"} {
		db.Exec("INSERT INTO products (id, name, sku) VALUES (gen_random_uuid(), $1, $1)", code)
		db.Exec("INSERT INTO warehouses (id, name, code) VALUES (gen_random_uuid(), $1, $1)", code)
	}
	if _, err := migrate.Up(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"ΣΑΣ", "σας", "σασ"} {
		product := pgtest.QueryOne[string](db, `
SELECT outcome FROM put_products(ARRAY[gen_random_uuid()], ARRAY[$1], ARRAY['new'], ARRAY[NULL],
                                 ARRAY[NULL::int], ARRAY[NULL::int], NULL, NULL)`, code)
		warehouse := pgtest.QueryOne[string](db, `
SELECT outcome FROM put_warehouses(ARRAY[gen_random_uuid()], ARRAY[$1], ARRAY['new'], ARRAY[NULL],
                                   NULL, NULL)`, code)
		if product != "PUT" || warehouse != "PUT" {
			t.Errorf("a change of %s is answered with %s and %s, want PUT", code, product, warehouse)
		}
	}
	const renamed = `
SELECT (SELECT count(*) FROM products WHERE name = 'new') +
       (SELECT count(*) FROM warehouses WHERE name = 'new')`
	if n := pgtest.QueryOne[int](db, renamed); n != 6 {
		t.Errorf("%d products and warehouses are renamed, want 6", n)
	}
}

// A shop from before 0005_catalog.sql has warehouses without codes.
func TestEveryWarehouseOfBeforeGetsACode(t *testing.T) {
	t.Parallel()

	db, source := newWith(t, 4)
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
