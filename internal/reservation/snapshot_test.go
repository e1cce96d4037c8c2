package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// manyVersions is how many dead row versions a test makes under an old snapshot.
const manyVersions = 3000

// oldSnapshot opens a snapshot that lasts until the test ends.
func (f *fixture) oldSnapshot() {
	f.t.Helper()
	tx, err := f.Admin.BeginTx(f.t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { tx.Rollback(context.Background()) })
	if _, err := tx.Exec(f.Context(), "SELECT 1 FROM inventory"); err != nil {
		f.t.Fatal(err)
	}
}

// deadHolds inserts n dead holds of one unit and counts them as reserved. They ended within the
// last hour, not in the order in which they lie in the table.
func (f *fixture) deadHolds(row reservation.Line, n int) {
	f.t.Helper()
	f.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), $1, $2, 1, now() - interval '2 h', now() - interval '2 h',
       now() - interval '1 h' * (n * 7919 % $3) / $3
FROM generate_series(1, $3) n`, row.ProductID.String(), row.WarehouseID.String(), n)
	f.Exec("UPDATE inventory SET reserved = reserved + $1, first_end = '-infinity'"+
		" WHERE product_id = $2", n, row.ProductID.String())
}

// blocks returns how many blocks of the table and its indexes the statement reads.
func (f *fixture) blocks(table, sql string, args ...any) int {
	f.t.Helper()
	ctx := f.Context()
	conn, err := f.Admin.Acquire(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Release()
	read := func() (n int) {
		f.t.Helper()
		const sum = `
SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
FROM pg_statio_user_tables WHERE relname = $1`
		if _, err := conn.Exec(ctx, "SELECT pg_stat_force_next_flush()"); err != nil {
			f.t.Fatal(err)
		}
		if err := conn.QueryRow(ctx, sum, table).Scan(&n); err != nil {
			f.t.Fatal(err)
		}
		return n
	}
	before := read()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return read() - before
}

// soldOutUnderAnOldSnapshot makes a row whose units were held and reclaimed many times since the
// oldest snapshot, and are all held now.
func soldOutUnderAnOldSnapshot(f *fixture) reservation.Line {
	f.t.Helper()
	row := f.stock(manyVersions)
	f.deadHolds(row, manyVersions)
	f.oldSnapshot()
	f.Exec("CALL free_units($1, $2, $3, NULL)", row.ProductID.String(), row.WarehouseID.String(),
		manyVersions)
	f.hold(of(row, manyVersions))
	return row
}

func TestARefusalUnderAnOldSnapshotReadsFewBlocks(t *testing.T) {
	t.Parallel()

	const few = 50
	f := newFixture(t, 0)
	row := soldOutUnderAnOldSnapshot(f)
	f.mustAudit(t)
	product, warehouse := row.ProductID.String(), row.WarehouseID.String()
	for name, sql := range map[string]string{
		"a reserve": `
CALL reserve_line(gen_random_uuid(), $1, $2, 1, '1 min', NULL, NULL, NULL, NULL)`,
		"an adjustment":     "SELECT dead_units($1, $2, first_end_of($1, $2), NULL)",
		"a wait for a hold": "SELECT await_dead_hold($1, $2)",
	} {
		if n := f.blocks("reservations", sql, product, warehouse); n > few {
			t.Errorf("%s reads %d blocks of the holds, want at most %d", name, n, few)
		}
	}

	// The control: without the bound, the dead entries are in the way.
	f.Exec("UPDATE inventory SET first_end = '-infinity'")
	n := f.blocks("reservations", "SELECT dead_units($1, $2, first_end_of($1, $2), NULL)",
		product, warehouse)
	if n < 10*few {
		t.Errorf("without first_end it reads %d blocks, want at least %d", n, 10*few)
	}
}

func TestAVerbUnderAnOldSnapshotReadsFewVersionsOfItsStockRow(t *testing.T) {
	t.Parallel()

	const few = 40
	f := newFixture(t, 0)
	row := f.stock(manyVersions)
	held := f.hold(row)
	product, warehouse := row.ProductID.String(), row.WarehouseID.String()
	f.oldSnapshot()
	// next_epoch adds 1 at random; here it is every 256th time.
	f.Exec(fmt.Sprintf(`
DO $$ BEGIN
    FOR n IN 1..%d LOOP
        UPDATE inventory SET reserved = reserved, epoch = epoch + (n %% 256 = 0)::integer;
    END LOOP;
END $$`, 3*manyVersions))
	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"a reserve": {
			`
CALL reserve_line(gen_random_uuid(), $1, $2, 1, '1 min', NULL, NULL, NULL, NULL)`,
			[]any{product, warehouse},
		},
		"a release": {
			"CALL resolve_hold($1, 'RELEASED', 'v', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
			[]any{held.ID.String()},
		},
		"a refusal": {
			`
CALL reserve_line(gen_random_uuid(), $1, $2, 1000000, '1 min', NULL, NULL, NULL, NULL)`,
			[]any{product, warehouse},
		},
	} {
		if n := f.blocks("inventory", c.sql, c.args...); n > few {
			t.Errorf("%s reads %d blocks of the stock rows, want at most %d", name, n, few)
		}
	}

	// The control: by the primary key, every version since the snapshot is in the way.
	n := f.blocks("inventory",
		"SELECT total FROM inventory WHERE product_id = $1 AND warehouse_id = $2 AND epoch >= 0",
		product, warehouse)
	if n < 2*few {
		t.Errorf("without the epoch it reads %d blocks, want at least %d", n, 2*few)
	}
	f.mustAudit(t)
}

// growAlways lets every update of a stock row's counts change its epoch.
func growAlways(f *fixture) { f.mutate("next_epoch", "random() < 1.0 / 256", "true") }

func TestVerbsFindAStockRowWhoseEpochGrowsMeanwhile(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]race{"carts": raceOfOppositeCarts, "all": raceOfAllVerbs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustHold(t, someCallers, func(ctx context.Context, f *fixture, r *report) {
				growAlways(f)
				body(ctx, f, r)
			})
		})
	}
}

// A row that was locked after a wait may have a higher epoch than the version that the statement's
// snapshot sees, so a search by it finds nothing.
func TestAConfirmLosesAStockRowByTheEpochOfItsLockedVersion(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "error", func(f *fixture) {
		growAlways(f)
		f.mutate("give_up_units", "newest.epoch, l.quantity", "i.epoch, l.quantity")
	}, raceOfOppositeCarts)
}

// raiseAlways lets every verb that may raise first_end do so. It may be called again.
func raiseAlways(f *fixture) {
	f.t.Helper()
	if queryOne[bool](f, "SELECT to_regclass('raises_always') IS NOT NULL") {
		return
	}
	f.Exec("CREATE TABLE raises_always ()")
	f.mutate("reserve_line", "IF _raise < _quantity OR", "IF true OR")
	f.mutate("reserve_line", "_raise < _quantity AND random() < 0.03", "true")
	f.mutate("reserve_cart", "NOT _fits AND random() < 0.03", "true")
	f.mutate("take_units", "IF random() < 0.03", "IF true")
	f.mutate("give_up_units", "IF random() < 0.015 THEN", "IF true THEN")
	f.mutate("give_up_units", "WHERE _first_end < clock_timestamp() - interval '5 s'", "WHERE true")
	f.mutate("sweep_holds", "random() < f.n / 512.0", "true")
}

// raceForFirstEnd lets callers make, shorten, kill, resolve and sweep holds of two stock rows,
// while every verb raises first_end. The audit then compares it with all holds.
func raceForFirstEnd(ctx context.Context, f *fixture, r *report) {
	raiseAlways(f)
	const units, rounds = 6, 12
	services := f.services()
	rows := f.stocks(units, units)

	together(len(services), func(i int) {
		s := services[i]
		for round := range rounds {
			lines := rows[i%2 : i%2+1]
			if (i+round)%3 == 0 {
				lines = rows
			}
			request := reservation.Request{Lines: lines}
			if (i+round)%5 == 0 {
				request.Reference = "by take_units"
			}
			answer, err := s.Reserve(ctx, request)
			if isShort(err) || errors.Is(err, reservation.ErrBusy) {
				continue
			}
			r.check(err == nil, "error", "Reserve() = %v", err)
			if err != nil {
				return
			}
			switch (i + round) % 4 {
			case 0:
				_, err = s.Release(ctx, answer.Hold.ID, "")
			case 1:
				_, err = s.Extend(ctx, answer.Hold.ID, time.Second, "")
			default:
				err = pgtest.KillHold(ctx, f.Admin, answer.Hold.ID)
			}
			r.check(err == nil, "error", "a verb for a hold of its caller = %v", err)
			if i == 0 {
				_, err = s.Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
			}
		}
	})
}

func TestNoHoldEndsBeforeFirstEnd(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceForFirstEnd)
}

// raceAfterAJumpBack holds a unit when the clock is behind first_end, and lets the hold die. A
// caller must find it.
func raceAfterAJumpBack(ctx context.Context, f *fixture, r *report) {
	rows, detailed := f.stocks(1, 1), f.stock(1)
	f.Exec("UPDATE inventory SET first_end = clock_timestamp() + interval '1 h'")
	services := f.services()
	reserveAs := func(reference string, lines ...reservation.Line) {
		_, err := services[0].Reserve(ctx,
			reservation.Request{Lines: lines, TTL: time.Second, Reference: reference})
		r.check(err == nil, "I4", "Reserve() = %v", err)
	}
	reserve := func(lines ...reservation.Line) { reserveAs("", lines...) }
	waitForEnd := func() {
		f.WaitUntil(`
SELECT coalesce(max(expires_at) <= clock_timestamp(), true) FROM reservations
WHERE status = 'PENDING'`)
	}

	reserve(rows[0])
	waitForEnd()
	reserve(rows[0])
	waitForEnd()
	reserve(rows...)
	reserveAs("by take_units", detailed)
	waitForEnd()
	reserve(rows...)
	reserve(detailed)
}

func TestAReserveLowersFirstEndAfterAJumpBackOfTheClock(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceAfterAJumpBack)
}

func TestADeadHoldIsLostWhenAReserveDoesNotLowerFirstEnd(t *testing.T) {
	t.Parallel()

	for routine, change := range map[string][2]string{
		"reserve_line": {"first_end = least(first_end, _now + _ttl),", ""},
		"reserve_cart": {"first_end = least(i.first_end, _now + _ttl),", ""},
		"take_units":   {"least(i.first_end, _end)", "i.first_end"},
	} {
		mustBreak(t, 1, "I4", func(f *fixture) { f.mutate(routine, change[0], change[1]) },
			raceAfterAJumpBack)
	}
}

// shortenSQL lets the hold $1 end as soon as it began.
const shortenSQL = `
WITH moved AS (
    UPDATE reservations SET expires_at = updated_at + interval '1 us', version = version + 1
    WHERE id = $1
    RETURNING *
)` + movedSQL

// raceOfAShorterHold moves the end of a hold and of a cart down while a reserve raises first_end.
// The reserve's snapshot has the later end.
func raceOfAShorterHold(ctx context.Context, f *fixture, r *report) {
	raiseAlways(f)
	for lines := 1; lines <= 2; lines++ {
		rows := f.stocks(5, 5)
		hold := f.hold(rows[:lines]...)
		f.Exec(`
UPDATE inventory SET first_end = clock_timestamp() - interval '1 h' WHERE product_id = $1`,
			rows[0].ProductID.String())
		tx, err := f.Admin.Begin(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, shortenSQL, hold.ID.String()); err != nil {
			f.t.Fatal(err)
		}
		together(2, func(i int) {
			if i == 0 {
				_, err := f.services()[0].Reserve(ctx, reservation.Request{Lines: rows[:1]})
				r.check(err == nil, "error", "Reserve() = %v", err)
				return
			}
			// With the guard the reserve waits for the stock row; without it, it ends.
			err := errors.Join(pgtest.Wait(ctx, f.Admin, `
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
UNION ALL
SELECT count(*) > 0 FROM reservations WHERE status = 'PENDING' AND created_at > $1
ORDER BY 1 DESC LIMIT 1`, hold.CreatedAt), tx.Commit(ctx))
			r.check(err == nil, "error", "the other session: %v", err)
		})
	}
}

func TestFirstEndFollowsAHoldThatIsShortened(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfAShorterHold)
}

func TestAShortenedHoldIsLostWithoutItsTrigger(t *testing.T) {
	t.Parallel()

	for name, mutate := range map[string]func(*fixture){
		"no trigger of the holds": func(f *fixture) {
			f.Exec("DROP TRIGGER IF EXISTS first_end_follows_hold ON reservations")
		},
		"no trigger of the lines": func(f *fixture) {
			f.Exec("DROP TRIGGER IF EXISTS first_end_follows_line ON reservation_items")
		},
		"no lock when the value stays": func(f *fixture) {
			f.mutate("lower_first_end", "AND warehouse_id = new.warehouse_id",
				"AND warehouse_id = new.warehouse_id AND first_end > new.expires_at")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, "I4", mutate, raceOfAShorterHold)
		})
	}
}

// raceForTheSnapshotOfARaise raises first_end while another session holds a unit by a clock that is
// an hour behind.
func raceForTheSnapshotOfARaise(ctx context.Context, f *fixture, r *report, first string) {
	row := f.stock(5)
	product, warehouse := row.ProductID.String(), row.WarehouseID.String()
	behind := f.lock(`
WITH hold AS (
    INSERT INTO reservations
           (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
    VALUES (gen_random_uuid(), $1, $2, 1, now() - interval '2 h', now() - interval '2 h',
            now() - interval '1 h')
    RETURNING expires_at
)
UPDATE inventory i SET reserved = i.reserved + 1, first_end = least(i.first_end, h.expires_at)
FROM hold h WHERE i.product_id = $1`, product, warehouse)
	together(2, func(i int) {
		if i == 0 {
			err := pgx.BeginFunc(ctx, f.Admin, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, first, product)
				if err == nil {
					_, err = tx.Exec(ctx, "SELECT raise_first_end($1, $2)", product, warehouse)
				}
				return err
			})
			r.check(err == nil, "error", "raise_first_end() = %v", err)
			return
		}
		err := errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1), behind.Commit(ctx))
		r.check(err == nil, "error", "the other session: %v", err)
	})
}

func TestARaiseOfFirstEndSeesTheHoldsThatItsRowCounts(t *testing.T) {
	t.Parallel()

	mustHold(t, 0, func(ctx context.Context, f *fixture, r *report) {
		raceForTheSnapshotOfARaise(ctx, f, r, lockStockSQL)
	})
}

func TestARaiseOfFirstEndMissesAHoldWithoutTheStockRowsLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 0, "I4", func(*fixture) {}, func(ctx context.Context, f *fixture, r *report) {
		raceForTheSnapshotOfARaise(ctx, f, r, "SELECT $1::uuid")
	})
}

// Two extends that shorten carts of the same stock rows must lock these in the same order.
func raceOfShortenedCarts(ctx context.Context, f *fixture, r *report) {
	const rounds = 30
	services := f.services()
	rows := f.stocks(1000, 1000, 1000)
	together(len(services), func(i int) {
		for range rounds {
			answer, err := services[i].Reserve(ctx, reservation.Request{Lines: rows})
			if err == nil {
				_, err = services[i].Extend(ctx, answer.Hold.ID, time.Minute, "")
			}
			r.check(err == nil, "error", "Reserve() and Extend() = %v", err)
		}
	})
}

func TestExtendsThatShortenCartsDoNotDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, 4, raceOfShortenedCarts)
}

func TestExtendsThatShortenCartsDeadlockWithoutTheLockOrder(t *testing.T) {
	t.Parallel()

	mustBreak(t, 4, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("lock_stock_of_shortened_cart", "ORDER BY i.product_id, i.warehouse_id",
			"ORDER BY random()")
		f.mutate("lock_stock_of_shortened_cart", "PERFORM FROM inventory",
			"PERFORM pg_sleep(0.002) FROM inventory")
	}, raceOfShortenedCarts)
}
