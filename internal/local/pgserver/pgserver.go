// Package pgserver runs one Postgres server as a child of this process, for `make run` and for
// tests. It needs neither Docker nor an account.
//
// The server listens on 127.0.0.1 only and asks for a random password, which is made with the data
// directory. Its data is kept between runs and is as durable as in production: fsync and
// synchronous_commit stay on. The server doesn't outlive this process. Leftovers of a crash, such
// as a pid file, a running server or half a data directory, don't stop the next start.
//
// Postgres refuses to run as root. As root the server runs as the owner of its
// data directory; see Unprivileged.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// loopback is the only address a server listens on.
const loopback = "127.0.0.1"

// Config describes a server.
type Config struct {
	// BinDir holds the programs postgres and initdb; see Find.
	BinDir string

	// DataDir is the data directory. The first start makes it. Two files beside it belong to it:
	// their names are its name with .password and .lock added.
	DataDir string

	// Port is the TCP port on 127.0.0.1; 0 means a free one.
	Port int

	// Settings are settings of postgresql.conf, for this run only.
	Settings map[string]string

	// Env is added to the server's environment, which inherits nothing from this process.
	Env []string

	// LogFile is the file to which the server's output is appended. The default is postgres.log
	// beside DataDir.
	LogFile string

	// Progress, if set, is called with a few words before each step that takes time.
	Progress func(step string)
}

// Server is one Postgres server.
type Server struct {
	// turn serializes Stop, Kill and Restart, which all wait.
	turn sync.Mutex

	// mu guards the fields below and is never held while waiting. Only the holder of turn writes
	// them, and so it may read them without mu.
	mu       sync.Mutex
	config   Config
	password string
	child    *Child
	lock     *os.File // nil while the data directory isn't locked
}

// Start starts a server and returns when it answers. It creates the data directory if there is
// none, and ends an orphaned server on it. The context bounds the start, not the server's life.
//
// The error is one line and has the last lines of the server's log, if any. It is a *VersionError
// for data of another major version, and wraps fs.ErrPermission when this user can't write the
// data.
func Start(ctx context.Context, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{config: c}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// withDefaults sets the defaults and makes the paths absolute, because the server changes into its
// data directory.
func (c Config) withDefaults() (Config, error) {
	if c.BinDir == "" || c.DataDir == "" {
		return c, errors.New("start Postgres: both BinDir and DataDir must be set")
	}
	var errs [3]error
	c.BinDir, errs[0] = filepath.Abs(c.BinDir)
	c.DataDir, errs[1] = filepath.Abs(c.DataDir)
	if c.LogFile == "" {
		c.LogFile = filepath.Join(filepath.Dir(c.DataDir), "postgres.log")
	}
	c.LogFile, errs[2] = filepath.Abs(c.LogFile)
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c, errors.Join(errs[:]...)
}

// end shuts the server down, or kills it after stopTimeout.
func end(child *Child) error {
	if err := child.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop Postgres: %w", err)
	}
	if child.WaitFor(stopTimeout) {
		return nil
	}
	late := fmt.Errorf("postgres didn't stop within %s and was killed", stopTimeout)
	return errors.Join(late, kill(child))
}

// kill ends the process and its backends at once.
func kill(child *Child) error {
	select {
	case <-child.Done():
		return nil
	default:
	}
	// If the process isn't a child of this one, it got the id after the child ended.
	if postmaster, ok := lookup(child.PID()); ok && postmaster.parent == os.Getpid() {
		if err := killServer(postmaster); err != nil {
			return err
		}
	}
	if !child.WaitFor(killTimeout) {
		return fmt.Errorf("postgres process %d survived SIGKILL for %s", child.PID(), killTimeout)
	}
	return nil
}

// URL returns the URL of a database on this server, with the password in it.
func (s *Server) URL(database string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return databaseURL(s.config.Port, s.password, database)
}

func databaseURL(port int, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, password),
		Host:     net.JoinHostPort(loopback, strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PID returns the id of the server's process, also after its end.
func (s *Server) PID() int { return s.current().PID() }

// Done returns a channel that is closed when the server's process has ended. After Restart it
// returns another channel.
func (s *Server) Done() <-chan struct{} { return s.current().Done() }

func (s *Server) current() *Child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// Stop shuts the server down: it ends every session and writes its data. Stop kills a server that
// takes longer than ten seconds, and returns an error then. On a stopped server it does nothing.
func (s *Server) Stop() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer s.release()
	return end(s.current())
}

// Kill ends the server and all its backends with SIGKILL, like a crash, and returns when they have
// ended.
func (s *Server) Kill() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer s.release()
	return kill(s.current())
}

// Restart starts the server again on the same data and the same port, after
// Stop, Kill or a crash. It is an error if the server runs.
func (s *Server) Restart(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	select {
	case <-s.Done():
		return s.launch(ctx)
	default:
		return errors.New("restart Postgres: it runs; stop it first")
	}
}
