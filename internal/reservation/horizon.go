package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Horizon is how far the database keeps dead row versions for the sake of old transactions. The
// further it lags, the slower is every call on a hot row.
type Horizon struct {
	// Oldest is the age of the oldest transaction that keeps versions, on this server.
	Oldest time.Duration
	// Transactions counts the transactions that began since the oldest snapshot that keeps versions,
	// a replica's included.
	Transactions int64
	// Complete is false when something is unknown. A service's role without pg_read_all_stats isn't
	// told the ages of other roles' transactions, so Oldest leaves them out. Transactions doesn't.
	Complete bool
}

const horizonSQL = `SELECT oldest_seconds, transactions, complete FROM read_horizon()`

// horizonRow is the answer of horizonSQL.
type horizonRow struct {
	OldestSeconds float64
	Transactions  int64
	Complete      bool
}

// Horizon reads the horizon in one statement, which locks nothing. It returns ErrBusy or
// ErrUnavailable.
func (s *Service) Horizon(ctx context.Context) (Horizon, error) {
	row, err := queryRow(ctx, s, pgx.RowToStructByPos[horizonRow], horizonSQL)
	if err != nil {
		return Horizon{}, fmt.Errorf("read the horizon: %w", err)
	}
	return Horizon{
		Oldest:       fromSeconds(row.OldestSeconds),
		Transactions: row.Transactions,
		Complete:     row.Complete,
	}, nil
}
