package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// session is what the pool knows about one connection. It is kept in the connection's custom data.
type session struct {
	// direct says that the connection always reaches the same session of the server. Through a
	// pooler the next statement may run in another session, which has other prepared statements.
	direct bool
	// ran has the statements that ran here before, up to maxPrepared.
	ran map[string]struct{}
	// unreplicated is set when a commit of the present caller didn't wait for its standby.
	unreplicated bool
	// readOnly says that the server took no writes when the connection was made. mayOnlyRead says
	// that the pool doesn't mind.
	readOnly, mayOnlyRead bool
	// reports says that the settings that the server reports are those of this session.
	reports bool
	// resets is the pool's count when the connection was made.
	resets uint64
}

// sessionName is the session's name in the custom data.
const sessionName = "allo"

// sessionOf returns the session of a connection, or nil before its first question is answered.
func sessionOf(conn *pgconn.PgConn) *session {
	s, _ := conn.CustomData()[sessionName].(*session)
	return s
}

// lend takes a connection from the pool for one caller.
func (p *Pool) lend(ctx context.Context) (*pgxpool.Conn, *session, error) {
	conn, err := p.acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := sessionOf(conn.Conn().PgConn())
	s.unreplicated = false
	return conn, s, nil
}

// onNotice remembers a cancelled wait for a synchronous standby. The statement then succeeds with a
// warning, although a fail-over to the standby would lose its commit. The name of the server's
// function tells the warning, because its SQLSTATE is that of any warning and its text is
// translated.
func onNotice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if s := sessionOf(conn); s != nil && n.Routine == "SyncRepWaitForLSN" {
		s.unreplicated = true
	}
}

// acknowledged returns the error of a statement that succeeded, when its caller mustn't take it for
// done. Postgres gives up its wait for a standby when the caller cancels, when statement_timeout
// ends, or when an operator cancels. A proxy may drop the warning, so a caller who has given up
// gets an error too.
func (s *session) acknowledged(ctx context.Context) error {
	if s.unreplicated {
		return errUnreplicated
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the caller gave up before the answer came: %w", err)
	}
	return nil
}

// mode decides how a statement runs. The first time on a connection it runs unnamed, in one round
// trip. From the second time on it is prepared, if the connection is direct, because parsing a CALL
// and looking up its procedure takes a sixth of a reserve's time in the server. Preparing a
// statement takes one more round trip, once.
func (p *Pool) mode(s *session, sql string) pgx.QueryExecMode {
	if !s.direct || p.unnamed.Load() {
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
//
// A success means that the server kept its promise: its commit is on disk, and on the synchronous
// standby if there is one. When the wait for the standby was cut short, or ctx is done when the
// answer comes, the error is Unavailable.
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
	conn, s, err := p.lend(ctx)
	if err != nil {
		return err
	}
	defer p.giveBack(conn, s)
	run := func(mode pgx.QueryExecMode) error {
		rows, err := conn.Query(ctx, sql, append([]any{mode}, args...)...)
		if err != nil {
			return err
		}
		return read(rows)
	}
	mode := p.mode(s, sql)
	err = run(mode)
	if mode == pgx.QueryExecModeCacheStatement {
		switch {
		case lostStatement(err):
			p.unnamed.Store(true)
			err = run(pgx.QueryExecModeExec)
		case resultChanged(err):
			err = run(mode) // the driver has dropped the statement, as after every error
		}
	}
	if err != nil {
		return err
	}
	return s.acknowledged(ctx)
}

// Transaction runs fn in a transaction. It commits when fn returns nil. Otherwise it rolls back and
// returns fn's error. It returns pgx.ErrTxCommitRollback when fn ignored a failed statement. No
// statement of fn stays prepared: one that a pooler lost would end the transaction.
func (p *Pool) Transaction(
	ctx context.Context, options pgx.TxOptions, fn func(tx pgx.Tx) error,
) error {
	conn, s, err := p.lend(ctx)
	if err != nil {
		return err
	}
	defer p.giveBack(conn, s)
	if err := pgx.BeginTxFunc(ctx, conn, options, fn); err != nil {
		return err
	}
	return s.acknowledged(ctx)
}
