package reservation_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// thousandChangesSQL extends the only hold a thousand times by its ledger, each time in another
// transaction. explainHasChangeSQL asks for a change that isn't seen, of which there
// is none.
const (
	thousandChangesSQL = `
DO $$
DECLARE
    _last integer := (SELECT max(version) FROM ledger);
BEGIN
    FOR _version IN _last + 1 .. _last + 1000 LOOP
        INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
        SELECT clock_timestamp(), expires_at, id, _version, 'x', 'v' FROM reservations;
        COMMIT;
    END LOOP;
END $$`
	explainHasChangeSQL = "SELECT has_change($1, '3', NULL, '5000000000:5000000000:')"
)

// A page of the changes of one hold looks at the hold once, however often it has changed, and at
// few of its changes. The hold is listed at the last of them, wherever a page ends. The controls
// ask for no later change, look at the hold for each change, and look at all its changes.
func TestAHoldOfManyChangesIsListedInBoundedPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.Exec(firstTickSQL)
	held := f.hold(f.stock(1))
	const manyChanges = 10_000
	for range manyChanges / 1000 {
		f.Exec(thousandChangesSQL)
	}
	f.Exec("ANALYZE ledger")
	since, first := time.Now().Add(-time.Hour), uuid.Nil.String()
	f.checkCosts(map[string]pageCost{
		"many changes of one hold": {explainUpdatedSQL, []any{since, first}, 1000},
		"its newest changes":       {explainHasChangeSQL, []any{held.ID.String()}, 60},
	})
	filter := reservation.HoldFilter{UpdatedSince: since}
	if diff := cmp.Diff([]int{0, 0, 1}, f.pageSizes(filter)); diff != "" {
		t.Errorf("the numbers of holds of the pages differ (-want +got):\n%s", diff)
	}

	if n := f.timesListed(filter, func() { f.Exec(thousandChangesSQL) }); n == 0 {
		t.Error("a hold isn't listed that changes very often while it is, want it at least once")
	}
	const later, never = "has_change(c.hold_id, (c.xid", "has_change(NULL, (c.xid"
	f.mutate("list_changes", later, never)
	if diff := cmp.Diff([]int{1, 1, 1}, f.pageSizes(filter)); diff != "" {
		t.Errorf("without a look at later changes, the pages differ (-want +got):\n%s", diff)
	}
	f.mutate("list_changes", never, later)
	f.mutate("list_changes", "a.n = max(a.n) OVER (PARTITION BY a.hold_id)", "true")
	blocks, took := f.Explain(explainUpdatedSQL, since, first)
	t.Logf("a look at the hold for each change: %d blocks in %.1f ms", blocks, took)
	if blocks < manyChanges {
		t.Errorf("a look at the hold for each change takes %d blocks, want %d or more", blocks,
			manyChanges)
	}
	f.mutate("has_change", "LIMIT _most", "")
	blocks, took = f.Explain(explainHasChangeSQL, held.ID.String())
	t.Logf("a look at all changes of the hold: %d blocks in %.1f ms", blocks, took)
	if blocks < 100 {
		t.Errorf("a look at all changes of the hold takes %d blocks, want 100 or more", blocks)
	}
}

// timesListed reads a list, and returns how many holds its pages have. It calls meanwhile after the
// first page.
func (f *fixture) timesListed(filter reservation.HoldFilter, meanwhile func()) (n int) {
	f.t.Helper()
	var after reservation.HoldCursor
	for page := range maxPages {
		got, err := f.services()[0].ListHolds(f.Context(), filter, after, 50)
		if err != nil {
			f.t.Fatal(err)
		}
		if n += len(got.Holds); got.Next == nil {
			return n
		}
		if page == 0 {
			meanwhile()
		}
		after = *got.Next
	}
	f.t.Fatal("the list has no last page")
	return 0
}

// jumpedTicksSQL makes a tick at each hour and then at each half hour, because the clock has jumped
// back.
const jumpedTicksSQL = `
INSERT INTO ticks (n, at, snapshot)
SELECT n, '2026-01-01'::timestamptz + at, '4:4:'
FROM unnest(ARRAY['10:00', '11:00', '12:00', '10:30', '11:30', '12:30']::interval[])
     WITH ORDINALITY t (at, n)`

// jumpedTicks returns the ticks behind which the changes since six times are, or 0 for none.
func jumpedTicks(f *fixture) (got []int) {
	f.t.Helper()
	f.Exec(jumpedTicksSQL)
	for _, at := range []string{"10:00", "10:15", "10:45", "11:15", "11:45", "12:15", "12:45"} {
		got = append(got, queryOne[int](f,
			"SELECT coalesce(tick_before('2026-01-01'::timestamptz + $1::text::interval), 0)", at))
	}
	return got
}

// A tick that sees changes of a time, or of later, isn't the one behind which those are listed.
func TestATickOfAClockThatJumpedBackIsPassedBy(t *testing.T) {
	t.Parallel()
	want := []int{0, 1, 1, 2, 2, 3, 6}
	if diff := cmp.Diff(want, jumpedTicks(newFixture(t, 0))); diff != "" {
		t.Errorf("the ticks differ (-want +got):\n%s", diff)
	}

	f := newFixture(t, 0)
	f.mutate("tick_before", "k.at >= _since", "false")
	if got := jumpedTicks(f); slices.Equal(want, got) {
		t.Error("the ticks are right without a look at the earlier ones, want a difference")
	}
}

// The tick before a time is found without a look at all that follow it or precede it. The control
// looks at all that precede it.
func TestATickIsFoundAmongMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.Exec(`
INSERT INTO ticks (n, at, snapshot)
SELECT n, now() - (300000 - n) * interval '1 s', '4:4:' FROM generate_series(1, 300000) n`)
	f.Exec("ANALYZE ticks")
	const explainTickSQL = "SELECT tick_before($1)"
	recent := time.Now().Add(-time.Hour)
	f.checkCosts(map[string]pageCost{
		"a recent tick": {explainTickSQL, []any{recent}, 400},
		"an old tick":   {explainTickSQL, []any{time.Now().Add(-80 * time.Hour)}, 400},
	})

	f.mutate("tick_before", "LIMIT _near", "")
	blocks, took := f.Explain(explainTickSQL, recent)
	t.Logf("a look at all ticks before: %d blocks in %.1f ms", blocks, took)
	if blocks < 2000 {
		t.Errorf("a look at all ticks before takes %d blocks, want 2,000 or more", blocks)
	}
}

// shortPages reads the holds of ann with a reference in pages that look at so many holds. It
// returns the holds, and the most that a page looked at.
func shortPages(f *fixture, reference string, scan int) (all []uuid.UUID, walked int) {
	f.t.Helper()
	before := uuid.Max
	for range maxPages {
		rows, err := f.Admin.Query(f.Context(), `
SELECT id, matches, walked FROM list_holds_of('ann', $1, NULL, NULL, NULL, NULL, $2, 100, $3)`,
			reference, before.String(), scan)
		if err != nil {
			f.t.Fatal(err)
		}
		last := 0
		for rows.Next() {
			var matches bool
			if err := rows.Scan(&before, &matches, &last); err != nil {
				f.t.Fatal(err)
			}
			if matches {
				all = append(all, before)
			}
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
		walked = max(walked, last)
		if last < scan {
			return all, walked
		}
	}
	f.t.Fatal("the list has no last page")
	return nil, 0
}

// A page of an owner's holds with a reference looks at so many holds of the reference, and not at
// all of them. It may be short, and the next one goes on. The control looks at all.
func TestAPageOfAnOwnerAndAReferenceIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	partyHolds(f)
	want := selected(shown(f), reservation.HoldFilter{Owner: "ann", Reference: "order 1"})
	for _, scan := range []int{1, 2, 5, 100} {
		got, walked := shortPages(f, "order 1", scan)
		if diff := cmp.Diff(want, got); diff != "" || walked > scan {
			t.Errorf("pages of %d look at %d holds; the holds differ (-want +got):\n%s", scan, walked,
				diff)
		}
	}

	f.Exec(`
INSERT INTO hold_parties (hold_id, owner, reference)
SELECT ('0192d000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'bob', 'order 1'
FROM generate_series(1, 50000) n`)
	f.Exec("ANALYZE hold_parties")
	f.checkCosts(map[string]pageCost{
		"an owner with a reference of many": {
			explainPartySQL, []any{"ann", "order 1", uuid.Max.String()}, 400,
		},
	})
	f.mutate("list_holds_of", "ORDER BY o.hold_id DESC LIMIT _scan", "ORDER BY o.hold_id DESC")
	blocks, took := f.Explain(explainPartySQL, "ann", "order 1", uuid.Max.String())
	t.Logf("a look at all holds of the reference: %d blocks in %.1f ms", blocks, took)
	if blocks < 600 {
		t.Errorf("a look at all holds of the reference takes %d blocks, want 600 or more", blocks)
	}
}
