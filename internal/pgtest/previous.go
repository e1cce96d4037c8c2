package pgtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PreviousAudit runs the audit of the previous release and returns what it finds. Its statements
// are in internal/migrate/testdata/previous_audit.sql.
func PreviousAudit(t testing.TB, f *Fixture) (found []string) {
	t.Helper()
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "internal", "migrate", "testdata",
		"previous_audit.sql"))
	if err != nil {
		t.Fatal(err)
	}
	statements := strings.Split(string(text), "\n;\n")[1:]
	const want = 42
	if len(statements) != want {
		t.Fatalf("there are %d statements, want %d", len(statements), want)
	}
	for _, sql := range statements {
		rows, err := f.Admin.Query(f.Context(), sql, sliceOf(sql)...)
		if err != nil {
			t.Fatal(err)
		}
		details, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		found = append(found, details...)
	}
	return found
}

// sliceOf returns the bounds of a statement that reads a slice, which its first lines tell.
func sliceOf(sql string) (bounds []any) {
	for line := range strings.Lines(sql) {
		for _, prefix := range []string{"-- from ", "-- to "} {
			if bound, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), prefix); found {
				bounds = append(bounds, bound)
			}
		}
	}
	return bounds
}
