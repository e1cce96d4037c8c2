package browser

import (
	"regexp"
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
	b.sees("h1", "We hold it while you pay.")
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
	// Each operation of the document has its block.
	b.until(`fetch("/api/openapi.json")
		.then((answer) => answer.json())
		.then(({ paths }) => Object.values(paths).flatMap(Object.keys)
			.filter((name) => ["get", "post"].includes(name)).length)
		.then((count) => count > 0 && document.querySelectorAll(".opblock").length === count)`)
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

// Callers without authorization share their keys, so no example may have a key that all use.
func TestThePageOfTheAPITriesEachRequestUnderARandomKey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	posts := s.countPosts()
	b := s.newTab()
	b.visit("/api/docs#/reservations/reserve")
	const operation = "#operations-reservations-reserve "
	for _, button := range []string{".try-out__btn", ".execute"} {
		b.until("document.querySelector('" + operation + button + "')")
		eval[chromedp.Void](b, "document.querySelector('"+operation+button+"').click()")
	}
	b.sees(operation+".live-responses-table", "INVENTORY_NOT_FOUND")
	b.sees(operation+".curl-command", "Idempotency-Key")
	eval[chromedp.Void](b, "document.querySelector('"+operation+".btn-clear').click()")
	eval[chromedp.Void](b, "document.querySelector('"+operation+".execute').click()")
	b.sees(operation+".live-responses-table", "INVENTORY_NOT_FOUND")
	wantRandomKeys(t, posts(), 2)
}

// wantRandomKeys fails the test unless there are n keys, and each is a random UUID of its own.
func wantRandomKeys(t *testing.T, keys []string, n int) {
	t.Helper()
	random := regexp.MustCompile(
		`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for _, key := range keys {
		if !random.MatchString(key) {
			t.Errorf("a POST has the key %q, want a random UUID", key)
		}
		seen[key] = true
	}
	if len(keys) != n || len(seen) != n {
		t.Errorf("the POSTs have the keys %q, want %d different ones", keys, n)
	}
}
