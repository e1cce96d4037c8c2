package pgtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// NewServer starts a server for this test alone, with a migrated database on it. The test may kill
// the server or change its settings. The given settings replace Postgres's defaults. The server is
// stopped when the test ends.
//
// All these servers start with copies of one cluster, so their passwords and their system
// identifiers are equal. A copy takes a tenth of the time of initdb and the migrations.
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
	pristine, err := running(t).pristineData(config.BinDir)
	if err != nil {
		t.Fatal(err)
	}
	config.DataDir = filepath.Join(t.TempDir(), dataName)
	if err := copyCluster(config.DataDir, pristine); err != nil {
		t.Fatal(err)
	}
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
	return server, Database{URL: url, DirectURL: url, Name: maintenance}
}

// pristineData returns the data directory of a cluster whose server has stopped. Its database has
// all migrations. The first call makes it.
func (c *cluster) pristineData(binDir string) (string, error) {
	c.prepare.Do(func() {
		// This mustn't depend on the first test's context, which ends with that test.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		c.pristine = filepath.Join(c.dir, "pristine", dataName)
		server, err := pgserver.Start(ctx, pgserver.Config{BinDir: binDir, DataDir: c.pristine})
		if err != nil {
			c.pristineErr = err
			return
		}
		_, err = migrate.Up(ctx, postgres.URL(server.URL(maintenance)))
		c.pristineErr = errors.Join(err, server.Stop())
	})
	return c.pristine, c.pristineErr
}

// copyCluster copies the data of a stopped server, with its password.
func copyCluster(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	password, err := os.ReadFile(from + ".password")
	if err != nil {
		return err
	}
	return errors.Join(os.Chmod(to, 0o700), os.WriteFile(to+".password", password, 0o600))
}
