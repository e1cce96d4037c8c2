package browser

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

const (
	openCart   = "button.cart"
	checkOut   = "dialog.drawer button[type=submit]"
	closePanel = "dialog [aria-label=Close]"
)

// addButton is the selector of the button that puts a product into the cart.
func addButton(product string) string {
	return fmt.Sprintf(`button[aria-label="Add to cart: %s"]`, product)
}

// card is an expression: the card of a product.
func card(product string) string {
	return fmt.Sprintf("[...document.querySelectorAll('.card')].find((card) => "+
		"card.querySelector('h2').textContent === %q)", product)
}

// stands waits until a product's card says how its stock stands.
func (b *tab) stands(product, words string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s.querySelector('.stand').textContent.trim() === %q", card(product), words))
}

// takeFrom chooses the warehouse that a product comes from.
func (b *tab) takeFrom(product string, warehouse int) {
	b.t.Helper()
	selector := fmt.Sprintf(`select[aria-label="Warehouse for %s"]`, product)
	b.until(fmt.Sprintf("document.querySelector(%q)", selector))
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const select = document.querySelector(%q);
		select.value = %q;
		select.dispatchEvent(new Event("change", { bubbles: true }));
	}`, selector, demo.Warehouses()[warehouse].ID))
}

// add puts one unit of a product into the cart, from a warehouse.
func (b *tab) add(product string, warehouse int) {
	b.t.Helper()
	b.takeFrom(product, warehouse)
	b.click(addButton(product))
	b.sees(".toast", "Added "+product)
}

// hold reserves what is in the cart, by mouse.
func (b *tab) hold() (path string) {
	b.t.Helper()
	b.click(openCart)
	b.click(checkOut)
	b.until("location.pathname.startsWith('/reservation/')")
	b.sees("h1", "Held for you")
	return b.path()
}

// buys holds one unit of each product from a warehouse, in the shop. It returns the hold.
func (b *tab) buys(warehouse int, products ...string) hold {
	b.t.Helper()
	b.visit("/")
	for _, product := range products {
		b.add(product, warehouse)
	}
	b.hold()
	return b.held()
}

// addUnits puts units of a product into the cart, on its page.
func (b *tab) addUnits(product, units int) {
	b.t.Helper()
	p := demo.Products()[product]
	b.visit("/product/" + p.ID.String())
	b.fill(quantity, strconv.Itoa(units))
	b.press(kb.Enter)
	b.sees(".toast", fmt.Sprintf("Added %d × %s", units, p.Name))
}

// held returns the hold whose page is open.
func (b *tab) held() hold {
	b.t.Helper()
	return hold{ID: strings.TrimPrefix(b.path(), "/reservation/")}
}

// lines waits until the open cart has these lines, in this order.
func (b *tab) lines(want ...string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`[...document.querySelectorAll(".lines > li")].map((line) =>
		line.querySelector("input").value + " " + line.querySelector(".what a").textContent +
		" " + line.querySelector("small").textContent).join() === %q`, strings.Join(want, ",")))
}

func TestTwoBrowsersFightForTheLastMug(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	tabs := []*tab{s.newTab(), s.newTab()}
	for _, b := range tabs {
		b.visit("/")
		b.takeFrom("Ceramic Mug", losAngeles)
		b.stands("Ceramic Mug", "Only 1 left")
		b.click(addButton("Ceramic Mug"))
		b.click(openCart)
		b.lines("1 Ceramic Mug From Los Angeles")
	}
	s.breakWith(meeting(2))
	for _, b := range tabs {
		b.click(checkOut)
	}
	for _, b := range tabs {
		b.until("location.pathname.startsWith('/reservation/') || " +
			"document.querySelector('.trouble button')")
	}
	slices.SortFunc(tabs, func(a, b *tab) int { return -strings.Compare(a.path(), b.path()) })
	winner, loser := tabs[0], tabs[1]
	winner.sees("h1", "Held for you")
	s.wantHolds(1)

	// Losing the race is no end: another warehouse is a click away.
	loser.sees(".trouble", "Sorry, someone just took the last one.")
	loser.sees(".trouble", "New York has 30.")
	loser.sees(".foot [role=alert]", "Something sold out, so nothing is held yet.")
	loser.look("cart-lost")
	loser.click(".trouble button")
	loser.lines("1 Ceramic Mug From New York")
	loser.until("document.activeElement.matches('.lines input')")
	loser.click(checkOut)
	loser.sees("h1", "Held for you")
	s.wantHolds(2)

	// The winner sees the own hold on the row. The loser sees that it is sold out there, and that
	// New York, where the loser holds one, has more.
	for _, b := range tabs {
		b.visit("/")
		b.takeFrom("Ceramic Mug", losAngeles)
		b.sees(".badge.own", "Held for you")
	}
	winner.stands("Ceramic Mug", "You hold the last one")
	loser.stands("Ceramic Mug", "Sold out")
	loser.until(card("Ceramic Mug") + ".querySelector('button').textContent.includes('Get it from')")
	shown := eval[string](loser, "document.querySelector('.cards').innerText")
	if regexp.MustCompile(`(?i)total|\d held|held \d`).MatchString(shown) {
		t.Errorf("the shop shows %q, want neither what is held nor the total", shown)
	}
}

// A cart is held whole. Its lines keep their order, survive a reload, and a change of it takes the
// place of what is held: another browser sees no more units go.
func TestACartIsHeldWholeAndReplaced(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	other.visit("/")
	other.stands("Wireless Headphones", "In stock")
	b.visit("/")
	b.add("Ceramic Mug", losAngeles)
	b.add("Wireless Headphones", newYork)
	b.add("Mechanical Keyboard", sanFrancisco)
	b.until("document.querySelector('button.cart').textContent === 'Cart, $296.00 3 items'")
	b.click(".toast button") // undo
	b.sees(openCart, "2")
	b.add("Mechanical Keyboard", newYork)
	b.add("Wireless Headphones", newYork)
	b.reload()
	b.sees(openCart, "4")
	b.click(openCart)
	b.lines("1 Ceramic Mug From Los Angeles", "2 Wireless Headphones From New York",
		"1 Mechanical Keyboard From New York")
	b.sees(".foot", "Total$445.00")
	b.click("dialog button[aria-label='Remove Wireless Headphones from New York']")
	b.lines("1 Ceramic Mug From Los Angeles", "1 Mechanical Keyboard From New York")
	b.until("document.activeElement.ariaLabel.startsWith('Remove Mechanical Keyboard')")
	b.sees("dialog .toast", "Removed Wireless Headphones.")
	waitFor(t, func() bool { return b.hears("Removed Wireless Headphones.") })
	b.click("dialog .toast button")
	b.lines("1 Ceramic Mug From Los Angeles", "2 Wireless Headphones From New York",
		"1 Mechanical Keyboard From New York")
	b.doubleClick(checkOut)
	b.sees("h1", "Held for you")
	s.wantHolds(1)
	first := b.path()
	other.stands("Wireless Headphones", "Only 3 left")

	// The cart is still there, and says that it is held. More of the last unit can't be had.
	b.visit("/")
	b.sees(".heldbar", "4 items held for you")
	b.click(openCart)
	b.sees(".heldnote", "Held for you for 9:")
	b.sees("dialog .foot a", "Complete purchase")
	b.look("cart-held")
	b.click("button[aria-label='One more: Quantity of Wireless Headphones from New York']")
	b.sees(".heldnote", "You changed your cart.")
	b.look("cart-changed")
	b.click(checkOut)
	b.until(fmt.Sprintf("location.pathname.startsWith('/reservation/') && location.pathname !== %q",
		first))
	s.wantHolds(2)
	const held = "SELECT string_agg(i.quantity::text, ',' ORDER BY i.quantity) FROM " +
		"reservation_items i JOIN reservations r ON r.id = i.reservation_id " +
		"WHERE r.status = 'PENDING'"
	if got := pgtest.QueryOne[string](s.db, held); got != "1,1,3" {
		t.Errorf("the live hold has %s units, want 1,1,3", got)
	}
	other.stands("Wireless Headphones", "Only 2 left")
	b.visit("/")
	b.sees(".heldbar", "5 items held for you")

	// What is bought leaves the cart. What was added meanwhile stays.
	b.click(addButton("Desk Lamp"))
	s.resolve(strings.TrimPrefix(s.newest(), "/reservation/"), "confirm")
	b.wake()
	b.until("!document.querySelector('.heldbar')")
	b.click(openCart)
	b.until("document.querySelectorAll('.lines > li').length === 1")
	b.sees(".lines", "Desk Lamp")
}

// newest is the path of the newest live hold.
func (s *stack) newest() string {
	s.t.Helper()
	const newest = "SELECT id::text FROM reservations WHERE status = 'PENDING' " +
		"ORDER BY id DESC LIMIT 1"
	return "/reservation/" + pgtest.QueryOne[string](s.db, newest)
}

// wake tells the page that it is shown again. It then looks at what has changed.
func (b *tab) wake() {
	b.t.Helper()
	eval[chromedp.Void](b, "document.dispatchEvent(new Event('visibilitychange'))")
}

func TestTabsAgree(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	first := s.newTab()
	first.visit("/")
	first.sees(openCart, "0")
	second, stranger := first.sibling(), s.newTab()
	second.visit("/product/" + demo.Products()[mug].ID.String())
	stranger.visit("/")
	stranger.sees(openCart, "0")
	first.add("Ceramic Mug", newYork)
	second.sees(openCart, "1")
	second.click("button[type=submit]")
	first.sees(openCart, "2")

	path := second.hold()
	first.sees(".heldbar", "2 items held for you")
	first.sees(".badge.own", "Held for you")
	first.until("/^\\d:\\d\\d · Shop · Allo$/.test(document.title)")
	first.click(".heldbar a")
	first.until(fmt.Sprintf("location.pathname === %q", path))
	first.visit("/")
	first.sees(".heldbar", "2 items held for you")
	s.resolve(strings.TrimPrefix(path, "/reservation/"), "release")
	first.wake()
	first.until("!document.querySelector('.heldbar, .badge.own')")
	first.until("document.title === 'Shop · Allo'")
	first.sees(openCart, "2")
	if eval[bool](stranger, "Boolean(document.querySelector('.heldbar, .badge.own'))") ||
		!strings.Contains(eval[string](stranger, "document.querySelector('button.cart').textContent"),
			"0") {
		t.Errorf("another browser shows %q, want neither the hold nor the cart", stranger.shown())
	}
}

func TestKeysAreRandomWithoutASecureContext(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	posts := s.countPosts()
	b := s.newTab("delete Crypto.prototype.randomUUID;")
	b.visit("/")
	b.add("Mechanical Keyboard", sanFrancisco)
	b.hold()
	b.visit("/")
	b.add("Ceramic Mug", newYork)
	b.hold()
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
	b.add("Ceramic Mug", newYork)
	lost := s.losing(http.MethodPost, "/api/reservations", math.MaxInt64)
	b.click(openCart)
	b.click(checkOut)
	b.sees(".foot [role=alert]", "No answer from the shop. Try again: you won’t get it twice.")
	if lost.Load() < 2 {
		t.Error("the page asked once, want it to ask again by itself")
	}
	b.look("cart-no-answer")
	s.mend()
	b.click(checkOut)
	b.sees("h1", "Held for you")
	s.wantHolds(1)
}

// The control of the test above: without the key the retry acts twice.
func TestWithoutAKeyALostAnswerActsTwice(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", newYork)
	var first atomic.Bool
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Idempotency-Key")
		if r.Method != http.MethodPost || first.Swap(true) {
			return false
		}
		s.gateway.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	b.hold()
	s.wantHolds(2)
}

func TestTheServerGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", losAngeles)
	// The page fetches the cart by itself, so that it opens without the server.
	b.until("['cart-drawer', 'quantity'].every((module) => performance.getEntriesByType(" +
		"'resource').some(({ name }) => name.includes(`/assets/${module}`)))")
	s.down()
	b.click(openCart)
	b.sees(".connection", "The shop can’t be reached.")
	b.click(checkOut)
	b.sees(".foot [role=alert]", "No answer from the shop.")
	b.offline(true)
	b.sees(".connection", "You are offline")
	b.click(checkOut)
	b.sees(".foot [role=alert]", "You are offline. Your cart is safe")
	b.offline(false)
	s.up()
	b.until("!document.querySelector('.connection').textContent")
	b.click(checkOut)
	b.sees("h1", "Held for you")
	s.wantHolds(1)
}

// tabTo presses Tab until the element has the focus.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	const most = 90 // elements of a page
	for range most {
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("%d tabs don't reach %s", most, selector)
}

func TestTheKeyboardAloneBuys(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b := s.newTab()
	b.visit("/")
	b.tabTo("#q")
	b.press("keyb")
	b.until("document.querySelectorAll('.card').length === 1 && location.search === '?q=keyb'")
	b.tabTo(".card h2 a")
	b.press(kb.Enter)
	b.sees("h1", "Mechanical Keyboard")
	b.tabTo("input[type=radio]")
	b.press(kb.ArrowDown)
	b.until("document.activeElement.matches('input[type=radio]') && document.activeElement.checked")
	b.tabTo("#quantity")
	b.press("2")
	b.press(kb.Enter)
	b.sees(".toast", "Added 2 × Mechanical Keyboard")
	b.tabTo(".toast button")
	b.press(kb.Enter)
	b.sees(openCart, "0")
	b.until("document.activeElement.id === 'quantity'") // where the shopper was
	b.press("3")
	b.press(kb.Enter)
	b.sees(openCart, "3")

	eval[chromedp.Void](b, "document.querySelector('.brand').focus()")
	b.tabTo(openCart)
	b.press(kb.Enter)
	b.until("document.querySelector('dialog')?.contains(document.activeElement)")
	for range 8 { // round the panel, never out of it
		b.press(kb.Tab)
		b.until("document.activeElement === document.body || " +
			"document.querySelector('dialog').contains(document.activeElement)")
	}
	b.press(kb.Escape)
	b.until("!document.querySelector('dialog') && document.activeElement.matches('button.cart')")
	b.press(kb.Enter)
	b.tabTo(".lines input")
	b.press(kb.ArrowDown)
	b.until("document.activeElement.value === '2'")
	b.press(kb.Enter)
	b.sees("h1", "Held for you")
	s.wantHolds(1)
}

// The words for what the shop doesn't sell to this shopper.
func TestLimitsAreSaidInWords(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	change := func(product int, fields string) {
		p := demo.Products()[product]
		s.call("/api/catalog/products", fmt.Sprintf(`{"items":[{"sku":%q,"name":%q,%s}]}`,
			p.SKU, p.Name, fields), http.StatusOK)
	}
	change(headphones, `"maxPerHold":2`)
	change(keyboard, `"maxPerOwner":3`)
	b := s.newTab()
	b.visit("/product/" + demo.Products()[headphones].ID.String())
	b.sees(".facts", "At most 2 for each order.")
	b.fill("#quantity", "3")
	b.press(kb.Enter)
	b.sees(".toast", "At most 2 × Wireless Headphones in one order.")
	b.sees(openCart, "0")
	b.fill("#quantity", "2")
	b.press(kb.Enter)
	b.sees(openCart, "2")
	b.visit("/")
	b.add("Mechanical Keyboard", newYork)
	b.add("Ceramic Mug", newYork)
	b.click(openCart)
	b.click(checkOut)
	b.sees(".foot [role=alert]", "To buy it, you must be signed in")
	b.sees(".trouble:not(:empty)", "At most 3 for each customer.")
	b.click("dialog button[aria-label='Remove Mechanical Keyboard from New York']")
	change(headphones, `"maxPerHold":1`)
	b.sees(".trouble:not(:empty)", "At most 1 in one order.")
	b.click(".trouble button")
	b.until("document.querySelector('.lines input').value === '1'")

	change(headphones, `"status":"ARCHIVED"`)
	s.call("/api/catalog/warehouses",
		`{"items":[{"code":"NY","name":"New York","status":"CLOSED"}]}`, http.StatusOK)
	b.until("[...document.querySelectorAll('.trouble')].map((note) => note.textContent).join('|')" +
		".startsWith('This isn’t sold any more. Please remove it.|" +
		"New York doesn’t sell this any more.')")
	b.look("cart-unsold")
	b.click(checkOut)
	b.sees(".foot [role=alert]", "Please look at the marked lines first.")
	b.click("dialog button[aria-label='Remove Wireless Headphones from New York']")
	b.click(".trouble button")
	b.until("!document.querySelector('.trouble:not(:empty)')")
	b.click(checkOut)
	b.sees("h1", "Held for you")
}

// A shop may show shoppers no more than so many units.
func TestTheShopShowsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t, func(c *config.Config) { c.StockShown = 5 })
	b := s.newTab()
	b.visit("/")
	b.takeFrom("Ceramic Mug", losAngeles)
	b.stands("Ceramic Mug", "Only 1 left")
	b.takeFrom("Ceramic Mug", newYork)
	b.stands("Ceramic Mug", "In stock")
	b.click(addButton("Ceramic Mug"))
	b.click(openCart)
	b.fill(".lines input", "31")
	b.click(checkOut)
	b.sees(".trouble", "Sorry, there aren’t so many left in New York.")
	b.fill(".lines input", "7")
	b.click(checkOut)
	b.sees("h1", "Held for you")
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
