package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
)

// The deploy invokes the migrate function before any other function gets traffic, and again
// whenever it changes.
func TestMigrateFunctionAppliesMissingMigrations(t *testing.T) {
	t.Parallel()

	migrate := local.NewRuntime(local.RuntimeConfig{
		Name:   "migrate",
		Binary: filepath.Join(builttest.Functions(t, "e2e"), "migrate", "bootstrap"),
		Env:    []string{"DATABASE_URL=" + pgtest.NewEmpty(t).URL}, Timeout: time.Minute,
		Stdout: t.Output(), Stderr: t.Output(),
	})
	defer func() {
		if err := migrate.Close(); err != nil {
			t.Error(err)
		}
	}()
	applied := func() []string {
		t.Helper()
		got, err := migrate.Invoke(t.Context(), []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		var report struct{ Applied []string }
		if err := json.Unmarshal(got, &report); err != nil {
			t.Fatalf("migrate answered %s: %v", got, err)
		}
		return report.Applied
	}
	if got := applied(); !slices.Contains(got, "0001_schema.sql") ||
		!slices.Contains(got, "procedures/reserve_line.sql") {
		t.Errorf("the first deploy applied %v, want the schema and the routines", got)
	}
	if got := applied(); len(got) != 0 {
		t.Errorf("the second deploy applied %v, want nothing", got)
	}
}
