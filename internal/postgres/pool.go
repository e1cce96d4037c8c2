package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/puddle/v2"

	"github.com/allo/reservations/internal/dsn"
)

// What bounds the pool. A Lambda is frozen between requests, so nothing here may rely on a timer that runs in the background.
const (
	// connectTimeout bounds a connect, which nothing else does: pgconn's default is to wait for as long as the request lives.
	connectTimeout = 5 * time.Second
	// defaultPingAfter is how long a connection may have been idle before it is asked whether it is alive.
	defaultPingAfter = time.Second
	// pingTimeout bounds that question: on a socket that died while the environment was frozen, it would otherwise wait for as
	// long as the request lives.
	pingTimeout = time.Second
	// maxLifetime is checked when a connection is taken, so it holds after a freeze too. It bounds how long a fail-over or a
	// changed password goes unnoticed.
	maxLifetime = 5 * time.Minute
	// lifetimeJitter keeps a thousand environments from connecting anew at the same moment.
	lifetimeJitter = time.Minute
	// cancelDeadline is how long a cancelled statement may take to end before its connection is given up.
	cancelDeadline = time.Second
	// closeTimeout bounds the goodbye to a server.
	closeTimeout = time.Second
	// maxPrepared bounds the statements that a connection keeps. The service has about ten.
	maxPrepared = 32
	// maxWaiting bounds the callers in line for a connection. A Lambda has one caller; where a process serves many, and more come than the
	// database can serve, the rest is told so at once, instead of after a wait that ends in the same answer. With eight connections and 20 ms a
	// call the last of them waits for two thirds of a second.
	maxWaiting = 256
)

// ErrSaturated is that as many callers as may be wait for a connection already. Nothing was sent.
var ErrSaturated = errors.New("too many wait for a connection to the database")

// Pool lends out connections to one database, of which it has no more than its size. It is safe for concurrent use.
//
// It is pgx's connection (pgconn) under the pool that pgxpool is made of (puddle), and what it does when a connection is taken and
// given back is pgxpool's. It isn't pgxpool, because pgx's layer of types would be linked into every Lambda: three megabytes that a
// cold start has to load, where a verb is one statement whose answer is one text.
type Pool struct {
	conns     *puddle.Pool[*conn]
	pingAfter time.Duration
	// waiting counts those who are about to have a connection.
	waiting atomic.Int64
	// exec is whether no statement stays prepared on any connection, because a pooler was found that loses track of them.
	exec atomic.Bool
}

// conn is a connection with the end of its life.
type conn struct {
	*pgconn.PgConn
	expires time.Time
	// way is what is known of the way to the server, and prepared the names of the statements that stay prepared there.
	way      way
	prepared map[string]string
}

// way is whether a connection leads to one session of the server, or through a pooler, which may lead elsewhere the next time.
type way int

const (
	unknown way = iota
	direct
	pooled
)

// Option changes how connections are made.
type Option func(*pgconn.Config)

// execMode is pgx's parameter of a URL that says how statements are run. Of its values there are two here.
const (
	execMode       = "default_query_exec_mode"
	cacheStatement = "cache_statement" // they stay prepared, whatever is in the way
	execUnnamed    = "exec"            // nothing stays behind on a connection
)

// Open makes a pool of at most size connections to where the source says. It doesn't connect. A URL that can't be right is refused at once;
// what another source says is looked at when a connection is made.
func Open(source dsn.Source, size int, options ...Option) (*Pool, error) {
	if u, ok := source.(dsn.URL); ok {
		if _, _, err := configure(dsn.Target{URL: string(u)}); err != nil {
			return nil, fmt.Errorf("DATABASE_URL: %w", err)
		}
	}
	conns, err := puddle.NewPool(&puddle.Config[*conn]{
		Constructor: func(ctx context.Context) (*conn, error) {
			// The configuration's own limit is one address's, and leaves out the look-up of the name.
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return dsn.Connect(ctx, source, func(ctx context.Context, target dsn.Target) (*conn, error) { return dial(ctx, target, options) })
		},
		Destructor: func(c *conn) {
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			defer cancel()
			_ = c.Close(ctx) // the server finds out by itself
		},
		MaxSize: int32(size), // #nosec G115 -- a constant of its caller, below a hundred
	})
	if err != nil {
		return nil, fmt.Errorf("make a pool of %d connections: %w", size, err)
	}
	return &Pool{conns: conns, pingAfter: defaultPingAfter}, nil
}

// dial makes a connection. As the source may have changed its mind, each has the mode that its own URL asks for.
func dial(ctx context.Context, target dsn.Target, options []Option) (*conn, error) {
	config, mode, err := configure(target)
	if err != nil {
		return nil, &dsn.Error{Err: err}
	}
	for _, option := range options {
		option(config)
	}
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	made := &conn{PgConn: c, expires: time.Now().Add(maxLifetime + rand.N(lifetimeJitter)), prepared: map[string]string{}} // #nosec G404 -- it spreads reconnects, and guards nothing
	switch mode {
	case cacheStatement:
		made.way = direct
	case execUnnamed:
		made.way = pooled
	}
	return made, nil
}

// configure makes the driver's configuration for a target, as the pool needs it, and reads how its URL wants statements to be run.
func configure(target dsn.Target) (config *pgconn.Config, mode string, err error) {
	if config, err = target.Config(); err != nil {
		return nil, "", err
	}
	mode = config.RuntimeParams[execMode]
	if mode != "" && mode != cacheStatement && mode != execUnnamed {
		return nil, "", fmt.Errorf("%s is %q; it must be %s or %s", execMode, mode, cacheStatement, execUnnamed)
	}
	config.ConnectTimeout = connectTimeout
	// A pooler refuses other start-up parameters.
	config.RuntimeParams = map[string]string{"application_name": "allo-reservations"}
	// A caller who gives up frees the locks at once: the statement is cancelled and the connection kept.
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelDeadline}
	}
	return config, mode, nil
}

// Close waits until every connection is given back, and closes them.
func (p *Pool) Close() { p.conns.Close() }

// Reset closes the connections that exist, those in use when they are given back, so that later ones have the role's settings of now.
func (p *Pool) Reset() { p.conns.Reset() }

// NoConnectionError is that no connection could be had, or made. Nothing was sent.
type NoConnectionError struct{ Err error }

func (e *NoConnectionError) Error() string { return "no connection to the database: " + e.Err.Error() }

func (e *NoConnectionError) Unwrap() error { return e.Err }

// acquire takes a connection that is young enough and, if it was idle, alive. It returns a *NoConnectionError, of ErrSaturated when too many
// wait for one.
func (p *Pool) acquire(ctx context.Context) (*puddle.Resource[*conn], error) {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxWaiting {
		return nil, &NoConnectionError{ErrSaturated}
	}
	for {
		res, err := p.conns.Acquire(ctx)
		if err != nil {
			return nil, &NoConnectionError{err}
		}
		if time.Now().Before(res.Value().expires) && (res.IdleDuration() < p.pingAfter || alive(ctx, res.Value())) {
			return res, nil
		}
		// Each turn of this loop ends a connection, and one that was just made is as it should be.
		res.Destroy()
	}
}

func alive(ctx context.Context, c *conn) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.Ping(ctx) == nil
}

// release gives a connection back, or ends it where the next caller couldn't use it.
func release(res *puddle.Resource[*conn]) {
	const idle = 'I' // in no transaction
	if c := res.Value(); c.IsClosed() || c.IsBusy() || c.TxStatus() != idle {
		res.Destroy()
		return
	}
	res.Release()
}

// Rows are the rows of an answer, each value in Postgres's text form; nil is null.
type Rows [][][]byte

// Querier runs a statement: a Pool, each on a connection that is free, or a Tx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
}

// Query runs one statement and reads its rows, in one round trip. On a connection of its own a statement stays prepared from its second
// time on: reading a CALL's text and looking its procedure up anew was measured at a sixth of a reserve.
//
// A pooler in transaction mode puts the next call on another server session, which has other statements, and some proxies pin a session
// that has any. So the first statement of a connection goes out together with a question: a server gives a connection the number of the
// session's process when it opens, and where the session itself has another number, something is in between. Nothing stays prepared then.
// The URL may say otherwise (default_query_exec_mode), as PgBouncer tracks statements from 1.21 on. Where it is wrong about that the
// server refuses to bind, before anything is run, and the text is sent from then on. No wrong statement can be run, as the name is a digest
// of the text.
//
// An argument is nil, a string, a *string, an int, bytes or a duration.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (Rows, error) {
	res, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release(res)
	c, values := res.Value(), texts(args)
	switch {
	case p.exec.Load() || c.way == pooled:
		return c.query(ctx, sql, values)
	case c.way == unknown:
		return c.queryFirst(ctx, sql, values)
	case c.prepared[sql] == "" && len(c.prepared) == maxPrepared:
		return c.query(ctx, sql, values)
	}
	rows, err := c.queryPrepared(ctx, sql, values)
	if unprepared(err) {
		p.exec.Store(true)
		return c.query(ctx, sql, values)
	}
	return rows, err
}

func (c *conn) query(ctx context.Context, sql string, values [][]byte) (Rows, error) {
	result := c.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	return result.Rows, result.Err
}

// queryFirst sends a statement behind the question whether the session is the connection's own, in a transaction of its own. A cancel that
// comes while the question is answered ends the question, not the statement: its caller can't know whether it took effect, as with any
// statement that is cancelled.
func (c *conn) queryFirst(ctx context.Context, sql string, values [][]byte) (rows Rows, err error) {
	pipeline := c.StartPipeline(ctx)
	defer end(pipeline, &err)
	pipeline.SendQueryParams("SELECT pg_backend_pid()", nil, nil, nil, nil)
	pipeline.SendPipelineSync()
	pipeline.SendQueryParams(sql, values, nil, nil, nil)
	if err := pipeline.Sync(); err != nil {
		return nil, err
	}
	session, err := read(pipeline)
	if err != nil {
		return nil, err
	}
	if c.way = pooled; string(session[0][0]) == strconv.FormatUint(uint64(c.PID()), 10) {
		c.way = direct
	}
	if _, err := pipeline.GetResults(); err != nil { // the question's end
		return nil, err
	}
	return read(pipeline)
}

func (c *conn) queryPrepared(ctx context.Context, sql string, values [][]byte) (rows Rows, err error) {
	if name := c.prepared[sql]; name != "" {
		result := c.ExecPrepared(ctx, name, values, nil, nil).Read()
		return result.Rows, result.Err
	}
	name := statementName(sql)
	pipeline := c.StartPipeline(ctx)
	defer end(pipeline, &err)
	pipeline.SendPrepare(name, sql, nil)
	pipeline.SendQueryPrepared(name, values, nil, nil)
	if err := pipeline.Sync(); err != nil {
		return nil, err
	}
	if _, err := pipeline.GetResults(); err != nil { // the statement's description
		return nil, err
	}
	c.prepared[sql] = name
	return read(pipeline)
}

// read reads the next statement's rows.
func read(pipeline *pgconn.Pipeline) (Rows, error) {
	answer, err := pipeline.GetResults()
	if err != nil {
		return nil, err
	}
	reader, ok := answer.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("the server answered a query with %T", answer)
	}
	result := reader.Read()
	return result.Rows, result.Err
}

// end reads what is left, so that the connection can be used again.
func end(pipeline *pgconn.Pipeline, err *error) {
	if left := pipeline.Close(); *err == nil {
		*err = left
	}
}

func statementName(sql string) string {
	digest := sha256.Sum256([]byte(sql))
	return "allo_" + hex.EncodeToString(digest[:16])
}

// unprepared reports whether the server has no statement of that name, or has had it from another client: nothing was run.
func unprepared(err error) bool {
	return hasCode(err, invalidStatementName, duplicateStatement)
}

func texts(args []any) [][]byte {
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = text(arg)
	}
	return values
}

// text is an argument in Postgres's text form.
func text(arg any) []byte {
	switch v := arg.(type) {
	case nil:
		return nil
	case string:
		return []byte(v)
	case *string:
		if v == nil {
			return nil
		}
		return []byte(*v)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case []byte:
		if v == nil {
			return nil
		}
		return hex.AppendEncode([]byte(`\x`), v)
	case time.Duration:
		return fmt.Appendf(nil, "%d microseconds", v.Microseconds())
	default:
		panic(fmt.Sprintf("postgres: an argument of type %T", arg))
	}
}

// Tx is a transaction under way.
type Tx struct{ conn *conn }

// Query runs one statement of the transaction. It doesn't stay prepared: a transaction that a bind failed can't go on.
func (tx Tx) Query(ctx context.Context, sql string, args ...any) (Rows, error) {
	return tx.conn.query(ctx, sql, texts(args))
}

// errRolledBack is a commit that Postgres answered with a rollback, because a statement before it had failed.
var errRolledBack = errors.New("the transaction was rolled back instead of committed")

// Transaction runs fn in a transaction of the given modes, such as "READ ONLY" or none. It commits when fn returns nil, and rolls back and
// returns fn's error otherwise.
func (p *Pool) Transaction(ctx context.Context, modes string, fn func(tx Tx) error) error {
	res, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	// A connection that couldn't be rolled back isn't idle, and so it ends here.
	defer release(res)
	tx := Tx{res.Value()}
	if _, err := tx.Query(ctx, "BEGIN "+modes); err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		_, _ = tx.Query(ctx, "ROLLBACK")
		return err
	}
	result := tx.conn.ExecParams(ctx, "COMMIT", nil, nil, nil, nil).Read()
	if result.Err == nil && result.CommandTag.String() != "COMMIT" {
		return errRolledBack
	}
	return result.Err
}
