package reservation

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/postgres"
)

// Options are the settings of a Service.
type Options struct {
	// HoldTTL is how long a hold lasts when the request doesn't say.
	HoldTTL time.Duration
	// MaxHold is the longest that a hold may last, extensions included.
	MaxHold time.Duration
	// MaxPaymentHold is the longest that a hold may last while it is being paid. Zero means a day.
	MaxPaymentHold time.Duration
	// MaxUnits is the most units of a hold. Zero means what the constants MaxLines and MaxQuantity
	// allow.
	MaxUnits int
	// MaxLines is the most lines of a hold after merging, at most the constant MaxLines. Zero means
	// that constant.
	MaxLines int
	// Retention is how long resolved holds and movements stay before a sweep moves them to the
	// archive, at least 30 days. Zero keeps them for ever.
	Retention time.Duration
	// Reader leads to a server that follows the database. The catalog, the operator's reads and the
	// audit read there. Without a Reader they read where the other calls do.
	Reader *postgres.Reader
}

// Service holds stock. It is safe for concurrent use, and any number of services may work on one
// database. An Idempotency-Key belongs to the caller that package principal finds in the context.
type Service struct {
	pool    *postgres.Pool
	opts    Options
	retries atomic.Int64
}

// New makes a Service on a migrated database.
func New(pool *postgres.Pool, opts Options) *Service {
	opts.MaxPaymentHold = cmp.Or(opts.MaxPaymentHold, 24*time.Hour)
	opts.MaxUnits = cmp.Or(opts.MaxUnits, MaxLines*MaxQuantity)
	opts.MaxLines = cmp.Or(opts.MaxLines, MaxLines)
	return &Service{pool: pool, opts: opts}
}

// Retries counts the transactions that ran again after a deadlock or a serialization failure. It
// stays at zero unless another program takes locks in another order, or a deploy changes the lock
// of the idempotency keys (keep_answer in claim_key.sql).
func (s *Service) Retries() int64 { return s.retries.Load() }

// Ping reports whether the database answers. It returns ErrUnavailable.
func (s *Service) Ping(ctx context.Context) error {
	if err := s.pool.Exec(ctx, "SELECT 1"); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// The bounds of a retry. The random pauses keep two transactions that met in a deadlock from
// meeting again.
const (
	maxAttempts = 4
	baseDelay   = 5 * time.Millisecond
	maxDelay    = 50 * time.Millisecond
)

// retry calls fn until it succeeds, fails with another error than a deadlock or a serialization
// failure, or has had maxAttempts. Each call of fn must be a transaction of its own.
func (s *Service) retry(ctx context.Context, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil || !postgres.Retryable(err) || try == maxAttempts {
			return classify(err)
		}
		s.retries.Add(1)
		if err := pause(ctx, try); err != nil {
			return classify(err)
		}
	}
}

// query runs one statement as a transaction of its own, with retries.
func query[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (rows []T, err error) {
	err = s.retry(ctx, func() error {
		rows, err = postgres.Query(ctx, s.pool, to, sql, args...)
		return err
	})
	return rows, err
}

// queryRow is query for a statement that returns exactly one row.
func queryRow[T any](
	ctx context.Context, s *Service, to pgx.RowToFunc[T], sql string, args ...any,
) (row T, err error) {
	err = s.retry(ctx, func() error {
		row, err = postgres.QueryRow(ctx, s.pool, to, sql, args...)
		return err
	})
	return row, err
}

// pause waits for a random time, whose limit doubles with each try up to maxDelay.
func pause(ctx context.Context, try int) error {
	limit := min(baseDelay<<try, maxDelay)
	timer := time.NewTimer(rand.N(limit)) // #nosec G404 -- it spreads retries, and guards nothing
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lateLock is a part of the statement's text by which the lock after reserve_line's first commit is
// known.
const lateLock = "r.ctid = _place FOR KEY SHARE"

// classify wraps a database error in the error that the package documents for it.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case postgres.LockTimeout(err) && postgres.FailedAt(err, lateLock):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case postgres.LockTimeout(err), postgres.Retryable(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case postgres.Unavailable(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}
