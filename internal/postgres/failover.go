package postgres

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A fail-over, as a pool sees it. The server's name leads to another server, and one of these
// happens to the connections to the old one:
//
//   - They break, because the server has died or restarts, or it says that it shuts down. The
//     caller gets an error that is Unavailable. The pool drops this connection and all idle ones.
//   - They carry nothing any more, because the server's machine has gone. The kernel ends such a
//     connection after probeAfter + probes * probeEvery.
//   - They work, but the server takes no writes any more. The first write gets SQLSTATE 25006
//     (read_only_sql_transaction), and the connection is closed for it. A function that never
//     writes must not stay there either. So a connection serves one caller if the server says that
//     it is read-only: as an answer to the connection's first question, because the name still led
//     to the old writer, or later.
//
// A statement that failed isn't sent again here. A verb commits twice in one CALL, so SQLSTATE
// 25006 doesn't tell whether the first commit was made. The caller gets 503 with Retry-After and
// repeats the call under its Idempotency-Key.
//
// The name is looked up for each connection. There is no cache in the way: pgx and Go's resolver
// have none, and a static Go binary asks the name server of /etc/resolv.conf by itself. In a VPC
// that is Route 53 Resolver, which keeps an answer for as long as its TTL says: 5 s for Aurora's
// endpoints (AWS Database Blog, "Improve application availability on Amazon Aurora").
//
// Until the name leads to the new writer, each call connects to the old one, and nothing slows the
// connects down. They are no storm: a call connects at most once, nobody connects without a call,
// and no more connect at once than the pool has places. A Lambda has one. The gateway's throttle
// bounds the calls, and each gets a 503 with Retry-After. A pause between connects would refuse
// calls that the new writer can serve. It would spare little, because each environment has its own.
const (
	// dialTimeout bounds the connect to one address. Within a region it takes a millisecond. A
	// machine that has gone doesn't answer, and a caller who met it should soon look up the name
	// again. The first packet is sent again after 1 s, so one lost packet does no harm.
	dialTimeout = 2 * time.Second
	// A connection without traffic for probeAfter is probed every probeEvery. When as many as probes
	// get no answer, the kernel ends the connection, and a caller who waits gets an error. "Fast
	// failover with Amazon Aurora PostgreSQL" advises 1 s, 1 s and 5 probes. Three end the connection
	// well within the 7 s of a request.
	probeAfter = time.Second
	probeEvery = time.Second
	probes     = 3
	// unackedTimeout is the same bound for data that was sent and not acknowledged. Such a connection
	// isn't probed, and the kernel would send the data again for a quarter of an hour. A server that
	// is busy or waits for a lock acknowledges all the same.
	unackedTimeout = probeAfter + probes*probeEvery
	// closeTimeout bounds the closing of a healthy connection.
	closeTimeout = time.Second
)

// dial connects to one address.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes,
		},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			return boundUnacked(conn)
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// Standby is an Option for a pool that reads from a standby on purpose. Without it, a connection to
// a server that takes no writes serves one caller.
func Standby(c *pgxpool.Config) {
	afterConnect := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		err := afterConnect(ctx, conn)
		if s := sessionOf(conn.PgConn()); s != nil {
			s.mayOnlyRead = true
		}
		return err
	}
}

// giveBack ends the loan of a connection.
func (p *Pool) giveBack(loan *pgxpool.Conn, s *session) {
	defer loan.Release()
	conn := loan.Conn()
	if !conn.IsClosed() && !s.mayOnlyRead &&
		(s.readOnly || s.reports && reportsReadOnly(conn.PgConn())) {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx) // the server's answer doesn't matter
	}
	if conn.IsClosed() {
		p.dropSiblings(s)
	}
}

// reportsReadOnly reports whether the server has become read-only since the session began. From
// version 14 on, Postgres sends these two settings with the answer to the next statement when they
// change. A pooler may send those of another session.
func reportsReadOnly(conn *pgconn.PgConn) bool {
	return conn.ParameterStatus("default_transaction_read_only") == "on" ||
		conn.ParameterStatus("in_hot_standby") == "on"
}

// dropSiblings closes the connections that are as old as one that broke. It closes those in use
// when they are given back. They lead to the same server, so the next callers would meet the same
// error. When several of them break, only the first closes the others: the later ones must not
// close the connections that were made since.
func (p *Pool) dropSiblings(s *session) {
	if p.resets.CompareAndSwap(s.resets, s.resets+1) {
		p.pool.Reset()
	}
}
