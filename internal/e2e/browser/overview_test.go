package browser

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/config"
)

// The overview counts a shopper's hold in another browser while it is open.
func TestGalleryOfTheOverview(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, shopper := s.newTab(), s.newTab()
	done := make(chan struct{})
	s.breakWith(hanging(done))
	b.signIn(grant.GroupViewer, "/ops")
	b.until("document.querySelector('.tiles.waiting')")
	b.look("overview-loading")
	close(done)
	s.mend()
	b.sees("main", "No holds are live.")
	b.wantStill()
	b.look("overview-empty")

	confirmed := s.reserve(900, line(headphones, newYork, 2))
	s.resolve(confirmed.ID, "confirm")
	s.resolve(s.reserve(900, line(keyboard, newYork, 1)).ID, "release")
	b.sees(".tiles", "Live holds0")
	h := shopper.buys(newYork, "Mechanical Keyboard", "Ceramic Mug")
	b.sees(".tiles", "Live holds12 units held")
	b.sees(".tiles", "50%1 of the 2 that ended")
	b.until("document.querySelectorAll('.plot rect.held').length === 60")
	b.wantChart("Holds made", "The last hour: Held 3")
	b.wantChart("Holds ended", "The last hour: Confirmed 1, Released 1, Expired 0")
	b.sees("section[aria-labelledby=ending]", "2 units in 2 lines")
	b.look("overview")

	s.killDayAgo(h)
	shopper.sees("h1", "Time’s up")
	b.sees(".health.bad h2", "1 thing to look at")
	b.sees(".health li.bad", "Sweep is 24 hours late, 1 ended hold to close")
	s.db.Exec("INSERT INTO last_audit (at, violations, unfinished) " +
		"VALUES (now() - interval '3 hours', 2, true)")
	b.sees(".health.bad h2", "2 things to look at")
	b.sees(".health", "Audit found 2 violations 3 hours ago, and is overdue")
	b.look("overview-wrong")

	s.breakWith(unavailable)
	b.sees(".connection", "busy or restarting")
	b.reload()
	b.sees(".problem", "The shop is busy or restarting.")
	b.look("overview-error")
	s.mend()
	b.click(".problem button")
	b.sees(".tiles", "Live holds0")
}

// wantChart waits for the words by which a chart tells a screen reader its values.
func (b *tab) wantChart(title, words string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector('[role=slider][aria-label^=%q]')
		.getAttribute("aria-valuetext") === %q`, title, words))
}

// The mouse and the keys pick a minute, whose values the legend and a screen reader then have.
func TestAChartTellsTheValuesOfAMinute(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.reserve(900, line(headphones, newYork, 2))
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops")
	b.wantChart("Holds made", "The last hour: Held 1")
	s.newTab().buys(newYork, "Wireless Headphones")
	b.wantChart("Holds made", "The last hour: Held 2")
	slider := `document.querySelector('[role=slider][aria-label^="Holds made"]')`
	figure := slider + `.closest("figure").textContent`
	eval[chromedp.Void](b, slider+".focus()")
	b.press(kb.End)
	b.until(figure + `.includes("At ")`)
	b.until(slider + `.getAttribute("aria-valuenow") === "59"`)
	b.press(kb.Home)
	b.until(slider + `.getAttribute("aria-valuetext").endsWith(": Held 0")`)
	b.press(kb.Escape)
	b.wantChart("Holds made", "The last hour: Held 2")
	eval[chromedp.Void](b, slider+`.dispatchEvent(new PointerEvent("pointermove", { bubbles: true,
		clientX: `+slider+`.getBoundingClientRect().right - 1 }))`)
	b.until(figure + `.includes("At ")`)
	b.until("document.querySelector('rect.picked')")
}

// A formatter of numbers is expensive to make, and a page draws many numbers. The control is a
// number that makes one for itself.
func TestTheConsoleMakesOneFormatterOfNumbers(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab(`window.made = 0;
		Intl.NumberFormat = class extends Intl.NumberFormat {
			constructor(...a) { super(...a); made++; }
		};
		const format = Number.prototype.toLocaleString;
		Number.prototype.toLocaleString = function (...a) { made++; return format.apply(this, a); };`)
	b.visit("/ops")
	b.sees("section[aria-labelledby=low]", "Ceramic Mug")
	if made := eval[int](b, "made"); made != 1 {
		t.Errorf("%d formatters were made, want one", made)
	}
	if made := eval[int](b, "(1).toLocaleString('en') && made"); made != 2 {
		t.Errorf("after one more there are %d, want the test to count it", made)
	}
}

// While nothing changes, the overview reads, and draws nothing. What the page's scripts, styles and
// layouts took is below a tenth of the time.
func TestAnIdleOverviewCostsLittle(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.reserve(900, line(headphones, newYork, 2))
	b := s.newTab()
	b.visit("/ops")
	b.sees(".tiles", "Live holds1")
	var looks atomic.Int64
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/stats" {
			looks.Add(1)
		}
		return false
	})
	before := looks.Load()
	share := b.busyShare()
	t.Logf("the page was busy for %.1f%% of the time, and read %d times", 100*share,
		looks.Load()-before)
	if share > 0.10 {
		t.Errorf("the idle page was busy for %.1f%% of the time, want at most 10%%", 100*share)
	}
}

// After a refusal the page pauses for a minute, and it doesn't read within the time of three reads.
// Control: another page, which isn't refused, goes on reading.
func TestARefusedPageRests(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var looks, others atomic.Int64
	no := refused("/stats")
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Other") != "" {
			return r.URL.Path == "/api/stats" && others.Add(1) > 0 && unavailable(w, r)
		}
		if r.URL.Path == "/api/stats" {
			looks.Add(1)
		}
		return no(w, r)
	})
	b, other := s.newTab(), s.newTab(`{
		const send = fetch;
		window.fetch = (url, options) =>
			send(url, { ...options, headers: { ...options.headers, "X-Other": "1" } });
	}`)
	b.visit("/ops")
	b.sees(".problem", "Your account doesn’t have the permission for this.")
	b.look("overview-403")
	before, start := looks.Load(), others.Load()
	other.visit("/ops")
	waitFor(t, func() bool { return others.Load() >= start+4 })
	if got := looks.Load() - before; got != 0 {
		t.Errorf("the refused page looked %d times again, want it to rest", got)
	}
	b.click(".problem button")
	waitFor(t, func() bool { return looks.Load() > before })
}

// Where the API asks for permission and no issuer is known, the console says what is missing.
func TestAConsoleWithoutAnIssuerSaysSo(t *testing.T) {
	t.Parallel()
	s := newStack(t, func(c *config.Config) { c.Pages.Guarded = true })
	b := s.newTab()
	b.visit("/ops")
	b.sees("h1", "Sign-in isn’t set up")
	b.sees("main", "deploy with oidcClientId")
	b.sees("main", "OIDC_ISSUER")
	b.look("console-closed")
}
