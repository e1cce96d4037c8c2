package demo

import (
	"context"
	"errors"
	"testing"

	"github.com/allo/reservations/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func countRows(db *pgtest.Fixture, table string) int {
	return pgtest.QueryOne[int](db, "SELECT count(*) FROM "+table)
}

func TestSeedEmptyNeverTouchesADatabaseWithData(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.NamedWarehouse("Mine")
	if seeded, err := SeedEmpty(t.Context(), db.DirectURL); seeded || err != nil {
		t.Errorf("SeedEmpty() = %v, %v, want false: a warehouse is there", seeded, err)
	}
	if n := countRows(db, "products"); n != 0 {
		t.Errorf("products = %d, want none", n)
	}
}

func TestTwoStartsSeedOnce(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	results := make(chan bool, 2)
	for range 2 {
		go func() {
			seeded, err := SeedEmpty(context.Background(), db.DirectURL)
			if err != nil {
				t.Error(err)
			}
			results <- seeded
		}()
	}
	if a, b := <-results, <-results; a == b {
		t.Errorf("two SeedEmpty() = %v and %v, want one true", a, b)
	}
	if n := countRows(db, "inventory"); n != 9 {
		t.Errorf("stock rows = %d, want 9", n)
	}
}

func TestResetPutsTheCatalogBack(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := SeedEmpty(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	db.Exec("UPDATE inventory SET total = 0")
	db.NamedWarehouse("Mine")
	if err := Reset(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	if n := countRows(db, "inventory WHERE total = 0"); n != 0 {
		t.Errorf("stock rows that are empty = %d, want none", n)
	}
	if n := countRows(db, "warehouses"); n != 3 {
		t.Errorf("warehouses = %d, want the demo's 3", n)
	}
}

// The new movements have the ids of the old ones, so their source must be another one.
func TestResetBeginsAnEpoch(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	if _, err := SeedEmpty(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	epoch := func() string { return pgtest.QueryOne[string](db, "SELECT epoch::text FROM stream") }
	before := epoch()
	if err := Reset(t.Context(), db.DirectURL); err != nil {
		t.Fatal(err)
	}
	if epoch() == before {
		t.Error("the events after a reset have the source of those before")
	}
	if n := countRows(db, "ledger"); n != 0 {
		t.Errorf("the ledger has %d rows, want none", n)
	}
}

func TestADatabaseOnAnotherMachineIsRefused(t *testing.T) {
	t.Parallel()

	for _, url := range []string{
		"postgres://u:p@db.example/d",
		"postgres://u:p@10.0.0.1/d",
		"postgres://u:p@localhost,db.example/d",
		"postgres://u:p@localhost/d?host=db.example",
		"postgres://u:p@/d?host=db.example",
		"nonsense",
	} {
		if err := RefuseRemote(url); !errors.Is(err, ErrNotLocal) {
			t.Errorf("RefuseRemote(%q) = %v, want ErrNotLocal", url, err)
		}
	}
	for _, url := range []string{
		"postgres://u:p@localhost/d",
		"postgres://u:p@127.0.0.1:5432/d",
		"postgres://u:p@[::1]/d",
		"postgres://u@/d?host=/tmp",
	} {
		if err := RefuseRemote(url); err != nil {
			t.Errorf("RefuseRemote(%q) = %v, want none", url, err)
		}
	}
}
