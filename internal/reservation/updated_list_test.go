package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// tickSQL takes a tick. Before anything has changed there is none, so firstTickSQL makes one, which
// was taken a day ago.
const (
	tickSQL      = "SELECT take_tick()"
	firstTickSQL = `
INSERT INTO ticks (n, at, snapshot)
VALUES (1, clock_timestamp() - interval '1 day', pg_current_snapshot())`
)

// partyHolds makes holds for two owners and under two references, of every status, and some for no
// one. It takes ticks between them. The last ones are dead, and no sweep has expired them.
func partyHolds(f *fixture) []reservation.Line {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(1000, 1000, 1000)
	reserve := func(r reservation.Request) uuid.UUID {
		f.t.Helper()
		answer, err := s.Reserve(ctx, r)
		if err != nil {
			f.t.Fatal(err)
		}
		return answer.Hold.ID
	}
	requests := []reservation.Request{
		{Owner: "ann"},
		{Owner: "ann", Reference: "order 1"},
		{Owner: "bob", Reference: "order 1"},
		{Reference: "order 2"},
		{},
	}
	for i := range requests {
		requests[i].Lines = [][]reservation.Line{{rows[0]}, {rows[1], rows[2]}}[i%2]
		f.Kill(reserve(requests[i]))
	}
	if _, err := s.Sweep(ctx); err != nil {
		f.t.Fatal(err)
	}
	for _, r := range requests {
		reserve(r)
		confirmed, released, paying := reserve(r), reserve(r), reserve(r)
		f.Exec(tickSQL)
		_, confirmErr := s.Confirm(ctx, confirmed, "")
		_, releaseErr := s.Release(ctx, released, "")
		_, extendErr := s.Extend(ctx, paying, 20*time.Minute, "")
		f.Exec(tickSQL)
		_, startErr := s.StartPayment(ctx, paying, "p", time.Minute, "")
		if err := errors.Join(confirmErr, releaseErr, extendErr, startErr); err != nil {
			f.t.Fatal(err)
		}
		f.Kill(reserve(r))
		f.KillAgo(2*time.Hour, reserve(r))
	}
	return rows
}

// shown is a hold as Get shows it.
func shown(f *fixture) (all []reservation.Hold) {
	f.t.Helper()
	s := newService(f.own)
	for _, h := range readModel(f) {
		view, err := s.Get(f.Context(), h.id)
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, view.Hold)
	}
	slices.SortFunc(all, func(a, b reservation.Hold) int {
		return strings.Compare(b.ID.String(), a.ID.String())
	})
	return all
}

// selects reports whether a filter selects a hold.
func selects(f reservation.HoldFilter, h reservation.Hold) bool {
	return (f.Status == "" || f.Status == h.Status) &&
		(f.Reference == "" || f.Reference == h.Reference) &&
		(f.Owner == "" || f.Owner == h.Owner) && !h.UpdatedAt.Before(f.UpdatedSince) &&
		slices.ContainsFunc(h.Lines, func(l reservation.Line) bool {
			return (f.ProductID == nil || l.ProductID == *f.ProductID) &&
				(f.WarehouseID == nil || l.WarehouseID == *f.WarehouseID)
		})
}

// selected returns the holds that the filter selects, by id, the newest first.
func selected(all []reservation.Hold, f reservation.HoldFilter) (ids []uuid.UUID) {
	for _, h := range all {
		if selects(f, h) {
			ids = append(ids, h.ID)
		}
	}
	return ids
}

func partyFilters(rows []reservation.Line) (all []reservation.HoldFilter) {
	for _, party := range []reservation.HoldFilter{
		{Owner: "ann"},
		{Owner: "bob"},
		{Owner: "carl"},
		{Reference: "order 1"},
		{Reference: "order 2"},
		{Owner: "ann", Reference: "order 1"},
		{Owner: "bob", Reference: "order 2"},
	} {
		for _, status := range append([]reservation.Status{""}, allStatuses...) {
			party.Status = status
			all = append(all, party)
		}
		for _, row := range rows[:2] {
			party.Status, party.ProductID = "", &row.ProductID
			all = append(all, party)
		}
	}
	return all
}

// partyDiffs compares the lists of parties with the model, and returns the differences.
func partyDiffs(f *fixture, rows []reservation.Line) (diffs []string) {
	f.t.Helper()
	all := shown(f)
	filters := partyFilters(rows)
	for _, filter := range filters[:len(filters):len(filters)] {
		filter.UpdatedSince = time.Now().Add(-30 * time.Minute)
		filters = append(filters, filter)
	}
	for _, filter := range filters {
		want := selected(all, filter)
		for _, limit := range []int{2, max(len(want), 1)} {
			got, err := readHolds(f.Context(), newService(f.own), filter, limit)
			if err != nil {
				return append(diffs, err.Error())
			}
			if diff := cmp.Diff(want, ids(got)); diff != "" {
				diffs = append(diffs, fmt.Sprintf(
					"the holds of %+v in pages of %d differ (-want +got):\n%s", filter, limit, diff))
			}
		}
	}
	return diffs
}

func TestHoldsAreListedByOwnerAndReference(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	rows := partyHolds(f)
	for _, diff := range partyDiffs(f, rows) {
		t.Error(diff)
	}
	page, err := newService(f.own).ListHolds(f.Context(), reservation.HoldFilter{Owner: "ann"},
		reservation.HoldCursor{}, 1)
	if err != nil || len(page.Holds) != 1 || page.Holds[0].Owner != "ann" {
		t.Errorf("the first hold of ann is %+v, %v", page.Holds, err)
	}
	f.mustAudit(t)
}

func TestABrokenListOfAPartyDiffersFromTheModel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ function, old, replacement string }{
		"the owner of a reference doesn't matter": {
			"list_holds_of", "_owner IS NULL OR p.owner = _owner", "true",
		},
		"an owner's page begins anew": {
			"list_holds_of", "o.owner = _owner AND o.hold_id < _before", "o.owner = _owner",
		},
		"the oldest come first": {
			"list_holds_of", "ORDER BY w.hold_id DESC", "ORDER BY w.hold_id",
		},
		"a reference with an owner is read twice": {
			"list_holds_of", "WHERE _reference IS NULL AND", "WHERE",
		},
		"the status doesn't matter": {"is_listed", "<> _status", "IS NULL"},
		"the product of a hold of one line doesn't matter": {
			"is_listed", "_hold.product_id = coalesce(_product, _hold.product_id)", "true",
		},
		"the product of a cart doesn't matter": {
			"is_listed", "AND l.product_id = coalesce(_product, l.product_id)", "",
		},
		"the time doesn't matter": {"is_listed", "< _since", "IS NULL"},
		"a dead hold isn't EXPIRED": {
			"is_listed", "WHEN _dead THEN 'EXPIRED'", "WHEN false THEN 'EXPIRED'",
		},
		"a dead hold has its last time": {
			"is_listed", "WHEN _dead THEN _hold.expires_at", "WHEN false THEN NULL",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 0)
			rows := partyHolds(f)
			f.mutate(c.function, c.old, c.replacement)
			if diffs := partyDiffs(f, rows); len(diffs) == 0 {
				t.Error("the lists agree with the model, want a difference")
			}
		})
	}
}

// updatedDiffs compares the lists of what was updated since each of many times with the model, and
// returns the differences. A hold that is dead may come twice: whether another database of the
// server has a long transaction is not up to the test.
func updatedDiffs(f *fixture, rows []reservation.Line) (diffs []string) {
	f.t.Helper()
	all := shown(f)
	times := []time.Time{time.Unix(0, 0), time.Now().Add(time.Hour)}
	for i, h := range all {
		if i%7 == 0 {
			times = append(times, h.UpdatedAt, h.UpdatedAt.Add(1))
		}
	}
	for _, since := range times {
		for _, filter := range []reservation.HoldFilter{
			{},
			{Status: reservation.Pending},
			{Status: reservation.Expired},
			{Status: reservation.Expired, WarehouseID: &rows[0].WarehouseID},
			{ProductID: &rows[1].ProductID},
		} {
			filter.UpdatedSince = since
			want := selected(all, filter)
			for _, limit := range []int{3, reservation.MaxHoldPage} {
				got, err := readHolds(f.Context(), newService(f.own), filter, limit)
				if err != nil {
					return append(diffs, err.Error())
				}
				if diff := cmp.Diff(want, withoutTwins(got)); diff != "" {
					diffs = append(diffs, fmt.Sprintf(
						"the holds of %+v in pages of %d differ (-want +got):\n%s", filter, limit, diff))
				}
			}
		}
	}
	return diffs
}

// withoutTwins returns the ids of holds, the newest first, without the second of a dead hold's two.
func withoutTwins(holds []reservation.Hold) []uuid.UUID {
	out := ids(holds)
	slices.SortFunc(out, func(a, b uuid.UUID) int { return strings.Compare(b.String(), a.String()) })
	dead := map[uuid.UUID]int{}
	for _, h := range holds {
		if h.Status == reservation.Expired {
			dead[h.ID]++
		}
	}
	return slices.CompactFunc(out, func(a, b uuid.UUID) bool { return a == b && dead[a] == 2 })
}

// The lists are read by the ledger, and where there is no tick that is old enough, by the time at
// which holds were made.
func TestUpdatedHoldsAreListed(t *testing.T) {
	t.Parallel()
	for _, ticked := range []bool{true, false} {
		f := newFixture(t, 0)
		if ticked {
			f.Exec(firstTickSQL)
		}
		rows := partyHolds(f)
		for _, diff := range updatedDiffs(f, rows) {
			t.Errorf("with an old tick: %t: %s", ticked, diff)
		}
		f.mustAudit(t)
	}
}

func TestABrokenListOfUpdatedHoldsDiffersFromTheModel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		function, old, replacement string
		unticked                   bool
	}{
		"the dead holds are missed": {
			function: "list_dead_holds", old: "r.status = 'PENDING'", replacement: "r.status IS NULL",
		},
		"holds that live are dead": {
			function: "list_dead_holds", old: "r.expires_at <= _now", replacement: "true",
		},
		"holds that died before are listed": {
			function: "is_listed", old: "WHEN _dead THEN _hold.expires_at",
			replacement: "WHEN _dead THEN 'infinity'",
		},
		"the first change of a page leads to its hold": {
			function: "list_changes", old: "max(a.n) OVER", replacement: "min(a.n) OVER",
		},
		"a page leaves out the rest of a transaction": {
			function: "changes_after", old: "(l.xid, l.hold_id) > (_xid, _id)",
			replacement: "l.xid > _xid",
		},
		"the later changes are missed": {
			function: "changes_after", old: "l.xid < _bound", replacement: "false",
		},
		"a tick after the time is taken": {
			function: "tick_before", old: "k.n < coalesce(_late, _last + 1)",
			replacement: "k.n <= coalesce(_late, _last + 1)",
		},
		"the list by creation ignores the time": {
			function: "list_holds", old: "(_since IS NULL OR updated_as_shown(a.r, _now) >= _since)",
			replacement: "true", unticked: true,
		},
		"the list by creation reads the last 10 minutes": {
			function: "longest_hold", old: "8 days", replacement: "1 minute", unticked: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 0)
			if !c.unticked {
				f.Exec(firstTickSQL)
			}
			rows := partyHolds(f)
			f.mutate(c.function, c.old, c.replacement)
			if diffs := updatedDiffs(f, rows); len(diffs) == 0 {
				t.Error("the lists agree with the model, want a difference")
			}
		})
	}
}

// A transaction that ran when a tick was taken may commit much later. Its change is listed all the
// same, though its time is before the tick's, and its id is lower than all that follow.
func TestAChangeThatCommitsLateIsListed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	if missed := missesALateChange(f); missed {
		t.Error("the list misses the change")
	}
}

func TestAListOfLaterTransactionsMissesALateChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.mutate("changes_after", "l.xid = ANY (_running)", "false")
	if missed := missesALateChange(f); !missed {
		t.Error("the list has the change, want it to be missed")
	}
}

// missesALateChange confirms a hold in a transaction that is open while a tick is taken. It reports
// whether the list of what was updated since that tick lacks the hold.
func missesALateChange(f *fixture) bool {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	f.Exec(firstTickSQL)
	row := f.stock(10)
	late := f.hold(row)
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
		f.t.Fatal(err)
	}
	f.hold(row)
	f.Exec(tickSQL)
	since := queryOne[time.Time](f, "SELECT at + interval '1 us' FROM ticks ORDER BY n DESC LIMIT 1")
	f.hold(row)
	f.Exec(tickSQL)
	if _, err := tx.Exec(ctx, `
WITH marked AS (
    UPDATE reservations SET status = 'CONFIRMED', updated_at = clock_timestamp(),
                            version = version + 1
    WHERE id = $1 RETURNING *
), sold AS (
    UPDATE inventory i SET total = total - 1, reserved = reserved - 1, seq = seq + 1
    FROM marked m WHERE i.product_id = m.product_id RETURNING i.*
), sale AS (
    INSERT INTO stock_movements (product_id, warehouse_id, seq, at, reservation_id, kind, delta,
                                 total_after)
    SELECT product_id, warehouse_id, seq, clock_timestamp(), $1, 'SALE', -1, total FROM sold
)
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT updated_at, expires_at, id, version, 'c', 'v' FROM marked`, late.ID.String()); err != nil {
		f.t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		f.t.Fatal(err)
	}
	f.mustAudit(f.t.(*testing.T))
	holds, err := readHolds(ctx, s, reservation.HoldFilter{UpdatedSince: since}, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	return !slices.Contains(ids(holds), late.ID)
}

// changeWhileListed makes holds, takes a tick, and kills or confirms most of the holds. It reads
// the first page of what was updated, which has some of the dead ones. It then sweeps, confirms a
// hold, and extends another. It returns how often the list has each hold that changed.
func changeWhileListed(f *fixture) (seen map[uuid.UUID]int, unchanged []uuid.UUID) {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	holds := make([]reservation.Hold, 30)
	for n, row := 0, f.stock(1000); n < len(holds); n++ {
		holds[n] = f.hold(row)
	}
	f.Exec(firstTickSQL)
	live := []reservation.Hold{holds[2], holds[5]}
	seen = map[uuid.UUID]int{live[0].ID: 0, live[1].ID: 0}
	for n, h := range holds {
		switch n % 3 {
		case 0:
			f.kill(h)
			seen[h.ID] = 0
		case 1:
			if _, err := s.Confirm(ctx, h.ID, ""); err != nil {
				f.t.Fatal(err)
			}
			seen[h.ID] = 0
			unchanged = append(unchanged, h.ID)
		}
	}
	filter := reservation.HoldFilter{UpdatedSince: time.Now().Add(-time.Minute)}
	var after reservation.HoldCursor
	for n := range maxPages {
		page, err := s.ListHolds(ctx, filter, after, 7)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, h := range page.Holds {
			seen[h.ID]++
		}
		if n == 0 {
			_, sweepErr := s.Sweep(ctx)
			_, confirmErr := s.Confirm(ctx, live[0].ID, "")
			_, extendErr := s.Extend(ctx, live[1].ID, time.Minute, "")
			if err := errors.Join(sweepErr, confirmErr, extendErr); err != nil {
				f.t.Fatal(err)
			}
		}
		if page.Next == nil {
			break
		}
		after = *page.Next
	}
	return seen, unchanged
}

func TestNoHoldIsMissedThatChangesWhileItIsListed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	seen, unchanged := changeWhileListed(f)
	for id, n := range seen {
		if n == 0 || n > 2 || n > 1 && slices.Contains(unchanged, id) {
			t.Errorf("hold %s is listed %d times", id, n)
		}
	}
	f.mustAudit(t)
}

// Without the changes of the time in which the dead holds were listed, those are missed that were
// swept then.
func TestSweptHoldsAreMissedBehindAnEarlyBound(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.mutate("list_updated_holds", "_bound := pg_snapshot_xmax(_this)::text::bigint",
		"_bound := _begun")
	seen, _ := changeWhileListed(f)
	for _, n := range seen {
		if n == 0 {
			return
		}
	}
	t.Error("each hold is listed, want some to be missed")
}
