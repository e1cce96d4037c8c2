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
	return newServer(t, pgserver.Config{Settings: settings})
}

// newServer starts the server of a configuration that lacks only its directories.
func newServer(t testing.TB, config pgserver.Config) (*pgserver.Server, Database) {
	t.Helper()
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	if config.BinDir, err = pgserver.Find(root); err != nil {
		t.Fatal(err)
	}
	config.DataDir = filepath.Join(t.TempDir(), dataName)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	server, err := pgserver.Start(ctx, config)
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
