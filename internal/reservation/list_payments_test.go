package reservation_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// paymentsOf lists the payments of a hold as texts, without their times.
func paymentsOf(f *fixture, hold uuid.UUID) (texts []string, payments []reservation.HoldPayment) {
	f.t.Helper()
	payments, err := newService(f.own).ListPayments(f.Context(), hold)
	if err != nil {
		f.t.Fatal(err)
	}
	texts = []string{}
	for _, p := range payments {
		texts = append(texts, fmt.Sprint(p.Reference, " ", p.Outcome))
	}
	return texts, payments
}

// wantPayments compares the list of a hold's payments.
func wantPayments(f *fixture, hold uuid.UUID, want ...string) []reservation.HoldPayment {
	f.t.Helper()
	got, payments := paymentsOf(f, hold)
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("the payments differ (-want +got):\n%s", diff)
	}
	return payments
}

func TestAHoldListsEachPaymentWithItsOutcome(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(100, 2)

	paid := f.hold(of(rows[0], 1))
	wantPayments(f, paid.ID)
	told(s.StartPayment(ctx, paid.ID, "a", time.Minute, ""))
	told(s.FailPayment(ctx, paid.ID, "a", nil, ""))
	told(s.StartPayment(ctx, paid.ID, "b", time.Minute, ""))
	under := wantPayments(f, paid.ID, "a FAILED", "b STARTED")
	if at := under[1].At; time.Since(at) > time.Minute || at.Location() != time.UTC {
		t.Errorf("the payment under way has started at %s", at)
	}
	told(s.StartPayment(ctx, paid.ID, "c", time.Minute, "")) // it takes the place of b
	told(s.ConfirmPayment(ctx, paid.ID, "c", false, ""))
	told(s.ConfirmPayment(ctx, paid.ID, "d", false, "")) // it is refused
	wantPayments(f, paid.ID, "a FAILED", "b FAILED", "c CONFIRMED")

	late := f.hold(of(rows[1], 2))
	f.kill(late)
	next, err := s.ConfirmPayment(ctx, late.ID, "late", true, "")
	if err != nil {
		t.Fatal(err)
	}
	reacquired := wantPayments(f, late.ID, "late REACQUIRED")
	if successor := reacquired[0].Successor; successor == nil || *successor != next.Hold.ID {
		t.Errorf("the late payment's successor is %v, want %s", successor, next.Hold.ID)
	}
	wantPayments(f, next.Hold.ID, "late CONFIRMED")

	gone := f.hold(of(rows[0], 60))
	f.kill(gone)
	f.hold(of(rows[0], 60))
	told(s.ConfirmPayment(ctx, gone.ID, "lost", true, ""))
	wantPayments(f, gone.ID, "lost LOST")

	unnamed := f.hold(of(rows[0], 1))
	told(s.Confirm(ctx, unnamed.ID, ""))
	wantPayments(f, unnamed.ID)
	if _, err := s.ListPayments(ctx, uuid.New()); !errors.Is(err, reservation.ErrNotFound) {
		t.Errorf("ListPayments(unknown) = %v, want %v", err, reservation.ErrNotFound)
	}
}

// The payments of a hold stay when it moves to the archive. The control forgets to look there.
func TestAnArchivedHoldListsItsPayments(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	holds := payForHolds(f)
	var before [][]reservation.HoldPayment
	for _, id := range holds {
		_, payments := paymentsOf(f, id)
		before = append(before, payments)
	}
	if all := slices.Concat(before...); len(all) != 4 {
		t.Fatalf("the holds have the payments %v, want four", all)
	}
	f.age(old)
	f.mustArchive(6, 3)
	for i, id := range holds {
		_, payments := paymentsOf(f, id)
		if diff := cmp.Diff(before[i], payments); diff != "" {
			t.Errorf("the payments of an archived hold differ (-before +after):\n%s", diff)
		}
	}
	f.mutate("hold_exists", "FROM archived_reservations", "FROM reservations")
	if got, err := newService(f.own).ListPayments(f.Context(), holds[0]); !errors.Is(err,
		reservation.ErrNotFound) {
		t.Errorf("without the archive ListPayments() = %v, %v, want %v", got, err,
			reservation.ErrNotFound)
	}
}

// A hold of very many payments lists the newest ones. The control lists them all.
func TestAListOfPaymentsIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	hold := f.hold(f.stock(1))
	const all = reservation.MaxPayments + 50
	f.Exec(`INSERT INTO hold_payments (hold_id, reference, outcome, at)
SELECT $1, 'p' || n, 'FAILED', now() + n * interval '1 s' FROM generate_series(1, $2) n`,
		hold.ID.String(), all)
	texts, payments := paymentsOf(f, hold.ID)
	if len(payments) != reservation.MaxPayments || texts[0] != "p51 FAILED" ||
		texts[len(texts)-1] != "p150 FAILED" {
		t.Errorf("%d payments from %s to %s, want the newest %d", len(texts), texts[0],
			texts[len(texts)-1], reservation.MaxPayments)
	}
	f.mutate("list_payments", "LIMIT _limit", "")
	if texts, _ := paymentsOf(f, hold.ID); len(texts) != all {
		t.Errorf("without the limit there are %d payments, want %d", len(texts), all)
	}
}
