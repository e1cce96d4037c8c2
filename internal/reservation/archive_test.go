package reservation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

const (
	retention = 40 * 24 * time.Hour
	// old is the age of an aged hold: its month is long over.
	old = 100 * 24 * time.Hour
)

// archiver makes a Service whose sweep archives.
func archiver(pool *postgres.Pool) *reservation.Service {
	return reservation.New(pool,
		reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold, Retention: retention})
}

// unguarded runs statements in a transaction without triggers and foreign keys.
func (f *fixture) unguarded(sql ...string) {
	f.t.Helper()
	ctx := f.Context()
	err := pgx.BeginFunc(ctx, f.Admin, func(tx pgx.Tx) error {
		for _, statement := range append([]string{"SET LOCAL session_replication_role = replica"},
			sql...) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// age makes everything that is resolved by now, and all movements, older, and closes the stock
// rows.
func (f *fixture) age(by time.Duration) {
	f.t.Helper()
	const shift = "- interval '%d s'"
	ago := fmt.Sprintf(shift, int(by.Seconds()))
	f.unguarded(
		strings.ReplaceAll(`
UPDATE reservation_items l SET expires_at = l.expires_at AGO
FROM reservations r WHERE r.id = l.reservation_id AND r.status <> 'PENDING'`, "AGO", ago),
		strings.ReplaceAll(`
UPDATE reservations SET created_at = created_at AGO, updated_at = updated_at AGO,
                        expires_at = expires_at AGO
WHERE status <> 'PENDING'`, "AGO", ago),
		pgtest.MoveLedgerSQL, "UPDATE stock_movements SET at = at "+ago)
	f.closeStock()
}

// closeStock closes each stock row at its newest movement, as an audit does.
func (f *fixture) closeStock() {
	f.t.Helper()
	f.Exec(`
INSERT INTO stock_closings (product_id, warehouse_id, seq, total, at)
SELECT product_id, warehouse_id, seq, total, clock_timestamp() FROM inventory
ON CONFLICT (product_id, warehouse_id) DO UPDATE SET seq = excluded.seq, total = excluded.total`)
}

// mustArchive sweeps and fails unless the sweep archives so many holds and movements.
func (f *fixture) mustArchive(holds, movements int64) {
	f.t.Helper()
	result, err := archiver(f.own).Sweep(f.Context())
	if err != nil || result.Archived != holds || result.ArchivedMoves != movements {
		f.t.Fatalf("Sweep() = %+v, %v, want %d holds and %d movements archived", result, err, holds,
			movements)
	}
}

// archived counts the rows of the live and of the archived tables.
func (f *fixture) archived() string {
	f.t.Helper()
	return queryOne[string](f, `
SELECT concat_ws(' ',
    (SELECT count(*) FROM reservations), (SELECT count(*) FROM archived_reservations),
    (SELECT count(*) FROM reservation_items), (SELECT count(*) FROM archived_items),
    (SELECT count(*) FROM stock_movements), (SELECT count(*) FROM archived_movements),
    (SELECT count(*) FROM ledger), (SELECT count(*) FROM archived_ledger))`)
}

// resolve makes a single hold and a cart of each resolved status.
func (f *fixture) resolve(rows []reservation.Line) (holds []reservation.Hold) {
	f.t.Helper()
	s, ctx := newService(f.own), f.Context()
	for _, lines := range [][]reservation.Line{rows[:1], rows} {
		confirmed, released, expired := f.hold(lines...), f.hold(lines...), f.hold(lines...)
		_, err := s.Confirm(ctx, confirmed.ID, "")
		_, releaseErr := s.Release(ctx, released.ID, "")
		f.kill(expired)
		_, sweepErr := s.Sweep(ctx)
		if err := errors.Join(err, releaseErr, sweepErr); err != nil {
			f.t.Fatal(err)
		}
		holds = append(holds, confirmed, released, expired)
	}
	return holds
}

// answersOf is what each verb answers for a hold: its result or its error.
func answersOf(ctx context.Context, s *reservation.Service, id uuid.UUID) (answers []string) {
	view, err := s.Get(ctx, id)
	view.Now = time.Time{}
	shown, _ := json.Marshal(view) // a view can be marshalled
	answers = append(answers, fmt.Sprintf("get %s %v", shown, err))
	confirmed, err := s.Confirm(ctx, id, "")
	answers = append(answers, fmt.Sprintf("confirm %+v %v", confirmed, err))
	released, err := s.Release(ctx, id, "")
	answers = append(answers, fmt.Sprintf("release %+v %v", released, err))
	extended, err := s.Extend(ctx, id, time.Minute, "")
	return append(answers, fmt.Sprintf("extend %+v %v", extended, err))
}

func TestAnArchivedHoldAnswersAsBefore(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	rows := f.stocks(100, 100)
	holds := f.resolve(rows)
	f.age(old)
	live, young := f.hold(rows...), f.hold(rows...)
	s := f.services()[0]
	if _, err := s.Release(ctx, young.ID, ""); err != nil {
		t.Fatal(err)
	}
	var before [][]string
	for _, h := range holds {
		before = append(before, answersOf(ctx, s, h.ID))
	}

	// The stock rows have 4 and 3 movements. The first and the newest one stay.
	f.mustArchive(6, 3)

	if got, want := f.archived(), "2 6 4 6 4 3 3 12"; got != want {
		t.Errorf("the live and the archived rows are %s, want %s", got, want)
	}
	for i, h := range holds {
		if diff := cmp.Diff(before[i], answersOf(ctx, s, h.ID)); diff != "" {
			t.Errorf("the answers for the archived hold %d differ (-before +after):\n%s", i, diff)
		}
	}
	for _, h := range []reservation.Hold{live, young} {
		if view, err := s.Get(ctx, h.ID); err != nil || len(view.Hold.Lines) != 2 {
			t.Errorf("Get() of a hold that isn't old = %+v, %v, want its lines", view, err)
		}
	}
	if _, err := s.Confirm(ctx, live.ID, ""); err != nil {
		t.Errorf("Confirm() of a live hold = %v", err)
	}
	key := uuid.NewString()
	for n := range 2 {
		answer, err := s.Confirm(ctx, holds[0].ID, key)
		if err != nil || answer.Hold.Status != reservation.Confirmed || answer.Replayed != (n == 1) {
			t.Errorf("Confirm() under a key = %+v, %v, want it confirmed", answer, err)
		}
	}
	f.mustArchive(0, 0)
	f.mustAudit(t)
}

// The control shows that the audit reads the archive: without it, the key has no hold.
func TestAnArchivedHoldIsNotFoundWithoutTheArchive(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	holds := f.resolve(f.stocks(100, 100))
	f.age(old)
	f.mustArchive(6, 3)
	f.mutate("settled_hold", "answer := archived_hold(_id);", "")

	s := newService(f.own)
	if _, err := s.Get(f.Context(), holds[0].ID); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("Get() = %v, want ErrNotFound", err)
	}
	if _, err := s.Confirm(f.Context(), holds[0].ID, ""); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("Confirm() = %v, want ErrNotFound", err)
	}
}

func TestArchivingIsOffByDefaultAndNeedsThirtyDays(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	if result, err := newService(f.own).Sweep(f.Context()); err != nil || result.Archived != 0 {
		t.Errorf("Sweep() without a retention = %+v, %v, want nothing archived", result, err)
	}
	const call = "SELECT archived FROM archive_holds($1, '-infinity', 10)"
	for _, routine := range []string{
		call, "SELECT archived FROM archive_movements($1, 10, 10)",
	} {
		_, err := f.Admin.Exec(f.Context(), routine, 30*24*time.Hour-time.Second)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "23514" {
			t.Errorf("%s with less than 30 days = %v, want it refused", routine, err)
		}
	}
	f.mutate("archive_before", "interval '30 days'", "interval '29 days'")
	if n := queryOne[int](f, call, 29*24*time.Hour); n != 6 {
		t.Errorf("without the bound %d holds are archived, want 6", n)
	}
}

func TestTheArchiveIsFilledInBatches(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	row := f.stock(10_000)
	f.bulk(row, 2500, reservation.Expired)
	f.age(old)
	s := archiver(f.callers[0])

	result, err := s.Sweep(f.Context())

	// One batch finds no dead holds, one no keys, three move holds, and one finds no movements.
	want := reservation.SweepResult{Archived: 2500, Batches: 6, Looked: true}
	if diff := cmp.Diff(want, result); err != nil || diff != "" {
		t.Errorf("Sweep() differs (-want +got), %v:\n%s", err, diff)
	}
	f.mustAudit(t)
}

// A cart has many lines, so fewer carts fill a batch.
func TestABatchOfTheArchiveBoundsTheLines(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	const call = `
SELECT concat_ws(' ', archived, more) FROM archive_holds($1, '-infinity', 5)`
	for _, want := range []string{"4 t", "2 f", "0 f"} {
		if got := queryOne[string](f, call, retention); got != want {
			t.Errorf("archive_holds() = %s, want %s", got, want)
		}
	}
	f.mustAudit(t)
}

// A hold that was extended often has many rows in the ledger, so it moves alone. The control counts
// lines only.
func TestABatchOfTheArchiveBoundsTheRowsOfTheLedger(t *testing.T) {
	t.Parallel()

	const call = `
SELECT concat_ws(' ', archived, more) FROM archive_holds($1, '-infinity', 5)`
	for _, guarded := range []bool{true, false} {
		f := newFixture(t, 0)
		released := f.resolve(f.stocks(100, 100))[1].ID.String()
		f.unguarded(
			"UPDATE ledger SET version = 32 WHERE version = 2 AND hold_id = '"+released+"'",
			`
INSERT INTO ledger (at, expires_at, hold_id, version, kind, cause)
SELECT at, expires_at, hold_id, v, 'x', 'v' FROM ledger, generate_series(2, 31) v
WHERE version = 1 AND hold_id = '`+released+"'",
			"UPDATE reservations SET version = 32 WHERE id = '"+released+"'")
		f.age(old)
		want := []string{"3 t", "1 t", "2 f", "0 f"}
		if !guarded {
			f.mutate("archive_holds", "<= 4 * _limit::bigint", "IS NOT NULL")
			want = []string{"4 t", "2 f"}
		}
		for _, want := range want {
			if got := queryOne[string](f, call, retention); got != want {
				t.Errorf("guarded %t: archive_holds() = %s, want %s", guarded, got, want)
			}
		}
		f.mustAudit(t)
	}
}

func TestASweepWithWorkLeftDoesNotArchive(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	over := softDeadline{f.Context(), time.Now().Add(-time.Second)}
	if result, err := archiver(f.own).Sweep(over); err != nil || result.Archived != 0 {
		t.Errorf("Sweep() without time = %+v, %v, want nothing archived", result, err)
	}
	f.mustArchive(6, 3)
}

// sweepsThatArchive let several sweeps archive the same holds.
func sweepsThatArchive(ctx context.Context, f *fixture, r *report) {
	const holds = 3000
	row := f.stocks(holds)[0]
	f.Exec("SELECT adjust_stock(product_id, warehouse_id, 1, 'test') FROM inventory "+
		"WHERE product_id = $1", row.ProductID.String())
	f.bulk(row, holds, reservation.Expired)
	f.age(old)
	var archived atomic.Int64
	together(len(f.callers), func(i int) {
		result, err := archiver(f.callers[i]).Sweep(ctx)
		r.check(err == nil, "error", "Sweep() = %v", err)
		archived.Add(result.Archived)
	})
	// A sweep that meets another one leaves the rest to it.
	last, err := archiver(f.own).Sweep(ctx)
	r.check(err == nil && last.Archived+archived.Load() == holds, "I9",
		"the sweeps archived %d and %d holds, %v, want %d", archived.Load(), last.Archived, err, holds)
	n := queryOne[int](f, "SELECT count(*) FROM archived_reservations WHERE product_id = $1",
		row.ProductID.String())
	r.check(n == holds, "I3", "the archive has %d holds, want %d", n, holds)
	r.checkStock(f, row, counts{Total: holds + 1})
}

func TestConcurrentSweepsArchiveEachHoldOnce(t *testing.T) {
	t.Parallel()

	mustHold(t, 4, sweepsThatArchive)
}

// Without the lock, a sweep that archives holds and one that archives movements make the partitions
// of the same month.
func TestConcurrentSweepsCollideWithoutTheArchivesLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 4, "error", func(f *fixture) {
		f.mutate("archive_holds", "NOT pg_try_advisory_xact_lock(8, 0)", "false")
		f.mutate("archive_movements", "NOT pg_try_advisory_xact_lock(8, 0)", "false")
		f.mutate("make_archive_month", "INSERT INTO archived_months",
			"PERFORM pg_sleep(0.2); INSERT INTO archived_months")
	}, sweepsThatArchive)
}

// The kill comes when the holds and lines are copied and not deleted yet.
func TestAKilledSweepArchivesNothingOrABatch(t *testing.T) {
	t.Parallel()

	pgtest.WithoutPooler(t)
	f := newFixture(t, 1)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	before := f.archived()
	unlock := f.Lock("SELECT FROM reservation_items LIMIT 1 FOR UPDATE")
	swept := make(chan error, 1)
	go func() {
		_, err := archiver(f.callers[0]).Sweep(f.Context())
		swept <- err
	}()
	f.WaitUntil(`
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%archive_holds%'`)
	if !queryOne[bool](f, terminateSQL) {
		t.Fatal("no session waits")
	}
	if err := <-swept; err == nil {
		t.Error("a killed sweep succeeded")
	}
	if after := f.archived(); after != before {
		t.Errorf("after the kill the rows are %s, want %s", after, before)
	}
	f.mustAudit(t)
	unlock()
	f.mustArchive(6, 3)
	f.mustAudit(t)
}

// archiveBesideCallers archives holds while callers read and confirm them, and hold and sell units
// of the same stock rows.
func archiveBesideCallers(ctx context.Context, f *fixture, r *report) {
	const rounds = 30
	rows := f.stocks(10_000, 10_000)
	var holds []reservation.Hold
	for range 10 {
		holds = append(holds, f.resolve(rows)...)
	}
	f.age(old)
	left := counts{Total: f.counts(rows[0]).Total, Reserved: f.counts(rows[0]).Reserved}
	services := f.services()
	together(len(services)+1, func(i int) {
		if i == len(services) {
			for range len(holds) {
				const call = "SELECT archived FROM archive_holds($1, '-infinity', 4)"
				_, err := f.Admin.Exec(ctx, call, retention)
				r.check(err == nil, "error", "archive_holds() = %v", err)
			}
			return
		}
		s := services[i]
		for n := range rounds {
			h := holds[(n*len(services)+i)%len(holds)]
			view, err := s.Get(ctx, h.ID)
			r.check(err == nil && len(view.Hold.Lines) == len(h.Lines), "I3",
				"Get() of an old hold = %+v, %v, want %d lines", view.Hold, err, len(h.Lines))
			_, err = s.Extend(ctx, h.ID, time.Minute, "")
			r.check(!errors.Is(err, reservation.ErrNotFound), "I3", "Extend() = %v", err)
			answer, err := s.Reserve(ctx, reservation.Request{Lines: rows})
			r.check(err == nil, "error", "Reserve() = %v", err)
			_, err = s.Confirm(ctx, answer.Hold.ID, "")
			r.check(err == nil, "error", "Confirm() = %v", err)
		}
	})
	left.Total -= len(services) * rounds
	r.checkStock(f, rows[0], left)
	n := queryOne[int](f, "SELECT count(*) FROM archived_reservations WHERE id = ANY ($1::uuid[])",
		idsOf(holds))
	r.check(n == len(holds), "I9", "%d holds are archived, want %d", n, len(holds))
	_, err := archiver(f.own).Sweep(ctx)
	r.check(err == nil, "error", "Sweep() = %v", err)
}

func idsOf(holds []reservation.Hold) (ids []string) {
	for _, h := range holds {
		ids = append(ids, h.ID.String())
	}
	return ids
}

func TestHoldsAnswerWhileTheyAreArchived(t *testing.T) {
	t.Parallel()

	mustHold(t, 6, archiveBesideCallers)
}

// A cart's row was read before the cart moved, and its lines after that.
func TestACartHasNoLinesInBetweenWithoutALookIntoTheArchive(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	cart := f.resolve(f.stocks(100, 100))[3]
	const read = `
SELECT count(*) FROM reservations r, jsonb_array_elements(hold_json(r, false) -> 'items')
WHERE r.id = $1`
	// The row is still there: as in the older snapshot of a reader.
	f.age(old)
	f.mutate("archive_holds", "DELETE FROM reservations r WHERE r.id = ANY (_ids);", "")
	f.Exec("SELECT archive_holds($1, '-infinity', 10)", retention)
	if n := queryOne[int](f, read, cart.ID.String()); n != 2 {
		t.Errorf("the cart has %d lines, want 2", n)
	}
	f.mutate("hold_json", "archived_lines(_hold.id, _hold.updated_at)", "'[]'")
	if n := queryOne[int](f, read, cart.ID.String()); n != 0 {
		t.Errorf("without the look the cart has %d lines, want 0", n)
	}
}

func TestTheSchemaRefusesADeletionThatIsNotArchived(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement, broken string }{
		"a hold isn't copied": {
			"archive_holds", "SELECT r.* FROM reservations r WHERE r.id = ANY (_ids)",
			"SELECT r.* FROM reservations r WHERE false", "I3",
		},
		"a line isn't copied": {
			"archive_holds", "WHERE r.id = ANY (_ids);\n    INSERT INTO archived_ledger",
			"WHERE false;\n    INSERT INTO archived_ledger", "I3",
		},
		"a row of the ledger isn't copied": {
			"archive_holds", "WHERE r.id = ANY (_ids);\n    PERFORM count_archived_sales",
			"WHERE false;\n    PERFORM count_archived_sales", "I10",
		},
		"another row of the ledger is copied": {
			"archive_holds", "SELECT r.updated_at, l.* FROM reservations r JOIN ledger",
			`SELECT r.updated_at, l.xid, l.at, l.expires_at, l.hold_id, l.version + 1, l.kind, l.cause,
			 l.actor FROM reservations r JOIN ledger`, "I10",
		},
		"another hold is copied": {
			"archive_holds", "SELECT r.* FROM reservations r WHERE r.id = ANY (_ids)",
			`SELECT r.id, r.product_id, r.warehouse_id, r.created_at, r.updated_at, r.expires_at,
			 r.quantity + 1, r.status, r.version FROM reservations r WHERE r.id = ANY (_ids)`, "I3",
		},
		"another line is copied": {
			"archive_holds", "SELECT r.updated_at, l.* FROM reservations r JOIN reservation_items",
			`SELECT r.updated_at, l.reservation_id, l.product_id, l.warehouse_id, l.expires_at,
			 l.quantity + 1, l.counted FROM reservations r JOIN reservation_items`, "I3",
		},
		"a movement isn't copied": {
			"archive_movements_of", "ANY (_seqs)\n        RETURNING",
			"ANY ('{}')\n        RETURNING", "I8",
		},
		"another movement is copied": {
			"archive_movements_of", "SELECT m.* FROM",
			`SELECT m.product_id, m.warehouse_id, m.seq, m.at, m.xid, m.reservation_id, m.kind,
			 m.delta + 1, m.total_after, m.line, m.source, m.reference, m.note, m.actor, m.asked,
			 m.as_of_seq, m.shortfall FROM`, "I8",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			f.resolve(f.stocks(100, 100))
			f.age(old)
			before := f.archived()
			if c.routine == "archive_movements_of" {
				f.Exec("SELECT archive_holds($1, '-infinity', 1000)", retention)
				before = f.archived()
			}
			f.mutate(c.routine, c.old, c.replacement)
			_, err := archiver(f.own).Sweep(f.Context())
			if err == nil || !strings.Contains(err.Error(), c.broken) {
				t.Errorf("Sweep() = %v, want %s", err, c.broken)
			}
			if after := f.archived(); after != before {
				t.Errorf("the rows are %s, want %s", after, before)
			}
			f.mustAudit(t)

			// Without the triggers the rows are lost, and the audit finds it.
			f.Exec("DROP TRIGGER i3_holds_stay ON reservations")
			f.Exec("DROP TRIGGER i3_lines_stay ON reservation_items")
			f.Exec("DROP TRIGGER i8_movements_stay ON stock_movements")
			f.Exec("DROP TRIGGER i10_ledger_stays ON ledger")
			if _, err := archiver(f.own).Sweep(f.Context()); err != nil {
				t.Fatal(err)
			}
			if violations, err := newService(f.own).Audit(f.Context()); err != nil ||
				len(violations) == 0 {
				t.Errorf("Audit() without the triggers = %v, %v, want violations", violations, err)
			}
		})
	}
}

func TestTheSchemaRefusesAChangeOfTheArchive(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.resolve(rows)
	f.age(old)
	f.mustArchive(6, 3)
	f.hold(rows...)
	for _, sql := range []string{
		"DELETE FROM reservations", "DELETE FROM reservation_items", "DELETE FROM stock_movements",
		"UPDATE archived_reservations SET quantity = 7", "DELETE FROM archived_reservations",
		"UPDATE archived_items SET quantity = 7", "DELETE FROM archived_items",
		"UPDATE archived_movements SET note = 'other'", "DELETE FROM archived_movements",
		"UPDATE archived_ledger SET actor = 'other'", "DELETE FROM archived_ledger",
		"DELETE FROM ledger",
		`
INSERT INTO archived_reservations
SELECT r.id, r.product_id, r.warehouse_id, r.created_at, a.updated_at, r.expires_at, r.quantity,
       r.status, r.version
FROM reservations r, archived_reservations a LIMIT 1`,
	} {
		_, err := f.Admin.Exec(f.Context(), sql)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "23514" {
			t.Errorf("%s = %v, want a check_violation", sql, err)
		}
	}
	f.mustAudit(t)
}

// The archive compares rows as a whole, so its tables must have the columns of the others.
func TestTheArchiveHasEveryColumn(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	const columns = `
SELECT array_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attcollation
                 ORDER BY attnum)
FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'resolved_at'`
	for table, archive := range map[string]string{
		"reservations": "archived_reservations", "reservation_items": "archived_items",
		"stock_movements": "archived_movements", "ledger": "archived_ledger",
	} {
		if diff := cmp.Diff(queryOne[[]string](f, columns, table),
			queryOne[[]string](f, columns, archive)); diff != "" {
			t.Errorf("the columns of %s differ (-%s +%s):\n%s", archive, table, archive, diff)
		}
	}
}

var archiveCorruptions = map[string]corruption{
	"an archived hold is there again": {
		promises: []string{"I3"},
		sql: `
INSERT INTO reservations
SELECT a.* FROM archived_reservations a WHERE a.product_id = $1 AND a.status = 'RELEASED'`,
	},
	"an archived hold is missing": {
		promises: []string{"I8"},
		sql:      "DELETE FROM archived_reservations WHERE product_id = $1 AND status = 'CONFIRMED'",
	},
	"an archived cart is missing": {
		promises: []string{"I3"},
		sql: `
DELETE FROM archived_reservations WHERE product_id IS NULL AND status = 'RELEASED' AND $1 <> ''`,
	},
	"the hold of a key isn't in the archive": {
		promises: []string{"I6"},
		sql: `
UPDATE idempotency_keys SET answer = answer || jsonb_build_object('id', gen_random_uuid())
WHERE answer ->> 'product_id' = $1`,
	},
	"an archived hold was released after its end": {
		promises: []string{"I4"},
		sql: `
UPDATE archived_reservations SET expires_at = created_at
WHERE product_id = $1 AND status = 'RELEASED'`,
	},
	"an archived hold expired before its end": {
		promises: []string{"I9"},
		sql: `
UPDATE archived_reservations SET expires_at = expires_at + interval '1 s'
WHERE product_id = $1 AND status = 'EXPIRED'`,
	},
	"a line of an archived cart is missing": {
		promises: []string{"I7"},
		sql: `
DELETE FROM archived_items l USING archived_reservations r
WHERE r.id = l.reservation_id AND r.status = 'EXPIRED' AND l.product_id = $1`,
	},
	"an archived hold sold more": {
		promises: []string{"I8"},
		sql: `
UPDATE archived_reservations SET quantity = quantity + 1
WHERE product_id = $1 AND status = 'CONFIRMED'`,
	},
	"an archived movement is missing": {
		promises: []string{"I8"},
		sql:      "DELETE FROM archived_movements WHERE product_id = $1 AND seq = 2",
	},
	"the last archived movement is missing": {
		promises: []string{"I8"},
		sql:      "DELETE FROM archived_movements WHERE product_id = $1 AND seq = 3",
	},
	"an archived movement has another delta": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_movements SET delta = delta - 1 WHERE product_id = $1 AND seq = 2",
	},
	"an archived movement is there again": {
		promises: []string{"I8"},
		sql: `
INSERT INTO stock_movements
SELECT m.* FROM archived_movements m WHERE m.product_id = $1 AND m.seq = 2`,
	},
	"the archive ends with another total": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_stock SET total = total + 1 WHERE product_id = $1",
	},
	"the archive ends with another movement": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_stock SET seq = 1, total = 0 WHERE product_id = $1",
	},
	"the archive sold more": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_stock SET sold = sold + 1 WHERE product_id = $1",
	},
	"the archive sold less": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_stock SET sold = sold - 1 WHERE product_id = $1",
	},
	"the archive moved more": {
		promises: []string{"I8"},
		sql:      "UPDATE archived_stock SET moved = moved + 1 WHERE product_id = $1",
	},
	"a stock row has no archive": {
		promises: []string{"I8"},
		sql:      "DELETE FROM archived_stock WHERE product_id = $1",
	},
	"a closing has another total": {
		promises: []string{"I8"},
		sql:      "UPDATE stock_closings SET total = total + 1 WHERE product_id = $1",
	},
	"a closing is further": {
		promises: []string{"I8"},
		sql:      "UPDATE stock_closings SET seq = seq + 1 WHERE product_id = $1",
	},
	"a closing names a movement of the archive": {
		promises: []string{"I8"},
		sql:      "UPDATE stock_closings SET seq = 2 WHERE product_id = $1",
	},
}

// $1 is a product with an archived hold of each resolved status, whose ledger has two rows.
const (
	archivedHoldSQL  = "SELECT id FROM archived_reservations WHERE product_id = $1 AND status = "
	archivedRowOfSQL = " WHERE version = %d AND hold_id = (" + archivedHoldSQL + "'%s')"
)

var archivedLedgerCorruptions = map[string]string{
	"the first row is missing": "DELETE FROM archived_ledger" +
		fmt.Sprintf(archivedRowOfSQL, 1, "EXPIRED"),
	"the newest row is missing": "DELETE FROM archived_ledger" +
		fmt.Sprintf(archivedRowOfSQL, 2, "CONFIRMED"),
	"a row is of another kind": "UPDATE archived_ledger SET kind = 'r'" +
		fmt.Sprintf(archivedRowOfSQL, 2, "CONFIRMED"),
	"a row is too many": `
INSERT INTO archived_ledger
SELECT resolved_at, xid, at, expires_at, hold_id, 3, 'c', cause, actor
FROM archived_ledger` + fmt.Sprintf(archivedRowOfSQL, 2, "RELEASED"),
	"a row has no hold": `
UPDATE archived_ledger SET hold_id = gen_random_uuid()` +
		fmt.Sprintf(archivedRowOfSQL, 1, "RELEASED"),
	"a row is left behind": `
INSERT INTO ledger
SELECT xid, at, expires_at, hold_id, version, kind, cause, actor
FROM archived_ledger` + fmt.Sprintf(archivedRowOfSQL, 2, "RELEASED"),
}

func TestAuditFindsEachCorruptionOfTheArchivedLedger(t *testing.T) {
	t.Parallel()

	for name, sql := range archivedLedgerCorruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			rows := f.stocks(100, 100)
			f.resolve(rows)
			f.age(old)
			f.mustArchive(6, 3)
			f.mustAudit(t)
			shop := auditShop{fixture: f, row: rows[0]}
			shop.corrupt("", sql, rows[0].ProductID.String())

			wantBroken(t, f.own, "I10")
			wantPromises(t, "AuditFull()", f.mustAuditFull(), []string{"I10"})
		})
	}
}

func TestAuditFindsEachCorruptionOfTheArchive(t *testing.T) {
	t.Parallel()

	for name, c := range archiveCorruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			rows := f.stocks(100, 100)
			holds := f.resolve(rows)
			f.age(old)
			f.mustArchive(6, 3)
			if _, err := newService(f.own).Confirm(f.Context(), holds[0].ID, "key"); err != nil {
				t.Fatal(err)
			}
			f.mustAudit(t)
			shop := auditShop{fixture: f, row: rows[0]}
			shop.corrupt("", c.sql, rows[0].ProductID.String())

			wantBroken(t, f.own, c.promises...)
			wantPromises(t, "AuditFull()", f.mustAuditFull(), c.promises)
		})
	}
}

// month is the beginning of the month of the only partitions, as detach_archive takes it.
func (f *fixture) month() string {
	f.t.Helper()
	return queryOne[string](f,
		"SELECT min(month AT TIME ZONE 'UTC')::date::text FROM archived_months WHERE NOT detached")
}

func TestADetachedMonthIsGoneAndNotMissed(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	holds := f.resolve(rows)
	f.age(old)
	late := f.resolve(rows)[0]
	f.age(0)
	f.mustArchive(6, 5)
	s := newService(f.own)
	if _, err := s.Confirm(f.Context(), holds[0].ID, "key"); err != nil {
		t.Fatal(err)
	}
	month := f.month()

	tables := queryOne[[]string](f, "SELECT detach_archive($1::date)", month)

	if n := queryOne[int](f, "SELECT count(*) FROM "+tables[0]); n != 6 || len(tables) != 4 {
		t.Errorf("the detached tables are %v, with %d holds, want 6", tables, n)
	}
	if _, err := s.Get(f.Context(), holds[0].ID); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("Get() of a hold in a detached month = %v, want ErrNotFound", err)
	}
	f.mustAudit(t)

	// What is left of the month stays where it is.
	f.unguarded(`
UPDATE reservations r SET created_at = r.created_at - d.by, updated_at = r.updated_at - d.by,
                          expires_at = r.expires_at - d.by
FROM (SELECT clock_timestamp() - min(m.month) AS by FROM archived_months m) d
WHERE r.status <> 'PENDING' AND r.product_id IS NOT NULL`, pgtest.MoveLedgerSQL)
	f.mustArchive(0, 0)
	if _, err := s.Get(f.Context(), late.ID); err != nil {
		t.Errorf("Get() of a hold that is left of a detached month = %v", err)
	}

	f.Exec("SELECT drop_archive($1::date)", month)
	const left = "SELECT count(*) FROM pg_class WHERE relname = ANY ($1)"
	if n := queryOne[int](f, left, tables); n != 0 {
		t.Errorf("%d tables of the dropped month are left, want 0", n)
	}
	for _, call := range []string{
		"SELECT drop_archive($1::date)", "SELECT detach_archive($1::date)",
	} {
		if _, err := f.Admin.Exec(f.Context(), call, month); err == nil {
			t.Errorf("%s of a dropped month succeeded", call)
		}
	}
	f.mustAudit(t)
}

func TestTheAuditMissesADetachedMonthWithoutItsMark(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	holds := f.resolve(rows)
	f.age(old)
	f.mustArchive(6, 3)
	if _, err := newService(f.own).Confirm(f.Context(), holds[0].ID, "key"); err != nil {
		t.Fatal(err)
	}
	f.Exec("SELECT detach_archive($1::date)", f.month())
	f.mustAudit(t)
	f.Exec("UPDATE archived_months SET detached = false")

	wantBroken(t, f.own, "I6", "I8")
}

// twoMonths makes a shop with the holds of two months in the archive, and detaches the older month.
func twoMonths(t *testing.T) (auditShop, []reservation.Line) {
	t.Helper()
	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.resolve(rows)
	f.age(old)
	f.resolve(rows)
	f.age(old)
	f.resolve(rows)
	f.closeStock()
	f.mustArchive(12, 8)
	f.mustAudit(t)
	f.Exec("SELECT detach_archive($1::date)", f.month())
	return auditShop{fixture: f, row: rows[0]}, rows
}

// The movement $1 is the newest but one of its stock row's archive.
const lastButOneArchivedSQL = `
SELECT product_id, warehouse_id, max(seq) - 1 FROM archived_movements WHERE product_id = $1
GROUP BY 1, 2`

// A month that went excuses what it had, and nothing of a later month.
func TestAFullAuditMissesWhatADetachedMonthDidNotHave(t *testing.T) {
	t.Parallel()

	for name, sql := range map[string]string{
		"a movement": `
DELETE FROM archived_movements
WHERE (product_id, warehouse_id, seq) IN (` + lastButOneArchivedSQL + `)`,
		"the last movement": `
DELETE FROM archived_movements m USING archived_stock s
WHERE (m.product_id, m.warehouse_id, m.seq) = (s.product_id, s.warehouse_id, s.seq)
  AND m.product_id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			shop, rows := twoMonths(t)
			if found := shop.mustAuditFull(); len(found) > 0 {
				t.Errorf("AuditFull() = %v, want nothing", found)
			}
			shop.mustAudit(t)
			shop.corrupt("", sql, rows[0].ProductID.String())
			wantBroken(t, shop.own, "I8")
			wantPromises(t, "AuditFull()", shop.mustAuditFull(), []string{"I8"})
			// The control excuses it, as if the movement had gone with the month.
			shop.Exec("UPDATE archived_stock SET detached = seq")
			for _, v := range shop.mustAuditFull() {
				if strings.Contains(v.Detail, "follows") || strings.Contains(v.Detail, "ends with") {
					t.Errorf("AuditFull() finds %s, want the gap excused", v.Detail)
				}
			}
		})
	}
}

// detach_archive records what goes. Without that, the audits miss it.
func TestAFullAuditMissesADetachedMonthWithoutItsRecord(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	f.mustArchive(6, 3)
	f.mutate("detach_archive", "greatest(a.detached, g.seq)", "a.detached")
	f.Exec("SELECT detach_archive($1::date)", f.month())
	wantPromises(t, "AuditFull()", f.mustAuditFull(), []string{"I8"})
}

// The holds of the tests have ids of today, however old they are made. So here the months of today
// stand for those that were detached. What names a hold of another month is found.
func TestAFullAuditMissesTheHoldsThatADetachedMonthDidNotHave(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ sql, promise string }{
		"a return": {`
UPDATE returns SET reservation_id = old_id(reservation_id)`, "returns"},
		"a payment": {`
UPDATE hold_payments SET hold_id = old_id(hold_id) WHERE outcome = 'REACQUIRED'`, "payments"},
		"a replaced hold": {`
UPDATE replacements SET old_id = old_id(old_id) WHERE old_id NOT IN (
    SELECT hold_id FROM hold_payments)`, "replacements"},
		"a hold that took its place": {`
UPDATE replacements SET new_id = old_id(new_id) WHERE old_id NOT IN (
    SELECT hold_id FROM hold_payments)`, "replacements"},
		"an owner": {`
UPDATE hold_parties SET hold_id = old_id(hold_id) WHERE owner = 'carl'`, "parties"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			holds := payForHolds(f)
			row := f.stock(5)
			returned := f.hold(row)
			s := newService(f.own)
			if _, err := s.Confirm(f.Context(), returned.ID, ""); err != nil {
				t.Fatal(err)
			}
			f.Exec("CALL return_goods($1, 'r', NULL, $2, NULL, NULL, NULL, NULL)", returned.ID.String(),
				fmt.Sprintf(`[{"line": 1, "product_id": %q, "warehouse_id": %q, "quantity": 1}]`,
					row.ProductID, row.WarehouseID))
			f.age(old)
			for range 3 {
				if _, err := archiver(f.own).Sweep(f.Context()); err != nil {
					t.Fatal(err)
				}
			}
			f.Exec("SELECT detach_archive($1::date)", f.month())
			if _, err := s.Get(f.Context(), holds[0]); !errors.Is(err, reservation.ErrNotFound) {
				t.Fatalf("Get() of a hold in a detached month = %v, want ErrNotFound", err)
			}
			wantPromises(t, "AuditFull()", f.mustAuditFull(),
				[]string{"returns", "payments", "replacements", "parties"})
			f.Exec(`
INSERT INTO archived_months
SELECT m, true FROM unnest(ARRAY[month_of(now() - interval '1 hour'), month_of(now())]) m
ON CONFLICT (month) DO NOTHING`)
			if found := f.mustAuditFull(); len(found) > 0 {
				t.Errorf("AuditFull() = %v, want the month's holds excused", found)
			}
			// old_id is the id of a hold that was made nine days before the month's beginning.
			f.Exec(`
CREATE FUNCTION old_id(uuid) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex((extract(epoch FROM month_of(now() - interval '1 hour') - interval '9 days')
                         * 1000)::bigint), 12, '0') || '7' || right(replace($1::text, '-', ''), 19)
           )::uuid
$$`)
			auditShop{fixture: f}.corrupt("", c.sql)
			wantPromises(t, "AuditFull()", f.mustAuditFull(), []string{c.promise})
		})
	}
}

// A sum of a stock row with many later movements is found when it is too low.
func TestTheSumsOfAHotStockRow(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.resolve(rows)
	f.age(old)
	f.mustArchive(6, 3)
	const later = 2000
	shop := auditShop{fixture: f, row: rows[0]}
	change := func(by int) []reservation.Violation {
		t.Helper()
		const sql = "UPDATE archived_stock SET sold = sold + $2 WHERE product_id = $1"
		shop.corrupt("", sql, rows[0].ProductID.String(), by)
		defer shop.corrupt("", sql, rows[0].ProductID.String(), -by)
		return f.mustAuditFull()
	}
	for range later - 1 { // there is one already
		f.Exec("SELECT adjust_stock($1, $2, 1, 'test')", rows[0].ProductID.String(),
			rows[0].WarehouseID.String())
	}
	for _, c := range []struct{ by, found int }{{1, 1}, {-1, 1}} {
		if found := change(c.by); len(found) != c.found {
			t.Errorf("with %d units more AuditFull() = %v, want %d found", c.by, found, c.found)
		}
	}
	f.Exec("SELECT adjust_stock($1, $2, 1, 'test')", rows[0].ProductID.String(),
		rows[0].WarehouseID.String())
	for _, c := range []struct{ by, found int }{{1, 0}, {-1, 1}} {
		if found := change(c.by); len(found) != c.found {
			t.Errorf("of a hot row with %d units more AuditFull() = %v, want %d found", c.by, found,
				c.found)
		}
	}
}

// A hold that was sold before there were movements has no SALE, or one that doesn't name the hold.
func TestTheSumsOfAnOldStockRowAreNotJudged(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ mark, undo string }{
		"sold before": {`
UPDATE stock_movements SET note = 'taken over' WHERE kind = 'OPENING' AND product_id = $1`, `
UPDATE stock_movements SET note = NULL WHERE kind = 'OPENING' AND product_id = $1`},
		"sold without the hold": {`
UPDATE stock_movements SET note = 'by the previous release', reservation_id = NULL
WHERE kind = 'SALE' AND product_id = $1`, `
UPDATE stock_movements m SET reservation_id = a.id FROM archived_reservations a
WHERE m.kind = 'SALE' AND m.product_id = $1 AND a.status = 'CONFIRMED' AND a.product_id IS NULL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			rows := f.stocks(100, 100)
			f.resolve(rows)
			f.age(old)
			f.mustArchive(6, 3)
			shop := auditShop{fixture: f, row: rows[0]}
			product := rows[0].ProductID.String()
			shop.corrupt("", c.mark, product)
			shop.corrupt("", "UPDATE archived_stock SET sold = sold + 1 WHERE product_id = $1", product)
			if found := f.mustAuditFull(); len(found) > 0 {
				t.Errorf("AuditFull() = %v, want nothing", found)
			}
			shop.corrupt("", c.undo, product)
			wantPromises(t, "AuditFull()", f.mustAuditFull(), []string{"I8"})
		})
	}
}

// A wrong closing is found by each audit, until the runbook's statements have put it back to where
// the archive ends.
func TestAWrongClosingIsRepairedByTheRunbook(t *testing.T) {
	t.Parallel()

	runbook, err := os.ReadFile("../../infra/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	_, repair, found := strings.Cut(string(runbook), "-- a wrong closing\n")
	repair, _, ended := strings.Cut(repair, "```")
	if !found || !ended {
		t.Fatal("RUNBOOK.md has no statements that repair a closing")
	}
	for _, archived := range []bool{true, false} {
		f := newFixture(t, 0)
		rows := f.stocks(100, 100)
		f.resolve(rows)
		if archived {
			f.age(old)
			f.mustArchive(6, 3)
		}
		f.closeStock()
		product := rows[0].ProductID.String()
		shop := auditShop{fixture: f, row: rows[0]}
		shop.corrupt("", archiveCorruptions["a closing has another total"].sql, product)
		violations, err := newService(f.own).AuditNew(f.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantPromises(t, "AuditNew()", violations, []string{"I8"})
		for statement := range strings.SplitSeq(strings.TrimSpace(repair), ";") {
			f.Exec(strings.NewReplacer("PRODUCT", product, "WAREHOUSE",
				rows[0].WarehouseID.String()).Replace(statement))
		}
		f.mustAuditFull()
		f.mustAuditNew()
		f.mustAudit(t)
		if n := f.open(); n != 0 {
			t.Errorf("archived %t: %d stock rows aren't closed, want 0", archived, n)
		}
	}
}

// A hold may be made days before it is paid, in a month that is detached by then.
func TestAHoldThatWasMadeInADetachedMonthIsArchived(t *testing.T) {
	t.Parallel()

	for _, guarded := range []bool{true, false} {
		f := newFixture(t, 0)
		rows := f.stocks(100, 100)
		hold := f.hold(rows[0])
		if _, err := newService(f.own).Confirm(f.Context(), hold.ID, ""); err != nil {
			t.Fatal(err)
		}
		f.age(old)
		// It was made a week before the end of a month, and paid on the next one's first day.
		f.unguarded(`
UPDATE reservations SET created_at = m.at - interval '6 days', updated_at = m.at + interval '1 day',
                        expires_at = m.at + interval '1 day 1 hour'
FROM (SELECT month_of(clock_timestamp() - interval '75 days') AS at) m`, `
UPDATE ledger l SET at = CASE l.version WHEN 1 THEN r.created_at ELSE r.updated_at END,
                    expires_at = r.expires_at
FROM reservations r WHERE r.id = l.hold_id`, `
UPDATE stock_movements SET at = m.at
FROM (SELECT month_of(clock_timestamp() - interval '75 days') + interval '1 day' AS at) m
WHERE kind = 'SALE'`)
		f.Exec("SELECT adjust_stock(product_id, warehouse_id, 1, 'test') FROM inventory")
		f.closeStock()
		f.Exec(`
SELECT make_archive_month(month_of(clock_timestamp() - interval '75 days') - interval '1 month')`)
		f.Exec("SELECT detach_archive($1::date)", f.month())
		if !guarded {
			f.mutate("archive_holds", "_least - longest_hold()", "_least - interval '1 day'")
			f.mustArchive(0, 0)
			continue
		}
		f.mustArchive(1, 1)
		f.mustAudit(t)
	}
}

func TestAYoungMonthIsNotDetached(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.Exec("SELECT make_archive_month(month_of(clock_timestamp() - interval '29 days'))")
	if _, err := f.Admin.Exec(f.Context(), "SELECT detach_archive($1::date)", f.month()); err == nil ||
		!strings.Contains(err.Error(), "isn't over for 30 days") {
		t.Errorf("detach_archive() of a young month = %v, want it refused", err)
	}
	f.mutate("detach_archive", "next_month(_month) > archive_before",
		"next_month(_month) < archive_before")
	f.Exec("SELECT detach_archive($1::date)", f.month())
}

// A sale moves after its hold. A sweep that had no time for the hold leaves the sale too.
func TestASaleIsArchivedAfterItsHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	const call = "SELECT archived FROM archive_movements($1, 10, 1000)"
	// Each row's second movement is no sale.
	if n := queryOne[int](f, call, retention); n != 2 {
		t.Errorf("archive_movements() moved %d movements before the holds, want 2", n)
	}
	f.mustAudit(t)
	f.mustArchive(6, 1)
	f.mustAudit(t)
}

func TestASaleIsArchivedWithoutItsHoldWithoutTheLook(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	f.mutate("archive_movements_of", "WHERE r.id = m.reservation_id", "WHERE false")
	if n := queryOne[int](f, "SELECT archived FROM archive_movements($1, 10, 1000)",
		retention); n != 3 {
		t.Errorf("archive_movements() moved %d movements, want 3", n)
	}
	wantBroken(t, f.own, "I8")
}

// Movements wait until an audit has verified them.
func TestAMovementIsArchivedBehindAClosing(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.resolve(rows)
	f.age(old)
	f.Exec("DELETE FROM stock_closings WHERE product_id = $1", rows[0].ProductID.String())
	f.Exec("UPDATE stock_closings SET seq = 1, total = 0")
	f.mustArchive(6, 0)
	f.closeStock()
	f.mustArchive(0, 3)
	f.mustAudit(t)
}

// Each call goes on where the last one ended, also within a stock row.
func TestTheWalkOverTheStockRowsGoesOn(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	for _, row := range f.stocks(10, 10, 10) {
		for range 3 {
			f.Exec("SELECT adjust_stock($1, $2, 1, 'test')", row.ProductID.String(),
				row.WarehouseID.String())
		}
	}
	// Each row has five movements, the first of which is an opening with 0.
	f.age(old)
	const call = `
SELECT concat_ws(' ', archived, more) FROM archive_movements($1, 2, 3)`
	var got []string
	for range 8 {
		got = append(got, queryOne[string](f, call, retention))
	}
	// Each call looks at three movements, the first four of each row. The first one of each stays.
	want := []string{"2 t", "2 t", "2 t", "3 t", "0 f", "0 f", "0 f", "0 f"}
	if !slices.Equal(got, want) {
		t.Errorf("the calls moved %q, want %q", got, want)
	}
	f.mustAudit(t)
}

// published makes a sink that has published everything up to now.
func (f *fixture) published() {
	f.t.Helper()
	f.tick()
	f.Exec(`
INSERT INTO sinks (name, done) SELECT 'topic', max(n) FROM ticks
ON CONFLICT (name) DO UPDATE SET done = excluded.done`)
}

// A row that a sink hasn't published stays where the relay reads it.
func TestTheArchiveWaitsForEverySink(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.published()
	f.Exec("INSERT INTO sinks (name, done) VALUES ('bus', 1000)")
	f.resolve(rows)
	f.age(old)
	// The second movements of the stock rows were published, the sale wasn't.
	f.mustArchive(0, 2)
	f.tick()
	f.mustArchive(0, 0)
	f.published()
	f.mustArchive(6, 1)
	f.mustAudit(t)
	const newest = `
SELECT archived = (SELECT x.xid FROM (SELECT xid FROM archived_ledger UNION ALL
                                      SELECT xid FROM archived_movements) x
                   ORDER BY x.xid DESC LIMIT 1)
FROM stream`
	if !queryOne[bool](f, newest) {
		t.Error("the stream doesn't name the newest transaction of which a row is archived")
	}
}

func TestTheArchiveWaitsForNoSinkWithoutTheLook(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	rows := f.stocks(100, 100)
	f.published()
	f.resolve(rows)
	f.age(old)
	f.mutate("published_snapshot", "RETURN (", "RETURN NULL; RETURN (")
	f.mustArchive(6, 3)
}

// A parked event's row stays, so that an operator can redrive it. The control looks for none.
func TestTheArchiveWaitsForParkedEvents(t *testing.T) {
	t.Parallel()

	for _, guarded := range []bool{true, false} {
		f := newFixture(t, 0)
		rows := f.stocks(100, 100)
		released := f.resolve(rows)[1]
		f.published()
		f.Exec(`
INSERT INTO parked (sink, id, subject, error) VALUES
    ('topic', $1 || '-2', $1, 'test'),
    ('topic', $2 || '-' || $3 || '-2', $2 || '/' || $3, 'test')`,
			released.ID.String(), rows[1].ProductID.String(), rows[1].WarehouseID.String())
		f.age(old)
		if !guarded {
			f.mutate("archive_holds", "FROM parked p WHERE p.subject", "FROM parked p WHERE false AND p.id")
			f.mutate("archive_movements_of", "FROM parked p WHERE p.subject",
				"FROM parked p WHERE false AND p.id")
			f.mustArchive(6, 3)
			continue
		}
		f.mustArchive(5, 2)
		f.mustAudit(t)
		f.Exec("DELETE FROM parked")
		f.mustArchive(1, 1)
		f.mustAudit(t)
	}
}

// A sink that has published nothing yet names a tick that isn't there.
func TestTheArchiveWaitsForANewSink(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	f.Exec("INSERT INTO sinks (name, done) VALUES ('topic', 0)")
	f.tick()
	f.mustArchive(0, 0)
	f.Exec("DELETE FROM sinks")
	f.mustArchive(6, 3)
	f.mustAudit(t)
}

// A month that was archived by the release before the ledger has no partition of it.
func TestAMonthFromBeforeTheLedgerIsArchivedAndDetached(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	month := queryOne[string](f, "SELECT month_of(clock_timestamp() - interval '100 days')::text")
	dropLedger := func() {
		f.Exec("DO $$BEGIN EXECUTE format('DROP TABLE %I', archive_partition('archived_ledger', '" +
			month + "')); END$$")
	}
	f.Exec("SELECT make_archive_month($1::timestamptz)", month)
	dropLedger()
	f.mustArchive(6, 3)
	f.mustAudit(t)
	f.Exec("DO $$BEGIN EXECUTE format('ALTER TABLE archived_ledger DETACH PARTITION %I', " +
		"archive_partition('archived_ledger', '" + month + "')); END$$")
	dropLedger()
	tables := queryOne[[]string](f, "SELECT detach_archive($1::date)", f.month())
	if len(tables) != 3 {
		t.Errorf("the detached tables are %v, want three", tables)
	}
	f.Exec("SELECT drop_archive(min(month AT TIME ZONE 'UTC')::date) FROM archived_months")
	f.mustAudit(t)
}

// Holds are found by the time at which they were made, whatever their status.
func TestTheArchiveFindsAHoldThatWasMadeLongBeforeItEnded(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.resolve(f.stocks(100, 100))
	f.age(old)
	// Made before the retention's end, and resolved after it.
	f.unguarded(fmt.Sprintf(`
UPDATE reservations SET created_at = clock_timestamp() - interval '%d s',
       updated_at = clock_timestamp() - interval '1 h', expires_at = clock_timestamp()
WHERE status = 'RELEASED' AND product_id IS NOT NULL`, int((retention + time.Hour).Seconds())))
	const call = `
SELECT concat_ws(' ', archived, more) FROM archive_holds($1, '-infinity', 3)`
	for _, want := range []string{"2 t", "2 t", "1 f", "0 f"} {
		if got := queryOne[string](f, call, retention); got != want {
			t.Errorf("archive_holds() = %s, want %s", got, want)
		}
	}
	if n := queryOne[int](f, "SELECT count(*) FROM reservations"); n != 1 {
		t.Errorf("%d holds are left, want the one that was resolved lately", n)
	}
}

// A batch doesn't read the holds that follow it.
func TestTheArchiveReadsFewHolds(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	f.bulk(f.stock(0), 60_000, reservation.Expired)
	f.Exec("VACUUM ANALYZE reservations")
	const sql = "SELECT * FROM archivable_holds('-infinity', '-infinity', clock_timestamp(), $1)"
	for _, n := range []int{10, 1000} {
		if blocks, took := f.Explain(sql, n); blocks > 2*n+50 {
			t.Errorf("a batch of %d reads %d blocks in %.1f ms, want at most %d", n, blocks, took, 2*n+50)
		}
	}
}
