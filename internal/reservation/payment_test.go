package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// told names the result of a call on a hold, in the words of the table of doc.go.
func told(answer reservation.Answer, err error) string {
	var paid *reservation.AlreadyPaidError
	var lost *reservation.PaymentLostError
	switch {
	case err == nil && answer.Reacquired:
		return "REACQUIRED"
	case err == nil:
		return string(answer.Hold.Status)
	case errors.As(err, &paid) && paid.Payment == nil:
		return "ALREADY_PAID"
	case errors.As(err, &paid):
		return "ALREADY_PAID by " + *paid.Payment
	case errors.As(err, &lost):
		return fmt.Sprintf("PAYMENT_LOST %d", len(lost.Shortages)+len(lost.Limits))
	default:
		return err.Error()
	}
}

func TestAPaymentStartsFailsAndConfirms(t *testing.T) {
	t.Parallel()

	mustHold(t, 0, paymentInSteps)
}

func TestAPaymentIsUnderWayForTooLongOrTooShortWithoutItsGuards(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement string }{
		"the failure of another payment": {
			"judge_extension", "AND _payment = (", "AND _payment <> (",
		},
		"the mark of a failure": {"extend_hold", "paying = _kind = 'p'", "paying = true"},
		"the mark of a start":   {"extend_hold", "paying = _kind = 'p'", "paying = false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			mustBreak(t, 0, money, func(f *fixture) { f.mutate(c.routine, c.old, c.replacement) },
				paymentInSteps)
		})
	}
}

// paymentInSteps makes the calls of two payments of one hold, one after the other.
func paymentInSteps(ctx context.Context, f *fixture, r *report) {
	s := newService(f.own)
	line := f.stock(10)
	h := f.hold(of(line, 2))

	start := func(payment string) string {
		return told(s.StartPayment(ctx, h.ID, payment, time.Minute, ""))
	}
	minute := time.Minute
	for _, step := range []struct{ call, got, want string }{
		{"start p", start("p"), "PENDING"},
		{"release", told(s.Release(ctx, h.ID, "")), "payment started"},
		{"extend", told(s.Extend(ctx, h.ID, time.Minute, "")), "payment started"},
		{"fail q", told(s.FailPayment(ctx, h.ID, "q", nil, "")), "PENDING"},
		{"release", told(s.Release(ctx, h.ID, "")), "payment started"},
		{"fail p", told(s.FailPayment(ctx, h.ID, "p", &minute, "")), "PENDING"},
		{"extend", told(s.Extend(ctx, h.ID, time.Minute, "")), "PENDING"},
		{"start q", start("q"), "PENDING"},
		{"start p", start("p"), "PENDING"},
		{"confirm q", told(s.ConfirmPayment(ctx, h.ID, "q", false, "")), "CONFIRMED"},
		{"confirm q", told(s.ConfirmPayment(ctx, h.ID, "q", true, "")), "CONFIRMED"},
		{"confirm", told(s.Confirm(ctx, h.ID, "")), "CONFIRMED"},
		{"confirm p", told(s.ConfirmPayment(ctx, h.ID, "p", true, "")), "ALREADY_PAID by q"},
		{"start q", start("q"), "CONFIRMED"},
		{"start p", start("p"), "ALREADY_PAID by q"},
		{"fail p", told(s.FailPayment(ctx, h.ID, "p", nil, "")), "CONFIRMED"},
	} {
		r.check(step.got == step.want, money, "%s = %s, want %s", step.call, step.got, step.want)
	}
}

func TestALatePaymentReacquiresOrIsLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	lines := f.stocks(2, 5)
	for n, cart := range [][]reservation.Line{{of(lines[0], 2)}, {of(lines[0], 1), of(lines[1], 2)}} {
		key := fmt.Sprint("k", n)
		h := f.hold(cart...)
		f.kill(h)
		first, err := s.ConfirmPayment(ctx, h.ID, "p", true, key)
		if got := told(first, err); got != "REACQUIRED" {
			t.Fatalf("confirm p = %s", got)
		}
		if first.Hold.Replaces == nil || *first.Hold.Replaces != h.ID {
			t.Errorf("the successor replaces %v, want %s", first.Hold.Replaces, h.ID)
		}
		again, err := s.ConfirmPayment(ctx, h.ID, "p", true, key)
		if got := told(again, err); got != "REACQUIRED" || !again.Replayed ||
			again.Hold.ID != first.Hold.ID {
			t.Errorf("the replay = %s %+v", got, again)
		}
		if got := told(s.ConfirmPayment(ctx, h.ID, "q", true, "")); got != "ALREADY_PAID by p" {
			t.Errorf("confirm q = %s", got)
		}
		view, err := s.Get(ctx, h.ID)
		if err != nil || view.Hold.Status != reservation.Expired || view.Hold.ReplacedBy == nil {
			t.Errorf("the old hold = %+v, %v", view.Hold, err)
		}
		f.Exec("SELECT adjust_stock($1, $2, $3, 'test')", lines[0].ProductID.String(),
			lines[0].WarehouseID.String(), cart[0].Quantity)
	}
	h := f.hold(of(lines[0], 2))
	f.kill(h)
	f.hold(of(lines[0], 1))
	for _, key := range []string{"kl", "kl", ""} {
		got := told(s.ConfirmPayment(ctx, h.ID, "r", true, key))
		if got != "PAYMENT_LOST 1" {
			t.Errorf("confirm r = %s", got)
		}
	}
	f.mustHold(nothing)
}

func TestAHoldReplacesAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	lines := f.stocks(3, 3, 3)
	reserve := func(old uuid.UUID, lines ...reservation.Line) reservation.Hold {
		t.Helper()
		a, err := s.Reserve(ctx, reservation.Request{
			Lines: lines, Replaces: &old, Owner: "ann", Reference: "order 1",
		})
		if err != nil {
			t.Fatalf("reserve = %v", err)
		}
		if a.Hold.Replaces == nil || *a.Hold.Replaces != old || a.Hold.Owner != "ann" {
			t.Errorf("the new hold is %+v", a.Hold)
		}
		f.mustHold(nothing)
		return a.Hold
	}
	a := f.hold(of(lines[0], 2))
	b := reserve(a.ID, of(lines[0], 3))
	c := reserve(b.ID, of(lines[0], 1), of(lines[1], 3))
	d := reserve(c.ID, of(lines[1], 2), of(lines[2], 3))
	e := reserve(d.ID, of(lines[2], 1))
	if got := f.status(d); got != reservation.Released {
		t.Errorf("the replaced hold is %s", got)
	}
	_, err := s.Reserve(ctx,
		reservation.Request{Lines: []reservation.Line{of(lines[2], 4)}, Replaces: &e.ID})
	var short *reservation.InsufficientStockError
	if !errors.As(err, &short) || short.Shortages[0].Available != 3 ||
		short.Shortages[0].Requested != 4 {
		t.Errorf("reserve = %v %+v", err, short)
	}
	if got := f.counts(lines[2]); got.Reserved != 1 {
		t.Errorf("the stock row is %+v", got)
	}
}

func TestAnOwnersLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	line := f.stock(100)
	f.limitOwners(line, 4)
	f.Exec("UPDATE products SET max_per_hold = 3 WHERE id = $1", line.ProductID.String())
	f.Exec("UPDATE inventory SET max_per_hold = 3 WHERE product_id = $1", line.ProductID.String())
	reserve := func(owner string, n int) string {
		return told(s.Reserve(ctx,
			reservation.Request{Lines: []reservation.Line{of(line, n)}, Owner: owner}))
	}
	for _, step := range []struct{ got, want string }{
		{reserve("", 1), "owner required"},
		{reserve("", 4), "1 limits would be exceeded"},
		{reserve("ann", 4), "1 limits would be exceeded"},
		{reserve("ann", 3), "PENDING"},
		{reserve("ann", 2), "1 limits would be exceeded"},
		{reserve("ann", 1), "PENDING"},
		{reserve("bob", 3), "PENDING"},
		{reserve("ann", 1), "1 limits would be exceeded"},
	} {
		if step.got != step.want {
			t.Errorf("got %s, want %s", step.got, step.want)
		}
	}
	f.mustHold(nothing)
}

// A hold of version 0 is from before there was a ledger.
func TestPaymentsOfAHoldFromBeforeTheLedger(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(9, 9)
	for n := range 2 {
		paid, late := f.hold(rows[:1+n]...), f.hold(rows[:1+n]...)
		f.unguarded(fmt.Sprintf("DELETE FROM ledger WHERE hold_id IN ('%s', '%s')", paid.ID, late.ID),
			fmt.Sprintf("UPDATE reservations SET version = 0 WHERE id IN ('%s', '%s')", paid.ID, late.ID))
		f.kill(late)
		for _, step := range []struct{ call, got, want string }{
			{"start", told(s.StartPayment(ctx, paid.ID, "p", time.Minute, "")), "PENDING"},
			{"fail", told(s.FailPayment(ctx, paid.ID, "p", nil, "")), "PENDING"},
			{"confirm", told(s.ConfirmPayment(ctx, paid.ID, "p", true, "")), "CONFIRMED"},
			{"late", told(s.ConfirmPayment(ctx, late.ID, "p", true, "")), "REACQUIRED"},
			{"late again", told(s.ConfirmPayment(ctx, late.ID, "p", true, "")), "REACQUIRED"},
		} {
			if step.got != step.want {
				t.Errorf("%s = %s, want %s", step.call, step.got, step.want)
			}
		}
	}
	f.mustAudit(t)
}
