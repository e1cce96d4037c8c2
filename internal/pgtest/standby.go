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
		err = errors.Join(copyCluster(copied, source), primary.Restart(ctx),
			os.WriteFile(filepath.Join(copied, "standby.signal"), nil, 0o600))
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
