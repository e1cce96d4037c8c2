package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The pool's bounds. A Lambda is frozen between requests, so none of them relies on a timer that
// runs in the background: pgxpool checks the age of a connection when it lends it out.
const (
	// connectTimeout bounds a connect: the source, the name look-up, all addresses and the first
	// question together. pgx's own limit is for one address, without the look-up. The second connect
	// after a refused password has as much again; the request's limit bounds both.
	connectTimeout = 5 * time.Second
	// defaultPingAfter is how long a connection may be idle before it is pinged.
	defaultPingAfter = time.Second
	// pingTimeout bounds a ping. On a socket that died during a freeze it would otherwise wait for
	// as long as the request lives.
	pingTimeout = time.Second
	// maxLifetime bounds how long a fail-over or a changed password goes unnoticed. A thousand
	// environments renew their connections three times a second, of the 200 log-ins a second that
	// RDS takes with IAM (package awsdb).
	maxLifetime = 5 * time.Minute
	// lifetimeJitter keeps many environments from reconnecting at the same moment: a thousand that
	// started together renew 17 connections a second.
	lifetimeJitter = time.Minute
	// cancelTimeout bounds a cancelled statement and the request that cancels it. The connection is
	// closed after it.
	cancelTimeout = time.Second
	// maxPrepared bounds the prepared statements of a connection. The service has about ten.
	maxPrepared = 32
	// maxWaiting bounds the callers in the queue for a connection, but for a reader's (readerQueue). A
	// Lambda has one caller. In a process with many, a longer queue would only delay the refusals:
	// with eight connections and 20 ms a call, the last caller of a full queue waits for two thirds of
	// a second.
	maxWaiting = 256
)

// applicationName is how the service appears in pg_stat_activity, unless the URL says otherwise.
const applicationName = "allo-reservations"

// Pool lends out connections to one database. It is a pgxpool.Pool with a bounded queue, a Source
// that is asked for each connection, and statements that a pooler in transaction mode can carry. It
// is safe for concurrent use.
type Pool struct {
	pool      *pgxpool.Pool
	source    Source
	pingAfter time.Duration
	// waiting counts the callers that are about to get a connection. There are at most mostWaiting.
	waiting     atomic.Int64
	mostWaiting int64
	// unnamed is set once a pooler has lost a prepared statement. From then on none is prepared.
	unnamed atomic.Bool
	// resets counts how often a broken connection has closed its siblings.
	resets atomic.Uint64
	// connects counts the connects that have begun.
	connects atomic.Int64
}

// Option changes the pool's configuration before it opens. Of ConnConfig only DialFunc and
// LookupFunc are kept, because the Source decides the rest for each connection.
type Option func(*pgxpool.Config)

// Open makes a pool of at most size connections. It doesn't connect. It returns an error for a
// malformed URL; other sources are asked when a connection is made. Each new connection checks the
// server's settings, unless an option is Unchecked. An unsafe server fails the connect with an
// *UnsafeServerError inside a *NoConnectionError.
func Open(source Source, size int, options ...Option) (*Pool, error) {
	if u, ok := source.(URL); ok {
		if _, _, err := configure(Target{URL: string(u)}); err != nil {
			return nil, fmt.Errorf("DATABASE_URL: %w", err)
		}
	}
	config, err := pgxpool.ParseConfig("postgres://replaced-by-the-source")
	if err != nil {
		return nil, fmt.Errorf("make a pool: %w", err)
	}
	p := &Pool{source: source, pingAfter: defaultPingAfter, mostWaiting: maxWaiting}
	config.ConnConfig.DialFunc = dial
	config.MaxConns = int32(size) // #nosec G115 -- a constant of its caller, below a hundred
	config.MaxConnLifetime, config.MaxConnLifetimeJitter = maxLifetime, lifetimeJitter
	config.ShouldPing, config.PingTimeout = p.shouldPing, pingTimeout
	config.BeforeConnect = p.beforeConnect
	config.AfterConnect = afterConnect
	config.BeforeClose = abandon
	for _, option := range options {
		option(config)
	}
	if p.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		return nil, fmt.Errorf("make a pool of %d connections: %w", size, err)
	}
	return p, nil
}

// Connect connects, unless a connection is free already. It runs nothing on it. Its error is a
// *NoConnectionError.
func (p *Pool) Connect(ctx context.Context) error {
	conn, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	conn.Release()
	return nil
}

// Close waits until every connection is given back, and closes them.
func (p *Pool) Close() { p.pool.Close() }

// Reset closes all connections. It closes a connection in use when it is given back. Later
// connections start with the role's current settings.
func (p *Pool) Reset() { p.pool.Reset() }

// attempt is one call of pgxpool's Acquire, which may connect. It reaches the hooks through the
// context: pgxpool gives them the caller's values, but neither its deadline nor its cancellation.
type attempt struct {
	// tried is set when the caller's turn has come, and it pings a connection or begins a connect.
	tried atomic.Bool
	// refused is the URL whose password the server has just refused, or empty.
	refused string
	// deadline ends the connect. It is set when the connect begins, and so are the fields below.
	deadline time.Time
	url      string
	mode     string
	// resets is the pool's count when the connect began.
	resets uint64
}

type attemptKey struct{}

// errOutsideAcquire means that pgxpool connected by itself. The pool's options must not make it.
var errOutsideAcquire = errors.New("a connection was made outside of acquire")

// errSamePassword means that the source has no other password than the refused one.
var errSamePassword = errors.New("the source has no other password")

// acquire takes a connection that is young enough and, if it was idle, alive. It returns a
// *NoConnectionError: of ErrSaturated when the queue is full, and of errInUse when the caller's
// time ended in the queue.
func (p *Pool) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.mostWaiting {
		return nil, &NoConnectionError{ErrSaturated}
	}
	conn, err := p.acquireOrConnect(ctx)
	if err != nil {
		return nil, &NoConnectionError{explain(err)}
	}
	return conn, nil
}

// acquireOrConnect tries once more when the server refuses the password and the source has another.
func (p *Pool) acquireOrConnect(ctx context.Context) (*pgxpool.Conn, error) {
	var first attempt
	conn, err := p.take(ctx, &first)
	if !Refused(err) {
		return conn, err
	}
	second := attempt{refused: first.url}
	conn, again := p.take(ctx, &second)
	var source *SourceError
	switch {
	case errors.Is(again, errSamePassword):
		return nil, err
	case errors.As(again, &source):
		return nil, errors.Join(explain(err), again)
	default:
		return conn, again
	}
}

// take waits for the caller's turn. Its error is errInUse when that never came, and another caller
// has a connection when the time is over. That is a guess: the other one may have it from before
// the server died. Then the next caller who connects or pings meets the dead server. When the
// others are all still connecting, the server may be the cause.
func (p *Pool) take(ctx context.Context, try *attempt) (*pgxpool.Conn, error) {
	conn, err := p.pool.Acquire(context.WithValue(ctx, attemptKey{}, try))
	if errors.Is(err, context.DeadlineExceeded) && !try.tried.Load() &&
		p.pool.Stat().AcquiredConns() > 0 {
		return nil, fmt.Errorf("%w: %w", errInUse, err)
	}
	return conn, err
}

// shouldPing reports whether a connection was idle for so long that it may have died.
func (p *Pool) shouldPing(ctx context.Context, c pgxpool.ShouldPingParams) bool {
	if c.IdleDuration < p.pingAfter {
		return false
	}
	if try, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		try.tried.Store(true)
	}
	return true
}

// beforeConnect asks the source where to connect to.
func (p *Pool) beforeConnect(ctx context.Context, config *pgx.ConnConfig) error {
	try, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return errOutsideAcquire
	}
	try.tried.Store(true)
	p.connects.Add(1)
	try.deadline, try.resets = time.Now().Add(connectTimeout), p.resets.Load()
	ctx, cancel := context.WithDeadline(ctx, try.deadline)
	defer cancel()
	target, err := p.source.Target(ctx, try.refused != "")
	if err != nil {
		return &SourceError{err}
	}
	if target.URL == try.refused {
		return errSamePassword
	}
	fresh, mode, err := configure(target)
	if err != nil {
		return &SourceError{err}
	}
	try.url, try.mode = target.URL, mode
	fresh.DialFunc = boundedDial(config.DialFunc)
	fresh.LookupFunc = boundedLookup(config.LookupFunc)
	*config = *fresh
	return nil
}

// boundedDial gives all of a connect one deadline, its handshake too. The driver also dials to send
// the request to cancel a statement. That has a deadline of its own, since the driver would wait up
// to 15 s for it, while the dead connection keeps its place in the pool.
func boundedDial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		deadline := time.Now().Add(cancelTimeout)
		if try, ok := ctx.Value(attemptKey{}).(*attempt); ok {
			deadline = try.deadline
		}
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return conn, conn.SetDeadline(deadline)
	}
}

func boundedLookup(lookup pgconn.LookupFunc) pgconn.LookupFunc {
	return func(ctx context.Context, host string) ([]string, error) {
		if try, ok := ctx.Value(attemptKey{}).(*attempt); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, try.deadline)
			defer cancel()
		}
		return lookup(ctx, host)
	}
}

// abandon closes the socket of a failed connection. The driver would read from it for up to 15 s,
// and the connection would keep its place in the pool for as long. The pool itself closes a healthy
// connection.
func abandon(c *pgx.Conn) {
	if c.IsClosed() {
		_ = c.PgConn().Conn().Close() // nobody needs it any more
	}
}

// The values of pgx's URL parameter that say how statements run.
const (
	execMode       = "default_query_exec_mode"
	cacheStatement = "cache_statement" // statements stay prepared, even through a pooler
	execUnnamed    = "exec"            // no statement stays prepared
)

// configure makes the driver's configuration for a target. mode is the URL's own choice of how
// statements run, or empty.
func configure(target Target) (config *pgx.ConnConfig, mode string, err error) {
	if config, err = target.Config(connectTimeout); err != nil {
		return nil, "", err
	}
	mode = parameterOf(target.URL, execMode)
	// A statement stays prepared only where query says so.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = maxPrepared, 0
	// When a caller gives up, its statement is cancelled, which releases the locks at once. The
	// connection stays open.
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelTimeout}
	}
	config.OnNotice = onNotice
	// A server that has become read-only is the old writer after a fail-over. Its connection is
	// closed, because a new connection reaches the new writer.
	keep := config.OnPgError
	config.OnPgError = func(c *pgconn.PgConn, pg *pgconn.PgError) bool {
		return !readOnly(pg) && keep(c, pg)
	}
	return config, mode, nil
}
