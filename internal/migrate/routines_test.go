package migrate_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// release is the routines of a release: the text of each file by its name.
type release map[string]string

// deploy runs Up with a release's routines and returns the files that it installed.
func deploy(t *testing.T, url string, r release) []string {
	t.Helper()
	folder := fstest.MapFS{}
	for name, text := range r {
		folder["procedures/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	installed, err := migrate.UpWith(t.Context(), postgres.URL(url), migrations.Schema, folder)
	if err != nil {
		t.Fatalf("deploy: %v", err)
	}
	return installed
}

// function returns the text of a function without arguments that returns a number.
func function(name, answer string) string {
	return "CREATE OR REPLACE FUNCTION " + name + "() RETURNS integer LANGUAGE plpgsql AS $$ " +
		"BEGIN RETURN " + answer + "; END $$;\n"
}

// testDatabase makes a database with the present release's routines, and a connection to it.
func testDatabase(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.New(t).DirectURL
	return url, openConn(t, url)
}

func openConn(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // routines change under the connection
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// answer calls a function and returns its result, or -1 when there is no such function.
func answer(t *testing.T, conn *pgx.Conn, call string) int {
	t.Helper()
	var there bool
	const sql = "SELECT to_regprocedure($1) IS NOT NULL"
	if err := conn.QueryRow(t.Context(), sql, call).Scan(&there); err != nil {
		t.Fatal(err)
	}
	if !there {
		return -1
	}
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT "+call).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUpInstallsOnlyFilesWhoseTextChanged(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	one := release{"a.sql": function("a", "1"), "b.sql": function("b", "1")}
	two := release{"a.sql": function("a", "2"), "b.sql": function("b", "1")}

	for _, step := range []struct {
		release release
		want    []string
		a       int
	}{
		{one, []string{"procedures/a.sql", "procedures/b.sql"}, 1},
		{one, nil, 1},
		{two, []string{"procedures/a.sql"}, 2},
		{one, []string{"procedures/a.sql"}, 1}, // a deploy of the older release
	} {
		if got := deploy(t, url, step.release); !slices.Equal(got, step.want) {
			t.Errorf("the deploy installed %v, want %v", got, step.want)
		}
		if got := answer(t, conn, "a()"); got != step.a {
			t.Errorf("a() = %d, want %d", got, step.a)
		}
	}
}

// The previous release still calls a routine that this release has removed, or whose signature this
// release has changed.
func TestARemovedRoutineStaysForOneMoreRelease(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	first := release{"a.sql": function("a", "1"), "b.sql": function("b", "1")}
	second := release{"a.sql": strings.Replace(function("a", "2"), "a()", "a(x integer)", 1)}
	third := release{"a.sql": strings.Replace(function("a", "3"), "a()", "a(x integer)", 1)}
	old := func() [2]int {
		return [2]int{answer(t, conn, "a()"), answer(t, conn, "b()")}
	}

	deploy(t, url, first)
	deploy(t, url, second)
	if got := old(); got != [2]int{1, 1} {
		t.Errorf("after the second release a() and b() of the first answer %v, want 1 and 1", got)
	}
	deploy(t, url, second)
	if got := old(); got != [2]int{1, 1} {
		t.Errorf("after an idle deploy they answer %v, want 1 and 1", got)
	}
	deploy(t, url, third)
	if got := old(); got != [2]int{-1, -1} {
		t.Errorf("after the third release they answer %v, want them dropped", got)
	}
}

// The newer release calls its own routines until the traffic has moved back.
func TestADeployOfAnOlderReleaseKeepsTheNewerRoutines(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	older := release{"a.sql": function("a", "1")}
	newer := release{"a.sql": function("a", "2"), "b.sql": function("b", "2")}

	deploy(t, url, older)
	deploy(t, url, newer)
	deploy(t, url, older)

	if a, b := answer(t, conn, "a()"), answer(t, conn, "b()"); a != 1 || b != 2 {
		t.Errorf("after going back a() and b() answer %d and %d, want 1 and 2", a, b)
	}
	deploy(t, url, newer)
	if a, b := answer(t, conn, "a()"), answer(t, conn, "b()"); a != 2 || b != 2 {
		t.Errorf("after going forward again they answer %d and %d, want 2 and 2", a, b)
	}
}

func TestUpLeavesForeignRoutinesAlone(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	if _, err := conn.Exec(t.Context(), function("theirs", "7")+
		"COMMENT ON FUNCTION theirs() IS 'of the shop''s own';"); err != nil {
		t.Fatal(err)
	}

	for _, text := range []string{"1", "2", "3"} {
		deploy(t, url, release{"a.sql": function("a", text)})
	}

	if got := answer(t, conn, "theirs()"); got != 7 {
		t.Errorf("theirs() = %d, want 7", got)
	}
}

func TestAFileThatFailsLeavesEveryRoutineUnchanged(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	deploy(t, url, release{"a.sql": function("a", "1")})

	for name, text := range map[string]string{
		"syntax":     "CREATE OR REPLACE FUNCTION b() RETURNS integer AS",
		"no routine": "SELECT 1",
	} {
		folder := fstest.MapFS{
			"procedures/a.sql": &fstest.MapFile{Data: []byte(function("a", "2"))},
			"procedures/b.sql": &fstest.MapFile{Data: []byte(text)},
		}
		_, err := migrate.UpWith(t.Context(), postgres.URL(url), migrations.Schema, folder)
		if err == nil || !strings.Contains(err.Error(), "procedures/b.sql") {
			t.Errorf("%s: Up() = %v, want an error that names the file", name, err)
		}
		if got := answer(t, conn, "a()"); got != 1 {
			t.Errorf("%s: a() = %d, want 1", name, got)
		}
	}
}

// The call waits for a lock in the middle of a routine while the routine is replaced.
func TestARunningCallFinishesInTheOldBody(t *testing.T) {
	t.Parallel()

	url, conn := testDatabase(t)
	text := func(answer string) string {
		return "CREATE OR REPLACE FUNCTION a() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN " +
			"PERFORM pg_advisory_xact_lock(1); RETURN " + answer + "; END $$;\n"
	}
	deploy(t, url, release{"a.sql": text("1")})
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(1)"); err != nil {
		t.Fatal(err)
	}
	running := make(chan int, 1)
	caller := openConn(t, url)
	go func() {
		var n int
		_ = caller.QueryRow(context.WithoutCancel(t.Context()), "SELECT a()").Scan(&n)
		running <- n
	}()
	const waits = `
SELECT count(*) = 1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query = 'SELECT a()'`
	for waiting := false; !waiting; {
		if err := tx.QueryRow(t.Context(), waits).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}

	deploy(t, url, release{"a.sql": text("2")})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}

	if got := <-running; got != 1 {
		t.Errorf("the running call answered %d, want 1 by the old body", got)
	}
	if got := answer(t, conn, "a()"); got != 2 {
		t.Errorf("the next call answered %d, want 2", got)
	}
}
