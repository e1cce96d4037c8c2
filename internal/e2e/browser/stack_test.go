// Package browser tests the pages in headless Chromium, with the functions behind the local gateway
// and a real Postgres. Every wait is for a condition and has a deadline.
package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/app/grant"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/local/issuer/signin"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// stack is the service with its own database. Its address stays the same when the server stops and
// starts again.
type stack struct {
	t       *testing.T
	browser context.Context // a Chromium of the test's own
	url     string
	db      *pgtest.Fixture
	gateway http.Handler
	door    *door
	server  *http.Server
	outbox  events.Outbox
	// functions are those behind the gateway.
	functions *local.Functions
	// live handles the requests to the live channel, see goLive. It reports whether it did.
	live atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	// issuer is where the console signs in, or nil where the API is open.
	issuer *issuer
	// handler is the gateway, with the demo's back end before it where the stack is the demo.
	handler http.Handler
	audit   func(context.Context) ([]reservation.Violation, error) // nil without the demo
	// fault may handle a request in place of the gateway. It reports whether it did.
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

// newStack serves the demo catalog, with changes to the configuration. Everybody may call it.
func newStack(t *testing.T, changes ...func(*config.Config)) *stack {
	t.Helper()
	return newStackOf(t, nil, changes...)
}

// newStackOf is newStack with the issuer that the changes name, or with none.
func newStackOf(t *testing.T, i *issuer, changes ...func(*config.Config)) *stack {
	t.Helper()
	s := &stack{t: t, issuer: i, db: pgtest.NewFixture(t, pgtest.New(t)), browser: startChromium(t)}
	if _, err := demo.SeedEmpty(t.Context(), s.db.DirectURL); err != nil {
		t.Fatal(err)
	}
	c := config.Config{
		DatabaseURL:    s.db.URL,
		HoldTTL:        10 * time.Minute,
		MaxHold:        time.Hour,
		MaxPaymentHold: 24 * time.Hour,
		MaxUnits:       1000,
		MaxLines:       100,
		Pages:          config.Pages{Demo: true},
		LogLevel:       slog.LevelError,
	}
	for _, change := range changes {
		change(&c)
	}
	return s.serve(c)
}

// serve starts the functions behind a gateway, guarded as c says.
func (s *stack) serve(c config.Config) *stack {
	t := s.t
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	functions, err := local.Built(
		builttest.Functions(t, "browser"),
		c.Environ(),
		0,
		t.Output(),
		log,
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = functions.Close() })
	s.outbox, s.functions = functions.Outbox, functions
	gateway, err := local.NewGateway(route.All(), functions.HTTP, log)
	if err != nil {
		t.Fatal(err)
	}
	gateway.Guard(local.NewAuthorizer(c.Auth, log))
	s.gateway = gateway
	if c.Pages.Demo {
		a, err := app.New(c, log, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		s.audit = a.Service.Audit
	}
	s.door = newDoor(t)
	s.url = "http://" + s.door.address()
	s.up()
	t.Cleanup(s.down)
	return s
}

// withoutDemo makes the shop one of somebody's own.
func withoutDemo(c *config.Config) { c.Pages.Demo = false }

// demoBefore puts the demo's back end before the gateway. It calls the API through the stack.
func (s *stack) demoBefore(gateway http.Handler) http.Handler {
	ctx, stop := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(s.t.Output(), nil))
	options := demo.Options{URL: s.url, Audit: s.audit, Log: log}
	if s.issuer != nil {
		options.Token = func(ctx context.Context) (string, error) {
			return s.issuer.signin.Token(ctx, signin.DemoID)
		}
	}
	backEnd := demo.NewServer(ctx, options)
	s.t.Cleanup(func() {
		stop()
		backEnd.Wait()
	})
	return backEnd.Before(gateway)
}

// up starts the server. down closes it and every connection, even in the middle of an answer.
func (s *stack) up() {
	s.t.Helper()
	if s.handler = s.gateway; s.audit != nil {
		s.handler = s.demoBefore(s.gateway)
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func(server *http.Server, l net.Listener) { _ = server.Serve(l) }(s.server, s.door.entrance())
}

func (s *stack) down() { _ = s.server.Close() }

func (s *stack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fault := s.fault.Load(); fault != nil && (*fault)(w, r) {
		return
	}
	if live := s.live.Load(); live != nil && (*live)(w, r) {
		return
	}
	s.handler.ServeHTTP(w, r)
}

// breakWith puts a fault between the browser and the gateway until mend is called.
func (s *stack) breakWith(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.fault.Store(&fault)
}

func (s *stack) mend() { s.fault.Store(nil) }

// unavailable is a fault that answers the API's requests as an overloaded service does.
func unavailable(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(
		w,
		`{"type":"urn:allo:problem:UNAVAILABLE","title":"Unavailable","status":503,`+
			`"code":"UNAVAILABLE","error":"x","detail":"x"}`,
	)
	return true
}

// refused answers requests to paths with this end as an authorizer does that refuses them.
func refused(suffix string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/api/") || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"message":"Forbidden"}`)
		return true
	}
}

// hanging returns a fault that blocks the API's requests until the browser gives up or done is
// closed.
func hanging(done <-chan struct{}) func(w http.ResponseWriter, r *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/api/") {
			return false
		}
		select {
		case <-done:
			return false
		case <-r.Context().Done():
			return true
		}
	}
}

// meeting lets reserves wait until n of them have come. So the pages have asked before any of them
// learns of another one's hold.
func meeting(n int64) func(http.ResponseWriter, *http.Request) bool {
	var come atomic.Int64
	all := make(chan struct{})
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.Path != "/api/reservations" {
			return false
		}
		if come.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
		}
		return false
	}
}

// losing lets matching requests take effect, and drops the answers of the first ones.
func (s *stack) losing(method, suffix string, times int64) *atomic.Int64 {
	var lost atomic.Int64
	s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) || lost.Add(1) > times {
			return false
		}
		s.gateway.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler) // net/http drops the connection, and says nothing
	})
	return &lost
}

// hold is a reservation in an answer of the API.
type hold struct {
	ID, Status string
	ExpiresAt  time.Time
}

// reserve makes a hold without the browser.
func (s *stack) reserve(ttl int, lines ...string) hold {
	s.t.Helper()
	body := fmt.Sprintf(`{"items":[%s],"ttlSeconds":%d}`, strings.Join(lines, ","), ttl)
	return s.call("/api/reservations", body, http.StatusCreated)
}

func (s *stack) resolve(id, verb string) hold {
	s.t.Helper()
	return s.call("/api/reservations/"+id+"/"+verb, "", http.StatusOK)
}

func (s *stack) call(path, body string, want int) hold {
	s.t.Helper()
	r := httptest.NewRequestWithContext(
		s.t.Context(),
		http.MethodPost,
		path,
		strings.NewReader(body),
	)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if s.issuer != nil {
		r.Header.Set("Authorization", "Bearer "+s.issuer.token(grant.GroupAdmin))
	}
	w := httptest.NewRecorder()
	s.gateway.ServeHTTP(w, r)
	var answer struct{ Reservation hold }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != want {
		s.t.Fatalf("POST %s = %d %s, %v, want %d", path, w.Code, w.Body, err, want)
	}
	return answer.Reservation
}

// line is the JSON of one line: a quantity of the demo's product p from its warehouse w.
func line(p, w, quantity int) string {
	return fmt.Sprintf(
		`{"productId":"%s","warehouseId":"%s","quantity":%d}`,
		demo.Products()[p].ID,
		demo.Warehouses()[w].ID,
		quantity,
	)
}

// The indexes of the demo's products and warehouses.
const (
	headphones, keyboard, mug, lamp   = 0, 1, 2, 3
	camera                            = 8
	sanFrancisco, newYork, losAngeles = 0, 1, 2
)

// killDayAgo moves the times of a hold back, so that it died a day ago.
func (s *stack) killDayAgo(h hold) {
	s.t.Helper()
	s.db.KillAgo(24*time.Hour, uuid.MustParse(h.ID))
}

// pastHour adds an hour of holds to the operator's figures, and an audit that found nothing.
func (s *stack) pastHour() {
	s.t.Helper()
	s.db.Exec(`
INSERT INTO minute_counts (minute, held, confirmed, released, expired)
SELECT date_bin('1 minute', now(), 'epoch') - interval '1 minute' * i,
       2 + (i * i * 7) % 5, 1 + (i * 11) % 4, (i * 5) % 3 % 2, (i * 7) % 5 / 3
FROM generate_series(1, 58) i`)
	s.db.Exec("INSERT INTO last_audit (at, violations, unfinished) " +
		"VALUES (now() - interval '20 minutes', 0, false)")
}

// wantHolds fails the test unless the number of reservations, in any status, is want.
func (s *stack) wantHolds(want int) {
	s.t.Helper()
	if got := pgtest.QueryOne[int](s.db, "SELECT count(*) FROM reservations"); got != want {
		s.t.Errorf("there are %d reservations, want %d", got, want)
	}
}

// startChromium starts a browser that ends with the test.
func startChromium(t *testing.T) context.Context {
	t.Helper()
	path, err := findChromium()
	if err != nil {
		t.Fatal(err)
	}
	options := append(
		chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.DisableGPU,
		chromedp.Flag("hide-scrollbars", true),
		// Without it Chromium drops a click in a page that it hasn't drawn yet.
		chromedp.Flag("allow-pre-commit-input", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses root otherwise
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// errNoChromium tells how to install Chromium.
var errNoChromium = errors.New("no Chromium found: install it " +
	"(Debian: apt-get install chromium-headless-shell), or set CHROMIUM to its path")

// findChromium prefers the headless shell. It is the same engine without the pages of a browser's
// own window, which take half of the processor's time.
func findChromium() (string, error) {
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path, nil
	}
	names := []string{
		"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome",
		"google-chrome-stable",
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoChromium
}
