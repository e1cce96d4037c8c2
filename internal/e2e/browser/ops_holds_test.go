package browser

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

const (
	holdRows = ".table[aria-label=Holds] tbody tr" // of the list of holds
	told     = ".told"                             // the outcome of a step
	doStep   = "dialog footer button:last-child"
	// holdPayments is the table of a hold's payments.
	holdPayments = ".table[aria-label='Payments of the hold']"
)

// reserveFor makes a hold with a reference and an owner.
func (s *stack) reserveFor(reference, owner string, lines ...string) hold {
	s.t.Helper()
	body := fmt.Sprintf(`{"items":[%s],"ttlSeconds":600,"reference":%q,"owner":%q}`,
		strings.Join(lines, ","), reference, owner)
	return s.call("/api/reservations", body, http.StatusCreated)
}

// findHold types a text into the search for a hold.
func (b *tab) findHold(text string) {
	b.t.Helper()
	b.fill("#find", text)
	b.press(kb.Enter)
}

// codeOf returns the short code that the page of a hold shows.
func (b *tab) codeOf(h hold) string {
	b.t.Helper()
	b.visit("/ops/holds/" + h.ID)
	b.until("document.querySelector('.hold-head code')")
	return eval[string](b, "document.querySelector('.hold-head code').textContent")
}

// Two operators: one finds holds while the other releases one of them.
func TestTheOperatorFindsAHold(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	single := s.reserveFor("order-7", "ada", line(mug, sanFrancisco, 2))
	cart := s.reserveFor("both", "ada", line(mug, newYork, 1), line(keyboard, losAngeles, 3))
	owned := s.reserveFor("order-8", "both", line(headphones, sanFrancisco, 1))
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupViewer, "/ops/holds")
	other.signIn(grant.GroupSupport, "/ops/holds/"+single.ID)
	code := b.codeOf(single)
	if eval[bool](b, "Boolean(document.querySelector('.actions'))") {
		t.Error("a viewer has buttons, want none")
	}
	b.visit("/ops/holds")
	b.until("document.querySelectorAll('" + holdRows + "').length === 3")
	b.sees(holdRows, "2 × Ceramic Mug, San Francisco")
	b.sees(".pager", "3 holds")

	opened := func(h hold) {
		t.Helper()
		b.until(fmt.Sprintf("location.pathname === '/ops/holds/%s' && "+
			"document.querySelector('.facts')", h.ID))
	}
	b.findHold(cart.ID)
	opened(cart)
	b.sees(".facts", "both")
	b.sees(".facts", "ada")
	b.sees(".table", "Mechanical Keyboard")
	eval[chromedp.Void](b, "history.back()")
	b.until("location.pathname === '/ops/holds'")
	b.findHold(strings.ToLower(code))
	opened(single)
	b.visit("/ops/holds")
	b.findHold("order-7")
	opened(single)

	b.visit("/ops/holds")
	b.findHold("both") // the reference of one hold, and the owner of another
	b.sees(".choices", "more than one thing")
	b.look("ops-holds-choices")
	b.click(`.choices a[href$="` + owned.ID + `"]`)
	opened(owned)
	b.sees(".facts", "order-8")

	b.visit("/ops/holds")
	b.findHold("ada")
	b.until("document.querySelectorAll('" + holdRows + "').length === 2")
	b.sees(".chips", "ada")
	b.sees(".pager", "2 holds")
	b.look("ops-holds-owner")
	other.releases()
	b.sees(".table[aria-label=Holds] tbody", "Released") // any status of the owner's holds
	b.click(".chips button")
	b.until("document.querySelectorAll('" + holdRows + "').length === 3")
	b.findHold("nobody")
	b.sees("main", "No hold has “nobody” as its id, short code, reference or owner.")
	b.look("ops-holds-none")
}

// releases releases the hold whose page of the console is open.
func (b *tab) releases() {
	b.t.Helper()
	b.clickText("Release items")
	b.sees("dialog", "back to")
	b.click(doStep)
	b.sees(told, "Released: ")
}

// slowRead makes the page's first read of a hold last 20 seconds by the page's clock, as it may
// while a function starts. No later read then tells the page better what time it is.
const slowRead = `{
	const now = performance.now.bind(performance);
	let passed = 0;
	performance.now = () => now() + passed;
	const send = fetch;
	window.fetch = async (url, options) => {
		const isRead = /\/api\/reservations\/[-\w]+$/.test(url);
		if (isRead && passed > 0) {
			throw new TypeError("Failed to fetch");
		}
		const answer = await send(url, options);
		passed = isRead ? 20_000 : passed;
		return answer;
	};
}`

// A list with filters follows what another operator and a shopper do.
func TestTheOperatorFiltersHolds(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	var last hold
	for i := range 52 { // and one more, while a page shows 50
		last = s.reserve(600+i, line(mug, sanFrancisco+i%2, 1)) // San Francisco and New York in turns
	}
	s.reserve(500, line(keyboard, losAngeles, 2), line(headphones, newYork, 1))
	b, other, shopper := s.newTab(), s.newTab(slowRead), s.newTab()
	b.signIn(grant.GroupViewer, "/ops/holds")
	other.signIn(grant.GroupSupport, "/ops/holds/"+last.ID)
	b.sees(holdRows, "2 × Mechanical Keyboard, Los Angeles")
	b.sees(".pager", "1–50 of 53")
	b.clickText("Next")
	b.sees(".pager", "51–53 of 53")
	b.reload()
	b.sees(".pager", "51–53")
	b.clickText("Previous")
	b.sees(".pager", "1–50 of 53")
	b.choose("Warehouse", demo.Warehouses()[newYork].ID.String())
	b.sees(".pager", "27 holds")
	b.fill("#product", "mug")
	b.sees("#product-list", "Ceramic Mug")
	b.press(kb.Enter)
	b.sees(".chips", "Ceramic Mug")
	b.sees(".pager", "26 holds")
	listed := func(n int) {
		t.Helper()
		b.until(fmt.Sprintf("document.querySelectorAll('%s').length === %d", holdRows, n))
	}
	listed(26)
	other.releases()
	listed(25)
	shopper.buys(losAngeles, "Ceramic Mug") // the list has New York's
	bought := shopper.buys(newYork, "Ceramic Mug")
	b.until(fmt.Sprintf("document.querySelector('%s a[href$=\"%s\"]')", holdRows, bought.ID))
	listed(26)
	b.choose("Status", "CONFIRMED")
	b.sees(".nothing", "No hold matches.")
	b.choose("Status", "ANY")
	b.sees(".pager", "27 holds")
	b.choose("Changed", "3600")
	listed(27)
	b.until("/updatedSince=2/.test(location.search)")
	b.look("ops-holds-filtered")
}

// Two operators look at one hold. The second one to act is told what the first one did.
func TestTwoOperatorsAtOneHold(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	h := s.reserve(600, line(mug, losAngeles, 1), line(keyboard, newYork, 2))
	first, second := s.newTab(), s.newTab()
	for group, b := range map[string]*tab{grant.GroupSupport: first, grant.GroupAdmin: second} {
		b.signIn(group, "/ops/holds/"+h.ID)
		b.clickText("Release items")
		b.sees("dialog", "1 unit of Ceramic Mug goes back to Los Angeles.")
	}
	first.look("ops-hold-release")
	first.click(doStep)
	first.sees(told, "Released: 2 units of Mechanical Keyboard, 1 unit of Ceramic Mug.")
	first.until("document.activeElement === document.querySelector('.told')")
	first.sees(".timeline", "Released")
	first.look("ops-hold-released")
	second.sees("main .status", "Released") // under the open step
	second.click(doStep)
	second.sees(told, "Nothing was left to release. This hold was released at ")
	if got := s.db.Status(uuid.MustParse(h.ID)); got != "RELEASED" {
		t.Errorf("the hold is %s, want RELEASED", got)
	}

	// A confirm is faster than a release.
	h = s.reserve(600, line(mug, newYork, 2))
	s.call("/api/reservations/"+h.ID+"/payment",
		`{"paymentReference":"pay-1","ttlSeconds":600}`, http.StatusOK)
	first.visit("/ops/holds/" + h.ID)
	second.visit("/ops/holds/" + h.ID)
	first.until("document.querySelector('.actions')")
	if strings.Contains(first.shown(), "Confirm purchase") {
		t.Error("support has a button that confirms, want none")
	}
	first.clickText("Release items")
	first.sees("dialog", "A payment is under way: pay-1")
	first.look("ops-hold-release-paying")
	second.clickText("Confirm purchase")
	second.sees("dialog", "2 units of Ceramic Mug leave the stock of New York as sold.")
	second.look("ops-hold-confirm")
	second.click(doStep)
	second.sees(told, "Confirmed: 2 units of Ceramic Mug sold.")
	second.sees(holdPayments, "pay-1")
	second.sees(holdPayments, "Paid for this hold")
	first.click(doStep)
	first.sees(told, "Nothing was released. This hold was confirmed at ")
	first.look("ops-hold-lost-race")

	// All goods come back, and then nothing is left that could.
	second.clickText("Take goods back")
	second.fill("#return", "rma-1")
	second.click(doStep)
	second.sees(told, "2 units of Ceramic Mug: back on the shelf.")
	second.sees(".table[aria-label='Goods that came back']", "rma-1")
	second.until("!document.querySelector('.actions')")
}

// An answer that is lost doesn't make a step act twice, and another operator sees the one act. The
// keyboard alone leads through the step.
func TestALostAnswerActsOnce(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	h := s.reserve(600, line(mug, newYork, 1))
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupAdmin, "/ops/holds/"+h.ID)
	other.signIn(grant.GroupViewer, "/ops/holds/"+h.ID)
	b.sees(".timeline", "Held")
	b.tabTo(".actions button:nth-of-type(2)")
	b.press(kb.Enter)
	b.sees("dialog", "Nobody else can have these items until then")
	b.look("ops-hold-extend")
	lost := s.losing(http.MethodPost, "/extend", math.MaxInt64) // Chromium asks again, too
	b.tabTo(doStep)
	b.press(kb.Enter)
	b.sees("dialog .note", "No answer came")
	b.look("ops-hold-no-answer")
	if eval[bool](b, "!document.querySelector('#minutes').disabled") {
		t.Error("the field can be changed, want the same step to be sent again")
	}
	other.sees(".timeline", "Time changed") // although no answer came
	s.mend()
	b.press(kb.Enter)
	b.sees(told, "Held until ")
	b.until("document.activeElement === document.querySelector('.told')")
	const changes = "SELECT count(*) FROM ledger WHERE hold_id = $1 AND kind = 'x'"
	if got := pgtest.QueryOne[int](s.db, changes, h.ID); got != 1 || lost.Load() < 3 {
		t.Errorf("the hold was extended %d times, and %d answers were lost, want once and 3 or more",
			got, lost.Load())
	}
	b.clickText("Give more time")
	eval[chromedp.Void](b, `{
		const minutes = document.querySelector("#minutes");
		minutes.value = "60";
		minutes.dispatchEvent(new Event("change", { bubbles: true }));
	}`)
	b.click(doStep)
	b.sees("dialog .note", "That is longer than a hold may last.")
}

// Money that comes after a hold has ended buys its items anew while they are free.
func TestTheOperatorTakesALatePayment(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	h := s.reserve(600, line(mug, losAngeles, 1))
	s.killDayAgo(h)
	b, rival := s.newTab(), s.newTab()
	b.signIn(grant.GroupAdmin, "/ops/holds/"+h.ID)
	pay := func(reference string) {
		t.Helper()
		b.sees("main .status", "Expired")
		b.clickText("Late payment")
		b.fill("#payment", reference)
		b.click(doStep)
	}
	pay("")
	b.sees("dialog .note", "Type the payment’s reference.")
	b.look("ops-hold-late")
	b.fill("#payment", "pay-8")
	b.click(doStep)
	b.sees(told, "The items were still free, and are sold now.")
	b.sees(holdPayments, "pay-8")
	b.sees(holdPayments, "Came late, and paid for ")
	b.look("ops-hold-payments")
	b.clickText("Open the new hold")
	b.sees("main .status", "Confirmed")
	b.sees(".facts", "Took the place of")
	b.sees(holdPayments, "Paid for this hold")
	eval[chromedp.Void](b, "history.back()")
	b.sees("main .status", "Expired")
	b.click(holdPayments + " a")
	b.sees("main .status", "Confirmed")

	lost := s.reserve(600, line(keyboard, newYork, 3))
	s.killDayAgo(lost)
	rival.buys(newYork, "Mechanical Keyboard") // a shopper has one of the three now
	b.visit("/ops/holds/" + lost.ID)
	pay("pay-9")
	b.sees(told, "The items are gone. Refund the payment pay-9.")
	b.sees(holdPayments, "Came when the items were gone: refund it")
}

func TestGalleryOfHoldsAndStockInTrouble(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	h := s.reserve(600, line(mug, losAngeles, 1))
	b := s.newTab()
	done := make(chan struct{})
	s.breakWith(hanging(done))
	b.visit("/ops/holds")
	b.sees("main", "Loading…")
	b.look("ops-holds-loading")
	close(done)
	s.breakWith(unavailable)
	b.visit("/ops/stock")
	b.sees(".problem", "The shop gave no answer. This page keeps trying.")
	b.look("ops-stock-error")
	s.mend()
	b.until("document.querySelector('" + stockRows + "')") // it has kept trying
	b.visit("/ops/holds/" + h.ID)
	b.sees(".timeline", "Held")
	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.look("ops-hold-stale")
	s.mend()
	b.until("!document.querySelector('.connection').textContent")
	for _, path := range []string{
		"/ops/holds/0197c2a8-0000-7000-8000-000000000001", "/ops/holds/nonsense",
		rowAddress(mug, losAngeles) + "0", "/ops/stock/" + h.ID + "/" + h.ID,
	} {
		b.visit(path)
		b.sees("h1", "There is no such ")
	}
	b.look("ops-stock-missing")
}

// The largest shop: the page stays small, and does next to nothing while nothing moves.
func TestAHundredThousandHoldsStayLight(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.fillShop()
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops/holds")
	for path, want := range map[string]string{
		"/ops/holds": "1–50 of 100,000",
		"/ops/stock": fmt.Sprintf("1–50 of 12,%03d", demoRows),
	} {
		b.visit(path)
		b.sees(".pager", want)
		b.until("document.querySelectorAll('.data tbody tr').length === 50 && " +
			"!document.querySelector('.data').textContent.includes('…')")
		size := eval[int](b, `performance.getEntries()
			.reduce((sum, one) => sum + (one.transferSize ?? 0), 0)`)
		share := b.busyShare()
		t.Logf("%s takes %d bytes, and %.1f %% of a processor", path, size, 100*share)
		if size > 1<<20 {
			t.Errorf("%s takes %d bytes, want at most 1 MB", path, size)
		}
		if share > mostBusy {
			t.Errorf("%s takes %.0f %% of a processor, want at most %.0f %%", path, 100*share,
				100*mostBusy)
		}
	}
	// The control: work of 100 ms in each 200 ms is seen, on a slow machine too.
	eval[chromedp.Void](b, `setInterval(() => {
		for (const end = performance.now() + 100; performance.now() < end; ) {}
	}, 200)`)
	if share := b.busyShare(); share < mostBusy {
		t.Errorf("a page that works half of the time takes %.0f %%, want it seen", 100*share)
	}
}

// fillShop adds 2,000 products in 6 warehouses, and 100,000 live holds of them.
func (s *stack) fillShop() {
	s.t.Helper()
	s.db.Exec(`
INSERT INTO warehouses (id, code, name)
SELECT gen_random_uuid(), 'W' || i, 'Warehouse ' || i FROM generate_series(1, 3) i`)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'Thing ' || i, 'T-' || i FROM generate_series(1, 2000) i`)
	s.db.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total, reserved)
SELECT p.id, w.id, 1000, 0 FROM products p, warehouses w WHERE p.sku LIKE 'T-%'`)
	s.db.Exec(`
INSERT INTO reservations
       (id, product_id, warehouse_id, quantity, created_at, updated_at, expires_at)
SELECT gen_random_uuid(), r.products[1 + n % 12000], r.warehouses[1 + n % 12000], 1,
       t.at, t.at, t.at + interval '1 hour' + n * interval '10 ms'
FROM generate_series(1, 100000) n,
     (SELECT array_agg(i.product_id) AS products, array_agg(i.warehouse_id) AS warehouses
      FROM inventory i JOIN products p ON p.id = i.product_id WHERE p.sku LIKE 'T-%') r,
     (SELECT clock_timestamp() AS at) t`)
	s.db.Exec("ANALYZE")
}

// mostBusy is the largest share of the time in which a page may work while nothing moves. It needs
// one to three hundredths.
const mostBusy = 0.2

// watched is how long busyShare watches the page, in ms.
const watched = 5_000

// busyShare returns the share of the time in which the page's main thread works.
func (b *tab) busyShare() float64 {
	b.t.Helper()
	command(b, performance.Enable, performance.EnableParams{})
	before := b.taskSeconds()
	eval[bool](b, fmt.Sprintf("new Promise((done) => setTimeout(() => done(true), %d))", watched))
	return (b.taskSeconds() - before) / (watched / 1000)
}

// taskSeconds returns for how long the page's main thread has worked.
func (b *tab) taskSeconds() float64 {
	b.t.Helper()
	for _, metric := range command(b, performance.GetMetrics, cdp.Empty{}).Metrics {
		if metric.Name == "TaskDuration" {
			return metric.Value
		}
	}
	b.t.Fatal("the browser tells no TaskDuration")
	return 0
}
