package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startTimeout bounds a start up to the first answer. It is long because
	// after a crash the server first replays its log.
	startTimeout = 30 * time.Second

	// pingTimeout bounds one attempt to connect, so that a silent program on the port can't use up
	// startTimeout.
	pingTimeout = 5 * time.Second

	// pingInterval is how often we try. A warm start takes about 50 ms.
	pingInterval = 5 * time.Millisecond

	// portAttempts bounds the starts of a server whose chosen ports turn out to be taken.
	portAttempts = 5

	// closeTimeout bounds the close of a connection.
	closeTimeout = time.Second
)

// childEnvironment is the server's environment. The locale keeps its messages in English and, on
// macOS, its start single-threaded.
var childEnvironment = []string{"LC_ALL=C", "TZ=UTC"}

// childDir is the server's first working directory. Its user may not enter this process's.
const childDir = "/"

// errPortTaken means that another program listens on the server's port.
var errPortTaken = errors.New("the port is taken")

// launch starts the server, on a new data directory or an old one.
func (s *Server) launch(ctx context.Context) (err error) {
	// accountFor looks at the owners of the directories, so it comes before any is made.
	a, err := accountFor(s.config.DataDir)
	if err != nil {
		return err
	}
	if err := s.acquire(a); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	attr, err := s.prepare(ctx, a)
	if err != nil {
		return err
	}
	return s.run(ctx, attr)
}

// prepare leaves the data directory complete, with nothing running on it, and
// returns how to start the server's process.
func (s *Server) prepare(ctx context.Context, a account) (*syscall.SysProcAttr, error) {
	c := s.config
	if err := c.ensureCluster(ctx, a); err != nil {
		return nil, err
	}
	if err := a.own(c.DataDir); err != nil {
		return nil, err
	}
	if err := clearLeftovers(c.DataDir); err != nil {
		return nil, err
	}
	password, err := readPassword(c.DataDir)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.password = password
	s.mu.Unlock()
	return a.attributes(filepath.Join(c.BinDir, "postgres"), c.DataDir)
}

// run starts the process and waits until it answers. When a port that it chose is taken, it chooses
// another.
func (s *Server) run(ctx context.Context, attr *syscall.SysProcAttr) error {
	s.config.Progress("starting " + s.config.version(ctx))
	if s.config.Port != 0 {
		return s.runOn(ctx, attr, s.config.Port)
	}
	for attempt := 1; ; attempt++ {
		port, err := FreePort()
		if err != nil {
			return err
		}
		err = s.runOn(ctx, attr, port)
		if errors.Is(err, errPortTaken) && attempt < portAttempts {
			continue
		}
		return err
	}
}

// runOn starts the process on a port, waits until it answers, and then keeps
// the port for every restart.
func (s *Server) runOn(ctx context.Context, attr *syscall.SysProcAttr, port int) error {
	child, logStart, err := s.spawn(ctx, attr, port)
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	if err := s.awaitAnswer(ctx, child, port); err != nil {
		return errors.Join(s.explain(err, logStart, port), end(child))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child, s.config.Port = child, port
	return nil
}

// spawn starts the process, and returns the length of the log before.
func (s *Server) spawn(
	ctx context.Context, attr *syscall.SysProcAttr, port int,
) (child *Child, logStart int64, err error) {
	log, err := os.OpenFile(s.config.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	if to := attr.Credential; to != nil {
		if err := log.Chown(int(to.Uid), int(to.Gid)); err != nil {
			return nil, 0, err
		}
	}
	info, err := log.Stat()
	if err != nil {
		return nil, 0, err
	}
	// The server outlives the context, which is for the start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx),
		filepath.Join(s.config.BinDir, "postgres"), s.config.arguments(port)...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = slices.Concat(childEnvironment, s.config.Env), childDir, attr
	cmd.Stdout, cmd.Stderr = log, log
	child, err = Spawn(cmd, syscall.SIGINT) // To Postgres this means a fast shutdown.
	return child, info.Size(), err
}

// arguments returns the server's command line. The settings that keep the server private come last,
// so that the caller's settings can't change them.
func (c Config) arguments(port int) []string {
	arguments := []string{"-D", c.DataDir}
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		arguments = append(arguments, "-c", name+"="+c.Settings[name])
	}
	return append(arguments,
		"-c", "listen_addresses="+loopback,
		"-c", "port="+strconv.Itoa(port),
		"-c", "unix_socket_directories=",
		"-c", "logging_collector=off", // the log goes to LogFile
	)
}

// version returns the server's name and version, such as Postgres 17.10.
func (c Config) version(ctx context.Context) string {
	output, err := exec.CommandContext(ctx, filepath.Join(c.BinDir, "postgres"), "--version").Output()
	fields := strings.Fields(string(output)) // postgres (PostgreSQL) 17.10
	if err != nil || len(fields) < 3 {
		return "Postgres"
	}
	return "Postgres " + fields[2]
}

// errEnded means that the server's process ended before it answered.
var errEnded = errors.New("postgres ended while starting")

// awaitAnswer waits until the server answers a query.
func (s *Server) awaitAnswer(ctx context.Context, child *Child, port int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("postgres didn't answer within %s", startTimeout))
	defer cancel()
	pings, stopPinging := context.WithCancel(ctx)
	defer stopPinging()
	go func() {
		// Another program on the port may accept a connection and stay silent.
		select {
		case <-child.Done():
			stopPinging()
		case <-pings.Done():
		}
	}()
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		if ping(pings, databaseURL(port, s.password, superuser)) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-child.Done():
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ping runs one query over a new connection.
func ping(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	var one int
	err = conn.QueryRow(ctx, "SELECT 1").Scan(&one)

	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, conn.Close(ctx))
}

// explain returns the error of a failed start in one line, with the server's last log lines.
func (s *Server) explain(err error, logStart int64, port int) error {
	said := lastLines(s.config.LogFile, logStart)
	if errors.Is(err, errEnded) && strings.Contains(said, "Address already in use") {
		return fmt.Errorf("start Postgres on %s:%d: %w: "+
			"stop the program that listens there, or choose another port", loopback, port, errPortTaken)
	}
	return fmt.Errorf("start Postgres on %s:%d: %w; its log says: %s", loopback, port, err, said)
}
