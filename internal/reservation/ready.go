package reservation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/migrations"
)

// NotReadyError lists what keeps the service from reserving. The texts name settings, tables and
// files, and no secret.
type NotReadyError struct {
	// Settings are the server's settings that are wrong.
	Settings []string
	// Schema is what the tables lack.
	Schema []string
	// Routines are the files whose routines are missing, or of an older release.
	Routines []string
}

func (e *NotReadyError) Error() string {
	return "the database isn't ready: " +
		strings.Join(slices.Concat(e.Settings, e.Schema, e.Routines), "; ")
}

// release has the parts of this release that a database must have: for each file of routines its
// path, its hash and the number of its routines; the rights of the service's role; and the number
// of the newest migration.
type release struct {
	files, hashes               []string
	counts                      []int
	tables, privileges, columns []string
	version                     int64
}

// thisRelease reads the embedded files. They don't change, and a test reads them.
var thisRelease = sync.OnceValue(func() release {
	texts, err := migrations.Texts(migrations.Routines)
	if err != nil {
		panic(err)
	}
	var r release
	for file, text := range texts {
		if file == migrations.PreviousRelease {
			continue // this release doesn't call these
		}
		r.files = append(r.files, file)
		r.hashes = append(r.hashes, migrations.Hash(text))
		r.counts = append(r.counts, migrations.Definitions(text))
	}
	for _, right := range migrations.ServiceRights() {
		r.tables = append(r.tables, right.Table)
		r.privileges = append(r.privileges, right.Privilege)
		r.columns = append(r.columns, right.Columns)
	}
	if r.version, err = migrations.Version(migrations.Schema); err != nil {
		panic(err)
	}
	return r
})

// readySQL finds what a reserve lacks. Its rights are those of the service's role. A routine will
// do if its comment has the hash of this release's text: it is of this release, or of one that was
// installed after it. A newer release's routines answer this release's calls. When a deploy goes
// back, the newer release isn't ready any more.
var readySQL = `
WITH ours AS MATERIALIZED (
    SELECT d.description
    FROM pg_proc p
    JOIN pg_description d
      ON d.classoid = 'pg_proc'::regclass AND d.objoid = p.oid AND d.objsubid = 0
    WHERE p.pronamespace = 'public'::regnamespace AND starts_with(d.description, '` +
	migrations.CommentPrefix + `')
      AND pg_function_is_visible(p.oid) AND has_function_privilege(p.oid, 'EXECUTE')
)
SELECT ARRAY(` + postgres.BrokenRulesSQL(postgres.InHealth) + `),
       ARRAY(SELECT r.privilege || ' on ' || r.name || coalesce('.' || c.name, '') || ' is missing'
             FROM unnest($4::text[], $5::text[], $6::text[]) r (name, privilege, columns)
             LEFT JOIN LATERAL unnest(string_to_array(r.columns, ', ')) c (name) ON true
             WHERE CASE WHEN c.name IS NULL
                        THEN has_table_privilege(to_regclass(r.name), r.privilege)
                        ELSE has_column_privilege(
                            to_regclass(r.name),
                            (SELECT a.attnum FROM pg_attribute a
                             WHERE a.attrelid = to_regclass(r.name) AND a.attname = c.name),
                            r.privilege)
                   END IS NOT true),
       ARRAY(SELECT f.name
             FROM unnest($1::text[], $2::text[], $3::integer[]) f (name, hash, routines)
             WHERE f.routines > (SELECT count(*) FROM ours o
                                 WHERE strpos(o.description, f.hash) > 0)
             ORDER BY f.name),
       (SELECT max(version_id) FROM public.` + migrations.VersionTable + ` WHERE is_applied)`

// readyRow is the answer of readySQL.
type readyRow struct {
	Settings, Tables, Files []string
	Version                 *int64
}

// Ready checks what a reserve needs, short of writing: a connection, a server that can be written
// to and has the right settings, the tables, and the routines of this release or of a newer one. It
// takes one round trip on an open connection and keeps no result. It returns a *NotReadyError,
// ErrBusy or ErrUnavailable.
func (s *Service) Ready(ctx context.Context) error {
	want := thisRelease()
	row, err := queryRow(ctx, s, pgx.RowToStructByPos[readyRow], readySQL, want.files, want.hashes,
		want.counts, want.tables, want.privileges, want.columns)
	var unsafe *postgres.UnsafeServerError
	switch {
	case errors.As(err, &unsafe):
		return &NotReadyError{Settings: unsafe.Settings}
	case postgres.SchemaMissing(err):
		const missing = "the tables are missing, or the service's role has no rights on them: " +
			"the migrations haven't run"
		return &NotReadyError{Schema: []string{missing}}
	case err != nil:
		return fmt.Errorf("check the database: %w", err)
	}
	lacks := row.compare(want)
	if lacks == nil {
		return nil
	}
	if len(lacks.Settings) > 0 {
		s.pool.Reset() // after a fail-over, a new connection reaches the new writer
	}
	return lacks
}

// compare returns what the database lacks, or nil.
func (r readyRow) compare(want release) *NotReadyError {
	lacks := &NotReadyError{Settings: r.Settings, Schema: r.Tables}
	if r.Version == nil || *r.Version < want.version {
		lacks.Schema = append(lacks.Schema, fmt.Sprintf(
			"the schema is older than version %d of this release", want.version))
	}
	for _, file := range r.Files {
		lacks.Routines = append(lacks.Routines, file+" isn't installed in this release's text")
	}
	if len(lacks.Settings)+len(lacks.Schema)+len(lacks.Routines) == 0 {
		return nil
	}
	return lacks
}
