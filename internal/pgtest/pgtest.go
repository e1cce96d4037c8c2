// Package pgtest gives every test a Postgres database of its own: a fresh clone
// of one that has all migrations.
//
// One server per test program starts with the first call of New, in a temporary
// directory, and is as durable as production's: the service refuses a server
// without fsync, and a test of a crash would prove nothing on one. A package
// that uses it says so once:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// With ALLO_TEST_PGBOUNCER=1 in the environment the service under test reaches
// its database through a PgBouncer in transaction mode, as it may in production:
// what a pooler can't carry, such as settings of a session or prepared
// statements, then fails here. It takes a pgbouncer on this machine. Besides
// internal/config this package is the only one that reads the environment.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
	"github.com/jackc/pgx/v5"
)

const (
	// startTimeout bounds the start of everything the tests share: initdb, the
	// server, the migrations and PgBouncer take two seconds on a laptop and many
	// times that on a build machine that runs every package's tests at once.
	startTimeout = 2 * time.Minute

	// cloneTimeout bounds making or dropping one database, which takes a tenth of
	// a second unless a disk is saturated by the tests that run beside it.
	cloneTimeout = time.Minute

	// closeTimeout bounds the goodbye to a server that has answered already.
	closeTimeout = time.Second
)

// dirPrefix begins the name of every test program's temporary directory, and
// dataName is the data directory's name in it.
const (
	dirPrefix = "allo-pgtest-"
	dataName  = "data"
)

// template is the database with all migrations that every test's is cloned from.
const template = "allo_template"

// maintenance is the database we connect to in order to make and drop others.
const maintenance = "postgres"

// settings make tests quick without making anything less durable. No test lives
// long enough for a checkpoint or an autovacuum to matter, and either would
// only compete for the disk.
var settings = map[string]string{
	"max_connections":                 "300", // Many tests at once, each with a pool.
	"shared_buffers":                  "64MB",
	"checkpoint_timeout":              "1h",
	"max_wal_size":                    "4GB",
	"autovacuum":                      "off",
	"max_logical_replication_workers": "0", // One process less to start and stop.
}

// Database is one test's database.
type Database struct {
	// URL is what the service connects to: the server itself, or the PgBouncer
	// before it when ALLO_TEST_PGBOUNCER=1.
	URL string

	// DirectURL always leads to the server itself.
	DirectURL string

	// Name is the database's name.
	Name string
}

// shared is what all tests of a program use. It is the one package-level state
// here, because the testing package offers no other place that outlives a test.
var shared cluster

// cluster is the server, the template on it, and the pooler before it.
type cluster struct {
	start sync.Once
	err   error // Why there is none, for every test that asks.

	dir     string
	server  *pgserver.Server
	pooler  *pooler // Nil unless the environment asks for one.
	clone   sync.Mutex
	counter int // Of clones; guarded by clone.
}

// Main runs a package's tests, stops the server that they started, if they did,
// and exits with the tests' result. It also stops the server when the tests are
// interrupted; a second interrupt doesn't wait for that.
func Main(m *testing.M) {
	ctx, restoreDefault := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		restoreDefault()
		exit(1)
	}()
	exit(m.Run())
}

// exit stops the shared server and ends the program. Whoever comes second, of
// the tests' end and an interrupt, finds the server stopped and changes nothing.
func exit(code int) {
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns a database for one test, with all migrations and nothing else in
// it. It is dropped when the test ends, whoever is still connected.
func New(t testing.TB) Database {
	t.Helper()
	c := running(t)
	name, err := c.newClone()
	if err != nil {
		t.Fatalf("pgtest: make a database: %v", err)
	}
	t.Cleanup(func() {
		if err := c.drop(name); err != nil {
			t.Errorf("pgtest: drop database %s: %v", name, err)
		}
	})
	db := Database{DirectURL: c.server.URL(name), Name: name}
	db.URL = db.DirectURL
	if c.pooler != nil {
		db.URL = c.pooler.url(db.DirectURL)
	}
	return db
}

// Server returns the server that all tests of this program share. A test that
// kills it must not run beside others.
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	return running(t).server
}

// running returns the shared cluster, started by whoever comes first.
func running(t testing.TB) *cluster {
	t.Helper()
	shared.start.Do(func() {
		// The first test's context would end the start with that test.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		shared.err = shared.launch(ctx)
	})
	if shared.err != nil {
		t.Fatalf("pgtest: %v", shared.err)
	}
	return &shared
}

// launch starts the server and makes the template.
func (c *cluster) launch(ctx context.Context) (err error) {
	root, err := checkout()
	if err != nil {
		return err
	}
	binDir, err := pgserver.Find(root)
	if err != nil {
		return err
	}
	removeLeftovers()
	if c.dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return fmt.Errorf("make a directory for the server: %w", err)
	}
	// As root the server runs as another user, who must pass through here. What
	// is secret below has a mode of its own.
	if err := os.Chmod(c.dir, 0o711); err != nil {
		return fmt.Errorf("open the server's directory: %w", err)
	}
	c.server, err = pgserver.Start(ctx, pgserver.Config{
		BinDir: binDir, DataDir: filepath.Join(c.dir, dataName), Settings: settings,
	})
	if err != nil {
		return err
	}
	if err := c.makeTemplate(ctx); err != nil {
		return err
	}
	if os.Getenv("ALLO_TEST_PGBOUNCER") == "1" {
		c.pooler, err = startPooler(ctx, filepath.Join(c.dir, "pgbouncer"), c.server)
	}
	return err
}

// checkout finds the root of the module, above the directory in which go test
// runs a package's tests.
func checkout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: there is no go.mod above %s", start)
		}
	}
}

// makeTemplate makes the database with all migrations, then closes it: Postgres
// clones only a database to which nobody is connected.
func (c *cluster) makeTemplate(ctx context.Context) error {
	if err := c.exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	if _, err := migrate.Up(ctx, postgres.URL(c.server.URL(template))); err != nil {
		return err
	}
	return c.exec(ctx, "ALTER DATABASE "+template+" WITH ALLOW_CONNECTIONS false")
}

// newClone makes a database of the template and returns its name.
func (c *cluster) newClone() (name string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloneTimeout)
	defer cancel()
	if name, err = c.cloneTemplate(ctx); err != nil {
		return "", err
	}
	// A clone has what is in the template, and not what is said about it: the
	// role's settings belong to the database's name.
	return name, migrate.Defaults(ctx, postgres.URL(c.server.URL(name)))
}

// cloneTemplate copies the template, one caller at a time: two copies at once
// would meet in the template and on the disk.
func (c *cluster) cloneTemplate(ctx context.Context) (string, error) {
	c.clone.Lock()
	defer c.clone.Unlock()
	c.counter++
	name := fmt.Sprintf("allo_test_%d", c.counter)
	return name, c.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+template)
}

// drop removes a database and everyone who is connected to it. A test may leave
// the server stopped; then there is nothing to tidy up.
func (c *cluster) drop(name string) error {
	select {
	case <-c.server.Done():
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), cloneTimeout)
	defer cancel()
	return c.exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// exec runs one statement over a connection of its own, so that a server that a
// test restarted is no obstacle to the next statement.
func (c *cluster) exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.server.URL(maintenance))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, conn.Close(ctx))
}

// errStopped is what a test hears that asks for a database after the end.
var errStopped = errors.New("the tests are over")

// stop ends what launch started, as far as it came, and removes its files. It
// waits for a launch that is under way, and prevents a later one.
func (c *cluster) stop() error {
	c.start.Do(func() { c.err = errStopped })
	var errs []error
	if c.pooler != nil {
		errs = append(errs, c.pooler.stop())
	}
	if c.server != nil {
		errs = append(errs, c.server.Stop())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// removeLeftovers removes the directories of test programs that were killed. A
// server that still runs on one ends by itself when its files are gone. It is
// only tidying: what can't be removed, such as another user's, stays.
func removeLeftovers() {
	// Glob fails only on a malformed pattern.
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < startTimeout {
			continue // It may be so young that its server isn't there yet.
		}
		if !pgserver.InUse(filepath.Join(dir, dataName)) {
			_ = os.RemoveAll(dir)
		}
	}
}
