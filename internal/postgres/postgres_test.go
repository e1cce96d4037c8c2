package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/dsn"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestCheckRefusesAServerThatLosesOrWaits(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ set, want string }{
		{"", ""},
		{"synchronous_commit = off", "synchronous_commit is off"},
		{"lock_timeout = 0", "lock_timeout is 0"},
		{"statement_timeout = 0", "statement_timeout is 0"},
	} {
		db := pgtest.New(t)
		if c.set != "" {
			admin, err := postgres.Open(dsn.URL(db.DirectURL), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			if _, err := admin.Query(t.Context(), fmt.Sprintf("ALTER ROLE CURRENT_USER IN DATABASE %s SET %s", db.Name, c.set)); err != nil {
				t.Fatal(err)
			}
		}
		pool, err := postgres.Open(dsn.URL(db.URL), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		err = postgres.Check(t.Context(), pool)
		var unsafe *postgres.UnsafeServerError
		if c.want == "" && err != nil {
			t.Errorf("Check() = %v, want none", err)
		}
		if c.want != "" && (!errors.As(err, &unsafe) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Check() with %s = %v, want it to say %q", c.set, err, c.want)
		}
	}
}

// Aurora's storage keeps what it acknowledges, whatever its fsync says: a server is known for Aurora by a function that only it has.
func TestCheckRefusesAServerThatDoesNotFlushUnlessItIsAurora(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, nil)
	pool, err := postgres.Open(dsn.URL(db.URL), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	query := func(sql string) string {
		t.Helper()
		rows, err := pool.Query(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if len(rows) == 0 {
			return ""
		}
		return string(rows[0][0])
	}
	query("ALTER SYSTEM SET fsync = off")
	query("SELECT pg_reload_conf()")
	for query("SHOW fsync") != "off" { // the question paces it, and the test's deadline ends it
	}
	var unsafe *postgres.UnsafeServerError
	if err := postgres.Check(t.Context(), pool); !errors.As(err, &unsafe) || !strings.Contains(err.Error(), "fsync is off") {
		t.Errorf("Check() of a server that doesn't flush = %v, want it refused", err)
	}
	query("CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '17.7.1' $$")
	if err := postgres.Check(t.Context(), pool); err != nil {
		t.Errorf("Check() of Aurora = %v, want none", err)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	t.Parallel()

	state := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		err                                 error
		retryable, lockTimeout, unavailable bool
	}{
		{state("40P01"), true, false, false},
		{state("40001"), true, false, false},
		{state("55P03"), false, true, false},
		{state("57014"), false, false, true},  // statement_timeout or a cancel
		{state("57P01"), false, false, true},  // admin_shutdown
		{state("53300"), false, false, true},  // too_many_connections
		{state("08P01"), false, false, true},  // what a pooler says when its server is gone
		{state("25006"), false, false, true},  // read only, after a fail-over
		{state("25P03"), false, false, true},  // idle in a transaction for too long
		{state("23514"), false, false, false}, // a check: I1's, and a bug
		{state("42883"), false, false, false}, // a function that isn't there
		{state(""), false, false, false},
		{context.DeadlineExceeded, false, false, true},
		{context.Canceled, false, false, true},
		{io.ErrUnexpectedEOF, false, false, true},
		{fmt.Errorf("read: %w", &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}), false, false, true},
		{pgconn.ErrConnClosed, false, false, true},
		{errors.New("a bug"), false, false, false},
	} {
		if r, l, u := postgres.Retryable(c.err), postgres.LockTimeout(c.err), postgres.Unavailable(c.err); r != c.retryable || l != c.lockTimeout || u != c.unavailable {
			t.Errorf("%v: retryable, lock timeout, unavailable = %v, %v, %v, want %v, %v, %v", c.err, r, l, u, c.retryable, c.lockTimeout, c.unavailable)
		}
	}
}

func TestOpenRefusesWhatIsNoURL(t *testing.T) {
	t.Parallel()

	if pool, err := postgres.Open(dsn.URL("postgres://%zz"), 1); err == nil {
		pool.Close()
		t.Error("Open() of nonsense = nil, want an error")
	}
}
