package e2e

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
)

// The deploy invokes the migrate function before any other function gets traffic, and again
// whenever it changes.
func TestMigrateFunctionAppliesMissingMigrations(t *testing.T) {
	t.Parallel()

	server := pgtest.Server(t)
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name := "deployed_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(t.Context(),
		"CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	migrate := local.NewRuntime(local.RuntimeConfig{
		Name:   "migrate",
		Binary: filepath.Join(builttest.Functions(t, "e2e"), "migrate", "bootstrap"),
		Env:    []string{"DATABASE_URL=" + server.URL(name)}, Timeout: time.Minute,
		Stdout: t.Output(), Stderr: t.Output(),
	})
	defer func() {
		if err := migrate.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, want := range []string{`{"applied":["0001_schema.sql","0002_verbs.sql","0003_lean_verbs.sql","0004_leaner_verbs.sql","0005_operator.sql"]}`, `{"applied":[]}`} {
		if got, err := migrate.Invoke(t.Context(), []byte("{}")); err != nil ||
			string(got) != want {
			t.Errorf("migrate = %s, %v, want %s", got, err, want)
		}
	}
}
