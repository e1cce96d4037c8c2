package migrate_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

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

// callFunction calls a function and returns its result, or -1 when there is no such function.
func callFunction(db *pgtest.Fixture, call string) int {
	if !pgtest.QueryOne[bool](db, "SELECT to_regprocedure($1) IS NOT NULL", call) {
		return -1
	}
	return pgtest.QueryOne[int](db, "SELECT "+call)
}

func TestUpInstallsOnlyFilesWhoseTextChanged(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
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
		if got := deploy(t, db.DirectURL, step.release); !slices.Equal(got, step.want) {
			t.Errorf("the deploy installed %v, want %v", got, step.want)
		}
		if got := callFunction(db, "a()"); got != step.a {
			t.Errorf("a() = %d, want %d", got, step.a)
		}
	}
}

// The previous release still calls a routine that this release has removed, or whose signature this
// release has changed.
func TestARemovedRoutineStaysForOneMoreRelease(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	first := release{"a.sql": function("a", "1"), "b.sql": function("b", "1")}
	second := release{"a.sql": strings.Replace(function("a", "2"), "a()", "a(x integer)", 1)}
	third := release{"a.sql": strings.Replace(function("a", "3"), "a()", "a(x integer)", 1)}
	old := func() [2]int {
		return [2]int{callFunction(db, "a()"), callFunction(db, "b()")}
	}

	deploy(t, db.DirectURL, first)
	deploy(t, db.DirectURL, second)
	if got := old(); got != [2]int{1, 1} {
		t.Errorf("after the second release a() and b() of the first answer %v, want 1 and 1", got)
	}
	deploy(t, db.DirectURL, second)
	if got := old(); got != [2]int{1, 1} {
		t.Errorf("after an idle deploy they answer %v, want 1 and 1", got)
	}
	deploy(t, db.DirectURL, third)
	if got := old(); got != [2]int{-1, -1} {
		t.Errorf("after the third release they answer %v, want them dropped", got)
	}
}

// The newer release calls its own routines until the traffic has moved back.
func TestADeployOfAnOlderReleaseKeepsTheNewerRoutines(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	older := release{"a.sql": function("a", "1")}
	newer := release{"a.sql": function("a", "2"), "b.sql": function("b", "2")}

	deploy(t, db.DirectURL, older)
	deploy(t, db.DirectURL, newer)
	deploy(t, db.DirectURL, older)

	if a, b := callFunction(db, "a()"), callFunction(db, "b()"); a != 1 || b != 2 {
		t.Errorf("after going back a() and b() answer %d and %d, want 1 and 2", a, b)
	}
	deploy(t, db.DirectURL, newer)
	if a, b := callFunction(db, "a()"), callFunction(db, "b()"); a != 2 || b != 2 {
		t.Errorf("after going forward again they answer %d and %d, want 2 and 2", a, b)
	}
}

func TestUpLeavesForeignRoutinesAlone(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	db.Exec(function("theirs", "7") + "COMMENT ON FUNCTION theirs() IS 'of the shop''s own'")

	for _, text := range []string{"1", "2", "3"} {
		deploy(t, db.DirectURL, release{"a.sql": function("a", text)})
	}

	if got := callFunction(db, "theirs()"); got != 7 {
		t.Errorf("theirs() = %d, want 7", got)
	}
}

func TestAFileThatFailsLeavesEveryRoutineUnchanged(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	deploy(t, db.DirectURL, release{"a.sql": function("a", "1")})

	for name, text := range map[string]string{
		"syntax":     "CREATE OR REPLACE FUNCTION b() RETURNS integer AS",
		"no routine": "SELECT 1",
	} {
		folder := fstest.MapFS{
			"procedures/a.sql": &fstest.MapFile{Data: []byte(function("a", "2"))},
			"procedures/b.sql": &fstest.MapFile{Data: []byte(text)},
		}
		_, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), migrations.Schema, folder)
		if err == nil || !strings.Contains(err.Error(), "procedures/b.sql") {
			t.Errorf("%s: Up() = %v, want an error that names the file", name, err)
		}
		if got := callFunction(db, "a()"); got != 1 {
			t.Errorf("%s: a() = %d, want 1", name, got)
		}
	}
}

// The call waits for a lock in the middle of a routine while the routine is replaced.
func TestARunningCallFinishesInTheOldBody(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	text := func(answer string) string {
		return "CREATE OR REPLACE FUNCTION a() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN " +
			"PERFORM pg_advisory_xact_lock(1); RETURN " + answer + "; END $$;\n"
	}
	deploy(t, db.DirectURL, release{"a.sql": text("1")})
	unlock := db.Lock("SELECT pg_advisory_xact_lock(1)")
	running := make(chan int, 1)
	go func() {
		var n int
		_ = db.Admin.QueryRow(context.WithoutCancel(t.Context()), "SELECT a()").Scan(&n)
		running <- n
	}()
	db.WaitForBlocked(1)

	deploy(t, db.DirectURL, release{"a.sql": text("2")})
	unlock()

	if got := <-running; got != 1 {
		t.Errorf("the running call answered %d, want 1 by the old body", got)
	}
	if got := callFunction(db, "a()"); got != 2 {
		t.Errorf("the next call answered %d, want 2", got)
	}
}
