package browser

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
)

const (
	submit  = "dialog button[type=submit]"
	confirm = ".actions button:nth-child(1)"
	extend  = ".actions button:nth-child(2)"
	cancel  = ".actions button:nth-child(3)"
)

// reserveOne reserves one unit by mouse, and waits for the hold's page.
func (b *tab) reserveOne(product, warehouse string) {
	b.t.Helper()
	b.visit("/")
	b.click(reserveButton(product, warehouse))
	b.click(submit)
	b.sees("h1", "Held for you")
}

func TestTwoBrowsersFightForTheLastMug(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	tabs := []*tab{s.newTab(), s.newTab()}
	for _, b := range tabs {
		b.visit("/")
		b.click(reserveButton("Ceramic Mug", "Los Angeles"))
		b.sees("dialog", "1 available of 1")
	}
	var both sync.WaitGroup
	for _, b := range tabs {
		both.Go(func() { b.click(submit) })
	}
	both.Wait()

	for _, b := range tabs {
		b.until(
			"location.pathname.startsWith('/reservation/') || " +
				"document.querySelector('#quantity-note')?.textContent",
		)
	}
	slices.SortFunc(tabs, func(a, b *tab) int { return -strings.Compare(a.path(), b.path()) })
	winner, loser := tabs[0], tabs[1]
	winner.sees("h1", "Held for you")
	loser.sees("#quantity-note", "somebody was faster, and none are left in Los Angeles")
	loser.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	loser.sees("dialog", "0 available of 1")
	s.wantHolds(1)
}

func TestReserveAndConfirm(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.click(reserveButton("Mechanical Keyboard", "New York"))
	b.click("dialog button[aria-label='One more: Quantity']")
	b.click(submit)
	b.sees("h1", "Held for you")
	b.sees(".items", "2 × Mechanical Keyboard")
	b.sees(".items", "New York")
	b.click(confirm)
	b.sees("h1", "Purchased")
	b.until("document.activeElement === document.querySelector('h1')")
	b.visit("/")
	b.figures("Mechanical Keyboard", "New York", 1, 0, 1)
}

func TestACartIsReservedWhole(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	rows := [][2]string{{"Ceramic Mug", "Los Angeles"}, {"Wireless Headphones", "New York"}}
	for _, row := range rows {
		b.click(reserveButton(row[0], row[1]))
		b.click("dialog footer button.secondary")
		b.wantAnnounced("Added to the cart: 1 × " + row[0])
	}
	b.reload()
	b.sees("button.cart", "2")
	b.click("button.cart")
	b.click(submit)
	b.sees("h1", "Held for you")
	b.sees(".items", "Ceramic Mug")
	b.sees(".items", "Wireless Headphones")
	s.wantHolds(1)
	b.visit("/")
	b.sees("button.cart", "0")
}

func TestCancelGivesTheUnitsBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.reserveOne("Ceramic Mug", "Los Angeles")
	b.click(cancel)
	b.sees("h1", "Cancelled")
	b.click(".actions button") // reserve again
	b.sees("h1", "Held for you")
	s.wantHolds(2)
	b.click(cancel)
	b.sees("h1", "Cancelled")
	b.click(".actions a")
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
}

func TestExpiryIsWatchedToZero(t *testing.T) {
	t.Parallel()
	s := newStack(t, func(c *config.Config) { c.HoldTTL = 12 * time.Second })
	b := s.newTab(
		`window.times = new Set(); addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
		const text = document.getElementById("countdown")?.textContent;
		if (text) { times.add(text); }
	}).observe(document.body, { childList: true, characterData: true, subtree: true }));`,
	)
	shop := s.newTab()
	shop.visit("/")
	b.reserveOne("Ceramic Mug", "Los Angeles")
	shop.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	b.sees("h1", "Expired")
	b.sees("main", "Nothing was bought")
	b.wantAnnounced("10 seconds left.")
	shop.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	seen := eval[[]string](b, "[...times]")
	last := []string{"0:05", "0:04", "0:03", "0:02", "0:01"}
	const most = 2 // of these that a busy machine may not come to draw
	if missed := slices.DeleteFunc(
		last,
		func(time string) bool { return slices.Contains(seen, time) },
	); len(
		missed,
	) > most {
		t.Errorf("the countdown showed %q, and not %q", seen, missed)
	}
	b.click(".actions button")
	b.sees("h1", "Held for you")
}

func TestEveryTabFollows(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	first := s.newTab()
	first.reserveOne("Ceramic Mug", "Los Angeles")
	link := first.path()
	second, stranger := first.sibling(), s.newTab()
	for _, b := range []*tab{second, stranger} {
		b.visit(link)
		b.sees("h1", "Held for you")
		b.sees(".items", "1 × Ceramic Mug")
	}
	first.click(extend)
	first.sees(".result", "Held until")
	for _, b := range []*tab{first, second, stranger} {
		b.until("/^1[45]:/.test(document.getElementById('countdown').textContent)")
	}
	eval[chromedp.Void](stranger, "document.querySelector('nav a').focus()")
	second.click(confirm)
	stranger.wantAnnounced("Purchased. Your purchase is confirmed.")
	for _, b := range []*tab{first, second, stranger} {
		b.sees("h1", "Purchased")
		b.reload()
		b.sees("h1", "Purchased")
		b.sees(".items", "1 × Ceramic Mug")
	}
}

// Two clicks in one task are the fastest possible: nothing is drawn between them.
func (b *tab) clickTwice(selector string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)", selector))
	eval[chromedp.Void](
		b,
		fmt.Sprintf(
			"{ const node = document.querySelector(%q); node.click(); node.click(); }",
			selector,
		),
	)
}

func TestADoubleClickActsOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	posts := s.countPosts()
	b := s.newTab()
	b.visit("/")
	b.click(reserveButton("Mechanical Keyboard", "San Francisco"))
	b.doubleClick(submit)
	b.sees("h1", "Held for you")
	s.wantHolds(1)
	b.clickTwice(extend)
	b.sees(".result", "Held until")
	b.clickTwice(confirm)
	b.sees("h1", "Purchased")
	if got := posts(); len(got) != 3 || slices.Contains(got, "") {
		t.Errorf("the keys of the POSTs are %q, want three, each with its own", got)
	}
}

// A page over plain HTTP from another machine has no crypto.randomUUID.
func TestKeysAreRandomWithoutASecureContext(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	posts := s.countPosts()
	b := s.newTab()
	b.visit("/")
	eval[chromedp.Void](b, "delete Crypto.prototype.randomUUID")
	b.click(reserveButton("Mechanical Keyboard", "San Francisco"))
	b.click(submit)
	b.sees("h1", "Held for you")
	eval[chromedp.Void](b, "delete Crypto.prototype.randomUUID")
	b.click(extend)
	b.sees(".result", "Held until")
	wantRandomKeys(t, posts(), 2)
}

// countPosts collects the Idempotency-Keys of the POSTs.
func (s *stack) countPosts() (keys func() []string) {
	var mu sync.Mutex
	var seen []string
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			mu.Lock()
			seen = append(seen, r.Header.Get("Idempotency-Key"))
			mu.Unlock()
		}
		return false
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")

	lost := s.losing(
		http.MethodPost,
		"/api/reservations",
		1,
	) // the page asks again by itself, or Chromium does
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.click(submit)
	b.sees("h1", "Held for you")
	s.wantHolds(1)

	if lost.Load() < 2 {
		t.Error("the answer wasn't lost")
	}
	s.losing(http.MethodPost, "/extend", math.MaxInt64) // the customer does
	b.click(extend)
	b.sees(".result", "No answer from the shop. Try again: it won’t be done twice.")
	s.mend()
	const lifeSQL = "SELECT extract(epoch FROM expires_at - created_at)::int FROM reservations"
	before := pgtest.QueryOne[int](s.db, lifeSQL)
	b.click(extend)
	b.sees(".result", "Held until")
	if after := pgtest.QueryOne[int](s.db, lifeSQL); after != before {
		t.Errorf(
			"the hold lasts %d s after the retry and %d s before, want it extended once",
			after,
			before,
		)
	}

	s.losing(http.MethodPost, "/confirm", math.MaxInt64)
	b.click(confirm)
	b.sees("h1", "Purchased") // told by the next look
	const soldSQL = "SELECT 30 - total FROM inventory WHERE total IN (29, 30) AND reserved = 0"
	if sold := pgtest.QueryOne[int](s.db, soldSQL); sold != 1 {
		t.Errorf("%d mugs are sold, want 1", sold)
	}
}

// The control of the test above: without the key the retry acts twice.
func TestWithoutAKeyALostAnswerActsTwice(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	var first atomic.Bool
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Idempotency-Key")
		if r.Method != http.MethodPost || first.Swap(true) {
			return false
		}
		s.gateway.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.click(submit)
	b.sees("h1", "Held for you")
	s.wantHolds(2)
}

func TestTheServerGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b, h := s.newTab(), s.newTab()
	b.visit("/")
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	h.reserveOne("Wireless Headphones", "New York")

	s.down()
	b.sees(".connection", "The shop can’t be reached. The numbers are from")
	h.sees(".connection", "The shop can’t be reached")
	b.click(reserveButton("Ceramic Mug", "Los Angeles"))
	b.click(submit)
	b.sees("#quantity-note", "No answer from the shop. Try again: it won’t be reserved twice.")

	s.up(strings.TrimPrefix(s.url, "http://"))
	b.until("!document.querySelector('.connection').textContent")
	h.until("!document.querySelector('.connection').textContent")
	b.click(submit)
	b.sees("h1", "Held for you")
	s.wantHolds(2)
}

// tabTo presses Tab until the element has the focus.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	const most = 60 // elements of a page
	for range most {
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("%d tabs don't reach %s", most, selector)
}

func TestTheKeyboardAloneDoesEverything(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	reserve := reserveButton("Mechanical Keyboard", "New York")
	b.until(fmt.Sprintf("document.querySelector(%q)", reserve))

	b.tabTo(reserve)
	b.press(kb.Enter)
	b.until("document.activeElement.id === 'quantity'")
	for range 8 { // round the dialog, never out of it
		b.press(kb.Tab)
		b.until(
			"document.activeElement === document.body || " +
				"document.querySelector('dialog').contains(document.activeElement)",
		)
	}
	b.press(kb.Escape)
	b.until(
		fmt.Sprintf(
			"!document.querySelector('dialog') && document.activeElement === "+
				"document.querySelector(%q)",
			reserve,
		),
	)

	b.press(kb.Enter)
	b.until("document.activeElement.id === 'quantity'")
	b.fill("#quantity", "9")
	b.press(kb.Enter)
	b.sees("#quantity-note", "Only 3 left here.")
	b.until(
		"document.activeElement.id === 'quantity' && document.activeElement.ariaInvalid === 'true'",
	)
	b.fill("#quantity", "2")
	b.press(kb.Enter)
	b.sees("h1", "Held for you")

	b.tabTo(extend)
	b.press(" ")
	b.sees(".result", "Held until")
	b.tabTo(confirm)
	b.press(kb.Enter)
	b.sees("h1", "Purchased")
	b.until("document.activeElement === document.querySelector('h1')")
	b.tabTo(".actions a")
	b.press(kb.Enter)
	b.figures("Mechanical Keyboard", "New York", 1, 0, 1)

	b.tabTo("button.cart")
	b.press(kb.Enter)
	b.sees("dialog", "It is empty")
	b.press(kb.Escape)
	b.until("document.activeElement.matches('button.cart')")
}

// The pages must not read the browser's clock. shift moves that clock before their scripts run.
func TestTheServersClockCountsDown(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, days := range []int{-1, 0, 1} {
		h := s.reserve(600, line(mug, sanFrancisco, 1))
		b := s.newTab(fmt.Sprintf(`{ const Real = Date, shift = %d * 86400000;
			window.Date = class extends Real {
				constructor(...a) { a.length ? super(...a) : super(Real.now() + shift); }
				static now() { return Real.now() + shift; }
			}; }`, days))
		b.visit("/reservation/" + h.ID)
		b.until("document.getElementById('countdown')")
		before := time.Until(h.ExpiresAt)
		shown := eval[int](
			b,
			"document.getElementById('countdown').textContent.split(':').reduce((sum, part) => "+
				"sum * 60 + Number(part), 0)",
		)
		least, most := int(time.Until(h.ExpiresAt).Seconds())-1, int(before.Seconds())+2
		if shown < least || shown > most {
			t.Errorf(
				"with the browser's clock %d days off the countdown shows %d s, want %d to %d",
				days,
				shown,
				least,
				most,
			)
		}
	}
}

// A change is on the page within three seconds, in the same elements: nothing flashes, and the
// focus stays.
func TestStockFollowsWithoutAFlash(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.figures("Ceramic Mug", "San Francisco", 50, 0, 50)
	button := reserveButton("Ceramic Mug", "San Francisco")
	eval[chromedp.Void](
		b,
		fmt.Sprintf(
			"window.before = [...document.querySelectorAll('main *')]; "+
				"document.querySelector(%q).focus()",
			button,
		),
	)
	var took []time.Duration
	for i := range 5 {
		s.reserve(600, line(mug, sanFrancisco, 1))
		start := time.Now()
		b.figures("Ceramic Mug", "San Francisco", 49-i, i+1, 50)
		took = append(took, time.Since(start).Round(time.Millisecond))
	}
	t.Logf("a change was on the page after %v", took)
	if slowest := slices.Max(took); slowest > 3*time.Second {
		t.Errorf("a change took %v (of %v), want at most 3 s for each", slowest, took)
	}
	if replaced := eval[int](
		b,
		"before.filter((node) => !node.isConnected).length",
	); replaced != 0 {
		t.Errorf("%d elements were replaced, want none", replaced)
	}
	b.until(fmt.Sprintf("document.activeElement.matches(%q)", button))
	b.wantStill()

	// There is room for a badge before it appears, on a telephone too.
	b.dress("light", 320)
	b.reload()
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	height := eval[int](b, "document.documentElement.scrollHeight")
	s.reserve(
		600,
		line(mug, losAngeles, 1),
		line(keyboard, newYork, 3),
		line(headphones, sanFrancisco, 10),
	)
	b.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	b.figures("Wireless Headphones", "San Francisco", 2, 10, 12)
	b.settle()
	b.wantStill()
	if got := eval[int](b, "document.documentElement.scrollHeight"); got != height {
		t.Errorf(
			"with three badges the page is %d pixels high, and %d without, want the same",
			got,
			height,
		)
	}
}

func TestMoreProductsAreAClickAway(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'Thing ' || i, 'T-' || i FROM generate_series(1, 60) i`)
	b := s.newTab()
	b.visit("/")
	b.until("document.querySelectorAll('.card').length === 50")
	b.sees(".cards", "No warehouse stocks it.")
	b.click(".more button")
	b.until(
		"document.querySelectorAll('.card').length === 63 && !document.querySelector('.more " +
			"button')",
	)
	b.figures("Wireless Headphones", "New York", 5, 0, 5)
}

// A hidden tab sends no requests. A visible tab measures the time: it waits for three reads.
func TestAHiddenTabRests(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var mu sync.Mutex
	looks := map[string]int{}
	count := func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		return looks[name]
	}
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/products" {
			mu.Lock()
			looks[r.Header.Get("X-Tab")]++
			mu.Unlock()
		}
		return false
	})
	names := []string{"seen", "hidden"}
	tabs := map[string]*tab{}
	for _, name := range names {
		b := s.newTab(
			`window.isHidden = false;
			Object.defineProperty(Document.prototype, "hidden", { get: () => isHidden });`,
		)
		command(b, network.Enable, network.EnableParams{})
		command(
			b,
			network.SetExtraHTTPHeaders,
			network.SetExtraHTTPHeadersParams{Headers: network.Headers{"X-Tab": name}},
		)
		b.visit("/")
		b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
		tabs[name] = b
	}
	hide := func(is bool) {
		eval[chromedp.Void](
			tabs["hidden"],
			fmt.Sprintf("isHidden = %v; document.dispatchEvent(new Event('visibilitychange'))", is),
		)
	}
	hide(true)
	hiddenBefore, seenBefore := count("hidden"), count("seen")
	waitFor(t, func() bool { return count("seen") >= seenBefore+4 })
	if got := count("hidden") - hiddenBefore; got > 1 { // one may have been under way
		t.Errorf("the hidden tab looked %d times, want it to rest", got)
	}
	rested := count("hidden")
	hide(false)
	waitFor(t, func() bool { return count("hidden") > rested })
}

// waitFor waits for a condition outside the browser.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("the condition isn't met after %v", patience)
		case <-ticker.C:
		}
	}
}

// A shopper who comes back to the shop finds the way to the hold. Nobody else sees it.
func TestAShoppersOwnHoldSaysSo(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b, other := s.newTab(), s.newTab()
	b.reserveOne("Ceramic Mug", "Los Angeles")
	hold := b.path()
	row := fmt.Sprintf(
		"document.querySelector(%q).closest('li').querySelector('.badge')",
		reserveButton("Ceramic Mug", "Los Angeles"),
	)
	for _, page := range []*tab{b, other} {
		page.visit("/")
		page.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	}
	b.until(row + ".textContent === 'Held for you'")
	if got := eval[int](b, "document.querySelectorAll('.badge.own').length"); got != 1 {
		t.Errorf("%d rows say that they are held for the shopper, want 1", got)
	}
	other.until(row + ".textContent.trim() === 'All on hold'")
	b.look("shop-own-hold")

	b.click(".badge.own")
	b.sees("h1", "Held for you")
	if got := b.path(); got != hold {
		t.Errorf("the way back leads to %s, want %s", got, hold)
	}
	b.click(cancel)
	b.sees("h1", "Cancelled")
	b.click(".actions a")
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	b.until("!document.querySelector('.badge.own')")
}
