package pgtest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// NewServer starts a server for this test alone, with a migrated database on it. The test may kill
// the server or change its settings. The given settings replace Postgres's defaults. The server is
// stopped when the test ends.
func NewServer(t testing.TB, settings map[string]string) (*pgserver.Server, Database) {
	t.Helper()
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	binDir, err := pgserver.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	dataDir := filepath.Join(t.TempDir(), dataName)
	server, err := pgserver.Start(ctx,
		pgserver.Config{BinDir: binDir, DataDir: dataDir, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	})
	url := server.URL(maintenance)
	if _, err := migrate.Up(ctx, postgres.URL(url)); err != nil {
		t.Fatal(err)
	}
	return server, Database{URL: url, DirectURL: url, Name: maintenance}
}
