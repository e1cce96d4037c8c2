package browser

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/issuer/signin"
	"github.com/allo/reservations/internal/route"
)

// Every group signs in, comes back to where it came from, and stays so over a reload. Signing
// out leaves nothing behind.
func TestEachGroupSignsIn(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	var viewer *tab // stays signed in in another browser
	for _, group := range grant.Groups() {
		b := s.newTab()
		b.signIn(group, "/ops?from=here")
		b.sees("h1", "Overview")
		b.sees(".tiles", "Live holds")
		b.wantViews(group)
		b.reload()
		b.sees(".account small", group)
		if group == grant.GroupViewer {
			b.look("console-signed-in")
			viewer = b
		}
		if group != grant.GroupAdmin {
			continue
		}
		other := b.sibling()
		other.visit("/ops/nothing") // it signs in without a question
		other.sees("h1", "There is no such page")
		other.look("console-missing")
		b.click(".account button")
		b.sees("h1", "Sign in to operations")
		other.sees("h1", "Sign in to operations")
		if left := eval[string](b, "JSON.stringify([{...localStorage}, {...sessionStorage}])"); left !=
			"[{},{}]" {
			t.Errorf("signing out leaves %s in the browser", left)
		}
		b.look("console-signed-out")
		viewer.reload()
		viewer.sees(".account small", grant.GroupViewer)
		b.click(".blank button")
		b.until("document.querySelector('h1').textContent === 'Who are you?'")
		b.look("issuer")
		b.choosesAccount(grant.GroupViewer) // the issuer's own session has ended too
		b.sees(".account small", grant.GroupViewer)
	}
}

// wantViews fails the test unless the navigation has the views that a group may open, and no other.
// The import's address says that it isn't for the others.
func (b *tab) wantViews(group string) {
	b.t.Helper()
	want := []string{"Overview", "Holds", "Stock", "Events", "Webhooks"}
	mayImport := slices.Contains(grant.Scopes(group), route.ScopeWrite)
	if mayImport {
		want = slices.Insert(want, 3, "Import")
	}
	got := eval[[]string](b, `[...document.querySelectorAll("nav[aria-label=Operations] a")]
		.map((link) => link.textContent.trim())`)
	if !slices.Equal(got, want) {
		b.t.Errorf("%s may open %q, want %q", group, got, want)
	}
	if mayImport {
		return
	}
	there := b.path()
	b.visit("/ops/import")
	b.sees("h1", "Your account can’t open this page")
	b.sees("main", route.ScopeWrite)
	if group == grant.GroupSupport {
		b.look("console-not-allowed")
	}
	b.visit(there + "?from=here")
	b.sees("h1", "Overview")
}

// The token is sent to the API alone, by the console alone, and is in no store of the browser.
func TestTheTokenStaysInTheConsole(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	var withToken, wrong atomic.Int64
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			withToken.Add(1)
			if !strings.HasPrefix(r.URL.Path, "/api/") {
				wrong.Add(1)
			}
		}
		return false
	})
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops")
	b.sees(".tiles", "Live holds")
	token := s.issuer.token(grant.GroupViewer)
	head, _, _ := strings.Cut(token, ".") // it is the same for each token of the issuer
	stored := eval[string](b, `JSON.stringify([{...localStorage}, {...sessionStorage},
		document.cookie, location.href, history.state])`)
	if strings.Contains(stored, head) || strings.Contains(stored, "eyJ") {
		t.Errorf("the browser stores a token: %s", stored)
	}
	if withToken.Load() == 0 || wrong.Load() > 0 {
		t.Errorf("%d requests had a token, and %d of them weren't to the API, want some and none",
			withToken.Load(), wrong.Load())
	}
	b.visit("/")
	b.until("document.querySelector('main h1, main .cards')")
	before := withToken.Load()
	eval[chromedp.Void](b, "fetch('/api/products').then((r) => r.text())")
	if got := withToken.Load(); got != before {
		t.Errorf("the shop sent the token %d times", got-before)
	}
}

// Tokens of three seconds: the page goes on without a question, and no call is refused. When the
// issuer is down, the page says so once the token has ended.
func TestTheSignInIsRenewedSilently(t *testing.T) {
	t.Parallel()
	s := newGuardedStackOf(t, signin.Options{TokenLasts: 3 * time.Second})
	var tokens seen
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		tokens.add(r.Header.Get("Authorization"))
		return false
	})
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops")
	eval[chromedp.Void](b, "window.stayed = true")
	waitFor(t, func() bool { return tokens.count() >= 4 })
	b.sees(".tiles", "Live holds")
	if !eval[bool](b, "window.stayed === true && !document.querySelector('.notice')") {
		t.Error("the page was loaded again, or complains")
	}
	s.issuer.down()
	b.sees(".notice", "Your sign-in has ended.")
	b.sees(".tiles", "Live holds") // what was read stays
	b.look("console-ended")
	b.click(".notice button")
	b.sees("h1", "You aren’t signed in")
	b.sees("main", "The sign-in service can’t be reached.")
	b.look("console-issuer-down")
	s.issuer.up()
	b.click(".blank button")
	b.sees(".account small", grant.GroupViewer) // the issuer still knows the browser
	s.issuer.down()
	b.click(".account button")
	b.sees(".blank", "You are signed out here. The sign-in service can’t be reached")
}

// An issuer such as Auth0 gives what the console asks for, and nothing else. The console asks for
// the scopes and the audience of the settings, and has them still after a renewal.
func TestTheConsoleAsksItsIssuerForWhatTheSettingsName(t *testing.T) {
	t.Parallel()
	options := signin.Options{OnlyAsked: true, TokenLasts: 3 * time.Second}
	scopes := []string{"openid", "inventory:read", "inventory:write", "events:write"}
	s := newGuardedStackOf(t, options, func(c *config.Config) {
		c.Pages.OIDCScopes, c.Pages.OIDCAudience = scopes, signin.Audience
	})
	var tokens seen
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		tokens.add(r.Header.Get("Authorization"))
		return false
	})
	b := s.newTab()
	b.signIn(grant.GroupStock, "/ops")
	b.sees(".tiles", "Live holds")
	waitFor(t, func() bool { return tokens.count() >= 3 })
	b.sees(".tiles", "Live holds")
	b.visit("/ops/events")
	b.sees("main", "needs the permission events:read")
}

// These are the controls of the test above: the same issuer, to which the settings name less.
func TestAConsoleThatAsksForTooLittleMayNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pages config.Pages
		want  string
	}{
		"no scopes": {
			config.Pages{OIDCAudience: signin.Audience}, "needs the permission inventory:read",
		},
		"no audience": {
			config.Pages{OIDCScopes: []string{"openid", "inventory:read"}},
			"Your sign-in has ended. Sign in again.", // the API refuses the token
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGuardedStackOf(t, signin.Options{OnlyAsked: true}, func(c *config.Config) {
				c.Pages.OIDCScopes, c.Pages.OIDCAudience = test.pages.OIDCScopes, test.pages.OIDCAudience
			})
			b := s.newTab()
			b.signIn(grant.GroupStock, "/ops")
			b.sees("main", test.want)
		})
	}
}

// An answer of the issuer to another question isn't taken.
func TestAnAnswerToAnotherQuestionIsRefused(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b := s.newTab()
	b.visit("/ops/signed-in?code=stolen&state=guessed")
	b.sees("h1", "Sign in to operations")
	b.until("location.pathname === '/ops'")
	eval[chromedp.Void](b, `sessionStorage.setItem("ops.sign-in", JSON.stringify(
		{ state: "asked", nonce: "n", verifier: "v".repeat(43), back: "https://evil.example/" }))`)
	b.visit("/ops/signed-in?code=stolen&state=guessed&iss=" + s.issuer.url)
	b.sees("h1", "You aren’t signed in")
	b.until("location.pathname === '/ops'")
}

// With auth off everybody may use the console, and it says so.
func TestTheConsoleSaysThatSignInIsOff(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.pastHour()
	s.reserve(900, line(headphones, newYork, 2))
	s.reserve(300, line(keyboard, newYork, 1), line(mug, losAngeles, 1))
	b := s.newTab()
	b.visit("/ops")
	b.sees(".notice", "Sign-in is off: anybody who reaches this page may use it.")
	b.sees(".tiles", "Live holds2")
	b.sees(".health", "All is well")
	b.wantStill()
	sizes := eval[[]int](b, `["encodedBodySize", "transferSize"].map((size) =>
		performance.getEntries().reduce((sum, entry) => sum + (entry[size] ?? 0), 0))`)
	t.Logf("the console's first view takes %d bytes, and %d with its headers", sizes[0], sizes[1])
	if sizes[0] > maxTransfer || sizes[0] < 20_000 {
		t.Errorf("the first view takes %d bytes, want at most %d", sizes[0], maxTransfer)
	}
	b.look("console-overview")
}

// The console's links open its views without loading the page again, and the browser's buttons work
// as for any pages.
func TestTheConsoleLeadsFromViewToView(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.reserve(900, line(headphones, newYork, 2))
	b := s.newTab()
	b.visit("/ops")
	b.sees(".tiles", "Live holds1")
	eval[chromedp.Void](b, "window.stayed = true")
	b.size("light", 320, 800)
	b.until("document.documentElement.scrollHeight > 1600")
	eval[chromedp.Void](b, "scrollTo(0, 700)")

	holds := `document.querySelector('nav a[href="/ops/holds"]')`
	eval[chromedp.Void](b, holds+".focus({ preventScroll: true })")
	b.press("\r")
	b.sees("h1", "Holds")
	b.until("location.pathname === '/ops/holds' && document.title === 'Holds · Allo Operations'")
	b.until("document.activeElement.matches('h1') && scrollY === 0")
	b.until(holds + ".getAttribute('aria-current') === 'page'")

	eval[chromedp.Void](b, "history.back()")
	b.sees("h1", "Overview")
	b.until("Math.abs(scrollY - 700) < 3") // where it was left
	if !eval[bool](b, "window.stayed === true") {
		t.Error("the page was loaded again, want the views to change within it")
	}

	// A click with a modifier is the browser's: it opens another tab.
	if eval[bool](b, `(() => {
		let taken;
		addEventListener("click", (event) => {
			taken = event.defaultPrevented;
			event.preventDefault();
		}, { once: true });
		`+holds+`.dispatchEvent(new MouseEvent("click",
			{ bubbles: true, cancelable: true, ctrlKey: true }));
		return taken;
	})()`) {
		t.Error("the console takes a click with Ctrl, want the browser to open another tab")
	}

	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/assets/ops-stock") && aborted(w)
	})
	b.size("light", 1280, 800)
	b.click(`nav a[href="/ops/stock"]`)
	b.sees("h1", "This page couldn’t be loaded")
	b.look("console-unloaded")
	s.mend()
	b.click(".problem button")
	b.sees("h1", "Stock")
	b.visit("/ops/stock/")
	b.until("location.pathname === '/ops/stock'")
}

// aborted answers with an error that nothing keeps.
func aborted(w http.ResponseWriter) bool {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}
