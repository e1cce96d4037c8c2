package reservation

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// StatsMinutes is how many minutes Stats looks back on, the running one included.
const StatsMinutes = 60

// Stats is how the shop stands, as the operator's page shows it. All of it is of one moment.
type Stats struct {
	// Now is the database's clock at that moment.
	Now time.Time
	// Live counts the holds that are alive, and LiveUnits what they hold.
	Live, LiveUnits int64
	// Dead counts the holds that are past their end and that no sweep has written down, and SweepLag is for how long the oldest of them has been.
	Dead     int64
	SweepLag time.Duration
	// Total counts the units of all stock rows.
	Total int64
	// Minutes are the last ones, the oldest first.
	Minutes []Minute
	// Audit is what the last audit found, or nil before the first.
	Audit *AuditResult
}

// Minute is what happened in one. A hold expired when it died, whether or not that is written down.
type Minute struct {
	At                                 time.Time
	Held, Confirmed, Released, Expired int64
}

// AuditResult is what an audit found. Of one that was unfinished there may be more.
type AuditResult struct {
	At         time.Time
	Violations int
	Unfinished bool
}

const (
	statsSQL     = `SELECT operator_stats()`
	keepAuditSQL = `SELECT keep_audit($1, $2)`
)

// Stats reads how the shop stands. It reads the holds that are PENDING, those that were resolved in its minutes, and the stock rows, so what it
// costs doesn't grow with the history. It locks nothing.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	rows, err := s.query(ctx, statsSQL)
	if err != nil {
		return Stats{}, fmt.Errorf("read the stats: %w", err)
	}
	var row struct {
		Now               time.Time
		Live, Dead, Total int64
		LiveUnits         int64   `json:"live_units"`
		Lag               float64 // in seconds
		Minutes           []Minute
		Audit             *AuditResult
	}
	if err := json.Unmarshal(rows[0][0], &row); err != nil {
		return Stats{}, fmt.Errorf("read the stats: %w", err)
	}
	stats := Stats{
		Now: row.Now.UTC(), Live: row.Live, LiveUnits: row.LiveUnits, Dead: row.Dead,
		SweepLag: time.Duration(row.Lag * float64(time.Second)), Total: row.Total, Minutes: row.Minutes, Audit: row.Audit,
	}
	for i := range stats.Minutes {
		stats.Minutes[i].At = stats.Minutes[i].At.UTC()
	}
	if stats.Audit != nil {
		stats.Audit.At = stats.Audit.At.UTC()
	}
	return stats, nil
}

// KeepAudit writes down what an audit found, for Stats to tell. Of the audits only the last is kept.
func (s *Service) KeepAudit(ctx context.Context, violations int, unfinished bool) error {
	if _, err := s.query(ctx, keepAuditSQL, violations, strconv.FormatBool(unfinished)); err != nil {
		return fmt.Errorf("keep what the audit found: %w", err)
	}
	return nil
}
