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
	for start := time.Now(); time.Since(start) < duration(15*time.Second) && !t.Failed(); rounds++ {
		t.Run(fmt.Sprint("round ", rounds), func(t *testing.T) {
			d := newDeployment(t)
			v := recordHistory(d, uint64(rounds), historyTime).check(t, true)
			calls += v.calls
			unanswered += v.unanswered
			if !v.clean() {
				t.Fatal(v)
			}
			d.audit()
			if n := d.deadlocks(); n > 0 {
				t.Fatalf("%d deadlocks", n)
			}
		})
	}
	t.Logf("%d rounds of %d histories, %d calls, %d of them unanswered: all linearizable", rounds, partitions, calls, unanswered)
}

// TestLateCallsAreLinearizable is about calls that wait past the end of what they came for.
func TestLateCallsAreLinearizable(t *testing.T) {
	for name, attack := range map[string]func(*deployment) *history{"confirm": lateConfirm, "extend": lateExtend} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t)
			if v := attack(d).check(t, true); !v.clean() {
				t.Error(v)
			}
			d.audit()
		})
	}
}

// control takes a guard away.
type control struct {
	name  string
	guard func(d *deployment)
	// attack is what must find it; nil is the callers let loose.
	attack func(d *deployment) *history
	// deadlocks says that the guard keeps callers from waiting in a circle, which Postgres breaks and counts, and not from a wrong answer.
	deadlocks bool
}

// dropSchemaGuards drops what the schema refuses by itself, so that the guard of the statement alone is on trial.
func dropSchemaGuards(d *deployment) {
	d.exec("ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total")
	d.exec("DROP TRIGGER i3_resolved_once_i4_alive ON reservations")
}

func mutate(function, old, replacement string) func(*deployment) {
	return func(d *deployment) { pgtest.Mutate(d.t, d.db, function, old, replacement) }
}

func combine(changes ...func(*deployment)) func(*deployment) {
	return func(d *deployment) {
		for _, change := range changes {
			change(d)
		}
	}
}

var controls = []control{
	{
		name: "a confirm without its guard",
		guard: combine(dropSchemaGuards, mutate("resolve_hold", "AND r.status::text = 'PENDING' ",
			"AND EXISTS (SELECT FROM reservations l WHERE l.id = _id AND l.status = 'PENDING') ")),
	},
	{
		name: "a cart without its sort",
		guard: combine(
			func(d *deployment) {
				d.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', current_database()); END $$`)
			},
			mutate("reserve_cart", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE", "ORDER BY newRand() FOR NO KEY UPDATE")),
		deadlocks: true,
	},
	{
		name: "an extend by the transaction's clock",
		guard: combine(dropSchemaGuards, mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "_now := now();"),
			mutate("extend_hold", "_hold.expires_at <= _now", "_hold.expires_at <= now()")),
		attack: lateExtend,
	},
	{
		name: "a confirm by the transaction's clock",
		guard: combine(dropSchemaGuards, mutate("resolve_hold", "_now := clock_timestamp();", "_now := now();"),
			mutate("resolve_hold", "clock_timestamp() < _end", "now() < _end")),
		attack: lateConfirm,
	},
	{
		name: "a sweep without its guard",
		guard: combine(dropSchemaGuards,
			mutate("sweep_holds", "FOR UPDATE SKIP LOCKED", ""),
			mutate("sweep_holds", "AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'", "")),
	},
	{
		name: "a reclaim that forgets the line's row",
		guard: combine(dropSchemaGuards, mutate("reclaim_lines", "UPDATE reservation_items l SET counted = false", "UPDATE reservation_items l SET counted = true"),
			mutate("give_up_lines", "l.counted", "true")),
	},
}

// TestHistoryCheckFindsEachRemovedGuard takes one guard after another away: the very same callers and check must find it.
func TestHistoryCheckFindsEachRemovedGuard(t *testing.T) {
	const budget = 3 * time.Minute // most are found withTimeout a few rounds of three seconds
	for n, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			start, found := time.Now(), false
			for round := uint64(0); !found && time.Since(start) < budget; round++ {
				t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
					d := newDeployment(t)
					c.guard(d)
					var h *history
					if c.attack != nil {
						h = c.attack(d)
					} else {
						h = recordHistory(d, 1000*uint64(n+1)+round, historyTime)
					}
					v := h.check(t, false)
					found = c.deadlocks && d.deadlocks() > 0 || !c.deadlocks && len(v.illegal) > 0
					t.Logf("found %t: %s", found, v)
				})
			}
			if !found {
				t.Errorf("nothing was found withTimeout %s", budget)
			}
		})
	}
}
