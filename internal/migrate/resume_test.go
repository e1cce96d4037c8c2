package migrate_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// The files of a release that has a table of a hundred rows, an index that is built beside the
// callers, and a column that is filled in batches of ten.
const (
	thingsFile = "0001_things.sql"
	indexFile  = "0002_index.sql"
	fillFile   = "0003_fill.sql"

	things = `-- +goose Up
CREATE TABLE things (n integer PRIMARY KEY, double integer, times integer NOT NULL DEFAULT 0);
INSERT INTO things SELECT generate_series(1, 100);
`
	index = `-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX CONCURRENTLY IF NOT EXISTS things_by_double ON things (double);
`
	fill = `-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    LOOP
        UPDATE things SET double = 2 * n, times = times + 1
        WHERE n IN (SELECT n FROM things WHERE double IS NULL ORDER BY n LIMIT 10);
        EXIT WHEN NOT FOUND;
        COMMIT;
    END LOOP;
END $$;
-- +goose StatementEnd
`
)

// soon is how long a run of these tests waits before it leaves. late is what the slowest machine
// needs until it has sent its statement.
const (
	soon = 300 * time.Millisecond
	late = 20 * time.Second
)

// upgrade is a database with the table, and the files that come next.
type upgrade struct {
	t      *testing.T
	db     *pgtest.Fixture
	schema fstest.MapFS
}

func newUpgrade(t *testing.T, db pgtest.Database) upgrade {
	t.Helper()
	r := upgrade{t, pgtest.NewFixtureOfSize(t, db, 6), fstest.MapFS{}}
	r.add(thingsFile, things)
	r.mustRun(thingsFile)
	return r
}

func (r upgrade) add(name, text string) { r.schema[name] = &fstest.MapFile{Data: []byte(text)} }

func (r upgrade) run(ctx context.Context, o migrate.Options) ([]string, error) {
	return migrate.RunWith(ctx, postgres.URL(r.db.DirectURL), o, r.schema, fstest.MapFS{})
}

// mustRun runs to the end and wants these files applied.
func (r upgrade) mustRun(want ...string) {
	r.t.Helper()
	if got, err := r.run(r.t.Context(), migrate.Options{}); err != nil || !slices.Equal(got, want) {
		r.t.Fatalf("Run() = %v, %v, want %v", got, err, want)
	}
}

// mustLeave runs for a moment and wants the database still to do something, as its progress tells.
// A slow machine may leave before it does. Then the next run has twice the time.
func (r upgrade) mustLeave(file, want string) {
	r.t.Helper()
	progress := ""
	for moment := soon; !strings.Contains(progress, want) && moment < late; moment *= 2 {
		applied, err := r.run(r.t.Context(), migrate.Options{Leave: moment})
		var unfinished *migrate.UnfinishedError
		if !errors.As(err, &unfinished) || unfinished.File != file || len(applied) > 0 {
			r.t.Fatalf("a run that may not wait = %v, %v, want %s unfinished", applied, err, file)
		}
		progress = unfinished.Progress
	}
	if !strings.Contains(progress, want) {
		r.t.Errorf("the progress of %s is %q, want one with %q", file, progress, want)
	}
}

// start runs to the end in the background.
func (r upgrade) start(ctx context.Context, o migrate.Options) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.run(ctx, o)
		done <- err
	}()
	return done
}

const indexSQL = "(SELECT %s FROM pg_index WHERE indexrelid = to_regclass('things_by_double'))"

// index returns the index's identity and whether it is valid. It is 0 if there is none.
func (r upgrade) index() (oid uint32, valid bool) {
	r.t.Helper()
	oid = pgtest.QueryOne[uint32](r.db, "SELECT coalesce("+
		strings.Replace(indexSQL, "%s", "indexrelid", 1)+", 0)")
	valid = pgtest.QueryOne[bool](r.db, "SELECT coalesce("+
		strings.Replace(indexSQL, "%s", "indisvalid", 1)+", false)")
	return oid, valid
}

// sessionsSQL counts the sessions that run files.
const sessionsSQL = `
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'allo-migrate %'`

// block keeps the build of the index, or the batch with row 55, from going on. It changes nothing.
func (r upgrade) block() (unblock func()) {
	r.t.Helper()
	return r.db.Lock("UPDATE things SET times = 1 WHERE n = 55")
}

// wantFilledOnce wants every row changed by exactly one batch.
func (r upgrade) wantFilledOnce() {
	r.t.Helper()
	const sql = "SELECT count(*) FROM things WHERE double = 2 * n AND times = 1"
	if n := pgtest.QueryOne[int](r.db, sql); n != 100 {
		r.t.Errorf("%d of 100 rows were filled once", n)
	}
}

func TestAnIndexThatARunLeftIsFinishedByTheDatabase(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(indexFile, index)
	unblock := r.block()

	for range 2 { // the second run waits for the statement of the first
		r.mustLeave(indexFile, "waiting for")
		if n := pgtest.QueryOne[int](r.db, sessionsSQL+" AND state = 'active'"); n != 1 {
			t.Fatalf("%d sessions build the index, want the first run's", n)
		}
	}
	before, valid := r.index()
	if before == 0 || valid {
		t.Fatalf("the index is %d, valid: %t, want one that isn't valid yet", before, valid)
	}
	done := r.start(context.Background(), migrate.Options{})
	unblock()

	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if after, valid := r.index(); after != before || !valid {
		t.Errorf("the index was %d and is %d, valid: %t, want the one that was left", before, after,
			valid)
	}
	r.mustRun()
}

// This is the control of the test above: a run that is cancelled, and doesn't leave, ends the
// build.
func TestACancelledBuildLeavesAnInvalidIndexAndTheNextRunBuildsItAnew(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(indexFile, index)
	unblock := r.block()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := r.start(ctx, migrate.Options{})
	r.db.WaitUntil("SELECT EXISTS " + strings.Replace(indexSQL, "%s", "", 1))
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("a blocked run succeeds")
	}
	r.db.WaitUntil(strings.Replace(sessionsSQL, "count(*)", "count(*) = 0", 1))
	before, valid := r.index()
	if before == 0 || valid {
		t.Fatalf("the index is %d, valid: %t, want an invalid one", before, valid)
	}
	unblock()
	// The control of the drop: the statement alone takes the invalid index for done.
	r.db.Exec("CREATE INDEX CONCURRENTLY IF NOT EXISTS things_by_double ON things (double)")
	if after, valid := r.index(); after != before || valid {
		t.Fatalf("the statement alone made index %d of %d, valid: %t", after, before, valid)
	}

	r.mustRun(indexFile)

	if after, valid := r.index(); after == before || !valid {
		t.Errorf("the index was %d and is %d, valid: %t, want a new one", before, after, valid)
	}
}

func TestAKilledBuildIsBuiltAnew(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, nil)
	db.Name = "things"
	pgtest.NewFixture(t, db).Exec("CREATE DATABASE things")
	db.URL, db.DirectURL = server.URL(db.Name), server.URL(db.Name)
	r := newUpgrade(t, db)
	r.add(indexFile, index)
	r.block()
	done := r.start(context.Background(), migrate.Options{})
	r.db.WaitForBlocked(1)

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a run whose server dies succeeds")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.db.Admin.Reset()
	if before, valid := r.index(); before == 0 || valid {
		t.Fatalf("the index is %d, valid: %t, want an invalid one", before, valid)
	}
	r.mustRun(indexFile)
	if _, valid := r.index(); !valid {
		t.Error("the index is invalid after the second run")
	}
}

func TestAValidIndexIsNeverDropped(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.db.Exec("CREATE INDEX things_by_double ON things (double)")
	before, _ := r.index()
	r.add(indexFile, index)
	r.mustRun(indexFile)
	if after, valid := r.index(); after != before || !valid {
		t.Errorf("the index was %d and is %d, valid: %t", before, after, valid)
	}
}

// An operator builds the index by hand when the run begins. It is invalid then, and valid later.
func TestAnIndexThatSomebodyElseBuildsIsntDropped(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(indexFile, index)
	unblock := r.block()
	built := make(chan error, 1)
	go func() {
		_, err := r.db.Admin.Exec(context.Background(),
			"CREATE INDEX CONCURRENTLY things_by_double ON things (double)")
		built <- err
	}()
	r.db.WaitForBlocked(1)
	before, valid := r.index()
	if before == 0 || valid {
		t.Fatalf("the index is %d, valid: %t, want one that isn't valid yet", before, valid)
	}
	done := r.start(context.Background(), migrate.Options{})
	r.db.WaitForBlocked(2) // the run waits for the table's lock, to drop the index
	unblock()
	if err := errors.Join(<-built, <-done); err != nil {
		t.Fatal(err)
	}
	if after, valid := r.index(); after != before || !valid {
		t.Errorf("the index was %d and is %d, valid: %t, want the operator's", before, after, valid)
	}
}

func TestAKilledBatchGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(fillFile, fill)
	unblock := r.block()
	done := r.start(context.Background(), migrate.Options{})
	r.db.WaitForBlocked(1)

	r.db.Exec(strings.Replace(sessionsSQL, "count(*)", "pg_terminate_backend(pid)", 1))
	if err := <-done; err == nil {
		t.Error("a run whose session is killed succeeds")
	}
	if n := pgtest.QueryOne[int](r.db, "SELECT count(*) FROM things WHERE times = 1"); n != 50 {
		t.Errorf("%d rows are filled, want the five batches before the kill", n)
	}
	unblock()
	r.mustRun(fillFile)
	r.wantFilledOnce()
}

func TestABatchThatARunLeftGoesOn(t *testing.T) {
	t.Parallel()

	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(fillFile, fill)
	unblock := r.block()
	for range 2 {
		r.mustLeave(fillFile, "runs for")
	}
	unblock()
	r.mustRun(fillFile)
	r.wantFilledOnce()
}

// A file with a transaction is never left: its end would be a rollback.
func TestAFileWithATransactionIsDoneWholeOrNotAtAll(t *testing.T) {
	t.Parallel()

	const file = "0002_all.sql"
	r := newUpgrade(t, pgtest.NewEmpty(t))
	r.add(file, "-- +goose Up\nUPDATE things SET double = 2 * n, times = times + 1;\n")
	unblock := r.block()
	ctx, cancel := context.WithTimeout(t.Context(), 3*soon)
	defer cancel()
	_, err := r.run(ctx, migrate.Options{Leave: soon})
	var unfinished *migrate.UnfinishedError
	if err == nil || errors.As(err, &unfinished) {
		t.Errorf("a blocked run = %v, want it cancelled", err)
	}
	r.db.WaitUntil(strings.Replace(sessionsSQL, "count(*)", "count(*) = 0", 1))
	if n := pgtest.QueryOne[int](r.db, "SELECT count(*) FROM things WHERE times > 0"); n != 0 {
		t.Errorf("%d rows are changed, want none", n)
	}
	unblock()
	r.mustRun(file)
	r.wantFilledOnce()
}

func TestARunOfTheRoutinesAloneAppliesNoFileButToAnEmptyDatabase(t *testing.T) {
	t.Parallel()

	empty := pgtest.NewEmpty(t)
	r := upgrade{t, pgtest.NewFixture(t, empty), fstest.MapFS{}}
	r.add(thingsFile, things)
	alone := migrate.Options{RoutinesAlone: true}
	if got, err := r.run(t.Context(), alone); err != nil || !slices.Equal(got, []string{thingsFile}) {
		t.Fatalf("on an empty database = %v, %v, want the file applied", got, err)
	}
	r.add(indexFile, index)
	r.add(fillFile, fill)
	got, err := r.run(t.Context(), alone)
	var pending *migrate.PendingError
	if !errors.As(err, &pending) || len(got) > 0 ||
		!slices.Equal(pending.Files, []string{indexFile, fillFile}) {
		t.Errorf("with two new files = %v, %v, want both pending", got, err)
	}
	if oid, _ := r.index(); oid != 0 {
		t.Error("the index is there")
	}
	r.mustRun(indexFile, fillFile)
	if got, err := r.run(t.Context(), alone); err != nil || len(got) != 0 {
		t.Errorf("on a schema that is current = %v, %v, want nothing to do", got, err)
	}
}

func TestTheFilesWithoutATransactionMayBeRepeated(t *testing.T) {
	t.Parallel()

	if err := migrate.CheckRepeatable(schemaTexts(t)); err != nil {
		t.Error(err)
	}
	good := map[string]string{indexFile: index, fillFile: fill}
	if err := migrate.CheckRepeatable(good); err != nil {
		t.Errorf("the check refuses the tests' files: %v", err)
	}
	for name, change := range map[string][3]string{
		"an index that may be there":  {indexFile, " IF NOT EXISTS", ""},
		"another statement beside it": {indexFile, ";\n", ";\nUPDATE things SET n = n + 1;\n"},
		"a loop in one transaction":   {fillFile, "COMMIT;", ""},
		"a loop without an end":       {fillFile, "EXIT WHEN NOT FOUND;", ""},
		"a message to the client":     {fillFile, "COMMIT;", "COMMIT; RAISE NOTICE 'ten more';"},
	} {
		bad := maps.Clone(good)
		bad[change[0]] = strings.Replace(bad[change[0]], change[1], change[2], 1)
		if migrate.CheckRepeatable(bad) == nil {
			t.Errorf("the check accepts %s", name)
		}
	}
}

// schemaTexts returns the text of each versioned file of this release by its name.
func schemaTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range allFiles(t) {
		text, err := migrations.Schema.ReadFile(name)
		if err == nil { // a routine's file is in another folder
			texts[name] = string(text)
		}
	}
	if len(texts) == 0 {
		t.Fatal("there are no versioned files")
	}
	return texts
}
