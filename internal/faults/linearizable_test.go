package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

// TestHistoriesAreLinearizable lets 32 callers work on eight products at once, again and again, each time in a fresh database.
func TestHistoriesAreLinearizable(t *testing.T) {
	var rounds, calls, unanswered int
	for start := time.Now(); time.Since(start) < lasting(15*time.Second) && !t.Failed(); rounds++ {
		t.Run(fmt.Sprint("round ", rounds), func(t *testing.T) {
			w := newWorld(t)
			v := play(w, uint64(rounds), historyTime).check(t, true)
			calls += v.calls
			unanswered += v.unanswered
			if !v.clean() {
				t.Fatal(v)
			}
			w.audit()
			if n := w.deadlocks(); n > 0 {
				t.Fatalf("%d deadlocks", n)
			}
		})
	}
	t.Logf("%d rounds of %d histories, %d calls, %d of them unanswered: all linearizable", rounds, islands, calls, unanswered)
}

// TestLateCallsAreLinearizable is about calls that wait past the end of what they came for.
func TestLateCallsAreLinearizable(t *testing.T) {
	for name, attack := range map[string]func(*world) *history{"confirm": lateConfirm, "extend": lateExtend} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if v := attack(w).check(t, true); !v.clean() {
				t.Error(v)
			}
			w.audit()
		})
	}
}

// control takes a guard away.
type control struct {
	name  string
	guard func(w *world)
	// attack is what must find it; nil is the callers let loose.
	attack func(w *world) *history
	// deadlocks says that the guard keeps callers from waiting in a circle, which Postgres breaks and counts, and not from a wrong answer.
	deadlocks bool
}

// unguarded drops what the schema refuses by itself, so that the guard of the statement alone is on trial.
func unguarded(w *world) {
	w.exec("ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total")
	w.exec("DROP TRIGGER i3_resolved_once_i4_alive ON reservations")
}

func mutate(function, old, replacement string) func(*world) {
	return func(w *world) { pgtest.Mutate(w.t, w.db, function, old, replacement) }
}

func all(changes ...func(*world)) func(*world) {
	return func(w *world) {
		for _, change := range changes {
			change(w)
		}
	}
}

var controls = []control{
	{
		name: "a confirm without its guard",
		guard: all(unguarded, mutate("resolve_hold", "AND status::text = 'PENDING' ",
			"AND EXISTS (SELECT FROM reservations l WHERE l.id = _id AND l.status = 'PENDING') ")),
	},
	{
		name: "a cart without its sort",
		guard: all(
			func(w *world) {
				w.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', current_database()); END $$`)
			},
			mutate("reserve_cart", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE", "ORDER BY random() FOR NO KEY UPDATE")),
		deadlocks: true,
	},
	{
		name: "an extend by the transaction's clock",
		guard: all(unguarded, mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "_now := now();"),
			mutate("extend_hold", "_hold.expires_at <= _now", "_hold.expires_at <= now()")),
		attack: lateExtend,
	},
	{
		name: "a confirm by the transaction's clock",
		guard: all(unguarded, mutate("resolve_hold", "_now := clock_timestamp();", "_now := now();"),
			mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "now() < _hold.expires_at")),
		attack: lateConfirm,
	},
	{
		name: "a sweep without its guard",
		guard: all(unguarded,
			mutate("sweep_holds", "FOR UPDATE SKIP LOCKED", ""),
			mutate("sweep_holds", "AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'", "")),
	},
	{
		name: "a reclaim that forgets the line's row",
		guard: all(unguarded, mutate("reclaim_lines", "UPDATE reservation_items l SET counted = false", "UPDATE reservation_items l SET counted = true"),
			mutate("give_up_units", "l.counted", "true")),
	},
}

// TestTheCheckFindsWhatAGuardIsFor takes one guard after another away: the very same callers and check must find it.
func TestTheCheckFindsWhatAGuardIsFor(t *testing.T) {
	const budget = 3 * time.Minute // most are found within a few rounds of three seconds
	for n, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			start, found := time.Now(), false
			for round := uint64(0); !found && time.Since(start) < budget; round++ {
				t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
					w := newWorld(t)
					c.guard(w)
					var h *history
					if c.attack != nil {
						h = c.attack(w)
					} else {
						h = play(w, 1000*uint64(n+1)+round, historyTime)
					}
					v := h.check(t, false)
					found = c.deadlocks && w.deadlocks() > 0 || !c.deadlocks && len(v.illegal) > 0
					t.Logf("found %t: %s", found, v)
				})
			}
			if !found {
				t.Errorf("nothing was found within %s", budget)
			}
		})
	}
}
