package browser

import (
	"net/http"
	"strings"
	"testing"
)

// hangingAsset returns a fault that blocks a script until done is closed.
func hangingAsset(name string, done <-chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/assets/"+name+".") {
			select {
			case <-done:
			case <-r.Context().Done():
			}
		}
		return false
	}
}

// stillLate stops the time after which a view is late, so that only wantLate ends it.
const stillLate = `{
	const sheet = new CSSStyleSheet();
	sheet.replaceSync(".loading .late { animation-play-state: paused !important; }");
	document.adoptedStyleSheets = [sheet];
}`

// wantLate looks at the console without a view. It says that it loads. Once the view is late, it
// offers to load the page again. The tab has stillLate.
func (b *tab) wantLate() {
	b.t.Helper()
	b.until("document.querySelector('.loading[role=status]').checkVisibility()")
	const late = "document.querySelector('.loading .late')"
	const isSeen = "getComputedStyle(" + late + ").visibility === 'visible'"
	b.until(late + ".getAnimations().length === 1")
	if eval[bool](b, isSeen) {
		b.t.Error("a view that has just been asked for is said to be late")
	}
	// Another element may take the place of the page's own meanwhile.
	b.until(late + ".getAnimations().map((one) => one.finish()) && " + isSeen)
}

// The console says that it loads, until the script of its view has come. Nothing moves then.
func TestTheConsoleSaysThatItLoads(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab(stillLate)
	done := make(chan struct{})
	s.breakWith(hangingAsset("ops-overview", done))
	b.visit("/ops")
	b.wantLate()
	b.look("console-late-view")
	close(done)
	b.sees("h1", "Overview")
	b.wantStill()
}

// The script of the page fails, so nothing can draw an error. The page's own text leads on.
func TestTheConsoleIsLoadedAgainAfterItsScriptFailed(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/assets/console.") && aborted(w)
	})
	b := s.newTab(stillLate)
	b.visit("/ops/stock")
	b.wantLate()
	b.look("console-late-script")
	s.mend()
	b.click(".loading .late a")
	b.sees("h1", "Stock")
}

// Until the settings have come, the console doesn't know whether anybody has to sign in. It
// says that it loads.
func TestTheConsoleLoadsUntilItsSettingsAreKnown(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	done := make(chan struct{})
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/settings.json" {
			select {
			case <-done:
			case <-r.Context().Done():
			}
		}
		return false
	})
	b := s.newTab(stillLate)
	b.visit("/ops")
	b.until("document.querySelector('.account')") // the script has drawn
	b.sees(".loading", "Loading…")
	close(done)
	b.sees("h1", "Overview")
}
