package reservation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Bounds of a sweep.
const (
	// sweepBatch is how many holds and lines of theirs, or keys, one transaction takes. It is no less than a cart may have lines. A larger
	// batch is a little faster and locks stock rows for longer: 1,000 was measured at 16,000 to 33,000 holds a second, beside live traffic.
	sweepBatch = 1000
	// sweepMargin is how long before its deadline a sweep stops, so that the last batch ends, which may wait 2 s for a lock, and the report is
	// written.
	sweepMargin = 3 * time.Second
	// sweepLimit ends a sweep that was given no deadline.
	sweepLimit = 47 * time.Second
)

// SweepResult is what a sweep did.
type SweepResult struct {
	// Expired counts the holds written down as expired, Units what they gave back.
	Expired, Units int64
	// Keys counts the idempotency keys removed.
	Keys int64
	// Batches counts the transactions.
	Batches int
	// Looked says that the dead holds were looked for with success; otherwise nothing is known of Oldest.
	Looked bool
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
	sweepHoldsSQL = `
SELECT to_json(s) FROM (SELECT expired, units, coalesce(extract(epoch FROM oldest), 0) AS oldest, more FROM sweep_holds($1)) s`
	sweepKeysSQL = `SELECT to_json(s) FROM sweep_keys($1) s`
)

func (s *Service) sweepHolds(ctx context.Context, result *SweepResult) (more bool, err error) {
	var batch struct {
		Expired, Units int64
		Oldest         float64 // in seconds
		More           bool
	}
	if err := s.batch(ctx, sweepHoldsSQL, &batch); err != nil {
		return false, err
	}
	result.Batches++
	result.Looked = true
	result.Expired += batch.Expired
	result.Units += batch.Units
	result.Oldest = max(result.Oldest, time.Duration(batch.Oldest*float64(time.Second)))
	return batch.More, nil
}

func (s *Service) sweepKeys(ctx context.Context, result *SweepResult) (more bool, err error) {
	var removed int64
	if err := s.batch(ctx, sweepKeysSQL, &removed); err != nil {
		return false, err
	}
	result.Batches++
	result.Keys += removed
	return removed == sweepBatch, nil
}

// batch runs one transaction of a sweep and reads its answer, one JSON value.
func (s *Service) batch(ctx context.Context, sql string, answer any) error {
	rows, err := s.query(ctx, sql, sweepBatch)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(rows[0][0], answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", sql, err)
	}
	return nil
}
