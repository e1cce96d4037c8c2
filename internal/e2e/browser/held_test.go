package browser

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/local/demo"
)

// tooLong is a fault that refuses to extend a hold, as the API does at the longest hold time.
func tooLong(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasSuffix(r.URL.Path, "/extend") {
		return false
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_, _ = io.WriteString(w, `{"type":"urn:allo:problem:EXTENSION_LIMIT","status":422,`+
		`"title":"Extension limit reached","code":"EXTENSION_LIMIT","detail":"x","error":"x"}`)
	return true
}

// In the last minute the shopper is asked, and gets more time where there is any. Whoever has
// reached the longest time is told so. Another browser sees the unit go and come back.
func TestTheLastMinuteOffersMoreTime(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	var hold hold
	// lastMinute moves the hold's end, and lets the page look at it.
	lastMinute := func() {
		t.Helper()
		s.db.Exec("UPDATE reservations SET expires_at = now() + interval '55 seconds', "+
			"version = version + 1 WHERE id = $1", hold.ID)
		b.wake()
	}
	other.visit("/")
	other.takeFrom("Ceramic Mug", losAngeles)
	other.stands("Ceramic Mug", "Only 1 left")
	hold = b.buys(losAngeles, "Ceramic Mug")
	other.stands("Ceramic Mug", "Sold out")
	b.visit("/product/" + demo.Products()[mug].ID.String())
	b.sees(".heldbar", "1 item held for you")
	b.sees(".ownnote", "1 item held for you")
	lastMinute()
	b.sees("dialog.ask h2", "seconds left")
	b.sees("dialog.ask", "Do you need more time?")
	b.click("dialog.ask button.secondary")
	b.sees(".toast", "Your items are held for 5 more minutes.")
	b.until("!document.querySelector('dialog') && /^[45]:/.test(document.title)")
	b.sees(".heldbar b", "4:")

	lastMinute()
	b.sees("dialog.ask h2", "seconds left")
	b.look("held-ask")
	lastMinute()
	s.breakWith(tooLong)
	b.sees("dialog.ask h2", "seconds left")
	b.click("dialog.ask button.secondary")
	b.sees("dialog.ask", "You’ve reached the longest hold time.")
	b.until("!document.querySelector('dialog.ask footer button') && " +
		"document.activeElement.textContent.trim() === 'Complete purchase'")
	b.look("held-longest")
	b.click(closePanel)
	b.until("!document.querySelector('dialog')")
	b.reload()
	b.sees(".heldbar.last", "1 item held for you")
	if eval[bool](b, "Boolean(document.querySelector('dialog'))") {
		t.Error("the page asks again after the shopper closed the dialog, want it to ask once")
	}

	// The end comes by itself. The cart still has what was held.
	s.db.Exec("UPDATE reservations SET expires_at = now() + interval '2 seconds', "+
		"version = version + 1 WHERE id = $1", hold.ID)
	b.wake()
	b.sees(".toast", "Your hold has ended. What was in your cart is still there.")
	b.until("!document.querySelector('.heldbar, .ownnote')")
	b.until("document.title === 'Ceramic Mug · Allo'")
	b.click(openCart)
	b.lines("1 Ceramic Mug From Los Angeles")
	b.sees(checkOut, "Check out")

	// The other browser has seen the stock alone.
	other.stands("Ceramic Mug", "Only 1 left")
	if eval[bool](other, "Boolean(document.querySelector('.heldbar, .badge.own, dialog'))") {
		t.Errorf("another browser shows %q, want no sign of the hold", other.shown())
	}
}

// A change of the stock by another browser is on the page by itself, in the same elements: nothing
// flashes, nothing moves, and the focus stays.
func TestStockFollowsWithoutAFlash(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	buyer := s.newTab()
	buyer.addUnits(lamp, 7)
	for _, width := range []int64{1280, 320} {
		b := s.newTab()
		b.dress("light", width)
		b.visit("/")
		b.stands("Desk Lamp", "In stock")
		eval[bool](b, fmt.Sprintf("(window.before = [...document.querySelectorAll('main *')], "+
			"document.querySelector(%q).focus(), true)", addButton("Desk Lamp")))
		height := eval[int](b, "document.documentElement.scrollHeight")
		buyer.hold()
		b.stands("Desk Lamp", "Only 2 left")
		if replaced := eval[int](b, "before.filter((node) => !node.isConnected).length"); replaced != 0 {
			t.Errorf("%d elements were replaced, want none", replaced)
		}
		b.until(fmt.Sprintf("document.activeElement.matches(%q)", addButton("Desk Lamp")))
		b.wantStill()
		if got := eval[int](b, "document.documentElement.scrollHeight"); got != height {
			t.Errorf("the page is %d pixels high, and was %d, want the same", got, height)
		}
		s.resolve(buyer.held().ID, "release")
		buyer.visit("/")
	}
}
