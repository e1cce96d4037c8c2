package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

var seed = flag.Uint64("seed", 0, "the seed of the random run; 0 draws one")

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	pgtest.Main(m)
}

// build builds a text of the program, and returns the binary's path.
func build(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "checkout.go"), filepath.Join(dir, "checkout")
	root := builttest.Root(t)
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, "internal/e2e/checkout/checkout.go"): source},
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := filepath.Join(dir, "overlay.json")
	for name, text := range map[string][]byte{source: []byte(program), listed: overlay} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", listed, "-o", binary,
		"./internal/e2e/checkout")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return binary
}

// process is the shop's program, which may be killed and comes back at once.
type process struct {
	t      *testing.T
	binary string
	shop   shop
	mu     sync.RWMutex
	cmd    *exec.Cmd
	ended  chan struct{}
	kills  int
}

// start starts the program on a free port, and again if another program was faster to take it.
func (p *process) start() {
	for {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Error(err)
			return
		}
		p.shop.Listen = free.Addr().String()
		_ = free.Close()
		settings, err := json.Marshal(p.shop)
		if err != nil {
			p.t.Error(err)
			return
		}
		p.cmd, p.ended = exec.Command(p.binary), make(chan struct{})
		p.cmd.Stdin, p.cmd.Stderr = bytes.NewReader(settings), p.t.Output()
		if err := p.cmd.Start(); err != nil {
			p.t.Error(err)
			return
		}
		go func(cmd *exec.Cmd, ended chan struct{}) {
			_ = cmd.Wait()
			close(ended)
		}(p.cmd, p.ended)
		if p.listens() {
			return
		}
	}
}

// listens waits until the program takes connections. It returns false when the program has ended.
func (p *process) listens() bool {
	for {
		conn, err := net.Dial("tcp", p.shop.Listen)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-p.ended:
			return false
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// kill ends the program as kill -9 does.
func (p *process) kill() {
	p.kills++
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// restart kills the program and starts it again. Its callers wait meanwhile.
func (p *process) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kill()
	p.start()
}

// killed returns how often the program was killed.
func (p *process) killed() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.kills
}

func (p *process) address() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.shop.Listen
}

// fault is what happens to one call of the shop.
type fault int

const (
	none        fault = iota
	refuse            // a 503, and nothing done
	loseAnswer        // done, but the connection breaks
	crashBefore       // the shop dies, and nothing was done
	crashAfter        // the shop dies when it was done
	hang              // no answer, and nothing done, until the shop hangs up
)

// line is the way from the shop to an API.
type line struct {
	next  http.Handler
	fault func(r *http.Request) fault
	shop  *process
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := l.fault(r)
	if f == refuse {
		respond(w, http.StatusServiceUnavailable, map[string]any{"code": "FAULT"})
		return
	}
	if f == hang {
		_, _ = io.Copy(io.Discard, r.Body) // the server sees the end of a connection after the body
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if f != crashBefore {
		got := httptest.NewRecorder()
		l.next.ServeHTTP(got, r.WithContext(context.WithoutCancel(r.Context())))
		if f == none {
			for name, values := range got.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(got.Code)
			_, _ = w.Write(got.Body.Bytes())
			return
		}
	}
	if f != loseAnswer {
		l.shop.restart()
	}
	panic(http.ErrAbortHandler)
}

// world is the shop's process between the provider and the service, on a database of its own.
type world struct {
	t         *testing.T
	db        *pgtest.Fixture
	service   *reservation.Service
	gateway   *local.Gateway
	provider  *provider
	shop      *process
	warehouse uuid.UUID
	products  []uuid.UUID
	stocked   []int         // the units of each product at the beginning
	patience  time.Duration // how long a caller of the shop waits for an answer

	mu     sync.Mutex
	faults func(r *http.Request) fault
}

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	w := &world{
		t: t, db: pgtest.NewFixtureOfSize(t, pgtest.New(t), 4), provider: newProvider(),
		shop: &process{t: t, binary: binary}, faults: func(*http.Request) fault { return none },
		patience: time.Minute,
	}
	w.warehouse = w.db.Warehouse()
	c := config.Config{
		DatabaseURL: w.db.URL, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		LogLevel: slog.LevelError,
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	a, err := app.New(c, log, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	w.service = a.Service
	functions, err := local.InProcess(c, 2, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := functions.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.gateway, err = local.NewGateway(route.All(), functions.HTTP, log); err != nil {
		t.Fatal(err)
	}
	w.shop.shop = shop{
		KeySecret: uuid.NewString(), CallerSecret: uuid.NewString(),
		Stock: api{URL: w.serve(w.gateway)}, Provider: api{URL: w.serve(w.provider)},
	}
	w.shop.start()
	t.Cleanup(w.shop.kill)
	return w
}

// serve serves an API to the shop, over a line with faults. It returns its URL.
func (w *world) serve(next http.Handler) string {
	server := httptest.NewServer(&line{next: next, shop: w.shop, fault: func(r *http.Request) fault {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.faults(r)
	}})
	w.t.Cleanup(server.Close)
	return server.URL
}

func (w *world) setFaults(faults func(r *http.Request) fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = faults
}

// breakNext makes these the faults of the next calls whose path ends so. Later calls have none.
func (w *world) breakNext(suffix string, next ...fault) {
	w.setFaults(func(r *http.Request) fault {
		if len(next) == 0 || !strings.HasSuffix(r.URL.Path, suffix) {
			return none
		}
		f := next[0]
		next = next[1:]
		return f
	})
}

// stock makes a product of so many units. It returns its place in w.products.
func (w *world) stock(units int) int {
	product := w.db.Product()
	w.db.Stock(product, w.warehouse, units)
	w.products, w.stocked = append(w.products, product), append(w.stocked, units)
	return len(w.products) - 1
}

// unitPrice is the price of a unit of anything.
const unitPrice = 100

// cart is an order of so many units of some products.
func (w *world) cart(number string, units map[int]int) order {
	o := order{Number: number}
	var items []map[string]any
	for product, quantity := range units {
		items = append(items, map[string]any{
			"productId": w.products[product], "warehouseId": w.warehouse, "quantity": quantity,
		})
		o.Amount += unitPrice * int64(quantity)
	}
	o.Items, _ = json.Marshal(items)
	return o
}

// ask sends the shop a signed request. The status is 0 when no answer comes.
func (w *world) ask(path, secret string, body any) (status int, text string) {
	sent, err := json.Marshal(body)
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost,
		"http://"+w.shop.address()+path, bytes.NewReader(sent))
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	r.Header.Set("Signature", sign(secret, string(sent)))
	got, err := (&http.Client{Timeout: w.patience}).Do(r)
	if err != nil {
		return 0, ""
	}
	defer got.Body.Close()
	answer, err := io.ReadAll(got.Body)
	if err != nil {
		return 0, ""
	}
	return got.StatusCode, string(answer)
}

// act posts to a verb of a payment's hold, over no line. It returns the code of a refusal.
func (w *world) act(payment, verb string) string {
	got := httptest.NewRecorder()
	w.gateway.ServeHTTP(got, httptest.NewRequest(http.MethodPost,
		"/api/reservations/"+w.provider.hold(payment)+"/"+verb, http.NoBody))
	var problem struct{ Code string }
	_ = json.Unmarshal(got.Body.Bytes(), &problem) // a success has no code
	return problem.Code
}

// mostTries is how often a basket, or the provider with a webhook, asks before it gives up.
const mostTries = 50

// checkOut is the basket: it asks until the shop has answered. It returns the payment's id, or the
// code of a refusal.
func (w *world) checkOut(o order, attempt int) (payment, refusal string) {
	o.Attempt = fmt.Sprint(attempt)
	for range mostTries {
		status, text := w.ask("/checkout", w.shop.shop.CallerSecret, o)
		switch {
		case status == 0 || status >= 500 || text == "IDEMPOTENCY_KEY_IN_USE":
		case status < 300:
			return strings.TrimPrefix(text, payURL), ""
		default:
			return "", text
		}
	}
	return "", "NO_ANSWER"
}

// tell sends a webhook about a payment once, and returns whether the shop has taken it.
func (w *world) tell(payment, kind, secret string) bool {
	status, _ := w.ask("/webhook", secret, map[string]string{
		"id": uuid.NewString(), "type": "payment." + kind, "payment": payment,
	})
	return status/100 == 2
}

// tellUntilTaken sends a webhook until the shop has taken it. A provider gives up in the end.
func (w *world) tellUntilTaken(payment, kind string) {
	for range mostTries {
		if w.tell(payment, kind, w.shop.shop.CallerSecret) {
			return
		}
	}
}
