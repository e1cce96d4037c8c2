package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

// TestHistoriesAreLinearizable lets 32 callers work on eight products at once, in round after
// round, each on a fresh database.
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
	t.Logf("%d rounds of %d histories, %d calls, %d of them unanswered: all linearizable", rounds,
		partitions, calls, unanswered)
}

// TestLateCallsAreLinearizable checks calls that wait past the end of their hold.
func TestLateCallsAreLinearizable(t *testing.T) {
	for name, attack := range map[string]func(*deployment) *history{
		"confirm": lateConfirm,
		"extend":  lateExtend,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t)
			if v := attack(d).check(t, true); !v.clean() {
				t.Error(v)
			}
			d.audit()
		})
	}
}

// TestDocumentsAreLinearizable checks documents that meet on one stock row.
func TestDocumentsAreLinearizable(t *testing.T) {
	d := newDeployment(t)
	if v := documents(d).check(t, true); !v.clean() {
		t.Error(v)
	}
	d.audit()
}

// TestLatePaymentsAreLinearizable checks two payments that come late for one hold.
func TestLatePaymentsAreLinearizable(t *testing.T) {
	d := newDeployment(t)
	if v := latePayments(d).check(t, true); !v.clean() {
		t.Error(v)
	}
	d.audit()
}

// TestPaymentsUnderWayAreLinearizable checks the calls for a hold that is being paid.
func TestPaymentsUnderWayAreLinearizable(t *testing.T) {
	d := newDeployment(t)
	if v := underWay(d).check(t, true); !v.clean() {
		t.Error(v)
	}
	d.audit()
}

// TestOwnersAreLinearizable checks two reserves of one owner that meet at a limit.
func TestOwnersAreLinearizable(t *testing.T) {
	d := newDeployment(t)
	if v := ownersMeet(d).check(t, true); !v.clean() {
		t.Error(v)
	}
	d.audit()
}

// control is one guard to remove.
type control struct {
	name  string
	guard func(d *deployment)
	// attack is the history that must find it; nil is the usual one.
	attack func(d *deployment) *history
	// deadlocks is set where the guard prevents deadlocks and not wrong answers: Postgres counts
	// those.
	deadlocks bool
	// quick controls run with -short too: one short history finds them.
	quick bool
}

// dropSchemaGuards removes the schema's own guards, so that only the guard of the statement is on
// trial.
func dropSchemaGuards(d *deployment) {
	d.db.Exec("ALTER TABLE inventory DROP CONSTRAINT i1_reserved_within_total")
	d.db.Exec("DROP TRIGGER i3_resolved_once_i4_alive ON reservations")
	d.db.Exec("DROP TRIGGER i8_movement_is_right ON stock_movements")
	d.db.Exec("DROP TRIGGER i8_total_moves ON inventory")
	d.db.Exec("DROP INDEX stock_movements_by_line")
	d.db.Exec("DROP TRIGGER i3_payment_is_final ON hold_payments")
	d.db.Exec("DROP INDEX hold_payments_paid")
	d.db.Exec("ALTER TABLE replacements DROP CONSTRAINT replacements_pkey")
}

func mutate(function, old, replacement string) func(*deployment) {
	return func(d *deployment) { pgtest.Mutate(d.t, d.db.Database, function, old, replacement) }
}

// asOfTheNewest lets a count as of a movement forget what moved since.
var asOfTheNewest = mutate("total_after", "AND m.seq = _seq;\n    IF NOT FOUND",
	"AND m.seq >= _seq ORDER BY m.seq DESC LIMIT 1;\n    IF NOT FOUND")

func combine(changes ...func(*deployment)) func(*deployment) {
	return func(d *deployment) {
		for _, change := range changes {
			change(d)
		}
	}
}

var controls = []control{
	{
		name: "confirm without its status guard",
		guard: combine(dropSchemaGuards, mutate("resolve_hold", "AND status::text = 'PENDING' ",
			"AND EXISTS (SELECT FROM reservations l WHERE l.id = _id AND l.status = 'PENDING') ")),
	},
	{
		name: "cart without its lock order",
		guard: combine(
			func(d *deployment) {
				d.db.Exec(`DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', current_database());
END $$`)
			},
			mutate("reserve_cart", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
				"ORDER BY random() FOR NO KEY UPDATE"),
			mutate("take_units", "ORDER BY i.product_id, i.warehouse_id FOR NO KEY UPDATE",
				"ORDER BY random() FOR NO KEY UPDATE")),
		deadlocks: true, quick: true,
	},
	{
		name: "extend by the clock of the transaction's start",
		guard: combine(dropSchemaGuards,
			mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "_now := now();")),
		attack: lateExtend, quick: true,
	},
	{
		name: "confirm by the clock of the transaction's start",
		guard: combine(dropSchemaGuards,
			mutate("resolve_hold", "_now := clock_timestamp();", "_now := now();"),
			mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "now() < _hold.expires_at")),
		attack: lateConfirm, quick: true,
	},
	{
		name: "sweep without its status guard",
		guard: combine(dropSchemaGuards,
			mutate("sweep_holds", "FOR NO KEY UPDATE SKIP LOCKED", ""),
			mutate("sweep_holds", "AND r.status::text = 'PENDING' AND r.expires_at - _now <= '0'",
				"")),
		quick: true,
	},
	{
		name: "reclaim that leaves the line counted",
		guard: combine(dropSchemaGuards,
			mutate("reclaim_lines", "UPDATE reservation_items l SET counted = false",
				"UPDATE reservation_items l SET counted = true"),
			mutate("uncount_lines", "AND l.counted", "AND true")),
	},
	{
		name: "movement without its lock",
		guard: combine(dropSchemaGuards, mutate("try_to_move",
			"WHERE i.product_id = _wanted.product_id AND i.warehouse_id = _wanted.warehouse_id\n"+
				"    FOR NO KEY UPDATE;",
			"WHERE i.product_id = _wanted.product_id AND i.warehouse_id = _wanted.warehouse_id;")),
		attack: documents, quick: true,
	},
	{
		name: "movement that ignores what is held",
		guard: combine(dropSchemaGuards,
			mutate("try_to_move", "IF _look.total < _lowest AND NOT _clamp THEN", "IF false THEN"),
			mutate("try_to_move", "greatest(_look.total, _lowest)", "_look.reserved"),
			mutate("try_to_move", "IF _total < _lowest AND (", "IF false AND ("),
			mutate("try_to_move", "total = greatest(_total, _lowest)", "total = _total")),
		attack: documents, quick: true,
	},
	{
		name: "document that is applied again",
		guard: combine(dropSchemaGuards,
			mutate("move_line", "AND m.line = _wanted.line;", "AND m.line = -1;")),
		attack: documents, quick: true,
	},
	{
		name:   "count as of a movement that forgets what was sold since",
		guard:  combine(dropSchemaGuards, asOfTheNewest),
		attack: documents, quick: true,
	},
	{
		name: "payment that takes units anew without the hold's lock",
		guard: combine(dropSchemaGuards,
			mutate("settle_payment", "lock_hold(_id)", "stored_row(_id)")),
		attack: latePayments, quick: true,
	},
	{
		name: "lost payment that is looked at again",
		guard: combine(dropSchemaGuards,
			mutate("settle_payment", "_mine.outcome = 'LOST'", "false")),
		attack: latePayments, quick: true,
	},
	{
		name: "owner's limit without its lock",
		guard: combine(dropSchemaGuards,
			mutate("lock_owner", "pg_advisory_xact_lock(", "pg_try_advisory_xact_lock(")),
		attack: ownersMeet, quick: true,
	},
	{
		name: "release that ignores the payment under way",
		guard: combine(dropSchemaGuards, mutate("resolve_hold",
			"AND (NOT paying OR _to::text = 'CONFIRMED' OR _cause = 'o')", "")),
		attack: underWay, quick: true,
	},
	{
		name: "replacement of a hold that is being paid",
		guard: combine(dropSchemaGuards,
			mutate("judge_replaced", "WHEN _old.paying THEN 'PAYMENT_STARTED'", ""),
			mutate("release_replaced", "AND NOT paying", "")),
		attack: underWay, quick: true,
	},
}

// TestHistoryCheckFindsEachRemovedGuard removes one guard after another: the same callers and the
// same check must find it. With -short it tries the controls that one short history finds.
func TestHistoryCheckFindsEachRemovedGuard(t *testing.T) {
	const budget = 3 * time.Minute // most are found in a few rounds of three seconds
	for n, c := range controls {
		if testing.Short() && !c.quick {
			continue
		}
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
					t.Logf("found: %t; %s", found, v)
				})
			}
			if !found {
				t.Errorf("the removed guard was not found within %s", budget)
			}
		})
	}
}
