// Package postgres opens the pool as a Lambda needs it, and checks that the server keeps what it acknowledges.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/allo/reservations/internal/dsn"
)

// UnsafeServerError says that a server doesn't keep what it acknowledges, or doesn't bound its waits.
type UnsafeServerError struct{ Settings []string }

func (e *UnsafeServerError) Error() string {
	return "the database server is not safe to reserve on: " + strings.Join(e.Settings, ", ")
}

// Aurora has no disk of its own to flush: its storage acknowledges a commit when four of six copies have it, whatever fsync says there.
const serverSettings = `
SELECT CASE WHEN to_regproc('aurora_version') IS NULL THEN current_setting('fsync') ELSE 'on' END, current_setting('synchronous_commit'),
       current_setting('lock_timeout'), current_setting('statement_timeout')`

// Check asks the server for the settings that the promises stand on: fsync and synchronous_commit for I5, and the timeouts that
// bound every wait. Its error is an *UnsafeServerError when one of them is off, or what kept it from asking.
func Check(ctx context.Context, db Querier) error {
	rows, err := db.Query(ctx, serverSettings)
	if err != nil {
		return fmt.Errorf("ask the server for its settings: %w", err)
	}
	setting := func(n int) string { return string(rows[0][n]) }
	fsync, synchronous, lock, statement := setting(0), setting(1), setting(2), setting(3)
	var unsafe []string
	if fsync != "on" {
		unsafe = append(unsafe, "fsync is "+fsync+", so a crash loses holds")
	}
	if synchronous == "off" {
		unsafe = append(unsafe, "synchronous_commit is off, so a crash loses holds")
	}
	if lock == "0" {
		unsafe = append(unsafe, "lock_timeout is 0 (the migration sets it on the role)")
	}
	if statement == "0" {
		unsafe = append(unsafe, "statement_timeout is 0 (the migration sets it on the role)")
	}
	if unsafe != nil {
		return &UnsafeServerError{Settings: unsafe}
	}
	return nil
}

// The SQLSTATEs that the service tells apart, from Postgres's appendix A.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"
	readOnlyTransaction  = "25006"
	idleInTransaction    = "25P03"
	invalidStatementName = "26000"
	duplicateStatement   = "42P05"
)

// Retryable reports whether the transaction was undone through no fault of its own, so that a fresh one may do: a deadlock or a
// serialization failure, and nothing else.
func Retryable(err error) bool {
	return hasCode(err, deadlockDetected, serializationFailure)
}

// LockTimeout reports whether a row's lock couldn't be had in time.
func LockTimeout(err error) bool { return hasCode(err, lockNotAvailable) }

// NoConnection reports whether no connection could be had or made, for another reason than that the caller gave up.
func NoConnection(err error) bool {
	var none *NoConnectionError
	return errors.As(err, &none) && !errors.Is(err, context.Canceled)
}

// Unavailable reports whether the database couldn't be reached, is saturated, is shutting down or didn't answer in time: the
// caller may try again later, and can't know whether the statement took effect.
func Unavailable(err error) bool {
	var connect *pgconn.ConnectError
	var source *dsn.Error
	if errors.As(err, &connect) || errors.As(err, &source) || errors.Is(err, ErrSaturated) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "08", "53", "57", "58": // connection, insufficient resources, operator intervention and cancels, system
			return true
		}
		// The old writer after a fail-over; a transaction that its client left idle for too long.
		return pg.Code == readOnlyTransaction || pg.Code == idleInTransaction
	}
	// What the server didn't say came from the way to it.
	var network net.Error
	return pgconn.SafeToRetry(err) || errors.As(err, &network) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, puddle.ErrClosedPool) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}

func hasCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(codes, pg.Code)
}
