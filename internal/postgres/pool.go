package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/puddle/v2"
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
)

// Pool lends out connections to one database, of which it has no more than its size. It is safe for concurrent use.
//
// It is pgx's connection (pgconn) under the pool that pgxpool is made of (puddle), and what it does when a connection is taken and
// given back is pgxpool's. It isn't pgxpool, because pgx's layer of types would be linked into every Lambda: three megabytes that a
// cold start has to load, where a verb is one statement whose answer is one text.
type Pool struct {
	conns     *puddle.Pool[*conn]
	pingAfter time.Duration
}

// conn is a connection with the end of its life.
type conn struct {
	*pgconn.PgConn
	expires time.Time
}

// Option changes how connections are made.
type Option func(*pgconn.Config)

// Open makes a pool of at most size connections. It doesn't connect.
func Open(databaseURL string, size int, options ...Option) (*Pool, error) {
	config, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("parse DATABASE_URL: %w", err)
	}
	config.ConnectTimeout = connectTimeout
	// A pooler refuses other start-up parameters.
	config.RuntimeParams = map[string]string{"application_name": "allo-reservations"}
	// A caller who gives up frees the locks at once: the statement is cancelled and the connection kept.
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelDeadline}
	}
	for _, option := range options {
		option(config)
	}
	conns, err := puddle.NewPool(&puddle.Config[*conn]{
		Constructor: func(ctx context.Context) (*conn, error) {
			// The configuration's own limit is one address's, and leaves out the look-up of the name.
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			c, err := pgconn.ConnectConfig(ctx, config)
			if err != nil {
				return nil, err
			}
			return &conn{c, time.Now().Add(maxLifetime + rand.N(lifetimeJitter))}, nil
		},
		Destructor: func(c *conn) {
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			defer cancel()
			_ = c.Close(ctx) // the server finds out by itself
		},
		MaxSize: int32(size),
	})
	if err != nil {
		return nil, fmt.Errorf("make a pool of %d connections: %w", size, err)
	}
	return &Pool{conns, defaultPingAfter}, nil
}

// Close waits until every connection is given back, and closes them.
func (p *Pool) Close() { p.conns.Close() }

// Reset closes the connections that exist, those in use when they are given back, so that later ones have the role's settings of now.
func (p *Pool) Reset() { p.conns.Reset() }

// acquire takes a connection that is young enough and, if it was idle, alive.
func (p *Pool) acquire(ctx context.Context) (*puddle.Resource[*conn], error) {
	for {
		res, err := p.conns.Acquire(ctx)
		if err != nil {
			return nil, err
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

// Query runs one statement and reads its rows: parse, bind, execute and sync go out in one write, so it is one round trip, the first
// on a connection included. Nothing stays prepared, so a pooler in transaction mode has nothing to lose track of; the verbs are
// procedures, whose plans the server keeps.
//
// An argument is nil, a string, a *string, an int, bytes or a duration.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (Rows, error) {
	res, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release(res)
	return query(ctx, res.Value(), sql, args)
}

func query(ctx context.Context, c *conn, sql string, args []any) (Rows, error) {
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = text(arg)
	}
	result := c.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	return result.Rows, result.Err
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

// Query runs one statement of the transaction.
func (tx Tx) Query(ctx context.Context, sql string, args ...any) (Rows, error) {
	return query(ctx, tx.conn, sql, args)
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
