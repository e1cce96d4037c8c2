package pgtest_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

// testTimeout bounds every wait of a test. A test that reaches it has failed.
const testTimeout = time.Minute

func TestMain(m *testing.M) { pgtest.Main(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// connect uses the simple protocol, which every version of PgBouncer carries.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(testContext(t), config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

// queryText reads one value over a new connection.
func queryText(t *testing.T, url, query string, args ...any) string {
	t.Helper()
	var text string
	if err := connect(t, url).QueryRow(testContext(t), query, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

func TestANewDatabaseHasTheMigrationsAndTheRolesTimeouts(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	another := pgtest.Server(t).URL("postgres")

	for _, url := range []string{db.URL, db.DirectURL} {
		if got := queryText(t, url, "SELECT current_database()::text"); got != db.Name {
			t.Errorf("the URL leads to database %s, want %s", got, db.Name)
		}
		const sql = "SELECT (count(*) > 0)::text FROM pg_tables WHERE schemaname = 'public'"
		if got := queryText(t, url, sql); got != "true" {
			t.Error("the database has no tables")
		}
		if got := queryText(t, url, "SHOW lock_timeout"); got == "0" {
			t.Error("the role has no lock_timeout in the database")
		}
	}
	if got := queryText(t, another, "SHOW lock_timeout"); got != "0" {
		t.Errorf("lock_timeout is %s in another database, want 0", got)
	}
}

// A fixture's own sessions have a minute, those of the service the role's limits, until the test
// asks for patience.
func TestAFixtureHasAMinuteAndGivesItToTheService(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	f := pgtest.NewFixture(t, db)
	const sql = `
SELECT concat_ws(' ', current_setting('lock_timeout'), current_setting('statement_timeout'),
                 current_setting('idle_in_transaction_session_timeout'))`
	const minute = "1min 1min 1min"
	if got := pgtest.QueryOne[string](f, sql); got != minute {
		t.Errorf("the fixture's limits are %s, want %s", got, minute)
	}
	if got, want := queryText(t, db.DirectURL, sql), "2s 5s 10s"; got != want {
		t.Errorf("the service's limits are %s, want %s", got, want)
	}
	f.Patient()
	if got := queryText(t, db.DirectURL, sql); got != minute {
		t.Errorf("the limits of a patient test's service are %s, want %s", got, minute)
	}
}

func TestTheServerIsDurable(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)

	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got := queryText(t, db.URL, "SHOW "+setting); got != "on" {
			t.Errorf("%s is %s, want on", setting, got)
		}
	}
}

func TestDatabasesShareNothing(t *testing.T) {
	t.Parallel()

	one, two := pgtest.New(t), pgtest.New(t)
	if _, err := connect(t, one.URL).Exec(testContext(t), "CREATE TABLE only_here ()"); err != nil {
		t.Fatal(err)
	}

	for db, want := range map[pgtest.Database]string{one: "true", two: "false"} {
		const sql = "SELECT (to_regclass('only_here') IS NOT NULL)::text"
		if got := queryText(t, db.URL, sql); got != want {
			t.Errorf("the table is in %s: %s, want %s", db.Name, got, want)
		}
	}
}

// Servers of their own start with copies of one cluster.
func TestServersOfTheirOwnShareNothing(t *testing.T) {
	t.Parallel()

	server, one := pgtest.NewServer(t, nil)
	if _, err := connect(t, one.URL).Exec(testContext(t), "CREATE TABLE only_here ()"); err != nil {
		t.Fatal(err)
	}
	_, two := pgtest.NewServer(t, map[string]string{"max_connections": "30"})
	for db, want := range map[pgtest.Database]string{one: "true 100", two: "false 30"} {
		const sql = "SELECT (to_regclass('only_here') IS NOT NULL)::text || ' ' || " +
			"current_setting('max_connections') FROM warehouses RIGHT JOIN (SELECT) one ON true"
		if got := queryText(t, db.URL, sql); got != want {
			t.Errorf("a server has the table and connections %s, want %s", got, want)
		}
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := queryText(t, one.URL, "SELECT to_regclass('only_here')::text"); got != "only_here" {
		t.Errorf("after a crash the table is %q", got)
	}
}

func TestConcurrentTestsGetDifferentDatabases(t *testing.T) {
	t.Parallel()

	const tests = 8
	names := make([]string, tests)
	t.Run("concurrent", func(t *testing.T) {
		for i := range names {
			t.Run("one", func(t *testing.T) {
				t.Parallel()

				db := pgtest.New(t)
				// An open session must not keep the database from being dropped.
				queryText(t, db.URL, "SELECT current_database()::text")
				connect(t, db.DirectURL)
				names[i] = db.Name
			})
		}
	})

	slices.Sort(names)
	if distinct := slices.Compact(slices.Clone(names)); len(distinct) != tests {
		t.Errorf("%d tests got the databases %q, want one each", tests, names)
	}
	query := "SELECT count(*)::text FROM pg_database WHERE datname = ANY($1)"
	if left := queryText(t, pgtest.Server(t).URL("postgres"), query, names); left != "0" {
		t.Errorf("%s of the databases %q are left, want 0", left, names)
	}
}

func TestTheURLLeadsThroughPgBouncerWhenTheEnvironmentAsksForIt(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)

	if pooled := os.Getenv("ALLO_TEST_PGBOUNCER") == "1"; pooled != (db.URL != db.DirectURL) {
		t.Errorf("URL = %s, DirectURL = %s, want them to differ: %t", db.URL, db.DirectURL, pooled)
	}
	// Two sessions in turn share one server connection of a pooler in transaction mode.
	first := queryText(t, db.URL, "SELECT pg_backend_pid()::text")
	second := queryText(t, db.URL, "SELECT pg_backend_pid()::text")
	if shared := first == second; shared != (db.URL != db.DirectURL) {
		t.Errorf("two sessions through %s ran on backends %s and %s", db.URL, first, second)
	}
}
