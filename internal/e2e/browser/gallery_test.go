package browser

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/allo/reservations/internal/local/demo"
)

// The gallery is every page in every state. Each gets a picture and a check by axe.

func TestGalleryOfTheShop(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	done := make(chan struct{})
	s.breakWith(hanging(done))
	b := s.newTab()
	b.visit("/")
	b.until("document.querySelector('.cards.waiting, .card.waiting')")
	b.look("shop-loading")
	close(done)
	s.mend()
	s.reserve(600, line(mug, losAngeles, 1))
	s.reserve(600, line(keyboard, newYork, 2), line(headphones, sanFrancisco, 4))
	s.db.Exec("UPDATE inventory SET total = 0 WHERE product_id = $1 AND warehouse_id = $2",
		demo.Products()[headphones].ID.String(), demo.Warehouses()[newYork].ID.String())
	b.figures("Mechanical Keyboard", "New York", 1, 2, 3)
	b.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	b.figures("Wireless Headphones", "New York", 0, 0, 0)
	b.wantStill()
	b.look("shop")

	b.click(reserveButton("Mechanical Keyboard", "New York"))
	b.until("document.querySelector('dialog[open]')")
	b.look("shop-reserve")
	b.fill("#quantity", "2")
	b.click("dialog button[type=submit]")
	b.sees("#quantity-note", "Only 1 left")
	b.look("shop-reserve-error")
	b.fill("#quantity", "1")
	s.reserve(600, line(keyboard, newYork, 1)) // somebody is faster
	b.click("dialog button[type=submit]")
	b.sees("#quantity-note", "none are left in New York")
	b.look("shop-reserve-409")
	b.click("dialog button[aria-label=Close]")

	b.click("button.cart")
	b.sees("dialog", "It is empty")
	b.look("shop-cart-empty")
}

func TestGalleryOfTheCart(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	rows := [][2]string{
		{"Mechanical Keyboard", "New York"},
		{"Ceramic Mug", "Los Angeles"},
		{"Wireless Headphones", "San Francisco"},
	}
	for _, row := range rows {
		b.click(reserveButton(row[0], row[1]))
		b.click("dialog button.secondary[type=button]:not([aria-label])")
		b.until("!document.querySelector('dialog')")
		b.wantAnnounced("Added to the cart: 1 × " + row[0])
	}
	b.sees("button.cart", "3")
	b.click("button.cart")
	b.sees("dialog", "Reserve 3 units")
	b.look("shop-cart")

	// One hold takes both: a read of the page between two would see one line short.
	s.reserve(600, line(mug, losAngeles, 1), line(keyboard, newYork, 1))
	b.fill("input[aria-label='Quantity of Mechanical Keyboard from New York']", "3")
	b.click("dialog button[type=submit]")
	b.until("document.querySelectorAll('.lines .note:not(:empty)').length === 2")
	b.look("shop-cart-short")
	s.wantHolds(1)
}

func TestGalleryOfTheShopInTrouble(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	s.breakWith(unavailable)
	b.visit("/")
	b.sees("main", "We can’t show this right now")
	b.look("shop-error")
	s.mend()
	b.figures("Ceramic Mug", "Los Angeles", 1, 0, 1)
	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.look("shop-stale")
	s.mend()
	b.until("!document.querySelector('.connection').textContent")
	b.offline(true)
	b.sees(".connection", "You are offline")
	b.look("shop-offline")
	b.wantStill()
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.sees("dialog .connection", "You are offline")
	if got := eval[int](b, "document.querySelectorAll('.connection').length"); got != 1 {
		t.Errorf("there are %d banners, want the dialog's alone", got)
	}
	b.look("shop-reserve-offline")
	b.click("dialog button[aria-label=Close]")
	b.until("!document.querySelector('dialog')")
	b.offline(false)
	b.until("!document.querySelector('.connection').textContent")

	s.db.Exec("TRUNCATE products, inventory, stock_movements, reservations, reservation_items")
	b.sees("main", "The shelves are empty")
	b.look("shop-empty")
}

func TestGalleryOfTheHold(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	done := make(chan struct{})
	s.breakWith(hanging(done))
	h := s.reserve(300, line(mug, losAngeles, 1))
	b.visit("/reservation/" + h.ID)
	b.sees("main", "Loading")
	b.look("hold-loading")
	close(done)
	s.mend()
	b.sees("h1", "Held for you")
	b.wantStill()
	b.look("hold")
	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.look("hold-stale")
	s.mend()
	s.resolve(h.ID, "confirm")
	b.sees("h1", "Purchased")
	b.look("hold-confirmed")

	cart := s.reserve(45, line(keyboard, newYork, 2), line(headphones, sanFrancisco, 4))
	b.visit("/reservation/" + cart.ID)
	b.sees(".items", "Wireless Headphones")
	b.wantAnnounced(" seconds left.")
	b.look("hold-last-minute")
	s.resolve(cart.ID, "release")
	b.sees("h1", "Cancelled")
	b.look("hold-cancelled")

	b.visit("/reservation/0197c2a8-0000-7000-8000-000000000001")
	b.sees("h1", "Hold not found")
	b.look("hold-missing")
	s.breakWith(unavailable)
	b.reload()
	b.sees("main", "We can’t show this right now")
	b.look("hold-error")
}

func TestGalleryOfTheEndOfAHold(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	h := s.reserve(600, line(mug, losAngeles, 1))
	b.visit("/reservation/" + h.ID)
	b.sees("h1", "Held for you")
	// The page believes for a moment that it has time: it learns of the end only by its confirm.
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodGet && unavailable(w, r)
	})
	b.sees(".connection", "busy or restarting")
	s.killDayAgo(h)
	b.click(".actions button")
	b.sees("h1", "Expired")
	b.sees(".result", "Too late: the time was up, so nothing was bought.")
	b.look("hold-410")
	s.mend()
	b.until("!document.querySelector('.connection').textContent")
	s.reserve(600, line(mug, losAngeles, 1)) // somebody is faster
	b.click(".actions button")
	b.sees(
		".about",
		"Ceramic Mug: Not reserved: somebody was faster, and none are left in Los Angeles.",
	)
	b.look("hold-expired-409")

	long := s.reserve(3599, line(headphones, newYork, 1))
	b.visit("/reservation/" + long.ID)
	b.click(".actions button:nth-child(2)")
	b.sees(".result", "It can’t be held five minutes longer. Confirm it, or let it go.")
	b.until(
		"document.activeElement.id === 'heading' && " +
			"!document.querySelector('.actions').textContent.includes('5 more minutes')",
	)
	b.sees(".actions button:nth-child(2)", "Cancel")
	b.look("hold-limit")

	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodGet && unavailable(w, r)
	})
	s.resolve(long.ID, "release") // in another tab
	b.click(".actions button")
	b.sees("h1", "Cancelled")
	b.sees(".result", "This hold was cancelled before, so nothing was bought.")
	b.look("hold-409")
}

func TestGalleryOfTheOperator(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	done := make(chan struct{})
	s.breakWith(hanging(done))
	b.visit("/ops")
	b.until("document.querySelector('.tiles.waiting')")
	b.look("ops-loading")
	close(done)
	s.mend()
	b.sees("main", "No holds match.")
	b.wantStill()
	b.look("ops-empty")

	s.pastHour()
	s.reserve(900, line(headphones, newYork, 2))
	s.reserve(300, line(keyboard, newYork, 1), line(mug, losAngeles, 1))
	b.until("document.querySelectorAll('.holds tbody tr').length === 2")
	b.look("ops")
	b.choose("Status", "EXPIRED")
	b.until("document.querySelectorAll('.holds tbody tr .status.expired').length > 3")
	b.look("ops-expired")
	b.click("summary")
	b.until("document.querySelector('details[open]')")
	b.look("ops-table")

	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.reload()
	b.sees("main", "We can’t show this right now")
	b.look("ops-error")
}

// refused answers requests to paths with this end as an authorizer does that refuses them.
func refused(suffix string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/api/") || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"message":"Forbidden"}`)
		return true
	}
}

func TestGalleryOfWhoMayNot(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	no := refused("")
	var looks atomic.Int64
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/stats" {
			looks.Add(1)
		}
		return no(w, r)
	})
	b.visit("/ops")
	b.sees("h1", "For the operator")
	b.sees("main", "inventory:read")
	b.sees("main", "this page can’t sign in")
	if strings.Contains(b.shown(), "keep trying") {
		t.Error("the page promises to keep trying, want it to promise nothing")
	}
	b.look("ops-403")
	asked := looks.Load()
	b.click(".blank button")
	waitFor(t, func() bool { return looks.Load() > asked })
	s.mend()
	b.click(".blank button")
	b.sees("h1", "Operations")

	h := s.reserve(600, line(mug, losAngeles, 1))
	s.breakWith(refused("/confirm"))
	b.visit("/reservation/" + h.ID)
	b.click(confirm)
	b.sees(".result", "Only the payment service can do this.")
	b.sees("h1", "Held for you")
	b.look("hold-403")
	s.resolve(h.ID, "confirm") // the payment service does
	b.sees("h1", "Purchased")
}

// After a refusal the page pauses for a minute, and it doesn't read within the time of three reads.
// Control: after any other error it goes on reading every two seconds.
func TestARefusedPageRests(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var looks, others atomic.Int64
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/stats" {
			looks.Add(1)
			return refused("")(w, r)
		}
		if r.URL.Path == "/api/products" && r.URL.Query().Get("limit") == "" {
			others.Add(1)
			return unavailable(w, r)
		}
		return false
	})
	b, other := s.newTab(), s.newTab()
	b.visit("/ops")
	b.sees("h1", "For the operator")
	before, start := looks.Load(), others.Load()
	other.visit("/")
	waitFor(t, func() bool { return others.Load() >= start+4 })
	if got := looks.Load() - before; got != 0 {
		t.Errorf("the refused page looked %d times again, want it to rest", got)
	}
}

func TestGalleryOfTheHoldOffline(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	h := s.reserve(600, line(mug, losAngeles, 1))
	b.visit("/reservation/" + h.ID)
	b.sees("h1", "Held for you")
	b.offline(true)
	b.sees(".connection", "You are offline")
	b.look("hold-offline")
	b.offline(false)
	b.until("!document.querySelector('.connection').textContent")

	// Offline before the first read: the page has arrived, and its data hasn't.
	s.breakWith(unavailable)
	b.visit("/")
	b.sees("main", "We can’t show this right now")
	b.offline(true)
	b.sees("main", "You are offline")
	b.sees("main", "This page loads as soon as you are back online.")
	b.look("shop-offline-at-first")
	s.mend()
	b.offline(false)
	b.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
}
