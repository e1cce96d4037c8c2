package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

func TestManyCallersOfOneOwnerNeverPassTheLimit(t *testing.T) {
	t.Parallel()

	mustHold(t, 200, raceOfOneOwner)
}

// raceOfOneOwner lets all callers reserve a limited product for one owner at once: from either of
// two warehouses, and from both. Another product, which is limited too, makes a second lock. So
// many callers may be busy, or unavailable on a slow machine: each tries again under its key.
func raceOfOneOwner(ctx context.Context, f *fixture, r *report) {
	const most = 10
	services := f.services()
	owner := uuid.NewString()
	rows := f.stocks(1000, 1000)
	rows = append(rows, f.elsewhere(rows[0], 1000))
	f.limit(0, most, rows[0])
	f.limit(0, 1000, rows[1])
	var units, again atomic.Int64
	together(len(services), func(i int) {
		request := reservation.Request{
			Lines: wanted(rows, [][]int{{1}, {0, 0, 1}, {1, 1}, {1, 0, 1}}[i%4]),
			Owner: owner, Key: fmt.Sprint(owner, i),
		}
		_, err := services[i].Reserve(ctx, request)
		for ctx.Err() == nil &&
			(errors.Is(err, reservation.ErrBusy) || errors.Is(err, reservation.ErrUnavailable)) {
			again.Add(1)
			_, err = services[i].Reserve(ctx, request)
		}
		switch limits := limitsOf(err); {
		case err == nil:
			units.Add(int64([]int{1, 1, 1, 2}[i%4]))
		case limits == nil:
			r.check(false, "error", "Reserve() = %v", err)
		default:
			r.check(len(limits) == 1 && limits[0].Max == most && limits[0].Used > most-2, "I12",
				"Reserve() is refused for %+v", limits)
		}
	})

	f.t.Logf("%d callers tried again %d times", len(services), again.Load())
	r.check(units.Load() == most, "I12", "one owner got %d units, want %d", units.Load(), most)
	r.checkOwner(ctx, f, owner, rows[0], int(units.Load()))
	r.checkRetries(services)
}

func TestAnOwnerPassesTheLimitWithoutTheOwnersLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, fewCallers, "I12", func(f *fixture) {
		f.mutate("lock_owner", "PERFORM pg_advisory_xact_lock(_number);", "NULL;")
	}, raceOfOneOwner)
}

func TestTheLimitHoldsThroughAllThatAnOwnerDoes(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfAnOwnersTurns)
}

// raceOfAnOwnersTurns lets the callers do all that changes what an owner has of a limited product,
// while holds die and two sweeps run. Another caller reads the sum again and again.
func raceOfAnOwnersTurns(ctx context.Context, f *fixture, r *report) {
	const turns, most, sweepers = 12, 6, 2
	services := f.services()
	owner := uuid.NewString()
	rows := f.stocks(1000, 1000)
	rows = append(rows, f.elsewhere(rows[0], 1000))
	f.limit(0, most, rows[0])
	var busy, reads atomic.Int64
	busy.Store(int64(len(services) - sweepers - 1))

	together(len(services), func(i int) {
		switch {
		case i == 0:
			for busy.Load() > 0 && !r.anyBroken() {
				used, err := f.ownerUnits(ctx, owner, rows[0])
				r.check(err == nil && used <= most, "I12", "the owner has %d units, %v, more than %d",
					used, err, most)
				reads.Add(1)
			}
		case i <= sweepers:
			for busy.Load() > 0 {
				_, err := services[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
			}
		default:
			defer busy.Add(-1)
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range turns {
				if r.anyBroken() {
					return
				}
				ownersTurn(ctx, f, r, services[i], random, owner, rows)
			}
		}
	})

	r.checkRetries(services)
	used, err := f.ownerUnits(ctx, owner, rows[0])
	r.check(err == nil && used <= most, "I12", "the owner has %d units in the end, %v", used, err)
	f.t.Logf("%d reads of the sum; in the end it is %d", reads.Load(), used)
}

// ownersTurn reserves some units for the owner, and then confirms, releases, replaces or returns
// them, or pays for them when they are gone.
func ownersTurn(
	ctx context.Context, f *fixture, r *report, s *reservation.Service, random *rand.Rand,
	owner string, rows []reservation.Line,
) {
	lines := func() []reservation.Line {
		units := [][]int{{1 + random.IntN(2)}, {0, 1, 2}, {1, 1, 1}, {1, 0, 1}}
		return wanted(rows, units[random.IntN(len(units))])
	}
	answer, err := reserveFor(ctx, s, owner, lines()...)
	if err != nil {
		r.check(limitsOf(err) != nil, "error", "Reserve() = %v", err)
		return
	}
	hold := answer.Hold
	switch random.IntN(5) {
	case 0:
		_, err = s.Release(ctx, hold.ID, "")
	case 1:
		if answer, err = s.Reserve(ctx, reservation.Request{
			Lines: lines(), Owner: owner, Replaces: &hold.ID,
		}); err == nil {
			_, err = s.Release(ctx, answer.Hold.ID, "")
		}
	case 2:
		if _, err = s.Confirm(ctx, hold.ID, ""); err == nil {
			err = giveBack(ctx, s, hold)
		}
	default:
		if err = pgtest.KillHold(ctx, f.Admin, hold.ID); err != nil {
			break
		}
		answer, err = s.ConfirmPayment(ctx, hold.ID, "p", true, "")
		var lost *reservation.PaymentLostError
		if errors.As(err, &lost) {
			r.check(len(lost.Limits) == 1 && len(lost.Shortages) == 0, "error", "the payment is lost: %+v",
				lost)
			err = nil
		} else if err == nil {
			err = giveBack(ctx, s, answer.Hold)
		}
	}
	r.check(err == nil || limitsOf(err) != nil, "error", "an owner's turn = %v", err)
}

// giveBack returns all goods of a confirmed hold.
func giveBack(ctx context.Context, s *reservation.Service, hold reservation.Hold) error {
	parcel := stock.Return{Reservation: hold.ID, Reference: "parcel"}
	for _, line := range hold.Lines {
		parcel.Lines = append(parcel.Lines, stock.ReturnLine{
			ProductID: line.ProductID, WarehouseID: line.WarehouseID, Quantity: line.Quantity,
			ToWarehouseID: &line.WarehouseID,
		})
	}
	_, err := stock.New(s).Return(ctx, parcel, "")
	return err
}

func TestAnOwnersTurnsPassTheLimitWithoutTheOwnersLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I12", func(f *fixture) {
		f.mutate("lock_owner", "PERFORM pg_advisory_xact_lock(_number);", "NULL;")
	}, raceOfAnOwnersTurns)
}

func TestAnOwnersCallsNeverDeadlock(t *testing.T) {
	t.Parallel()

	mustHold(t, fewCallers, raceOfAnOwnersLocks)
}

// raceOfAnOwnersLocks lets callers reserve two limited products for one owner, each alone and both
// at once, while the owner has many dead holds. Each call locks all of these.
func raceOfAnOwnersLocks(ctx context.Context, f *fixture, r *report) {
	const rounds, dead = 6, 12
	services := f.services()
	owner := uuid.NewString()
	rows := f.stocks(1000, 1000)
	f.limit(0, 1000, rows...)
	for range rounds {
		for n := range dead {
			answer, err := reserveFor(ctx, services[0], owner, rows[n%2:n%2+1+(n+1)%2]...)
			r.check(err == nil, "error", "Reserve() = %v", err)
			f.kill(answer.Hold)
		}
		together(len(services), func(i int) {
			lines := [][]reservation.Line{rows, rows[:1], rows[1:]}[i%3]
			_, err := reserveFor(ctx, services[i], owner, lines...)
			r.check(err == nil, "error", "Reserve() = %v", err)
		})
		r.checkRetries(services)
		if r.anyBroken() {
			break
		}
	}
}

func TestAnOwnersCallsDeadlockInAnotherLockOrder(t *testing.T) {
	t.Parallel()

	// Each call takes its locks in an order of its own, and rests at each.
	for name, mutations := range map[string][][2]string{
		"of the owner's locks": {
			{"SELECT DISTINCT hashtextextended(l.product_id ||", "SELECT hashtextextended(l.product_id ||"},
			{"ORDER BY number", "ORDER BY random()"},
			{"xact_lock(_number);", "xact_lock(_number);" + rest},
		},
		"of the dead holds": {
			{"ORDER BY r.id FOR", "ORDER BY md5(r.id::text || pg_backend_pid()) FOR"},
			{"PERFORM FROM", "PERFORM pg_sleep(0.002) FROM"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, fewCallers, deadlock, func(f *fixture) {
				checkDeadlocksSooner(f)
				for _, m := range mutations {
					f.mutate("lock_owner", m[0], m[1])
				}
			}, raceOfAnOwnersLocks)
		})
	}
}

// commitLock keeps a confirm from its commit, in a database where stopCommits has put it before the
// commits of resolve_hold. The confirm has read the clock for the last time by then.
const commitLock = "pg_advisory_xact_lock(77, 1)"

func stopCommits(f *fixture) {
	f.mutate("resolve_hold", "COMMIT;", "PERFORM "+commitLock+";\n        COMMIT;")
}

// raceOfConfirmAtTheEnd lets an owner with a limit of one unit reserve another one, while a confirm
// of the first, which came in time, hasn't committed. The hold ends meanwhile.
func raceOfConfirmAtTheEnd(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	owner := uuid.NewString()
	row := f.stock(9)
	f.limit(0, 1, row)
	answer, err := reserveFor(ctx, services[0], owner, row)
	r.check(err == nil, "error", "Reserve() = %v", err)
	hold := answer.Hold
	f.Exec(endSoonSQL, hold.ID.String(), soon)
	tx := f.lock("SELECT " + commitLock)
	var confirmed, reserved error
	answered := make(chan struct{})
	together(3, func(i int) {
		switch i {
		case 0:
			_, confirmed = services[0].Confirm(ctx, hold.ID, "")
		case 1:
			defer close(answered)
			err := errors.Join(pgtest.Wait(ctx, f.Admin, waitingSQL, 1),
				pgtest.Wait(ctx, f.Admin, isDeadSQL, hold.ID.String()))
			r.check(err == nil, "error", "wait for the confirm: %v", err)
			_, reserved = reserveFor(ctx, services[1], owner, row)
		default:
			err := errors.Join(f.waitForBlocked(ctx, 2, answered), tx.Commit(ctx))
			r.check(err == nil, "error", "the other session: %v", err)
		}
	})

	r.check(confirmed == nil && limitsOf(reserved) != nil, "I12",
		"Confirm() = %v, and Reserve() of a unit more = %v", confirmed, reserved)
	r.checkOwner(ctx, f, owner, row, 1)
}

// waitForBlocked waits until n sessions wait for a lock, or a call was answered.
func (f *fixture) waitForBlocked(ctx context.Context, n int, answered <-chan struct{}) error {
	for {
		select {
		case <-answered:
			return nil
		default:
		}
		var blocked bool
		if err := f.Admin.QueryRow(ctx, waitingSQL, n).Scan(&blocked); err != nil || blocked {
			return err
		}
	}
}

// aliveThenDead lets a hold die between the two looks at its owner's holds: the first one has an
// earlier clock.
func aliveThenDead(f *fixture) {
	f.mutate("lock_owner", ":= clock_timestamp();", ":= clock_timestamp() - interval '1500 ms';")
}

func TestAConfirmAtTheEndOfAHoldCountsForItsOwner(t *testing.T) {
	t.Parallel()

	for _, between := range []bool{false, true} {
		f := newFixture(t, 2)
		stopCommits(f)
		if between {
			aliveThenDead(f)
		}
		f.mustHold(raceOfConfirmAtTheEnd)
	}
}

func TestAConfirmAtTheEndOfAHoldIsMissedWithoutTheLocksOfDeadHolds(t *testing.T) {
	t.Parallel()

	for _, between := range []bool{false, true} {
		mustBreak(t, 2, "I12", func(f *fixture) {
			stopCommits(f)
			f.mutate("owner_units", "FOR NO KEY UPDATE OF r SKIP LOCKED", "")
			if between {
				aliveThenDead(f)
			} else {
				f.mutate("lock_owner", "ORDER BY r.id FOR NO KEY UPDATE", "ORDER BY r.id")
			}
		}, raceOfConfirmAtTheEnd)
	}
}

// An owner with many holds is the exception, such as a shop's own tests. The sum stays fast there,
// and one look at the holds sums all limited products of a cart. A tenth of the owner's confirmed
// holds came back, and a quarter lies in twelve months of the archive.
func TestTheSumOfAnOwnerWithManyHolds(t *testing.T) {
	t.Parallel()

	const holds = 10_000
	f := newFixture(t, 1)
	rows := f.stocks(slices.Repeat([]int{1_000_000}, reservation.MaxLines)...)
	f.script(manyHoldsOfAnOwnerSQL, "$product", rows[0].ProductID.String(),
		"$warehouse", rows[0].WarehouseID.String(), "$holds", fmt.Sprint(holds))
	const sumSQL = `
SELECT (reached_limits('ann', array_agg(l::uuid), array_agg(l::uuid), array_agg(1), array_agg(1),
                       NULL) -> 0 ->> 'used')::integer
FROM unnest($1::text[]) l`
	products := make([]string, len(rows))
	for i, row := range rows {
		products[i] = row.ProductID.String()
	}
	for name, test := range map[string]struct {
		sql      string
		products []string
	}{
		"the sum of a product":  {sumSQL, products[:1]},
		"the sum of a hundred":  {sumSQL, products},
		"the lock of the owner": {lockOwnerSQL, products[:1]},
	} {
		blocks, took := f.Explain(test.sql, test.products)
		t.Logf("%s at %d holds of one owner reads %d blocks in %.1f ms", name, holds, blocks, took)
		if blocks > 12*holds {
			t.Errorf("%s reads %d blocks, want at most %d", name, blocks, 12*holds)
		}
	}
	for _, n := range []int{1, len(rows)} {
		if used := queryOne[int](f, sumSQL, products[:n]); used != holds/2-holds/20 {
			t.Errorf("the owner has %d units, want %d", used, holds/2-holds/20)
		}
	}
}

const lockOwnerSQL = `
SELECT lock_owner('ann', $1::text[]::uuid[], array_fill(5, ARRAY[cardinality($1::text[])]), NULL)`

// One hold of ten is the owner's. Half of the owner's holds are confirmed, the others are released.
const manyHoldsOfAnOwnerSQL = `
SET session_replication_role = replica;
SET statement_timeout = 0;
INSERT INTO reservations (id, product_id, warehouse_id, quantity, created_at, updated_at,
                          expires_at, status, version, detailed)
SELECT gen_random_uuid(), '$product', '$warehouse', 1, now(), now(), now() + interval '1 h',
       CASE WHEN n % 20 = 0 THEN 'CONFIRMED' ELSE 'RELEASED' END::reservation_status, 1, n % 10 = 0
FROM generate_series(1, 10 * $holds) n;
INSERT INTO hold_parties (hold_id, owner) SELECT r.id, 'ann' FROM reservations r WHERE r.detailed;
INSERT INTO returns (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
SELECT r.id, 'parcel', 1, r.product_id, r.warehouse_id, 1, now() FROM reservations r
WHERE r.status = 'CONFIRMED' LIMIT $holds / 20;
SELECT make_archive_month(month_of(now() - n * interval '1 month')) FROM generate_series(1, 12) n;
INSERT INTO archived_reservations
SELECT (jsonb_populate_record(r, jsonb_build_object('updated_at', r.updated_at
           - (1 + random() * 11)::integer * interval '1 month'))).*
FROM reservations r WHERE r.detailed AND random() < 0.25;
DELETE FROM reservations r USING archived_reservations a WHERE a.id = r.id;
VACUUM ANALYZE reservations, archived_reservations, hold_parties, returns;`

// A replay has the body of the first answer, whatever the limits are by then.
func TestAReplayComesBeforeEveryLimit(t *testing.T) {
	t.Parallel()

	mustHold(t, 2, raceOfReplayAndLimits)
}

// raceOfReplayAndLimits sends requests again after every limit was lowered and the product
// archived. The two services stand for two instances in a deploy that lowers the settings.
func raceOfReplayAndLimits(ctx context.Context, f *fixture, r *report) {
	before := newService(f.callers[0])
	after := reservation.New(f.callers[1], reservation.Options{
		HoldTTL: holdTTL, MaxHold: time.Minute, MaxUnits: 1, MaxLines: 1,
	})
	rows := f.stocks(100, 100)
	f.limit(9, 1000, rows...)
	for _, details := range []reservation.Request{
		{Owner: "ann"},
		{Owner: "ann", Reference: "order 1"},
		{Owner: "ann", Reference: "order 1", Replaces: new(uuid.UUID)},
	} {
		for n := 1; n <= 2; n++ {
			request := details
			request.Lines = wanted(rows, []int{3, 3}[:n])
			request.TTL, request.Key = 2*time.Minute, uuid.NewString()
			if request.Replaces != nil {
				old, err := reserveFor(ctx, before, "ann", rows[0])
				r.check(err == nil, "error", "Reserve() = %v", err)
				request.Replaces = &old.Hold.ID
			}
			first, err := before.Reserve(ctx, request)
			r.check(err == nil && !first.Replayed, "error", "Reserve() = %+v, %v", first, err)

			f.limit(1, 1, rows...)
			f.Exec("UPDATE inventory SET open = false")
			for _, s := range []*reservation.Service{before, after} {
				again, err := s.Reserve(ctx, request)
				r.check(err == nil && again.Replayed && cmp.Equal(again.Hold, first.Hold), "I6",
					"Reserve() again = %+v, %v, want %+v", again, err, first.Hold)
			}
			f.Exec("UPDATE inventory SET open = true")
			f.limit(9, 1000, rows...)
		}
	}
}

func TestALimitRefusesAReplayWithoutTheLookAtItsKey(t *testing.T) {
	t.Parallel()

	mustBreak(t, 2, "I6", func(f *fixture) {
		f.mutate("reserve_detailed", "EXIT WHEN outcome IS NOT NULL;", "")
	}, raceOfReplayAndLimits)
}

// A plain hold is replayed too, though its product got a limit for each owner since.
func TestAReplayOfAPlainHoldComesBeforeEveryLimit(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		rows := f.stocks(9, 9)
		for n := 1; n <= 2; n++ {
			request := reservation.Request{Lines: wanted(rows, []int{3, 3}[:n]), Key: uuid.NewString()}
			first, err := s.Reserve(ctx, request)
			r.check(err == nil, "error", "Reserve() = %v", err)
			f.limit(1, 1, rows...)
			again, err := s.Reserve(ctx, request)
			r.check(err == nil && again.Replayed && cmp.Equal(again.Hold, first.Hold), "I6",
				"Reserve() again = %+v, %v, want %+v", again, err, first.Hold)
			f.limit(0, 0, rows...)
		}
	})
}

func TestAKeyBindsTheDetailsOfAHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(50)
		one, two := f.hold(row), f.hold(row)
		lines := []reservation.Line{row}
		requests := []reservation.Request{
			{Lines: lines},
			{Lines: lines, Owner: "ann"},
			{Lines: lines, Owner: "bob"},
			{Lines: lines, Reference: "ann"},
			{Lines: lines, Owner: "ann", Reference: "ann"},
			{Lines: lines, Owner: "anna", Reference: "nn"},
			{Lines: lines, Replaces: &one.ID},
			{Lines: lines, Replaces: &two.ID},
			{Lines: lines, Replaces: &two.ID, Owner: "ann"},
		}
		for i, request := range requests {
			request.Key = fmt.Sprint("key ", i)
			_, err := s.Reserve(ctx, request)
			r.check(err == nil, "error", "Reserve(%+v) = %v", request, err)
			for j, other := range requests {
				other.Key = request.Key
				again, err := s.Reserve(ctx, other)
				if i == j {
					r.check(err == nil && again.Replayed, "I6", "Reserve(%+v) again = %v", other, err)
					continue
				}
				r.check(errors.Is(err, reservation.ErrKeyReused), "I6",
					"Reserve(%+v) under the key of %+v = %v", other, request, err)
			}
		}
	})
}

// Two customers may send the same key. Each has a hold, and each replay names its own owner.
func TestOneKeyOfTwoOwnersMakesTwoHolds(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(9)
		f.limit(0, 2, row)
		for range 2 {
			for _, owner := range []string{"ann", "bob"} {
				as := principal.With(ctx, principal.Principal{Kind: principal.JWT, ID: owner})
				answer, err := s.Reserve(as, reservation.Request{
					Lines: []reservation.Line{of(row, 2)}, Owner: owner, Key: "key",
				})
				r.check(err == nil && answer.Hold.Owner == owner, "I6", "Reserve() of %s = %+v, %v", owner,
					answer, err)
			}
		}
		r.checkStock(f, row, counts{Total: 9, Reserved: 4})
	})
}

func TestARefusalByALimitLeavesItsKeyFree(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, func(ctx context.Context, f *fixture, r *report) {
		s := f.services()[0]
		row := f.stock(9)
		f.limit(1, 1, row)
		request := reservation.Request{
			Lines: []reservation.Line{of(row, 2)}, Owner: "ann", Key: uuid.NewString(),
		}
		_, err := s.Reserve(ctx, request)
		r.check(limitsOf(err) != nil, "limit", "Reserve() = %v, want it refused", err)
		f.limit(2, 2, row)
		answer, err := s.Reserve(ctx, request)
		r.check(err == nil && !answer.Replayed, "I6", "Reserve() again = %+v, %v", answer, err)
	})
}

func TestMaxUnitsAndMaxLinesBoundAHold(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := reservation.New(f.callers[0], reservation.Options{
		HoldTTL: holdTTL, MaxHold: maxHold, MaxUnits: 10, MaxLines: 2,
	})
	rows := f.stocks(100, 100, 100)
	for name, test := range map[string]struct {
		units []int
		ok    bool
	}{
		"the most units of a line":    {[]int{10}, true},
		"a unit more":                 {[]int{11}, false},
		"the most units of two lines": {[]int{4, 6}, true},
		"a unit more in two lines":    {[]int{5, 6}, false},
		"a line more":                 {[]int{1, 1, 1}, false},
	} {
		lines := wanted(rows, test.units)
		for _, request := range []reservation.Request{
			{Lines: lines},
			{Lines: append(lines[:len(lines):len(lines)], lines...), Owner: "ann"}, // twice as many
			{Lines: lines, Owner: "ann", Key: uuid.NewString()},
		} {
			_, err := s.Reserve(ctx, request)
			ok := test.ok && len(request.Lines) == len(lines)
			if (err == nil) != ok || !ok && !cmp.Equal(invalidFields(err), []string{"items"}) {
				t.Errorf("%s: Reserve(%+v) = %v, want it accepted: %t", name, request.Lines, err, ok)
			}
		}
	}
	f.mustAudit(t)
}

// A hold that names no owner, no reference and no other hold runs the statements that it ran before
// there were any: it works without the tables and the routines of these.
func TestAPlainHoldNeedsNothingOfTheDetails(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	rows := f.stocks(20, 20)
	for _, routine := range []string{
		"reserve_detailed", "insert_detailed", "take_units", "rows_to_change", "reclaim_beside",
		"release_replaced", "judge_replaced", "lock_owner", "owner_units", "reached_limits",
		"limits_of_lines", "limits_of_cart", "with_party", "relations_of_hold",
	} {
		f.Exec(queryOne[string](f, `
SELECT 'DROP ROUTINE ' || oid::regprocedure FROM pg_proc WHERE proname = $1`, routine))
	}
	f.Exec("DROP TABLE hold_parties, replacements, hold_payments")

	for n := range rows {
		lines := rows[:n+1]
		request := reservation.Request{Lines: lines, Key: uuid.NewString()}
		for range 2 {
			if _, err := s.Reserve(ctx, request); err != nil {
				t.Errorf("Reserve(%+v) = %v", lines, err)
			}
		}
		if _, err := s.Confirm(ctx, f.hold(lines...).ID, uuid.NewString()); err != nil {
			t.Errorf("Confirm() = %v", err)
		}
		f.kill(f.hold(lines...))
	}
	if _, err := s.Release(ctx, f.hold(rows[0]).ID, ""); err != nil {
		t.Errorf("Release() = %v", err)
	}
}

// A hold that another caller has locked as it dies may be confirmed or swept: a refusal for its
// sake would be a guess. The answer of a late payment is final, so a wrong guess would cost a sale.
func TestALatePaymentIsNotLostToAHoldThatIsDying(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	aliveThenDead(f)
	f.mustHold(raceOfDyingHoldAndLatePayment)
}

func TestALatePaymentIsLostToAHoldThatIsDyingWithoutTheSecondLook(t *testing.T) {
	t.Parallel()
	mustBreak(t, 2, "I12", func(f *fixture) {
		aliveThenDead(f)
		f.mutate("reacquire_units", `"unsure": true`, `"unsure": 0`)
	}, raceOfDyingHoldAndLatePayment)
}

// raceOfDyingHoldAndLatePayment lets a payment of one dead hold come while another session has the
// owner's other hold locked, which has just died, and then goes away without a change.
func raceOfDyingHoldAndLatePayment(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	owner := uuid.NewString()
	row := f.stock(9)
	f.limit(0, 1, row)
	paid, err := reserveFor(ctx, services[0], owner, row)
	r.check(err == nil, "error", "Reserve() = %v", err)
	f.kill(paid.Hold)
	other, err := reserveFor(ctx, services[0], owner, row)
	r.check(err == nil, "error", "Reserve() = %v", err)
	f.Exec(endSoonSQL, other.Hold.ID.String(), soon)
	tx := f.lock("SELECT FROM reservations WHERE id = $1 FOR NO KEY UPDATE", other.Hold.ID.String())
	if err := pgtest.Wait(ctx, f.Admin, isDeadSQL, other.Hold.ID.String()); err != nil {
		r.check(false, "error", "wait for the hold's end: %v", err)
	}
	answered := make(chan struct{})
	var told error
	together(2, func(i int) {
		if i == 0 {
			defer close(answered)
			_, told = services[1].ConfirmPayment(ctx, paid.Hold.ID, "p", true, "")
			return
		}
		err := errors.Join(f.waitForBlocked(ctx, 1, answered), tx.Commit(ctx))
		r.check(err == nil, "error", "the other session: %v", err)
	})
	r.check(told == nil, "I12", "the late payment's answer is %v", told)
}

// limitBetweenTwoReserves limits an owner's product to five units in two warehouses, of which the
// first has followed when the second one still waits. A reserve of the first one counts the owner's
// four units, and then a reserve of the second one, which knows no limit, takes the fifth. It
// returns how many units the owner has at the answer of the catalog's change, and in the end.
func limitBetweenTwoReserves(t *testing.T, change func(*fixture)) (atAnswer, inTheEnd int) {
	t.Helper()
	f := newFixture(t, 3)
	change(f)
	f.Exec("CREATE TABLE answers (units integer)")
	ctx, services, limit := f.Context(), f.services(), 5
	sku, owner := uuid.NewString(), "ann"
	row := reservation.Line{ProductID: f.NamedProduct("Lamp", sku), Quantity: 1}
	first, second := f.elsewhere(row, 9), f.elsewhere(row, 9)
	four := first
	four.Quantity = 4
	if _, err := reserveFor(ctx, services[0], owner, four); err != nil {
		t.Fatal(err)
	}
	lockRow := func(line reservation.Line) pgx.Tx {
		return f.lock("SELECT FROM inventory WHERE product_id = $1 AND warehouse_id = $2 FOR UPDATE",
			line.ProductID.String(), line.WarehouseID.String())
	}
	counted, unlimited, put := make(chan error, 1), make(chan error, 1), make(chan error, 1)

	secondLocked := lockRow(second)
	go func() {
		_, err := reserveFor(ctx, services[1], owner, second)
		unlimited <- err
	}()
	f.WaitForBlocked(1)
	go func() {
		_, _, err := stock.New(services[0]).PutProducts(ctx,
			[]stock.ProductItem{{SKU: sku, MaxPerOwner: &limit}}, "")
		units, unread := f.ownerUnits(ctx, owner, row)
		_, unkept := f.Admin.Exec(ctx, "INSERT INTO answers VALUES ($1)", units)
		put <- errors.Join(err, unread, unkept)
	}()
	f.WaitForBlocked(2)
	firstLocked := lockRow(first)
	go func() {
		_, err := reserveFor(ctx, services[2], owner, first)
		counted <- err
	}()
	f.WaitForBlocked(3)
	err := errors.Join(secondLocked.Rollback(ctx), <-unlimited)
	f.WaitUntil(`SELECT EXISTS (SELECT FROM answers)
    OR EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
               WHERE d.datname = current_database() AND l.locktype = 'advisory'
                 AND l.classid = 11 AND l.objsubid = 2 AND NOT l.granted)`)
	if err = errors.Join(err, firstLocked.Rollback(ctx), <-counted, <-put); err != nil {
		t.Fatal(err)
	}

	inTheEnd, err = f.ownerUnits(ctx, owner, row)
	if err != nil {
		t.Fatal(err)
	}
	f.mustAudit(t)
	return queryOne[int](f, "SELECT units FROM answers"), inTheEnd
}

// When a change of the catalog is answered, no reserve is under way that counted an owner's units
// before the last stock row knew the limit.
func TestALimitIsAnsweredAfterTheReservesThatCounted(t *testing.T) {
	t.Parallel()

	atAnswer, inTheEnd := limitBetweenTwoReserves(t, asBuilt)
	if atAnswer != 6 || inTheEnd != 6 {
		t.Errorf("the owner has %d units at the answer and %d in the end, want 6 at both", atAnswer,
			inTheEnd)
	}
}

func TestALimitIsAnsweredTooEarlyWithoutItsLock(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*fixture){
		"the change doesn't wait": func(f *fixture) {
			f.mutate("await_limited_reserves", "PERFORM pg_advisory_xact_lock(11, _number);", "")
		},
		"a reserve doesn't share": func(f *fixture) {
			f.mutate("lock_owner", "PERFORM pg_advisory_xact_lock_shared(11, _number::integer);", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if atAnswer, inTheEnd := limitBetweenTwoReserves(t, change); atAnswer == inTheEnd {
				t.Errorf("the owner has %d units at the answer and in the end, want more then", atAnswer)
			}
		})
	}
}
