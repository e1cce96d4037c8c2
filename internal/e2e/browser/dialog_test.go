package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// A dialog reports its end a moment after it closes. Another that opened meanwhile stays open.
func TestTheCartOpensRightAfterADialogClosed(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/")
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.until("document.querySelector('dialog[open]')")
	eval[chromedp.Void](
		b,
		"document.querySelector('dialog [aria-label=Close]').click(); "+
			"document.querySelector('button.cart').click()",
	)
	b.sees("dialog[open]", "Your cart")
	b.settle()
	b.settle()
	b.sees("dialog[open]", "It is empty")
}

// A customer who returns to a page from the browser's cache finds its button ready.
func TestBackAfterReserveAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	h := s.reserve(600, line(mug, newYork, 1))
	s.resolve(h.ID, "release")
	b.visit("/reservation/" + h.ID)
	b.sees(".actions button", "Reserve again")
	eval[chromedp.Void](b, "window.isKept = true")
	for range 2 {
		eval[chromedp.Void](b, "document.querySelector('.actions button').click()")
		b.sees("h1", "Held for you")
		eval[chromedp.Void](b, "history.back()")
		b.until("window.isKept") // the very page, not another load of it
		b.sees(".actions button", "Reserve again")
	}
	s.wantHolds(3)
}

// hears reports whether a text is in the accessibility tree. Inert text isn't.
func (b *tab) hears(text string) bool {
	b.t.Helper()
	tree := command(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	return slices.ContainsFunc(tree.Nodes, func(node *accessibility.Node) bool {
		return !node.Ignored && node.Name != nil && strings.Contains(string(node.Name.Value), text)
	})
}

func TestAnAnnouncementInADialogIsHeard(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/")
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.click("dialog footer button.secondary")
	b.wantAnnounced("Added to the cart: 1 × Ceramic Mug")
	b.click("button.cart")
	b.click("dialog button[aria-label='Remove Ceramic Mug from New York']")
	b.sees("dialog .announcer", "Removed Ceramic Mug.")
	waitFor(t, func() bool { return b.hears("Removed Ceramic Mug.") })
	// The control: text outside of the dialog is silent.
	if b.hears("Reserve the items you want") {
		t.Error("what is behind the dialog is heard, want it inert")
	}
}

func TestNothingMovesOnATelephone(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	single := s.reserve(600, line(mug, newYork, 1))
	cart := s.reserve(600, line(keyboard, newYork, 2), line(headphones, sanFrancisco, 4))
	for _, h := range []hold{single, cart} {
		b := s.newTab()
		b.dress("light", 320)
		b.visit("/reservation/" + h.ID)
		b.sees("h1", "Held for you")
		b.until("!document.querySelector('.items').textContent.includes('…')")
		shown := eval[string](b, "document.getElementById('countdown').textContent")
		b.until(fmt.Sprintf("document.getElementById('countdown').textContent !== %q", shown))
		b.settle()
		b.wantStill()
	}
}

func TestTheCartCountsWhatItHas(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.click(reserveButton("Ceramic Mug", "Los Angeles"))
	b.click("dialog footer button.secondary")
	b.sees("button.cart", "1")
	b.until("!document.querySelector('dialog')") // a click would still hit the closing dialog
	b.click(reserveButton("Ceramic Mug", "Los Angeles"))
	b.sees("dialog", "1 in your cart.")
	b.click("dialog footer button.secondary")
	b.sees("#quantity-note", "Your cart has 1 of the 1 left here already.")
	b.click("dialog button[aria-label=Close]")
	b.click("button.cart")
	b.sees(submit, "Reserve 1 unit")
	eval[chromedp.Void](b, `{ const field = document.querySelector(".lines input");
		field.value = ""; field.dispatchEvent(new Event("input", { bubbles: true })); }`)
	b.until("document.querySelector('dialog button[type=submit]').textContent === 'Reserve'")

	// A request may have at most a hundred lines.
	eval[chromedp.Void](
		b,
		`sessionStorage.setItem("cart", JSON.stringify(Array.from({ length: 100 }, (_, i) => (
		{
			productId: "p" + i, warehouseId: "w",
			productName: "Thing " + i, warehouseName: "W", quantity: 1,
		}))))`,
	)
	b.reload()
	b.sees("button.cart", "100")
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.click("dialog footer button.secondary")
	b.sees("#quantity-note", "The cart is full at 100 lines: reserve these first.")

	eval[chromedp.Void](b, `sessionStorage.setItem("cart", "{nonsense")`)
	b.reload()
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	b.sees("button.cart", "0")
}
