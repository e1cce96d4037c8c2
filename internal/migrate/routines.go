package migrate

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/migrations"
)

// retiredMark stands in the place of the hash in the comment of a routine that has lost its file.
// Package migrations has the form of the comments.
const retiredMark = "retired"

// keepHashes is how many earlier texts of a routine its comment tells. A release that is still
// served, during a deploy or before one goes back, is the last or the last but one.
const keepHashes = 20

// keepRetired is how long a retired routine stays. An operator may go back to the previous release
// for as long. It is counted in time and not in deploys, because a deploy may fail and be repeated.
const keepRetired = 7 * 24 * time.Hour

// routine is an installed function or procedure of ours.
type routine struct {
	Signature string   // as regprocedure writes it, fit for DROP ROUTINE
	File      string   // the file that last defined it
	Mark      string   // the hash of that file's text, or retiredMark
	Overdue   bool     // it was retired longer than keepRetired ago
	Hashes    []string // of the texts that it has had, the latest first
}

// history is the end of a routine's comment: the hashes of the texts that it had before hash. When
// a deploy goes back to hash, the texts that came after it aren't told any more.
func (r routine) history(hash string) string {
	earlier := r.Hashes[slices.Index(r.Hashes, hash)+1:]
	var b strings.Builder
	for _, h := range earlier[:min(len(earlier), keepHashes)] {
		b.WriteString(" " + h)
	}
	return b.String()
}

// routineChange is the difference between the folder and the installed routines.
type routineChange struct {
	texts   map[string]string // the text of each file in the folder, by its path
	before  []routine         // the installed routines
	files   []string          // the files to install, in order
	removed bool              // a routine has lost its file, or is overdue
}

func (c routineChange) none() bool { return len(c.files) == 0 && !c.removed }

// installed returns the routine that was installed with a signature, or one without a text.
func (c routineChange) installed(signature string) routine {
	for _, r := range c.before {
		if r.Signature == signature {
			return r
		}
	}
	return routine{}
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// planRoutines compares the folder with the installed routines.
func planRoutines(ctx context.Context, db querier, folder fs.FS) (c routineChange, err error) {
	if c.texts, err = migrations.Texts(folder); err != nil {
		return c, err
	}
	if c.before, err = installedRoutines(ctx, db); err != nil {
		return c, err
	}
	c.files = changedFiles(c.texts, c.before)
	for _, r := range c.before {
		_, there := c.texts[r.File]
		c.removed = c.removed || r.Overdue || !there && r.Mark != retiredMark
	}
	return c, nil
}

// installRoutines installs the changed files, retires and drops old routines, and returns the files
// that it installed. Its caller holds the migration lock. When nothing has changed, it writes
// nothing.
func installRoutines(
	ctx context.Context, conn *pgx.Conn, folder fs.FS,
) (installed []string, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		change, err := planRoutines(ctx, tx, folder)
		if err != nil || change.none() {
			return err
		}
		defined := map[string]string{} // the file of each signature that this transaction installs
		for _, file := range change.files {
			if err := change.installFile(ctx, tx, file, defined); err != nil {
				return err
			}
		}
		installed = change.files
		return retire(ctx, tx, change, defined)
	})
	if err != nil {
		return nil, fmt.Errorf("install the routines: %w", err)
	}
	return installed, nil
}

// installedRoutines lists the routines of the schema public that carry our comment.
func installedRoutines(ctx context.Context, db querier) ([]routine, error) {
	const sql = `
SELECT p.oid::regprocedure::text,
       split_part(d.description, ' ', 2), split_part(d.description, ' ', 3),
       CASE split_part(d.description, ' ', 3) WHEN 'retired'
       THEN split_part(d.description, ' ', 4)::timestamptz < clock_timestamp() - $2::interval
       ELSE false END,
       ARRAY(SELECT m[1] FROM regexp_matches(d.description, '\m[0-9a-f]{64}\M', 'g') m)
FROM pg_proc p
JOIN pg_description d ON d.classoid = 'pg_proc'::regclass AND d.objoid = p.oid AND d.objsubid = 0
WHERE p.pronamespace = 'public'::regnamespace AND starts_with(d.description, $1)
ORDER BY 1`
	rows, err := db.Query(ctx, sql, migrations.CommentPrefix, keepRetired)
	if err != nil {
		return nil, fmt.Errorf("list the installed routines: %w", err)
	}
	routines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[routine])
	if err != nil {
		return nil, fmt.Errorf("list the installed routines: %w", err)
	}
	return routines, nil
}

// changedFiles lists, in order, each file that has a routine not installed from its present text.
func changedFiles(texts map[string]string, before []routine) []string {
	current := map[string]int{}
	for _, r := range before {
		if r.Mark == migrations.Hash(texts[r.File]) {
			current[r.File]++
		}
	}
	var changed []string
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if n := migrations.Definitions(texts[file]); n == 0 || current[file] != n {
			changed = append(changed, file)
		}
	}
	return changed
}

// installFile runs a file. It marks the routines that the file defined and adds them to defined.
func (c routineChange) installFile(
	ctx context.Context, tx pgx.Tx, file string, defined map[string]string,
) error {
	text := c.texts[file]
	if _, err := tx.Exec(ctx, text); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	const sql = `
SELECT oid::regprocedure::text FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND xmin = pg_current_xact_id()::xid
ORDER BY 1`
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return fmt.Errorf("list the routines of %s: %w", file, err)
	}
	signatures, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list the routines of %s: %w", file, err)
	}
	n := 0
	for _, signature := range signatures {
		if defined[signature] != "" {
			continue
		}
		defined[signature] = file
		n++
		hash := migrations.Hash(text)
		words := hash + c.installed(signature).history(hash)
		if err := mark(ctx, tx, signature, file, words); err != nil {
			return err
		}
	}
	if want := migrations.Definitions(text); n == 0 || n != want {
		return fmt.Errorf("%s has %d definitions and installed %d new routines", file, want, n)
	}
	return nil
}

// retire marks the routines that the folder no longer defines, and drops the overdue ones.
func retire(ctx context.Context, tx pgx.Tx, change routineChange, defined map[string]string) error {
	for _, r := range change.before {
		unchanged := r.Mark == migrations.Hash(change.texts[r.File])
		switch {
		case defined[r.Signature] != "" || unchanged:
		case r.Mark == retiredMark && !r.Overdue:
		case r.Mark == retiredMark:
			if _, err := tx.Exec(ctx, "DROP ROUTINE "+r.Signature); err != nil {
				return fmt.Errorf("drop %s: %w", r.Signature, err)
			}
		default:
			now, err := databaseTime(ctx, tx)
			if err != nil {
				return err
			}
			words := retiredMark + " " + now + r.history("")
			if err := mark(ctx, tx, r.Signature, r.File, words); err != nil {
				return err
			}
		}
	}
	return nil
}

// databaseTime is the database's clock as a mark has it: RFC 3339 in whole seconds.
func databaseTime(ctx context.Context, tx pgx.Tx) (now string, err error) {
	const sql = `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`
	if err := tx.QueryRow(ctx, sql).Scan(&now); err != nil {
		return "", fmt.Errorf("read the clock: %w", err)
	}
	return now, nil
}

// mark sets a routine's comment: its file, and the words behind it.
func mark(ctx context.Context, tx pgx.Tx, signature, file, words string) error {
	comment := migrations.CommentPrefix + file + " " + words
	statement := fmt.Sprintf("COMMENT ON ROUTINE %s IS '%s'",
		signature, strings.ReplaceAll(comment, "'", "''"))
	if _, err := tx.Exec(ctx, statement); err != nil {
		return fmt.Errorf("comment on %s: %w", signature, err)
	}
	return nil
}
