package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/jackc/pgx/v5"
)

const (
	// poolerStartTimeout bounds the start of PgBouncer, which takes milliseconds.
	poolerStartTimeout = 10 * time.Second

	// poolerStopTimeout bounds the end of PgBouncer after it was told to end at once.
	poolerStopTimeout = 5 * time.Second

	// poolerPollInterval is the pause between two tries to connect while PgBouncer starts.
	poolerPollInterval = 5 * time.Millisecond
)

// loopback is the address on which the server and PgBouncer listen.
const loopback = "127.0.0.1"

// poolerConfig is the whole of pgbouncer.ini. Its formatting verbs are the server's port,
// PgBouncer's port and the file with the password.
//
// Like managed poolers, it ignores no start-up parameter and resets nothing between transactions.
// It drops idle server connections soon, because each test has a database of its own and PgBouncer
// keeps a pool for each database.
const poolerConfig = `[databases]
* = host=127.0.0.1 port=%d

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 20
max_client_conn = 2000
server_reset_query =
server_idle_timeout = 5
`

// pooler is one PgBouncer.
type pooler struct {
	program string
	dir     string // of its files
	server  string // the URL of the server's own database
	port    int
	child   *pgserver.Child
}

// startPooler starts a PgBouncer for all databases of the server, with its files in dir. It returns
// when PgBouncer has carried a query.
func startPooler(ctx context.Context, dir string, server *pgserver.Server) (*pooler, error) {
	program, err := findPooler()
	if err != nil {
		return nil, err
	}
	p := &pooler{program: program, dir: dir, server: server.URL(maintenance)}
	if p.port, err = pgserver.FreePort(); err != nil {
		return nil, err
	}
	if err := p.configure(); err != nil {
		return nil, fmt.Errorf("configure pgbouncer: %w", err)
	}
	return p, p.start(ctx)
}

// start runs the program and waits until it carries a query. It may be called again after an end.
func (p *pooler) start(ctx context.Context) error {
	// PgBouncer, like Postgres, refuses to be root.
	attr, err := pgserver.Unprivileged(p.dir)
	if err != nil {
		return err
	}
	// ctx bounds the start only, and PgBouncer runs on after it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.program,
		filepath.Join(p.dir, "pgbouncer.ini"))
	cmd.SysProcAttr = attr
	cmd.Dir = "/" // PgBouncer's user may not be allowed to enter our directory
	log := filepath.Join(p.dir, "pgbouncer.log")
	if err := p.spawn(cmd, log); err != nil {
		return fmt.Errorf("start pgbouncer: %w", err)
	}
	if err := p.await(ctx); err != nil {
		text, _ := os.ReadFile(log) // without the log the error is still useful
		return errors.Join(fmt.Errorf("start pgbouncer: %w: %s", err, text), p.stop())
	}
	return nil
}

// isPooled is true when the service under test reaches its database through PgBouncer.
func isPooled() bool { return os.Getenv("ALLO_TEST_PGBOUNCER") == "1" }

// WithoutPooler skips a test that cancels statements when the tests run through a pooler. Debian's
// PgBouncer 1.18 may crash on a request to cancel (its issue 801), and then all other tests fail.
func WithoutPooler(t testing.TB) {
	t.Helper()
	if isPooled() {
		t.Skip("PgBouncer 1.18 may crash over a cancelled statement")
	}
}

// Pooler is a PgBouncer in transaction mode, for one test.
type Pooler struct{ pooler *pooler }

// NewPooler starts a PgBouncer in front of the server. It skips the test when PgBouncer isn't
// installed.
func NewPooler(t testing.TB, server *pgserver.Server) *Pooler {
	t.Helper()
	if _, err := findPooler(); err != nil {
		t.Skip(err)
	}
	// For root PgBouncer runs as another user, which may not enter t.TempDir.
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, err := startPooler(ctx, filepath.Join(dir, "pgbouncer"), server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	return &Pooler{p}
}

// URL turns a database's direct URL into one that leads through the pooler.
func (p *Pooler) URL(direct string) string { return p.pooler.url(direct) }

// Restart kills the pooler and with it all connections, and starts it again on the same port.
func (p *Pooler) Restart(ctx context.Context) error {
	// Newer PgBouncers wait for their clients when they get SIGTERM.
	if err := p.pooler.child.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.pooler.child.WaitFor(poolerStopTimeout) {
		return fmt.Errorf("pgbouncer survived SIGKILL for %s", poolerStopTimeout)
	}
	return p.pooler.start(ctx)
}

// spawn starts the program and sends its output to the log file.
func (p *pooler) spawn(cmd *exec.Cmd, log string) error {
	file, err := os.Create(log)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // the child has its own copy, and we wrote nothing
	cmd.Stdout, cmd.Stderr = file, file
	// An older PgBouncer ends at once on SIGTERM. A newer one waits for its clients first.
	p.child, err = pgserver.Spawn(cmd, syscall.SIGTERM)
	return err
}

// findPooler returns the path of pgbouncer. Debian puts it into /usr/sbin, which isn't on an
// ordinary user's PATH.
func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", errors.New("pgbouncer isn't installed: run `apt-get install pgbouncer`, " +
		"or unset ALLO_TEST_PGBOUNCER")
}

// configure writes PgBouncer's files. The password is in plain text, because PgBouncer logs in to
// the server with it.
func (p *pooler) configure() error {
	server, err := url.Parse(p.server)
	if err != nil {
		return err
	}
	serverPort, err := strconv.Atoi(server.Port())
	if err != nil {
		return err
	}
	password, _ := server.User.Password() // every URL of pgserver has one
	users := filepath.Join(p.dir, "userlist.txt")
	ini := fmt.Appendf(nil, poolerConfig, serverPort, p.port, users)
	return errors.Join(
		os.Mkdir(p.dir, 0o700),
		os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", server.User.Username(), password), 0o600),
		os.WriteFile(filepath.Join(p.dir, "pgbouncer.ini"), ini, 0o600),
	)
}

// await waits until PgBouncer has carried a query.
func (p *pooler) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, poolerStartTimeout)
	defer cancel()
	tick := time.NewTicker(poolerPollInterval)
	defer tick.Stop()
	for {
		err := ping(ctx, p.url(p.server))
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.child.Done():
			return errors.New("it ended during its start")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// ping runs one query over a new connection.
func ping(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	// Every version of PgBouncer carries the simple protocol.
	_, err = conn.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, conn.Close(ctx))
}

// url turns a database's direct URL into one that leads through PgBouncer.
func (p *pooler) url(direct string) string {
	u, err := url.Parse(direct)
	if err != nil {
		return direct // the connect will report the malformed URL
	}
	u.Host = net.JoinHostPort(loopback, strconv.Itoa(p.port))
	return u.String()
}

// stop ends PgBouncer at once.
func (p *pooler) stop() error {
	if err := p.child.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop pgbouncer: %w", err)
	}
	if p.child.WaitFor(poolerStopTimeout) {
		return nil
	}
	return errors.Join(
		fmt.Errorf("pgbouncer didn't stop within %s and was killed", poolerStopTimeout),
		p.child.Signal(syscall.SIGKILL),
	)
}
