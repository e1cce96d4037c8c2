package browser

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/allo/reservations/internal/local/demo"
)

// Two thousand products are a search or some pages away. Every place has an address. What is found
// follows the purchase of another browser.
func TestSearchAndPages(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'Thing ' || i, 'T-' || i FROM generate_series(1, 2000) i`)
	b := s.newTab()
	b.visit("/")
	cards := func(n string) { b.until("document.querySelectorAll('.card:not(.waiting)').length " + n) }
	cards("=== 24")
	b.sees(".cards", "Ceramic Mug")
	b.click(".pages a")
	b.until("location.search.startsWith('?page=2&after=') && scrollY === 0")
	b.sees(".cards", "Thing ")
	b.until("document.activeElement.id === 'heading'")
	second := eval[string](b, "location.href")
	b.sees(".intro", "Page 2")
	b.look("shop-second-page")
	b.clickText("Next page")
	b.sees(".intro", "Page 3")
	b.until("!document.querySelector('.cards.old')")
	b.reload() // the way back is still known
	b.clickText("Previous page")
	b.until(fmt.Sprintf("location.href === %q && document.activeElement.id === 'heading'", second))
	b.reload()
	cards("=== 24")
	b.until("!document.querySelector('.cards').textContent.includes('Ceramic Mug')")
	b.clickText("Previous page")
	b.sees(".cards", "Ceramic Mug")
	b.until("location.search === ''")
	eval[chromedp.Void](b, "history.back()")
	b.sees(".intro", "Page 2")
	b.visit(strings.TrimPrefix(second, b.s.url) + "nonsense")
	b.sees(".cards", "Ceramic Mug") // the first page in the place of one that isn't there
	b.until("location.search === ''")

	b.fill("#q", "thing 199")
	b.until("location.search === '?q=thing+199'")
	b.sees("h1", "Results for “thing 199”")
	cards("=== 12") // 199, 1199, and 1990 to 1999
	b.sees(".intro p", "12 products")
	b.wantAnnounced("12 products for thing 199.")
	b.reload()
	cards("=== 12")
	b.until("document.title === '“thing 199” · Allo' && q.value === 'thing 199'")
	b.fill("#q", " no such")
	b.sees(".blank", "Nothing found")
	b.look("shop-nothing-found")
	b.click(".blank button")
	cards("=== 24")
	b.until("location.search === '' && q.value === ''")

	// A product has an address of its own, and a search from there leads to the shop.
	b.visit("/product/" + demo.Products()[mug].ID.String())
	b.until("document.title === 'Ceramic Mug · Allo'")
	b.sees(".place.picked", "New York") // the nearest
	b.fill("#q", "camera\r")
	b.until("location.pathname === '/' && location.search === '?q=camera'")
	cards("=== 1")
	b.stands("Film Camera", "Only 1 left")
	s.newTab().buys(newYork, "Film Camera")
	b.stands("Film Camera", "Only 2 left") // in the nearest warehouse that has some
	b.click(".card h2 a")
	b.sees("h1", "Film Camera")
	for _, missing := range []string{"nonsense", "0192d000-0000-7000-8000-000000000fff", "%25"} {
		b.visit("/product/" + missing)
		b.sees("h1", "We can’t find this product")
		b.until("document.title === 'Product not found · Allo'")
	}
	b.look("product-missing")
}

// A hidden tab sends no requests. A visible tab measures the time: it waits for some reads.
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
		b.stands("Ceramic Mug", "In stock")
		tabs[name] = b
	}
	hide := func(is string) {
		eval[chromedp.Void](tabs["hidden"], "isHidden = "+is)
		tabs["hidden"].wake()
	}
	hide("true")
	hiddenBefore, seenBefore := count("hidden"), count("seen")
	waitFor(t, func() bool { return count("seen") >= seenBefore+2 })
	if got := count("hidden") - hiddenBefore; got > 1 { // one may have been under way
		t.Errorf("the hidden tab looked %d times, want it to rest", got)
	}
	rested := count("hidden")
	hide("false")
	waitFor(t, func() bool { return count("hidden") > rested })
}
