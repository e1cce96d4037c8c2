package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// UnsafeServerError lists the settings for which a server loses acknowledged commits or waits
// without a limit.
type UnsafeServerError struct{ Settings []string }

func (e *UnsafeServerError) Error() string {
	return "the database server is not safe to reserve on: " + strings.Join(e.Settings, ", ")
}

// greeting is a session's answer to greetingSQL: the process number of the session, whether it can
// only read, and the rules about settings that it breaks.
type greeting struct {
	PID      uint32
	ReadOnly bool
	Broken   []string
}

var greetingSQL = `
SELECT pg_backend_pid(), current_setting('transaction_read_only') = 'on',
       ARRAY(` + BrokenRulesSQL(OnConnect) + ")"

// afterConnect greets the server and refuses an unsafe one with an *UnsafeServerError. The check
// belongs to each connection: a process may start while its database is out of reach, and a
// fail-over or an ALTER ROLE may change the settings later. A change that reaches open sessions is
// found by their replacements, after maxLifetime and its jitter. Through a pooler, the check sees
// one of the server's sessions. The others have the same settings, because a pooler takes them from
// the role.
func afterConnect(ctx context.Context, conn *pgx.Conn) error {
	answer, err := greet(ctx, conn)
	if err != nil {
		return err
	}
	if len(answer.Broken) > 0 {
		return &UnsafeServerError{Settings: answer.Broken}
	}
	return nil
}

// Unchecked is an Option for a pool that needs a server, but not a safe one. Such a pool serves no
// requests: it waits for a database that isn't migrated yet, or repairs the settings.
func Unchecked(c *pgxpool.Config) {
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := greet(ctx, conn)
		return err
	}
}

// greet asks a new connection's first question, in one round trip. The process number tells whether
// the connection is direct: a server tells each connection the number of its session, and when a
// statement runs in a session with another number, there is a pooler in between.
func greet(ctx context.Context, conn *pgx.Conn) (greeting, error) {
	try, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return greeting{}, errOutsideAcquire
	}
	rows, err := conn.Query(ctx, greetingSQL)
	if err != nil {
		return greeting{}, fmt.Errorf("ask for the session's settings: %w", err)
	}
	answer, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[greeting])
	if err != nil {
		return greeting{}, fmt.Errorf("ask for the session's settings: %w", err)
	}
	one := answer.PID == conn.PgConn().PID()
	direct := try.mode == cacheStatement // the URL's choice comes first
	if try.mode == "" {
		direct = one
	}
	conn.PgConn().CustomData()[sessionName] = &session{
		direct: direct, ran: map[string]struct{}{}, readOnly: answer.ReadOnly, reports: one,
		resets: try.resets,
	}
	return answer, conn.PgConn().Conn().SetDeadline(time.Time{}) // boundedDial has set one
}
