package reservation

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// The bounds of the archiving of a sweep.
const (
	// archiveBatch is how many holds and cart lines, or movements, one transaction moves.
	archiveBatch = 1000
	// archiveRows is how many stock rows one transaction looks at for old movements. With one such
	// transaction a minute, 240,000 stock rows take two hours.
	archiveRows = 2000
	// archiveLimit is how long a sweep archives. It leaves time for an audit and keeps a sweep from
	// being reported as slow. It suffices for several million holds an hour.
	archiveLimit = 10 * time.Second
)

// archive moves old holds and movements to the archive if the sweep has found all its other work
// done, until end at the latest. It leaves the rest to the next sweep.
func (s *Service) archive(ctx context.Context, end time.Time, result *SweepResult) error {
	if s.opts.Retention == 0 || result.More || !result.Looked {
		return nil
	}
	if limit := time.Now().Add(archiveLimit); limit.Before(end) {
		end = limit
	}
	from := time.Time{} // before every hold
	late, err := repeat(end, func() (bool, error) { return s.archiveHolds(ctx, &from, result) })
	if err != nil || late {
		return err
	}
	// A sale moves after its hold.
	_, err = repeat(end, func() (bool, error) { return s.archiveMovements(ctx, result) })
	return err
}

const archiveHoldsSQL = `SELECT archived, reached, more FROM archive_holds($1, $2, $3)`

// holdBatch is the answer of archiveHoldsSQL.
type holdBatch struct {
	Archived int64
	Reached  *time.Time // nil when no hold is old enough
	More     bool
}

// archiveHolds moves a batch of the holds that were made at from or later. It moves from up, so
// that the next batch doesn't search among the index entries of this one.
func (s *Service) archiveHolds(
	ctx context.Context, from *time.Time, result *SweepResult,
) (more bool, err error) {
	batch, err := queryRow(ctx, s, pgx.RowToStructByPos[holdBatch], archiveHoldsSQL,
		s.opts.Retention, *from, archiveBatch)
	if err != nil {
		return false, err
	}
	result.Batches++
	result.Archived += batch.Archived
	if batch.Reached != nil {
		*from = *batch.Reached
	}
	return batch.More, nil
}

const archiveMovementsSQL = `SELECT archived, more FROM archive_movements($1, $2, $3)`

// movementBatch is the answer of archiveMovementsSQL.
type movementBatch struct {
	Archived int64
	More     bool
}

// archiveMovements moves a batch of movements. It has more to do when there was something to move,
// because the next stock rows may have old movements too.
func (s *Service) archiveMovements(
	ctx context.Context, result *SweepResult,
) (more bool, err error) {
	batch, err := queryRow(ctx, s, pgx.RowToStructByPos[movementBatch], archiveMovementsSQL,
		s.opts.Retention, archiveRows, archiveBatch)
	if err != nil {
		return false, err
	}
	result.Batches++
	result.ArchivedMoves += batch.Archived
	return batch.More || batch.Archived > 0, nil
}
