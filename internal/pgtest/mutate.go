package pgtest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Mutate takes old out of the source of one of the database's functions and puts replacement in: a negative control, which shows what old
// is for. It fails the test where the function doesn't have it.
func Mutate(t testing.TB, db Database, function, old, replacement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var source string
	if err := conn.QueryRow(t.Context(), "SELECT pg_get_functiondef($1::regproc)", function).Scan(&source); err != nil {
		t.Fatalf("read the source of %s: %v", function, err)
	}
	mutated := strings.ReplaceAll(source, old, replacement)
	if mutated == source {
		t.Fatalf("the source of %s has no %q: the control must follow the statement that it mutates", function, old)
	}
	if _, err := conn.Exec(t.Context(), mutated); err != nil {
		t.Fatalf("mutate %s: %v", function, err)
	}
}
