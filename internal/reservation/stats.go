package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// StatsMinutes is how many minutes Stats covers, the current one included.
const StatsMinutes = 60

// Stats are the shop's figures at one moment, for the operator's page.
type Stats struct {
	// Now is the database's clock at that moment.
	Now time.Time
	// Live counts the live holds, LiveUnits their units.
	Live, LiveUnits int64
	// Dead counts the holds past their expires_at that no sweep has written down yet. SweepLag is
	// how long the oldest of them has been dead.
	Dead     int64
	SweepLag time.Duration
	// Total counts the units of all stock rows.
	Total int64
	// Minutes are the last StatsMinutes, the oldest first.
	Minutes []Minute
	// Audit is what the audits have found, or nil before the first.
	Audit *AuditResult
	// Feed says how far the events are published.
	Feed FeedStats
}

// FeedStats says how far the events are published. Lag is the longest of the sinks, and Parked is
// the sum.
type FeedStats struct {
	Lag    time.Duration
	Parked int64
	Sinks  []SinkStats
}

// SinkStats says how far a sink of the relay has published.
type SinkStats struct {
	Name string
	// Lag is the time since the first tick that isn't published, or zero.
	Lag time.Duration
	// Parked counts the events that the sink refused for good and those behind them, up to 10,000.
	Parked int64
	// Failures counts the attempts that failed since the last one that didn't, and Error says why the
	// last one failed. Error is empty when there are none.
	Failures int
	Error    string
}

// Minute counts the transitions of one minute. A hold counts as expired in the minute of its
// expires_at, whether or not a sweep has written it down. A hold of version 0 has no transitions in
// the ledger, so they aren't counted.
type Minute struct {
	At                                 time.Time
	Held, Confirmed, Released, Expired int64
}

// AuditResult is what the audits have found. At is when the last one ended. Violations is the
// number of the last audit of what is new, or of the full audits, whichever is larger. Unfinished
// is true when the last audit of what is new was cut off, so that it may have missed some.
type AuditResult struct {
	At         time.Time
	Violations int
	Unfinished bool
}

// statsRow is the answer of operator_stats.
type statsRow struct {
	Now               time.Time
	Live, Dead, Total int64
	LiveUnits         int64   `json:"live_units"`
	Lag               float64 // in seconds
	Minutes           []Minute
	Audit             *AuditResult
	Events            feedRow
}

// feedRow is the answer of feed_stats. A server whose routines are those of the previous release
// leaves it empty.
type feedRow struct {
	Lag    float64 // in seconds
	Parked int64
	Sinks  []struct {
		Name     string
		Lag      float64
		Parked   int64
		Failures int
		Error    *string
	}
}

func (r feedRow) stats() FeedStats {
	stats := FeedStats{Lag: fromSeconds(r.Lag), Parked: r.Parked}
	for _, s := range r.Sinks {
		sink := SinkStats{
			Name: s.Name, Lag: fromSeconds(s.Lag), Parked: s.Parked, Failures: s.Failures,
		}
		if s.Error != nil {
			sink.Error = *s.Error
		}
		stats.Sinks = append(stats.Sinks, sink)
	}
	return stats
}

const statsSQL = `SELECT operator_stats()`

// Stats reads the shop's figures. It reads the PENDING holds, the stock rows, and of the ledger
// what no tick has counted yet, so its cost doesn't grow with the history. It locks nothing, and is
// read on the Reader. It returns ErrBusy or ErrUnavailable.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	rows, err := read(ctx, s, pgx.RowTo[statsRow], statsSQL)
	if err != nil {
		return Stats{}, fmt.Errorf("read the stats: %w", err)
	}
	row := rows[0] // a call of a function has one row
	stats := Stats{
		Now: row.Now.UTC(), Live: row.Live, LiveUnits: row.LiveUnits, Dead: row.Dead,
		SweepLag: fromSeconds(row.Lag), Total: row.Total, Minutes: row.Minutes, Audit: row.Audit,
		Feed: row.Events.stats(),
	}
	for i := range stats.Minutes {
		stats.Minutes[i].At = stats.Minutes[i].At.UTC()
	}
	if stats.Audit != nil {
		stats.Audit.At = stats.Audit.At.UTC()
	}
	return stats, nil
}

func fromSeconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

const keepAuditSQL = `SELECT keep_audit($1, $2, $3)`

// KeepAudit stores the result of an audit of what is new, or of a full one, for Stats. It returns
// how many violations are known: those of the one kind or of the other, whichever are more. What a
// full audit has found stays until one is complete and finds nothing. It returns ErrBusy or
// ErrUnavailable.
func (s *Service) KeepAudit(
	ctx context.Context, full bool, violations int, unfinished bool,
) (known int, err error) {
	known, err = queryRow(ctx, s, pgx.RowTo[int], keepAuditSQL, full, violations, unfinished)
	if err != nil {
		return 0, fmt.Errorf("keep the audit's result: %w", err)
	}
	return known, nil
}
