package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// allFiles lists the files that Up applies to an empty database.
func allFiles(t *testing.T) []string {
	t.Helper()
	schema, err := fs.Glob(migrations.Schema, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	routines, err := fs.Glob(migrations.Routines, "procedures/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	return append(schema, routines...)
}

func TestUpAppliesEveryFileOnce(t *testing.T) {
	t.Parallel()

	url := pgtest.NewEmpty(t).DirectURL
	want := allFiles(t)
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || !slices.Equal(got, want) {
		t.Errorf("Up() = %v, %v, want %v", got, err, want)
	}
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || len(got) != 0 {
		t.Errorf("second Up() = %v, %v, want nothing to do", got, err)
	}
}

// A role whose transactions are read-only can do an idle deploy, and no other one.
func TestIdleUpWritesNothing(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	url := db.DirectURL
	if _, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil {
		t.Fatal(err)
	}
	db.Exec("ALTER DATABASE " + db.Name + " SET default_transaction_read_only = on")
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || len(got) != 0 {
		t.Errorf("idle Up() that can't write = %v, %v, want nothing to do", got, err)
	}

	db.Exec("BEGIN READ WRITE; DROP FUNCTION max_tries(); COMMIT")
	// It waits for the lock, which it can't take.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := migrate.Up(ctx, postgres.URL(url)); err == nil {
		t.Error("Up() of a missing routine = nil without writing")
	}
	db.Exec("BEGIN READ WRITE; ALTER DATABASE " + db.Name +
		" RESET default_transaction_read_only; COMMIT")
	want := []string{"procedures/max_tries.sql"}
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || !slices.Equal(got, want) {
		t.Errorf("Up() without a file's routines = %v, %v, want %v", got, err, want)
	}
}

func TestTwoDeploysAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()

	url := pgtest.NewEmpty(t).DirectURL
	type result struct {
		applied []string
		err     error
	}
	results := make(chan result, 2)
	for range 2 {
		go func() {
			applied, err := migrate.Up(context.Background(), postgres.URL(url))
			results <- result{applied, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || (len(a.applied) == 0) == (len(b.applied) == 0) {
		t.Errorf("two Up() at once = %v, %v and %v, %v, want one of them to apply everything",
			a.applied, a.err, b.applied, b.err)
	}
}

func TestUpRefusesADatabaseOfTheUnreleasedFiles(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	db.Exec("CREATE TABLE goose_db_version (version_id bigint)")
	db.Exec("CREATE TABLE reservations (id uuid)")

	applied, err := migrate.Up(t.Context(), postgres.URL(db.DirectURL))

	if !errors.Is(err, migrate.ErrUnreleasedDatabase) || len(applied) != 0 {
		t.Fatalf("Up() = %v, %v, want it refused", applied, err)
	}
	if text := err.Error(); !strings.Contains(text, "make reset") || strings.Contains(text, "\n") {
		t.Errorf("the refusal is %q, want one line that names `make reset`", text)
	}
}

// Another program that uses goose may share the database.
func TestUpTakesADatabaseWithAnotherProgramsVersions(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	db.Exec("CREATE TABLE goose_db_version (version_id bigint)")
	for range 2 {
		if _, err := migrate.Up(t.Context(), postgres.URL(db.DirectURL)); err != nil {
			t.Errorf("Up() = %v, want nil", err)
		}
	}
}

func TestNoRoutineHasDefaultArguments(t *testing.T) {
	t.Parallel()

	db := pgtest.NewFixture(t, pgtest.New(t))
	const sql = `
SELECT coalesce(string_agg(oid::regprocedure::text, ', '), '') FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND pronargdefaults > 0`
	if with := pgtest.QueryOne[string](db, sql); with != "" {
		t.Errorf("%s have default arguments, which a deploy can't take back", with)
	}
}

func TestUpSetsTheRolesTimeoutsAndPlannerSettings(t *testing.T) {
	t.Parallel()

	conn, err := pgx.Connect(t.Context(), pgtest.New(t).DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for name, want := range map[string]string{
		"lock_timeout": "2s", "statement_timeout": "5s",
		"idle_in_transaction_session_timeout": "10s",
		"enable_seqscan":                      "off", "plan_cache_mode": "force_generic_plan", "jit": "off",
	} {
		var got string
		err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got)
		if err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
}

// A key is the caller's to choose: it could be the very words of another lock.
func TestACallersKeyAndADeployDontShareALock(t *testing.T) {
	t.Parallel()

	const claim = "SELECT c.outcome FROM claim_key('allo role defaults', '') c"
	db := pgtest.NewFixture(t, pgtest.New(t))
	source := postgres.URL(db.DirectURL)

	unlock := db.Lock(claim)
	err := migrate.Defaults(t.Context(), source)
	unlock()
	if err != nil {
		t.Errorf("Defaults() beside a request under a key = %v, want nil", err)
	}

	unlock = db.Lock(migrate.LockRoles)
	defer unlock()
	outcome := pgtest.QueryOne[*string](db, claim)
	if outcome != nil {
		t.Errorf("claim_key() beside a deploy = %s, want the key", *outcome)
	}
}

func TestEveryAdvisoryLockHasAClassOfTheList(t *testing.T) {
	t.Parallel()

	bootstrap, err := os.ReadFile("../../infra/bootstrap.sql")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"infra/bootstrap.sql": string(bootstrap), "internal/migrate": migrate.LockRoles,
	}
	for _, path := range allFiles(t) {
		text, err := fs.ReadFile(migrations.Routines, path)
		if err != nil {
			text, err = fs.ReadFile(migrations.Schema, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	list := texts["procedures/claim_key.sql"]
	call := regexp.MustCompile(`advisory\w*lock\w*\(([^)]*)`)
	inClass := regexp.MustCompile(`^(\d+|_below), `)
	ofOneNumber := regexp.MustCompile(`^(hashtextextended\(.*, 0|_number)$`)
	for path, text := range texts {
		for _, arguments := range call.FindAllStringSubmatch(text, -1) {
			file := path[strings.LastIndex(path, "/")+1:]
			if ofOneNumber.MatchString(arguments[1]) && strings.Contains(list, file) {
				continue
			}
			class := inClass.FindStringSubmatch(arguments[1])
			if class != nil && class[1] == "_below" {
				class[1] = "< 0"
			}
			if class == nil || !strings.Contains(list, "\n--   "+class[1]+"  ") {
				t.Errorf("%s locks (%s), want a class that claim_key.sql lists", path, arguments[1])
			}
		}
	}
}

func TestVersionedFilesAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()

	names, err := fs.Glob(migrations.Schema, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if want := fmt.Sprintf("%04d_", i+1); name[:5] != want {
			t.Errorf("migration %d is %s, want it to begin with %s", i+1, name, want)
		}
	}
}

var definition = regexp.MustCompile(`(?m)^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (\w+)\(`)

// routineNames maps the name of each routine to the files that define it.
func routineNames(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	for _, path := range allFiles(t) {
		if !strings.HasPrefix(path, "procedures/") {
			continue
		}
		text, err := fs.ReadFile(migrations.Routines, path)
		if err != nil {
			t.Fatal(err)
		}
		found := definition.FindAllSubmatch(text, -1)
		if len(found) != strings.Count(string(text), "\nCREATE ") {
			t.Errorf("%s: a statement isn't CREATE OR REPLACE of a function or procedure", path)
		}
		for _, match := range found {
			names[string(match[1])] = append(names[string(match[1])], path)
		}
	}
	return names
}

func TestEachRoutineIsWrittenOnce(t *testing.T) {
	t.Parallel()

	for name, paths := range routineNames(t) {
		paths = slices.DeleteFunc(paths, func(path string) bool {
			return path == "procedures/previous_release.sql"
		})
		if len(paths) > 1 {
			t.Errorf("%s is in %v, want one file", name, paths)
		}
	}
}

func TestEachFileIsNamedAfterARoutineInIt(t *testing.T) {
	t.Parallel()

	names := routineNames(t)
	for _, path := range allFiles(t) {
		name, routine := strings.CutPrefix(strings.TrimSuffix(path, ".sql"), "procedures/")
		if routine && name != "previous_release" && !slices.Contains(names[name], path) {
			t.Errorf("%s doesn't define %s", path, name)
		}
	}
}

// The routines are installed after the versioned files, so a versioned file can't call them.
func TestVersionedFilesCallNoRoutine(t *testing.T) {
	t.Parallel()

	names := routineNames(t)
	schema, err := fs.Glob(migrations.Schema, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`(\w+)\s*\(`)
	for _, path := range schema {
		text, err := fs.ReadFile(migrations.Schema, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range calls.FindAllSubmatch(text, -1) {
			if len(names[string(match[1])]) > 0 {
				t.Errorf("%s calls %s", path, match[1])
			}
		}
	}
}

// The release that is in service runs a new routine as soon as it is installed. So its role has the
// rights by then.
func TestTheRoleHasItsRightsBeforeTheRoutinesChange(t *testing.T) {
	t.Parallel()

	const role = "rights_first"
	db := pgtest.NewFixture(t, pgtest.NewEmpty(t))
	db.Exec("CREATE ROLE " + role)
	t.Cleanup(func() {
		for _, statement := range []string{"DROP OWNED BY ", "DROP ROLE "} {
			if _, err := db.Admin.Exec(context.Background(), statement+role); err != nil {
				t.Error(err)
			}
		}
	})
	db.Exec(`
CREATE TABLE granted (at_routine boolean);
CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO granted VALUES (
        has_column_privilege('` + role + `', 'inventory', 'first_end', 'UPDATE')
        AND has_sequence_privilege('` + role + `', 'log_records', 'UPDATE'));
END $$;
CREATE EVENT TRIGGER look ON ddl_command_end WHEN tag IN ('CREATE PROCEDURE')
EXECUTE FUNCTION look()`)

	if _, err := migrate.UpAndGrant(t.Context(), postgres.URL(db.DirectURL), role); err != nil {
		t.Fatal(err)
	}
	const early = "SELECT count(*) FILTER (WHERE NOT at_routine) FROM granted"
	if n := pgtest.QueryOne[int](db, early); n != 0 {
		t.Errorf("%d procedures were installed before the role had its rights, want none", n)
	}
	if n := pgtest.QueryOne[int](db, "SELECT count(*) FROM granted"); n == 0 {
		t.Error("no procedure was looked at, want all")
	}
}
