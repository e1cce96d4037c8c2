package reservation_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/reservation"
)

// ledgerShop is an auditShop with a hold that was extended and then confirmed, so that its ledger
// has three rows.
type ledgerShop struct {
	auditShop
	extended reservation.Hold
}

func newLedgerShop(t *testing.T) ledgerShop {
	t.Helper()
	shop := newAuditShop(t)
	s := newService(shop.own)
	extended := shop.hold(shop.row)
	if _, err := s.Extend(t.Context(), extended.ID, time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Confirm(t.Context(), extended.ID, ""); err != nil {
		t.Fatal(err)
	}
	// A hold with the newest id keeps the sample of old holds away from the others.
	shop.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
SELECT 'f0000000-0000-7000-8000-000000000000', product_id, warehouse_id, 1, now(), now(),
       now() + interval '1 h', 'RELEASED'
FROM inventory LIMIT 1`)
	shop.mustAudit(t)
	return ledgerShop{shop, extended}
}

// allOld makes everything that was written by now old for the next audit, also by its ids.
func (f *fixture) allOld() {
	f.t.Helper()
	f.Exec(`
UPDATE audit_state SET since = clock_timestamp() + interval '1 day', seen = pg_current_snapshot()
WHERE kind = 'NEW'`)
}

// ledgerCorruptions break I10. $1 is a hold that was held, extended and confirmed.
var ledgerCorruptions = map[string]string{
	"the first row is missing":  "DELETE FROM ledger WHERE hold_id = $1 AND version = 1",
	"a row between is missing":  "DELETE FROM ledger WHERE hold_id = $1 AND version = 2",
	"the newest row is missing": "DELETE FROM ledger WHERE hold_id = $1 AND version = 3",
	"a row is too many": `
INSERT INTO ledger (xid, at, expires_at, hold_id, version, kind, cause)
SELECT xid, at, expires_at, hold_id, 4, kind, cause FROM ledger WHERE hold_id = $1 AND version = 3`,
	"a row has no hold": `
INSERT INTO ledger (xid, at, expires_at, hold_id, version, kind, cause)
SELECT xid, at, expires_at, '00000000-0000-7000-8000-000000000000', version, kind, cause
FROM ledger WHERE hold_id = $1 AND version = 1`,
	"the numbers have a gap":       "UPDATE ledger SET version = 4 WHERE hold_id = $1 AND version = 3",
	"the hold's version is higher": "UPDATE reservations SET version = 4 WHERE id = $1",
	"the hold's version is lower":  "UPDATE reservations SET version = 2 WHERE id = $1",
	"the hold has no version":      "UPDATE reservations SET version = 0 WHERE id = $1",
	"the kind isn't the status":    "UPDATE ledger SET kind = 'r' WHERE hold_id = $1 AND version = 3",
	"the hold is still live":       "UPDATE ledger SET kind = 'x' WHERE hold_id = $1 AND version = 3",
	"the kind is unknown":          "UPDATE ledger SET kind = 'z' WHERE hold_id = $1 AND version = 2",
	"the cause is unknown":         "UPDATE ledger SET cause = 'z' WHERE hold_id = $1 AND version = 2",
	"the hold ends twice":          "UPDATE ledger SET kind = 'c' WHERE hold_id = $1 AND version = 2",
	"it is held twice":             "UPDATE ledger SET kind = 'h' WHERE hold_id = $1 AND version = 2",
	"the newest row has another time": `
UPDATE ledger SET at = at + interval '1 us' WHERE hold_id = $1 AND version = 3`,
	"the newest row has another end": `
UPDATE ledger SET expires_at = expires_at + interval '1 us' WHERE hold_id = $1 AND version = 3`,
	"the hold has another time": `
UPDATE reservations SET updated_at = updated_at + interval '1 us' WHERE id = $1`,
	"the hold has another end": `
UPDATE reservations SET expires_at = expires_at + interval '1 us' WHERE id = $1`,
	"it was held at another time": `
UPDATE reservations SET created_at = created_at - interval '1 us' WHERE id = $1`,
	"the end changes as the hold is confirmed": `
UPDATE ledger SET expires_at = expires_at - interval '1 us' WHERE hold_id = $1 AND version = 2`,
	"the time falls": `
UPDATE ledger SET at = at - interval '1 h' WHERE hold_id = $1 AND version = 2`,
	"a time is after the end": `
UPDATE ledger SET expires_at = at WHERE hold_id = $1 AND version = 1`,
}

func TestEachAuditFindsEachCorruptionOfTheLedger(t *testing.T) {
	t.Parallel()

	for name, sql := range ledgerCorruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newLedgerShop(t)
			shop.corrupt("", sql, shop.extended.ID.String())
			s := newService(shop.own)
			wantBroken(t, shop.own, "I10")
			for range 2 { // it is found until it is repaired
				violations, err := s.AuditNew(t.Context())
				if err != nil {
					t.Fatalf("AuditNew() = %v", err)
				}
				wantPromises(t, "AuditNew()", violations, []string{"I10"})
			}
			wantPromises(t, "AuditFull()", shop.mustAuditFull(), []string{"I10"})
		})
	}
}

func TestAFullAuditFindsEachCorruptionOfTheOldLedger(t *testing.T) {
	t.Parallel()

	for name, sql := range ledgerCorruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newLedgerShop(t)
			shop.mustAuditNew()
			shop.allOld()
			shop.corrupt("", sql, shop.extended.ID.String())
			if violations, err := newService(shop.own).AuditNew(t.Context()); err != nil ||
				len(violations) != 0 {
				t.Errorf("AuditNew() = %v, %v, want only a full audit to find it", violations, err)
			}
			wantPromises(t, "AuditFull()", shop.mustAuditFull(), []string{"I10"})
		})
	}
}

// A live hold is read by each audit, however old it is.
func TestAnAuditFindsALiveHoldWithAMissingRow(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	shop.allOld()
	shop.corrupt("", "DELETE FROM ledger WHERE hold_id = $1", shop.live.ID.String())
	violations, err := newService(shop.own).AuditNew(t.Context())
	if err != nil || len(violations) != 1 || violations[0].Promise != "I10" {
		t.Errorf("AuditNew() = %v, %v, want the live hold", violations, err)
	}
}

// A release that writes no row leaves nothing that is new in the ledger. Its hold's id shows it.
func TestAnAuditFindsATransitionThatWroteNoRow(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	shop.mutate("resolve_hold",
		"INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause, actor)\n            VALUES",
		"PERFORM")
	shop.Exec("UPDATE audit_state SET seen = pg_current_snapshot() WHERE kind = 'NEW'")
	s := newService(shop.own)
	if _, err := s.Release(t.Context(), shop.live.ID, ""); err != nil {
		t.Fatal(err)
	}
	violations, err := s.AuditNew(t.Context())
	if err != nil || len(violations) != 1 || violations[0].Promise != "I10" {
		t.Errorf("AuditNew() = %v, %v, want the released hold", violations, err)
	}
}

// expireDuringAnAudit lets an audit look while a transaction that expires the dead holds is open.
// Afterwards one of these holds is wrong. It returns what the next audit finds.
func (shop ledgerShop) expireDuringAnAudit() []string {
	t := shop.t
	t.Helper()
	ctx := shop.Context()
	tx, err := shop.Admin.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(ctx, "SELECT sweep_holds(1000)"); err != nil {
		t.Fatal(err)
	}
	shop.Exec("SELECT pg_current_xact_id()") // a younger transaction ends before the older one
	shop.allOld()
	shop.mustAuditNew()
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	shop.corrupt("", "UPDATE reservations SET updated_at = updated_at + interval '1 us' WHERE id = $1",
		shop.dead.ID.String())
	violations, err := newService(shop.own).AuditNew(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := report{found: violations}
	return r.broken()
}

// An audit finds what is new by the ids of transactions, and not by their times or their order.
func TestAnAuditFindsWhatATransactionWroteThatRanDuringTheLastOne(t *testing.T) {
	t.Parallel()

	if got, want := newLedgerShop(t).expireDuringAnAudit(), []string{"I10", "I9"}; !slices.Equal(got,
		want) {
		t.Errorf("AuditNew() finds %v broken, want %v", got, want)
	}
}

func TestAnAuditMissesATransactionThatItsSnapshotForgets(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	shop.mutate("begin_audit", "next_seen = _now", `next_seen = (pg_snapshot_xmax(_now)::text || ':'
		|| pg_snapshot_xmax(_now)::text || ':')::pg_snapshot`)
	if got := shop.expireDuringAnAudit(); len(got) != 0 {
		t.Errorf("AuditNew() finds %v broken, want it to miss the hold", got)
	}
}

func TestTransactionsStopBeingNewWhenAnAuditHasLookedAtThem(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	seen := func() string {
		return queryOne[string](shop.fixture, "SELECT seen::text FROM audit_state WHERE kind = 'NEW'")
	}
	if got := seen(); got != "1:1:" {
		t.Errorf("before the first audit it is %s that was seen, want nothing", got)
	}
	shop.mustAuditNew()
	const all = `
SELECT bool_and(pg_visible_in_snapshot(l.xid, a.seen)) FROM ledger l, audit_state a
WHERE a.kind = 'NEW'`
	if !queryOne[bool](shop.fixture, all) {
		t.Errorf("after an audit it is %s that was seen, want every row", seen())
	}
	before := seen()
	shop.corrupt("", ledgerCorruptions["the hold ends twice"], shop.extended.ID.String())
	shop.Exec("UPDATE audit_state SET seen = '1:1:' WHERE kind = 'NEW'")
	if _, err := newService(shop.own).AuditNew(t.Context()); err != nil || seen() != "1:1:" {
		t.Errorf("after violations it is %s that was seen, %v, want no more than before", seen(), err)
	}
	shop.Exec("UPDATE audit_state SET seen = $1::text::pg_snapshot WHERE kind = 'NEW'", before)
}

// A database that was moved by a dump has ids that this server hasn't given out.
func TestAnAuditLooksAtEverythingOnAnotherServer(t *testing.T) {
	t.Parallel()

	for _, guarded := range []bool{true, false} {
		shop := newLedgerShop(t)
		if !guarded {
			shop.mutate("begin_audit", "pg_snapshot_xmax(a.seen) > pg_snapshot_xmax(_now)", "false")
		}
		shop.allOld()
		shop.Exec("UPDATE audit_state SET seen = '9999999999:9999999999:' WHERE kind = 'NEW'")
		shop.corrupt("", ledgerCorruptions["the hold ends twice"], shop.extended.ID.String())
		violations, err := newService(shop.own).AuditNew(t.Context())
		if err != nil || (len(violations) > 0) != guarded {
			t.Errorf("AuditNew(), guarded: %t, = %v, %v", guarded, violations, err)
		}
	}
}

// A reader that stands still doesn't have what is new, so the audit reads that on the writer.
func TestAnAuditReadsWhatIsNewOnTheWriterWhileTheReaderIsBehind(t *testing.T) {
	t.Parallel()

	f := newFollower(t)
	row := f.stock(50)
	if found, err := f.s.AuditNew(f.Context()); err != nil || len(found) != 0 {
		t.Fatalf("AuditNew() = %v, %v, want nothing", found, err)
	}
	f.followedUp()
	f.standStill()
	hold := f.hold(row)
	if _, err := newService(f.own).Release(f.Context(), hold.ID, ""); err != nil {
		t.Fatal(err)
	}
	shop := auditShop{fixture: f.fixture}
	shop.corrupt("", "UPDATE ledger SET cause = 'z' WHERE hold_id = $1 AND version = 2",
		hold.ID.String())
	found, err := f.s.AuditNew(f.Context())
	if err != nil || len(found) == 0 || found[0].Promise != "I10" {
		t.Errorf("AuditNew() = %v, %v, want the row with another cause", found, err)
	}
}

// rebase_stream gives rows the id 3. Then the sales of a hold aren't found by it.
func TestAuditFindsTheSalesOfARebasedLedger(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	shop.unguarded("UPDATE ledger SET xid = '3'", "UPDATE stock_movements SET xid = '3'")
	shop.mustAudit(t)
	shop.corrupt("", "UPDATE stock_movements SET kind = 'ADJUSTMENT' WHERE reservation_id = $1",
		shop.extended.ID.String())
	wantBroken(t, shop.own, "I8")
}

// After a rebase most rows of the ledger have one id, so that they are all in one slice. The audit
// of what is new leaves them to a full audit. The control lets it read them, also when it was cut
// off before.
func TestAnAuditAfterARebaseReadsWhatIsWrittenSince(t *testing.T) {
	t.Parallel()

	const old = `
SELECT count(*) FROM ledger WHERE pg_visible_in_snapshot(xid, (
    SELECT seen FROM audit_state WHERE kind = 'NEW' AND began IS NULL)) IS NOT TRUE`
	for _, guarded := range []bool{true, false} {
		shop := newLedgerShop(t)
		shop.unguarded("UPDATE ledger SET xid = '8999999999'")
		shop.Exec("UPDATE audit_state SET seen = '9000000000:9000000000:'")
		shop.corrupt("", "UPDATE ledger SET cause = 'z' WHERE hold_id = $1 AND version = 1",
			shop.extended.ID.String())
		if !guarded {
			shop.mutate("rebase_stream", "after = '', seen = _this WHERE", "after = '' WHERE")
		}
		shop.Exec("SELECT begin_audit('NEW')")
		shop.Exec("SELECT rebase_stream()")
		if n := queryOne[int](shop.fixture, old); (n == 0) != guarded {
			t.Errorf("guarded %t: the next audit reads %d rows from before", guarded, n)
		}
		if !guarded {
			continue
		}
		full, err := newService(shop.own).AuditFull(t.Context())
		if err != nil || full.All == 0 {
			t.Errorf("AuditFull() = %+v, %v, want the row with another cause", full, err)
		}
		shop.corrupt("", "UPDATE ledger SET cause = 'v' WHERE cause = 'z'")
		hold := shop.hold(shop.stock(5))
		if _, err := newService(shop.own).Release(t.Context(), hold.ID, ""); err != nil {
			t.Fatal(err)
		}
		shop.corrupt("", "UPDATE ledger SET cause = 'z' WHERE hold_id = $1 AND version = 2",
			hold.ID.String())
		found, err := newService(shop.own).AuditNew(t.Context())
		if err != nil || len(found) == 0 || found[0].Promise != "I10" {
			t.Errorf("AuditNew() = %v, %v, want the new row with another cause", found, err)
		}
	}
}

// Each guard of the ledger refuses a change. Without it the change is made, and the audit finds it.
func TestTheSchemaKeepsTheLedger(t *testing.T) {
	t.Parallel()

	const live = " WHERE status = 'PENDING' AND expires_at > clock_timestamp()"
	for name, c := range map[string]struct{ sql, routine, guard, without string }{
		"a version is left out": {
			"UPDATE reservations SET version = version + 2" + live, "refuse_change_of_hold",
			"IF new.version = old.version + 1 AND", "IF new.version > old.version AND",
		},
		"a version is taken back": {
			"UPDATE reservations SET version = version - 1" + live, "refuse_change_of_hold",
			"IF new.version = old.version + 1 AND", "IF new.version < old.version AND",
		},
		"a time falls": {
			"UPDATE reservations SET version = version + 1, " +
				"updated_at = updated_at - interval '1 us'" + live, "refuse_change_of_hold",
			"AND new.updated_at >= old.updated_at", "",
		},
		"the beginning changes": {
			"UPDATE reservations SET version = version + 1, " +
				"created_at = created_at - interval '1 us'" + live, "refuse_change_of_hold",
			"AND new.created_at = old.created_at", "",
		},
		"a version stays": {
			"UPDATE reservations SET expires_at = expires_at + interval '1 s'" + live +
				" AND product_id IS NOT NULL", "refuse_change_of_hold",
			"\n                    AND l.xid = pg_current_xact_id()", "",
		},
		"a row changes later": {
			"UPDATE ledger SET at = at - interval '1 us' WHERE kind = 'h'", "refuse_change_of_ledger",
			"old.xid = pg_current_xact_id() AND", "",
		},
		"a row gets another kind": {
			"BEGIN; UPDATE ledger SET kind = 'r' WHERE kind = 'c'; COMMIT", "refuse_change_of_ledger",
			"tg_op = 'UPDATE' AND old.xid = pg_current_xact_id() AND new.xid = old.xid\n" +
				"       AND (new.hold_id, new.version, new.kind) = (old.hold_id, old.version, old.kind)",
			"tg_op = 'UPDATE'",
		},
		"a row is deleted": {
			"DELETE FROM ledger WHERE kind = 'r'", "refuse_change_of_ledger",
			"tg_op = 'DELETE' AND EXISTS (", "tg_op = 'DELETE' OR EXISTS (",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newLedgerShop(t)
			_, err := shop.Admin.Exec(t.Context(), c.sql)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "23514" {
				t.Errorf("%s = %v, want a check_violation", c.sql, err)
			}
			shop.mustAudit(t)
			shop.mutate(c.routine, c.guard, c.without)
			shop.Exec(c.sql)
			wantBroken(t, shop.own, "I10")
		})
	}
}

// restart_hold moves the row that its own transaction wrote, and no other column of it.
func TestARowOfTheLedgerMovesInItsOwnTransaction(t *testing.T) {
	t.Parallel()

	shop := newLedgerShop(t)
	for change, want := range map[string]bool{
		"at = at + interval '1 us', expires_at = expires_at + interval '1 us'": true,
		"kind = 'x'":                  false,
		"version = 7":                 false,
		"hold_id = gen_random_uuid()": false,
		"xid = '7'":                   false,
	} {
		_, err := shop.Admin.Exec(t.Context(), `
BEGIN;
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT now(), now(), 'f0000000-0000-7000-8000-000000000000', 1, 'r', 'v';
UPDATE ledger SET `+change+` WHERE hold_id = 'f0000000-0000-7000-8000-000000000000';
ROLLBACK`)
		if (err == nil) != want {
			t.Errorf("UPDATE ledger SET %s = %v, want it done: %t", change, err, want)
		}
	}
	shop.mustAudit(t)
}
