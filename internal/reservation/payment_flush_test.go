package reservation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// wantTold is nil when a call was answered with these words of told.
func wantTold(want string) func(reservation.Answer, error) error {
	return func(answer reservation.Answer, err error) error {
		if got := told(answer, err); got != want {
			return fmt.Errorf("the answer is %s, want %s", got, want)
		}
		return nil
	}
}

// payTeller is a call that tells what has become of the payment p of a hold that is gone.
type payTeller func(context.Context, *reservation.Service, uuid.UUID) error

// tellersOfReacquired are the calls that tell that the payment got a successor.
var tellersOfReacquired = map[string]payTeller{
	"a get of the hold": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		view, err := s.Get(ctx, id)
		if err == nil && view.Hold.ReplacedBy == nil {
			err = errors.New("it has no successor")
		}
		return err
	},
	"another payment": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantTold("ALREADY_PAID by p")(s.ConfirmPayment(ctx, id, "q", true, ""))
	},
	"another payment with a key": func(
		ctx context.Context, s *reservation.Service, id uuid.UUID,
	) error {
		return wantTold("ALREADY_PAID by p")(s.ConfirmPayment(ctx, id, "q", false, uuid.NewString()))
	},
	"the start of another payment": func(
		ctx context.Context, s *reservation.Service, id uuid.UUID,
	) error {
		return wantTold("ALREADY_PAID by p")(s.StartPayment(ctx, id, "q", time.Minute, ""))
	},
	"the payment again": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantTold("REACQUIRED")(s.ConfirmPayment(ctx, id, "p", false, ""))
	},
	"the payment's start": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantTold("EXPIRED")(s.StartPayment(ctx, id, "p", time.Minute, ""))
	},
	"the payment's failure": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		answer, err := s.FailPayment(ctx, id, "p", nil, "")
		if err == nil && answer.Hold.ReplacedBy == nil {
			err = errors.New("the hold has no successor")
		}
		return err
	},
}

// tellersOfLost are the calls that tell that the payment is lost.
var tellersOfLost = map[string]payTeller{
	"the payment again": func(ctx context.Context, s *reservation.Service, id uuid.UUID) error {
		return wantTold("PAYMENT_LOST 1")(s.ConfirmPayment(ctx, id, "p", true, ""))
	},
	"the payment with REFUSE": func(
		ctx context.Context, s *reservation.Service, id uuid.UUID,
	) error {
		return wantTold("PAYMENT_LOST 1")(s.ConfirmPayment(ctx, id, "p", false, uuid.NewString()))
	},
}

// payLate sends the late payment p of a dead hold, whose units are free or not, while another
// session holds advisory lock 1. The mutated resolve_hold then writes no log record.
func (f *fixture) payLate(lost bool) (reservation.Hold, error) {
	f.t.Helper()
	ctx := f.Context()
	row := f.stock(2)
	h := f.hold(of(row, 2))
	f.kill(h)
	want := "REACQUIRED"
	if lost {
		f.hold(row)
		want = "PAYMENT_LOST 1"
	}
	tx := f.lock("SELECT pg_advisory_xact_lock(1)")
	defer tx.Rollback(ctx)
	return h, wantTold(want)(newService(f.own).ConfirmPayment(ctx, h.ID, "p", true, ""))
}

// outcomeAfterCrash sends a late payment whose commit isn't on disk yet, lets a call tell of it,
// and kills the server. It returns the payment's outcome after the restart, or "gone".
func outcomeAfterCrash(
	t *testing.T, server *pgserver.Server, db pgtest.Database, lost bool, tell payTeller,
) string {
	t.Helper()
	f := open(t, db, 1)
	f.StopLogWriter()
	h, err := f.payLate(lost)
	if err = errors.Join(err, tell(f.Context(), f.services()[0], h.ID)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Kill(), server.Restart(f.Context())); err != nil {
		t.Fatal(err)
	}
	after := open(t, db, 0)
	after.mustAudit(t)
	return queryOne[string](after, "SELECT coalesce((SELECT outcome::text FROM hold_payments"+
		" WHERE hold_id = $1), 'gone')", h.ID.String())
}

// A payment's answer is final. So each call that tells of it waits until it is on disk, also when
// the call that decided it hasn't waited yet.
func TestAnswersAboutALatePaymentWaitUntilItIsOnDisk(t *testing.T) {
	t.Parallel()

	server, db := pgtest.NewServer(t, lazyWriter)
	f := open(t, db, 0)
	// The first of the two records of resolve_hold is that of a success.
	f.mutate("resolve_hold", "COMMIT;\n        "+logRecord,
		"COMMIT;\n        IF pg_try_advisory_xact_lock_shared(1) THEN "+logRecord+" END IF;")
	if _, err := newService(f.own).Sweep(t.Context()); err != nil { // there is a mark, too old
		t.Fatal(err)
	}
	tellers := map[string]map[string]payTeller{
		"REACQUIRED": tellersOfReacquired, "LOST": tellersOfLost,
	}
	for outcome, calls := range tellers {
		for name, tell := range calls {
			got := outcomeAfterCrash(t, server, db, outcome == "LOST", tell)
			if got != outcome {
				t.Errorf("after %s and a crash, the payment is %s, want %s", name, got, outcome)
			}
		}
	}

	// The control: without the waits each of them tells of an outcome that the crash undoes.
	f = open(t, db, 0)
	f.mutate("hold_is_flushed", "RETURN coalesce((", "RETURN true OR coalesce((")
	f.mutate("resolve_hold", "_payment IS NOT NULL OR NOT hold_is_flushed", "NOT hold_is_flushed")
	f.mutate("extend_hold", "_payment IS NOT NULL OR NOT hold_is_flushed", "NOT hold_is_flushed")
	f.mutate("extend_hold", "COMMIT;\n        "+logRecord, "COMMIT;")
	f.mutate("resolve_hold",
		"COMMIT;\n        IF pg_try_advisory_xact_lock_shared(1) THEN "+logRecord+" END IF;", "COMMIT;")
	for outcome, calls := range tellers {
		for name, tell := range calls {
			got := outcomeAfterCrash(t, server, db, outcome == "LOST", tell)
			if got != "gone" {
				t.Errorf("after %s without a wait and a crash, the payment is %s, want it gone", name,
					got)
			}
		}
	}
}

// paymentVerbs are the calls of payments, for holds of one unit of a stock row.
func (f *fixture) paymentVerbs(s *reservation.Service, row reservation.Line) []namedCall {
	f.t.Helper()
	ctx := f.Context()
	paid, late, lost := f.hold(row), f.hold(row), f.hold(f.stock(1))
	f.kill(late, lost)
	f.hold(lost.Lines...)
	pay := func(h reservation.Hold, payment, want string) func() error {
		return func() error {
			return wantTold(want)(s.ConfirmPayment(ctx, h.ID, payment, true, uuid.NewString()))
		}
	}
	return []namedCall{
		{"start a payment", func() error {
			return wantTold("PENDING")(s.StartPayment(ctx, paid.ID, "p", time.Minute, ""))
		}},
		{"fail another payment", func() error {
			return wantTold("PENDING")(s.FailPayment(ctx, paid.ID, "q", nil, uuid.NewString()))
		}},
		{"fail a payment", func() error {
			return wantTold("PENDING")(s.FailPayment(ctx, paid.ID, "p", nil, ""))
		}},
		{"pay", pay(paid, "p", "CONFIRMED")},
		{"pay again", pay(paid, "p", "CONFIRMED")},
		{"another payment", pay(paid, "q", "ALREADY_PAID by p")},
		{"a late payment", pay(late, "p", "REACQUIRED")},
		{"a late payment again", pay(late, "p", "REACQUIRED")},
		{"a payment that is lost", pay(lost, "p", "PAYMENT_LOST 1")},
		{"a payment that was lost", pay(lost, "p", "PAYMENT_LOST 1")},
	}
}
