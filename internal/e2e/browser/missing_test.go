package browser

import "testing"

// A shopper who comes to an address that doesn't exist doesn't lose sight of the held items. The
// controls are another browser, and the documentation, which isn't a page of the shop.
func TestTheBarOfOwnHoldsIsOnThePageOfAnUnknownAddress(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", newYork)
	order := b.hold()
	b.visit("/nothing/here")
	b.sees("h1", "Page not found")
	b.sees(".heldbar", "1 item held for you")
	b.until("/^[0-9]+:[0-9]{2} · Page not found · Allo$/.test(document.title)")
	b.sees("#cart", "Cart")
	b.look("missing-held")
	other.visit("/nothing/here")
	other.sees("h1", "Page not found")
	other.sees("#cart", "Cart")
	if eval[bool](other, "Boolean(document.querySelector('.heldbar'))") {
		t.Error("another browser has the bar of the shopper's hold")
	}
	b.click(".heldbar a")
	b.until("location.pathname === '" + order + "'")

	b.visit("/api/docs")
	b.sees("h1, h2.title", "Allo Reservations")
	if eval[bool](b, "Boolean(document.querySelector('.heldbar'))") {
		t.Error("the documentation has the bar of own holds")
	}
}
