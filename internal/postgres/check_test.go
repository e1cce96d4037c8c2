package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestCheckRefusesUnsafeSettings(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ set, want string }{
		{"", ""},
		{"synchronous_commit = off", "synchronous_commit is off"},
		{"lock_timeout = 0", "lock_timeout is 0"},
		{"statement_timeout = 0", "statement_timeout is 0"},
	} {
		db := pgtest.New(t)
		if c.set != "" {
			alter := fmt.Sprintf("ALTER ROLE CURRENT_USER IN DATABASE %s SET %s", db.Name, c.set)
			if err := open(t, db.DirectURL).Exec(t.Context(), alter); err != nil {
				t.Fatal(err)
			}
		}
		err := postgres.Check(t.Context(), open(t, db.URL))
		var unsafe *postgres.UnsafeServerError
		if c.want == "" && err != nil {
			t.Errorf("Check() = %v, want nil", err)
		}
		if c.want != "" && (!errors.As(err, &unsafe) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Check() with %s = %v, want an error with %q", c.set, err, c.want)
		}
	}
}

// Aurora's storage keeps acknowledged commits, whatever its fsync says. Only Aurora has a function
// aurora_version.
func TestCheckRefusesAServerWithoutFsyncUnlessItIsAurora(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, nil)
	pool := open(t, db.URL)
	exec := func(sql string) {
		t.Helper()
		if err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("ALTER SYSTEM SET fsync = off")
	exec("SELECT pg_reload_conf()")
	for queryOne[string](t, pool, "SHOW fsync") != "off" {
		continue // the query paces the loop, and the test's deadline ends it
	}
	var unsafe *postgres.UnsafeServerError
	if err := postgres.Check(t.Context(), pool); !errors.As(err, &unsafe) ||
		!strings.Contains(err.Error(), "fsync is off") {
		t.Errorf("Check() of a server without fsync = %v, want it refused", err)
	}
	exec("CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '17.7.1' $$")
	if err := postgres.Check(t.Context(), pool); err != nil {
		t.Errorf("Check() of Aurora = %v, want nil", err)
	}
}
