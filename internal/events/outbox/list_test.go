package outbox_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// The list has what the relay publishes, with the same bytes, in pages of any size. The relay sends
// the events of a page in waves, so the order is the same within each subject.
func TestTheListHasWhatIsPublished(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sink := &memory{}
	for range 4 {
		f.confirm(f.reserve())
		f.reserve()
		f.drain(sink)
	}
	for _, limit := range []int{1, 2, 3, 5, 500} {
		listed := f.listAll("", limit).events
		if limit == 500 {
			byID := func(a, b events.Event) int { return strings.Compare(a.ID, b.ID) }
			if diff := cmp.Diff(slices.SortedFunc(slices.Values(sink.got), byID),
				slices.SortedFunc(slices.Values(listed), byID),
				cmpopts.IgnoreFields(events.Event{}, "Position")); diff != "" {
				t.Errorf("the events differ (-published +listed):\n%s", diff)
			}
		}
		if lost, disordered := f.faults(listed); lost+disordered != 0 || len(listed) != len(sink.got) {
			t.Errorf("by %d the list has %d events, %d lost and %d out of order", limit, len(listed),
				lost, disordered)
		}
	}
}

func TestTheListSelectsTypes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	hold := f.reserve()
	f.tick()
	f.confirm(hold)
	f.reserve()
	f.tick()
	for _, c := range []struct {
		types []string
		want  []string
	}{
		{[]string{events.TypeConfirmed}, []string{"allo.reservation.confirmed -2"}},
		{[]string{events.TypeMoved, events.TypeConfirmed}, []string{
			"allo.stock.moved -1", "allo.reservation.confirmed -2", "allo.stock.moved -2",
		}},
		{[]string{events.TypeExpired}, nil},
	} {
		page, next, err := f.outbox.List(f.Context(), "", c.types, 500)
		if err != nil || !slices.Equal(names(page), c.want) {
			t.Errorf("List(%v) = %v, %v, want %v", c.types, names(page), err, c.want)
		}
		if rest, _, err := f.outbox.List(f.Context(), next, nil, 500); err != nil || len(rest) != 0 {
			t.Errorf("behind List(%v) there are %v, %v, want none", c.types, names(rest), err)
		}
	}
}

// A cursor before an archived event is too old. A list without a cursor begins behind the newest
// archived event.
func TestACursorBeforeTheArchiveIsTooOld(t *testing.T) {
	t.Parallel()
	f := newLonelyFixture(t)
	_, start, err := f.outbox.List(f.Context(), "", nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	old := f.reserve()
	f.tick()
	afterOld := f.listAll("", 500).next
	fresh := f.reserve()
	f.tick()
	f.Exec("UPDATE stream SET archived = (SELECT xid FROM ledger WHERE hold_id = $1)", old.String())
	if _, _, err := f.outbox.List(f.Context(), start, nil, 1); !errors.Is(err, outbox.ErrTooOld) {
		t.Errorf("List(before the archive) = %v, want ErrTooOld", err)
	}
	for name, cursor := range map[string]string{"no cursor": "", "a cursor behind it": afterOld} {
		got := ids(f.listAll(cursor, 500).events)
		if !slices.Equal(got, []string{fresh.String() + "-1"}) {
			t.Errorf("with %s the list has %v, want what was written after the archive", name, got)
		}
	}
	f.Exec("SELECT begin_epoch()")
	if _, _, err := f.outbox.List(f.Context(), afterOld, nil, 1); !errors.Is(err, outbox.ErrTooOld) {
		t.Errorf("List(of another epoch) = %v, want ErrTooOld", err)
	}
}

// A transaction that ran when the cursor's tick was taken is behind the cursor, although a later
// one before the cursor is archived too. The control looks at the latest archived one alone.
func TestAnArchivedLateCommitIsTooOld(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newLonelyFixture(t)
		if !guarded {
			f.mutate("list_events", "_stream.archived >= pg_snapshot_xmin",
				"false AND '1' >= pg_snapshot_xmin")
		}
		late := f.reserve()
		f.tick()
		slow := f.begin()
		fast := f.reserve()
		f.tick()
		cursor := f.listAll("", 500).next
		if err := transition(f.Context(), slow, late); err != nil {
			t.Fatal(err)
		}
		if err := slow.Commit(f.Context()); err != nil {
			t.Fatal(err)
		}
		f.tick()
		if got := ids(f.listAll(cursor, 500).events); !slices.Equal(got, []string{late.String() + "-2"}) {
			t.Fatalf("behind the cursor there are %v, want the late commit", got)
		}
		f.Exec("ALTER TABLE ledger DISABLE TRIGGER USER")
		f.Exec("UPDATE stream SET archived = (SELECT xid FROM ledger WHERE hold_id = $1)", fast.String())
		f.Exec("DELETE FROM ledger")
		if _, _, err := f.outbox.List(f.Context(), cursor, nil, 500); errors.Is(err, outbox.ErrTooOld) !=
			guarded {
			t.Errorf("guarded %t: List(behind which a row is archived) = %v", guarded, err)
		}
		if _, _, err := f.outbox.List(f.Context(), "", nil, 500); err != nil {
			t.Errorf("guarded %t: List() without a cursor = %v", guarded, err)
		}
	}
}

// A cursor at the end of the list stays good when what is before it is archived, however long the
// pages are.
func TestACursorAtTheEndOutlivesTheArchive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.reserve()
	f.tick()
	f.reserve()
	f.reserve()
	f.tick()
	cursors := map[int]string{}
	for _, limit := range []int{1, 2, 3, 4, 5} {
		cursors[limit] = f.listAll("", limit).next
	}
	f.Exec(`
UPDATE stream SET archived = (SELECT xid FROM ledger ORDER BY xid DESC LIMIT 1)`)
	for limit, cursor := range cursors {
		page, next, err := f.outbox.List(f.Context(), cursor, nil, limit)
		if err != nil || len(page) != 0 || next != cursor {
			t.Errorf("by %d, List(the end) = %v, %q, %v, want an empty page and its cursor", limit,
				names(page), next, err)
		}
	}
}

// A page that finds nothing of its types stops behind so many transactions, and goes on from there.
func TestAListOfRareTypesStops(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mutate("list_events", "> 200000", "> 0")
	for range 3 {
		f.reserve()
		f.tick()
	}
	var cursors []string
	for next := ""; len(cursors) == 0 || cursors[len(cursors)-1] != next; {
		cursors = append(cursors, next)
		page, after, err := f.outbox.List(f.Context(), next, []string{events.TypeExpired}, 10)
		if err != nil || len(page) != 0 {
			t.Fatalf("List(%q) = %v, %v, want nothing", next, names(page), err)
		}
		next = after
	}
	if len(cursors) != 4 {
		t.Errorf("a list of three batches took %d pages, want one for each and one behind them",
			len(cursors))
	}
}

// A hold's history is its ledger, wherever its parts lie.
func TestAHistoryReadsTheArchive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	hold := f.reserve()
	f.confirm(hold)
	before, err := f.outbox.History(f.Context(), hold)
	if err != nil || len(before) != 2 || before[0].Kind != "held" || before[1].Kind != "confirmed" ||
		before[1].Cause != "verb" || before[0].At.Location() != before[1].ExpiresAt.Location() {
		t.Fatalf("History() = %+v, %v, want two rows", before, err)
	}
	f.Exec(`CREATE TABLE archived_now PARTITION OF archived_ledger DEFAULT`)
	f.Exec(`INSERT INTO archived_ledger
SELECT r.updated_at, l.* FROM ledger l JOIN reservations r ON r.id = l.hold_id`)
	f.Exec("DELETE FROM ledger")
	after, err := f.outbox.History(f.Context(), hold)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("in the archive the history is another one: %v %s", err, diff)
	}
	if _, err := f.outbox.History(f.Context(), uuid.New()); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("History(unknown) = %v, want ErrNotFound", err)
	}
	old := uuid.New()
	f.Exec(`INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                                      expires_at, version, status)
            SELECT $1, product_id, warehouse_id, 1, created_at, updated_at, expires_at, 0,
                   'RELEASED'
            FROM reservations WHERE id = $2`, old.String(), hold.String())
	if none, err := f.outbox.History(f.Context(), old); err != nil || none == nil || len(none) != 0 {
		t.Errorf("History(from before the ledger) = %v, %v, want an empty one", none, err)
	}
}

// A hold that was extended very often has a history of its newest transitions. The control shows
// them all.
func TestAHistoryIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	hold := f.reserve()
	const all = outbox.MaxHistory + 500
	f.Exec(`INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT at, expires_at, hold_id, v, 'x', 'v' FROM ledger, generate_series(2, $1) v`, all)
	got, err := f.outbox.History(f.Context(), hold)
	if err != nil || len(got) != outbox.MaxHistory || got[0].Version != 501 ||
		got[len(got)-1].Version != all {
		t.Fatalf("History() = %d transitions, %v, want the newest %d", len(got), err,
			outbox.MaxHistory)
	}
	f.mutate("hold_history", "LIMIT _limit", "")
	if got, err := f.outbox.History(f.Context(), hold); err != nil || len(got) != all {
		t.Errorf("without the limit History() = %d transitions, %v, want %d", len(got), err, all)
	}
}

// A page of large carts has three megabytes at most, for the list and for the relay.
func TestAPageHasThreeMegabytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Exec("ALTER TABLE reservation_items DISABLE TRIGGER USER")
	f.Exec("ALTER TABLE reservation_items DROP CONSTRAINT IF EXISTS reservation_items_product_id_fkey")
	f.Exec(`
WITH made AS (
    INSERT INTO reservations (id, quantity, created_at, updated_at, expires_at, version)
    SELECT gen_random_uuid(), 100, now(), now(), now() + interval '1 h', 1
    FROM generate_series(1, 300)
    RETURNING *
), transitions AS (
    INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
    SELECT m.updated_at, m.expires_at, m.id, 1, 'h', 'v' FROM made m
)
INSERT INTO reservation_items (reservation_id, product_id, warehouse_id, quantity, expires_at)
SELECT m.id, gen_random_uuid(), $1, 1, m.expires_at FROM made m, generate_series(1, 100)`,
		f.west.String())
	size := func(page []events.Event) (n int) {
		for _, e := range page {
			n += len(e.Body)
		}
		return n
	}
	page := f.next(events.Request{Sink: "topic", Lease: uuid.NewString()})
	listed, _, err := f.outbox.List(f.Context(), "", nil, 500)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]events.Event{"page": page.Events, "list": listed} {
		if size(got) > 3<<20 || size(got) < 2<<20 {
			t.Errorf("the %s has %d bytes, want 3 MB at most", name, size(got))
		}
	}
	if !page.More {
		t.Error("the page has no next one")
	}
	if all := f.listAll("", 500).events; len(all) != 301 {
		t.Errorf("the list has %d events, want 301", len(all))
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT last_tick()"); n != 1 {
		t.Errorf("there are %d ticks, want one", n)
	}
}

// A reader that lags behind the cursor has nothing yet.
func TestACursorMayBeAheadOfTheReader(t *testing.T) {
	t.Parallel()
	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, followed := pgtest.NewStandby(t, primary, db, u.Host)
	f := open(t, db)
	standby := pgtest.NewFixture(t, followed)
	pool, err := postgres.Open(postgres.URL(db.URL), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	follower, err := postgres.OpenReader(postgres.URL(followed.URL), 1,
		postgres.ReaderOptions{MaxLag: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(follower.Close)
	if err := follower.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader := outbox.New(reservation.New(pool, reservation.Options{Reader: follower}), options)
	f.reserve()
	f.tick()
	standby.WaitUntil("SELECT count(*) > 0 FROM ticks")
	standby.Exec("SELECT pg_wal_replay_pause()")
	standby.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	f.reserve()
	f.tick()
	cursor := f.listAll("", 500).next
	for _, types := range [][]string{nil, {events.TypeHeld}} {
		page, next, err := reader.List(f.Context(), cursor, types, 500)
		if err != nil || len(page) != 0 || next != cursor {
			t.Errorf("List(%v) on a reader behind the cursor = %v, %q, %v, want nothing and %q", types,
				names(page), next, err, cursor)
		}
	}
	hold := f.reserve()
	f.tick()
	standby.Exec("SELECT pg_wal_replay_resume()")
	standby.WaitUntil("SELECT last_tick() = 3")
	page, _, err := reader.List(f.Context(), cursor, nil, 500)
	if err != nil || !slices.Equal(ids(page), []string{hold.String() + "-1"}) {
		t.Errorf("List() on the reader that has caught up = %v, %v, want the last hold", names(page), err)
	}
}
