package reservation_test

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// follower is a database with a server that follows it, on which the operator's reads read.
type follower struct {
	*fixture
	reader *fixture
	s      *reservation.Service
}

func newFollower(t *testing.T) follower {
	t.Helper()
	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, followed := pgtest.NewStandby(t, primary, db, u.Host)
	f := follower{fixture: open(t, db, 0), reader: open(t, followed, 0)}
	f.s = reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: f.reader.asReader()})
	return f
}

// followedUp waits until the reader has what the database has.
func (f follower) followedUp() {
	f.t.Helper()
	written := queryOne[string](f.fixture, "SELECT pg_current_wal_insert_lsn()::text")
	f.reader.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
}

// standStill lets the reader follow no further.
func (f follower) standStill() {
	f.t.Helper()
	f.reader.Exec("SELECT pg_wal_replay_pause()")
	f.reader.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
}

// liveHolds counts the live holds by the list, by the list of all, and by the stats.
func (f follower) liveHolds() [3]int64 {
	f.t.Helper()
	var counts [3]int64
	for i, status := range []reservation.Status{reservation.Pending, ""} {
		holds, err := readHolds(f.Context(), f.s, reservation.HoldFilter{Status: status}, 2)
		if err != nil {
			f.t.Fatal(err)
		}
		counts[i] = int64(len(holds))
	}
	stats, err := f.s.Stats(f.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	counts[2] = stats.Live
	return counts
}

// A reader that stands still tells where a read goes: what only the writer has isn't listed, but a
// GET of the hold finds it.
func TestTheOperatorsReadsGoToTheReader(t *testing.T) {
	t.Parallel()

	f := newFollower(t)
	row := f.stock(20)
	for range 5 {
		f.hold(row)
	}
	f.followedUp()
	f.standStill()
	last := f.hold(row)
	if got := f.liveHolds(); got != [3]int64{5, 5, 5} {
		t.Errorf("the live holds, read on a reader without the last one = %d, want 5", got)
	}
	if _, err := f.s.Get(f.Context(), last.ID); err != nil {
		t.Errorf("Get() of a hold that the reader doesn't have = %v", err)
	}
	f.reader.Exec("SELECT pg_wal_replay_resume()")
	f.followedUp()
	if got := f.liveHolds(); got != [3]int64{6, 6, 6} {
		t.Errorf("the live holds, once the reader has the last one = %d, want 6", got)
	}
}

func TestTheOperatorsReadsGoToTheWriterWithoutTheReader(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	nowhere := openReader(t, "postgres://u@127.0.0.1:1/d")
	s := reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: nowhere})
	f.hold(f.stock(5))
	if got := (follower{fixture: f, s: s}).liveHolds(); got != [3]int64{1, 1, 1} {
		t.Errorf("the live holds, while nobody listens at the reader = %d, want 1", got)
	}
}

// A follower cancels a read that keeps it from applying a change. The writer then answers it.
func TestAReadThatTheReaderCancelsGoesToTheWriter(t *testing.T) {
	t.Parallel()

	f, reader := newFixture(t, 0), newFixture(t, 0)
	f.hold(f.stock(5))
	for _, routine := range []string{"list_live_holds", "list_holds", "operator_stats"} {
		reader.mutate(routine, "BEGIN", "BEGIN RAISE EXCEPTION 'conflict with recovery' "+
			"USING ERRCODE = 'serialization_failure';")
	}
	s := reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: reader.asReader()})
	if got := (follower{fixture: f, s: s}).liveHolds(); got != [3]int64{1, 1, 1} {
		t.Errorf("the live holds, while the reader cancels each read = %d, want 1", got)
	}
	if n := s.Retries(); n != 0 {
		t.Errorf("%d transactions were repeated, want none: the writer answers at once", n)
	}
}

// What isn't there is looked for on each server once, so that a caller who asks for many ids that
// don't exist has the writer look for each once.
func TestWhatIsNotThereIsLookedForOnEachServerOnce(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	const asked = "asked"
	f.Exec("CREATE SEQUENCE " + asked)
	f.mutate("list_payments", "BEGIN", "BEGIN PERFORM nextval('"+asked+"');")
	for name, c := range map[string]struct {
		reader *postgres.Reader
		want   int64
	}{
		"without a reader":                {nil, 1},
		"with a reader that is away":      {openReader(t, "postgres://u@127.0.0.1:1/d"), 1},
		"with a reader of the same state": {f.asReader(), 2},
	} {
		before := queryOne[int64](f, "SELECT nextval('"+asked+"')")
		s := reservation.New(f.own,
			reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: c.reader})
		_, err := s.ListPayments(f.Context(), uuid.New())
		n := queryOne[int64](f, "SELECT nextval('"+asked+"')") - before - 1
		if !errors.Is(err, reservation.ErrNotFound) || n != c.want {
			t.Errorf("%s a hold that isn't there is %v, and was looked for %d times, want %d", name, err,
				n, c.want)
		}
	}
}

// A read that is too slow on the reader is too slow on the writer too, and would slow the sale.
func TestASlowReadOfTheReaderIsTheAnswer(t *testing.T) {
	t.Parallel()

	f, reader := newFixture(t, 0), newFixture(t, 0)
	reader.mutate("operator_stats", "BEGIN", "BEGIN RAISE EXCEPTION 'timeout' "+
		"USING ERRCODE = 'query_canceled';")
	s := reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: reader.asReader()})
	if _, err := s.Stats(f.Context()); !errors.Is(err, reservation.ErrUnavailable) {
		t.Errorf("Stats() of a slow reader = %v, want %v", err, reservation.ErrUnavailable)
	}
}

// The first page of a list of changes says up to where the list goes. A server that is further
// behind than the one that answered the page would pass changes that it doesn't have yet.
func TestAListOfChangesGoesOnWhereItMissesNone(t *testing.T) {
	t.Parallel()

	f := newFollower(t)
	row := f.stock(20)
	f.Exec("SELECT take_tick()")
	since := queryOne[time.Time](f.fixture, "SELECT clock_timestamp()")
	f.hold(row)
	f.followedUp()
	f.standStill()
	const holds, limit = 5, 2
	for range holds - 1 {
		f.hold(row)
	}
	filter := reservation.HoldFilter{UpdatedSince: since}
	list := func(later *reservation.Service) int {
		t.Helper()
		page, err := newService(f.own).ListHolds(f.Context(), filter, reservation.HoldCursor{}, limit)
		n := len(page.Holds)
		for err == nil && page.Next != nil {
			page, err = later.ListHolds(f.Context(), filter, *page.Next, limit)
			n += len(page.Holds)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := list(f.s); got != holds {
		t.Errorf("a list that began on the writer has %d holds, want %d", got, holds)
	}
	if got := list(newService(f.reader.own)); got >= holds {
		t.Errorf("a list that goes on at the reader has %d holds: the test proves nothing", got)
	}
}
