package browser

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

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
	b.add("Ceramic Mug", newYork)
	b.wantAnnounced("Added Ceramic Mug to your cart.")
	b.click(openCart)
	b.click("dialog button[aria-label='Remove Ceramic Mug from New York']")
	b.sees("dialog .announcer", "Removed Ceramic Mug.")
	waitFor(t, func() bool { return b.hears("Removed Ceramic Mug.") })
	b.sees("dialog", "Your cart is empty.")
	b.until("document.activeElement.ariaLabel === 'Close'")
	// The control: text outside of the dialog is silent.
	if b.hears("Pick what you like") {
		t.Error("what is behind the dialog is heard, want it inert")
	}
	// Where the panel is closed and opened in one go, it stays open.
	eval[chromedp.Void](b, "document.querySelector('dialog [aria-label=Close]').click(); "+
		"document.querySelector('button.cart').click()")
	b.settle()
	b.settle()
	b.sees("dialog[open]", "Your cart is empty.")
}

func TestTheCartCountsWhatItHas(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", losAngeles)
	b.click(addButton("Ceramic Mug"))
	b.sees(".toast", "Your cart has the last one from Los Angeles already.")
	b.click(".toast button")
	b.sees("dialog", "Your cart")
	b.lines("1 Ceramic Mug From Los Angeles")
	b.fill(".lines input", "x")
	b.sees(".trouble", "Type a whole number, 1 or more.")
	b.click(checkOut)
	b.sees(".foot [role=alert]", "Please look at the marked lines first.")
	b.until("document.activeElement.matches('.lines input')")

	// A request may have at most a hundred lines.
	eval[chromedp.Void](
		b,
		`localStorage.setItem("allo-cart", JSON.stringify({ lines: Array.from({ length: 100 }, (_, i) => (
		{
			productId: "p" + i, warehouseId: "w", sku: "T-" + i,
			productName: "Thing " + i, warehouseName: "W", quantity: 1,
		})) }))`,
	)
	b.reload()
	b.sees(openCart, "100")
	b.click(addButton("Desk Lamp"))
	b.sees(".toast", "Your cart is full at 100 lines. Please check out first.")
	b.click(openCart)
	b.until("document.querySelectorAll('.trouble:not(:empty)').length === 100")

	for _, nonsense := range []string{"{nonsense", "[]", `{"lines":[{"quantity":1}]}`} {
		eval[chromedp.Void](b, "localStorage.setItem('allo-cart', `"+nonsense+"`); "+
			"localStorage.setItem('allo-holds', `"+nonsense+"`)")
		b.reload()
		b.stands("Ceramic Mug", "Only 1 left")
		b.sees(openCart, "0")
	}
}
