package outbox_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/pgtest"
)

// park publishes what there is to a sink that refuses the events of two subjects for good: those of
// a hold, and those of the stock row. Events of other subjects follow.
func (f *fixture) park(t *testing.T) (refused uuid.UUID, sink *memory) {
	t.Helper()
	f.drain(&memory{}) // the opening stock
	f.reserve()
	f.drain(&memory{})
	refused = f.reserve()
	f.confirm(refused)
	f.Exec(`
INSERT INTO parked (sink, id, subject, error) VALUES
    ('topic', $1 || '-1', $1, 'too large'),
    ('topic', $2 || '-' || $3 || '-2', $2 || '/' || $3, 'too large')`,
		refused.String(), f.product.String(), f.west.String())
	sink = &memory{}
	f.drain(sink)
	f.reserve()
	f.drain(sink)
	return refused, sink
}

// Parked events are published in their order when an operator redrives them.
func TestParkedEventsAreRedriven(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	refused, sink := f.park(t)
	if len(sink.got) != 1 {
		t.Fatalf("the sink got %v, want only the last hold", names(sink.got))
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT redrive_parked('topic')"); n != 3 {
		t.Errorf("redrive_parked() = %d, want the hold's two events and the movement", n)
	}
	again := &memory{}
	f.drain(again)
	want := []string{
		refused.String() + "-1", refused.String() + "-2",
		f.product.String() + "-" + f.west.String() + "-2", sink.got[0].ID,
	}
	slices.Sort(want)
	if got := ids(again.got); !slices.Equal(got, want) {
		t.Errorf("the sink gets %v, want %v", got, want)
	}
	place := func(id string) int {
		return slices.IndexFunc(again.got, func(e events.Event) bool { return e.ID == id })
	}
	if place(refused.String()+"-1") > place(refused.String()+"-2") {
		t.Errorf("the events of the hold came as %v", names(again.got))
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM parked"); n != 0 {
		t.Errorf("%d events are still parked", n)
	}
	if n := pgtest.QueryOne[int](f.Fixture, "SELECT redrive_parked('topic')"); n != 0 {
		t.Errorf("redrive_parked() without parked events = %d", n)
	}
}

// Each page tells how many events of its sink are parked, until they are redriven.
func TestAPageTellsHowManyEventsAreParked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.park(t)
	parked := func(sink string) int {
		page := f.next(events.Request{Sink: sink, Lease: uuid.NewString()})
		if !page.Leased {
			t.Errorf("the sink %s is leased to another relay", sink)
		}
		return page.Parked
	}
	if topic, bus := parked("topic"), parked("bus"); topic != 3 || bus != 0 {
		t.Errorf("%d events of the topic and %d of the bus are parked, want 3 and 0", topic, bus)
	}
	f.Exec("SELECT redrive_parked('topic')")
	if topic := parked("topic"); topic != 0 {
		t.Errorf("after the redrive %d events are parked", topic)
	}
}

// A relay that publishes while an operator redrives must not move the sink's place forward again.
// The control keeps its lease.
func TestARedriveEndsTheLease(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("take_place_back", "lease = NULL, leased_until = '-infinity', ", "")
		}
		refused, _ := f.park(t)
		lease := uuid.NewString()
		f.reserve()
		page := f.next(events.Request{Sink: "topic", Lease: lease})
		f.Exec("SELECT redrive_parked('topic')")
		f.next(events.Request{Sink: "topic", Lease: lease, Ack: page.Position, Release: true})
		sink := &memory{}
		f.drain(sink)
		if got := slices.Contains(ids(sink.got), refused.String()+"-1"); got != guarded {
			t.Errorf("guarded %t: the sink gets the parked event: %t", guarded, got)
		}
	}
}

// A parked movement whose row is archived can't be published any more, and the later movements of
// its stock row go out. The control keeps it parked.
func TestARedriveForgetsWhatIsArchived(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("redrive_parked", "DELETE FROM parked p WHERE p.sink = _sink;",
				"DELETE FROM parked p WHERE p.sink = _sink AND parked_xid(p.id, p.subject) IS NOT NULL;")
		}
		f.park(t)
		f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER USER")
		f.Exec("DELETE FROM stock_movements WHERE seq = 2") // as if it were archived
		f.confirm(f.reserve())
		if n := pgtest.QueryOne[int](f.Fixture, "SELECT redrive_parked('topic')"); n != 2 {
			t.Errorf("redrive_parked() = %d, want the hold's two events", n)
		}
		sink := &memory{}
		f.drain(sink)
		third := f.product.String() + "-" + f.west.String() + "-3"
		if got := slices.Contains(ids(sink.got), third); got != guarded {
			t.Errorf("guarded %t: the sink gets the next movement: %t", guarded, got)
		}
		left := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM parked")
		if (left == 0) != guarded {
			t.Errorf("guarded %t: %d events are parked", guarded, left)
		}
	}
}

// A relay that has read a page when an operator redrives must not park the followers again. The
// control lets it. The parked event itself goes out even so, as it comes before them.
func TestARedrivenEventIsNotHeldBackByItsFollowers(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("park_followers", " AND s.lease = _lease", "")
		}
		refused, _ := f.park(t)
		lease := uuid.NewString()
		f.next(events.Request{Sink: "topic", Lease: lease})
		f.Exec("SELECT redrive_parked('topic')")
		f.Exec(`
SELECT park_followers('topic', $2, jsonb_build_array(jsonb_build_object(
    'id', $1 || '-2', 'subject', $1::text, 'error', 'test')))`, refused.String(), lease)
		sink := &memory{}
		f.drain(sink)
		got := ids(sink.got)
		if !slices.Contains(got, refused.String()+"-1") {
			t.Errorf("guarded %t: the sink gets %v, want the redriven event", guarded, names(sink.got))
		}
		if slices.Contains(got, refused.String()+"-2") != guarded {
			t.Errorf("guarded %t: the sink gets %v", guarded, names(sink.got))
		}
	}
}

// A parked event holds back itself and the later ones of its subject only.
func TestAParkedEventHoldsNoEarlierOneBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.drain(&memory{})
	hold := f.reserve()
	f.confirm(hold)
	f.Exec(`INSERT INTO parked (sink, id, subject, error) VALUES ('topic', $1 || '-2', $1, 'test')`,
		hold.String())
	sink := &memory{}
	f.drain(sink)
	if got := ids(sink.got); !slices.Contains(got, hold.String()+"-1") ||
		slices.Contains(got, hold.String()+"-2") {
		t.Errorf("the sink gets %v, want the event before the parked one", names(sink.got))
	}
}

func TestAnUnknownSinkCantBeRedriven(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.Admin.Exec(f.Context(), "SELECT redrive_parked('tropic')")
	if err == nil || !strings.Contains(err.Error(), "no sink tropic") {
		t.Errorf("redrive_parked() of an unknown sink = %v", err)
	}
}

// A sink that nobody publishes to any more holds back the pruning of the ticks until it is
// forgotten. A relay that still publishes to it isn't robbed of its place.
func TestASinkIsForgotten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.park(t)
	lease := uuid.NewString()
	f.next(events.Request{Sink: "topic", Lease: lease})
	forget := func(sink string) error {
		_, err := f.Admin.Exec(f.Context(), "SELECT forget_sink($1)", sink)
		return err
	}
	if err := forget("topic"); err == nil || !strings.Contains(err.Error(), "a relay publishes") {
		t.Errorf("forget_sink() while a relay publishes = %v", err)
	}
	if err := forget("tropic"); err == nil || !strings.Contains(err.Error(), "no sink tropic") {
		t.Errorf("forget_sink() of an unknown sink = %v", err)
	}
	f.next(events.Request{Sink: "topic", Lease: lease, Release: true})
	if err := forget("topic"); err != nil {
		t.Fatalf("forget_sink() = %v", err)
	}
	left := pgtest.QueryOne[int](f.Fixture,
		"SELECT (SELECT count(*) FROM sinks) + (SELECT count(*) FROM parked)")
	if left != 0 {
		t.Errorf("%d rows of the sink are left", left)
	}
	again := &memory{}
	f.drain(again)
	if len(again.got) != 6 {
		t.Errorf("the sink that comes back gets %v, want all six events", names(again.got))
	}
}

// Both routines would do nothing for a place of a sink, and report success: they refuse it, and say
// which sink to name. In the control they take it.
func TestAPlaceIsNoSinkToAnOperator(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		f := newFixture(t)
		if !guarded {
			f.mutate("lock_named_sink", "_sink <> sink_of(_sink)", "false")
		}
		f.park(t)
		for _, call := range []string{"forget_sink", "redrive_parked"} {
			for _, place := range []string{"topic-holds", "topic-stock"} {
				_, err := f.Admin.Exec(f.Context(), "SELECT "+call+"($1)", place)
				refused := err != nil && strings.Contains(err.Error(), "place of the sink topic:")
				if refused != guarded || !guarded && err != nil {
					t.Errorf("guarded %t: %s('%s') = %v", guarded, call, place, err)
				}
			}
		}
		if n := pgtest.QueryOne[int](f.Fixture, "SELECT count(*) FROM parked"); n != 3 {
			t.Errorf("guarded %t: %d events are parked, want all 3", guarded, n)
		}
	}
}

// RUNBOOK.md has the statement that forgets every sink with its places.
func TestTheRunbookForgetsEverySink(t *testing.T) {
	t.Parallel()
	const forget = "SELECT name, forget_sink(name) FROM sinks WHERE name = sink_of(name);"
	runbook, err := os.ReadFile("../../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(runbook), forget) {
		t.Fatalf("RUNBOOK.md has no %q", forget)
	}
	f := newFixture(t)
	f.park(t)
	f.next(events.Request{Sink: "bus", Lease: uuid.NewString(), Release: true})
	f.Exec(forget)
	left := pgtest.QueryOne[int](f.Fixture,
		"SELECT (SELECT count(*) FROM sinks) + (SELECT count(*) FROM parked)")
	if left != 0 {
		t.Errorf("%d rows of the sinks are left", left)
	}
}
