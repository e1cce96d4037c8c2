package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/local"
)

const (
	eventList    = ".table[aria-label=Events] tbody"
	eventRows    = eventList + " tr"
	deliveryList = ".webhook .table tbody"
	deliveryRows = deliveryList + " tr"
)

// publish runs the relay, which publishes the events to an endpoint, if there is one. Call it
// before a page is opened.
func (s *stack) publish(endpoint string) {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler) // an endpoint that fails is no error of the test
	feed, err := local.NewFeed(s.outbox, s.t.TempDir(), endpoint, log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.functions.Operate(feed.Operator(), log)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { feed.Run(ctx) })
	s.t.Cleanup(func() {
		stop()
		running.Wait()
		_ = feed.Close()
	})
}

// The events are shown as they happen, by types, until one pauses them. Each leads to its hold or
// stock row, and can be read as JSON.
func TestTheOperatorFollowsTheEvents(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.publish("")
	first := s.reserve(600, line(mug, newYork, 2))
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops/events")
	b.sees(eventList, "Held")
	b.sees(eventList, "2 units")
	b.checkCodes()

	s.resolve(first.ID, "confirm")
	b.sees(eventList, "Confirmed")
	b.sees(eventList, "Sold: −2, now ")
	b.sees(eventList, "Ceramic Mug, New York")
	b.look("ops-events")

	b.clickText("Pause")
	b.sees("main", "Paused.")
	before := eval[int](b, "document.querySelectorAll('"+eventRows+"').length")
	paused := s.newTab().buys(newYork, "Mechanical Keyboard") // in another browser
	b.until("new Promise((done) => setTimeout(() => done(true), 2500))")
	if n := eval[int](b, "document.querySelectorAll('"+eventRows+"').length"); n != before {
		t.Errorf("a paused feed has %d events, and had %d", n, before)
	}
	b.clickText("Resume")
	const linked = "document.querySelector('%s a[href=\"/ops/holds/%s\"]')"
	b.until(fmt.Sprintf(linked, eventRows, paused.ID))

	b.click(".types label:nth-of-type(8) input") // Stock changed
	b.until("location.search === '?types=allo.stock.moved'")
	b.until("[...document.querySelectorAll('" + eventRows + "')].every((row) => " +
		"row.textContent.includes('Stock changed'))")
	b.reload()
	b.sees(eventList, "Sold: −2, now ")
	b.click(eventRows + ":first-child button")
	b.sees("dialog pre", `"type": "allo.stock.moved"`)
	b.look("ops-events-json")
	b.clickText("Close")
	b.click(eventRows + ":first-child td a")
	b.until("location.pathname.startsWith('/ops/stock/')")
	b.visit("/ops/events?types=allo.reservation.expired")
	b.sees(".nothing", "Nothing of this kind in the last hour")
	b.look("ops-events-none")
}

// checkCodes compares the page's codes with the examples that the server's test has.
func (b *tab) checkCodes() {
	b.t.Helper()
	text, err := os.ReadFile("../../reservation/testdata/codes.json")
	if err != nil {
		b.t.Fatal(err)
	}
	var codes []struct{ ID, Code string }
	if err := json.Unmarshal(text, &codes); err != nil {
		b.t.Fatal(err)
	}
	source := eval[string](b, "performance.getEntriesByType('resource').map(({ name }) => name)"+
		".find((name) => /\\/code\\.[^/]*js$/.test(name))")
	for _, c := range codes {
		got := eval[string](b, fmt.Sprintf("import(%q).then(({ code }) => code(%q))", source, c.ID))
		if got != c.Code {
			b.t.Errorf("the page's code of %s is %s, want %s", c.ID, got, c.Code)
		}
	}
	back := eval[string](b, fmt.Sprintf("import(%q).then(({ parseCode }) => "+
		"[' oOIi ll10', '7k2m-9qxd', '7K2M-9QXU', ''].map(parseCode).join(' '))", source))
	if back != "0011-1110 7K2M-9QXD  " {
		b.t.Errorf("the page reads codes as %q", back)
	}
}

// An endpoint fails to take one event, and takes the later ones. Both pages tell so. The control is
// an endpoint that has taken all.
func TestAnEventThatIsTriedAgainIsSeen(t *testing.T) {
	t.Parallel()
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"allo.reservation.payment-started"`)) {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(endpoint.Close)
	s := newGuardedStack(t)
	s.publish(endpoint.URL)
	paid := s.reserve(600, line(mug, newYork, 1))
	b := s.newTab()
	b.signIn(grant.GroupViewer, "/ops/webhooks")
	b.sees(deliveryList, "Delivered") // of the demo's catalog, or of the hold: the newest 20
	b.sees(".webhook .state", "All delivered")
	b.visit("/ops")
	b.sees(".health", "Webhooks delivering")

	s.call("/api/reservations/"+paid.ID+"/payment", `{"paymentReference":"p","ttlSeconds":600}`,
		http.StatusOK)
	b.visit("/ops/webhooks")
	b.sees(deliveryList, "Failed")
	later := s.newTab().buys(newYork, "Mechanical Keyboard")
	b.until(fmt.Sprintf("document.querySelector('%s a[href=\"/ops/holds/%s\"]')",
		deliveryRows+":not(:last-child)", later.ID))
	b.sees(".webhook .state", "1 event failed, and is tried again")
	b.visit("/ops")
	b.sees(".health", "local doesn’t take all events now, and they are tried again")
}

// An endpoint says that it is gone. An operator sees it, repairs it, and sends what it missed.
func TestTheOperatorRedeliversDeadLetters(t *testing.T) {
	t.Parallel()
	var isBroken atomic.Bool
	isBroken.Store(true)
	var mu sync.Mutex
	var got []string
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isBroken.Load() {
			w.WriteHeader(http.StatusGone)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Header.Get("Webhook-Id"))
	}))
	t.Cleanup(endpoint.Close)
	s := newGuardedStack(t)
	s.publish(endpoint.URL + "/hook?token=hidden")
	h := s.reserve(600, line(mug, newYork, 1))

	viewer := s.newTab()
	viewer.signIn(grant.GroupViewer, "/ops/webhooks")
	viewer.sees(".webhook", "Paused: the endpoint answered 410")
	viewer.sees(deliveryList, "Given up")
	viewer.sees(deliveryList, ", New York")
	page := viewer.shown()
	if strings.Contains(page, "Redeliver") || strings.Contains(page, "hidden") {
		t.Errorf("a viewer's page has a button or a token:\n%s", page)
	}

	b := s.newTab()
	b.signIn(grant.GroupAdmin, "/ops/webhooks")
	b.sees(".webhook", "Paused")
	b.look("ops-webhooks-dead")
	isBroken.Store(false)
	b.clickText("Redeliver")
	b.sees("dialog", "The endpoint counts as working again.")
	b.look("ops-webhooks-step")
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodPost && unavailable(w, r)
	})
	b.click(doStep)
	b.sees("dialog", "No answer came")
	s.mend()
	b.click(doStep)
	b.sees(told, "on the way to local again")
	b.until("document.activeElement === document.querySelector('" + told + "')")
	for _, tab := range []*tab{b, viewer} {
		tab.sees(".webhook", "All delivered")
	}
	later := s.reserve(600, line(keyboard, newYork, 1))
	b.until(fmt.Sprintf("[...document.querySelectorAll('%s')].some((row) => "+
		"row.textContent.includes('Delivered') && row.querySelector('a[href=\"/ops/holds/%s\"]'))",
		deliveryRows, later.ID))
	if eval[bool](b, "Boolean(document.querySelector('.webhook header button'))") {
		t.Error("without dead letters there is a button")
	}
	b.look("ops-webhooks")
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(strings.Join(got, " "), h.ID+"-1") {
		t.Errorf("the endpoint got %q, want the hold's first event", got)
	}
}
