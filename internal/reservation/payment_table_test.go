package reservation_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/allo/reservations/internal/reservation"
)

// paymentTable reads the table of doc.go: by state and call, the code of the answer. It returns the
// states and the calls in their order, too.
func paymentTable(t *testing.T) (answers map[[2]string]string, states, calls []string) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, found := strings.Cut(string(doc), "//\tstate  ")
	rows, _, ended := strings.Cut(rows, "\n//\n")
	if !found || !ended {
		t.Fatal("doc.go has no table of states and calls")
	}
	answers = map[[2]string]string{}
	columns := regexp.MustCompile(` {2,}`)
	for n, row := range strings.Split(rows, "\n") {
		cells := columns.Split(strings.TrimSpace(strings.TrimPrefix(row, "//\t")), -1)
		if n == 0 {
			calls = cells
			continue
		}
		if len(cells) != len(calls)+1 {
			t.Fatalf("the row %q of doc.go has %d answers, want %d", row, len(cells)-1, len(calls))
		}
		states = append(states, cells[0])
		for i, call := range calls {
			answers[[2]string{cells[0], call}] = cells[i+1]
		}
	}
	return answers, states, calls
}

// tableUnits are the units of each line of a hold of the table, and tableTotal those of its stock
// rows.
const tableUnits, tableTotal = 2, 6

// inState makes a hold of these lines in a state of the table, all of whose units are free when it
// is gone.
func (f *fixture) inState(state string, lines []reservation.Line) reservation.Hold {
	f.t.Helper()
	s, ctx := newService(f.own), f.Context()
	h := f.hold(lines...)
	if reference, anew := strings.CutPrefix(state, "CONFIRMED anew by "); anew {
		f.kill(h)
		answer, err := s.ConfirmPayment(ctx, h.ID, reference, true, "")
		if err != nil {
			f.t.Fatalf("make a hold that is %s: %v", state, err)
		}
		return answer.Hold
	}
	status, payment, _ := strings.Cut(strings.Replace(state, " by ", ", by ", 1), ", ")
	must := func(_ reservation.Answer, err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatalf("make a hold that is %s: %v", state, err)
		}
	}
	switch payment {
	case "P started":
		must(s.StartPayment(ctx, h.ID, "P", time.Minute, ""))
	case "Q started":
		must(s.StartPayment(ctx, h.ID, "Q", time.Minute, ""))
	case "P failed":
		must(s.StartPayment(ctx, h.ID, "P", time.Minute, ""))
		must(s.FailPayment(ctx, h.ID, "P", nil, ""))
	}
	switch reference, named := strings.CutPrefix(payment, "by "); {
	case named:
		must(s.ConfirmPayment(ctx, h.ID, reference, false, ""))
	case status == "CONFIRMED":
		must(s.Confirm(ctx, h.ID, ""))
	case payment == "replaced":
		answer, err := s.Reserve(ctx, reservation.Request{Lines: lines, Replaces: &h.ID})
		must(answer, err)
	case status == "RELEASED":
		must(s.Cancel(ctx, h.ID, ""))
	case status == "EXPIRED":
		f.kill(h)
	}
	reference, outcome, _ := strings.Cut(payment, " ")
	switch outcome {
	case "reacquired":
		must(s.ConfirmPayment(ctx, h.ID, reference, true, ""))
	case "lost":
		others := f.hold(of(lines[0], tableTotal-tableUnits+1))
		_, err := s.ConfirmPayment(ctx, h.ID, reference, true, "")
		if got := told(reservation.Answer{}, err); got != "PAYMENT_LOST 1" {
			f.t.Fatalf("make a hold that is %s: %s", state, got)
		}
		must(s.Release(ctx, others.ID, ""))
	}
	return h
}

// tableCall makes a call of the table, and returns the code of its answer.
func (f *fixture) tableCall(call, state string, h reservation.Hold) string {
	f.t.Helper()
	s, ctx := newService(f.own), f.Context()
	var answer reservation.Answer
	var err error
	switch call {
	case "confirm":
		answer, err = s.Confirm(ctx, h.ID, "")
	case "refuse", "anew":
		answer, err = s.ConfirmPayment(ctx, h.ID, "P", call == "anew", "")
	case "start":
		answer, err = s.StartPayment(ctx, h.ID, "P", time.Minute, "")
	case "fail":
		answer, err = s.FailPayment(ctx, h.ID, "P", nil, "")
	case "release":
		answer, err = s.Release(ctx, h.ID, "")
	case "cancel":
		answer, err = s.Cancel(ctx, h.ID, "")
	case "extend":
		answer, err = s.Extend(ctx, h.ID, time.Minute, "")
	case "replace":
		answer, err = s.Reserve(ctx, reservation.Request{Lines: h.Lines, Replaces: &h.ID})
	default:
		f.t.Fatalf("doc.go has a column %q", call)
	}
	if err != nil {
		return refusalCode(state, err)
	}
	return successCode(call, h, answer)
}

// successCode is the code of a success of the table. It checks the hold of the answer.
func successCode(call string, h reservation.Hold, answer reservation.Answer) string {
	got := answer.Hold
	switch replaces := got.Replaces != nil && *got.Replaces == h.ID; {
	case answer.Reacquired && replaces && got.Status == reservation.Confirmed:
		return "ANEW"
	case call == "replace" && replaces:
		return "NEW"
	case call == "replace" && got.Replaces == nil:
		return "SKIP"
	case answer.Reacquired || call == "replace" || got.ID != h.ID:
		return fmt.Sprintf("hold %s that replaces %v", got.ID, got.Replaces)
	}
	return map[reservation.Status]string{
		reservation.Pending: "PEND", reservation.Confirmed: "CONF",
		reservation.Released: "REL", reservation.Expired: "EXP",
	}[got.Status]
}

// refusalCode is the code of a refusal of the table. Of a hold that is paid, it checks the payment
// that is named.
func refusalCode(state string, err error) string {
	var paid *reservation.AlreadyPaidError
	var lost *reservation.PaymentLostError
	switch {
	case errors.As(err, &lost):
		return "lost"
	case errors.As(err, &paid) && paid.Payment == nil && !strings.Contains(state, "Q"),
		errors.As(err, &paid) && paid.Payment != nil && *paid.Payment == "Q" &&
			strings.Contains(state, "Q"):
		return "paid"
	case errors.Is(err, reservation.ErrPaymentStarted):
		return "paying"
	case errors.Is(err, reservation.ErrConfirmed):
		return "conf"
	case errors.Is(err, reservation.ErrReleased):
		return "rel"
	case errors.Is(err, reservation.ErrExpired):
		return "exp"
	default:
		return fmt.Sprintf("%T %v", err, err)
	}
}

// walkTable makes each call of the table twice, for a hold in each of the states, half of which are
// carts. Before the calls, and after all holds are made, later is called. It returns the answers
// that aren't those of the table.
func (f *fixture) walkTable(t *testing.T, states []string, later func()) (wrong []string) {
	t.Helper()
	answers, _, calls := paymentTable(t)
	holds := map[[2]string]reservation.Hold{}
	for n, state := range states {
		for i, call := range calls {
			var lines []reservation.Line
			for range 1 + (n+i)%2 {
				lines = append(lines, of(f.stock(tableTotal), tableUnits))
			}
			holds[[2]string{state, call}] = f.inState(state, lines)
		}
	}
	later()
	for _, state := range states {
		for _, call := range calls {
			cell := [2]string{state, call}
			want := answers[cell]
			again := map[bool]string{true: "SKIP", false: want}[want == "NEW"]
			got := [2]string{
				f.tableCall(call, state, holds[cell]), f.tableCall(call, state, holds[cell]),
			}
			if got != [2]string{want, again} {
				wrong = append(wrong,
					fmt.Sprintf("%s of a hold that is %s = %v, want %s and %s", call, state, got,
						want, again))
			}
		}
	}
	return wrong
}

func TestEveryCallAnswersAsTheTableSays(t *testing.T) {
	t.Parallel()

	_, states, calls := paymentTable(t)
	if len(states) != 26 || len(calls) != 9 {
		t.Fatalf("the table has %d states and %d calls, want 26 and 9", len(states), len(calls))
	}
	resolved := slices.DeleteFunc(slices.Clone(states), func(state string) bool {
		return strings.HasPrefix(state, "PENDING")
	})
	expired := slices.DeleteFunc(slices.Clone(states), func(state string) bool {
		return !strings.HasPrefix(state, "EXPIRED")
	})
	sweep := func(f *fixture, s *reservation.Service) reservation.SweepResult {
		result, err := s.Sweep(f.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		return result
	}
	for name, c := range map[string]struct {
		states []string
		later  func(f *fixture)
	}{
		"as they are": {states, func(*fixture) {}},
		"swept":       {expired, func(f *fixture) { sweep(f, newService(f.own)) }},
		"archived": {resolved, func(f *fixture) {
			sweep(f, newService(f.own))
			f.age(old)
			sweep(f, archiver(f.own))
			f.mustBeArchived()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			for _, wrong := range f.walkTable(t, c.states, func() { c.later(f) }) {
				t.Error(wrong)
			}
			f.mustAudit(t)
		})
	}
}

// mustBeArchived fails the test unless all resolved holds are archived.
func (f *fixture) mustBeArchived() {
	f.t.Helper()
	if n := queryOne[int](f, "SELECT count(*) FROM reservations WHERE status <> 'PENDING'"); n != 0 {
		f.t.Fatalf("%d resolved holds aren't archived", n)
	}
}

// Each control removes a guard, and walks a row of the table that needs it.
func TestACallAnswersOtherwiseWithoutItsGuard(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ routine, old, replacement, state string }{
		"a release while a payment is under way": {
			"resolve_hold", "AND (NOT paying OR _to::text = 'CONFIRMED' OR _cause = 'o')", "",
			"PENDING, P started",
		},
		"an operator's cancel": {"resolve_hold", " OR _cause = 'o')", ")", "PENDING, P started"},
		"an extend while a payment is under way": {
			"judge_extension", "WHEN _kind = 'x' AND _hold.paying THEN 'PAYMENT_STARTED'", "",
			"PENDING, Q started",
		},
		"the look for a payment that was lost": {
			"settle_payment", "_mine.outcome = 'LOST'", "false", "EXPIRED, P lost",
		},
		"the look for the payment that was first": {
			"settle_payment", "OR _first.reference IS NOT NULL THEN", "THEN",
			"RELEASED, Q reacquired",
		},
		"the look for a confirm without a payment": {
			"settle_payment", "_hold.status = 'CONFIRMED' OR", "", "CONFIRMED",
		},
		"the look for its own confirm": {
			"settle_payment", "_first.reference = _payment AND _first.outcome = 'CONFIRMED'",
			"false", "CONFIRMED by P",
		},
		"the payment of a successor": {
			"reacquire_units", "PERFORM keep_payment(_successor, _payment, 'CONFIRMED', NULL, NULL);",
			"", "CONFIRMED anew by P",
		},
		"the look for its own successor": {
			"settle_payment", "ELSIF _first.reference = _payment THEN", "ELSIF false THEN",
			"EXPIRED, P reacquired",
		},
		"the look for the hold that replaces it": {
			"reacquire_units", "WHERE r.old_id = _hold.id", "WHERE false", "RELEASED, replaced",
		},
		"a start after another payment's success": {
			"judge_extension", "IF _paid THEN", "IF false THEN", "RELEASED, Q reacquired",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 0)
			// The guards of the schema would turn a wrong answer into an error. That is one, too.
			remove := func() { f.mutate(c.routine, c.old, c.replacement) }
			if strings.Contains(c.state, "anew") { // the guard is in the making of the successor
				remove()
				remove = func() {}
			}
			wrong := f.walkTable(t, []string{c.state}, remove)
			if len(wrong) == 0 {
				t.Errorf("each call of a hold that is %s answers as the table says", c.state)
			}
		})
	}
}
