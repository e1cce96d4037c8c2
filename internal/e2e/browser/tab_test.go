package browser

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	// patience bounds every wait, on a busy machine too. Speed is measured elsewhere.
	patience = 40 * time.Second
	// lookEvery is the pause between two checks of a condition.
	lookEvery = 25 * time.Millisecond
	// mostClicks bounds the clicks that Chromium may drop, one after the other.
	mostClicks = 5
)

// watch runs before a page's own scripts. It collects layout shifts, refusals of the policy and
// announcements, and tells on what the mouse was pressed (clickOnce).
const watch = `
window.seen = { shift: 0, moved: [], refused: [], announced: [] };
addEventListener("mousedown", ({ target }) => {
  const aim = document.querySelector(seen.aim ?? "html");
  const isHit = !aim || aim.contains(target) || target.closest("label")?.control === aim;
  seen.hit = isHit ? "` + aimedAt + `" : target.outerHTML.slice(0, 120);
}, true);
new PerformanceObserver((list) => list.getEntries().forEach((e) => {
  if (e.hadRecentInput) {
    return;
  }
  seen.shift += e.value;
  const text = (r) => r.x + "," + r.y + " " + r.width + "x" + r.height;
  e.sources.forEach(({ node, previousRect, currentRect }) => seen.moved.push(
    (node?.outerHTML ?? node?.data ?? "").slice(0, 80) + " " +
      text(previousRect) + " to " + text(currentRect)));
}))
  .observe({ type: "layout-shift", buffered: true });
addEventListener("securitypolicyviolation", (e) =>
  seen.refused.push(e.violatedDirective + " " + e.blockedURI.slice(0, 60)));
addEventListener("DOMContentLoaded", () => {
  const region = document.getElementById("announcer");
  if (!region) {
    return; // a page without news
  }
  new MutationObserver(() => region.textContent && seen.announced.push(region.textContent))
    .observe(region, { childList: true, characterData: true, subtree: true });
});`

// tab is a page of a browser.
type tab struct {
	t     *testing.T
	s     *stack
	ctx   context.Context
	mu    sync.Mutex
	wrong []string // exceptions and refusals that the page caused
}

// newTab opens a tab with its own session, which shares no storage with others. The scripts run
// before the page's own.
func (s *stack) newTab(scripts ...string) *tab {
	s.t.Helper()
	return s.open(s.browser, scripts, chromedp.WithNewBrowserContext())
}

// sibling opens another tab of the same session.
func (b *tab) sibling(scripts ...string) *tab {
	b.t.Helper()
	return b.s.open(b.ctx, scripts)
}

func (s *stack) open(
	parent context.Context,
	scripts []string,
	options ...chromedp.ContextOption,
) *tab {
	s.t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	b := &tab{t: s.t, s: s, ctx: ctx}
	s.t.Cleanup(func() {
		b.checkWhatWentWrong()
		cancel()
	})
	b.must(chromedp.Listen(ctx, b.notice))
	command(b, log.Enable, cdp.Empty{})
	command(b, runtime.Enable, cdp.Empty{})
	for _, script := range append([]string{watch}, scripts...) {
		command(
			b,
			page.AddScriptToEvaluateOnNewDocument,
			page.AddScriptToEvaluateOnNewDocumentParams{Source: script},
		)
	}
	command(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{
		TimezoneID: "America/New_York", // the nearest warehouse is the one there
	})
	b.dress("light", 1280)
	return b
}

// command sends a command to the browser. The test fails if the browser doesn't answer.
func command[P, R any](b *tab, c cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, c, params)
	b.must(err)
	return result
}

func (b *tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// notice collects exceptions and errors of the browser's log. It skips network errors, as tests
// cause those.
func (b *tab) notice(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += ": " + e.ExceptionDetails.Exception.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			text = e.Entry.Text
		}
	}
	if text != "" {
		b.mu.Lock()
		b.wrong = append(b.wrong, text)
		b.mu.Unlock()
	}
}

func (b *tab) checkWhatWentWrong() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range b.wrong {
		b.t.Errorf("the page caused: %s", text)
	}
}

// dress sets the colour scheme and the width.
func (b *tab) dress(scheme string, width int64) {
	b.t.Helper()
	b.size(scheme, width, 800)
}

func (b *tab) size(scheme string, width, height int64) {
	b.t.Helper()
	command(
		b,
		emulation.SetEmulatedMedia,
		emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{
				Name:  "prefers-color-scheme",
				Value: scheme,
			},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		}},
	)
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 768,
	})
}

// offline cuts the tab off, or connects it again.
func (b *tab) offline(is bool) {
	b.t.Helper()
	command(b, network.Enable, network.EnableParams{})
	command(b, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{
			{Offline: is, DownloadThroughput: -1, UploadThroughput: -1},
		},
	})
	command(
		b,
		network.OverrideNetworkState,
		network.OverrideNetworkStateParams{
			Offline:            is,
			DownloadThroughput: -1,
			UploadThroughput:   -1,
		},
	)
}

func (b *tab) visit(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	b.must(chromedp.Do(ctx, chromedp.Navigate(b.s.url+path)))
}

func (b *tab) reload() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	b.must(chromedp.Do(ctx, chromedp.Reload()))
}

// eval evaluates an expression in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// until waits for an expression to be true. It retries when a navigation interrupts the evaluation.
func (b *tab) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	wrapped := "(() => { try { return Boolean(" + expression + "); } catch (e) { return false; } })()"
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](wrapped))
		if err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf(
				"after %v it is still not so that %s; %v; the page shows: %s",
				patience,
				expression,
				err,
				b.shown(),
			)
		case <-ticker.C:
		}
	}
}

// shown returns the page's text, for failure messages.
func (b *tab) shown() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(
		ctx,
		chromedp.Evaluate[string](
			`location.pathname + ": " + document.body.innerText.replace(/\s+/g, " ").slice(0, 900)`,
		),
	)
	if err != nil {
		return err.Error()
	}
	return text
}

// sees waits until an element contains a text.
func (b *tab) sees(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q).textContent.includes(%q)", selector, text))
}

// click waits for an element and clicks its middle with the mouse. When no press reaches the page,
// Chromium has dropped the click: a person would click again, and so does click.
func (b *tab) click(selector string) {
	b.t.Helper()
	for range mostClicks {
		switch hit := b.clickOnce(selector); hit {
		case aimedAt:
			return
		case "":
			b.t.Logf("%s: Chromium dropped a click on %s", b.path(), selector)
		default:
			b.t.Fatalf("%s: the click on %s hit %s", b.path(), selector, hit)
		}
	}
	b.t.Fatalf("%s: Chromium dropped each of %d clicks on %s", b.path(), mostClicks, selector)
}

// aimedAt says that a click hit the element that it aimed at.
const aimedAt = "the element"

// clickOnce says what the click hit: aimedAt, nothing (""), or the beginning of another element.
// A click that has opened another page, or has removed the element, has hit it.
func (b *tab) clickOnce(selector string) string {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%[1]q)?.checkVisibility() && "+
		"(seen.hit = '', seen.aim = %[1]q)", selector))
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("click %s: %v", selector, err)
	}
	hit, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		fmt.Sprintf("seen.aim ? seen.hit : %q", aimedAt)))
	if err != nil && ctx.Err() == nil {
		return aimedAt // the page is gone
	}
	b.must(err)
	return hit
}

// doubleClick clicks twice, faster than any answer.
func (b *tab) doubleClick(selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.DoubleClick(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("double click %s: %v", selector, err)
	}
}

// fill replaces a field's text as a person does: with a click and by typing.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.click(selector)
	b.press(text)
}

// press types keys into the focused element.
func (b *tab) press(keys string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	b.must(chromedp.Do(ctx, chromedp.KeyEvent(keys)))
}

// choose selects an option of the select with a label.
func (b *tab) choose(label, value string) {
	b.t.Helper()
	eval[chromedp.Void](b, fmt.Sprintf(`{
		const select = [...document.querySelectorAll("label")]
			.find((label) => label.firstChild.textContent.trim() === %q).querySelector("select");
		select.value = %q;
		select.dispatchEvent(new Event("change", { bubbles: true }));
	}`, label, value))
}

// path returns the path of the tab's page.
func (b *tab) path() string {
	b.t.Helper()
	return eval[string](b, "location.pathname")
}

// wantAnnounced waits for an announcement.
func (b *tab) wantAnnounced(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("seen.announced.some((text) => text.includes(%q))", text))
}

// wantStill fails the test if anything has moved by itself since the page was opened.
func (b *tab) wantStill() {
	b.t.Helper()
	if shift := eval[float64](b, "seen.shift"); shift > 0.001 {
		b.t.Errorf(
			"%s: the layout shifted by %.4f, want nothing to move by itself: %q",
			b.path(),
			shift,
			eval[[]string](b, "seen.moved"),
		)
	}
}

// clickText clicks the last visible button or link with a text, by mouse. A dialog comes last.
func (b *tab) clickText(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(() => {
		document.querySelectorAll("[data-wanted]")
			.forEach((node) => node.removeAttribute("data-wanted"));
		const found = [...document.querySelectorAll("button, a")].filter((node) =>
			node.textContent.replace(/\s+/g, " ").trim() === %q && node.checkVisibility()).at(-1);
		found?.setAttribute("data-wanted", "");
		return found;
	})()`, text))
	b.click("[data-wanted]")
}
