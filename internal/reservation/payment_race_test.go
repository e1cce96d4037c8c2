package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// money stands for a promise in a report: each payment is kept once or must be refunded, and the
// payments that are kept are those of holds that are CONFIRMED.
const money = "money"

// tally counts the answers of a race, by the words of told.
type tally map[string]int

// tallied runs n calls at once and counts their answers.
func tallied(n int, call func(i int) string) tally {
	answers := make([]string, n)
	together(n, func(i int) { answers[i] = call(i) })
	counts := tally{}
	for _, answer := range answers {
		counts[answer]++
	}
	return counts
}

// mustBeTally reports a race whose answers are none of these.
func (r *report) mustBeTally(got tally, want ...tally) {
	same := slices.ContainsFunc(want, func(w tally) bool {
		maps.DeleteFunc(w, func(_ string, n int) bool { return n == 0 })
		return maps.Equal(w, got)
	})
	r.check(same, money, "the answers are %v, want one of %v", got, want)
}

// raceOfReacquires lets each caller send a payment of its own for one dead hold: of one line, of a
// cart, and of both after a sweep. One payment gets the successor, and all others learn which.
func raceOfReacquires(ctx context.Context, f *fixture, r *report) {
	rows := f.stocks(otherUnits, otherUnits)
	f.hold(of(rows[0], otherUnits/2), of(rows[1], otherUnits/2))
	for n := range 4 {
		h := f.hold(rows[:1+n%2]...)
		f.kill(h)
		if n > 1 {
			_, err := newService(f.own).Sweep(ctx)
			r.check(err == nil, "error", "Sweep() = %v", err)
		}
		r.reacquireOnce(ctx, f, h)
		if r.anyBroken() {
			return
		}
	}
	r.checkStock(f, rows[0], counts{Total: otherUnits - 4, Reserved: otherUnits / 2})
	r.checkStock(f, rows[1], counts{Total: otherUnits - 2, Reserved: otherUnits / 2})
}

// raceOfArchivedReacquires does so for a hold and a cart of the archive.
func raceOfArchivedReacquires(ctx context.Context, f *fixture, r *report) {
	rows := f.stocks(otherUnits, otherUnits)
	for n := range 2 {
		h := f.hold(rows[:1+n]...)
		_, err := newService(f.own).Release(ctx, h.ID, "")
		r.check(err == nil, "error", "Release() = %v", err)
		f.age(old)
		_, err = archiver(f.own).Sweep(ctx)
		r.check(err == nil, "error", "Sweep() = %v", err)
		r.reacquireOnce(ctx, f, h)
	}
	r.checkStock(f, rows[0], counts{Total: otherUnits - 2})
	r.checkStock(f, rows[1], counts{Total: otherUnits - 1})
}

// reacquireOnce sends a payment from each caller for a hold that is gone.
func (r *report) reacquireOnce(ctx context.Context, f *fixture, h reservation.Hold) {
	services := f.services()
	won := make(chan string, len(services))
	got := tallied(len(services), func(i int) string {
		name := fmt.Sprint("p", i)
		answer := told(services[i].ConfirmPayment(ctx, h.ID, name, true, ""))
		if answer == "REACQUIRED" {
			won <- name
		}
		return answer
	})
	close(won)
	r.mustBeTally(got, tally{"REACQUIRED": 1, "ALREADY_PAID by " + <-won: len(services) - 1})
	r.checkRetries(services)
}

func TestOnePaymentGetsTheSuccessor(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfReacquires)
}

func TestOnePaymentOfAnArchivedHoldGetsTheSuccessor(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfArchivedReacquires)
}

func TestTwoPaymentsOfAnArchivedHoldGetSuccessorsWithoutItsLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		f.mutate("lock_hold", "PERFORM pg_advisory_xact_lock(9, hashtext(_id::text));", "")
		withoutPaymentGuards(f)
	}, raceOfArchivedReacquires)
}

// withoutHoldLock lets calls look at a hold without its lock.
func withoutHoldLock(f *fixture) { f.mutate("lock_hold", " FOR NO KEY UPDATE", "") }

// withoutPaymentGuards drops what the schema has to say about payments and replacements.
func withoutPaymentGuards(f *fixture) {
	f.Exec("DROP TRIGGER i3_payment_is_final ON hold_payments")
	f.Exec("DROP INDEX hold_payments_paid")
	f.Exec("DROP INDEX hold_payments_started")
	f.Exec("ALTER TABLE replacements DROP CONSTRAINT replacements_pkey")
}

func TestTwoPaymentsGetSuccessorsWithoutTheHoldsLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		withoutHoldLock(f)
		withoutPaymentGuards(f)
	}, raceOfReacquires)
}

func TestTheSchemaRefusesASecondSuccessorWithoutTheHoldsLock(t *testing.T) {
	t.Parallel()

	// Its caller gets an error that isn't documented.
	mustBreak(t, someCallers, money, withoutHoldLock, func(
		ctx context.Context, f *fixture, r *report,
	) {
		raceOfReacquires(ctx, f, r)
		n := queryOne[int](f, "SELECT count(*) FROM (SELECT old_id FROM replacements"+
			" GROUP BY old_id HAVING count(*) > 1) twice")
		if n != 0 {
			f.t.Errorf("%d holds have two successors", n)
		}
	})
}

// raceForTheLastUnits lets late payments reacquire beside reserves. There are fewer units than
// callers, and dead holds occupy them.
func raceForTheLastUnits(ctx context.Context, f *fixture, r *report) {
	const units = 10
	services := f.services()
	row := f.stock(units)
	var dead []reservation.Hold
	for range len(services) / 2 {
		h := f.hold(row)
		f.kill(h)
		dead = append(dead, h)
	}
	got := tallied(len(services), func(i int) string {
		if i < len(dead) {
			return told(services[i].ConfirmPayment(ctx, dead[i].ID, "p", true, ""))
		}
		answer, err := services[i].Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{row}})
		if isShort(err) {
			return "short"
		}
		return told(answer, err)
	})
	sold, held := got["REACQUIRED"], got["PENDING"]
	r.check(sold+held == units, "I4", "%d units were sold and %d held, want %d: %v", sold, held,
		units, got)
	r.mustBeTally(got, tally{
		"REACQUIRED": sold, "PENDING": held, "PAYMENT_LOST 1": len(dead) - sold,
		"short": len(services) - len(dead) - held,
	})
	r.checkStock(f, row, counts{Total: units - sold, Reserved: held})
	for i, h := range dead {
		again := told(services[i].ConfirmPayment(ctx, h.ID, "p", true, ""))
		outcome := queryOne[string](f, "SELECT outcome::text FROM hold_payments WHERE hold_id = $1",
			h.ID.String())
		r.check(again == map[string]string{
			"REACQUIRED": "REACQUIRED", "LOST": "PAYMENT_LOST 1",
		}[outcome], money, "a payment that is %s gets %s", outcome, again)
	}
	r.checkRetries(services)
}

func TestLatePaymentsAndReservesShareTheLastUnits(t *testing.T) {
	t.Parallel()

	mustHold(t, 50, raceForTheLastUnits)
}

func TestLatePaymentsOversellWithoutTheGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, 50, "I1", func(f *fixture) {
		dropCheck(f)
		f.mutate("sell_units", "i.total - i.reserved >= l.units AND", "")
		f.mutate("reacquire_units", "PERFORM insert_successor", rest+"PERFORM insert_successor")
	}, raceForTheLastUnits)
}

// raceOfPayments lets two payments confirm one live hold, each from half of the callers.
func raceOfPayments(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	half := len(services) / 2
	rows := f.stocks(otherUnits, otherUnits)
	f.hold(of(rows[0], otherUnits/2), of(rows[1], otherUnits/2))
	for n := range 4 {
		h := f.hold(rows[:1+n%2]...)
		if n > 1 {
			_, err := services[0].StartPayment(ctx, h.ID, "p1", time.Minute, "")
			r.check(err == nil, "error", "StartPayment() = %v", err)
		}
		got := tallied(len(services), func(i int) string {
			return told(services[i].ConfirmPayment(ctx, h.ID, fmt.Sprint("p", i%2), n%2 == 0, ""))
		})
		r.mustBeTally(got, tally{"CONFIRMED": half, "ALREADY_PAID by p0": half},
			tally{"CONFIRMED": half, "ALREADY_PAID by p1": half})
		paid := queryOne[int](f, "SELECT count(*) FROM hold_payments WHERE hold_id = $1"+
			" AND outcome IN ('CONFIRMED', 'REACQUIRED')", h.ID.String())
		r.check(paid == 1, money, "%d payments paid for one hold", paid)
	}
	r.checkStock(f, rows[0], counts{Total: otherUnits - 4, Reserved: otherUnits / 2})
	r.checkRetries(services)
}

func TestOnePaymentConfirmsAHold(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfPayments)
}

func TestTwoPaymentsConfirmAHoldWithoutTheStatusGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		dropTrigger(f)
		withoutPaymentGuards(f)
		checkStatusInASubselect(f)
	}, raceOfPayments)
}

// raceOfConfirmAndFailure lets a payment under way confirm and fail at once. The hold is confirmed
// in any order: a failure releases nothing.
func raceOfConfirmAndFailure(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	rows := f.stocks(otherUnits, otherUnits)
	for n := range 4 {
		h := f.hold(rows[:1+n%2]...)
		_, err := services[0].StartPayment(ctx, h.ID, "p", time.Minute, "")
		r.check(err == nil, "error", "StartPayment() = %v", err)
		var failed atomic.Int64
		got := tallied(len(services), func(i int) string {
			if i%2 == 0 {
				return "confirm " + told(services[i].ConfirmPayment(ctx, h.ID, "p", true, ""))
			}
			answer, err := services[i].FailPayment(ctx, h.ID, "p", nil, "")
			failed.Add(countIf(err == nil && answer.Hold.Status == reservation.Pending))
			return "fail " + told(answer, err)
		})
		half := len(services) / 2
		pending := int(failed.Load())
		want := tally{
			"confirm CONFIRMED": half, "fail PENDING": pending, "fail CONFIRMED": half - pending,
		}
		for answer, count := range want {
			r.check(got[answer] == count, money, "the answers are %v, want %v", got, want)
		}
		outcome := queryOne[string](f, "SELECT outcome::text FROM hold_payments WHERE hold_id = $1",
			h.ID.String())
		r.check(outcome == "CONFIRMED", money, "the payment is %s", outcome)
	}
	r.checkStock(f, rows[0], counts{Total: otherUnits - 4, Reserved: 0})
	r.checkRetries(services)
}

func TestAPaymentThatConfirmsAndFailsAtOnceIsKept(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfConfirmAndFailure)
}

func TestAPaymentThatConfirmedFailsWithoutTheHoldsLock(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		withoutHoldLock(f)
		withoutPaymentGuards(f)
	}, raceOfConfirmAndFailure)
}

// raceOfReleaseAndStart lets shoppers release a hold while payments start. The first one decides:
// all of the others are refused.
func raceOfReleaseAndStart(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	half := len(services) / 2
	rows := f.stocks(otherUnits, otherUnits)
	reserved := 0
	for n := range 6 {
		h := f.hold(rows[:1+n%2]...)
		got := tallied(len(services), func(i int) string {
			if i%2 == 0 {
				return "release " + told(services[i].Release(ctx, h.ID, ""))
			}
			return "start " + told(services[i].StartPayment(ctx, h.ID, "p", time.Minute, ""))
		})
		started := tally{"release payment started": half, "start PENDING": half}
		r.mustBeTally(got, started,
			tally{"release RELEASED": half, "start reservation released": half})
		if got["start PENDING"] > 0 {
			reserved++
		}
	}
	r.checkStock(f, rows[0], counts{Total: otherUnits, Reserved: reserved})
	r.checkRetries(services)
}

func TestAReleaseAndAStartAreInOneOrder(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfReleaseAndStart)
}

func TestAReleaseComesAfterAStartWithoutTheGuard(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		f.mutate("resolve_hold", "AND (NOT paying OR _to::text = 'CONFIRMED' OR _cause = 'o')", "")
	}, raceOfReleaseAndStart)
}

// raceOfExtendAndStart lets shoppers extend a hold while payments start. All starts succeed, and no
// extend does after the first.
func raceOfExtendAndStart(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	half := len(services) / 2
	rows := f.stocks(otherUnits, otherUnits)
	for n := range 4 {
		h := f.hold(rows[:1+n%2]...)
		got := tallied(len(services), func(i int) string {
			if i%2 == 0 {
				return "extend " + told(services[i].Extend(ctx, h.ID, time.Minute, ""))
			}
			return "start " + told(services[i].StartPayment(ctx, h.ID, "p", time.Minute, ""))
		})
		extended := got["extend PENDING"]
		r.check(got["start PENDING"] == half &&
			got["extend payment started"] == half-extended, money, "the answers are %v", got)
		late := queryOne[int](f, `
SELECT count(*) FROM ledger x JOIN ledger p ON p.hold_id = x.hold_id AND p.version < x.version
WHERE x.hold_id = $1 AND x.kind = 'x' AND p.kind = 'p'`, h.ID.String())
		r.check(late == 0, money, "%d extends came after a start", late)
		version := queryOne[int](f, "SELECT version FROM reservations WHERE id = $1", h.ID.String())
		r.check(version == 1+half+extended, money, "the version is %d after %d starts and %d extends",
			version, half, extended)
	}
	r.checkRetries(services)
}

func TestNoExtendComesAfterAStart(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfExtendAndStart)
}

func TestAnExtendComesAfterAStartWithoutTheLook(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, money, func(f *fixture) {
		f.mutate("judge_extension", "WHEN _kind = 'x' AND _hold.paying THEN 'PAYMENT_STARTED'", "")
	}, raceOfExtendAndStart)
}

// raceOfReacquiresOfCarts sends the late payments of dead carts, of which the first half lost their
// lines to the second, beside sweeps. So each of the first needs the lines of a cart whose own
// payment is under way. There are units for half of them.
func raceOfReacquiresOfCarts(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	payers := len(services) - 2
	units := payers / 2
	rows := f.stocks(units, units)
	var dead []reservation.Hold
	for range payers {
		h := f.hold(rows...)
		f.kill(h)
		dead = append(dead, h)
	}
	got := tallied(len(services), func(i int) string {
		if i >= payers {
			_, err := services[i].Sweep(ctx)
			return fmt.Sprint("sweep ", err)
		}
		return told(services[i].ConfirmPayment(ctx, dead[i].ID, "p", true, ""))
	})
	lost := got["PAYMENT_LOST 1"] + got["PAYMENT_LOST 2"]
	r.check(got["REACQUIRED"] == units && lost == payers-units && got["sweep <nil>"] == 2, money,
		"the answers are %v, want %d REACQUIRED and %d lost", got, units, payers-units)
	successors := queryOne[int](f, "SELECT count(*) FROM replacements WHERE old_id = ANY ($1)",
		idsOf(dead))
	r.check(successors == units, money, "there are %d successors, want %d", successors, units)
	r.checkStock(f, rows[0], counts{Total: 0, Reserved: 0})
	r.checkStock(f, rows[1], counts{Total: 0, Reserved: 0})
	r.checkRetries(services)
}

func TestLatePaymentsOfCartsShareTheUnitsBesideTheSweep(t *testing.T) {
	t.Parallel()

	f := newFixture(t, someCallers)
	for range 3 {
		f.mustHold(raceOfReacquiresOfCarts)
	}
}

// raceOfTwoCartsLines lets another session lock the lines of a dead cart, as a caller that reclaims
// them does, and then those of a second one, while a late payment of the first cart wants both. The
// second cart has the units that the first one lost.
func raceOfTwoCartsLines(ctx context.Context, f *fixture, r *report) {
	const lockLinesSQL = "SELECT 1 FROM reservation_items WHERE reservation_id = $1 FOR UPDATE"
	rows := f.stocks(1, 1)
	first := f.hold(rows...)
	f.kill(first)
	second := f.hold(rows...)
	f.kill(second)
	tx := f.lock(lockLinesSQL, first.ID.String())
	got := ""

	together(2, func(i int) {
		if i == 0 {
			got = told(newService(f.callers[0]).ConfirmPayment(ctx, first.ID, "p", true, ""))
			return
		}
		err := pgtest.Wait(ctx, f.Admin, waitingSQL, 1)
		_, lockErr := tx.Exec(ctx, lockLinesSQL, second.ID.String())
		r.check(errors.Join(err, lockErr, tx.Commit(ctx)) == nil, "error",
			"the other session: %v, %v", err, lockErr)
	})

	r.check(got == "REACQUIRED", money, "the payment gets %s", got)
}

func TestALatePaymentLocksItsOwnLinesBeforeThoseOfOthers(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfTwoCartsLines)
}

func TestALatePaymentDeadlocksWhenItLocksItsOwnLinesLast(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("reacquire_units", "expire_for_payment(_hold, _lines.products, _lines.warehouses);",
			"array_fill(0, ARRAY[cardinality(_lines.products)]);")
		f.mutate("reacquire_units", "PERFORM insert_successor",
			"PERFORM expire_for_payment(_hold, _lines.products, _lines.warehouses);\n"+
				"PERFORM insert_successor")
	}, raceOfTwoCartsLines)
}

// raceOfReacquiresAndReclaims sends the late payments of dead holds beside reserves that reclaim
// just these, and beside sweeps. There are units for all.
func raceOfReacquiresAndReclaims(ctx context.Context, f *fixture, r *report) {
	services := f.services()
	third := len(services) / 3
	rows := f.stocks(2*third, 2*third)
	var dead []reservation.Hold
	for n := range third {
		dead = append(dead, f.hold(rows[:1+n%2]...))
	}
	blocker := f.hold(of(rows[0], third), of(rows[1], 2*third-third/2))
	f.kill(append(dead, blocker)...)
	got := tallied(len(services), func(i int) string {
		switch i % 3 {
		case 0:
			_, err := services[i].Sweep(ctx)
			return fmt.Sprint("sweep ", err)
		case 1:
			return told(services[i].Reserve(ctx, reservation.Request{Lines: rows[:1]}))
		default:
			return told(services[i].ConfirmPayment(ctx, dead[i/3].ID, "p", true, ""))
		}
	})
	r.mustBeTally(got, tally{"sweep <nil>": third, "PENDING": third, "REACQUIRED": third})
	r.checkStock(f, rows[0], counts{Total: third, Reserved: third})
	r.checkStock(f, rows[1], counts{Total: 2*third - third/2, Reserved: 0})
	r.checkRetries(services)
}

func TestLatePaymentsGetTheirUnitsBesideReclaimsAndSweeps(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfReacquiresAndReclaims)
}

func TestADeadHoldGivesItsUnitsBackTwiceWithoutTheGuardOfItsExpiry(t *testing.T) {
	t.Parallel()

	mustBreak(t, someCallers, "I2", func(f *fixture) {
		dropTrigger(f)
		dropCheck(f)
		f.mutate("expire_for_payment", " AND r.status::text = 'PENDING'", "")
	}, raceOfReacquiresAndReclaims)
}

// lostForEver loses payments, because the units are sold out or the warehouse is closed. Then it
// sends each again in every way: when the units can be had again, under another key, with REFUSE,
// and when the clock has jumped back behind the hold's end.
func lostForEver(ctx context.Context, f *fixture, r *report) {
	s := f.services()[0]
	for n := range 4 {
		rows := f.stocks(2, 2)
		h := f.hold(rows[:1+n%2]...)
		f.kill(h)
		restore := "UPDATE inventory SET open = true WHERE product_id = $1"
		if n < 2 {
			restore = "SELECT adjust_stock($1, '" + rows[0].WarehouseID.String() + "', 2, 'test')"
			f.hold(of(rows[0], 2))
		} else {
			f.Exec("UPDATE inventory SET open = false WHERE product_id = $1", rows[0].ProductID.String())
		}
		lost := func(when string, reacquire bool, key string) {
			got := told(s.ConfirmPayment(ctx, h.ID, "p", reacquire, key))
			r.check(got == "PAYMENT_LOST 1", money, "%s the payment gets %s", when, got)
		}
		key := h.ID.String()
		lost("at first", true, key)
		r.checkStock(f, rows[1], counts{Total: 2})
		f.Exec(restore, rows[0].ProductID.String())
		lost("with units", true, key)
		lost("under another key", true, key+"2")
		lost("with REFUSE", false, "")
		f.Exec(aliveAgainSQL, h.ID.String())
		lost("after a jump back", true, "")
		lost("after a jump back, with REFUSE", false, "")
		for what, call := range map[string]func() (reservation.Answer, error){
			"a start": func() (reservation.Answer, error) {
				return s.StartPayment(ctx, h.ID, "p", time.Minute, "")
			},
			"a confirm": func() (reservation.Answer, error) { return s.Confirm(ctx, h.ID, "") },
		} {
			_, err := call()
			r.check(errors.Is(err, reservation.ErrExpired), money, "%s = %v", what, err)
		}
		again := told(s.ConfirmPayment(ctx, h.ID, "q", true, ""))
		r.check(again == "REACQUIRED", money, "another payment gets %s", again)
		lost("after another payment", true, "")
	}
}

func TestALostPaymentStaysLost(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, lostForEver)
}

func TestALostPaymentIsKeptAfterAllWithoutItsGuards(t *testing.T) {
	t.Parallel()

	for name, mutate := range map[string]func(f *fixture){
		"the look for its outcome": func(f *fixture) {
			f.mutate("settle_payment", "_mine.outcome = 'LOST'", "false")
		},
		"the hold's death": func(f *fixture) {
			f.mutate("expire_for_payment", " AND r.status::text = 'PENDING'", " AND false")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, money, mutate, lostForEver)
		})
	}
}

// latePayment returns a call of a payment that waits past the end of its hold. Its success is an
// error, unless it took the units anew, which raceWithTheEnd knows as ErrExpired.
func latePayment(reacquire bool) func(*reservation.Service, reservation.Hold) error {
	return func(s *reservation.Service, h reservation.Hold) error {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		answer, err := s.ConfirmPayment(ctx, h.ID, "p", reacquire, uuid.NewString())
		if reacquire && err == nil && answer.Reacquired {
			return reservation.ErrExpired
		}
		return err
	}
}

func raceOfLatePayments(ctx context.Context, f *fixture, r *report) {
	for _, reacquire := range []bool{false, true} {
		for _, lockStock := range []bool{false, true} {
			raceWithTheEnd(ctx, f, r, lockStock, latePayment(reacquire))
		}
	}
}

func TestAPaymentThatWaitsPastTheEndFindsTheHoldDead(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfLatePayments)
}

func TestALatePaymentConfirmsWithoutReadingTheClockAgain(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("resolve_hold", "clock_timestamp() < _hold.expires_at", "true")
	}, raceOfLatePayments)
}

// raceOfLateStart starts a payment that gets the hold's lock after its end.
func raceOfLateStart(ctx context.Context, f *fixture, r *report) {
	raceWithTheEnd(ctx, f, r, false, func(s *reservation.Service, h reservation.Hold) error {
		_, err := s.StartPayment(ctx, h.ID, "p", time.Minute, "late start "+h.ID.String())
		return err
	})
}

func TestAStartThatWaitsPastTheEndFindsTheHoldDead(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfLateStart)
}

func TestALateStartSucceedsWithTheTransactionsClock(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, "I4", func(f *fixture) {
		f.mutate("extend_hold", "_now := clock_timestamp(); -- after the lock", "_now := now();")
	}, raceOfLateStart)
}

// behindTheCatalog sends the late payment of a hold of two units, whose owner is ann, while another
// session changes the stock row. The payment waits for the row, and must be lost by what it says
// then.
func behindTheCatalog(change string) race {
	return func(ctx context.Context, f *fixture, r *report) {
		for n := range 2 {
			rows := f.stocks(9, 9)
			lines := []reservation.Line{of(rows[0], 2), rows[1]}[:1+n]
			held, err := newService(f.own).Reserve(ctx,
				reservation.Request{Lines: lines, Owner: "ann"})
			if err != nil {
				f.t.Fatal(err)
			}
			f.kill(held.Hold)
			tx := f.lock("UPDATE inventory SET "+change+" WHERE product_id = $1",
				rows[0].ProductID.String())
			got := ""

			together(2, func(i int) {
				if i == 0 {
					got = told(newService(f.callers[0]).ConfirmPayment(ctx, held.Hold.ID, "p", true, ""))
					return
				}
				err := pgtest.Wait(ctx, f.Admin, waitingSQL, 1)
				r.check(errors.Join(err, tx.Commit(ctx)) == nil, "error", "the other session: %v", err)
			})

			r.check(got == "PAYMENT_LOST 1", money, "the payment gets %s", got)
			r.checkStock(f, rows[0], counts{Total: 9})
			r.checkStock(f, rows[1], counts{Total: 9})
			f.Exec("UPDATE inventory SET open = true, max_per_owner = NULL")
		}
	}
}

func TestALatePaymentHeedsTheCatalogUntilItHasTheStockRow(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ change, guard string }{
		{"open = false", " AND i.open"},
		{"max_per_owner = 1", "AND i.max_per_owner IS NOT DISTINCT FROM l.most"},
	} {
		t.Run(c.change, func(t *testing.T) {
			t.Parallel()

			mustHold(t, 1, behindTheCatalog(c.change))
		})
		t.Run(c.change+", without the guard", func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 1, money, func(f *fixture) { f.mutate("sell_units", c.guard, "") },
				behindTheCatalog(c.change))
		})
	}
}

// raceOfAnOwnersLatePayments sends the late payments of an owner's dead holds beside reserves of
// the same owner, before and after a sweep. The units are there for all, but the product has a
// limit for each owner (I12).
func raceOfAnOwnersLatePayments(ctx context.Context, f *fixture, r *report) {
	const limit = 5
	services := f.services()
	half := len(services) / 2
	for _, swept := range []bool{false, true} {
		row := f.stock(otherUnits)
		reserve := func(s *reservation.Service) (reservation.Answer, error) {
			return s.Reserve(ctx,
				reservation.Request{Lines: []reservation.Line{row}, Owner: row.ProductID.String()})
		}
		var dead []reservation.Hold
		for range half {
			answer, err := reserve(services[0])
			r.check(err == nil, "error", "Reserve() = %v", err)
			dead = append(dead, answer.Hold)
		}
		f.kill(dead...)
		if swept {
			_, err := services[0].Sweep(ctx)
			r.check(err == nil, "error", "Sweep() = %v", err)
		}
		f.limitOwners(row, limit)
		got := tallied(len(services), func(i int) string {
			if i < half {
				return told(services[i].ConfirmPayment(ctx, dead[i].ID, "p", true, ""))
			}
			return told(reserve(services[i]))
		})
		sold, held := got["REACQUIRED"], got["PENDING"]
		r.check(sold+held == limit, "I12", "the owner has %d units, want %d: %v", sold+held, limit, got)
		r.mustBeTally(got, tally{
			"REACQUIRED": sold, "PENDING": held, "PAYMENT_LOST 1": half - sold,
			"1 limits would be exceeded": half - held,
		})
		r.checkStock(f, row, counts{Total: otherUnits - sold, Reserved: held})
	}
	r.checkRetries(services)
}

// limitOwners gives the product of a stock row a limit for each owner.
func (f *fixture) limitOwners(row reservation.Line, limit int) {
	f.t.Helper()
	f.Exec("UPDATE products SET max_per_owner = $2 WHERE id = $1", row.ProductID.String(), limit)
	f.Exec("UPDATE inventory SET max_per_owner = $2 WHERE product_id = $1", row.ProductID.String(),
		limit)
}

func TestLatePaymentsKeepAnOwnersLimit(t *testing.T) {
	t.Parallel()

	mustHold(t, someCallers, raceOfAnOwnersLatePayments)
}

func TestLatePaymentsPassAnOwnersLimitWithoutTheOwnersLock(t *testing.T) {
	t.Parallel()

	// The locks of the owner's dead holds stand in for the owner's lock, so they go too.
	mustBreak(t, someCallers, "I12", func(f *fixture) {
		f.mutate("lock_owner_of_hold", "IF _owner IS NOT NULL", "IF false")
		f.mutate("owner_units", "FOR NO KEY UPDATE OF r SKIP LOCKED", "")
	}, raceOfAnOwnersLatePayments)
}

// raceOfOwnerAndHold lets another session take the owner's lock, as a reserve does, and then the
// hold's, while a late payment of the same hold wants both. The payment has just waited for the
// hold, and found that it died meanwhile.
func raceOfOwnerAndHold(ctx context.Context, f *fixture, r *report) {
	row := f.stock(9)
	f.limitOwners(row, 5)
	held, err := newService(f.own).Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{row}, Owner: "ann"})
	if err != nil {
		f.t.Fatal(err)
	}
	h := held.Hold
	ending := f.lock(endSoonSQL, h.ID.String(), time.Duration(0))
	owner := f.lock("SELECT pg_advisory_xact_lock(hashtextextended($1 || 'ann', 0))",
		row.ProductID.String())
	got := ""

	together(2, func(i int) {
		if i == 0 {
			got = told(newService(f.callers[0]).ConfirmPayment(ctx, h.ID, "p", true, ""))
			return
		}
		err := pgtest.Wait(ctx, f.Admin, waitingSQL, 1)
		err = errors.Join(err, ending.Commit(ctx),
			pgtest.Wait(ctx, f.Admin, waitingSQL+" AND wait_event = 'advisory'", 1))
		_, lockErr := owner.Exec(ctx, lockHoldSQL, h.ID.String())
		r.check(errors.Join(err, lockErr, owner.Commit(ctx)) == nil, "error",
			"the other sessions: %v, %v", err, lockErr)
	})

	r.check(got == "REACQUIRED", money, "the payment gets %s", got)
}

func TestALatePaymentLocksTheOwnerBeforeTheHold(t *testing.T) {
	t.Parallel()

	mustHold(t, 1, raceOfOwnerAndHold)
}

func TestALatePaymentDeadlocksWhenItLocksTheOwnerAfterTheHold(t *testing.T) {
	t.Parallel()

	mustBreak(t, 1, deadlock, func(f *fixture) {
		checkDeadlocksSooner(f)
		f.mutate("resolve_hold", "ROLLBACK;\n                CONTINUE;",
			`_limits := lock_owner_of_hold(_id);
			SELECT s.outcome, s.answer INTO outcome, answer
			FROM settle_payment(_id, _payment, _successor, _actor, _limits) s;`)
	}, raceOfOwnerAndHold)
}
