package pgtest

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/allo/reservations/internal/local/pgserver"
)

// StandbyName is the application_name by which a server knows its standby.
const StandbyName = "standby"

// NewStandby starts a server that follows the primary, which it reaches at the given host and port:
// the primary's own or a proxy's. The standby starts with a copy of the primary's data. To copy it,
// NewStandby stops the primary for a moment. The standby is stopped when the test ends.
func NewStandby(
	t testing.TB, primary *pgserver.Server, db Database, address string,
) (*pgserver.Server, Database) {
	t.Helper()
	source := QueryOne[string](NewFixtureOfSize(t, db, 1), "SHOW data_directory")
	copied := filepath.Join(t.TempDir(), dataName)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	err := primary.Stop()
	if err == nil {
		err = errors.Join(copyCluster(copied, source), primary.Restart(ctx))
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	binDir, err := pgserver.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	conninfo, err := replicationFrom(db.DirectURL, address)
	if err != nil {
		t.Fatal(err)
	}
	standby, err := pgserver.Start(ctx, pgserver.Config{
		BinDir: binDir, DataDir: copied,
		Settings: map[string]string{"primary_conninfo": conninfo, "max_connections": "300"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Errorf("stop the standby: %v", err)
		}
	})
	standbyURL := standby.URL(db.Name)
	return standby, Database{URL: standbyURL, DirectURL: standbyURL, Name: db.Name}
}

// copyCluster copies the data of a stopped server, with its password, and marks the copy as a
// standby's.
func copyCluster(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	password, err := os.ReadFile(from + ".password")
	if err != nil {
		return err
	}
	return errors.Join(
		os.Chmod(to, 0o700),
		os.WriteFile(to+".password", password, 0o600),
		os.WriteFile(filepath.Join(to, "standby.signal"), nil, 0o600),
	)
}

// replicationFrom returns the connection string of a standby whose primary has the URL and is
// reached at the address.
func replicationFrom(primaryURL, address string) (string, error) {
	u, err := url.Parse(primaryURL)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	password, _ := u.User.Password()
	return "host=" + host + " port=" + port + " user=" + u.User.Username() +
		" password=" + password + " application_name=" + StandbyName, nil
}
