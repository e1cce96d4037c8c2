package browser

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/local/demo"
)

const (
	quantity     = "#quantity"
	oneMore      = "button[aria-label='One more: Quantity']"
	leftOfTheOne = 0.1 // the share of the field's width at which a click puts the caret there
	rightOfIt    = 0.9
)

// waysIn are the ways by which a shopper comes to the quantity, before typing 3.
var waysIn = map[string]func(b *tab){
	"by focus":           func(*tab) {},
	"by mouse":           func(b *tab) { b.mouse(quantity, rightOfIt) },
	"by mouse before it": func(b *tab) { b.mouse(quantity, leftOfTheOne) },
	"by mouse again": func(b *tab) {
		b.mouse(quantity, rightOfIt)
		b.press("2")
		b.mouse(quantity, rightOfIt)
	},
	"by touch":           func(b *tab) { b.tap(quantity, rightOfIt) },
	"by touch before it": func(b *tab) { b.tap(quantity, leftOfTheOne) },
	"by tab": func(b *tab) {
		eval[chromedp.Void](b, "document.activeElement.blur()")
		b.tabTo(quantity)
	},
	"by mouse from a step": func(b *tab) {
		b.mouse(oneMore, 0.5)
		b.until("document.querySelector('#quantity').value === '2'")
		b.mouse(quantity, rightOfIt)
	},
	"after an arrow key": func(b *tab) {
		b.press(kb.ArrowUp)
		b.until("document.querySelector('#quantity').value === '2'")
	},
	"after a refusal": func(b *tab) {
		b.press("99")
		b.press(kb.Enter)
		b.sees(".toast", "has only 30 left.")
	},
	"by mouse after it is emptied": func(b *tab) {
		b.press(kb.Backspace)
		b.until("document.querySelector('#quantity').value === ''")
		b.press(kb.Enter)
		b.sees("#quantity-note", "Type a whole number, 1 or more.")
		b.mouse(quantity, rightOfIt)
	},
}

// point is the place in the window at a share of an element's width, in the middle of its height.
func (b *tab) point(selector string, share float64) (x, y float64) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)?.checkVisibility()", selector))
	at := eval[[]float64](b, fmt.Sprintf(`(() => {
		const box = document.querySelector(%q).getBoundingClientRect();
		return [box.left + box.width * %g, box.top + box.height / 2];
	})()`, selector, share))
	return at[0], at[1]
}

// mouse clicks at a share of an element's width.
func (b *tab) mouse(selector string, share float64) {
	b.t.Helper()
	x, y := b.point(selector, share)
	for _, kind := range []input.DispatchMouseEventType{
		input.DispatchMouseEventTypeMousePressed, input.DispatchMouseEventTypeMouseReleased,
	} {
		command(b, input.DispatchMouseEvent, input.DispatchMouseEventParams{
			Type: kind, X: x, Y: y, Button: input.MouseButtonLeft, ClickCount: 1,
		})
	}
}

// tap touches at a share of an element's width, as a finger does.
func (b *tab) tap(selector string, share float64) {
	b.t.Helper()
	command(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{
		Enabled: true,
	})
	x, y := b.point(selector, share)
	eval[chromedp.Void](b, "window.taps = 0; addEventListener('click', () => taps++, true)")
	command(b, input.DispatchTouchEvent, input.DispatchTouchEventParams{
		Type:        input.DispatchTouchEventTypeTouchStart,
		TouchPoints: []*input.TouchPoint{{X: x, Y: y}},
	})
	command(b, input.DispatchTouchEvent, input.DispatchTouchEventParams{
		Type: input.DispatchTouchEventTypeTouchEnd, TouchPoints: []*input.TouchPoint{},
	})
	b.until("taps === 1") // the browser takes a moment to tell a tap from a double tap
}

// typed opens a product, comes to the quantity, types 3, and returns the quantity.
func (b *tab) typed(comeTo func(b *tab)) string {
	b.t.Helper()
	b.visit("/product/" + demo.Products()[mug].ID.String())
	b.until("document.querySelector('#quantity')")
	eval[chromedp.Void](b, "document.querySelector('#quantity').focus()")
	comeTo(b)
	b.until("document.activeElement.id === 'quantity'")
	b.press("3")
	return eval[string](b, "document.querySelector('#quantity').value")
}

// A number that is there before must not become a part of the number that a shopper types.
func TestATypedQuantityReplacesTheOneThatIsThere(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for how, comeTo := range waysIn {
		t.Run(how, func(t *testing.T) {
			b := s.on(t).newTab()
			if got := b.typed(comeTo); got != "3" {
				t.Fatalf("after 3 is typed the quantity is %q, want 3", got)
			}
			b.press(kb.Enter)
			b.sees(".toast", "Added 3 × Ceramic Mug")
		})
	}
}

// The control of the test above: without the selection the caret is beside the number.
func TestWithoutTheSelectionATypedQuantityIsAppended(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for how, want := range map[string]string{
		"by focus": "13", "by mouse": "13", "by mouse before it": "31",
		"by touch": "13", "by touch before it": "31", "by mouse again": "123",
		"after a refusal": "1993",
	} {
		t.Run(how, func(t *testing.T) {
			b := s.on(t).newTab("HTMLInputElement.prototype.select = () => {};")
			if got := b.typed(waysIn[how]); got != want {
				t.Errorf("after 3 is typed the quantity is %q, want %q", got, want)
			}
		})
	}
}

func TestACartsQuantityIsReplacedToo(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	b := s.newTab()
	b.visit("/")
	b.add("Ceramic Mug", sanFrancisco)
	b.click(openCart)
	field := fmt.Sprintf("[id='line-%s-%s']",
		demo.Products()[mug].ID, demo.Warehouses()[sanFrancisco].ID)
	want := func(value string) {
		t.Helper()
		b.until(fmt.Sprintf("document.querySelector(%q).value === %q", field, value))
	}
	b.mouse(field, rightOfIt)
	b.press("4")
	want("4")
	b.tap(field, rightOfIt)
	b.press("70")
	want("70")
	b.press(kb.Enter)
	b.sees("dialog .lines", "Only 50 left in San Francisco. New York has 30.")
	b.until(fmt.Sprintf(`(({ selectionStart, selectionEnd }) =>
		selectionStart === 0 && selectionEnd === 2)(document.querySelector(%q))`, field))
	b.press("5") // the refused number is selected
	want("5")
	b.sees(openCart, "5")

	// The arrow keys and the buttons stay within what is available. The wheel changes nothing.
	b.press(kb.ArrowUp)
	want("6")
	b.press(kb.ArrowDown + kb.ArrowDown)
	want("4")
	x, y := b.point(field, 0.5)
	command(b, input.DispatchMouseEvent, input.DispatchMouseEventParams{
		Type: input.DispatchMouseEventTypeMouseWheel, X: x, Y: y, DeltaX: 1, DeltaY: 100,
	})
	b.settle()
	want("4")
	b.fill(field, "70")
	b.press(kb.ArrowDown)
	want("50")
	b.press(kb.ArrowUp)
	want("50")
}

// on is the stack as a subtest uses it.
func (s *stack) on(t *testing.T) *stack {
	return &stack{t: t, browser: s.browser, url: s.url, db: s.db, gateway: s.gateway}
}
