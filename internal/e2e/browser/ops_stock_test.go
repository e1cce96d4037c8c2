package browser

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

const stockRows = ".table[aria-label=Stock] tbody tr"

// demoRows is the number of the demo's stock rows.
var demoRows = len(demo.Products()) * len(demo.Warehouses())

// rowAddress is the address of the page of a stock row.
func rowAddress(p, w int) string {
	return fmt.Sprintf("/ops/stock/%s/%s", demo.Products()[p].ID, demo.Warehouses()[w].ID)
}

// rowFigures waits for the figures of the page of a stock row.
func (b *tab) rowFigures(available, held, total int) {
	b.t.Helper()
	b.until(fmt.Sprintf(
		"[...document.querySelectorAll('.figures-of-row dd')].map((one) => one.textContent).join() "+
			"=== '%d,%d,%d'", available, held, total))
}

// pick chooses the option of a field in the open step.
func (b *tab) pick(selector, value string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)", selector))
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const field = document.querySelector(%q);
		field.value = %q;
		field.dispatchEvent(new Event("change", { bubbles: true }));
	}`, selector, value))
}

// The list shows what a shopper holds in another browser.
func TestTheOperatorSearchesStock(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, shopper := s.newTab(), s.newTab()
	b.signIn(grant.GroupViewer, "/ops/stock")
	b.sees(".pager", fmt.Sprintf("%d stock rows", demoRows))
	b.look("ops-stock")
	b.fill(".search input", "mug")
	b.until("document.querySelectorAll('" + stockRows + "').length === 3")
	shopper.buys(losAngeles, "Ceramic Mug")
	b.sees(".table[aria-label=Stock]", "Sold out")
	b.choose("Available", "1")
	b.until("document.querySelectorAll('" + stockRows + "').length === 1")
	b.sees(stockRows, "Sold out")
	b.until("location.search === '?q=mug&availableBelow=1'")
	b.choose("Warehouse", "NY")
	b.sees(".nothing", "No stock matches.")
	b.look("ops-stock-none")
	eval[chromedp.Void](b, "history.back()")
	b.clickText("Ceramic Mug")
	b.rowFigures(0, 1, 1)
	b.sees("h1", "Ceramic Mug")
	b.until("document.activeElement === document.querySelector('h1')")
	b.sees(".table[aria-label='List of live holds']", "Live")
	b.sees(".table[aria-label='List of movements']", "First stock")
}

// Two operators correct one stock row at once: each takes or adds from what is there.
func TestTheOperatorCorrectsStock(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupStock, rowAddress(keyboard, newYork))
	other.signIn(grant.GroupStock, rowAddress(keyboard, newYork))
	b.rowFigures(3, 0, 3)
	b.clickText("Adjust")
	b.click(doStep)
	b.sees("dialog .note", "Type the number of units")
	b.fill("#units", "1")
	b.press(kb.Enter) // in the field
	b.sees("dialog .note", "Type a reason")
	b.until("document.activeElement.matches('#note[aria-invalid]')")
	b.fill("#note", "Damaged")
	b.until("!document.querySelector('dialog .note').textContent")
	b.sees("dialog", "The total goes from 3 to 2.")
	b.look("ops-stock-adjust")
	other.clickText("Adjust")
	other.pick("#sign", "+")
	other.fill("#units", "1")
	other.fill("#note", "Found")
	other.click(doStep)
	other.sees(told, "Mechanical Keyboard, New York: +1. The total is 4.")
	b.rowFigures(4, 0, 4) // under the open step
	lost := s.losing(http.MethodPost, "/api/stock/movements", math.MaxInt64)
	b.click(doStep)
	b.sees("dialog .note", "No answer came")
	s.mend()
	b.click(doStep)
	b.sees(told, "Mechanical Keyboard, New York: −1. The total is 3.")
	for _, tab := range []*tab{b, other} {
		tab.rowFigures(3, 0, 3)
		tab.sees(".table[aria-label='List of movements']", "Found")
		tab.sees(".table[aria-label='List of movements']", "Damaged")
	}
	if got := lost.Load(); got < 3 {
		t.Errorf("%d answers were lost, want 3 or more", got)
	}

	// What is held can't be taken away.
	s.reserve(600, line(keyboard, newYork, 3))
	b.rowFigures(0, 3, 3)
	b.clickText("Adjust")
	b.fill("#units", "1")
	b.fill("#note", "Lost")
	b.click(doStep)
	b.sees("dialog .caution", "3 units are held for")
	b.sees("dialog .caution", "so the total can only go down to 3.")
	b.look("ops-stock-held")
	b.click(doStep)
	b.sees(told, "The total was right: 3. Nothing was changed.")
}

// A count is as of the movement that was shown: what is sold meanwhile is taken off.
func TestACountSurvivesASale(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, shopper := s.newTab(), s.newTab()
	b.signIn(grant.GroupStock, rowAddress(mug, newYork))
	b.rowFigures(30, 0, 30)
	b.clickText("Adjust")
	b.click("dialog .check:nth-of-type(2) input")
	b.fill("#units", "28")
	b.fill("#note", "Stocktake")
	b.sees("dialog", "The total goes from 30 to 28.")
	b.look("ops-stock-count")
	shopper.addUnits(mug, 5)
	shopper.hold()
	shopper.goToBank("ada@example.com")
	shopper.clickText("The payment goes through")
	shopper.sees("h1", "Thank you, it’s yours")
	b.rowFigures(25, 0, 25)
	b.click(doStep)
	b.sees(told, "Ceramic Mug, New York: −2. The total is 23.")
	b.sees(".table[aria-label='List of movements']", "Counted")
	b.look("ops-stock-row")

	// The movement is gone, as after a restore to an earlier time.
	b.clickText("Adjust")
	b.click("dialog .check:nth-of-type(2) input")
	b.fill("#units", "28")
	b.fill("#note", "Stocktake")
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			replaceBody(t, r, `"asOfSeq":3`, `"asOfSeq":99`)
		}
		return false
	})
	b.click(doStep)
	b.sees("dialog .note", "The stock row has no such movement any more.")
	s.mend()
}

// Two operators book one delivery. The second one is told so.
func TestADeliveryCountsOnce(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	deliver := func(b *tab, reference, mugs string) {
		t.Helper()
		b.clickText("Receive a delivery")
		b.fill("#reference", reference)
		b.fill("#delivered", "mug")
		b.sees("#delivered-list", "Ceramic Mug")
		b.press(kb.Enter)
		b.fill("#line-0-units", mugs)
		b.fill("#delivered", "MK-200")
		b.sees("#delivered-list", "Mechanical Keyboard")
		b.press(kb.Enter)
		b.fill("#line-1-units", "4")
		b.pick("#line-1-warehouse", demo.Warehouses()[losAngeles].ID.String())
	}
	b.signIn(grant.GroupStock, "/ops/stock")
	other.signIn(grant.GroupAdmin, "/ops/stock?q=keyboard")
	deliver(b, "DN-1", "20")
	b.sees("dialog .effects", "4 units of Mechanical Keyboard go on the shelf in Los Angeles.")
	b.look("ops-stock-delivery")
	b.click(doStep)
	b.sees(told, "Delivery DN-1: 24 units added in 2 lines.")
	other.until(`[...document.querySelectorAll(".table[aria-label=Stock] td.number")]
		.some((cell) => cell.textContent === "19")`)
	deliver(other, "DN-1", "20")
	other.click(doStep)
	other.sees(told, "Delivery DN-1 was booked before. Nothing was added again.")
	deliver(b, "DN-1", "21")
	b.click(doStep)
	b.sees("dialog .note[role=alert]", "This reference was booked before with other numbers.")
	b.until("document.activeElement.matches('#reference[aria-invalid]')")
	b.look("ops-stock-delivery-refused")
	const added = "SELECT coalesce(sum(delta), 0) FROM stock_movements WHERE reference = 'DN-1'"
	if got := pgtest.QueryOne[int](s.db, added); got != 24 {
		t.Errorf("%d units were added, want 24", got)
	}
}

// Two operators: what one archives and closes, the other sees.
func TestTheOperatorArchivesAndCloses(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.reserve(600, line(mug, newYork, 2))
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupStock, rowAddress(mug, losAngeles))
	other.signIn(grant.GroupViewer, "/ops/stock?q=mug")
	b.clickText("Archive product")
	b.sees("dialog", "2 held units stay held")
	b.look("ops-stock-archive")
	b.click(doStep)
	b.sees(told, "Ceramic Mug is archived.")
	other.sees(stockRows, "Archived")
	b.clickText("Bring product back")
	b.click(doStep)
	b.sees(told, "Ceramic Mug is on sale again.")
	b.clickText("Close warehouse")
	b.sees("dialog", "Nothing is sold from Los Angeles any more, no product at all.")
	b.click(doStep)
	b.sees(told, "Los Angeles is closed.")
	other.sees(".data", "Closed")
	b.clickText("Open warehouse")
	b.click(doStep)
	b.sees(told, "LA is open again.")
}

// replaceBody changes a part of a request's body.
func replaceBody(t *testing.T, r *http.Request, old, changed string) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	body = bytes.ReplaceAll(body, []byte(old), []byte(changed))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}
