package browser

import (
	"net/http"
	"testing"
)

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
	b.sees(".summary", "Ceramic Mug")
	b.wantStill()
	b.clickText("This is my order")
	b.sees("h1", "Held for you")
	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.look("hold-stale")
	s.mend()
	b.until("!document.querySelector('.connection').textContent")
	b.offline(true)
	b.sees(".connection", "You are offline")
	b.look("hold-offline")
	b.offline(false)

	cart := s.reserve(40, line(keyboard, newYork, 2), line(headphones, sanFrancisco, 4))
	b.visit("/reservation/" + cart.ID)
	b.sees(".summary", "Wireless Headphones")
	b.wantAnnounced(" seconds left.")
	b.look("hold-last-minute")
	b.visit("/reservation/0197c2a8-0000-7000-8000-000000000001")
	b.sees("h1", "Order not found")
	b.look("hold-missing")
	s.breakWith(unavailable)
	b.reload()
	b.sees("main", "We can’t show this right now")
	b.look("hold-error")
}

// A shopper's click learns what has happened to the hold before the page does.
func TestGalleryOfTheEndOfAHold(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	blind := func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodGet && unavailable(w, r)
	}
	h := s.reserve(600, line(mug, losAngeles, 1))
	b.claim(h)
	s.breakWith(blind)
	b.sees(".connection", "busy or restarting")
	s.killDayAgo(h)
	b.clickText("Hold it 5 more minutes")
	b.sees("h1", "Time’s up")
	b.sees(".order", "Your time ran out before you paid.")
	b.look("hold-expired")
	s.mend()

	long := s.reserve(3599, line(headphones, newYork, 1))
	b.claim(long)
	b.clickText("Hold it 5 more minutes")
	b.sees(".result", "You’ve reached the longest hold time.")
	b.until("document.activeElement.id === 'heading' && !document.querySelector('.extend')")
	b.look("hold-longest")
	s.breakWith(blind)
	s.resolve(long.ID, "release") // in another window
	b.click(".release")
	b.sees("dialog[open]", "1 item goes back on the shelf")
	b.clickText("Release items")
	b.sees("h1", "Released")
}
