package browser

import (
	"net/http"
	"strings"
	"testing"
)

// Goods come back and aren't put on a shelf, so that no movement of the stock tells of them. The
// page of the hold does, and beside it of those that are for sale again.
func TestTheOperatorSeesWhatCameBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	h := s.reserve(600, line(mug, newYork, 3), line(keyboard, newYork, 1))
	s.resolve(h.ID, "confirm")
	takeBack := func(reference, restock string) {
		t.Helper()
		body := `{"reference":"` + reference + `","lines":[` +
			strings.TrimSuffix(line(mug, newYork, 1), "}") + `,"restock":` + restock + `}]}`
		s.call("/api/reservations/"+h.ID+"/returns", body, http.StatusOK)
	}
	const (
		items = ".table[aria-label='Items of the hold']"
		text  = "[aria-labelledby=returns] p"
		// The number of the mugs, and then that of the keyboards, of which none comes back.
		cameBack = "[...document.querySelectorAll(`" + items + " td:last-child`)]" +
			".map((cell) => cell.textContent).sort().reverse().join(' ')"
	)
	b := s.newTab()
	b.visit("/ops/holds/" + h.ID)
	b.sees(text, "Nothing has come back.")
	if strings.Contains(eval[string](b, "document.querySelector(`"+items+"`).textContent"), "back") {
		t.Error("the lines of which nothing came back say how many units did")
	}

	takeBack("broken", "false")
	b.reload()
	b.until(cameBack + " === '1 0'")
	b.sees(text, "1 unit came back. Not for sale again: 1.")
	takeBack("unopened", "true")
	b.reload()
	b.until(cameBack + " === '2 0'")
	b.sees(text, "2 units came back. Back on a shelf: 1. Not for sale again: 1.")
	b.sees(".table[aria-label='Goods that came back']", "unopened")
	b.look("ops-hold-came-back")
	b.clickText("Take goods back")
	b.sees("dialog", "(3 sold, 2 came back)")
}
