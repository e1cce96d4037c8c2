package reservation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The bounds of a sweep.
const (
	// sweepBatch is how many holds and cart lines, or keys, one transaction takes. A cart must fit
	// into it. A larger batch is a little faster and locks stock rows for longer. With 1,000 a
	// sweep beside live traffic was measured at 16,000 to 33,000 holds a second.
	sweepBatch = 1000
	// sweepMargin is how long before its deadline a sweep stops. It leaves time for the last batch,
	// which may wait 2 s for a lock, and for the report.
	sweepMargin = 3 * time.Second
	// sweepLimit ends a sweep without a deadline.
	sweepLimit = 47 * time.Second
)

// SweepResult counts the work of a sweep.
type SweepResult struct {
	// Expired counts the holds that became EXPIRED, Units their units.
	Expired, Units int64
	// Keys counts the removed idempotency keys.
	Keys int64
	// Archived counts the holds that moved to the archive, ArchivedMoves the movements.
	Archived, ArchivedMoves int64
	// Batches counts the transactions.
	Batches int
	// Looked is true when the search for dead holds succeeded. Otherwise Oldest means nothing.
	Looked bool
	// Oldest is how long the oldest of the holds had been dead. In a healthy system it is about the
	// interval between sweeps.
	Oldest time.Duration
	// More is true when time ran out with work left.
	More bool
}

// Sweep moves the flush mark, stores the status EXPIRED for the dead holds, in batches, and then
// removes the idempotency keys that are older than a day. If it is done with that early, it moves
// old holds and movements to the archive. It stops before the context's deadline.
// It may run at any time, twice at once, and die anywhere (I9).
//
// When a stock row stays locked for longer than lock_timeout, the sweep of the holds ends with
// ErrBusy. The other dead holds stay PENDING until the next sweep, and the keys are still removed.
// Sweep returns ErrBusy or ErrUnavailable together with the work done so far.
func (s *Service) Sweep(ctx context.Context) (SweepResult, error) {
	var result SweepResult
	end := time.Now().Add(sweepLimit)
	if deadline, ok := ctx.Deadline(); ok {
		// The margin is at most a tenth of the time, so that a sweep with one second still sweeps.
		end = deadline.Add(-min(sweepMargin, time.Until(deadline)/10))
	}
	markErr := s.moveFlushMark(ctx)
	moreHolds, holdsErr := repeat(end, func() (bool, error) { return s.sweepHolds(ctx, &result) })
	moreKeys, keysErr := repeat(end, func() (bool, error) { return s.sweepKeys(ctx, &result) })
	result.More = moreHolds || moreKeys
	archiveErr := s.archive(ctx, end, &result)
	if err := errors.Join(markErr, holdsErr, keysErr, archiveErr); err != nil {
		return result, fmt.Errorf("sweep: %w", err)
	}
	return result, nil
}

// repeat calls batch until it fails or has no more work. It reports whether time ran out first.
func repeat(end time.Time, batch func() (more bool, err error)) (timedOut bool, err error) {
	for {
		if time.Now().After(end) {
			return true, nil
		}
		more, err := batch()
		if err != nil || !more {
			return false, err
		}
	}
}

const (
	nextFlushMarkSQL = "SELECT next_flush_mark()::text"
	keepFlushMarkSQL = "SELECT keep_flush_mark($1::text::xid8)"
)

// moveFlushMark flushes the log and then records which changes are on disk, so that a read of such
// a hold needn't wait for a flush. It takes two transactions, because the mark may be stored
// only after the first one is known to be on disk, and on the synchronous standby if there is one.
func (s *Service) moveFlushMark(ctx context.Context) error {
	below, err := queryRow(ctx, s, pgx.RowTo[string], nextFlushMarkSQL)
	if err != nil {
		return fmt.Errorf("flush the log: %w", err)
	}
	err = s.retry(ctx, func() error { return s.pool.Exec(ctx, keepFlushMarkSQL, below) })
	if err != nil {
		return fmt.Errorf("keep the flush mark: %w", err)
	}
	return nil
}

const sweepHoldsSQL = `
SELECT expired, units, coalesce(extract(epoch FROM oldest), 0)::float8, more
FROM sweep_holds($1)`

// sweptHolds is the answer of sweepHoldsSQL.
type sweptHolds struct {
	Expired, Units int64
	OldestSeconds  float64
	More           bool
}

func (s *Service) sweepHolds(ctx context.Context, result *SweepResult) (more bool, err error) {
	batch, err := queryRow(ctx, s, pgx.RowToStructByPos[sweptHolds], sweepHoldsSQL, sweepBatch)
	if err != nil {
		return false, err
	}
	result.Batches++
	result.Looked = true
	result.Expired += batch.Expired
	result.Units += batch.Units
	result.Oldest = max(result.Oldest, fromSeconds(batch.OldestSeconds))
	return batch.More, nil
}

const sweepKeysSQL = `SELECT removed FROM sweep_keys($1)`

func (s *Service) sweepKeys(ctx context.Context, result *SweepResult) (more bool, err error) {
	removed, err := queryRow(ctx, s, pgx.RowTo[int64], sweepKeysSQL, sweepBatch)
	if err != nil {
		return false, err
	}
	result.Batches++
	result.Keys += removed
	return removed == sweepBatch, nil
}
