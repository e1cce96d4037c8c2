package reservation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Bounds of a sweep.
const (
	// sweepBatch is how many holds and lines of theirs, or keys, one transaction takes. It is no less than a cart may have lines. A larger batch is a little faster and locks stock rows for
	// longer: 1,000 was measured at 30,000 holds a second.
	sweepBatch = 1000
	// sweepMargin is how long before its deadline a sweep stops, so that the last batch ends and the report is written.
	sweepMargin = 5 * time.Second
	// sweepLimit ends a sweep that was given no deadline.
	sweepLimit = 45 * time.Second
)

// SweepResult is what a sweep did.
type SweepResult struct {
	// Expired counts the holds written down as expired, Units what they gave back.
	Expired, Units int64
	// Keys counts the idempotency keys removed.
	Keys int64
	// Batches counts the transactions.
	Batches int
	// Oldest is how long ago the oldest hold that was found dead had died. A healthy sweep's is about the interval of its rule.
	Oldest time.Duration
	// More says that time ran out with work left.
	More bool
}

// Sweep writes down the holds that have died, in batches, and then removes the idempotency keys that are older than a day. It
// stops short of the context's deadline. It may run at any time, more than once at a time, and die anywhere (I9).
//
// A stock row that somebody has locked for longer than a lock may be waited for ends the holds' part with ErrBusy: they stay dead, as they
// are, for the next sweep, and the keys are still removed. It returns ErrBusy or ErrUnavailable, with what had been done until then.
func (s *Service) Sweep(ctx context.Context) (SweepResult, error) {
	var result SweepResult
	end := time.Now().Add(sweepLimit)
	if deadline, ok := ctx.Deadline(); ok {
		// A tenth of a short deadline, so that a sweep of a second still sweeps.
		end = deadline.Add(-min(sweepMargin, time.Until(deadline)/10))
	}
	holds := func() (bool, error) { return s.sweepHolds(ctx, &result) }
	keys := func() (bool, error) { return s.sweepKeys(ctx, &result) }
	moreHolds, holdsErr := batches(end, holds)
	moreKeys, keysErr := batches(end, keys)
	result.More = moreHolds || moreKeys
	if err := errors.Join(holdsErr, keysErr); err != nil {
		return result, fmt.Errorf("sweep: %w", err)
	}
	return result, nil
}

// batches runs batch until it says that there is no more. It reports whether time ran out before.
func batches(end time.Time, batch func() (more bool, err error)) (more bool, err error) {
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
	sweepHoldsSQL = `SELECT expired, units, coalesce(oldest, '0'), more FROM sweep_holds($1)`
	sweepKeysSQL  = `SELECT removed FROM sweep_keys($1)`
)

func (s *Service) sweepHolds(ctx context.Context, result *SweepResult) (more bool, err error) {
	var expired, units int64
	var oldest time.Duration
	err = s.retry(ctx, func() error {
		return s.pool.QueryRow(ctx, sweepHoldsSQL, sweepBatch).Scan(&expired, &units, &oldest, &more)
	})
	if err != nil {
		return false, err
	}
	result.Batches++
	result.Expired += expired
	result.Units += units
	result.Oldest = max(result.Oldest, oldest)
	return more, nil
}

func (s *Service) sweepKeys(ctx context.Context, result *SweepResult) (more bool, err error) {
	var removed int64
	err = s.retry(ctx, func() error {
		return s.pool.QueryRow(ctx, sweepKeysSQL, sweepBatch).Scan(&removed)
	})
	if err != nil {
		return false, err
	}
	result.Batches++
	result.Keys += removed
	return removed == sweepBatch, nil
}
