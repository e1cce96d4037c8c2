package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// axe is the source of axe-core, which finds barriers for people with disabilities. The test runs
// it in the page.
var axe = sync.OnceValues(func() (string, error) {
	source, err := os.ReadFile("testdata/axe-core/axe.min.js")
	return string(source), err
})

// screenshots is the folder of the pictures of every page and state.
var screenshots = filepath.FromSlash("../../../build/screenshots")

// looks are the dresses in which a state is pictured: as wide as a telephone, a tablet and a desk.
// axe takes longest, so it checks the narrowest and the widest page in light colours, and one page
// in dark ones: the markup is the same in both.
var looks = []struct {
	scheme string
	width  int64
	axe    bool
}{{"light", 320, true}, {"light", 768, false}, {"light", 1440, true}, {"dark", 768, true}}

// look takes pictures of a state, and runs axe on it in both colour schemes.
// foreign are selectors of the parts whose markup isn't ours.
func (b *tab) look(name string, foreign ...string) {
	b.t.Helper()
	for _, l := range looks {
		b.dress(l.scheme, l.width)
		b.settle()
		where := fmt.Sprintf("%s-%s-%d", name, l.scheme, l.width)
		b.shoot(where)
		if l.axe {
			for _, violation := range b.axe(foreign...) {
				b.t.Errorf("%s: axe finds %s", where, violation)
			}
		}
		// A narrow window grows to the width of a page that is too wide, and so does innerWidth.
		if got := eval[int64](b, "document.documentElement.scrollWidth"); got > l.width {
			b.t.Errorf("%s: the page is %d pixels wide, want at most %d", where, got, l.width)
		}
		if stray := b.strayNumbers(); l.width < 640 && len(stray) > 0 {
			b.t.Errorf("%s: these numbers of cards aren't at the end of their line: %q", where, stray)
		}
	}
	b.dress("light", 1280)
	if refused := eval[[]string](b, "seen.refused"); len(refused) > 0 {
		b.t.Errorf("%s: the policy refused %q", name, refused)
	}
}

// strayNumbers returns the numbers of tables that are cards which stand in the middle of a line: no
// number follows, and the card goes on.
func (b *tab) strayNumbers() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll(".data td.number")].filter((cell) => {
		const box = cell.getBoundingClientRect();
		const later = [...cell.parentElement.children].filter((other) => {
			const { left, top, bottom } = other.getBoundingClientRect();
			return left >= box.right && top < box.bottom && bottom > box.top;
		});
		const card = cell.parentElement.getBoundingClientRect();
		return later.length > 0 ? !later.every(({ className }) => className.includes("number"))
			: card.right - box.right > 24;
	}).map((cell) => cell.dataset.name + " " + cell.textContent)`)
}

// settle waits for two frames, after which all changes are drawn.
func (b *tab) settle() {
	b.t.Helper()
	eval[bool](
		b,
		"new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => "+
			"done(true))))",
	)
}

func (b *tab) shoot(name string) {
	b.t.Helper()
	// With an open dialog only the window is visible.
	height := eval[float64](
		b,
		"document.querySelector('dialog[open]') ? innerHeight : "+
			"Math.max(document.documentElement.scrollHeight, innerHeight)",
	)
	top := eval[float64](b, "document.querySelector('dialog[open]') ? scrollY : 0")
	width := eval[float64](b, "innerWidth")
	beyond := true
	picture := command(b, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format:                page.CaptureScreenshotFormatPng,
		CaptureBeyondViewport: &beyond,
		Clip:                  &page.Viewport{Y: top, Width: width, Height: height, Scale: 1},
	})
	b.must(os.MkdirAll(screenshots, 0o755))
	b.must(os.WriteFile(filepath.Join(screenshots, name+".png"), picture.Data, 0o644))
}

// axe returns the violations of WCAG 2.2 AA and of axe's best practices. In the parts that match
// foreign, axe checks nothing but the contrast of colours, which our style sheets can mend. axe
// takes text in the colour of its background for hidden on purpose; here it is an error.
func (b *tab) axe(foreign ...string) []string {
	b.t.Helper()
	source, err := axe()
	b.must(err)
	if !eval[bool](b, "Boolean(window.axe)") {
		eval[chromedp.Void](b, source)
	}
	exclude, err := json.Marshal(append([]string{}, foreign...))
	b.must(err)
	return eval[[]string](b, `(async (exclude) => {
		const options = {
			resultTypes: ["violations", "incomplete"], rules: { "target-size": { enabled: true } },
		};
		const results = [await axe.run({ include: ["html"], exclude }, options)];
		if (exclude.length > 0) {
			results.push(await axe.run(document, { ...options, runOnly: ["color-contrast"] }));
		}
		const violations = results.flatMap((r) => r.violations);
		const isInvisible = (n) => n.any.some((c) => c.data?.messageKey === "equalRatio");
		const invisible = results.flatMap((r) => r.incomplete)
			.map((v) => ({ ...v, nodes: v.nodes.filter(isInvisible) }));
		const messages = (n) => n.any.concat(n.all, n.none).map((c) => c.message).join("; ");
		const describe = (n) => n.target.join(" ") + " " + messages(n);
		return violations.concat(invisible.filter((v) => v.nodes.length > 0)).map((v) =>
			v.id + " (" + v.impact + "): " + v.nodes.slice(0, 3).map(describe).join(" | "));
	})(`+string(exclude)+")")
}

// The control: the tests would see an injected script, a layout shift and an exception.
func TestTheWatchSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/")
	b.until("document.querySelector('.card article')")
	eval[chromedp.Void](b, `{
		const script = document.createElement("script");
		script.textContent = "window.injected = true";
		document.body.append(script);
		const push = document.createElement("div");
		push.setAttribute("style", "height: 1px");
		push.style.height = "200px";
		document.querySelector("main").prepend(push);
		setTimeout(() => { throw new Error("on purpose"); });
	}`)
	b.until(
		"seen.shift > 0.01 && seen.refused.some((r) => r.startsWith('script-src')) && " +
			"seen.refused.some((r) => r.startsWith('style-src'))",
	)
	if eval[bool](b, "Boolean(window.injected)") {
		t.Error("an inline script ran, want it refused")
	}
	waitFor(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return strings.Contains(strings.Join(b.wrong, "\n"), "on purpose")
	})
	b.mu.Lock()
	b.wrong = nil
	b.mu.Unlock()
}

// The control: a click that Chromium drops is seen, and so is one that hits something else.
func TestAClickTellsWhatItHit(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/ops")
	b.until("document.querySelector('main')")
	eval[chromedp.Void](b, `{
		window.pressed = 0;
		const button = document.createElement("button");
		button.id = "pressed";
		button.textContent = "Press";
		button.addEventListener("click", () => window.pressed++);
		document.querySelector("main").prepend(button);
	}`)
	ignore := func(is bool) {
		command(b, input.SetIgnoreInputEvents, input.SetIgnoreInputEventsParams{Ignore: is})
	}
	ignore(true)
	if hit := b.clickOnce("#pressed"); hit != "" {
		t.Errorf("a click that Chromium drops hits %q, want nothing", hit)
	}
	ignore(false)
	b.click("#pressed")
	eval[chromedp.Void](b, `{
		const cover = document.createElement("dialog");
		cover.id = "cover";
		document.body.append(cover);
		cover.showModal();
	}`)
	if hit := b.clickOnce("#pressed"); !strings.Contains(hit, "cover") {
		t.Errorf("a click on a button behind a dialog hits %q, want the dialog", hit)
	}
	if pressed := eval[int](b, "pressed"); pressed != 1 {
		t.Errorf("the button was pressed %d times, want once", pressed)
	}
}

// The control: the looks see a number in the middle of a card.
func TestALookSeesAStrayNumber(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/ops/stock")
	b.sees(".data tbody", "Ceramic Mug")
	b.dress("light", 320)
	b.settle()
	if stray := b.strayNumbers(); len(stray) > 0 {
		t.Errorf("these numbers aren't at the end of their line: %q", stray)
	}
	eval[chromedp.Void](b, `{
		const cells = document.querySelectorAll(".data tbody tr:first-child td.number");
		cells[cells.length - 1].style.gridColumn = "1 / span 2";
	}`)
	if stray := b.strayNumbers(); len(stray) == 0 {
		t.Error("a number that was moved isn't found")
	}
}

// The control: axe finds errors in a page under our policy.
func TestAxeFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/")
	b.until("document.querySelector('.card article')")
	eval[chromedp.Void](b, `{
		const main = document.querySelector("main");
		const ghost = document.createElement("p");
		Object.assign(ghost, { textContent: "Unseen words", className: "ghost" });
		main.append(document.createElement("button"), ghost);
		const sheet = new CSSStyleSheet();
		sheet.replaceSync(".ghost { color: #fff; background: #fff; }");
		document.adoptedStyleSheets = [sheet];
	}`)
	found := strings.Join(b.axe(), "\n")
	for _, want := range []string{"button-name", ".ghost"} {
		if !strings.Contains(found, want) {
			t.Errorf("axe finds %q, want %s among it", found, want)
		}
	}
}
