package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// The SQLSTATEs that the service tells apart, from Postgres's appendix A.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"
	readOnlyTransaction  = "25006"
	idleInTransaction    = "25P03"
	internalError        = "XX000"
	invalidStatementName = "26000"
	duplicateStatement   = "42P05"
	featureNotSupported  = "0A000"
	invalidPassword      = "28P01"
	unknownDatabase      = "3D000"
	undefinedTable       = "42P01"
	undefinedFunction    = "42883"

	insufficientPrivilege = "42501"
)

// ErrSaturated means that as many callers as may wait for a connection already do. Nothing was
// sent.
var ErrSaturated = errors.New("too many callers wait for a connection to the database")

// errInUse means that a caller waited until its time was over, and that others had connections
// then. Nothing was sent.
var errInUse = errors.New("all connections to the database are in use")

// full reports whether the pool had no connection left for a caller. It says nothing of the server,
// with which other callers are connected.
func full(err error) bool { return errors.Is(err, ErrSaturated) || errors.Is(err, errInUse) }

// errUnreplicated means that a statement's effect is committed on the server, but may be missing on
// its synchronous standby.
var errUnreplicated = errors.New("the synchronous standby didn't confirm the commit in time")

// NoConnectionError means that no connection could be made or taken from the pool. Nothing was
// sent.
type NoConnectionError struct{ Err error }

func (e *NoConnectionError) Error() string {
	return "no connection to the database: " + e.Err.Error()
}

func (e *NoConnectionError) Unwrap() error { return e.Err }

// NoConnection reports whether err is a *NoConnectionError, unless the caller itself gave up.
func NoConnection(err error) bool {
	var none *NoConnectionError
	return errors.As(err, &none) && !errors.Is(err, context.Canceled)
}

// Retryable reports whether Postgres undid the transaction because of a deadlock or a serialization
// failure. A new transaction may succeed.
func Retryable(err error) bool { return hasCode(err, deadlockDetected, serializationFailure) }

// FailedAt reports whether a statement with this text, within a routine, failed. The server tells
// the text in one field while it prepares the statement, and in another one while it runs it.
func FailedAt(err error, text string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) &&
		(strings.Contains(pg.InternalQuery, text) || strings.Contains(pg.Where, text))
}

// LockTimeout reports whether the statement waited for a lock for longer than lock_timeout.
func LockTimeout(err error) bool { return hasCode(err, lockNotAvailable) }

// Refused reports whether the server refused the user or the password.
func Refused(err error) bool {
	const invalidAuthorization = "28" // the class
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, invalidAuthorization)
}

// Unavailable reports whether the database couldn't be reached, has no free connection, is shutting
// down or didn't answer in time, or whether its standby didn't confirm a commit. The caller may try
// again later. It can't know whether the statement took effect.
func Unavailable(err error) bool {
	var none *NoConnectionError
	var connect *pgconn.ConnectError
	var source *SourceError
	var network net.Error
	if errors.As(err, &none) || errors.As(err, &connect) || errors.As(err, &source) ||
		errors.Is(err, ErrSaturated) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) || errors.Is(err, errUnreplicated) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "08", "53", "57", "58": // connection, resources, shutdown and cancel, system
			return true
		}
		// A client left a transaction idle for too long, or the server takes no writes.
		return pg.Code == idleInTransaction || readOnly(pg)
	}
	// Any other error below comes from the network, not from the server.
	return pgconn.SafeToRetry(err) || errors.As(err, &network) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, puddle.ErrClosedPool) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

// readOnly reports whether the server takes no writes: it is a standby, or was the writer before a
// fail-over. A standby has no SQLSTATE of its own for a transaction that needs an id.
func readOnly(pg *pgconn.PgError) bool {
	return pg.Code == readOnlyTransaction ||
		pg.Code == internalError && strings.Contains(pg.Message, "during recovery")
}

// SchemaMissing reports whether the database has no such table or routine, or the role may not use
// it.
func SchemaMissing(err error) bool {
	return hasCode(err, undefinedTable, undefinedFunction, insufficientPrivilege)
}

// lostStatement reports whether a prepared statement is missing from the server's session, or its
// name is another client's. Postgres refused the statement before it ran.
func lostStatement(err error) bool { return hasCode(err, invalidStatementName, duplicateStatement) }

// resultChanged reports whether a migration has changed the columns of a prepared statement's
// result. Postgres refused the statement before it ran. The SQLSTATE is also that of a statement
// that fails while it runs, and the message is translated, so the name of the server's function
// decides.
func resultChanged(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == featureNotSupported &&
		pg.Routine == "RevalidateCachedQuery"
}

func hasCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(codes, pg.Code)
}

// connectError is a failed connect in one line that names the remedy. The driver's own text has a
// line for each address, and two for each with sslmode=prefer.
type connectError struct {
	text string
	err  error
}

func (e *connectError) Error() string { return e.text }

func (e *connectError) Unwrap() error { return e.err }

// explain gives a failed connect a text that names the remedy, and leaves other errors alone. The
// text never has the password.
func explain(err error) error {
	var failed *pgconn.ConnectError
	if !errors.As(err, &failed) {
		return err
	}
	return &connectError{text: remedy(failed), err: err}
}

// remedy says why a connect failed and what to check.
func remedy(failed *pgconn.ConnectError) string {
	config := failed.Config
	server := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	if strings.HasPrefix(config.Host, "/") {
		_, server = pgconn.NetworkAddress(config.Host, config.Port) // a socket's path
	}
	var pg *pgconn.PgError
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(failed, &pg):
		return refusal(pg, server, config)
	case errors.As(failed, &dns):
		return fmt.Sprintf("the host %s can't be resolved: check its spelling in the database's URL, "+
			"and this machine's DNS", config.Host)
	case errors.Is(failed, syscall.ECONNREFUSED), errors.Is(failed, syscall.ENOENT):
		return server + " refuses the connection: is Postgres running there, and is the port right?"
	case errors.Is(failed, context.DeadlineExceeded),
		errors.As(failed, &network) && network.Timeout():
		return fmt.Sprintf("can't reach %s, which doesn't answer in time: is it running?", server)
	default:
		first, _, _ := strings.Cut(failed.Unwrap().Error(), "\n")
		return fmt.Sprintf("can't connect to %s: %s", server, first)
	}
}

// refusal says why the server refused a connection.
func refusal(pg *pgconn.PgError, server string, config *pgconn.Config) string {
	switch pg.Code {
	case invalidPassword:
		return fmt.Sprintf("the server at %s refuses the password of user %q: check the user and the "+
			"password in the database's URL", server, config.User)
	case unknownDatabase:
		return fmt.Sprintf("the server at %s has no database %q: create it, or correct the name in "+
			"the database's URL", server, config.Database)
	default:
		return fmt.Sprintf("the server at %s refuses the connection: %s (SQLSTATE %s)", server,
			pg.Message, pg.Code)
	}
}
