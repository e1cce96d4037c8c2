package reservation_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

const bulkSQL = `
WITH ends AS (
    SELECT clock_timestamp() - n * interval '1 s' AS t FROM generate_series(1, $3::integer) n
), held AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at, status)
    SELECT gen_random_uuid(), $1, $2, 1, t - interval '1 h',
           CASE $4 WHEN 'EXPIRED' THEN t ELSE t - interval '1 h' END, t, $4::reservation_status
    FROM ends
    RETURNING 1
)
UPDATE inventory
SET reserved = reserved + CASE $4 WHEN 'PENDING' THEN (SELECT count(*) FROM held) ELSE 0 END,
    first_end = '-infinity'
WHERE product_id = $1 AND warehouse_id = $2`

// bulk makes n dead holds of one unit, PENDING or EXPIRED. Their ends are a second apart, the
// latest one a second ago.
func (f *fixture) bulk(row reservation.Line, n int, status reservation.Status) {
	f.t.Helper()
	f.Exec(bulkSQL, row.ProductID.String(), row.WarehouseID.String(), n, string(status))
}

func TestSweepWorksInBatchesAndCounts(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	row := f.stock(10_000)
	f.bulk(row, 2500, reservation.Pending)
	live := f.hold(row)
	s := f.services()[0]

	result, err := s.Sweep(ctx)

	oldest := result.Oldest
	result.Oldest = 0
	// There are three batches of holds, the last one with 500, and one batch that finds no keys.
	want := reservation.SweepResult{Expired: 2500, Units: 2500, Batches: 4, Looked: true}
	if diff := cmp.Diff(want, result); err != nil || diff != "" {
		t.Errorf("Sweep() differs (-want +got), %v:\n%s", err, diff)
	}
	if oldest < 2500*time.Second || oldest > 2500*time.Second+testTimeout {
		t.Errorf("Sweep() found the oldest dead for %s, want %s", oldest, 2500*time.Second)
	}
	if got := f.counts(row); got != (counts{Total: 10_000, Reserved: 1}) {
		t.Errorf("after the sweep the stock is %+v, want one unit reserved", got)
	}
	if got := f.status(live); got != reservation.Pending {
		t.Errorf("after the sweep the live hold is %s, want PENDING", got)
	}
	if again, err := s.Sweep(ctx); err != nil ||
		again != (reservation.SweepResult{Batches: 2, Looked: true}) {
		t.Errorf("Sweep() again = %+v, %v, want nothing to do", again, err)
	}
	f.mustAudit(t)
}

func TestConcurrentSweepsShareTheHolds(t *testing.T) {
	t.Parallel()

	mustHold(t, 3, func(ctx context.Context, f *fixture, r *report) {
		const holds = 4000
		row := f.stock(holds)
		f.bulk(row, holds, reservation.Pending)
		services := f.services()
		var expired, units atomic.Int64

		together(len(services), func(i int) {
			result, err := services[i].Sweep(ctx)
			r.check(err == nil, "error", "Sweep() = %v", err)
			expired.Add(result.Expired)
			units.Add(result.Units)
		})

		r.check(expired.Load() == holds && units.Load() == holds, "I9",
			"the sweeps expired %d holds of %d units, want %d", expired.Load(), units.Load(), holds)
		r.checkStock(f, row, counts{Total: holds})
		r.checkRetries(services)
	})
}

// softDeadline is a context with a deadline at which it doesn't end. On a slow machine a real
// deadline could interrupt a batch.
type softDeadline struct {
	context.Context
	end time.Time
}

func (h softDeadline) Deadline() (time.Time, bool) { return h.end, true }

func TestSweepStopsBeforeItsDeadline(t *testing.T) {
	t.Parallel()

	const holds = 30_000
	f := newFixture(t, 1)
	row := f.stock(holds)
	f.bulk(row, holds, reservation.Pending)
	const end = "EXIT WHEN _taken" // of a batch. All batches take three seconds
	f.mutate("sweep_holds", end, "PERFORM pg_sleep(0.1); "+end)
	s := f.services()[0]

	over, err := s.Sweep(softDeadline{f.Context(), time.Now().Add(-time.Second)})
	if want := (reservation.SweepResult{More: true}); err != nil || over != want {
		t.Errorf("Sweep() after its deadline = %+v, %v, want %+v", over, err, want)
	}
	result, err := s.Sweep(softDeadline{f.Context(), time.Now().Add(1500 * time.Millisecond)})
	if err != nil || !result.More || result.Expired == 0 || result.Expired >= holds ||
		result.Expired%1000 != 0 {
		t.Errorf("Sweep() with little time = %+v, %v, want whole batches and more left", result,
			err)
	}
	want := counts{Total: holds, Reserved: holds - int(result.Units)}
	if got := f.counts(row); got != want {
		t.Errorf("the stock is %+v, want %+v", got, want)
	}
	f.mustAudit(t)
}

func TestSweepRemovesKeysAfterADay(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	hold := f.hold(f.stock(1))
	const keysSQL = `
INSERT INTO idempotency_keys (key, request_hash, answer, created_at)
SELECT $1 || n, sha256('request'), jsonb_build_object('id', $2::text),
       clock_timestamp() - $3::interval
FROM generate_series(1, $4::integer) n`
	f.Exec(keysSQL, "old", hold.ID.String(), 24*time.Hour, 2100)
	f.Exec(keysSQL, "young", hold.ID.String(), 24*time.Hour-time.Minute, 10)

	result, err := f.services()[0].Sweep(f.Context())

	if want := (reservation.SweepResult{Keys: 2100, Batches: 4, Looked: true}); err != nil ||
		result != want {
		t.Errorf("Sweep() = %+v, %v, want %+v", result, err, want)
	}
	if n := queryOne[int](f,
		"SELECT count(*) FROM idempotency_keys WHERE key LIKE 'young%'"); n != 10 {
		t.Errorf("%d young keys are left, want 10", n)
	}
}

func TestAnIdleSweepReadsFewPages(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	ctx := f.Context()
	row := f.stock(100_000)
	f.bulk(row, 20_000, reservation.Expired)
	for range 20 {
		f.hold(row)
	}
	conn, err := f.Admin.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	const sweep = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT expired FROM sweep_holds(1000)"

	var answer []byte
	for range 2 { // the first run also reads the function and makes its plan
		if err := conn.QueryRow(ctx, sweep).Scan(&answer); err != nil {
			t.Fatal(err)
		}
	}

	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(answer, &plans); err != nil {
		t.Fatal(err)
	}
	pages := queryOne[int](f, "SELECT pg_relation_size('reservations') / 8192")
	if n := plans[0].Plan.Hit + plans[0].Plan.Read; n > 12 || pages < 200 {
		t.Errorf("an idle sweep of a table of %d pages read %d, want at most 12 of 200 or more",
			pages, n)
	}
}

// Twenty stock rows have a hundred dead holds each, which died in turns. If a batch simply took the
// oldest holds, each batch would update every row.
func TestSweepUpdatesAStockRowOnceForManyHolds(t *testing.T) {
	t.Parallel()

	updates := func(change func(*fixture)) int {
		f := newFixture(t, 1)
		change(f)
		f.mutate("sweep_holds", "random() < f.n / 512.0", "false") // raises of first_end
		rows := f.stocks(slices.Repeat([]int{1000}, 20)...)
		for _, row := range rows {
			f.bulk(row, 100, reservation.Pending)
		}
		f.Exec("CREATE TABLE updates ()")
		f.Exec(`
CREATE FUNCTION count_update() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN INSERT INTO updates DEFAULT VALUES; RETURN NULL; END'`)
		f.Exec(`
CREATE TRIGGER count_update AFTER UPDATE ON inventory
FOR EACH ROW EXECUTE FUNCTION count_update()`)
		result, err := f.services()[0].Sweep(f.Context())
		if err != nil || result.Expired != 2000 {
			t.Errorf("Sweep() = %+v, %v, want 2000 holds", result, err)
		}
		f.mustAudit(t)
		return queryOne[int](f, "SELECT count(*) FROM updates")
	}
	if n := updates(func(*fixture) {}); n != 20 {
		t.Errorf("the sweep made %d updates of 20 stock rows, want one of each", n)
	}
	// The control: a sweep that takes only a few of a row's dead holds updates the row again and
	// again.
	if n := updates(func(f *fixture) {
		f.mutate("sweep_holds", "ORDER BY r.expires_at LIMIT _limit FOR NO KEY UPDATE SKIP LOCKED",
			"ORDER BY r.expires_at LIMIT 50 FOR NO KEY UPDATE SKIP LOCKED")
	}); n < 40 {
		t.Errorf("a sweep that takes fifty holds of a row made %d updates, want 40 or more", n)
	}
}

// Other callers may have locked the oldest dead holds, and more of them than one batch looks at.
// The sweep must skip them all.
func TestSweepSkipsManyLockedHolds(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	rows := f.stocks(3000, 3000)
	f.bulk(rows[1], 300, reservation.Pending)
	f.bulk(rows[0], 1500, reservation.Pending) // this row has the oldest holds
	tx := f.lock("SELECT 1 FROM reservations WHERE product_id = $1 FOR UPDATE",
		rows[0].ProductID.String())

	result, err := f.services()[0].Sweep(f.Context())

	if err != nil || result.Expired != 300 || result.More {
		t.Errorf("Sweep() beside 1500 locked holds = %+v, %v, want the 300 behind them", result,
			err)
	}
	if err := tx.Rollback(f.Context()); err != nil {
		t.Fatal(err)
	}
	if result, err := f.services()[0].Sweep(f.Context()); err != nil || result.Expired != 1500 {
		t.Errorf("Sweep() afterwards = %+v, %v, want 1500 holds", result, err)
	}
	f.mustAudit(t)
}

// A batch takes carts for at most a fifth of its limit, 200, so the sweep needs a second batch.
func TestSweepExpiresMoreCartsThanOneBatchHolds(t *testing.T) {
	t.Parallel()

	const carts = 250
	f := newFixture(t, 1)
	rows := f.stocks(1000, 1000)
	for range carts {
		f.kill(f.hold(rows...))
	}

	result, err := f.services()[0].Sweep(f.Context())

	if err != nil || result.Expired != carts || result.Units != 2*carts || result.More {
		t.Errorf("Sweep() = %+v, %v, want %d carts", result, err, carts)
	}
	f.mustAudit(t)
}

// A sweep that finds only locked holds must end instead of searching again and again.
func TestASweepEndsWhenAllDeadHoldsAreLocked(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	row := f.stock(3000)
	f.bulk(row, 1200, reservation.Pending)
	tx := f.lock("SELECT 1 FROM reservations FOR UPDATE")

	result, err := f.services()[0].Sweep(f.Context())

	if err != nil || result.Expired != 0 || result.Batches != 2 || result.More {
		t.Errorf("Sweep() while all holds are locked = %+v, %v, want 2 batches and no hold", result,
			err)
	}
	if err := tx.Rollback(f.Context()); err != nil {
		t.Fatal(err)
	}
	if result, err := f.services()[0].Sweep(f.Context()); err != nil || result.Expired != 1200 {
		t.Errorf("Sweep() afterwards = %+v, %v, want 1200 holds", result, err)
	}
	f.mustAudit(t)
}

func TestAKilledSweepChangesNothingByHalves(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	mustHold(t, 2, func(ctx context.Context, f *fixture, r *report) {
		rows := f.stocks(3000, 3000)
		f.bulk(rows[0], 1500, reservation.Pending)
		f.bulk(rows[1], 700, reservation.Pending)
		f.kill(f.hold(rows...))
		cancelled, cancel := context.WithCancel(ctx)
		defer cancel()
		kills := []struct {
			ctx  context.Context
			kill func() error
		}{
			{ctx, func() error { return pgtest.Wait(ctx, f.Admin, terminateSQL) }},
			{cancelled, func() error {
				defer cancel()
				return pgtest.Wait(ctx, f.Admin, waitingSQL, 1)
			}},
		}
		var expired, units int64 // counted by the batches before the killed one
		for i, k := range kills {
			tx := f.lock(lockStockSQL, rows[1].ProductID.String())

			together(2, func(n int) {
				if n == 1 {
					err := k.kill()
					r.check(err == nil, "error", "kill the sweep: %v", err)
					return
				}
				result, err := newService(f.callers[i]).Sweep(k.ctx)
				r.check(errors.Is(err, reservation.ErrUnavailable), "error",
					"Sweep() that is killed = %+v, %v, want %v", result, err,
					reservation.ErrUnavailable)
				expired, units = expired+result.Expired, units+result.Units
			})

			r.check(tx.Rollback(ctx) == nil, "error", "unlock the stock row")
			violations, err := newService(f.own).Audit(ctx)
			r.check(err == nil && len(violations) == 0, "I9",
				"Audit() after a killed sweep = %v, %v", violations, err)
		}

		result, err := newService(f.own).Sweep(ctx)
		expired, units = expired+result.Expired, units+result.Units
		r.check(err == nil && result.Expired > 0 && expired == 2201 && units == 2202, "I9",
			"Sweep() afterwards = %+v, %v, together %d holds of %d units, want 2201 of 2202",
			result, err, expired, units)
		for _, row := range rows {
			r.checkStock(f, row, counts{Total: 3000})
		}
	})
}

func TestSweepOfALockedStockRowIsBusyAndStillRemovesKeys(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 1)
	ctx := f.Context()
	row := f.stock(5)
	answer, err := newService(f.own).Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{row}, Key: "old"})
	if err != nil {
		t.Fatal(err)
	}
	f.kill(answer.Hold)
	f.Exec(`
UPDATE idempotency_keys SET created_at = clock_timestamp() - interval '24 h' WHERE key = 'old'`)
	f.lock(lockStockSQL, row.ProductID.String())

	result, err := f.services()[0].Sweep(ctx)

	want := reservation.SweepResult{Keys: 1, Batches: 1}
	if !errors.Is(err, reservation.ErrBusy) || result != want {
		t.Errorf("Sweep() beside a locked stock row = %+v, %v, want %+v, %v", result, err, want,
			reservation.ErrBusy)
	}
	if got := f.status(answer.Hold); got != reservation.Pending {
		t.Errorf("the dead hold is %s, want it left PENDING for the next sweep", got)
	}
	f.mustAudit(t)
}

// A thousand carts of a hundred lines have a hundred thousand rows, too many for one transaction.
// So a batch also limits the lines.
func TestSweepBatchesCountTheLinesOfCarts(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	const carts = 25
	totals := make([]int, reservation.MaxLines)
	for i := range totals {
		totals[i] = carts
	}
	rows := f.stocks(totals...)
	for range carts {
		f.kill(f.hold(rows...))
	}
	s := f.services()[0]

	result, err := s.Sweep(f.Context())

	result.Oldest = 0
	// Ten carts have the thousand lines of a batch, so there are three batches of carts, and one that
	// finds no keys.
	want := reservation.SweepResult{
		Expired: carts, Units: carts * reservation.MaxLines, Batches: 4, Looked: true,
	}
	if diff := cmp.Diff(want, result); err != nil || diff != "" {
		t.Errorf("Sweep() differs (-want +got), %v:\n%s", err, diff)
	}
	f.mustAudit(t)
}
