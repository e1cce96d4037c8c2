package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/reservation"
)

// reserveEvent returns the gateway's event for a reservation.
func reserveEvent(l reservation.Line) []byte {
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: "POST /api/reservations", RawPath: "/api/reservations",
		Headers: map[string]string{
			"content-type": "application/json", "accept": "*/*", "host": "shop.example",
			"user-agent":      "bench/1.0",
			"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https",
			"x-amzn-trace-id": "Root=1-0-0",
		},
		Body: string(reserveBody(l)),
	}
	event.RequestContext.RouteKey = event.RouteKey
	event.RequestContext.Stage = "$default"
	event.RequestContext.RequestID = "bench"
	event.RequestContext.HTTP.Method = http.MethodPost
	event.RequestContext.HTTP.Path = event.RawPath
	event.RequestContext.HTTP.SourceIP = "192.0.2.7"
	b, err := json.Marshal(event)
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}

// invoke sends an event to a function and expects a 201.
func invoke(ctx context.Context, function local.Invoker, event []byte) error {
	payload, err := function.Invoke(ctx, event)
	if err != nil {
		return err
	}
	if !strings.Contains(string(payload), `"statusCode":201`) {
		return fmt.Errorf("the function answered %s", payload)
	}
	return nil
}

// waitingConn adds up the time from each write to the end of the next read: the time the client
// waits for the database.
type waitingConn struct {
	net.Conn
	wrote  time.Time
	waited *atomic.Int64
}

func (c *waitingConn) Write(b []byte) (int, error) {
	c.wrote = time.Now()
	return c.Conn.Write(b)
}

func (c *waitingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.wrote.IsZero() {
		c.waited.Add(int64(time.Since(c.wrote)))
		c.wrote = time.Time{}
	}
	return n, err
}

// overhead measures a Lambda's own time for one call: from the event's bytes to the answer's, less
// the wait for the database.
func overhead(ctx context.Context, s *server, _ options) ([]shape, []*result, error) {
	const calls, wantUs = 5000, 150.0
	if err := s.load(ctx, manyRows, ample); err != nil {
		return nil, nil, err
	}
	var waited atomic.Int64
	a, err := newApp(ctx, s.url(),
		&network{wrap: func(c net.Conn) net.Conn { return &waitingConn{Conn: c, waited: &waited} }})
	if err != nil {
		return nil, nil, err
	}
	defer a.Close()
	function := local.Handler(a.HTTP("reserve"))

	var own []time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := range calls {
		event := reserveEvent(stockLine(n, 1))
		waited.Store(0)
		start := time.Now()
		if err := invoke(ctx, function, event); err != nil {
			return nil, nil, err
		}
		own = append(own, time.Since(start)-time.Duration(waited.Load()))
	}
	runtime.ReadMemStats(&after)
	slices.Sort(own)
	p50 := us(own[calls/2])
	return []shape{{
		Name: "overhead", Wanted: fmt.Sprintf("p50 under %g µs", wantUs), Met: p50 < wantUs,
		Figures: map[string]float64{
			"p50 µs": p50, "p99 µs": us(own[calls*99/100]),
			"allocations a call (making the event included)": float64(after.Mallocs-before.Mallocs) / calls,
		},
	}}, nil, nil
}

// flags are those of the Makefile's build.
var flags = []string{
	"build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc", "-ldflags",
	"-s -w -buildid=",
}

// buildFor builds the binary of a package for an architecture. It returns its path and its size in
// MB.
func buildFor(ctx context.Context, o options, dir, arch, pkg string) (string, float64, error) {
	out := filepath.Join(dir, arch+"-"+filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", append(slices.Clone(flags), "-o", out, pkg)...)
	cmd.Dir = o.root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if message, err := cmd.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("%s: %w: %s", cmd, err, message)
	}
	info, err := os.Stat(out)
	if err != nil {
		return "", 0, err
	}
	return out, float64(info.Size()) / 1e6, nil
}

// start is one cold start of a binary, as the Runtime API sees it: the times to the first poll and
// to the first answer.
type start struct{ poll, answer time.Duration }

// startLimit bounds a cold start.
const startLimit = 20 * time.Second

// startOnce runs a binary until it has answered one event.
func startOnce(ctx context.Context, binary, url string, event []byte) (start, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return start{}, err
	}
	polled, answered := make(chan time.Time, 1), make(chan time.Time, 1)
	var polls atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next",
		func(w http.ResponseWriter, r *http.Request) {
			if polls.Add(1) > 1 {
				<-r.Context().Done() // there is no second event
				return
			}
			polled <- time.Now()
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "bench")
			w.Header().Set("Lambda-Runtime-Deadline-Ms",
				strconv.FormatInt(time.Now().Add(startLimit).UnixMilli(), 10))
			_, _ = w.Write(event)
		})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/bench/response",
		func(w http.ResponseWriter, _ *http.Request) {
			answered <- time.Now()
			w.WriteHeader(http.StatusAccepted)
		})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: startLimit}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }() // which ends the poll for a second event

	cmd := exec.CommandContext(ctx, binary, url)
	cmd.Env = []string{"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String(), "DATABASE_URL=" + url}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return start{}, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	var s start
	for range 2 {
		select {
		case at := <-polled:
			s.poll = at.Sub(began)
		case at := <-answered:
			s.answer = at.Sub(began)
		case <-ctx.Done():
			return s, fmt.Errorf("%s: %w", binary, ctx.Err())
		}
	}
	return s, nil
}

// largestInit returns the longest initialization of any package, in milliseconds, as the runtime
// traces it. It takes the least of several starts, as a process that is interrupted counts the
// interruption too.
func largestInit(ctx context.Context, binary string) (float64, error) {
	least := map[string]float64{}
	for range 5 {
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = []string{
			"GODEBUG=inittrace=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1",
			"DATABASE_URL=postgres://nobody@127.0.0.1:1/none",
		}
		out, _ := cmd.CombinedOutput() // it ends with an error, as nobody listens
		for l := range strings.Lines(string(out)) {
			f := strings.Fields(l) // init net/http @1.2 ms, 0.05 ms clock, ...
			if len(f) < 6 || f[0] != "init" {
				continue
			}
			took, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				return 0, err
			}
			if was, seen := least[f[1]]; !seen || took < was {
				least[f[1]] = took
			}
		}
	}
	most := 0.0
	for _, took := range least {
		most = max(most, took)
	}
	if most == 0 {
		return 0, errors.New("no trace of package initializations")
	}
	return most, nil
}

// coldStart starts the binaries in turn and compares the medians: the first poll with a Lambda that
// does nothing, the first answer with one that connects and runs one query.
func coldStart(ctx context.Context, s *server, o options) ([]shape, []*result, error) {
	const starts = 21
	const wantPoll, wantAnswer, wantInit = 1.4, 1.3, 1.0
	if err := s.load(ctx, manyRows, ample); err != nil {
		return nil, nil, err
	}
	own := "./functions/reserve"
	packages := []string{
		"./internal/cmd/bench/coldstart/hello", "./internal/cmd/bench/coldstart/bare", own,
	}
	binaries := map[string]string{}
	for _, pkg := range packages {
		var err error
		if binaries[pkg], _, err = buildFor(ctx, o, s.dir, runtime.GOARCH, pkg); err != nil {
			return nil, nil, err
		}
	}
	sizes, err := binarySizes(ctx, o, s.dir)
	if err != nil {
		return nil, nil, err
	}
	init, err := largestInit(ctx, binaries[own])
	if err != nil {
		return nil, nil, err
	}
	polls, answers := map[string][]float64{}, map[string][]float64{}
	for n := range starts {
		for _, pkg := range packages {
			st, err := startOnce(ctx, binaries[pkg], s.url(), reserveEvent(stockLine(n, 1)))
			if err != nil {
				return nil, nil, err
			}
			polls[pkg], answers[pkg] = append(polls[pkg], ms(st.poll)), append(answers[pkg], ms(st.answer))
		}
	}
	hello, bare := packages[0], packages[1]
	poll, answer := median(polls[own])/median(polls[hello]), median(answers[own])/median(answers[bare])
	sizes["largest init ms"] = init
	return []shape{
		{
			Name:   "cold start, to the first poll",
			Wanted: fmt.Sprintf("ours within %g of hello world", wantPoll),
			Met:    poll <= wantPoll,
			Figures: map[string]float64{
				"hello ms": median(polls[hello]), "bare pgx ms": median(polls[bare]),
				"ours ms": median(polls[own]), "ours to hello": poll,
			},
		},
		{
			Name:   "cold start, to the first answer",
			Wanted: fmt.Sprintf("ours, a reserve, within %g of a bare connect and query", wantAnswer),
			Met:    answer <= wantAnswer,
			Figures: map[string]float64{
				"hello ms": median(answers[hello]), "bare pgx ms": median(answers[bare]),
				"ours ms": median(answers[own]), "ours to bare": answer,
			},
		},
		{
			Name: "binaries",
			Wanted: fmt.Sprintf("MB for arm64, which `make reproducible` bounds; "+
				"no package's init over %g ms", wantInit),
			Met: init <= wantInit, Figures: sizes,
		},
	}, nil, nil
}

// binarySizes returns the sizes in MB of every function, and of the Lambda that does nothing, for
// arm64.
func binarySizes(ctx context.Context, o options, dir string) (map[string]float64, error) {
	functions, err := filepath.Glob(filepath.Join(o.root, "functions", "*"))
	if err != nil {
		return nil, err
	}
	sizes := map[string]float64{}
	if _, sizes["hello"], err = buildFor(ctx, o, dir, "arm64",
		"./internal/cmd/bench/coldstart/hello"); err != nil {
		return nil, err
	}
	for _, function := range functions {
		name := filepath.Base(function)
		if _, sizes[name], err = buildFor(ctx, o, dir, "arm64", "./functions/"+name); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// memory invokes one instance of the built function again and again, and checks that its memory
// does not grow.
func memory(ctx context.Context, s *server, o options) (_ []shape, _ []*result, err error) {
	const calls, settled, most = 100_000, 20_000, 1.1
	if err := s.load(ctx, manyRows, ample); err != nil {
		return nil, nil, err
	}
	binary, _, err := buildFor(ctx, o, s.dir, runtime.GOARCH, "./functions/reserve")
	if err != nil {
		return nil, nil, err
	}
	function := local.NewRuntime(local.RuntimeConfig{
		Name: "reserve", Binary: binary, MaxInstances: 1,
		Env:    []string{"DATABASE_URL=" + s.url(), "LOG_LEVEL=error"},
		Stdout: os.Stderr, Stderr: os.Stderr, Log: discard,
	})
	defer func() { err = errors.Join(err, function.Close()) }()
	resident := map[int]float64{}
	for n := 1; n <= calls; n++ {
		if err := invoke(ctx, function, reserveEvent(stockLine(n%manyRows, 1))); err != nil {
			return nil, nil, err
		}
		if n == settled || n == calls {
			resident[n] = residentMB(os.Getpid(), binary)
		}
	}
	grown := resident[calls] / resident[settled]
	return []shape{{
		Name:   "memory of a Lambda over 100,000 calls",
		Wanted: fmt.Sprintf("at most %g of what it was after 20,000", most),
		Met:    grown > 0 && grown <= most,
		Figures: map[string]float64{
			"MB after 20,000":  resident[settled],
			"MB after 100,000": resident[calls],
			"grown to":         grown,
		},
	}}, nil, nil
}
