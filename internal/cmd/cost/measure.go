package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/route"
)

const (
	// rounds is how many calls of a route are measured. The demo's stock has room for them.
	rounds = 12
	// longestAnswer bounds an answer that is read.
	longestAnswer = 1 << 20
	database      = "postgres"
	// mostPages is more than the pages of the journey's events.
	mostPages = 100
)

// measure measures the checkout in root, and the templates of a dev and a prod stack.
func measure(ctx context.Context, root, dev, prod string) (m measured, err error) {
	if m.Dev, m.AccessLogBytes, err = readTemplate(dev); err != nil {
		return m, err
	}
	if m.Prod, _, err = readTemplate(prod); err != nil {
		return m, err
	}
	m.PlatformBytes = platformBytes()
	m.On = fmt.Sprintf("%s, %s/%s, %d processors",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	m.Calls, m.Outbox, err = measureCalls(ctx, root)
	return m, err
}

// measureCalls runs the functions of the journey on a fresh database.
func measureCalls(ctx context.Context, root string) (calls map[string]call, idle call, err error) {
	bin, err := pgserver.Find(root)
	if err != nil {
		return nil, idle, err
	}
	dir, err := os.MkdirTemp("", "allo-cost-")
	if err != nil {
		return nil, idle, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	//nolint:gosec // it holds nothing secret, and the server may run as another user
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, idle, err
	}
	server, err := pgserver.Start(ctx,
		pgserver.Config{BinDir: bin, DataDir: filepath.Join(dir, "data")})
	if err != nil {
		return nil, idle, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	url := server.URL(database)
	if _, err := migrate.Up(ctx, postgres.URL(url)); err != nil {
		return nil, idle, err
	}
	if _, err := demo.SeedEmpty(ctx, url); err != nil {
		return nil, idle, err
	}
	world := &world{root: root, dir: dir, env: []string{
		"DATABASE_URL=" + url, "METRIC_NAMESPACE=AlloReservations/allo-prod", "EVENT_SOURCE=allo-prod",
	}}
	if calls, err = world.journey(ctx); err != nil {
		return nil, idle, err
	}
	idle, err = world.outbox(ctx)
	return calls, idle, err
}

// world is where the functions run.
type world struct {
	root, dir string
	env       []string
}

// journey measures each step in its order: later steps need the holds of an earlier one.
func (w *world) journey(ctx context.Context) (map[string]call, error) {
	calls := map[string]call{}
	var holds []string
	for _, s := range journey {
		c, answers, err := w.calls(ctx, s, holds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Route, err)
		}
		calls[s.Route] = c
		if s.Function == "reserve" {
			if holds, err = holdsOf(answers); err != nil {
				return nil, err
			}
		}
	}
	return calls, nil
}

func holdsOf(answers [][]byte) (ids []string, err error) {
	for _, text := range answers {
		var answer struct {
			Reservation struct{ ID string }
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return nil, err
		}
		ids = append(ids, answer.Reservation.ID)
	}
	return ids, nil
}

// calls measures the calls of one function, which runs behind the gateway in one process. The first
// call starts the process, and isn't measured.
func (w *world) calls(ctx context.Context, s step, holds []string) (c call, _ [][]byte, err error) {
	f, err := w.start(ctx, s.Function)
	if err != nil {
		return c, nil, err
	}
	var routes []route.Route
	for _, r := range route.API() {
		if r.Key() == s.Route {
			routes = append(routes, r)
		}
	}
	gateway, err := local.NewGateway(routes, map[string]local.Invoker{s.Function: f},
		slog.New(slog.DiscardHandler))
	if err != nil {
		return c, nil, errors.Join(err, f.Close())
	}
	server := httptest.NewServer(gateway)
	defer server.Close()
	var answers [][]byte
	for n := range rounds {
		answer, sent, err := ask(ctx, server.URL, s, n, holds)
		if err != nil {
			return c, nil, errors.Join(err, f.Close())
		}
		answers = append(answers, answer)
		c.AnswerBytes += float64(len(answer)) / rounds
		c.SentBytes += float64(sent) / rounds
	}
	c.Ms, c.LogBytes, err = f.measured()
	return c, answers, err
}

// unpacked returns the body of an answer, and how many bytes of it were sent. It doesn't leave that
// to Go's client, which wouldn't tell what was sent.
func unpacked(response *http.Response) (body []byte, sent int, err error) {
	body, err = io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	sent = len(body)
	if err != nil || response.Header.Get("Content-Encoding") != "gzip" {
		return body, sent, err
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, sent, err
	}
	body, err = io.ReadAll(io.LimitReader(r, longestAnswer))
	return body, sent, err
}

// ask makes the nth call of a step, as a browser does, which accepts gzip. It returns the answer
// and how many bytes of it were sent.
func ask(
	ctx context.Context, url string, s step, n int, holds []string,
) (answer []byte, sent int, err error) {
	method, path, _ := strings.Cut(s.Route, " ")
	if len(holds) > 0 {
		path = strings.Replace(path, "{id}", holds[n], 1)
	}
	product, warehouse := demo.Products()[2], demo.Warehouses()[0]
	body := map[string]string{
		"reserve": fmt.Sprintf(`{"productId":"%s","warehouseId":"%s","quantity":1}`,
			product.ID, warehouse.ID),
		"start-payment": `{"paymentReference":"pi_3MtwBwLkdIwHu7ix28a3tqPa","ttlSeconds":900}`,
		"confirm":       `{"paymentReference":"pi_3MtwBwLkdIwHu7ix28a3tqPa"}`,
	}[s.Function]
	request, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept-Encoding", "gzip")
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPost {
		request.Header.Set("Idempotency-Key", fmt.Sprintf("%s-%d", s.Function, n))
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }() // what was read is read
	answer, sent, err = unpacked(response)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("answer %d: %s", response.StatusCode, answer)
	}
	return answer, sent, err
}

// outbox measures a call of the outbox when it has no news, as the relay makes it again and again.
func (w *world) outbox(ctx context.Context) (c call, err error) {
	last, err := w.drain(ctx)
	if err != nil {
		return c, err
	}
	f, err := w.start(ctx, "outbox")
	if err != nil {
		return c, err
	}
	for range rounds {
		if _, err := f.Invoke(ctx, last); err != nil {
			return c, errors.Join(err, f.Close())
		}
	}
	c.Ms, c.LogBytes, err = f.measured()
	return c, err
}

// drain takes every event of a place from the outbox, and returns the request that gets none.
func (w *world) drain(ctx context.Context) (last []byte, err error) {
	f, err := w.start(ctx, "outbox")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	request := events.Request{Sink: "topic-holds", Lease: uuid.NewString(), Patient: true}
	for range mostPages {
		if last, err = json.Marshal(request); err != nil {
			return nil, err
		}
		answer, err := f.Invoke(ctx, last)
		if err != nil {
			return nil, err
		}
		var page events.Page
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, err
		}
		if page.Position == "" {
			return last, nil
		}
		request.Ack = page.Position
	}
	return nil, fmt.Errorf("the outbox has events after %d pages", mostPages)
}

// function is a built function whose calls are timed and whose log is kept.
type function struct {
	*local.Runtime
	log bytes.Buffer // read it after Close

	mu   sync.Mutex
	took []time.Duration
}

// start builds a function for this machine and makes a runtime for it, of one process.
func (w *world) start(ctx context.Context, name string) (*function, error) {
	binary := filepath.Join(w.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-tags", "lambda.norpc", "-o", binary, "./functions/"+name)
	cmd.Dir, cmd.Env = w.root, append(cmd.Environ(), "CGO_ENABLED=0")
	if message, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", name, err, message)
	}
	f := &function{}
	f.Runtime = local.NewRuntime(local.RuntimeConfig{
		Name: "allo-prod-" + name, Binary: binary, Env: w.env, MaxInstances: 1,
		Stdout: &f.log, Stderr: &f.log,
	})
	return f, nil
}

// Invoke times an invocation.
func (f *function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	start := time.Now()
	answer, err := f.Runtime.Invoke(ctx, payload)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = append(f.took, time.Since(start))
	return answer, err
}

// measured ends the function. It returns the median of its times in milliseconds and the mean bytes
// of its log.
func (f *function) measured() (ms, logBytes float64, err error) {
	if err := f.Close(); err != nil {
		return 0, 0, err
	}
	warm := f.took[1:]
	slices.Sort(warm)
	return float64(warm[len(warm)/2].Microseconds()) / 1000,
		float64(f.log.Len()) / float64(len(f.took)), nil
}
