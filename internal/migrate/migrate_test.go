package migrate_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// empty makes a database without anything in it.
func empty(t *testing.T) string {
	t.Helper()
	server := pgtest.Server(t)
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name := "empty_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	return server.URL(name)
}

func TestUpAppliesWhatIsMissingAndThenNothing(t *testing.T) {
	t.Parallel()

	url := empty(t)
	want, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := migrate.Up(t.Context(), url); err != nil || !slices.Equal(got, want) {
		t.Errorf("Up() = %v, %v, want %v", got, err, want)
	}
	if got, err := migrate.Up(t.Context(), url); err != nil || len(got) != 0 {
		t.Errorf("second Up() = %v, %v, want nothing to do", got, err)
	}
}

func TestTwoDeploysAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()

	url := empty(t)
	type result struct {
		applied []string
		err     error
	}
	results := make(chan result, 2)
	for range 2 {
		go func() {
			applied, err := migrate.Up(context.Background(), url)
			results <- result{applied, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || (len(a.applied) == 0) == (len(b.applied) == 0) {
		t.Errorf("two Up() at once = %v, %v and %v, %v, want all applied by one of them", a.applied, a.err, b.applied, b.err)
	}
}

func TestTheRoleWaitsNoLongerThanItShould(t *testing.T) {
	t.Parallel()

	conn, err := pgx.Connect(t.Context(), pgtest.New(t).DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for name, want := range map[string]string{
		"lock_timeout": "2s", "statement_timeout": "5s", "idle_in_transaction_session_timeout": "10s",
		"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestMigrationsAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()

	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if want := fmt.Sprintf("%04d_", i+1); name[:5] != want {
			t.Errorf("migration %d is %s, want it to begin with %s", i+1, name, want)
		}
	}
}
