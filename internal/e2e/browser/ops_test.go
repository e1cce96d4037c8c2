package browser

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
)

const rows = ".holds tbody tr"

func TestTheOperatorReadsOnAndFilters(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for i := range 52 { // and one more, while a page shows 50
		s.reserve(600+i, line(mug, sanFrancisco+i%2, 1)) // in San Francisco and New York in turns
	}
	s.reserve(120, line(keyboard, losAngeles, 2), line(headphones, newYork, 1))
	b := s.newTab()
	b.visit("/ops")
	b.sees("main", "The first 50 holds, the next to end first")
	b.until("document.querySelectorAll('" + rows + "').length === 50")
	b.sees(rows, "2 × Mechanical Keyboard, Los Angeles")
	b.click(".more button")
	b.until(
		"document.querySelectorAll('" + rows + "').length === 53 && " +
			"!document.querySelector('.more button')",
	)

	b.choose("Product", demo.Products()[headphones].ID.String())
	b.sees("main", "1 hold, the next to end first")
	b.choose("Product", demo.Products()[mug].ID.String())
	b.choose("Warehouse", demo.Warehouses()[newYork].ID.String())
	b.sees("main", "26 holds, the next to end first")
	b.choose("Status", "CONFIRMED")
	b.sees("main", "No holds match.")
	b.sees(".tiles", "Live holds53")
}

func TestTheOperatorSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/ops")
	b.sees(".tiles", "none has run yet")
	h := s.reserve(600, line(mug, losAngeles, 1))
	b.sees(".tiles", "Live holds11 unit")
	s.killDayAgo(h)
	b.sees(".tiles .bad", "1 dead hold to sweep")
	s.db.Exec("INSERT INTO last_audit (at, violations, unfinished) VALUES (now(), 2, true)")
	b.sees(".tiles", "Audit2 violations")
	b.sees(".tiles", "unfinished")
	b.until("document.querySelectorAll('.tiles .bad').length === 2")
	b.look("ops-wrong")
}

// Each read fetches the first page again. The pages behind it stay as they were.
func TestTheOperatorsOlderPagesAreFetchedOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for i := range 51 {
		s.reserve(600+i, line(mug, sanFrancisco+i%2, 1))
	}
	var first, older atomic.Int64
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/reservations" && r.Method == http.MethodGet {
			if r.URL.Query().Has("cursor") {
				older.Add(1)
			} else {
				first.Add(1)
			}
		}
		return false
	})
	b := s.newTab()
	b.visit("/ops")
	b.click(".more button")
	b.until("document.querySelectorAll('" + rows + "').length === 51")
	looks := first.Load()
	waitFor(t, func() bool { return first.Load() >= looks+3 })
	if got := older.Load(); got != 1 {
		t.Errorf("the second page was read %d times, want once", got)
	}
	// A new hold that ends first pushes another off the first page. All must still be listed.
	s.reserve(60, line(keyboard, newYork, 1))
	b.until("document.querySelectorAll('" + rows + "').length === 52")
	b.sees(rows, "1 × Mechanical Keyboard, New York")
}

// A page of the API ends after so many resolved holds searched, even if none matched.
func TestTheOperatorLooksFurther(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.reserve(600, line(mug, sanFrancisco, 1))
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/reservations" {
			return false
		}
		if r.URL.Query().Has("cursor") {
			r.URL.RawQuery = "limit=50" // where the real list begins
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Link", `</api/reservations?limit=50&cursor=further>; rel="next"`)
		_, _ = io.WriteString(w, "[]")
		return true
	})
	b := s.newTab()
	b.visit("/ops")
	b.sees("h2", "Live holds")
	b.choose("Status", "")
	b.sees(".nothing", "None among the newest 10,000 searched.")
	b.look("ops-further")
	b.sees(".more button", "Look further")
	b.click(".more button")
	b.until(
		"document.querySelectorAll('" + rows + "').length === 1 && " +
			"!document.querySelector('.more button')",
	)
}

// A catalog of more than a thousand products isn't read whole at first. The page says so.
func TestTheOperatorReachesEveryProduct(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.db.Exec(`
INSERT INTO products (id, name, sku)
SELECT gen_random_uuid(), 'A thing ' || i, 'T-' || i FROM generate_series(1, 1000) i`)
	s.reserve(600, line(keyboard, newYork, 1))
	b := s.newTab()
	b.visit("/ops")
	b.sees("main", "The first 1,000 products, by name.")
	b.sees(rows, "1 × product "+demo.Products()[keyboard].ID.String())
	b.look("ops-more-products")
	b.click("section[aria-labelledby=stock] .more button")
	b.sees("section[aria-labelledby=stock]", "Mechanical Keyboard")
	b.sees(rows, "1 × Mechanical Keyboard, New York")
	b.until("!document.querySelector('section[aria-labelledby=stock] .more')")
}

// A formatter of numbers is expensive to make, and the page draws thousands of numbers. The control
// is a number that makes one for itself.
func TestThePagesMakeOneFormatterOfNumbers(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab(`window.made = 0;
		Intl.NumberFormat = class extends Intl.NumberFormat {
			constructor(...a) { super(...a); made++; }
		};
		const format = Number.prototype.toLocaleString;
		Number.prototype.toLocaleString = function (...a) { made++; return format.apply(this, a); };`)
	b.visit("/ops")
	b.sees("section[aria-labelledby=stock]", "Wireless Headphones")
	if made := eval[int](b, "made"); made != 1 {
		t.Errorf("%d formatters were made, want one", made)
	}
	if made := eval[int](b, "(1).toLocaleString('en') && made"); made != 2 {
		t.Errorf("after one more there are %d, want the test to count it", made)
	}
}

// A shop may show shoppers no more than so many units. The operator's page reads the same catalog,
// and says so.
func TestThePagesSayWhatTheShopShows(t *testing.T) {
	t.Parallel()
	s := newStack(t, func(c *config.Config) { c.StockShown = 5 })
	b := s.newTab()
	b.visit("/")
	row := func(warehouse, selector, text string) {
		t.Helper()
		b.until(fmt.Sprintf(
			"document.querySelector(%q).closest('li').querySelector(%q).textContent.trim() === %q",
			reserveButton("Ceramic Mug", warehouse), selector, text))
	}
	row("New York", ".figures", "5+ available")
	row("New York", ".badge", "")
	row("Los Angeles", ".figures", "1 available")
	row("Los Angeles", ".badge", "Only 1 left")
	b.look("shop-limited")
	b.click(reserveButton("Ceramic Mug", "New York"))
	b.sees("dialog", "New York: 5+ available.")
	b.fill("#quantity", "31")
	b.click(submit)
	b.sees("#quantity-note", "Not reserved: fewer than 31 left in New York.")
	b.fill("#quantity", "7")
	b.click(submit)
	b.sees("h1", "Held for you")
	s.reserve(600, line(mug, losAngeles, 1))
	b.visit("/")
	row("Los Angeles", ".badge", "None left")

	b.visit("/ops")
	b.sees("section[aria-labelledby=stock]", "up to a limit (STOCK_SHOWN)")
	b.until("[...document.querySelectorAll('section[aria-labelledby=stock] tbody tr')]" +
		".some((row) => /^Ceramic MugNew York––5\\+\\s*–$/.test(row.textContent.trim()))")
	b.sees(".tiles", "Live holds2")
	b.look("ops-limited")
}
