package reservation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// A hold with payments, with a successor, or with an owner answers the same from the archive.
func TestAnArchivedHoldKeepsItsPaymentsAndItsOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	holds := payForHolds(f)
	before := answersForPayments(f, holds)
	f.age(old)
	f.mustArchive(6, 3)
	if diff := cmp.Diff(before, answersForPayments(f, holds)); diff != "" {
		t.Errorf("the answers for the archived holds differ (-before +after):\n%s", diff)
	}
	f.mustAudit(t)
	f.mustAuditNew()
	if found := f.mustAuditFull(); len(found) > 0 {
		t.Errorf("AuditFull() = %v, want nothing", found)
	}
}

func TestAnArchivedHoldLosesWhatItIsNotAskedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ function, old, replacement string }{
		"its relations": {"hold_json", "_answer := _answer || relations_of_hold(_hold);", ""},
		"its row":       {"stored_row", "FROM archived_reservations", "FROM reservations"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 0)
			holds := payForHolds(f)
			before := answersForPayments(f, holds)
			f.age(old)
			f.mustArchive(6, 3)
			f.mutate(c.function, c.old, c.replacement)
			if diff := cmp.Diff(before, answersForPayments(f, holds)); diff == "" {
				t.Error("the archived holds answer as before, want a difference")
			}
		})
	}
}

// payForHolds makes resolved holds of every kind that a payment, a replacement or an owner makes.
func payForHolds(f *fixture) (holds []uuid.UUID) {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(100, 100)
	must := func(answer reservation.Answer, err error) uuid.UUID {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
		return answer.Hold.ID
	}
	request := reservation.Request{Lines: rows, Owner: "ann", Reference: "order 1"}
	replaced := must(s.Reserve(ctx, request))
	request.Replaces = &replaced
	paid := must(s.Reserve(ctx, request))
	must(s.StartPayment(ctx, paid, "p", time.Minute, ""))
	must(s.ConfirmPayment(ctx, paid, "p", false, ""))
	late := must(s.Reserve(ctx, reservation.Request{Lines: rows[:1], Owner: "bob"}))
	f.Kill(late)
	next := must(s.ConfirmPayment(ctx, late, "p", true, ""))
	gone := must(s.Reserve(ctx, reservation.Request{Lines: rows[1:], Reference: "order 2"}))
	must(s.StartPayment(ctx, gone, "p", time.Minute, ""))
	f.Kill(gone)
	released := must(s.Release(ctx, must(s.Reserve(ctx,
		reservation.Request{Lines: rows, Owner: "carl"})), ""))
	if _, err := s.Sweep(ctx); err != nil {
		f.t.Fatal(err)
	}
	return []uuid.UUID{replaced, paid, late, next, gone, released}
}

// answersForPayments reads each hold, and tells what each call of a payment answers for it. Of the
// hold that is shown, the times have moved with the archive.
func answersForPayments(f *fixture, holds []uuid.UUID) (answers []string) {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	for i, id := range holds {
		view, err := s.Get(ctx, id)
		h := view.Hold
		h.CreatedAt, h.UpdatedAt, h.ExpiresAt = time.Time{}, time.Time{}, time.Time{}
		answers = append(answers,
			fmt.Sprint(i, " is ", h.Status, h.Lines, h.Owner, h.Reference, h.Version, h.Payment,
				h.Replaces, h.ReplacedBy, err),
			fmt.Sprint(i, " start p: ", told(s.StartPayment(ctx, id, "p", time.Minute, ""))),
			fmt.Sprint(i, " start q: ", told(s.StartPayment(ctx, id, "q", time.Minute, ""))),
			fmt.Sprint(i, " fail p: ", told(s.FailPayment(ctx, id, "p", nil, ""))),
			fmt.Sprint(i, " confirm p: ", told(s.ConfirmPayment(ctx, id, "p", false, ""))),
			fmt.Sprint(i, " confirm q: ", told(s.ConfirmPayment(ctx, id, "q", false, ""))),
			fmt.Sprint(i, " confirm: ", told(s.Confirm(ctx, id, ""))),
			fmt.Sprint(i, " release: ", told(s.Release(ctx, id, ""))),
		)
	}
	return answers
}

// A payment may come for a hold that lies in the archive. It gets the units while there are any, or
// is lost. Either is final.
func TestALatePaymentOfAnArchivedHold(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	ctx, s := f.Context(), newService(f.own)
	rows := f.stocks(1, 1)
	var holds []uuid.UUID
	for range 2 {
		answer, err := s.Reserve(ctx, reservation.Request{Lines: rows, Owner: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		f.Kill(answer.Hold.ID)
		holds = append(holds, answer.Hold.ID)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	f.age(old)
	f.mustArchive(2, 0)
	for range 2 {
		first, err := s.ConfirmPayment(ctx, holds[0], "p", true, "")
		if told(first, err) != "REACQUIRED" || first.Hold.Owner != "ann" ||
			first.Hold.Replaces == nil || *first.Hold.Replaces != holds[0] {
			t.Errorf("the first payment: %s, %+v", told(first, err), first)
		}
		if got := told(s.ConfirmPayment(ctx, holds[1], "p", true, "")); got != "PAYMENT_LOST 2" {
			t.Errorf("the second payment: %s", got)
		}
	}
	if view, err := s.Get(ctx, holds[0]); err != nil || view.Hold.ReplacedBy == nil ||
		view.Hold.Status != reservation.Expired {
		t.Errorf("the archived hold is %+v, %v", view.Hold, err)
	}
	f.mustAudit(t)
	if found := f.mustAuditFull(); len(found) > 0 {
		t.Errorf("AuditFull() = %v, want nothing", found)
	}
}

// boughtFromTheArchive buys two of a limited product, whose limit is three, and archives the hold.
// It tells what becomes of a reserve of two more.
func boughtFromTheArchive(f *fixture) string {
	f.t.Helper()
	ctx, s := f.Context(), newService(f.own)
	row := f.stock(100)
	f.Exec(`
UPDATE products SET max_per_owner = 3, changed_at = changed_at - interval '1 h' WHERE id = $1`,
		row.ProductID.String())
	f.Exec("UPDATE inventory SET max_per_owner = 3 WHERE product_id = $1", row.ProductID.String())
	request := reservation.Request{Lines: []reservation.Line{of(row, 2)}, Owner: "ann"}
	answer, err := s.Reserve(ctx, request)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := s.Confirm(ctx, answer.Hold.ID, ""); err != nil {
		f.t.Fatal(err)
	}
	f.age(old)
	f.mustArchive(1, 0)
	return told(s.Reserve(ctx, request))
}

func TestTheUnitsOfAnArchivedHoldCountForItsOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	if got := boughtFromTheArchive(f); got != "1 limits would be exceeded" {
		t.Errorf("a reserve of two more: %s", got)
	}
}

func TestAnOwnerHasMoreWithoutALookIntoTheArchive(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	f.mutate("owner_units", "r.id = m.id AND r.status = 'CONFIRMED'", "false")
	if got := boughtFromTheArchive(f); got != "PENDING" {
		t.Errorf("a reserve of two more: %s, want it held", got)
	}
	wantBroken(t, f.own, "I12")
}
