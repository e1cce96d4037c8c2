package migrate_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
)

// restoredTables lists the tables that a restore must empty, by their names: all but flush_mark and
// those of the migrations, which the runbook's dump leaves out.
func restoredTables(db *pgtest.Fixture) []string {
	return pgtest.QueryOne[[]string](db, `
SELECT array_agg(t.tablename::text ORDER BY t.tablename COLLATE "C")
FROM pg_tables t JOIN pg_class c ON c.oid = format('%I.%I', t.schemaname, t.tablename)::regclass
WHERE t.schemaname = 'public' AND NOT c.relispartition
  AND t.tablename <> 'flush_mark' AND t.tablename NOT LIKE 'goose_%'`)
}

// RUNBOOK.md empties every table before it loads the dump of a restored copy. A table that it
// forgets would keep rows of holds that are gone, or end the load with a duplicate key. The control
// is a table of a later migration.
func TestTheRunbooksRestoreEmptiesEveryTable(t *testing.T) {
	t.Parallel()

	runbook, err := os.ReadFile("../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	truncate := regexp.MustCompile(`TRUNCATE ([^']+)'`).FindSubmatch(runbook)
	if truncate == nil {
		t.Fatal("RUNBOOK.md has no TRUNCATE")
	}
	emptied := regexp.MustCompile(`\w+`).FindAllString(string(truncate[1]), -1)
	slices.Sort(emptied)
	db := pgtest.NewFixture(t, pgtest.New(t))
	if diff := cmp.Diff(restoredTables(db), emptied); diff != "" {
		t.Errorf("the schema's tables and those of RUNBOOK.md differ (-want +got):\n%s", diff)
	}
	db.Stock(db.Product(), db.Warehouse(), 5)
	db.Exec("TRUNCATE " + string(truncate[1])) // as one statement, without CASCADE
	db.Exec("CREATE TABLE coupons (id uuid)")
	if !slices.Contains(restoredTables(db), "coupons") {
		t.Error("the comparison misses a table of a later migration")
	}
}
