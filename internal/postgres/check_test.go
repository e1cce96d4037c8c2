package postgres_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// wantRefused checks that a statement found no connection because the server is unsafe, for the
// given reason.
func wantRefused(t *testing.T, p *postgres.Pool, reason string) {
	t.Helper()
	err := p.Exec(t.Context(), "SELECT 1")
	var unsafe *postgres.UnsafeServerError
	if !errors.As(err, &unsafe) || !strings.Contains(err.Error(), reason) ||
		!postgres.NoConnection(err) || !postgres.Unavailable(err) {
		t.Errorf("Exec() = %v, want no connection because %s", err, reason)
	}
}

// A server that was out of reach when the process started, or became unsafe later, is found out by
// the next connection. Once the server is safe again, the same pool works.
func TestNoStatementRunsOnAnUnsafeServer(t *testing.T) {
	t.Parallel()

	for set, reason := range map[string]string{
		"synchronous_commit = off": "synchronous_commit is off",
		"lock_timeout = 0":         "lock_timeout is 0",
		"statement_timeout = 0":    "statement_timeout is 0",

		"client_min_messages = error": "client_min_messages is error",

		"session_replication_role = replica":                "session_replication_role is replica",
		"default_transaction_isolation = serializable":      "default_transaction_isolation is ser",
		"default_transaction_isolation = 'repeatable read'": "default_transaction_isolation is rep",
	} {
		db := pgtest.New(t)
		admin := open(t, db.DirectURL)
		alter := func(change string) {
			t.Helper()
			role := "ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{db.Name}.Sanitize()
			if err := admin.Exec(t.Context(), role+change); err != nil {
				t.Fatal(err)
			}
		}
		for _, mode := range []string{"", "cache_statement"} {
			p := open(t, withParameter(t, db.DirectURL, execMode, mode))
			queryOne[int](t, p, backendSQL)
			name, _, _ := strings.Cut(set, " = ")
			safe := queryOne[string](t, p, "SHOW "+name)
			alter(" SET " + set)
			p.Reset()
			wantRefused(t, p, reason)
			wantRefused(t, p, reason) // the pool must not keep the connection
			if got := queryOne[string](t, open(t, db.DirectURL, postgres.Unchecked),
				"SHOW "+name); got == safe {
				t.Errorf("an unchecked connection has %s = %s, want %s", name, got, set)
			}
			alter(" SET " + name + " = '" + safe + "'")
			queryOne[int](t, p, backendSQL)
		}
	}
}

// The check adds no round trip to the question that tells a pooler from a server.
func TestANewConnectionAsksOneQuestion(t *testing.T) {
	t.Parallel()

	address := pgtest.New(t).DirectURL
	for _, mode := range []string{"", "cache_statement", "exec"} {
		var writes, asked atomic.Int64
		p := open(t, withParameter(t, address, execMode, mode), func(c *pgxpool.Config) {
			dial, afterConnect := c.ConnConfig.DialFunc, c.AfterConnect
			c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				return countingConn{conn, &writes}, err
			}
			c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
				before := writes.Load()
				err := afterConnect(ctx, conn)
				asked.Add(writes.Load() - before)
				return err
			}
		})
		if err := p.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if asked.Load() != 1 {
			t.Errorf("mode %q: a new connection asked %d questions, want 1", mode, asked.Load())
		}
		before := writes.Load()
		queryOne[int](t, p, backendSQL)
		if got := writes.Load() - before; got != 1 {
			t.Errorf("mode %q: the first statement took %d round trips, want 1", mode, got)
		}
	}
}

// countingConn counts the writes to the server. Each round trip is at least one.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Aurora's storage keeps acknowledged commits, whatever its fsync says. Only Aurora has a function
// aurora_version.
func TestAServerWithoutFsyncIsRefusedUnlessItIsAurora(t *testing.T) {
	t.Parallel()

	_, db := pgtest.NewServer(t, nil)
	pool := open(t, db.URL)
	exec := func(sql string) {
		t.Helper()
		if err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("ALTER SYSTEM SET fsync = off")
	exec("SELECT pg_reload_conf()")
	for queryOne[string](t, pool, "SHOW fsync") != "off" {
		continue // the query paces the loop, and the test's deadline ends it
	}
	pool.Reset()
	wantRefused(t, pool, "fsync is off")

	admin := open(t, db.URL, postgres.Unchecked)
	const aurora = `
CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '17.7.1' $$`
	if err := admin.Exec(t.Context(), aurora); err != nil {
		t.Fatal(err)
	}
	if err := pool.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("Exec() on Aurora = %v, want nil", err)
	}
}
