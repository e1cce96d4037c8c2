package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// The bounds of a read on a reader. A request has 7 s (internal/httpapi), and a second more goes by
// when a statement has to be cancelled. So the writer has at least two seconds left.
const (
	// readerPatience bounds the connect to the reader and the question how far it is behind. Both
	// take some milliseconds. A proxy without a reader would let its caller wait for 5 s.
	readerPatience = time.Second
	// readerLimit bounds a statement of [Reader.Fresh], which takes some milliseconds too.
	readerLimit = 3 * time.Second
	// readerPause is how long a reader that can't be used isn't asked again. So an environment pays
	// readerPatience once in that time, and not for each request.
	readerPause = 5 * time.Second
	// readerQueue is how many callers for each connection may be about to get one: one who connects,
	// and one who waits. Others read on the writer at once, and wait for nothing.
	readerQueue = 2
)

// Fallback is the reason for which a read wasn't answered by the reader.
type Fallback string

// The reasons.
const (
	// Unreachable means that the reader is missing, refuses connections, or died during a read.
	Unreachable Fallback = "unreachable"
	// Lagging means that the reader is too far behind, or doesn't tell how far it is.
	Lagging Fallback = "lagging"
	// Conflict means that the reader cancelled the read because it must apply a change.
	Conflict Fallback = "conflict"
	// Schema means that the reader lacks a table or a routine, because a migration hasn't reached it.
	Schema Fallback = "schema"
	// Busy means that other callers of this process had all connections to the reader, or waited for
	// them (readerQueue). It says nothing of the reader, so the next read asks it again. A Lambda has
	// one caller and never reports it.
	Busy Fallback = "busy"
)

// Fallbacks lists the reasons.
func Fallbacks() []Fallback { return []Fallback{Unreachable, Lagging, Conflict, Schema, Busy} }

// ReaderOptions are the settings of a Reader.
type ReaderOptions struct {
	// MaxLag is how far the answers of Fresh may be behind the writer.
	MaxLag time.Duration
	// OnFallback, unless nil, is called for each read that the reader doesn't answer. err says what
	// was found. It is nil when the reader wasn't asked, because of what an earlier read has found.
	OnFallback func(reason Fallback, err error)
}

// Reader is a pool to a server that follows the database. Its caller reads on the writer what the
// reader doesn't answer. It is safe for concurrent use. A nil Reader answers nothing.
//
// The reader has a state that the writer had: it applies the log in its order, so that it shows a
// transaction together with all that the transaction saw. When the writer has failed over to it, or
// when a cluster has no reader, the same address may lead to the writer itself.
type Reader struct {
	pool *Pool
	opts ReaderOptions
	// These are readerLimit, readerPause and readerPatience. A test changes them.
	limit, pauseFor, patience time.Duration

	mu sync.Mutex
	// lagSQL is the question for the lag, once the engine is known.
	lagSQL string
	// At measured the reader was so little behind that its answers are fresh for the time trusted, on
	// the connections that were made by then: the pool had begun so many connects.
	measured time.Time
	trusted  time.Duration
	connects int64
	// At paused a read has found that the reader can't be used, for the reason why.
	paused time.Time
	why    Fallback
}

// OpenReader makes a Reader with a pool of at most size connections. Its arguments and its errors
// are otherwise those of [Open].
func OpenReader(
	source Source, size int, opts ReaderOptions, options ...Option,
) (*Reader, error) {
	pool, err := Open(source, size, append(options, Standby)...)
	if err != nil {
		return nil, err
	}
	pool.mostWaiting = int64(readerQueue * size)
	return &Reader{
		pool: pool, opts: opts,
		limit: readerLimit, pauseFor: readerPause, patience: readerPatience,
	}, nil
}

// Connect connects, unless a connection is free already. Its error is a *NoConnectionError.
func (r *Reader) Connect(ctx context.Context) error { return r.pool.Connect(ctx) }

// Close waits until every connection is given back, and closes them.
func (r *Reader) Close() {
	if r != nil {
		r.pool.Close()
	}
}

// Fresh calls read with a pool whose answers are at most MaxLag behind the writer. It answers false
// when the caller must read on the writer: when there is no reader, when the reader can't be used,
// or when read failed for a reason that is the reader's own (Fallback).
//
// Otherwise the error is read's. A read that takes longer than readerLimit fails: a reader that is
// slow because it has too much to do mustn't lead all its load to the writer, where the sale is.
func (r *Reader) Fresh(
	ctx context.Context, read func(context.Context, *Pool) error,
) (answered bool, err error) {
	return r.try(ctx, true, func(ctx context.Context, p *Pool) error {
		ctx, cancel := context.WithTimeout(ctx, r.limit)
		defer cancel()
		return read(ctx, p)
	})
}

// AnyAge is Fresh for a caller that checks by itself how far the reader is, or doesn't care. It
// bounds read by ctx alone.
func (r *Reader) AnyAge(
	ctx context.Context, read func(context.Context, *Pool) error,
) (answered bool, err error) {
	return r.try(ctx, false, read)
}

func (r *Reader) try(
	ctx context.Context, fresh bool, read func(context.Context, *Pool) error,
) (answered bool, err error) {
	if r == nil {
		return false, nil
	}
	if why := r.pausedBy(); why != "" && (fresh || why != Lagging) {
		r.tell(why, nil)
		return false, nil
	}
	why := Fallback("")
	if err = r.reach(ctx, fresh); err != nil {
		why = unusable(err)
	} else if err = read(ctx, r.pool); err != nil {
		why = fallbackOf(err)
	}
	if why == "" || ctx.Err() != nil {
		return true, err
	}
	if why != Conflict && why != Busy { // the next read may meet neither
		r.pause(why)
	}
	r.tell(why, err)
	return false, nil
}

// unusable returns the reason for which a reader couldn't be reached, or mustn't be read.
func unusable(err error) Fallback {
	switch {
	case errors.As(err, new(*LagError)):
		return Lagging
	case full(err):
		return Busy
	default:
		return Unreachable
	}
}

// Codes of Postgres that mean something else on a reader.
const (
	queryCanceled   = "57014"
	undefinedColumn = "42703"
)

// fallbackOf returns the reason for which the writer should answer a read that failed on the
// reader, or nothing if the error is the answer. A statement that the server cancelled took too
// long: the reader works, and the writer wouldn't be faster.
func fallbackOf(err error) Fallback {
	switch {
	case Retryable(err):
		return Conflict
	case SchemaMissing(err), hasCode(err, undefinedColumn):
		return Schema
	case hasCode(err, queryCanceled):
		return ""
	case full(err):
		return Busy
	case Unavailable(err):
		return Unreachable
	default:
		return ""
	}
}

func (r *Reader) tell(why Fallback, err error) {
	if r.opts.OnFallback != nil {
		r.opts.OnFallback(why, err)
	}
}

// reach makes sure of a connection, and of a small lag if the read must be fresh.
func (r *Reader) reach(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	if !fresh || r.isFresh() {
		if err := r.pool.Connect(ctx); err != nil || !fresh || r.isFresh() {
			return err
		}
	}
	return r.measure(ctx)
}

// LagError means that a reader is too far behind its writer.
type LagError struct {
	// Lag is how far, or nil when the reader doesn't know.
	Lag *time.Duration
}

func (e *LagError) Error() string {
	if e.Lag == nil {
		return "the reader doesn't know how far it is behind: nothing reaches it from the writer"
	}
	return fmt.Sprintf("the reader is %s behind", e.Lag.Round(time.Millisecond))
}

// The questions for the lag in milliseconds, which is null when the server doesn't know it.
const (
	// auroraLagSQL asks the instance for its own row. An instance of Aurora reads the volume that the
	// writer writes, so that it knows no time of a replay. The last_update_timestamp of an instance's
	// own row is null, because the row is of this moment. (Amazon Aurora User Guide,
	// aurora_replica_status and aurora_db_instance_identifier.)
	//
	// A proxy may send the read to another reader than the one that was asked. With one reader, as in
	// our stack, there is no other.
	auroraLagSQL = `
SELECT CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN 0 ELSE s.replica_lag_in_msec END::float8
FROM (SELECT) one
LEFT JOIN aurora_replica_status() s ON s.server_id = aurora_db_instance_identifier()`

	// standbyLagSQL asks a standby of stock Postgres. It isn't behind when it has applied all that it
	// has received and its receiver runs, however long ago the last transaction was: the primary may
	// be idle. Otherwise it is behind since the last transaction that it has applied. The two
	// servers' clocks must agree.
	//
	// A standby can't know of what has not reached it. When the network to its primary dies without
	// a sign, its receiver gives up after wal_receiver_timeout, a minute by default. Until then the
	// standby takes itself for up to date.
	standbyLagSQL = `
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN 0
    WHEN pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
         AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
    ELSE greatest(0, extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)
    END::float8`

	// engineSQL asks whether the server is Aurora.
	engineSQL = `SELECT to_regproc('aurora_replica_status') IS NOT NULL`
)

// measure asks the reader how far it is behind, in one round trip, and in two the first time. The
// answers are fresh for as long as the reader could have stood still since then without being
// MaxLag behind. A new connection is measured anew, because the same name may lead to another
// server.
func (r *Reader) measure(ctx context.Context) error {
	question, err := r.lagQuestion(ctx)
	if err != nil {
		return err
	}
	if err := r.pool.Connect(ctx); err != nil {
		return err
	}
	start, connects := time.Now(), r.pool.connects.Load()
	ms, err := QueryRow(ctx, r.pool, pgx.RowTo[*float64], question)
	if err != nil {
		return fmt.Errorf("ask the reader how far it is behind: %w", err)
	}
	if ms == nil {
		return &LagError{}
	}
	lag := time.Duration(*ms * float64(time.Millisecond))
	if lag >= r.opts.MaxLag {
		return &LagError{&lag}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measured, r.trusted, r.connects = start, r.opts.MaxLag-lag, connects
	return nil
}

func (r *Reader) lagQuestion(ctx context.Context) (string, error) {
	r.mu.Lock()
	question := r.lagSQL
	r.mu.Unlock()
	if question != "" {
		return question, nil
	}
	isAurora, err := QueryRow(ctx, r.pool, pgx.RowTo[bool], engineSQL)
	if err != nil {
		return "", fmt.Errorf("ask the reader for its engine: %w", err)
	}
	question = standbyLagSQL
	if isAurora {
		question = auroraLagSQL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lagSQL = question
	return question, nil
}

func (r *Reader) isFresh() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.measured.IsZero() && since(r.measured) < r.trusted &&
		r.connects == r.pool.connects.Load()
}

// pausedBy returns why the reader can't be used now, or nothing.
func (r *Reader) pausedBy() Fallback {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused.IsZero() || since(r.paused) >= r.pauseFor {
		return ""
	}
	return r.why
}

func (r *Reader) pause(why Fallback) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused, r.why, r.measured = time.Now(), why, time.Time{}
}

// since is how long ago a moment was, by the clock that shows more: the monotonic one may stand
// still while a Lambda is frozen, and the other may be set back.
func since(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}
