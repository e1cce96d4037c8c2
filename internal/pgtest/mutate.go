package pgtest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Mutate replaces old by replacement in the source of one of the database's routines. It makes a
// negative control, which shows what old is for. It fails the test if the routine's source doesn't
// have old.
func Mutate(t testing.TB, db Database, routine, old, replacement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// The previous release's routine of the same name only calls the present one.
	const sql = `
SELECT pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND proname = $1
  AND coalesce(obj_description(oid, 'pg_proc'), '') NOT LIKE '%previous_release.sql%'`
	var source string
	if err := conn.QueryRow(t.Context(), sql, routine).Scan(&source); err != nil {
		t.Fatalf("read the source of %s: %v", routine, err)
	}
	mutated := strings.ReplaceAll(source, old, replacement)
	if mutated == source {
		t.Fatalf("the source of %s has no %q: the control must follow the statement", routine, old)
	}
	if _, err := conn.Exec(t.Context(), mutated); err != nil {
		t.Fatalf("mutate %s: %v", routine, err)
	}
}
