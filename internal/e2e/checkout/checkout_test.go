package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/pgtest"
)

func source(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("checkout.go")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheProgramHasAtMost150LinesAndOnlyTheStandardLibrary(t *testing.T) {
	t.Parallel()
	text := source(t)
	if lines := strings.Count(text, "\n"); lines > 150 {
		t.Errorf("checkout.go has %d lines, want at most 150", lines)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "checkout.go", text, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range file.Imports {
		if strings.Contains(i.Path.Value, ".") {
			t.Errorf("checkout.go imports %s, want the standard library alone", i.Path.Value)
		}
	}
}

func TestEachPaymentOfABadDayIsKeptOrRefundedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, build(t, source(t)))
	for _, problem := range w.badDay() {
		t.Error(problem)
	}
	if killed := w.shop.killed(); killed < 6 {
		t.Errorf("the shop was killed %d times, want 6 or more", killed)
	}
}

// forgotten is a rule that a shop may forget: the program's text, what a shop without the rule has
// in its place, and what the day then finds.
type forgotten struct{ rule, instead, found string }

func TestABadDayNoticesAForgottenRule(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]forgotten{
		"a lost payment is refunded": {
			`kept.Code == "PAYMENT_LOST" || `, ``,
			`its unit is gone: the payments are "forgotten kept"`,
		},
		"a second payment is refunded": {
			` || kept.Code == "ALREADY_PAID"`, ``,
			`both tabs pay, the second is first: the payments are "forgotten kept"`,
		},
		"confirm names the payment": {
			`{"paymentReference": p.ID, "onGone": "REACQUIRE"}`, `{}`,
			`both tabs pay, the second is first: the payments are "forgotten kept"`,
		},
		"late money takes the units anew": {
			`"REACQUIRE"`, `"REFUSE"`,
			`its unit is free: the payments are "forgotten"`,
		},
		"only a final refusal is refunded": {
			`kept.Code == "PAYMENT_LOST" || kept.Code == "ALREADY_PAID"`, `kept.Status >= 300`,
			`the answers to the confirm are lost: the payments are "kept and refunded"`,
		},
		"a hold has a key": {
			`, sign(s.KeySecret, "hold "+o.Number))`, `)`,
			`the answers to the reserve are lost: the stock is {Total:3 Reserved:3}`,
		},
		"a payment has a key": {
			`,` + "\n\t\t" + `sign(s.KeySecret, "pay "+hold+" "+o.Attempt))`, `)`,
			`the answers to the new payment are lost: the payments are "unpaid unpaid kept"`,
		},
		"a refund has a key": {
			`, "refund "+p.ID)`, `)`,
			`its unit is gone: the payments are "refunded and refunded`,
		},
		"the provider knows what was paid": {
			`case p.State == "captured":`, `default:`,
			`an open payment is said to be paid: the payments are "unpaid and kept"`,
		},
		"the customer pays once the payment has started": {
			"if started.Status >= 300 {\n\t\treturn started\n\t}", `_ = started`,
			`the second attempt is answered ""`,
		},
		"a webhook comes again until it is done": {
			`w.WriteHeader(a.Status)`, `w.WriteHeader(min(a.Status, 299))`,
			`the service is down at the confirm: the payments are "forgotten"`,
		},
		"a webhook is signed": {
			`err == nil && signed &&`, `err == nil && (signed || true) &&`,
			`the shop takes a webhook that the provider hasn't signed`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := source(t)
			changed := strings.Replace(text, f.rule, f.instead, 1)
			if changed == text {
				t.Fatalf("the program has no %s", f.rule)
			}
			problems := strings.Join(newWorld(t, build(t, changed)).badDay(), "\n")
			if !strings.Contains(problems, f.found) {
				t.Errorf("the day finds %q, want %q among it", problems, f.found)
			}
		})
	}
}

// The shop hangs up before its caller does. A shop without a deadline waits for as long.
func TestACallThatHangsEnds(t *testing.T) {
	t.Parallel()
	const long, never = "Timeout: 10 * time.Second}).Do", "}).Do"
	const short = "Timeout: 3 * time.Second}).Do"
	if !strings.Contains(source(t), long) {
		t.Fatalf("the program has no %s", long)
	}
	for name, c := range map[string]struct {
		deadline string
		patience time.Duration
		want     int
	}{
		"with a deadline":    {short, time.Minute, http.StatusServiceUnavailable},
		"without a deadline": {never, 9 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, build(t, strings.Replace(source(t), long, c.deadline, 1)))
			p, refusal := w.checkOut(w.cart("order", map[int]int{w.stock(1): 1}), 1)
			if refusal != "" {
				t.Fatalf("the checkout is refused: %s", refusal)
			}
			w.provider.capture(p)
			w.breakNext("/confirm", hang)
			w.patience = c.patience
			status, text := w.ask("/webhook", w.shop.shop.CallerSecret, map[string]string{"payment": p})
			if status != c.want {
				t.Errorf("the webhook is answered %d %s, want %d", status, text, c.want)
			}
			w.patience = time.Minute
			w.tellUntilTaken(p, captured)
			for _, problem := range w.judge() {
				t.Error(problem)
			}
		})
	}
}

// badDay lives through a case after the other, each with a product of its own. It returns what went
// wrong.
func (w *world) badDay() (problems []string) {
	for _, c := range []struct {
		name  string
		units int // in stock at the beginning
		run   func(c *badCase)
		sold  int
		fates string // of the payments, in the order in which they were made
	}{
		{"the webhook comes twice", 1, (*badCase).twice, 1, "kept"},
		{"the answers to the reserve are lost", 3, (*badCase).lostReserve, 1, "kept"},
		{"the answers to the new payment are lost", 1, (*badCase).lostPayment, 1, "kept"},
		{"the answers to the confirm are lost", 1, (*badCase).lostConfirm, 1, "kept"},
		{"the service is down at the confirm", 1, (*badCase).refusedConfirm, 1, "kept"},
		{"the shop dies around the confirm", 1, (*badCase).crashedConfirm, 1, "kept"},
		{"the hold dies, its unit is free", 1, (*badCase).late, 1, "kept"},
		{"the hold dies, its unit is gone", 1, (*badCase).tooLate, 1, "refunded kept"},
		{"both tabs pay, the second is first", 1, (*badCase).twoTabs, 1, "refunded kept"},
		{"the first attempt fails late", 1, (*badCase).wrongAttempt, 1, "unpaid kept"},
		{"the failed attempt pays after all", 1, (*badCase).paysAfterAll, 1, "kept refunded"},
		{"a failed payment is said to be paid", 1, (*badCase).falseAlarm, 0, "unpaid"},
		{"an open payment is said to be paid", 1, (*badCase).tooEarly, 0, "unpaid"},
		{"the customer goes away", 1, (*badCase).goesAway, 0, "unpaid"},
		{"support cancels the order", 1, (*badCase).cancelled, 1, "kept"},
		{"the customer returns too late", 1, (*badCase).returns, 0, "unpaid unpaid"},
		{"a stranger calls", 1, (*badCase).stranger, 0, "unpaid"},
		{"the webhook never comes", 1, (*badCase).never, 1, "kept"},
	} {
		day := &badCase{world: w, name: c.name, product: w.stock(c.units)}
		before := len(w.provider.list())
		c.run(day)
		w.setFaults(func(*http.Request) fault { return none })
		if _, err := w.service.Sweep(w.db.Context()); err != nil {
			w.t.Fatal(err)
		}
		var fates []string
		for _, p := range w.provider.list()[before:] {
			fates = append(fates, w.fate(p))
		}
		if got := strings.Join(fates, " "); got != c.fates {
			day.bad("the payments are %q, want %q", got, c.fates)
		}
		left := w.db.Counts(w.products[day.product], w.warehouse)
		if want := (pgtest.Counts{Total: c.units - c.sold}); left != want {
			day.bad("the stock is %+v, want %+v", left, want)
		}
		problems = append(problems, day.problems...)
	}
	return append(problems, w.judge()...)
}

// badCase is one case of the day.
type badCase struct {
	*world
	name     string
	product  int
	problems []string
}

func (c *badCase) bad(format string, args ...any) {
	c.problems = append(c.problems, c.name+": "+fmt.Sprintf(format, args...))
}

// order is an order of one unit of the case's product.
func (c *badCase) order(n int) order {
	return c.cart(fmt.Sprint(c.name, " ", n), map[int]int{c.product: 1})
}

// start checks an order out, and returns the payment.
func (c *badCase) start(n, attempt int) string {
	payment, refusal := c.checkOut(c.order(n), attempt)
	if refusal != "" {
		c.bad("the checkout is refused: %s", refusal)
	}
	return payment
}

// kill lets the hold of a payment die.
func (c *badCase) kill(payment string) {
	hold, err := uuid.Parse(c.provider.hold(payment))
	if err == nil {
		err = pgtest.KillHold(c.db.Context(), c.db.Admin, hold)
	}
	if err != nil {
		c.bad("%v", err)
	}
}

func (c *badCase) twice() {
	p := c.start(1, 1)
	c.provider.capture(p)
	c.tellUntilTaken(p, captured)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) lostReserve() {
	c.breakNext("/reservations", loseAnswer, crashAfter, loseAnswer)
	p := c.start(1, 1)
	c.provider.capture(p)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) lostPayment() {
	c.breakNext("/payments", crashAfter, loseAnswer)
	p := c.start(1, 1)
	c.provider.capture(p)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) lostConfirm() {
	p := c.start(1, 1)
	c.provider.capture(p)
	c.breakNext("/confirm", loseAnswer, loseAnswer, loseAnswer)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) refusedConfirm() {
	p := c.start(1, 1)
	c.provider.capture(p)
	c.breakNext("/confirm", refuse, refuse)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) crashedConfirm() {
	p := c.start(1, 1)
	c.provider.capture(p)
	c.breakNext("/confirm", crashBefore, crashAfter)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) late() {
	p := c.start(1, 1)
	c.kill(p)
	c.provider.capture(p)
	c.breakNext("/confirm", crashAfter)
	c.tellUntilTaken(p, captured)
	c.tellUntilTaken(p, captured)
}

// The webhook comes again while the refund is under way.
func (c *badCase) tooLate() {
	p := c.start(1, 1)
	c.kill(p)
	other := c.start(2, 1)
	c.provider.capture(p)
	c.provider.capture(other)
	c.provider.duringRefund = func() { c.tellUntilTaken(p, captured) }
	c.breakNext("/refund", none, loseAnswer)
	c.tellUntilTaken(p, captured)
	c.tellUntilTaken(other, captured)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) twoTabs() {
	first, second := c.start(1, 1), c.start(1, 2)
	c.provider.capture(first)
	c.provider.capture(second)
	c.tellUntilTaken(second, captured)
	c.breakNext("/refund", refuse, crashBefore)
	c.tellUntilTaken(first, captured)
}

func (c *badCase) wrongAttempt() {
	first := c.start(1, 1)
	c.provider.fail(first)
	second := c.start(1, 2)
	c.tellUntilTaken(first, failed)
	if !slices.ContainsFunc(c.outcomes(), func(o outcome) bool {
		return o.Reference == second && o.Outcome == "STARTED"
	}) {
		c.bad("the second attempt isn't under way after the first has failed")
	}
	c.provider.capture(second)
	c.tellUntilTaken(second, captured)
	c.tellUntilTaken(first, failed)
}

func (c *badCase) paysAfterAll() {
	first := c.start(1, 1)
	c.provider.fail(first)
	c.tellUntilTaken(first, failed)
	second := c.start(1, 2)
	c.provider.capture(first)
	c.provider.capture(second)
	c.tellUntilTaken(first, captured)
	c.tellUntilTaken(first, failed) // overtaken
	c.tellUntilTaken(second, captured)
}

func (c *badCase) falseAlarm() {
	p := c.start(1, 1)
	c.provider.fail(p)
	c.tellUntilTaken(p, captured)
	c.kill(p)
}

func (c *badCase) tooEarly() {
	p := c.start(1, 1)
	c.tellUntilTaken(p, captured)
	c.kill(p)
}

func (c *badCase) goesAway() {
	p := c.start(1, 1)
	c.kill(p)
	c.provider.fail(p)
	c.tellUntilTaken(p, failed)
}

func (c *badCase) cancelled() {
	p := c.start(1, 1)
	if code := c.act(p, "release"); code != "PAYMENT_STARTED" {
		c.bad("the shopper's release is answered %q, want PAYMENT_STARTED", code)
	}
	if code := c.act(p, "cancel"); code != "" {
		c.bad("the cancel is refused: %s", code)
	}
	c.provider.capture(p)
	c.tellUntilTaken(p, captured)
}

func (c *badCase) returns() {
	p := c.start(1, 1)
	c.kill(p)
	if _, refusal := c.checkOut(c.order(1), 2); refusal != "RESERVATION_EXPIRED" {
		c.bad("the second attempt is answered %q, want RESERVATION_EXPIRED", refusal)
	}
}

// A stranger's webhook isn't looked at, even about money.
func (c *badCase) stranger() {
	p := c.start(1, 1)
	if c.tell(p, captured, "guessed") {
		c.bad("the shop takes a webhook that the provider hasn't signed")
	}
	c.kill(p)
}

// A timer posts the payments of the day in the place of webhooks.
func (c *badCase) never() {
	c.provider.capture(c.start(1, 1))
	for _, p := range c.provider.list() {
		c.tellUntilTaken(p.ID, captured)
	}
}

// outcome is what the service has kept of a payment.
type outcome struct {
	Hold, Reference, Outcome string
	Successor                *string
}

func (w *world) outcomes() []outcome {
	rows, err := w.db.Admin.Query(w.db.Context(), `
SELECT hold_id::text, reference, outcome::text, successor::text FROM hold_payments`)
	if err != nil {
		w.t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[outcome])
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (o outcome) isKept() bool { return o.Outcome == "CONFIRMED" || o.Outcome == "REACQUIRED" }

// fate says what became of a payment, for the service and the provider together.
func (w *world) fate(p charge) string {
	var is []string
	if p.paid == 0 {
		is = append(is, "unpaid")
	}
	if slices.ContainsFunc(w.outcomes(), func(o outcome) bool {
		return o.isKept() && o.Hold == p.Hold && o.Reference == p.ID
	}) {
		is = append(is, "kept")
	}
	for range p.refunds {
		is = append(is, "refunded")
	}
	if len(is) == 0 {
		return "forgotten"
	}
	return strings.Join(is, " and ")
}

// judge says what is wrong at the end of a run: with a payment, an order, the stock or the money.
func (w *world) judge() (problems []string) {
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf(format, args...))
	}
	balance, kept := int64(0), map[string]int{}
	for _, p := range w.provider.list() {
		fate := w.fate(p)
		if fate != "unpaid" && fate != "kept" && fate != "refunded" {
			bad("payment %s is %s", p.ID, fate)
		}
		if strings.Contains(fate, "kept") {
			kept[p.Hold]++
		}
		balance += p.paid * int64(1-len(p.refunds))
	}
	for hold, n := range kept {
		if n > 1 {
			bad("hold %s has %d payments", hold, n)
		}
	}
	if twice := pgtest.QueryOne[int](w.db, `
SELECT count(*) FROM (
    SELECT p.reference FROM hold_parties p JOIN reservations r ON r.id = p.hold_id
    WHERE r.status = 'CONFIRMED' GROUP BY p.reference HAVING count(*) > 1) o`); twice > 0 {
		bad("%d orders are sold twice", twice)
	}
	sold := 0
	for i, product := range w.products {
		left := w.db.Counts(product, w.warehouse)
		units := pgtest.QueryOne[int](w.db, `
SELECT coalesce(sum(coalesce(i.quantity, r.quantity)), 0) FROM reservations r
LEFT JOIN reservation_items i ON i.reservation_id = r.id
WHERE r.status = 'CONFIRMED' AND coalesce(i.product_id, r.product_id) = $1`, product.String())
		if w.stocked[i]-left.Total != units {
			bad("product %d: %d units were sold, and %d left", i, units, w.stocked[i]-left.Total)
		}
		sold += units
	}
	if balance != int64(sold)*unitPrice {
		bad("the provider has %d for %d units of %d each", balance, sold, unitPrice)
	}
	violations, err := w.service.Audit(w.db.Context())
	if err != nil || len(violations) > 0 {
		bad("Audit() = %v, %v, want none", violations, err)
	}
	return problems
}
