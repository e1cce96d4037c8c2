package outbox_test

import (
	"slices"
	"testing"
	"time"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// listSince reads the events since a time, in pages.
func (f *fixture) listSince(since time.Time, limit int) (all []events.Event) {
	f.t.Helper()
	page, next, err := f.outbox.ListSince(f.Context(), since, nil, limit)
	if err != nil {
		f.t.Fatalf("ListSince(%s) = %v", since, err)
	}
	return append(page, f.listAll(next, limit).events...)
}

// A list since a time has all events since then, and none of the batches before. The control begins
// one tick later.
func TestAListBeginsAtATime(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newLonelyFixture(t)
		if !guarded {
			f.mutate("follow_events_since", "_done  bigint := tick_before(_since);",
				"_done  bigint := 1 + tick_before(_since);")
		}
		var held []string
		var at []time.Time
		for range 4 {
			f.tick()
			at = append(at, pgtest.QueryOne[time.Time](f.Fixture, "SELECT clock_timestamp()"))
			held = append(held, f.reserve().String()+"-1")
			f.tick()
		}
		for n, since := range at {
			for _, limit := range []int{1, 500} {
				got := ids(f.listSince(since, limit))
				got = slices.DeleteFunc(got, func(id string) bool { return !slices.Contains(held, id) })
				if want := held[n:]; slices.Equal(got, want) != guarded {
					t.Errorf("guarded %t: since %s the list by %d has %v, want %v", guarded, since, limit,
						got, want)
				}
			}
		}
		if !guarded {
			continue
		}
		page, next, err := f.outbox.ListSince(f.Context(), time.Now().Add(time.Hour), nil, 500)
		if err != nil || len(page) != 0 || next == "" {
			t.Fatalf("ListSince(later) = %d events, %q, %v, want none and a cursor", len(page), next, err)
		}
		late := f.reserve()
		f.tick()
		if got := ids(f.listAll(next, 500).events); !slices.Equal(got, []string{late.String() + "-1"}) {
			t.Errorf("behind that cursor there are %v, want the new hold", got)
		}
		all, since := ids(f.listAll("", 500).events), ids(f.listSince(time.Unix(0, 0), 500))
		if !slices.Equal(all, since) {
			t.Errorf("since 1970 the list has %v, want %v", since, all)
		}
		f.Exec("UPDATE stream SET archived = (SELECT xid FROM ledger ORDER BY xid DESC OFFSET 1 LIMIT 1)")
		all, since = ids(f.listAll("", 500).events), ids(f.listSince(at[0], 500))
		if !slices.Equal(all, since) || len(all) != 1 {
			t.Errorf("since a time in the archive the list has %v, want %v", since, all)
		}
	}
}
