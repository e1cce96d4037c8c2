package reservation_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

const (
	// lockTimeout is the role's lock_timeout.
	lockTimeout = 2 * time.Second

	// A call that no limit ends takes longer than unlimited: the lock stays for a minute.
	unlimited = 30 * time.Second
)

// lock runs a statement that locks something, in a session of its own. The lock lasts until the
// returned transaction or the test ends.
func (f *fixture) lock(sql string, args ...any) pgx.Tx {
	f.t.Helper()
	ctx := f.Context()
	tx, err := f.Admin.Begin(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { tx.Rollback(context.WithoutCancel(ctx)) })
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return tx
}

const (
	lockHoldSQL   = "SELECT 1 FROM reservations WHERE id = $1 FOR UPDATE"
	lockStockSQL  = "SELECT 1 FROM inventory WHERE product_id = $1 FOR UPDATE"
	lockStocksSQL = "SELECT 1 FROM inventory WHERE product_id = ANY ($1) FOR UPDATE"
	lockHoldsSQL  = "SELECT 1 FROM reservations WHERE id = ANY ($1) FOR UPDATE"
)

// Each call waits for a row of its own. Two calls in one queue would wait one after the other.
func TestCallsOfLockedRowsAreBusyAndChangeNothing(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 7)
	ctx := f.Context()
	services := f.services()
	rows := f.stocks(10, 10, 10, 10, 10, 10, 10)
	confirmed, released := f.hold(rows[0], rows[1]), f.hold(rows[2])
	extended, read, late := f.hold(rows[6]), f.hold(rows[6]), f.hold(rows[6])
	f.kill(read, late)
	locked := []string{
		rows[1].ProductID.String(),
		rows[2].ProductID.String(),
		rows[3].ProductID.String(),
		rows[5].ProductID.String(),
	}
	tx := f.lock(lockStocksSQL, locked)
	if _, err := tx.Exec(ctx, lockHoldsSQL,
		[]string{extended.ID.String(), read.ID.String(), late.ID.String()}); err != nil {
		t.Fatal(err)
	}
	calls := []func() error{
		func() error {
			_, err := services[0].Reserve(ctx, reservation.Request{Lines: rows[3:4], Key: "line"})
			return err
		},
		func() error {
			_, err := services[1].Reserve(ctx, reservation.Request{Lines: rows[4:6], Key: "cart"})
			return err
		},
		func() error { _, err := services[2].Confirm(ctx, confirmed.ID, "confirm"); return err },
		func() error { _, err := services[3].Release(ctx, released.ID, "release"); return err },
		func() error {
			_, err := services[4].Extend(ctx, extended.ID, time.Minute, "extend")
			return err
		},
		func() error { _, err := services[5].Get(ctx, read.ID); return err },
		func() error { _, err := services[6].Confirm(ctx, late.ID, "late"); return err },
	}

	together(len(calls), func(i int) {
		start := time.Now()
		err := calls[i]()
		if took := time.Since(start); !errors.Is(err, reservation.ErrBusy) || took < lockTimeout {
			t.Errorf("call %d = %v after %s, want %v after %s", i, err, took, reservation.ErrBusy,
				lockTimeout)
		}
	})

	for i, want := range []int{1, 1, 1, 0, 0, 0, 3} {
		if got := f.counts(rows[i]); got != (counts{Total: 10, Reserved: want}) {
			t.Errorf("row %d is %+v, want %d reserved", i, got, want)
		}
	}
	if n := queryOne[int](f, "SELECT count(*) FROM idempotency_keys"); n != 0 {
		t.Errorf("%d keys were stored, want none", n)
	}
	for _, hold := range []reservation.Hold{confirmed, released, extended} {
		if got := f.status(hold); got != reservation.Pending {
			t.Errorf("hold %s is %s, want PENDING", hold.ID, got)
		}
	}
	f.mustAudit(t)
}

// A caller behind the first one waits for the end of that one, and then for the lock itself. So
// statement_timeout, five seconds, bounds the wait of the last caller.
func TestEveryCallerInAQueueForALockedRowGetsAnAnswer(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, fewCallers)
	ctx := f.Context()
	row := f.stock(100)
	f.lock(lockStockSQL, row.ProductID.String())
	services := f.services()

	together(len(services), func(i int) {
		start := time.Now()
		_, err := services[i].Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}})
		answered := errors.Is(err, reservation.ErrBusy) ||
			errors.Is(err, reservation.ErrUnavailable)
		if took := time.Since(start); !answered || took > unlimited {
			t.Errorf("Reserve() of a locked row = %v after %s, want %v", err, took,
				reservation.ErrBusy)
		}
	})

	if got := f.counts(row); got != (counts{Total: 100}) {
		t.Errorf("the stock is %+v, want it untouched", got)
	}
	f.mustAudit(t)
}

func TestARefusalWaitsForNoLock(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		row := f.stock(1)
		f.hold(row)
		tx := f.lock(lockStockSQL, row.ProductID.String())
		start := time.Now()

		_, err := f.services()[0].Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}})

		r.check(isShort(err) && time.Since(start) < unlimited, "error",
			"Reserve() of a sold-out and locked row = %v after %s, want it short at once", err,
			time.Since(start))
		r.check(tx.Rollback(ctx) == nil, "error", "roll back the other session")
	})
}

func TestAHoldThatWaitedForItsRowBeginsWhenItGetsTheLock(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfLateReserve)
}

// raceOfLateReserve lets a reserve wait for its stock row for a third of its TTL. The hold must
// still last for the whole TTL, and the answer that is stored under the key must be the one that
// the caller got.
func raceOfLateReserve(ctx context.Context, f *fixture, r *report) {
	const ttl = time.Second
	s := f.services()[0]
	for _, lines := range [][]reservation.Line{f.stocks(5), f.stocks(5, 5)} {
		request := reservation.Request{Lines: lines, TTL: ttl, Key: uuid.NewString()}
		tx := f.lock(lockStockSQL, lines[0].ProductID.String())
		var answer reservation.Answer
		var released time.Time

		together(2, func(i int) {
			var err error
			if i == 0 {
				answer, err = s.Reserve(ctx, request)
				r.check(err == nil, "error", "Reserve() = %v", err)
				return
			}
			const soon = "SELECT clock_timestamp() + interval '350 ms'"
			err = errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1),
				f.Admin.QueryRow(ctx, soon).Scan(&released))
			err = errors.Join(err,
				pgtest.Wait(ctx, f.Admin, "SELECT clock_timestamp() >= $1", released),
				tx.Commit(ctx))
			r.check(err == nil, "error", "the other session: %v", err)
		})

		hold := answer.Hold
		r.check(!hold.CreatedAt.Before(released), "I4",
			"a hold that waited until %s began at %s", released, hold.CreatedAt)
		r.check(hold.ExpiresAt.Sub(hold.CreatedAt) == ttl, "I4",
			"the hold lasts from %s to %s, want %s", hold.CreatedAt, hold.ExpiresAt, ttl)
		replay, err := s.Reserve(ctx, request)
		r.check(err == nil && cmp.Equal(replay.Hold, hold), "I6",
			"Reserve() again = %+v, %v, want %+v", replay, err, hold)
	}
}

func TestAHoldThatWaitedIsShorterWithoutARestart(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("reserve_line", "IF clock_timestamp() > _latest THEN", "IF false THEN")
	}, raceOfLateReserve)
}

func TestACallWhoseKeyIsInUseIsRefused(t *testing.T) {
	t.Parallel()

	f := newFixtureWithLimits(t, 1)
	ctx := f.Context()
	row := f.stock(1)
	f.lock("SELECT pg_advisory_xact_lock(1, hashtext('key'))")

	_, err := f.services()[0].Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{row}, Key: "key"})

	if !errors.Is(err, reservation.ErrKeyInUse) {
		t.Errorf("Reserve() = %v, want %v", err, reservation.ErrKeyInUse)
	}
	if got := f.counts(row); got != (counts{Total: 1}) {
		t.Errorf("the stock is %+v, want it untouched", got)
	}
}

func TestUnreachableDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts connections and answers nothing
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()

	for name, address := range map[string]string{
		"silent": listener.Addr().String(), "refusing": refusing.Addr().String(),
	} {
		pool := openPool(t, "postgres://nobody@"+address+"/nothing?sslmode=disable", 1)
		s := reservation.New(pool, reservation.Options{HoldTTL: holdTTL, MaxHold: maxHold})
		id := uuid.New()
		line := reservation.Line{ProductID: uuid.New(), WarehouseID: uuid.New(), Quantity: 1}
		for verb, call := range map[string]func(context.Context) error{
			"Reserve": func(ctx context.Context) error {
				_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{line}})
				return err
			},
			"Confirm": func(ctx context.Context) error { _, err := s.Confirm(ctx, id, ""); return err },
			"Extend": func(ctx context.Context) error {
				_, err := s.Extend(ctx, id, time.Minute, "")
				return err
			},
			"Get": func(ctx context.Context) error { _, err := s.Get(ctx, id); return err },
			"ListProducts": func(ctx context.Context) error {
				_, _, err := s.ListProducts(ctx, reservation.Cursor{}, 1)
				return err
			},
			"ListWarehouses": func(ctx context.Context) error {
				_, _, err := s.ListWarehouses(ctx, reservation.Cursor{}, 1)
				return err
			},
			"Sweep": func(ctx context.Context) error { _, err := s.Sweep(ctx); return err },
			"Ping":  s.Ping,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			start := time.Now()
			err := call(ctx)
			cancel()
			if !errors.Is(err, reservation.ErrUnavailable) || time.Since(start) > 4*time.Second {
				t.Errorf("%s() of a %s database = %v after %s, want %v", verb, name, err,
					time.Since(start), reservation.ErrUnavailable)
			}
		}
	}
}

func TestInterruptedCallIsUnavailable(t *testing.T) {
	t.Parallel()
	pgtest.WithoutPooler(t)

	f := newFixture(t, 1)
	row := f.stock(5)
	f.lock(lockStockSQL, row.ProductID.String())
	s := f.services()[0]
	reserve := func(ctx context.Context) error {
		_, err := s.Reserve(ctx, reservation.Request{Lines: []reservation.Line{row}})
		return err
	}

	var terminated, cancelled error
	together(2, func(i int) {
		if i == 0 {
			terminated = reserve(f.Context())
		} else if err := pgtest.Wait(f.Context(), f.Admin, terminateSQL); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(f.Context())
	together(2, func(i int) {
		if i == 0 {
			cancelled = reserve(ctx)
			return
		}
		if err := pgtest.Wait(f.Context(), f.Admin, waitingSQL, 1); err != nil {
			t.Error(err)
		}
		cancel()
	})
	f.Exec("ALTER ROLE CURRENT_USER IN DATABASE " + pgx.Identifier{f.Name}.Sanitize() +
		" SET statement_timeout = '100ms'")
	f.callers[0].Reset()
	timedOut := reserve(f.Context())

	for name, err := range map[string]error{
		"was terminated": terminated, "was cancelled": cancelled, "timed out": timedOut,
	} {
		if !errors.Is(err, reservation.ErrUnavailable) {
			t.Errorf("Reserve() that %s = %v, want %v", name, err, reservation.ErrUnavailable)
		}
	}
	if got := f.counts(row); got != (counts{Total: 5}) {
		t.Errorf("the stock is %+v, want it untouched", got)
	}
}

func TestADeadlockWithAnotherSessionIsRetried(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	rows := f.stocks(5, 5)
	// A session looks for a deadlock once, deadlock_timeout after its wait began. The stranger closes
	// the circle of waits before that, so the service's session finds the deadlock.
	f.Exec("ALTER DATABASE " + pgx.Identifier{f.Name}.Sanitize() + " SET deadlock_timeout = '3s'")
	stranger := f.lock("SET LOCAL deadlock_timeout = '1min'")
	if _, err := stranger.Exec(ctx, lockStockSQL, rows[1].ProductID.String()); err != nil {
		t.Fatal(err)
	}
	s := f.services()[0]
	var err error

	together(2, func(i int) {
		if i == 0 {
			_, err = s.Reserve(ctx, reservation.Request{Lines: rows})
			return
		}
		if err := pgtest.Wait(ctx, f.Admin, waitingSQL, 1); err != nil {
			t.Error(err)
		}
		if _, err := stranger.Exec(ctx, lockStockSQL, rows[0].ProductID.String()); err != nil {
			t.Errorf("the stranger: %v", err)
		}
		if err := stranger.Commit(ctx); err != nil {
			t.Errorf("the stranger: %v", err)
		}
	})

	// The second try may lock its first row before the stranger wakes up, and so meet a second
	// deadlock.
	if err != nil || s.Retries() < 1 {
		t.Errorf("Reserve() in a deadlock = %v after %d retries, want success after one or two",
			err, s.Retries())
	}
	if got := f.counts(rows[0]); got != (counts{Total: 5, Reserved: 1}) {
		t.Errorf("the stock is %+v, want one reserved", got)
	}
	f.mustAudit(t)
}

func TestOnlyDeadlocksAndSerializationFailuresAreRetried(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		code    string
		retries int64
		want    error // nil for an internal error
	}{
		{"40P01", 3, reservation.ErrBusy},
		{"40001", 3, reservation.ErrBusy},
		{"55P03", 0, reservation.ErrBusy},
		{"57014", 0, reservation.ErrUnavailable},
		{"53300", 0, reservation.ErrUnavailable},
		{"25006", 0, reservation.ErrUnavailable},
		{"23514", 0, nil},
		{"23505", 0, nil},
		{"P0001", 0, nil},
		{"40003", 0, nil},
	} {
		t.Run(test.code, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			f.mutate("reserve_line", "_raise := _quantity;",
				"RAISE EXCEPTION 'a test' USING ERRCODE = '"+test.code+"';\n _raise := _quantity;")
			row := f.stock(1)
			s := f.services()[0]

			_, err := s.Reserve(f.Context(), reservation.Request{Lines: []reservation.Line{row}})

			if s.Retries() != test.retries {
				t.Errorf("Reserve() that fails with %s was tried again %d times, want %d",
					test.code, s.Retries(), test.retries)
			}
			busy := errors.Is(err, reservation.ErrBusy)
			unavailable := errors.Is(err, reservation.ErrUnavailable)
			if err == nil || busy != errors.Is(test.want, reservation.ErrBusy) ||
				unavailable != errors.Is(test.want, reservation.ErrUnavailable) {
				t.Errorf("Reserve() that fails with %s = %v, want %v", test.code, err, test.want)
			}
		})
	}
}
