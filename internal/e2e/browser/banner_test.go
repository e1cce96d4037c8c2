package browser

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/local/demo"
)

// overlaps is a script's function. It returns the area that two visible elements share.
const overlaps = `window.overlap = (one, other) => {
	const [a, b] = [one, other].map((node) => node.getBoundingClientRect());
	const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
	const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
	return wide > 0 && high > 0 ? wide * high : 0;
};`

// eachTelephone runs a case on small windows, in both colour schemes. The height is that of the
// smallest telephone on the market.
func eachTelephone(t *testing.T, s *stack, try func(b *tab), scripts ...string) {
	t.Helper()
	for _, width := range []int64{320, 390} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprintf("%d %s", width, scheme), func(t *testing.T) {
				b := s.on(t).newTab(append(scripts, overlaps)...)
				b.size(scheme, width, 568)
				try(b)
			})
		}
	}
}

// covered is the part of an element, in square pixels, that the banner covers, or -1 when any of
// it is outside of the window or of the dialog's box.
func (b *tab) covered(selector string) float64 {
	b.t.Helper()
	return eval[float64](b, fmt.Sprintf(`(() => {
		const node = document.querySelector(%q);
		const box = node.getBoundingClientRect();
		const room = node.closest("dialog > article")?.getBoundingClientRect();
		const foot = Math.min(innerHeight, room?.bottom ?? Infinity) + 0.5;
		if (box.height === 0 || box.top < 0 || box.bottom > foot) { return -1; }
		return overlap(node, document.querySelector(".connection span"));
	})()`, selector))
}

// wantSeen waits until a text is where a person reads it, with the banner shown.
func (b *tab) wantSeen(selector, text string) {
	b.t.Helper()
	b.sees(selector, text)
	b.until("document.querySelector('.connection span')")
	b.settle()
	if got := b.covered(selector); got != 0 {
		b.shoot("covered")
		b.t.Errorf("the banner covers %g pixels of %s, want none (-1: outside of the window)",
			got, selector)
	}
}

// offlineNote is the selector of the answer to a checkout.
const offlineNote = ".foot [role=alert]"

// offlineError reserves without a connection.
func (b *tab) offlineError() {
	b.t.Helper()
	b.visit("/")
	b.add("Mechanical Keyboard", sanFrancisco)
	b.click(openCart)
	b.lines("1 Mechanical Keyboard From San Francisco")
	b.offline(true)
	b.sees("dialog .connection", "You are offline")
	b.settle()
	b.click(checkOut)
	b.sees(offlineNote, "You are offline. Your cart is safe")
}

func TestTheBannerCoversNothingOfTheDialog(t *testing.T) {
	t.Parallel()
	eachTelephone(t, newStack(t), func(b *tab) {
		b.offlineError()
		b.wantSeen(offlineNote, "You are offline.")
		if got := eval[float64](
			b,
			"overlap(document.querySelector('dialog > article'), "+
				"document.querySelector('.connection span'))",
		); got != 0 {
			b.t.Errorf("the banner covers %g pixels of the dialog, want none", got)
		}
		b.wantFocusSeen(8)
	})
}

// The control: a floating banner, as it was, covers the error of a telephone's dialog.
func TestAFloatingBannerCoversTheDialog(t *testing.T) {
	t.Parallel()
	eachTelephone(t, newStack(t), func(b *tab) {
		b.offlineError()
		eval[chromedp.Void](b, `{ const sheet = new CSSStyleSheet();
			sheet.replaceSync("dialog > article { height: 100%; max-height: calc(100% - 1rem); " +
				"flex: none } dialog > .connection { position: fixed }");
			document.adoptedStyleSheets = [sheet]; }`)
		b.settle()
		if got := eval[float64](
			b,
			"overlap(document.querySelector('dialog > article'), "+
				"document.querySelector('.connection span'))",
		); got == 0 {
			b.t.Error("the floating banner covers nothing, want the test to notice it")
		}
	})
}

// wantFocusSeen goes on by Tab. What has the focus must be beside the banner, not below it.
func (b *tab) wantFocusSeen(steps int) {
	b.t.Helper()
	for range steps {
		b.press(kb.Tab)
		b.settle()
		if got := eval[float64](b, `document.activeElement === document.body ? 0 :
			overlap(document.activeElement, document.querySelector(".connection span"))`); got != 0 {
			b.t.Errorf("the banner covers %g pixels of what has the focus: %s", got,
				eval[string](b, "document.activeElement.outerHTML.slice(0, 120)"))
		}
	}
}

func TestTheBannerCoversNothingOfThePages(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	eachTelephone(t, s, func(b *tab) {
		b.visit("/")
		b.stands("Ceramic Mug", "In stock")
		s.breakWith(unavailable) // the longest text
		b.sees(".connection", "The shop is busy or restarting. Last updated")
		b.wantFocusSeen(14)
		b.wantEndSeen()
		s.mend()
		b.visit("/product/" + demo.Products()[mug].ID.String())
		b.sees("h1", "Ceramic Mug")
		b.offline(true)
		b.sees(".connection", "You are offline")
		b.wantFocusSeen(12)
		b.wantEndSeen()
	})
}

// The browser goes offline between a page's first render and its listener, so no event tells it.
func TestThePageSeesALossBeforeItListens(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab(`{
		let isLost = false;
		Object.defineProperty(Navigator.prototype, "onLine", { get: () => !isLost });
		const listen = addEventListener;
		window.addEventListener = (type, ...rest) => {
			isLost ||= type === "offline";
			return listen(type, ...rest);
		};
	}`)
	b.visit("/")
	b.sees(".connection", "You are offline")
}

// wantEndSeen scrolls to the end of the page. The banner must not cover what is last.
func (b *tab) wantEndSeen() {
	b.t.Helper()
	eval[chromedp.Void](b, "scrollTo(0, document.documentElement.scrollHeight)")
	b.settle()
	if got := eval[float64](b, `overlap(document.querySelector("footer a:last-child"),
		document.querySelector(".connection span"))`); got != 0 {
		b.shoot("end-covered")
		b.t.Errorf("%s: the banner covers %g pixels of the page's end, want none", b.path(), got)
	}
}
