package postgres_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// open opens a pool of one connection.
func open(t *testing.T, url string, options ...postgres.Option) *postgres.Pool {
	t.Helper()
	p, err := postgres.Open(postgres.URL(url), 1, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// queryOne reads one value.
func queryOne[T any](t *testing.T, p *postgres.Pool, sql string, args ...any) T {
	t.Helper()
	value, err := postgres.QueryRow(t.Context(), p, pgx.RowTo[T], sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// withParameter adds a parameter to a URL. An empty value adds none.
func withParameter(t *testing.T, address, name, value string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if value != "" {
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
	}
	return u.String()
}

const backendSQL = "SELECT pg_backend_pid()"

// terminate ends a session and waits until it is gone.
func terminate(t *testing.T, admin *postgres.Pool, pid int) {
	t.Helper()
	queryOne[bool](t, admin, "SELECT pg_terminate_backend($1)", pid)
	for queryOne[int](t, admin, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid) != 0 {
		continue // the query paces the loop, and the test's deadline ends it
	}
}

func TestAnErrorKeepsTheConnection(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).DirectURL)
	first := queryOne[int](t, p, backendSQL)
	if err := p.Exec(t.Context(), "SELECT 1 / 0"); !postgres.HasCode(err, "22012") {
		t.Errorf("Exec() of a division by zero = %v, want Postgres's error", err)
	}
	if again := queryOne[int](t, p, backendSQL); again != first {
		t.Errorf("the next query ran on backend %d, want %d again", again, first)
	}
}

// A Lambda is frozen between requests, so the age must be checked when a connection is taken. The
// pool's background check is off in this test.
func TestAConnectionPastItsLifetimeIsReplacedWhenItIsTaken(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).DirectURL, func(c *pgxpool.Config) {
		c.MaxConnLifetime, c.MaxConnLifetimeJitter = 200*time.Millisecond, 0
		c.HealthCheckPeriod = time.Hour
	})
	first := queryOne[int](t, p, backendSQL)
	for queryOne[int](t, p, backendSQL) == first {
		continue // the query paces the loop, and the test's deadline ends it
	}
}

// A server may close a connection while the environment is frozen.
func TestAnIdleConnectionThatDiedIsReplaced(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	p, admin := open(t, db.DirectURL), open(t, db.DirectURL)
	p.SetPingAfter(0)
	pid := queryOne[int](t, p, backendSQL)
	terminate(t, admin, pid)
	if again := queryOne[int](t, p, backendSQL); again == pid {
		t.Errorf("the query ran on backend %d, which has ended", pid)
	}

	// Without the ping the caller gets the error, so the part above tests the ping.
	p.SetPingAfter(time.Hour)
	pid = queryOne[int](t, p, backendSQL)
	terminate(t, admin, pid)
	if err := p.Exec(t.Context(), backendSQL); !postgres.Unavailable(err) {
		t.Errorf("Exec() on a connection that has ended = %v, want it unavailable", err)
	}
	if again := queryOne[int](t, p, backendSQL); again == pid {
		t.Errorf("the next query ran on backend %d, which has ended", pid)
	}
}

// A network may lose a connection during a freeze. The client then gets no answer, not even a
// reset.
func TestAPingHasADeadlineOfItsOwn(t *testing.T) {
	t.Parallel()

	// A ping, its cancellation and a connect take some 2 s. A request has 7 s.
	const limit = 7 * time.Second
	network := newNetwork(t, pgtest.New(t).DirectURL)
	p := open(t, network.url)
	p.SetPingAfter(0)
	pid := queryOne[int](t, p, backendSQL)
	network.forget()
	start := time.Now()
	if again := queryOne[int](t, p, backendSQL); again == pid {
		t.Errorf("the query ran on backend %d, whose connection was lost", pid)
	}
	if took := time.Since(start); took > limit {
		t.Errorf("the query took %v, want at most %v", took, limit)
	}
}

// The old writer of a fail-over becomes read-only, and its connections stay open.
func TestAConnectionToAReadOnlyServerIsClosed(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	admin := open(t, db.DirectURL)
	alter := "ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{db.Name}.Sanitize()
	exec := func(sql string) {
		t.Helper()
		if err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(alter + " SET default_transaction_read_only = on")
	p := open(t, db.DirectURL)
	if err := p.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(alter + " RESET default_transaction_read_only")

	const insert = "INSERT INTO warehouses (id, name) VALUES (gen_random_uuid(), 'w')"
	if err := p.Exec(t.Context(), insert); !postgres.HasCode(err, "25006") ||
		!postgres.Unavailable(err) {
		t.Errorf("an insert on a read-only server = %v, want SQLSTATE 25006, unavailable", err)
	}
	if err := p.Exec(t.Context(), insert); err != nil {
		t.Errorf("an insert after it = %v, want it to succeed on a new connection", err)
	}
}

func TestACancelledStatementEndsAndKeepsItsConnection(t *testing.T) {
	t.Parallel()

	db := pgtest.New(t)
	p, admin := open(t, db.DirectURL), open(t, db.DirectURL)
	pid := queryOne[int](t, p, backendSQL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		const running = `
SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%'`
		for {
			n, err := postgres.QueryRow(ctx, admin, pgx.RowTo[int], running, pid)
			if err != nil || n > 0 {
				cancel()
				return
			}
		}
	}()
	if err := p.Exec(ctx, "SELECT pg_sleep(60)"); !postgres.Unavailable(err) {
		t.Errorf("a cancelled statement = %v, want it unavailable", err)
	}
	if again := queryOne[int](t, p, backendSQL); again != pid {
		t.Errorf("the next query ran on backend %d, want %d again", again, pid)
	}
	const active = `
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%' AND state = 'active'`
	if n := queryOne[int](t, admin, active); n != 0 {
		t.Errorf("%d cancelled statements still run", n)
	}
}

func TestTheNameLookUpCountsTowardsTheConnectTimeout(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).DirectURL, func(c *pgxpool.Config) {
		c.ConnConfig.LookupFunc = func(ctx context.Context, _ string) ([]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	start := time.Now()
	err := p.Exec(t.Context(), "SELECT 1")
	if took := time.Since(start); !postgres.NoConnection(err) ||
		took > postgres.ConnectTimeout+5*time.Second {
		t.Errorf("Exec() = %v after %v, want no connection after %v", err, took,
			postgres.ConnectTimeout)
	}
}

// pgx limits the time for each address. The pool limits the time for all of them together.
func TestAllAddressesShareTheConnectTimeout(t *testing.T) {
	t.Parallel()

	silent := listenSilently(t)
	_, port, err := net.SplitHostPort(silent)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, "postgres://u@silent.example:"+port+"/d", func(c *pgxpool.Config) {
		c.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) {
			return []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, nil
		}
		var dialer net.Dialer
		c.ConnConfig.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, silent)
		}
	})
	start := time.Now()
	err = p.Exec(t.Context(), "SELECT 1")
	if took := time.Since(start); !postgres.NoConnection(err) ||
		took > postgres.ConnectTimeout+5*time.Second {
		t.Errorf("Exec() = %v after %v, want no connection after %v", err, took,
			postgres.ConnectTimeout)
	}
}

func TestACallerWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).URL)
	err := p.Transaction(t.Context(), pgx.TxOptions{}, func(pgx.Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return p.Exec(ctx, "SELECT 1")
	})
	if !postgres.Unavailable(err) || !postgres.NoConnection(err) {
		t.Errorf("Exec() while the only connection is taken = %v, want no connection", err)
	}
	queryOne[int](t, p, "SELECT 1")
}

func TestTooManyCallersAreTurnedAwayAtOnce(t *testing.T) {
	t.Parallel()

	const excess = 20
	p := open(t, pgtest.New(t).URL)
	answers := make(chan error)
	// The transaction uses the only connection.
	err := p.Transaction(t.Context(), pgx.TxOptions{}, func(pgx.Tx) error {
		for range postgres.MaxWaiting + excess {
			go func() { answers <- p.Exec(t.Context(), "SELECT 1") }()
		}
		for range excess {
			err := <-answers
			if !errors.Is(err, postgres.ErrSaturated) || !postgres.Unavailable(err) {
				t.Errorf("a caller beyond the queue gets %v, want %v", err, postgres.ErrSaturated)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for range postgres.MaxWaiting {
		if err := <-answers; err != nil {
			t.Errorf("a caller in the queue gets %v", err)
		}
	}
	if n := p.Waiting(); n != 0 {
		t.Errorf("Waiting() = %d after all answers, want 0", n)
	}
}

func TestAClosedPoolIsUnavailable(t *testing.T) {
	t.Parallel()

	p := open(t, pgtest.New(t).URL)
	p.Close()
	if err := p.Exec(t.Context(), "SELECT 1"); !postgres.Unavailable(err) {
		t.Errorf("Exec() on a closed pool = %v, want it unavailable", err)
	}
}

func TestOpenRefusesAMalformedURL(t *testing.T) {
	t.Parallel()

	if pool, err := postgres.Open(postgres.URL("postgres://%zz"), 1); err == nil {
		pool.Close()
		t.Error("Open() of a malformed URL = nil, want an error")
	}
}
