package browser

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// The slow connection is Lighthouse's "slow 4G": 1.6 Mbit/s down, 750 kbit/s up, and 150 ms of
// latency.
var slowConnection = &network.Conditions{
	Latency: 150, DownloadThroughput: 1.6e6 / 8, UploadThroughput: 750e3 / 8,
}

const (
	maxTransfer = 60_000 // bytes of the first view, headers included
	maxCost     = 900 * time.Millisecond
)

// The first view is usable when its stock can be reserved. The test takes the best of five views,
// and subtracts the time of a view without the slow connection: it measures the pages' needs, and
// not this machine.
func TestTheFirstViewIsSmallAndSoonUsable(t *testing.T) {
	s := newStack(t)
	s.newTab().visit("/") // starts the functions, as somebody before did
	var waits, near []time.Duration
	var bytes int64
	for range 5 {
		wait, transferred := s.firstView(slowConnection)
		waits, bytes = append(waits, wait), transferred
		wait, _ = s.firstView(&network.Conditions{DownloadThroughput: -1, UploadThroughput: -1})
		near = append(near, wait)
	}
	t.Logf("over 1.6 Mbit/s with 150 ms, on a cold cache, the shop was usable after %v, and after %v "+
		"without that connection; it takes %d bytes", waits, near, bytes)
	if cost := slices.Min(waits) - slices.Min(near); cost > maxCost {
		t.Errorf("the slow connection costs the shop %v at best, want at most %v", cost, maxCost)
	}
	if bytes > maxTransfer || bytes == 0 {
		t.Errorf("the first view takes %d bytes, want at most %d", bytes, maxTransfer)
	}
}

// firstView opens the shop over a connection. transferred counts what the page had asked for when
// it was usable. It fetches the rest of its scripts afterwards.
func (s *stack) firstView(over *network.Conditions) (wait time.Duration, transferred int64) {
	s.t.Helper()
	b := s.newTab(
		`window.usable = new Promise((done) => addEventListener("DOMContentLoaded", () => {
		const look = () => document.querySelector('button[aria-label^="Add to cart"]') &&
			done(performance.now());
		new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
		look();
	}));`,
	)
	finished := b.transfers()
	command(b, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{over},
	})
	b.visit("/")
	ms := eval[float64](b, "usable")
	asked := eval[[]string](b, `usable.then((end) => performance.getEntries()
		.filter((entry) => "transferSize" in entry && entry.startTime <= end)
		.map((entry) => entry.name))`)
	waitFor(s.t, func() bool {
		transferred = 0
		for _, url := range asked {
			size, ok := finished.Load(url)
			if !ok {
				return false
			}
			transferred += size.(int64)
		}
		return true
	})
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond), transferred
}

// transfers returns the bytes of each answer from now on, by its URL, once it has come whole.
func (b *tab) transfers() *sync.Map {
	b.t.Helper()
	var urls, finished sync.Map
	b.must(chromedp.Listen(b.ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			urls.Store(e.RequestID, e.Request.URL)
		case *network.EventLoadingFinished:
			if url, ok := urls.Load(e.RequestID); ok {
				finished.Store(url, int64(e.EncodedDataLength))
			}
		}
	}))
	command(b, network.Enable, network.EnableParams{})
	return &finished
}
