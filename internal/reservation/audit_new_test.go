package reservation_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// sinceLongAgo makes the next audit look at all keys, returns and new ids, whenever they were made.
// Otherwise it begins where the tests' databases were migrated, moments ago.
func (f *fixture) sinceLongAgo() {
	f.t.Helper()
	f.Exec("UPDATE audit_state SET since = since - interval '1 day' WHERE kind = 'NEW'")
}

// sinceNow makes everything that was written by now old for the next audit. Holds of the last hour
// are still new by their ids.
func (f *fixture) sinceNow() {
	f.t.Helper()
	f.Exec(`
UPDATE audit_state SET since = clock_timestamp(), seen = pg_current_snapshot() WHERE kind = 'NEW'`)
}

// mustAuditNew fails unless an audit of what is new finds nothing.
func (f *fixture) mustAuditNew() {
	f.t.Helper()
	violations, err := newService(f.own).AuditNew(f.Context())
	if err != nil || len(violations) != 0 {
		f.t.Errorf("AuditNew() = %v, %v, want none", violations, err)
	}
}

// mustAuditFull runs a full audit in one call, and returns what it found.
func (f *fixture) mustAuditFull() []reservation.Violation {
	f.t.Helper()
	audit, err := newService(f.own).AuditFull(f.Context())
	if err != nil || !audit.Complete || len(audit.Found) != audit.All {
		f.t.Errorf("AuditFull() = %+v, %v, want a complete audit", audit, err)
	}
	return audit.Found
}

// open counts the stock rows that aren't closed at their newest movement.
func (f *fixture) open() int {
	f.t.Helper()
	return queryOne[int](f, `
SELECT count(*) FROM inventory i LEFT JOIN stock_closings c USING (product_id, warehouse_id)
WHERE (c.seq, c.total) IS DISTINCT FROM (i.seq, i.total)`)
}

// wantPromises fails unless each of the promises is among the violations.
func wantPromises(t *testing.T, what string, found []reservation.Violation, promises []string) {
	t.Helper()
	r := report{found: found}
	for _, promise := range promises {
		if !slices.Contains(r.broken(), promise) {
			t.Errorf("%s finds %v broken, want %s among them:%s", what, r.broken(), promise, &r)
		}
	}
}

// notByNew are the promises that only a closing shows, or only a full audit.
var notByNew = map[string]string{
	"a stock row with holds and movements is deleted": "I8", // it had no closing yet
}

func TestAuditNewFindsEachCorruption(t *testing.T) {
	t.Parallel()

	for name, c := range corruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newAuditShop(t)
			shop.sinceLongAgo()
			shop.plant(c)
			s := newService(shop.own)
			promises := slices.DeleteFunc(slices.Clone(c.promises),
				func(p string) bool { return p == notByNew[name] })
			for range 2 { // it is found until it is repaired
				violations, err := s.AuditNew(t.Context())
				if err != nil {
					t.Fatalf("AuditNew() = %v", err)
				}
				wantPromises(t, "AuditNew()", violations, promises)
			}
		})
	}
}

// behind are the corruptions that no audit of what is new can find, once an audit has closed the
// stock rows.
var behind = map[string]bool{
	"a movement has another delta":      true,
	"a movement leads to another total": true,
	"the first movement is missing":     true,
	"a movement is missing":             true,
}

// sampled are those of which it finds the one or the other promise only in its sample.
var sampled = map[string]bool{
	"a confirmed hold becomes PENDING":         true,
	"a hold was confirmed after its end":       true,
	"the hold of a key is deleted":             true,
	"a hold expired before its end":            true,
	"the quantity of a confirmed hold changes": true,
	"a released hold becomes CONFIRMED":        true,
	"a sale becomes an adjustment":             true,
	"the newest movement is missing":           true,
	"a confirmed hold becomes RELEASED":        true,
}

func TestAFullAuditFindsEachCorruptionBehindAClosing(t *testing.T) {
	t.Parallel()

	for name, c := range corruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newAuditShop(t)
			shop.mustAuditNew()
			if n := shop.open(); n != 0 {
				t.Fatalf("after an audit %d stock rows aren't closed, want 0", n)
			}
			shop.sinceNow()
			shop.plant(c)

			violations, err := newService(shop.own).AuditNew(t.Context())
			if err != nil {
				t.Fatalf("AuditNew() = %v", err)
			}
			switch {
			case behind[name] && len(violations) != 0:
				t.Errorf("AuditNew() = %v, want only a full audit to find it", violations)
			case !behind[name] && !sampled[name]:
				wantPromises(t, "AuditNew()", violations, c.promises)
			}
			wantPromises(t, "AuditFull()", shop.mustAuditFull(), c.promises)
		})
	}
}

// An audit closes the rows that it verified, and no others.
func TestARowWithAViolationIsNotClosed(t *testing.T) {
	t.Parallel()

	shop := newAuditShop(t)
	shop.plant(corruptions["a movement has another delta"])
	s := newService(shop.own)
	for range 2 {
		violations, err := s.AuditNew(t.Context())
		if err != nil || len(violations) != 1 {
			t.Errorf("AuditNew() = %v, %v, want the wrong movement", violations, err)
		}
		if n := shop.open(); n != 1 {
			t.Errorf("%d stock rows aren't closed, want the one with the wrong movement", n)
		}
	}
	shop.corrupt("", "UPDATE stock_movements SET delta = delta - 1 WHERE seq = 2 AND product_id = $1",
		shop.row.ProductID.String())
	shop.mustAuditNew()
	if n := shop.open(); n != 0 {
		t.Errorf("after the repair %d stock rows aren't closed, want 0", n)
	}
}

func TestAuditNewReportsAtMostTwentyRowsThatItCanNotClose(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	for range 30 {
		f.movements(f.stock(5), 2)
	}
	f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay")
	f.Exec("UPDATE stock_movements SET delta = 2 WHERE seq = 2")
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER i8_movements_stay")
	violations, err := newService(f.own).AuditNew(f.Context())
	if err != nil || len(violations) != 20 || f.open() != 30 {
		t.Errorf("AuditNew() = %d violations, %v, and %d rows are open, want 20 and all 30",
			len(violations), err, f.open())
	}
}

// A row with more movements than one statement verifies is closed in steps.
func TestAuditNewVerifiesAHotRowInSteps(t *testing.T) {
	t.Parallel()

	const n = 25_000
	f := newFixture(t, 0)
	row, quiet := f.stock(0), f.stock(7)
	f.movements(row, n)
	f.mustAuditNew()
	if open := f.open(); open != 0 {
		t.Errorf("%d stock rows aren't closed, want 0", open)
	}
	for _, seq := range []int{2, 10_000, 10_001, 20_001, n} {
		f.Exec("DELETE FROM stock_closings WHERE product_id = $1", row.ProductID.String())
		wrong := func(delta int) {
			f.Exec("ALTER TABLE stock_movements DISABLE TRIGGER i8_movements_stay")
			f.Exec("UPDATE stock_movements SET delta = $1 WHERE seq = $2 AND product_id = $3", delta,
				seq, row.ProductID.String())
			f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER i8_movements_stay")
		}
		wrong(2)
		violations, err := newService(f.own).AuditNew(f.Context())
		wrong(1)
		if err != nil || len(violations) != 1 || violations[0].Promise != "I8" {
			t.Errorf("AuditNew() = %v, %v, want movement %d found", violations, err, seq)
		}
	}
	f.mustAuditNew()
	if got := queryOne[int](f, "SELECT seq FROM stock_closings WHERE product_id = $1",
		quiet.ProductID.String()); got != 1 {
		t.Errorf("the other row is closed at movement %d, want 1", got)
	}
}

// movements gives a stock row movements of one unit each, up to number n, and lets them be changed.
func (f *fixture) movements(row reservation.Line, n int) {
	f.t.Helper()
	for _, disable := range []string{
		"ALTER TABLE stock_movements DISABLE TRIGGER USER",
		"ALTER TABLE inventory DISABLE TRIGGER i8_total_moves",
	} {
		f.Exec(disable)
	}
	f.Exec(`
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after)
SELECT product_id, warehouse_id, n, clock_timestamp(), 'ADJUSTMENT', 1, total + n - 1
FROM inventory, generate_series(2, $1) n WHERE product_id = $2`, n, row.ProductID.String())
	f.Exec("UPDATE inventory SET seq = $1::bigint, total = total + $1 - 1 WHERE product_id = $2", n,
		row.ProductID.String())
	f.Exec("ALTER TABLE stock_movements ENABLE TRIGGER USER")
	f.Exec("ALTER TABLE inventory ENABLE TRIGGER i8_total_moves")
}

func TestAuditNewFindsATriggerThatIsSwitchedOff(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.mustAuditNew()
	for _, c := range []struct{ promise, table, trigger string }{
		{"I3", "reservations", "i3_resolved_once_i4_alive"},
		{"I8", "stock_movements", "i8_movement_is_right"},
		{"I8", "stock_movements", "i8_movements_stay"},
		{"I8", "inventory", "i8_stock_stays"},
		{"I8", "inventory", "i8_total_moves"},
		{"I3", "archived_reservations", "archive_stays"},
		{"I3", "archived_items", "archive_stays"},
		{"I3", "hold_payments", "i3_payment_is_final"},
		{"I3", "replacements", "i3_replacements_stay"},
		{"I8", "archived_movements", "archive_stays"},
		{"returns", "returns", "returned_within_sold"},
		{"catalog", "inventory", "stock_follows_catalog"},
		{"I10", "ledger", "i10_ledger_stays"},
		{"I10", "archived_ledger", "archive_stays"},
	} {
		f.Exec("ALTER TABLE " + c.table + " DISABLE TRIGGER " + c.trigger)
		found, err := newService(f.own).AuditNew(f.Context())
		if err != nil || len(found) != 1 || found[0].Promise != c.promise ||
			!strings.Contains(found[0].Detail, c.trigger) {
			t.Errorf("AuditNew() without %s = %v, %v, want %s broken", c.trigger, found, err,
				c.promise)
		}
		f.Exec("ALTER TABLE " + c.table + " ENABLE TRIGGER " + c.trigger)
	}
	f.mustAuditNew()
}

// tryToClose calls close_stock for the one stock row.
func (f *fixture) tryToClose(closed, seq, total int) {
	f.t.Helper()
	f.Exec(`
SELECT close_stock(array_agg(product_id), array_agg(warehouse_id), ARRAY[$1::bigint],
                   ARRAY[$2::bigint], ARRAY[$3::integer]) FROM inventory`, closed, seq, total)
}

func (f *fixture) closedAt() int {
	f.t.Helper()
	return queryOne[int](f, "SELECT coalesce(max(seq), 0) FROM stock_closings")
}

// An audit that read an older state, or began further on, can't close.
func TestAClosingOnlyMovesForwardFromWhereAnAuditBegan(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		closed, seq, total int
		guard, without     string
	}{
		"an older movement": {0, 5, 4, "WHERE c.seq < excluded.seq", "WHERE true"},
		"movements between that nobody verified": {
			15, 20, 19, "coalesce(b.seq, 0) >= k.closed", "true",
		},
		"a movement that this server doesn't have": {
			10, 31, 30, "AND EXISTS (", "OR EXISTS (SELECT) OR EXISTS (",
		},
		"a movement with another total": {10, 20, 20, "AND m.total_after = k.total", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			f.movements(f.stock(0), 30)
			f.tryToClose(0, 10, 9)
			f.tryToClose(c.closed, c.seq, c.total)
			if got := f.closedAt(); got != 10 {
				t.Errorf("the row is closed at movement %d, want 10", got)
			}
			f.mutate("close_stock", c.guard, c.without)
			f.tryToClose(c.closed, c.seq, c.total)
			if got := f.closedAt(); got != c.seq {
				t.Errorf("without the guard the row is closed at movement %d, want %d", got, c.seq)
			}
		})
	}
}

// The parts of both audits read the keys after the stock rows and before the holds. lockKeys makes
// an audit wait there.
func (f *fixture) lockKeys() (unlock func()) {
	f.t.Helper()
	return f.Lock("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
}

// interruptions end an audit that waits for a lock.
var interruptions = map[string]func(f *fixture, cancel context.CancelFunc){
	"its deadline": func(_ *fixture, cancel context.CancelFunc) { cancel() },
	"the end of its session": func(f *fixture, _ context.CancelFunc) {
		f.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	},
}

// cutAtKeys runs an audit until it reads the keys, and interrupts it there.
func cutAtKeys(
	f *fixture, interrupt func(*fixture, context.CancelFunc), audit func(context.Context),
) {
	f.t.Helper()
	unlock := f.lockKeys()
	defer unlock()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	together(2, func(i int) {
		if i == 0 {
			audit(ctx)
			return
		}
		if err := pgtest.Wait(f.Context(), f.Admin, waitingSQL, 1); err != nil {
			f.t.Error(err)
		}
		interrupt(f, cancel)
	})
}

// plantTwo breaks a promise before the keys, and one behind them.
func (shop auditShop) plantTwo() {
	shop.t.Helper()
	shop.plant(corruptions["reserved is off by one"])
	shop.plant(corruptions["a hold was confirmed after its end"])
}

func TestAFullAuditGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	for name, interrupt := range interruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop := newAuditShop(t)
			shop.plantTwo()
			s := newService(shop.own)
			var first reservation.FullAudit
			cutAtKeys(shop.fixture, interrupt, func(ctx context.Context) {
				first, _ = s.AuditFull(ctx)
			})
			if underWay, err := s.FullAuditUnderWay(t.Context()); err != nil || !underWay {
				t.Errorf("FullAuditUnderWay() = %t, %v, want true", underWay, err)
			}
			second, err := s.AuditFull(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r1, r2 := report{found: first.Found}, report{found: second.Found}
			if first.Complete || !slices.Equal(r1.broken(), []string{"I2"}) || len(first.Found) != 1 {
				t.Errorf("the first run = %+v, want I2 once", first)
			}
			if !second.Complete || !slices.Equal(r2.broken(), []string{"I10", "I4"}) ||
				second.All != 3 || len(second.First) != 3 {
				t.Errorf("the second run = %+v, want I4 and I10 once, and three violations in all",
					second)
			}
			if underWay, err := s.FullAuditUnderWay(t.Context()); err != nil || underWay {
				t.Errorf("afterwards FullAuditUnderWay() = %t, %v, want false", underWay, err)
			}
		})
	}
}

// The end of the audit that was cut off finds what it would have found, and a whole audit follows.
func TestAnAuditOfWhatIsNewGoesOnWhereItWasCutOff(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	shop := newAuditShop(t)
	shop.sinceLongAgo()
	since := func() time.Time {
		return queryOne[time.Time](shop.fixture, "SELECT since FROM audit_state WHERE kind = 'NEW'")
	}
	before := since()
	s := newService(shop.own)
	cutAtKeys(shop.fixture, interruptions["its deadline"], func(ctx context.Context) {
		if found, err := s.AuditNew(ctx); err == nil || len(found) != 0 {
			t.Errorf("AuditNew() = %v, %v, want it cut off", found, err)
		}
	})
	if part := queryOne[string](shop.fixture,
		"SELECT part FROM audit_state WHERE kind = 'NEW'"); part != "keys" {
		t.Errorf("it goes on with the part %q, want the keys", part)
	}
	if got := since(); !got.Equal(before) {
		t.Errorf("since the cut holds count as new since %s, want %s", got, before)
	}
	shop.plantTwo()
	violations, err := s.AuditNew(t.Context())
	r := report{found: violations}
	if err != nil || !slices.Equal(r.broken(), []string{"I10", "I2", "I4"}) {
		t.Errorf("AuditNew() = %v, %v, want the violations of all three", violations, err)
	}
	if got := since(); !got.Equal(before) {
		t.Errorf("after violations holds count as new since %s, want %s", got, before)
	}
}

// bothBeginTogether lets two full audits begin one run, and returns what both found.
func bothBeginTogether(f *fixture) (found []reservation.Violation, complete int) {
	f.t.Helper()
	unlock := f.Lock("LOCK TABLE inventory IN ACCESS EXCLUSIVE MODE")
	services := f.services()
	audits := make([]reservation.FullAudit, len(services))
	var errs [3]error
	together(len(services)+1, func(i int) {
		if i < len(services) {
			audits[i], errs[i] = services[i].AuditFull(f.Context())
			return
		}
		errs[i] = pgtest.Wait(f.Context(), f.Admin, waitingSQL, len(services))
		unlock()
	})
	for _, a := range audits {
		found = append(found, a.Found...)
		if a.Complete {
			complete++
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		f.t.Fatal(err)
	}
	return found, complete
}

func TestTwoFullAuditsReadEachSliceOnce(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 2)
	for range 3 {
		row := f.stock(5)
		f.Exec("UPDATE inventory SET reserved = 1 WHERE product_id = $1", row.ProductID.String())
	}
	if found, complete := bothBeginTogether(f); len(found) != 3 || complete != 1 {
		t.Errorf("two audits found %v, %d complete, want each violation once", found, complete)
	}

	f.mutate("pass_slice", "AND a.part = _part AND a.after = _after", "")
	if found, _ := bothBeginTogether(f); len(found) != 6 {
		t.Errorf("without the guard two audits found %v, want each violation twice", found)
	}
}

// endTogether lets two full audits end one run together, which has found two violations. It returns
// the answers that say that the run is complete.
func endTogether(f *fixture) (complete []reservation.FullAudit) {
	f.t.Helper()
	f.Exec(`
UPDATE audit_state SET began = clock_timestamp(), part = 'end', violations = 2 WHERE kind = 'FULL'`)
	unlock := f.Lock("SELECT FROM audit_state WHERE kind = 'FULL' FOR UPDATE")
	services := f.services()
	audits := make([]reservation.FullAudit, len(services))
	var errs [3]error
	together(len(services)+1, func(i int) {
		if i < len(services) {
			audits[i], errs[i] = services[i].AuditFull(f.Context())
			return
		}
		errs[i] = pgtest.Wait(f.Context(), f.Admin, waitingSQL, len(services))
		unlock()
	})
	for _, a := range audits {
		if a.Complete {
			complete = append(complete, a)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		f.t.Fatal(err)
	}
	return complete
}

// A full audit is complete once. A call that says so too, and has no violations, would clear what
// the other one found.
func TestOneOfTwoFullAuditsEndsTheRun(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 2)
	if complete := endTogether(f); len(complete) != 1 || complete[0].All != 2 {
		t.Errorf("the audits are complete with %+v, want one of them with 2 violations", complete)
	}
	f.mutate("end_audit", "AND a.run = _run AND a.began IS NOT NULL", "AND a.run = _run")
	if complete := endTogether(f); len(complete) != 2 {
		t.Errorf("without the guard the audits are complete with %+v, want both", complete)
	}
}

// raceOfAudits lets callers reserve, confirm, release and adjust while two audits of what is new
// and a full one run, again and again.
func raceOfAudits(ctx context.Context, f *fixture, r *report) {
	const turns = 40
	services := f.services()
	rows := f.stocks(10_000, 10_000)
	var working atomic.Int64
	working.Store(int64(len(services) - 3))
	together(len(services), func(i int) {
		s := services[i]
		if i < 3 {
			for working.Load() > 0 {
				var found []reservation.Violation
				var err error
				if i == 0 {
					var audit reservation.FullAudit
					audit, err = s.AuditFull(ctx)
					found = audit.Found
				} else {
					found, err = s.AuditNew(ctx)
				}
				r.check(err == nil && len(found) == 0, "audit", "%v, %v", found, err)
			}
			return
		}
		defer working.Add(-1)
		for n := range turns {
			err := f.adjust(ctx, rows[n%2], 1)
			r.check(err == nil, "error", "adjust: %v", err)
			answer, err := s.Reserve(ctx, reservation.Request{
				Lines: rows[:1+n%2], Key: uuid.NewString(),
			})
			if err == nil && n%3 > 0 {
				_, err = s.Confirm(ctx, answer.Hold.ID, "")
			} else if err == nil {
				_, err = s.Release(ctx, answer.Hold.ID, "")
			}
			r.check(err == nil, "error", "caller %d: %v", i, err)
		}
	})
	found, err := services[0].AuditNew(ctx)
	r.check(err == nil && len(found) == 0, "audit", "at the end %v, %v", found, err)
	r.check(f.open() == 0, "audit", "%d rows are open after an audit", f.open())
}

func TestAuditsFindNothingBesideCallers(t *testing.T) {
	t.Parallel()

	mustHold(t, 7, raceOfAudits)
}

// A confirm after an extension and a jump of the clock back has a time after its sale's.
func TestAJumpBetweenAnExtensionAndTheConfirmBreaksNothing(t *testing.T) {
	t.Parallel()

	shop := newAuditShop(t)
	shop.corrupt("", `
UPDATE reservations SET updated_at = updated_at + interval '1 h',
       expires_at = expires_at + interval '1 h' WHERE id = $1`, shop.confirmed.ID.String())
	shop.corrupt("", `
UPDATE ledger SET at = at + interval '1 h', expires_at = expires_at + interval '1 h'
WHERE hold_id = $1 AND version = 2`, shop.confirmed.ID.String())
	shop.corrupt("", `
UPDATE ledger SET expires_at = expires_at + interval '1 h'
WHERE hold_id = $1 AND version = 1`, shop.confirmed.ID.String())
	shop.mustAudit(t)
	shop.mustAuditNew()

	// A second sale of the hold is found, also at this other time.
	shop.corrupt("", `
INSERT INTO stock_movements (product_id, warehouse_id, seq, at, kind, delta, total_after,
                             reservation_id)
SELECT product_id, warehouse_id, seq + 1, at, 'SALE', delta, total_after + delta, reservation_id
FROM stock_movements WHERE reservation_id = $1`, shop.confirmed.ID.String())
	shop.corrupt("", "UPDATE inventory SET seq = seq + 1, total = total - 1 WHERE product_id = $1",
		shop.row.ProductID.String())
	violations, err := newService(shop.own).AuditNew(t.Context())
	if err != nil || len(violations) == 0 || !strings.Contains(violations[0].Detail, "2 sales") {
		t.Errorf("AuditNew() = %v, %v, want the second sale", violations, err)
	}
	wantBroken(t, shop.own, "I8")
}

// An audit that reads a server which lags behind finds nothing wrong with what it hasn't got, and
// moves no closing back.
func TestAuditNewReadsOnAReaderThatLags(t *testing.T) {
	t.Parallel()

	primary, db := pgtest.NewServer(t, nil)
	u, err := url.Parse(db.DirectURL)
	if err != nil {
		t.Fatal(err)
	}
	_, followed := pgtest.NewStandby(t, primary, db, u.Host)
	f, reader := open(t, db, 0), open(t, followed, 0)
	s := reservation.New(f.own,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Reader: reader.asReader()})
	row := f.stock(50)
	sell := func() {
		t.Helper()
		if _, err := s.Confirm(f.Context(), f.hold(row).ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	wantClosed := func(what string, want int) {
		t.Helper()
		written := queryOne[string](f, "SELECT pg_current_wal_insert_lsn()::text")
		if queryOne[bool](reader, "SELECT NOT pg_is_wal_replay_paused()") {
			reader.WaitUntil("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
		}
		found, err := s.AuditNew(f.Context())
		if err != nil || len(found) != 0 {
			t.Errorf("%s AuditNew() = %v, %v, want nothing", what, found, err)
		}
		if got := f.closedAt(); got != want {
			t.Errorf("%s the row is closed at movement %d, want %d", what, got, want)
		}
	}

	sell()
	wantClosed("at first", 2)
	reader.Exec("SELECT pg_wal_replay_pause()")
	reader.WaitUntil("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	sell()
	wantClosed("while the reader stands still", 2)
	if found, err := newService(f.own).AuditNew(f.Context()); err != nil || len(found) != 0 {
		t.Errorf("AuditNew() on the writer = %v, %v, want nothing", found, err)
	}
	wantClosed("after an audit of the writer", 3)
	reader.Exec("SELECT pg_wal_replay_resume()")
	sell()
	wantClosed("when the reader has followed", 4)
}
