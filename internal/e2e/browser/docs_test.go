package browser

import (
	"testing"

	"github.com/chromedp/chromedp"
)

func TestGalleryOfAnUnknownAddress(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/nothing/here")
	b.sees("h1", "Page not found")
	b.look("missing")
	b.click("main a[role=button]")
	b.sees("h1", "Shop")
}

// Swagger UI must work under the policy of our pages: a refusal or an exception fails the test. axe
// checks the page around Swagger UI, and the contrast of Swagger UI's colours. It doesn't check
// Swagger UI's markup, which we can't mend: its summaries nest buttons, and its lists of examples
// have no names.
func TestThePageOfTheAPIShowsTheDocument(t *testing.T) {
	t.Parallel()
	b := newStack(t).newTab()
	b.visit("/api/docs")
	b.sees("h1, h2.title", "Allo Reservations")
	b.until("document.querySelectorAll('.opblock').length === 11")
	eval[chromedp.Void](
		b,
		"document.querySelector('#operations-reservations-reserve button').click()",
	)
	b.sees(".opblock.is-open", "Holds all lines or none")
	b.look("docs", ".swagger-ui")
	eval[chromedp.Void](
		b,
		"document.querySelector('#operations-catalog-listProducts button').click()",
	)
	b.until("document.querySelector('#operations-catalog-listProducts .try-out__btn')")
	eval[chromedp.Void](
		b,
		"document.querySelector('#operations-catalog-listProducts .try-out__btn').click()",
	)
	b.until("document.querySelector('#operations-catalog-listProducts .execute')")
	eval[chromedp.Void](
		b,
		"document.querySelector('#operations-catalog-listProducts .execute').click()",
	)
	b.sees("#operations-catalog-listProducts .live-responses-table", "Ceramic Mug")
	if refused := eval[[]string](b, "seen.refused"); len(refused) > 0 {
		t.Errorf("the policy refused %q", refused)
	}
}
