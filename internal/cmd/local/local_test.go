package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/pgserver"
)

// startLimit bounds the wait for a start on a machine that is busy with other tests.
const startLimit = 60 * time.Second

// output is what the program prints, safe to read while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// program is a run of the program in this process.
type program struct {
	output *output
	url    string
	stop   func() error
}

func testOptions(t *testing.T) options {
	t.Helper()
	return options{root: "../../..", data: t.TempDir()}
}

// testConfig leaves the port to the system: one that was looked for may be taken again when it is listened on, if only by a child that
// another test's start has forked and that has yet to let go of what was open.
func testConfig() config.Config {
	return config.Config{
		Host: "127.0.0.1", Port: 0, HoldTTL: 10 * time.Minute, MaxHold: time.Hour, SweepInterval: time.Second,
		LogLevel: slog.LevelWarn,
	}
}

// await waits until the condition holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startLimit); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it didn't come about in time")
		}
		<-time.After(5 * time.Millisecond)
	}
}

// start runs the program until it says that it is ready.
func start(t *testing.T, opts options, c config.Config) program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := program{output: &output{}}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, opts, c, p.output) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = p.stop() })

	await(t, func() bool {
		select {
		case err := <-done:
			done <- err // for stop, which waits for it too
			t.Fatalf("the program ended with %v before it was ready; it said:\n%s", err, p.output)
		default:
		}
		return strings.Contains(p.output.String(), "Ready in")
	})
	_, rest, _ := strings.Cut(p.output.String(), "http://")
	address, _, _ := strings.Cut(rest, " ")
	p.url = "http://" + address
	return p
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url) //nolint:gosec // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s = %d %s, %v, want 200", url, response.StatusCode, body, err)
	}
	return string(body)
}

const reserveMug = `{"productId":"0192d000-0000-7000-8000-000000000103","warehouseId":"0192d000-0000-7000-8000-000000000003","quantity":1}`

func reserve(t *testing.T, p program) int {
	t.Helper()
	response, err := http.Post(p.url+"/api/reservations", "application/json", strings.NewReader(reserveMug))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestTheServiceKeepsItsDataFromOneRunToTheNext(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	first := start(t, opts, c)
	for _, step := range []string{"creating", "starting Postgres", "0001_schema.sql", "seeded the demo catalog"} {
		if !strings.Contains(first.output.String(), step) {
			t.Errorf("the first start said %q, want it to tell of %q", first.output, step)
		}
	}
	if page := get(t, first.url+"/"); !strings.Contains(page, "<html") {
		t.Errorf("page = %s, want HTML", page)
	}
	if got := reserve(t, first); got != http.StatusCreated {
		t.Errorf("reserving the last mug = %d, want 201", got)
	}
	if err := first.stop(); err != nil {
		t.Errorf("stop = %v, want a clean end", err)
	}
	if _, running := pgserver.RunningURL(opts.cluster(), databaseName); running {
		t.Error("the server outlived the program")
	}

	second := start(t, opts, c)
	if strings.Contains(second.output.String(), "seeded") {
		t.Errorf("the second start said %q, want it to leave the data alone", second.output)
	}
	if got := reserve(t, second); got != http.StatusConflict {
		t.Errorf("reserving the mug that is held = %d, want 409", got)
	}
}

func TestSeedPutsTheCatalogBackWhileTheServiceRuns(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	p := start(t, opts, c)
	if got := reserve(t, p); got != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", got)
	}
	if err := seed(t.Context(), opts, c, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := reserve(t, p); got != http.StatusCreated {
		t.Errorf("reserving the last mug after a seed = %d, want 201", got)
	}
	if err := reset(opts, c, io.Discard); err == nil {
		t.Error("reset removed the data of a server that runs")
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if err := reset(opts, c, io.Discard); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(opts.data, "*")); len(left) > 0 {
		t.Errorf("reset left %v", left)
	}
}

func TestTheMinuteRuleSweeps(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	p := start(t, opts, c)
	if got := reserve(t, p); got != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", got)
	}
	url, running := pgserver.RunningURL(opts.cluster(), databaseName)
	if !running {
		t.Fatal("no server runs")
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `UPDATE reservations SET created_at = created_at - interval '1 h',
		updated_at = updated_at - interval '1 h', expires_at = expires_at - interval '1 h'`); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		var status string
		if err := conn.QueryRow(t.Context(), "SELECT status FROM reservations").Scan(&status); err != nil {
			t.Fatal(err)
		}
		return status == "EXPIRED"
	})
}

func TestWhatIsWrongIsSaidInOneLine(t *testing.T) {
	t.Parallel()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := testConfig()
	taken.Port = l.Addr().(*net.TCPAddr).Port
	remote := testConfig()
	remote.DatabaseURL = "postgres://u:p@db.example/d"
	unreachable := testConfig()
	unreachable.DatabaseURL = "postgres://u:p@127.0.0.1:1/d"
	unbuilt := testOptions(t)
	unbuilt.lambdas = t.TempDir()

	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a taken port", func() error { return serve(t.Context(), testOptions(t), taken, io.Discard) }, "is taken"},
		{"a verb that isn't one", func() error { return run(t.Context(), []string{"jump"}, io.Discard, io.Discard) }, "unknown verb"},
		{"no verb", func() error { return run(t.Context(), nil, io.Discard, io.Discard) }, "run, seed or reset"},
		{"an extra argument", func() error { return run(t.Context(), []string{"run", "x"}, io.Discard, io.Discard) }, "unexpected argument"},
		{"functions that aren't built", func() error { return serve(t.Context(), unbuilt, testConfig(), io.Discard) }, "isn't built"},
		{"a seed of another machine", func() error { return seed(t.Context(), testOptions(t), remote, io.Discard) }, "say so twice"},
		{"a database that can't be reached", func() error { return serve(t.Context(), testOptions(t), unreachable, io.Discard) }, "DATABASE_URL can't be used"},
		{"a reset of somebody else's database", func() error { return reset(testOptions(t), remote, io.Discard) }, "DATABASE_URL is set"},
	} {
		err := c.do()
		if err == nil || !strings.Contains(oneLine(err), c.want) {
			t.Errorf("%s: error = %v, want one line that says %q", c.name, err, c.want)
		}
	}
}

func TestAServerThatEndsEndsTheProgram(t *testing.T) {
	t.Parallel()

	d := database{server: nil}
	if d.stopped() != nil || d.stop() != nil {
		t.Error("a database that somebody else runs is ours to stop")
	}
	opts, c := testOptions(t), testConfig()
	done := make(chan error, 1)
	var out output
	go func() { done <- serve(context.Background(), opts, c, &out) }()
	await(t, func() bool {
		select {
		case err := <-done:
			t.Fatalf("the program ended with %v before it was ready; it said:\n%s", err, &out)
		default:
		}
		return strings.Contains(out.String(), "Ready in")
	})
	url, _ := pgserver.RunningURL(opts.cluster(), databaseName)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	// What an operator would do by accident: the postmaster ends, and with it, most often, the statement that made it.
	_, _ = conn.Exec(t.Context(), "COPY (SELECT 1) TO PROGRAM 'kill -INT $(head -1 postmaster.pid)'")
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "the Postgres server ended") {
			t.Errorf("serve() = %v, want it to say that the server ended", err)
		}
	case <-time.After(startLimit):
		t.Error(errors.New("the program runs on without its server"))
	}
}
