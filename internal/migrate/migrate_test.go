package migrate_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
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
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || !slices.Equal(got, want) {
		t.Errorf("Up() = %v, %v, want %v", got, err, want)
	}
	if got, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil || len(got) != 0 {
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
			applied, err := migrate.Up(context.Background(), postgres.URL(url))
			results <- result{applied, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || (len(a.applied) == 0) == (len(b.applied) == 0) {
		t.Errorf("two Up() at once = %v, %v and %v, %v, want all applied by one of them", a.applied, a.err, b.applied, b.err)
	}
}

// A database that an earlier version has worked on keeps its holds, and the new verbs take them on.
func TestUpTakesOverTheHoldsOfTheVersionBefore(t *testing.T) {
	t.Parallel()

	url := empty(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	const id = "0192d000-0000-7000-8000-000000000009"
	for _, statement := range []string{
		"INSERT INTO products VALUES ('" + id + "', 'mug', 'M')", "INSERT INTO warehouses VALUES ('" + id + "', 'here')",
		"INSERT INTO inventory (product_id, warehouse_id, total) VALUES ('" + id + "', '" + id + "', 2)",
		"CALL reserve_line_early('" + id + "', '" + id + "', '" + id + "', 1, '1 min', 'key', sha256('x'), NULL, NULL)",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}

	if _, err := migrate.Up(t.Context(), postgres.URL(url)); err != nil {
		t.Fatal(err)
	}

	pool, err := postgres.Open(postgres.URL(url), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	service := reservation.New(pool, reservation.Options{HoldTTL: time.Minute, MaxHold: time.Hour})
	answer, err := service.Confirm(t.Context(), uuid.MustParse(id), "")
	if err != nil || answer.Hold.Status != reservation.Confirmed {
		t.Errorf("Confirm() of the old hold = %+v, %v, want it confirmed", answer, err)
	}
	if violations, err := service.Audit(t.Context()); err != nil || len(violations) > 0 {
		t.Errorf("Audit() = %v, %v, want none", violations, err)
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
