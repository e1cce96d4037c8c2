package migrate

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/allo/reservations/internal/postgres"
)

// lineNamePrefix begins the application_name of the sessions that run the files' statements. By it
// a run finds the sessions that an earlier run has left.
const lineNamePrefix = "allo-migrate "

// errLeft means that the run has left its line.
var errLeft = errors.New("the statement was left to the database")

// line has a run's connections that run the files' statements. A run may leave it: the connections
// are closed without a request to cancel, and Postgres finishes the statements. Postgres notices
// that a client is gone only when it next sends or receives (the documentation of
// client_connection_check_interval), and so CREATE INDEX CONCURRENTLY, or a loop that commits its
// batches, gets to its end whatever happens to the client.
type line struct {
	// name is the application_name of the sessions.
	name string

	mu      sync.Mutex
	left    bool
	patient bool
	conns   map[net.Conn]struct{}
}

func newLine() *line {
	return &line{name: lineNamePrefix + rand.Text(), conns: map[net.Conn]struct{}{}}
}

// setPatient says whether the sessions that begin from now on wait for locks without a limit.
// CREATE INDEX CONCURRENTLY waits for the transactions of others, and nobody waits for it.
func (l *line) setPatient(patient bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patient = patient
}

// leave closes the connections. The driver's request to cancel needs a connection too, and gets
// none.
func (l *line) leave() {
	l.mu.Lock()
	conns := l.conns
	l.left, l.conns = true, nil
	l.mu.Unlock()
	for conn := range conns {
		_ = conn.Close() // the driver reports it
	}
}

func (l *line) isLeft() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// parameters are the settings of a session that runs the files' statements. Such a statement may
// take longer than a request, whose limit is the role's. It sends no message before its end: a
// message to a client that is gone would end it.
func (l *line) parameters() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := map[string]string{
		"application_name": l.name, "statement_timeout": "0", "client_min_messages": "error",
		"client_connection_check_interval": "0",
	}
	if l.patient {
		p["lock_timeout"] = "0"
	}
	return p
}

// wrap returns a dial function whose connections belong to the line.
func (l *line) wrap(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if l.isLeft() {
			return nil, errLeft
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.left {
			_ = conn.Close()
			return nil, errLeft
		}
		member := &lineConn{Conn: conn, line: l}
		l.conns[member] = struct{}{}
		return member, nil
	}
}

// lineConn is a connection of a line, until it is closed.
type lineConn struct {
	net.Conn
	line *line
}

func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// connector makes goose's connections. It asks the source for each one, because an IAM token is
// valid for minutes only.
type connector struct {
	source postgres.Source
	line   *line // nil for the connections of the migration lock
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	dial := func(ctx context.Context, target postgres.Target) (driver.Conn, error) {
		config, err := configure(target)
		if err != nil {
			return nil, &postgres.SourceError{Err: err}
		}
		if c.line != nil {
			config.DialFunc = c.line.wrap(config.DialFunc)
			for name, value := range c.line.parameters() {
				config.RuntimeParams[name] = value
			}
		}
		return stdlib.GetConnector(*config).Connect(ctx)
	}
	return postgres.Connect(ctx, c.source, dial)
}

func (c connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }
