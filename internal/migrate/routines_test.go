package migrate_test

import (
	"context"
	"fmt"
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
	installed, err := migrate.UpWith(t.Context(), postgres.URL(url), "", migrations.Schema, folder)
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
// release has changed. A deploy may fail and be repeated meanwhile, so the count of deploys says
// nothing.
func TestARemovedRoutineStaysForAWeek(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	withArgument := func(answer string) string {
		return strings.Replace(function("a", answer), "a()", "a(x integer)", 1)
	}
	old := func() [2]int {
		return [2]int{callFunction(db, "a()"), callFunction(db, "b()")}
	}

	deploy(t, db.DirectURL, release{"a.sql": function("a", "1"), "b.sql": function("b", "1")})
	for _, answer := range []string{"2", "2", "3", "4"} {
		deploy(t, db.DirectURL, release{"a.sql": withArgument(answer)})
		if got := old(); got != [2]int{1, 1} {
			t.Errorf("a() and b() answer %v after a later deploy, want 1 and 1", got)
		}
	}

	retiredAt := func(routine, age string) {
		at := pgtest.QueryOne[string](db,
			`SELECT to_char(now() - $1::interval, 'YYYY-MM-DD"T"HH24:MI:SSOF')`, age)
		db.Exec(fmt.Sprintf("COMMENT ON FUNCTION %s IS 'allo: procedures/a.sql retired %s'",
			routine, at))
	}
	retiredAt("a()", "167 hours")
	retiredAt("b()", "169 hours")
	deploy(t, db.DirectURL, release{"a.sql": withArgument("4")})
	if got := old(); got != [2]int{1, -1} {
		t.Errorf("a() and b() answer %v, want b() dropped, which was retired a week ago", got)
	}
}

// Postgres refuses these, so the deploy fails at once and changes nothing.
func TestAChangeOfArgumentNamesOrOfTheResultIsRefused(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	first := strings.Replace(function("a", "1"), "a()", "a(x integer)", 1)
	deploy(t, db.DirectURL, release{"a.sql": first})

	for _, changed := range []string{
		strings.Replace(first, "x integer", "y integer", 1),
		strings.Replace(first, "RETURNS integer", "RETURNS bigint", 1),
	} {
		folder := fstest.MapFS{"procedures/a.sql": &fstest.MapFile{Data: []byte(changed)}}
		_, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "", migrations.Schema, folder)
		if err == nil || !strings.Contains(err.Error(), "cannot change") {
			t.Errorf("Up() with %s = %v, want it refused", changed, err)
		}
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
		_, err := migrate.UpWith(t.Context(), postgres.URL(db.DirectURL), "", migrations.Schema, folder)
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
