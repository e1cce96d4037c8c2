package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local/demo"
)

const (
	holdItems = ".table[aria-label='Items of the hold']"
	// whatCameBack is the sum of what came back, in words.
	whatCameBack = "[aria-labelledby=returns] p"
	returnLines  = ".table[aria-label='Goods that came back'] tbody"
	// cameBack is the last column of the items, the largest number first.
	cameBack = "[...document.querySelectorAll(`" + holdItems + " td:last-child`)]" +
		".map((cell) => cell.textContent).sort().reverse().join(' ')"
	// unitFields are the numbers of the open step, the largest first.
	unitFields = "[...document.querySelectorAll('dialog input.number')]" +
		".map(({ value }) => value).sort().reverse().join(' ')"
)

// putUnits puts the number of a product's units into the open step that takes goods back.
func (b *tab) putUnits(product, units string) {
	b.t.Helper()
	field := fmt.Sprintf("[...document.querySelectorAll('dialog label')]"+
		".find(({ textContent }) => textContent.includes(%q)).control", product)
	b.until(field)
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const field = %s;
		field.value = %q;
		field.dispatchEvent(new Event("input", { bubbles: true }));
	}`, field, units))
}

// Two operators take goods back. Each one's page tells what came back, also the units that aren't
// for sale again, which have no movement. It tells what the other one did when it is shown again:
// left alone, it reads a confirmed hold only each half minute.
func TestTwoOperatorsTakeGoodsBack(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	h := s.reserve(600, line(mug, newYork, 3), line(keyboard, newYork, 1))
	s.resolve(h.ID, "confirm")
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupStock, "/ops/holds/"+h.ID)
	other.signIn(grant.GroupAdmin, "/ops/holds/"+h.ID)
	b.sees(whatCameBack, "Nothing has come back.")
	items := eval[string](b, "document.querySelector(`"+holdItems+"`).textContent")
	if strings.Contains(items, "back") {
		t.Error("the lines of which nothing came back say how many units did")
	}

	other.takesOneMug("broken", false)
	other.sees(told, "1 unit of Ceramic Mug: taken back, and not on the shelf.")
	b.wake()
	b.until(cameBack + " === '1 0'")
	b.sees(whatCameBack, "1 unit came back. Not for sale again: 1.")
	b.clickText("Take goods back")
	b.sees("dialog", "(3 sold, 1 came back)")
	b.until(unitFields + " === '2 1'") // the rest
	b.fill("#return", "rest")
	b.putUnits("Ceramic Mug", "3")
	b.click(doStep)
	b.sees("dialog", "3 were sold and 1 has come back already.")
	b.putUnits("Ceramic Mug", "2")
	other.takesOneMug("unopened", true) // faster
	other.sees(told, "1 unit of Ceramic Mug: back on the shelf.")
	b.click(doStep)
	b.sees("dialog", "3 were sold and 2 have come back already.")
	b.look("ops-hold-returns")
	b.putUnits("Ceramic Mug", "1")
	b.click(doStep)
	b.sees(told, ": back on the shelf.")

	other.wake()
	for _, one := range []*tab{b, other} {
		one.until(cameBack + " === '3 1'")
		one.sees(whatCameBack, "4 units came back. Back on a shelf: 3. Not for sale again: 1.")
		one.sees(returnLines, "unopened")
		one.until("!document.querySelector('.actions')")
	}
	b.look("ops-hold-came-back")
}

// takesOneMug takes one mug back by the page of the hold, and puts it on the shelf or not.
func (b *tab) takesOneMug(reference string, restock bool) {
	b.t.Helper()
	b.clickText("Take goods back")
	b.putUnits("Ceramic Mug", "1")
	b.putUnits("Mechanical Keyboard", "0")
	if !restock {
		b.click("dialog .check input")
	}
	b.fill("#return", reference)
	b.click(doStep)
}

// The API lists the newest 200 lines, so with 200 lines the page shows no sums. The control has a
// line less. The newest line is the first, and names the warehouse that sold its units.
func TestAFullListOfReturnsHasNoSums(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	mugs := demo.Products()[mug].ID.String()
	from := demo.Warehouses()[sanFrancisco].ID.String()
	s.call("/api/stock/movements", fmt.Sprintf(`{"source":"test","reference":"delivery",
		"lines":[{"productId":%q,"warehouseId":%q,"delta":300}]}`, mugs, from), http.StatusOK)
	h := s.reserve(600, line(mug, sanFrancisco, 250), line(mug, newYork, 1))
	s.resolve(h.ID, "confirm")
	returnLine := func(n int) {
		t.Helper()
		s.db.Exec(`INSERT INTO returns
    (reservation_id, reference, line, product_id, warehouse_id, quantity, at)
VALUES ($1, 'r' || $4::int, 1, $2, $3, 1, now() - (300 - $4::int) * interval '1 s')`,
			h.ID, mugs, from, n)
	}
	for n := range 199 {
		returnLine(n + 1)
	}
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops/holds/"+h.ID)
	b.sees(whatCameBack, "199 units came back.")
	b.until(cameBack + " === '199 0'")
	returnLine(200)
	b.wake()
	b.sees(whatCameBack, "The newest 200 lines. There may be older ones.")
	b.until(cameBack + " === '250 1'") // the units that were sold
	b.sees(returnLines+" tr", "r200")
	b.sees(returnLines+" tr", "Ceramic Mug, sold from San Francisco")
}
