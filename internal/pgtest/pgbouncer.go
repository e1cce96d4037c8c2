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

	// poolerStopTimeout bounds its end after it was told to go at once.
	poolerStopTimeout = 5 * time.Second

	// poolerPollInterval is how often we try to connect while it starts.
	poolerPollInterval = 5 * time.Millisecond
)

// loopback is where both the server and PgBouncer listen.
const loopback = "127.0.0.1"

// poolerConfig is the whole of pgbouncer.ini; the verbs stand for the server's
// port, PgBouncer's port and the file with the password.
//
// It ignores no start-up parameter and resets nothing between transactions,
// since managed poolers don't either. Server connections that idle are dropped
// soon: each database has a pool of its own, and each test a database.
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

// startPooler starts a PgBouncer for every database of the server, with its
// files in dir, and returns when a query passes through it.
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

// start runs the program, for the first time or again.
func (p *pooler) start(ctx context.Context) error {
	// PgBouncer, like Postgres, refuses to be root.
	attr, err := pgserver.Unprivileged(p.dir)
	if err != nil {
		return err
	}
	// It outlives the context, which is for the start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.program, filepath.Join(p.dir, "pgbouncer.ini"))
	cmd.SysProcAttr = attr
	cmd.Dir = "/" // Our directory may be closed to PgBouncer's user.
	log := filepath.Join(p.dir, "pgbouncer.log")
	if err := p.spawn(cmd, log); err != nil {
		return fmt.Errorf("start pgbouncer: %w", err)
	}
	if err := p.await(ctx); err != nil {
		said, _ := os.ReadFile(log) // The error does without it.
		return errors.Join(fmt.Errorf("start pgbouncer: %w: %s", err, said), p.stop())
	}
	return nil
}

// Pooler is a PgBouncer of a test's own, in transaction mode.
type Pooler struct{ pooler *pooler }

// NewPooler starts one before the server. It skips the test where PgBouncer
// isn't installed.
func NewPooler(t testing.TB, server *pgserver.Server) *Pooler {
	t.Helper()
	if _, err := findPooler(); err != nil {
		t.Skip(err)
	}
	// As root it runs as another user, who can't pass through a test's own directory.
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

// URL leads to a database through the pooler.
func (p *Pooler) URL(direct string) string { return p.pooler.url(direct) }

// Restart ends the pooler at once, whoever is connected, and starts it again
// on the same port.
func (p *Pooler) Restart(ctx context.Context) error {
	// Newer ones wait for their clients when they are asked to end.
	if err := p.pooler.child.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.pooler.child.WaitFor(poolerStopTimeout) {
		return fmt.Errorf("pgbouncer survived SIGKILL for %s", poolerStopTimeout)
	}
	return p.pooler.start(ctx)
}

// spawn starts the program with a log.
func (p *pooler) spawn(cmd *exec.Cmd, log string) error {
	file, err := os.Create(log)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // The child has its own, and we wrote nothing.
	cmd.Stdout, cmd.Stderr = file, file
	// To PgBouncer this signal means to leave at once, whoever is connected.
	p.child, err = pgserver.Spawn(cmd, syscall.SIGTERM)
	return err
}

// findPooler returns the pgbouncer program. Debian puts it where an ordinary
// user's PATH doesn't look.
func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", errors.New("ALLO_TEST_PGBOUNCER=1 needs pgbouncer, which is not installed: type `apt-get install pgbouncer`")
}

// configure writes PgBouncer's files. The password is in plain text because
// PgBouncer has to log in to the server with it.
func (p *pooler) configure() error {
	server, err := url.Parse(p.server)
	if err != nil {
		return err
	}
	serverPort, err := strconv.Atoi(server.Port())
	if err != nil {
		return err
	}
	password, _ := server.User.Password() // A URL of pgserver has one.
	users := filepath.Join(p.dir, "userlist.txt")
	return errors.Join(
		os.Mkdir(p.dir, 0o700),
		os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", server.User.Username(), password), 0o600),
		os.WriteFile(filepath.Join(p.dir, "pgbouncer.ini"), fmt.Appendf(nil, poolerConfig, serverPort, p.port, users), 0o600),
	)
}

// await waits until PgBouncer passes a query on.
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
			return errors.New("it ended while starting")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// ping asks one question over a connection of its own.
func ping(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	// The simple protocol is the one that every version passes on.
	_, err = conn.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, conn.Close(ctx))
}

// url turns the URL of a database on the server into one that leads through
// PgBouncer.
func (p *pooler) url(direct string) string {
	u, err := url.Parse(direct)
	if err != nil {
		return direct // Not a URL of pgserver; connecting to it will say so.
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
