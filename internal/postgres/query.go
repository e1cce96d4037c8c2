package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// session is what the pool knows about one connection. It is kept in the connection's custom data.
type session struct {
	// direct says that the connection always reaches the same session of the server. Through a
	// pooler the next statement may run in another session, which has other prepared statements.
	direct bool
	// ran has the statements that ran here before, up to maxPrepared.
	ran map[string]struct{}
}

// sessionName is the session's name in the custom data.
const sessionName = "allo"

// mode decides how a statement runs. The first time on a connection it runs unnamed, in one round
// trip. From the second time on it is prepared, if the connection is direct, because parsing a CALL
// and looking up its procedure takes a sixth of a reserve's time in the server. Preparing a
// statement takes one more round trip, once.
func (p *Pool) mode(conn *pgxpool.Conn, sql string) pgx.QueryExecMode {
	s, ok := conn.Conn().PgConn().CustomData()[sessionName].(*session)
	if !ok || !s.direct || p.unnamed.Load() {
		return pgx.QueryExecModeExec
	}
	if _, again := s.ran[sql]; again {
		return pgx.QueryExecModeCacheStatement
	}
	if len(s.ran) < maxPrepared {
		s.ran[sql] = struct{}{}
	}
	return pgx.QueryExecModeExec
}

// Query runs one statement in a transaction of its own and returns its rows, each made by to. Once
// prepared, and on a new connection, it is one round trip.
//
// Arguments are strings, numbers, booleans, bytes, durations, pointers to them, or slices. An id is
// a string: pgx encodes a string in the text form of the parameter's type, prepared or not.
//
// The URL's default_query_exec_mode overrides the pool's own choice, because PgBouncer tracks
// prepared statements from 1.21 on. If the pooler doesn't, the server refuses the statement before
// it runs. The statement is then sent unnamed, and so are all later ones. A wrong statement can't
// run, because a prepared statement's name is a digest of its text. When a migration has changed
// the types of a prepared statement's result, the server refuses it likewise. It is then prepared
// anew and sent once more.
func Query[T any](
	ctx context.Context, p *Pool, to pgx.RowToFunc[T], sql string, args ...any,
) (result []T, err error) {
	err = p.query(ctx, sql, args, func(rows pgx.Rows) (err error) {
		result, err = pgx.CollectRows(rows, to)
		return err
	})
	return result, err
}

// QueryRow is Query for a statement that returns exactly one row. Its error is pgx.ErrNoRows or
// pgx.ErrTooManyRows when there is another number.
func QueryRow[T any](
	ctx context.Context, p *Pool, to pgx.RowToFunc[T], sql string, args ...any,
) (result T, err error) {
	err = p.query(ctx, sql, args, func(rows pgx.Rows) (err error) {
		result, err = pgx.CollectExactlyOneRow(rows, to)
		return err
	})
	return result, err
}

// Exec is Query for a statement whose rows don't matter.
func (p *Pool) Exec(ctx context.Context, sql string, args ...any) error {
	return p.query(ctx, sql, args, func(rows pgx.Rows) error {
		rows.Close()
		return rows.Err()
	})
}

// query lends a connection to one statement. read reads all of its rows.
func (p *Pool) query(ctx context.Context, sql string, args []any, read func(pgx.Rows) error) error {
	conn, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	run := func(mode pgx.QueryExecMode) error {
		rows, err := conn.Query(ctx, sql, append([]any{mode}, args...)...)
		if err != nil {
			return err
		}
		return read(rows)
	}
	mode := p.mode(conn, sql)
	err = run(mode)
	switch {
	case mode != pgx.QueryExecModeCacheStatement:
		return err
	case lostStatement(err):
		p.unnamed.Store(true)
		return run(pgx.QueryExecModeExec)
	case resultChanged(err):
		return run(mode) // the driver has dropped the statement, as after every error
	default:
		return err
	}
}

// Transaction runs fn in a transaction. It commits when fn returns nil. Otherwise it rolls back and
// returns fn's error. It returns pgx.ErrTxCommitRollback when fn ignored a failed statement. No
// statement of fn stays prepared: one that a pooler lost would end the transaction.
func (p *Pool) Transaction(
	ctx context.Context, options pgx.TxOptions, fn func(tx pgx.Tx) error,
) error {
	conn, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return pgx.BeginTxFunc(ctx, conn, options, fn)
}
