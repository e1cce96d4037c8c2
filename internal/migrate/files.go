package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// PendingError means that the database lacks versioned files and that the run may not apply them.
type PendingError struct {
	// Files are their names, in order.
	Files []string
}

func (e *PendingError) Error() string {
	return "the schema lacks " + strings.Join(e.Files, ", ")
}

// UnfinishedError means that a file isn't applied yet and that the database works on it without the
// run. Another run waits for the database and goes on.
type UnfinishedError struct {
	// File is the file's name.
	File string
	// Progress says what the database does, such as "CREATE INDEX: building index, 34%". It is empty
	// if the database has just become ready.
	Progress string
}

func (e *UnfinishedError) Error() string {
	text := e.File + " isn't applied yet; the database goes on with it by itself"
	if e.Progress != "" {
		text += " (" + e.Progress + ")"
	}
	return text
}

// files are the versioned files of a release, and the ways to apply them.
type files struct {
	provider *goose.Provider
	texts    map[string]string // each file's text by its name
	line     *line             // the connections that run the files' statements
	db       *sql.DB           // over line
	locks    *sql.DB           // for the migration lock, which a run gives back after it has left line
}

func openFiles(source postgres.Source, schema fs.FS) (*files, error) {
	f := &files{line: newLine(), texts: map[string]string{}}
	names, err := fs.Glob(schema, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(schema, name)
		if err != nil {
			return nil, fmt.Errorf("read a migration: %w", err)
		}
		f.texts[name] = string(text)
	}
	f.db = sql.OpenDB(connector{source: source, line: f.line})
	f.db.SetMaxIdleConns(0) // each file's session begins with the settings that the file needs
	f.locks = sql.OpenDB(connector{source: source})
	f.provider, err = goose.NewProvider(goose.DialectPostgres, f.db, schema,
		goose.WithTableName(migrations.VersionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		f.close()
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return f, nil
}

func (f *files) close() {
	_ = f.db.Close() // the sessions end with the connections
	_ = f.locks.Close()
}

// pending lists the names of the files that the database lacks, in order. It writes nothing.
func (f *files) pending(ctx context.Context, conn *pgx.Conn) (names []string, err error) {
	applied, err := appliedVersions(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, source := range f.provider.ListSources() {
		if !slices.Contains(applied, source.Version) {
			names = append(names, source.Path)
		}
	}
	return names, nil
}

// appliedVersions lists the numbers of the files that the database has, none for an empty one.
func appliedVersions(ctx context.Context, conn *pgx.Conn) ([]int64, error) {
	there, err := tableExists(ctx, conn, migrations.VersionTable)
	if err != nil || !there {
		return nil, err
	}
	rows, err := conn.Query(ctx,
		"SELECT version_id FROM public."+migrations.VersionTable+" WHERE is_applied AND version_id > 0")
	if err != nil {
		return nil, fmt.Errorf("list the applied migrations: %w", err)
	}
	versions, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("list the applied migrations: %w", err)
	}
	return versions, nil
}

// apply applies the pending files in order and returns their names. Its caller holds the migration
// lock.
func (f *files) apply(
	ctx context.Context, conn *pgx.Conn, o Options,
) (applied []string, err error) {
	pending, err := f.pending(ctx, conn)
	if err != nil {
		return nil, err
	}
	if o.RoutinesAlone && len(pending) > 0 && len(pending) < len(f.texts) {
		return nil, &PendingError{pending}
	}
	leave := time.Time{}
	if o.Leave > 0 {
		leave = time.Now().Add(o.Leave)
	}
	for _, name := range pending {
		if err := f.applyOne(ctx, conn, name, leave); err != nil {
			return applied, err
		}
		applied = append(applied, name)
	}
	return applied, nil
}

// applyOne applies the next file. It first waits for the statements of a run that was cut off.
func (f *files) applyOne(
	ctx context.Context, conn *pgx.Conn, name string, leave time.Time,
) error {
	if err := f.awaitOrphans(ctx, conn, name, leave); err != nil {
		return err
	}
	repeatable := hasNoTransaction(f.texts[name])
	f.line.setPatient(repeatable)
	if repeatable {
		if err := f.dropInvalidIndexes(ctx, conn, name); err != nil {
			return err
		}
		if !leave.IsZero() {
			timer := time.AfterFunc(time.Until(leave), f.line.leave)
			defer timer.Stop()
		}
	}
	_, err := f.provider.UpByOne(ctx)
	switch {
	case err == nil:
		return nil
	case f.line.isLeft():
		return f.unfinished(ctx, conn, name)
	default:
		return fmt.Errorf("migrate: %w", err)
	}
}

// noTransaction is goose's mark of a file whose statements run each by itself.
var noTransaction = regexp.MustCompile(`(?m)^-- \+goose NO TRANSACTION\s*$`)

func hasNoTransaction(text string) bool { return noTransaction.MatchString(text) }

// orphanPause is how long a run waits before it looks again for the sessions of earlier runs.
const orphanPause = 250 * time.Millisecond

// awaitOrphans waits until no session of another run works any more. Postgres finishes a statement
// whose client is gone. It returns an *UnfinishedError when the time has come to leave.
func (f *files) awaitOrphans(
	ctx context.Context, conn *pgx.Conn, name string, leave time.Time,
) error {
	for {
		progress, err := f.orphanProgress(ctx, conn)
		if err != nil || progress == "" {
			return err
		}
		if !leave.IsZero() && time.Now().After(leave) {
			return &UnfinishedError{File: name, Progress: progress}
		}
		select {
		case <-ctx.Done():
			return &UnfinishedError{File: name, Progress: progress}
		case <-time.After(orphanPause):
		}
	}
}

// orphanSQL finds what the sessions of other runs do. A role sees its own sessions in full.
const orphanSQL = `
SELECT coalesce(
    (SELECT format('%s: %s, %s%%', p.command, p.phase, CASE
         WHEN p.blocks_total > 0 THEN 100 * p.blocks_done / p.blocks_total
         WHEN p.tuples_total > 0 THEN 100 * p.tuples_done / p.tuples_total ELSE 0 END)
     FROM pg_stat_progress_create_index p WHERE p.pid = a.pid AND p.datid = a.datid),
    'a statement that runs for ' || date_trunc('second', clock_timestamp() - a.query_start))
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.usename = current_user AND a.state = 'active'
  AND starts_with(a.application_name, $1) AND a.application_name <> $2
ORDER BY a.query_start LIMIT 1`

// orphanProgress says what a session of another run does, or nothing if there is none.
func (f *files) orphanProgress(ctx context.Context, conn *pgx.Conn) (progress string, err error) {
	err = conn.QueryRow(ctx, orphanSQL, lineNamePrefix, f.line.name).Scan(&progress)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for a migration that was cut off: %w", err)
	}
	return progress, nil
}

// unfinished makes the error of a file whose statement was just left to the database.
func (f *files) unfinished(ctx context.Context, conn *pgx.Conn, name string) error {
	var progress string
	err := conn.QueryRow(ctx, orphanSQL, lineNamePrefix, "").Scan(&progress)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look at a migration that was left: %w", err)
	}
	return &UnfinishedError{File: name, Progress: progress}
}
