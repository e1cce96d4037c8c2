package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/events/channel"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/route"
)

// liveStack is the live channel of a stack. Without one, the pages poll.
type liveStack struct {
	*local.Live
	isCut atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

// goLive runs the relay and serves the live channel. Call it before a page is opened.
func (s *stack) goLive() *liveStack {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	feed, err := local.NewFeed(s.outbox, s.t.TempDir(), "", log)
	if err != nil {
		s.t.Fatal(err)
	}
	routes := []route.Route{{Function: "live", Method: "GET", Path: "/api/live"}}
	gateway, err := local.NewGateway(routes,
		map[string]local.Invoker{"live": local.LiveFunction(log)}, log)
	if err != nil {
		s.t.Fatal(err)
	}
	l := &liveStack{Live: feed.Live}
	handler := feed.Live.Handler(gateway)
	handle := func(w http.ResponseWriter, r *http.Request) bool {
		isLive := r.URL.Path == "/api/live" || strings.HasPrefix(r.URL.Path, "/event")
		switch {
		case !isLive:
		case l.isCut.Load():
			unavailable(w, r)
		default:
			handler.ServeHTTP(keptConn{w, l}, r)
		}
		return isLive
	}
	s.live.Store(&handle)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { feed.Run(ctx) })
	s.t.Cleanup(func() {
		stop()
		running.Wait()
		_ = feed.Close()
	})
	return l
}

// keptConn keeps the connection of a WebSocket, so that a test can cut it.
type keptConn struct {
	http.ResponseWriter
	live *liveStack
}

func (k keptConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(k.ResponseWriter).Hijack()
	if err == nil {
		k.live.mu.Lock()
		k.live.conns = append(k.live.conns, conn)
		k.live.mu.Unlock()
	}
	return conn, rw, err
}

// cut cuts all connections in the middle, and lets no page connect until mend.
func (l *liveStack) cut() {
	l.isCut.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

func (l *liveStack) mend() { l.isCut.Store(false) }

// push publishes the state of a stock row as of a tick.
func (l *liveStack) push(t *testing.T, p, w, available int, asOf int64) {
	t.Helper()
	row := channel.Stock{
		ProductID: demo.Products()[p].ID, WarehouseID: demo.Warehouses()[w].ID,
		AvailableStock: available, AsOf: asOf,
	}
	text, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish(t.Context(), channel.AllStock, []json.RawMessage{text}); err != nil {
		t.Fatal(err)
	}
}

// watchStock draws the stock by the pages' own modules, apart from any page's looks. It takes their
// addresses from the shop's page. A module that the present page has too is then the same copy,
// because another one would know nothing of the first.
const watchStock = `(async () => {
	const text = await (await fetch("/")).text();
	const shop = new DOMParser().parseFromString(text, "text/html");
	const module = (name) => import([...shop.querySelectorAll("link[rel=modulepreload]")]
		.map((link) => link.getAttribute("href"))
		.find((href) => href.includes("/assets/" + name + ".")));
	const [{ h, render }, { useStock }, { getPages }] =
		await Promise.all(["preact", "live-stock", "api"].map(module));
	window.stock = { drawn: 0, state: "", available: {} };
	function Watch() {
		const { data, state } = useStock(() => getPages("/api/products?limit=150", 1));
		stock.drawn++;
		stock.state = state;
		for (const product of data?.items ?? []) {
			for (const row of product.inventories) {
				stock.available[product.id + " " + row.warehouseId] = row.availableStock;
			}
		}
		return h("p");
	}
	render(h(Watch), document.body.appendChild(document.createElement("div")));
})()`

// available waits until the watched page shows so many units.
func (b *tab) available(p, w, units int) {
	b.t.Helper()
	b.until(fmt.Sprintf("stock.available[%q] === %d",
		demo.Products()[p].ID.String()+" "+demo.Warehouses()[w].ID.String(), units))
}

// reads counts the reads of the watched page, and those that were answered by 304.
type reads struct{ all, unchanged atomic.Int64 }

func (s *stack) countReads() *reads {
	var n reads
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("limit") != "150" {
			return false
		}
		answer := &statusWriter{ResponseWriter: w}
		s.gateway.ServeHTTP(answer, r)
		n.all.Add(1)
		if answer.status == http.StatusNotModified {
			n.unchanged.Add(1)
		}
		return true
	})
	return &n
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// countHoldReads counts a page's reads of a hold that began after its live channel was connected,
// and have their answer.
const countHoldReads = `{
	window.holdReads = 0;
	let isConnected = false;
	window.WebSocket = class extends WebSocket {
		constructor(...given) {
			super(...given);
			isConnected = false;
			holdReads = 0;
			this.addEventListener("message", ({ data }) => {
				isConnected ||= JSON.parse(data).type === "subscribe_success";
			});
		}
	};
	const send = fetch;
	window.fetch = async (url, options) => {
		const counts = isConnected && /\/api\/reservations\/[-\w]+$/.test(url);
		const answer = await send(url, options);
		holdReads += Number(counts);
		return answer;
	};
}`

// A page shows what is pushed when another browser holds. Cut off, it reads at once and then again
// and again, until it is connected.
func TestAPageFollowsTheStock(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	live, read := s.goLive(), s.countReads()
	left := demo.Products()[keyboard].Stock[newYork]
	b, shopper := s.newTab(), s.newTab(countHoldReads)
	b.signIn(grant.GroupViewer, "/ops")
	eval[chromedp.Void](b, watchStock)
	b.until("stock.state === 'connected'")
	b.available(keyboard, newYork, left)
	waitFor(t, func() bool { return read.all.Load() == 2 }) // at first, and once connected

	bought := shopper.buys(newYork, "Mechanical Keyboard")
	b.available(keyboard, newYork, left-1)
	if got := read.all.Load(); got != 2 {
		t.Errorf("the page has read %d times, want 2: the change was pushed", got)
	}

	live.cut()
	b.until("stock.state === 'cut'")
	waitFor(t, func() bool { return read.all.Load() >= 3 }) // at once
	s.reserve(600, line(keyboard, newYork, 1))
	b.available(keyboard, newYork, left-2)

	live.mend()
	b.until("stock.state === 'connected'")
	s.reserve(600, line(keyboard, newYork, 1))
	b.available(keyboard, newYork, left-3)

	// The hold's page follows the hold too. Connected, it reads once a minute: too late here.
	waitFor(t, func() bool { return live.Connections() == 2 })
	shopper.until("holdReads > 0") // the one at the change to connected
	s.resolve(bought.ID, "release")
	shopper.sees("h1", "Released")
	b.available(keyboard, newYork, left-2)

	shopper.visit("/api/docs")
	b.visit("/api/docs")
	waitFor(t, func() bool { return live.Connections() == 0 })
}

// A message that comes late has a lower asOf than what the page shows. The control is a message
// that is as wrong, with a higher asOf: the page shows it.
func TestALateMessageChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	live, read := s.goLive(), s.countReads()
	left := demo.Products()[keyboard].Stock[newYork]
	b := s.newTab()
	b.visit("/ops")
	eval[chromedp.Void](b, watchStock)
	b.until("stock.state === 'connected'")
	s.reserve(600, line(keyboard, newYork, 1))
	b.available(keyboard, newYork, left-1)

	const soon = 1 << 40
	live.push(t, keyboard, newYork, 77, 1)     // late
	live.push(t, mug, newYork, 5, soon)        // newer, so the one before has come too
	live.push(t, headphones, newYork, 6, 1)    // late
	live.push(t, headphones, newYork, 7, soon) // newer
	live.push(t, headphones, newYork, 8, soon-1)
	live.push(t, mug, newYork, 4, soon+1)
	b.available(mug, newYork, 4)
	b.available(headphones, newYork, 7)
	b.available(keyboard, newYork, left-1)
	live.push(t, keyboard, newYork, 77, soon)
	b.available(keyboard, newYork, 77)

	// A read that finds nothing changed costs neither a body nor a drawing. The first one here finds
	// the hold. It is drawn when the next one begins, as they don't overlap.
	again := func() {
		t.Helper()
		all := read.all.Load()
		eval[chromedp.Void](b, "dispatchEvent(new Event('online'))")
		waitFor(t, func() bool { return read.all.Load() == all+1 })
	}
	again()
	again()
	before, drawn := read.unchanged.Load(), eval[int](b, "stock.drawn")
	again()
	again()
	if got := read.unchanged.Load() - before; got != 2 {
		t.Errorf("%d of 2 reads were answered by 304, want both", got)
	}
	b.settle()
	if got := eval[int](b, "stock.drawn"); got != drawn {
		t.Errorf("the page was drawn %d times more, want none", got-drawn)
	}
}
