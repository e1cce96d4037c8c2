package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

func TestErrorsAreClassified(t *testing.T) {
	t.Parallel()

	state := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	reset := fmt.Errorf("read: %w",
		&net.OpError{Op: "read", Err: errors.New("connection reset by peer")})
	for _, c := range []struct {
		err                                 error
		retryable, lockTimeout, unavailable bool
	}{
		{state("40P01"), true, false, false},
		{state("40001"), true, false, false},
		{state("55P03"), false, true, false},
		{state("57014"), false, false, true}, // statement_timeout or a cancel
		{state("57P01"), false, false, true}, // admin_shutdown
		{state("53300"), false, false, true}, // too_many_connections
		{state("08P01"), false, false, true}, // a pooler's error when its server is gone
		{state("25006"), false, false, true}, // read-only, after a fail-over
		{
			&pgconn.PgError{
				Code: "XX000", Message: "cannot assign TransactionIds during recovery",
			}, false, false, true,
		}, // a standby
		{state("XX000"), false, false, false},
		{&postgres.NoConnectionError{Err: state("28P01")}, false, false, true}, // through a pooler
		{&postgres.NoConnectionError{Err: errors.New("no attempt is left")}, false, false, true},
		{state("25P03"), false, false, true},  // idle in a transaction for too long
		{state("23514"), false, false, false}, // a violated check is a bug
		{state("42883"), false, false, false}, // undefined function
		{state(""), false, false, false},
		{context.DeadlineExceeded, false, false, true},
		{context.Canceled, false, false, true},
		{io.ErrUnexpectedEOF, false, false, true},
		{reset, false, false, true},
		{pgconn.ErrConnClosed, false, false, true},
		{errors.New("a bug"), false, false, false},
	} {
		if got := postgres.Retryable(c.err); got != c.retryable {
			t.Errorf("Retryable(%v) = %v, want %v", c.err, got, c.retryable)
		}
		if got := postgres.LockTimeout(c.err); got != c.lockTimeout {
			t.Errorf("LockTimeout(%v) = %v, want %v", c.err, got, c.lockTimeout)
		}
		if got := postgres.Unavailable(c.err); got != c.unavailable {
			t.Errorf("Unavailable(%v) = %v, want %v", c.err, got, c.unavailable)
		}
	}
}

// refusedAddress returns an address on which nobody listens.
func refusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// A newcomer meets these errors first.
func TestAFailedConnectNamesItsRemedyInOneLine(t *testing.T) {
	t.Parallel()

	const password = "mistyped"
	db, err := url.Parse(pgtest.New(t).DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(u *url.URL)) string {
		u := *db
		u.User = url.UserPassword(db.User.Username(), password)
		u.RawQuery = "" // makes sslmode prefer, with which the driver connects twice
		change(&u)
		return u.String()
	}
	refused, silent := refusedAddress(t), listenSilently(t)
	user := db.User.Username()
	for name, c := range map[string]struct{ url, want string }{
		"nobody listens": {
			with(func(u *url.URL) { u.Host = refused }),
			refused + " refuses the connection: is Postgres running there, and is the port right?",
		},
		"unknown host": {
			with(func(u *url.URL) { u.Host = "unknown.invalid:5432" }),
			"the host unknown.invalid can't be resolved: check its spelling in the database's URL, " +
				"and this machine's DNS",
		},
		"no answer": {
			with(func(u *url.URL) { u.Host = silent }),
			"can't reach " + silent + ", which doesn't answer in time: is it running?",
		},
		"no socket": {
			"postgres://u:" + password + "@/d?host=/nowhere&port=5433",
			"/nowhere/.s.PGSQL.5433 refuses the connection: is Postgres running there, " +
				"and is the port right?",
		},
		"wrong password": {
			with(func(*url.URL) {}),
			"the server at " + db.Host + " refuses the password of user \"" + user +
				"\": check the user and the password in the database's URL",
		},
		"unknown database": {
			with(func(u *url.URL) { u.User = db.User; u.Path = "/nowhere" }),
			"the server at " + db.Host + " has no database \"nowhere\": create it, " +
				"or correct the name in the database's URL",
		},
		"no TLS": {
			with(func(u *url.URL) { u.RawQuery = "sslmode=require" }),
			"can't connect to " + db.Host + ": " + db.Host +
				" (127.0.0.1): tls error: server refused TLS connection",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			pool := open(t, c.url, func(config *pgxpool.Config) {
				lookup := config.ConnConfig.LookupFunc
				// Without a network the machine's resolver may take long.
				config.ConnConfig.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
					if strings.HasSuffix(host, ".invalid") {
						return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
					}
					return lookup(ctx, host)
				}
			})
			err := pool.Exec(t.Context(), "SELECT 1")
			want := "no connection to the database: " + c.want
			if err == nil || err.Error() != want ||
				!postgres.Unavailable(err) && !postgres.Refused(err) {
				t.Errorf("Exec() = %v\nwant %s", err, want)
			}
			if strings.Contains(fmt.Sprint(err), password) {
				t.Errorf("the error contains the password: %v", err)
			}
		})
	}
}
