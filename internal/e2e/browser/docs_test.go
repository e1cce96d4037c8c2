package browser

import (
	"fmt"
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
// doesn't check it, as we can't fix its markup.
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
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{320, 1280} {
			b.dress(scheme, width)
			b.settle()
			name := fmt.Sprintf("docs-%s-%d", scheme, width)
			b.shoot(name)
			if wide := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
				t.Errorf("%s: the page is %d pixels wider than the window", name, wide)
			}
		}
	}
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
