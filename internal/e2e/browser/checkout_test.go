package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/pgtest"
)

// lacks fails the test if the page has one of these buttons or links.
func (b *tab) lacks(texts ...string) {
	b.t.Helper()
	shown := eval[string](b, `[...document.querySelectorAll("main button, main a")]
		.map((node) => node.textContent).join("|")`)
	for _, text := range texts {
		if strings.Contains(shown, text) {
			b.t.Errorf("%s has the buttons %q, want no %q", b.path(), shown, text)
		}
	}
}

// claim opens the page of a hold that was made elsewhere, and says that it is one's own.
func (b *tab) claim(h hold) {
	b.t.Helper()
	b.visit("/reservation/" + h.ID)
	b.clickText("This is my order")
	b.sees("h1", "Held for you")
}

// goToBank fills in the contact and goes to the demo's bank. It returns the hold's new address.
func (b *tab) goToBank(contact string) (path string) {
	b.t.Helper()
	before := b.path()
	b.fill("#contact", contact)
	b.click(".payment button[type=submit]")
	b.until(fmt.Sprintf("location.pathname !== %q && document.querySelector('.bank')", before))
	b.sees(".bank", "Demo bank")
	return b.path()
}

func TestACheckoutEndsWithAReceipt(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, stranger := s.newTab(), s.newTab()
	stranger.visit("/")
	stranger.takeFrom("Ceramic Mug", losAngeles)
	stranger.stands("Ceramic Mug", "Only 1 left")
	h := s.reserve(600, line(mug, losAngeles, 1))
	stranger.stands("Ceramic Mug", "Sold out")

	// Whoever has only the link can look, and buys nothing with one click.
	b.visit("/reservation/" + h.ID)
	b.sees("h1", "Someone else’s order")
	b.sees(".summary", "Ceramic Mug")
	b.sees(".summary", "Los Angeles")
	b.lacks("Release items", "Hold it", "pay", "Pay", "Your items")
	b.look("hold-stranger")
	b.clickText("This is my order")
	b.sees("h1", "Held for you")
	b.sees(".summary", "Your items")
	b.sees(".summary .total", "$18.00")
	b.look("hold")

	for _, wrong := range []string{"", "12", "ada"} {
		b.fill("#contact", wrong)
		b.press(kb.Enter)
		b.until("document.activeElement.id === 'contact' && document.activeElement.ariaInvalid")
		if wrong == "ada" {
			b.sees("#contact-note", "Type an email address, such as ada@example.com")
			b.look("hold-contact-error")
		}
		b.press(kb.Backspace)
	}
	path := b.goToBank("ada@example.com")
	b.until("document.activeElement.id === 'bank-title'")
	b.sees(".bank", "Pay $18.00")
	b.lacks("Release items", "Hold it 5 more minutes")
	b.look("hold-bank")
	old := b.sibling()
	old.visit("/reservation/" + h.ID)
	old.sees("h1", "You changed this order")
	old.look("hold-moved")

	b.reload() // the same payment goes on
	b.clickText("The payment goes through")
	b.sees("h1", "Thank you, it’s yours")
	b.sees(".order", "The receipt goes to ada@example.com.")
	b.until("document.activeElement === document.querySelector('h1')")
	b.look("hold-bought")
	old.clickText("Go to the order")
	old.sees("h1", "Thank you, it’s yours")
	if got := old.path(); got != path {
		t.Errorf("the old link leads to %s, want %s", got, path)
	}
	const soldSQL = "SELECT count(*) FROM reservations WHERE status = 'CONFIRMED'"
	if n := pgtest.QueryOne[int](s.db, soldSQL); n != 1 {
		t.Errorf("%d holds are confirmed, want 1", n)
	}
	s.wantHolds(2)
	stranger.stands("Ceramic Mug", "Sold out")
	stranger.visit(path)
	stranger.sees("h1", "Bought")
	if strings.Contains(stranger.shown(), "ada@example.com") {
		t.Error("a stranger's page shows where the receipt goes")
	}
}

func TestAPaymentFailsAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	other.visit("/")
	b.claim(s.reserve(600, line(keyboard, newYork, 2), line(headphones, sanFrancisco, 1)))
	b.sees(".summary", "Wireless Headphones")
	b.goToBank("+1 555 0100")
	b.clickText("The payment fails")
	b.sees(".notice", "nothing was charged")
	b.look("hold-payment-failed")
	other.stands("Mechanical Keyboard", "Only 1 left") // the items stay held
	b.click(".payment button[type=submit]")            // the contact is there already
	b.sees(".bank", "Demo bank")

	// The answer of the payment is lost. The customer asks again, and pays once.
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/demo/payments" {
			return false
		}
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
		unavailable(w, httptest.NewRequest(http.MethodPost, "/api/", http.NoBody))
		return true
	})
	b.clickText("The payment goes through")
	b.sees(".bank .note", "No answer from the shop. Try again: you pay once.")
	b.sees("h1", "Thank you, it’s yours") // the hold tells, and the payment not yet
	s.mend()
	b.clickText("The payment goes through")
	b.until("!document.querySelector('.bank')")
	b.sees("h1", "Thank you, it’s yours")
	const soldSQL = "SELECT count(*) FROM stock_movements WHERE kind = 'SALE'"
	if n := pgtest.QueryOne[int](s.db, soldSQL); n != 2 {
		t.Errorf("%d lines are sold, want 2", n)
	}
	other.stands("Mechanical Keyboard", "Only 1 left")
}

// Money that comes after the end buys other units, or goes back when there are none.
func TestMoneyThatComesLate(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, rival := s.newTab(), s.newTab()
	b.claim(s.reserve(600, line(mug, losAngeles, 1)))
	gone := b.goToBank("ada@example.com")
	b.clickText("The money comes after the hold has ended")
	b.sees("h1", "Time’s up")
	b.sees(".bank", "Your money is still on its way")
	b.look("hold-late")
	other := b.sibling()
	other.visit(gone)
	other.sees("h1", "Time’s up")
	b.reload()
	b.clickText("Let it arrive now")
	b.sees("h1", "Thank you, it’s yours")
	b.sees(".order", "We found you another one")
	b.look("hold-reacquired")
	other.sees("h1", "We found you another one") // it follows, although the hold had ended
	other.look("hold-found")

	s.db.Exec("SELECT adjust_stock(product_id, warehouse_id, 1, 'test') FROM inventory "+
		"WHERE total = 0 AND product_id = $1",
		demo.Products()[mug].ID.String())
	b.claim(s.reserve(600, line(mug, losAngeles, 1)))
	b.goToBank("ada@example.com")
	b.clickText("The money comes after the hold has ended")
	b.sees("h1", "Time’s up")
	rival.buys(losAngeles, "Ceramic Mug") // and is faster
	b.clickText("Let it arrive now")
	b.sees("h1", "Your money is on its way back")
	b.sees(".order", "No Ceramic Mug left in Los Angeles.")
	b.reload()
	b.sees("h1", "Your money is on its way back")
	b.sees(".again", "Hold it from New York (30 left)")
	b.lacks("Hold again") // it would fail
	b.look("hold-lost")
	b.clickText("Hold it from New York (30 left)")
	b.sees("h1", "Held for you")
	b.sees(".summary", "New York")

	// A shopper who lets the last one go may not get it again.
	last := s.reserve(600, line(camera, newYork, 1))
	b.claim(last)
	s.resolve(last.ID, "release")
	b.sees("h1", "Released")
	s.reserve(600, line(camera, newYork, 1))
	b.clickText("Hold again")
	b.sees(".again", "Sorry, someone was faster. No Film Camera left in New York.")
	b.sees(".again", "Hold it from San Francisco (2 left)")
	b.lacks("Hold again")
	b.look("hold-again-short")
}

// Two windows are at the bank with two payments. The second one is refunded.
func TestTwoWindowsPayForOneOrder(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	first := s.newTab()
	first.claim(s.reserve(600, line(mug, losAngeles, 1)))
	path := first.goToBank("ada@example.com")
	second := first.sibling()
	second.visit(path)
	second.sees(".payment", "You are paying in another window")
	second.lacks("Release items", "Hold it 5 more minutes")
	second.look("hold-paying-elsewhere")
	second.clickText("Pay here instead")
	second.sees(".bank", "Demo bank")
	first.clickText("The payment goes through")
	first.sees("h1", "Thank you, it’s yours")
	second.sees("h1", "Thank you, it’s yours")
	second.clickText("The payment goes through")
	second.sees("h1", "You have paid already")
	second.sees(".order", "Refunded: payment demo-")
	second.sees(".order", "Kept: payment demo-")
	second.look("hold-paid-twice")
	const paidSQL = "SELECT count(*) FROM reservations WHERE status = 'CONFIRMED'"
	if n := pgtest.QueryOne[int](s.db, paidSQL); n != 1 {
		t.Errorf("%d holds are confirmed, want 1", n)
	}
}

// Each window follows. Releasing needs a second step.
func TestItemsAreReleasedInTwoSteps(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b := s.newTab()
	b.claim(s.reserve(600, line(mug, losAngeles, 1)))
	second, stranger := b.sibling(), s.newTab()
	second.visit(b.path())
	second.sees("h1", "Held for you")
	stranger.visit(b.path())
	stranger.sees("h1", "Someone else’s order")

	b.clickText("Hold it 5 more minutes")
	b.sees(".result", "Held until")
	for _, other := range []*tab{second, stranger} {
		other.until("/^1[45]:/.test(document.getElementById('countdown').textContent)")
	}
	b.tabTo(".release")
	b.press(kb.Enter)
	b.sees("dialog[open]", "1 item goes back on the shelf")
	b.look("hold-release")
	eval[chromedp.Void](second, "document.querySelector('.brand').focus()")
	b.clickText("Keep holding")
	b.until("!document.querySelector('dialog') && document.activeElement.matches('.release')")
	b.sees("h1", "Held for you")
	b.press(kb.Enter)
	b.sees("dialog[open]", "1 item goes back on the shelf")
	b.clickText("Release items") // the dialog's
	for _, tab := range []*tab{b, second, stranger} {
		tab.sees("h1", "Released")
	}
	b.until("document.activeElement === document.querySelector('h1')")
	second.wantAnnounced("Released. The items went back on the shelf.")
	b.look("hold-released")
	stranger.clickText("Hold again")
	stranger.sees("h1", "Held for you")
	s.wantHolds(2)
}

// Without the demo there is nothing to pay with: that is the shop's own part.
func TestWithoutTheDemoTheShopTakesThePayment(t *testing.T) {
	t.Parallel()
	s := newStack(t, withoutDemo)
	b := s.newTab()
	b.claim(s.reserve(600, line(mug, losAngeles, 1)))
	b.sees(".payment", "Payment opens here.")
	b.lacks("Continue")
	if eval[bool](b, "document.body.textContent.includes('$')") {
		t.Error("the page shows prices, want none without the demo")
	}
	b.look("hold-without-demo")
	b.visit("/sale")
	b.sees("h1", "No flash sale here")
	b.look("sale-off")
}

func TestAFlashSaleIsWatchedToItsEnd(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	b.visit("/sale")
	b.sees("main", "Nobody has come yet.")
	b.look("sale")
	b.choose("Product", demo.Products()[headphones].ID.String())
	b.sees(".stock", "25 left")
	b.clickText("Send 200 buyers")
	b.until("document.querySelectorAll('.dots .dot:not(.waiting)').length > 0")
	other.visit("/sale")
	for _, tab := range []*tab{b, other} {
		tab.sees(".verdict", "25 buyers got one, and 175 came too late. Nobody was sold one")
		tab.sees(".verdict", "We checked every hold: nothing is wrong.")
		tab.sees(".stage .figures", "Oversold0")
		tab.until("document.querySelectorAll('.dots .sold').length === 25 && " +
			"document.querySelectorAll('.dots .refused').length === 175")
	}
	b.wantAnnounced("25 buyers got one")
	b.sees(".stock", "0 left")
	b.look("sale-done")
	const soldSQL = "SELECT count(*) FROM reservations WHERE status = 'CONFIRMED'"
	if n := pgtest.QueryOne[int](s.db, soldSQL); n != 25 {
		t.Errorf("%d holds are confirmed, want 25", n)
	}
	b.clickText("Restock")
	b.sees(".stock", "25 left")
	b.wantAnnounced("25 units came in.")
}
