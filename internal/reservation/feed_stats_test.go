package reservation_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/reservation"
)

// The stats tell how far each sink is: one that has all, and one that is two ticks behind, failed
// and has parked events. The places of a sink aren't sinks.
func TestStatsShowTheSinks(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	s := f.services()[0]
	read := func() reservation.FeedStats {
		t.Helper()
		stats, err := s.Stats(f.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stats.Feed
	}
	if got := read(); len(got.Sinks) != 0 || got.Lag != 0 || got.Parked != 0 {
		t.Errorf("before the relay's first run the stats show %+v", got)
	}
	f.Exec(`INSERT INTO ticks (n, at, snapshot)
	        SELECT n, clock_timestamp() - (4 - n) * interval '1 minute', '1:1:'
	        FROM generate_series(1, 3) n`)
	f.Exec(`INSERT INTO sinks (name, done, failures, error) VALUES
	        ('topic', 1, 0, NULL), ('topic-holds', 3, 0, NULL), ('topic-stock', 1, 2, 'SNS is busy'),
	        ('bus', 3, 0, NULL), ('bus-holds', 3, 0, NULL), ('bus-stock', 3, 0, NULL)`)
	f.Exec(`INSERT INTO parked (sink, id, subject, error)
	        SELECT 'topic', n::text, 's', 'too large' FROM generate_series(1, 3) n`)
	got := read()
	lag := got.Lag
	if lag < 2*time.Minute || lag > 2*time.Minute+testTimeout {
		t.Errorf("the lag is %s, want the age of the second tick", lag)
	}
	want := reservation.FeedStats{Lag: lag, Parked: 3, Sinks: []reservation.SinkStats{
		{Name: "bus"},
		{Name: "topic", Lag: lag, Parked: 3, Failures: 2, Error: "SNS is busy"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the sinks differ (-want +got):\n%s", diff)
	}
	f.mutate("feed_stats", "WHERE sink_of(s.name) = s.name", "")
	if got := read(); len(got.Sinks) == 2 {
		t.Error("without the guard the places aren't sinks: the control proves nothing")
	}
}
