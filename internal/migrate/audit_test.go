package migrate_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// beforeResults is a database of the release before 0017_audit_results.sql, with the archives of
// three stock rows. The first two have movements of January, and the first one has some of February
// too. Of the third one only holds lie there.
func beforeResults(t *testing.T) *pgtest.Fixture {
	t.Helper()
	schema := schemaUpTo(t, math.MaxInt)
	for name := range schema {
		if name >= "0017" {
			delete(schema, name)
		}
	}
	db := pgtest.NewEmpty(t)
	if _, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "", schema,
		migrations.Routines); err != nil {
		t.Fatal(err)
	}
	f := pgtest.NewFixture(t, db)
	for _, sql := range []string{
		"SELECT make_archive_month('2026-01-01Z'), make_archive_month('2026-02-01Z')",
		`
INSERT INTO archived_stock (product_id, warehouse_id, seq, total) VALUES
    ('` + product + `', '` + warehouse + `', 5, 4), ('` + other + `', '` + warehouse + `', 3, 2),
    ('` + single + `', '` + warehouse + `', 0, 0)`,
		`
INSERT INTO archived_movements
       (xid, product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT '3', v.product::uuid, '` + warehouse + `', v.seq, v.at::timestamptz, 'ADJUSTMENT', 1,
       v.seq - 1
FROM (VALUES ('` + product + `', 2, '2026-01-05Z'), ('` + product + `', 3, '2026-01-31Z'),
             ('` + product + `', 4, '2026-02-01Z'), ('` + product + `', 5, '2026-02-02Z'),
             ('` + other + `', 2, '2026-01-05Z'), ('` + other + `', 3, '2026-01-06Z')
     ) v (product, seq, at)`,
		"INSERT INTO last_audit (at, violations, unfinished) VALUES (now(), 3, true)",
	} {
		f.Exec(sql)
	}
	return f
}

// The releases before didn't record what went with a month. The migration takes all of it that may
// have, and nothing of a later month.
func TestTheMigrationTellsWhatWentWithTheMonths(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		detach bool
		want   []int64
	}{{false, []int64{0, 0, 0}}, {true, []int64{3, 3, 0}}} {
		f := beforeResults(t)
		if c.detach {
			f.Exec("ALTER TABLE archived_movements DETACH PARTITION archived_movements_2026_01")
			f.Exec("UPDATE archived_months SET detached = true WHERE month = '2026-01-01Z'")
		}
		if _, err := migrate.Up(t.Context(), postgres.URL(f.DirectURL)); err != nil {
			t.Fatal(err)
		}
		got := pgtest.QueryOne[[]int64](f, `
SELECT array_agg(detached ORDER BY product_id = $1 DESC, product_id = $2 DESC)
FROM archived_stock`, product, other)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("detach %t: the last movements that went differ (-want +got):\n%s", c.detach, diff)
		}
		// The result that was stored is the one of an audit of what is new.
		if n := pgtest.QueryOne[int](f, "SELECT keep_audit(true, 0, false)"); n != 3 {
			t.Errorf("%d violations are known, want 3", n)
		}
	}
}
