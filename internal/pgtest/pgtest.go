// Package pgtest gives every test a Postgres database of its own: a fresh clone of a template that
// has all migrations.
//
// The first call of New starts one server for the whole test program, in a temporary directory. It
// is in memory where there is room, unless TMPDIR names another one. The server's settings are as
// durable as those of a production server: the service refuses a server without fsync. A test that
// kills its server needs one of its own, from [NewServer], whose files are in t.TempDir. A package
// that uses pgtest needs this function:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// With ALLO_TEST_PGBOUNCER=1 in the environment, the service under test reaches its database
// through a PgBouncer in transaction mode, as it may in production. Session settings, prepared
// statements and other features that such a pooler can't carry then fail. This needs the program
// pgbouncer. Apart from internal/config, this is the only package that reads the environment.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
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
	// startTimeout bounds the start of initdb, the server, the migrations and PgBouncer together. It
	// takes two seconds on a laptop, and many times that on a build machine that runs the tests of
	// all packages at once.
	startTimeout = 2 * time.Minute

	// cloneTimeout bounds making or dropping one database. That takes a tenth of a second, unless
	// other tests saturate the disk.
	cloneTimeout = time.Minute

	// closeTimeout bounds the closing of a connection.
	closeTimeout = time.Second
)

// dirPrefix begins the name of every test program's temporary directory, and
// dataName is the data directory's name in it.
const (
	dirPrefix = "allo-pgtest-"
	dataName  = "data"
)

// inMemory is Linux's file system in memory. The shared server's files are there if memoryLeast
// bytes are free in it and in the memory, and else in the system's temporary directory. Each test
// makes a database of hundreds of files and removes it. On ext4 that took a quarter of
// internal/reservation's time. The servers of `make test` have up to 1.4 GB at once; memoryLeast
// leaves room for some programs that start together, and for the tests themselves.
const (
	inMemory    = "/dev/shm"
	memoryLeast = 8 << 30
)

// template is the database with all migrations. Every test's database is a clone of it.
const template = "allo_template"

// maintenance is the database that we connect to for making and dropping others.
const maintenance = "postgres"

// settings make tests quick and keep commits durable. No test runs long enough to need a checkpoint
// or an autovacuum, which would only compete for the disk.
var settings = map[string]string{
	"max_connections":                 "500", // many tests run at once, each with a pool
	"shared_buffers":                  "64MB",
	"checkpoint_timeout":              "1h",
	"max_wal_size":                    "4GB",
	"autovacuum":                      "off",
	"max_logical_replication_workers": "0", // one process less to start and stop
	"log_line_prefix":                 logPrefix + "%d ",
}

// logPrefix begins the first line of each of the shared server's messages. Then comes the database.
const logPrefix = "database "

// Database is one test's database.
type Database struct {
	// URL is for the service under test. It leads to the server itself, or with
	// ALLO_TEST_PGBOUNCER=1 through PgBouncer.
	URL string

	// DirectURL always leads to the server itself.
	DirectURL string

	// Name is the database's name.
	Name string
}

// shared is the cluster of all tests of the program. It is a package variable, because the testing
// package offers no other place that outlives a test.
var shared cluster

// cluster is the server with the template, and the pooler in front of it.
type cluster struct {
	start sync.Once
	err   error // the reason for which the start failed, reported to every test

	dir     string
	server  *pgserver.Server
	pooler  *pooler    // nil unless the environment asks for one
	clone   sync.Mutex // held while the template is copied; guards counter
	counter int        // the number of clones so far

	prepare     sync.Once // makes the data of servers of their own
	pristine    string    // its directory, once it is made
	pristineErr error
}

// Main runs a package's tests, stops the server if they started one, and exits with the tests'
// result. It also stops the server when the tests are interrupted. A second interrupt ends the
// program at once.
func Main(m *testing.M) {
	ctx, restoreDefault := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		restoreDefault()
		exit(1)
	}()
	exit(m.Run())
}

// exit stops the shared server and ends the program. It may be called twice, at the end of the
// tests and by an interrupt. The second call finds the server stopped.
func exit(code int) {
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New makes a database for one test, with all migrations and nothing else in it. It is dropped when
// the test ends, even if there are connections left.
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

// Server returns the server that all tests of this program share. A test that kills a server needs
// one of its own, from [NewServer].
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	return running(t).server
}

// Deadlocks returns what the shared server's log says of the deadlocks in a database: who waited
// for whom, in which statements and functions. A session that tries again doesn't tell.
func Deadlocks(t testing.TB, db Database) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(running(t).dir, "postgres.log"))
	if err != nil {
		t.Logf("pgtest: %v", err)
	}
	var found strings.Builder
	told := false // whether the message is about a deadlock
	for message := range strings.SplitSeq(string(text), "\n"+logPrefix) {
		rest, isOurs := strings.CutPrefix(message, db.Name+" ")
		switch {
		case !isOurs:
			continue
		case strings.HasPrefix(rest, "ERROR:"):
			told = strings.Contains(rest, "deadlock detected")
		}
		if told {
			found.WriteString(rest + "\n")
		}
	}
	return found.String()
}

// running returns the shared cluster. The first call starts it.
func running(t testing.TB) *cluster {
	t.Helper()
	shared.start.Do(func() {
		// The start mustn't depend on the first test's context, which ends with that test.
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
	if c.dir, err = os.MkdirTemp(serverDir(), dirPrefix); err != nil {
		return fmt.Errorf("make a directory for the server: %w", err)
	}
	// For root the server runs as another user, which must be able to enter the directory. The data
	// directory in it has a stricter mode of its own.
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
	if isPooled() {
		c.pooler, err = startPooler(ctx, filepath.Join(c.dir, "pgbouncer"), c.server)
	}
	return err
}

// serverDir returns the directory in which the shared server's own is made.
func serverDir() string {
	var system syscall.Statfs_t
	err := syscall.Statfs(inMemory, &system)
	if err != nil || os.Getenv("TMPDIR") != "" || freeMemory() < memoryLeast ||
		system.Bavail*uint64(system.Bsize) < memoryLeast {
		return os.TempDir()
	}
	return inMemory
}

// freeMemory returns how many bytes of memory Linux can still give, or 0 where that is unknown.
func freeMemory() uint64 {
	text, _ := os.ReadFile("/proc/meminfo")
	_, rest, _ := strings.Cut(string(text), "\nMemAvailable:")
	var kilobytes uint64
	_, _ = fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10
}

// checkout finds the root of the module. go test runs a package's tests in the package's directory,
// which is below it.
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

// makeTemplate makes the database with all migrations. It then forbids connections to it, because
// Postgres clones only a database that has none.
func (c *cluster) makeTemplate(ctx context.Context) error {
	if err := c.exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	if _, err := migrate.Up(ctx, postgres.URL(c.server.URL(template))); err != nil {
		return err
	}
	return c.exec(ctx, "ALTER DATABASE "+template+" WITH ALLOW_CONNECTIONS false")
}

// newClone makes a copy of the template and returns its name.
func (c *cluster) newClone() (name string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloneTimeout)
	defer cancel()
	if name, err = c.cloneTemplate(ctx); err != nil {
		return "", err
	}
	// The role's settings belong to one database, and CREATE DATABASE doesn't copy them.
	return name, migrate.Defaults(ctx, postgres.URL(c.server.URL(name)))
}

// cloneTemplate copies the template, for one caller at a time. Two copies at once would fight for
// the template and for the disk.
func (c *cluster) cloneTemplate(ctx context.Context) (string, error) {
	c.clone.Lock()
	defer c.clone.Unlock()
	c.counter++
	name := fmt.Sprintf("allo_test_%d", c.counter)
	return name, c.exec(ctx,
		"CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+template)
}

// drop removes a database and ends its connections. It does nothing when a test has stopped the
// server.
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

// exec runs one statement over a new connection. A kept connection would break when a test restarts
// the server.
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

// errStopped is the error of a test that asks for a database after the cluster has stopped.
var errStopped = errors.New("the tests are over")

// stop ends the processes that launch started and removes their files, even if launch failed half
// way. It waits for a running launch and prevents a later one.
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

// removeLeftovers removes the directories of killed test programs. It leaves a directory alone when
// a server still uses it, and when removing fails, as it does for another user's directory.
func removeLeftovers() {
	var dirs []string
	for _, parent := range []string{os.TempDir(), inMemory} {
		found, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*")) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < startTimeout {
			continue // it may be so new that its server hasn't started yet
		}
		if !pgserver.InUse(filepath.Join(dir, dataName)) {
			_ = os.RemoveAll(dir)
		}
	}
}
