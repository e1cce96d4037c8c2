package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// startLimit bounds the wait for a start. It is long because other tests keep the machine busy.
const startLimit = 60 * time.Second

// output collects what the program prints. It is safe to read while the program runs.
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

// program is one run of the program, in this process.
type program struct {
	output *output
	url    string
	stop   func() error
}

func testOptions(t *testing.T) options {
	t.Helper()
	return options{root: "../../..", data: t.TempDir()}
}

// testConfig leaves the choice of the port to the system. A free port that a test looked for may be
// taken again when the program listens on it.
func testConfig() config.Config {
	return config.Config{
		Host: "127.0.0.1", Port: 0, HoldTTL: 10 * time.Minute, MaxHold: time.Hour,
		SweepInterval: time.Second, LogLevel: slog.LevelWarn,
	}
}

// waitUntil waits until the condition holds.
func waitUntil(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startLimit); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition didn't hold in time")
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

	waitUntil(t, func() bool {
		select {
		case err := <-done:
			done <- err // for stop, which waits for it too
			t.Fatalf("the program ended with %v before it was ready; it printed:\n%s", err, p.output)
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

// lastMug is a request for the demo catalog's only mug in Los Angeles.
const lastMug = `{"productId":"0192d000-0000-7000-8000-000000000103",
	"warehouseId":"0192d000-0000-7000-8000-000000000003","quantity":1}`

// reserveLastMug returns the status of the answer.
func reserveLastMug(t *testing.T, p program) int {
	t.Helper()
	response, err := http.Post(
		p.url+"/api/reservations",
		"application/json",
		strings.NewReader(lastMug),
	)
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
	for _, step := range []string{
		"creating", "starting Postgres", "0001_schema.sql", "seeded the demo catalog",
	} {
		if !strings.Contains(first.output.String(), step) {
			t.Errorf("the first start printed %q, want it to name %q", first.output, step)
		}
	}
	if page := get(t, first.url+"/"); !strings.Contains(page, "<html") {
		t.Errorf("page = %s, want HTML", page)
	}
	if got := reserveLastMug(t, first); got != http.StatusCreated {
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
		t.Errorf("the second start printed %q, want it to keep the data", second.output)
	}
	if got := reserveLastMug(t, second); got != http.StatusConflict {
		t.Errorf("reserving the held mug = %d, want 409", got)
	}
}

func TestSeedPutsTheCatalogBackWhileTheServiceRuns(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	p := start(t, opts, c)
	if got := reserveLastMug(t, p); got != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", got)
	}
	if err := seed(t.Context(), opts, c, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := reserveLastMug(t, p); got != http.StatusCreated {
		t.Errorf("reserving the last mug after a seed = %d, want 201", got)
	}
	if err := reset(opts, c, io.Discard); err == nil {
		t.Error("reset removed the data of a running server")
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
	if got := reserveLastMug(t, p); got != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", got)
	}
	url, running := pgserver.RunningURL(opts.cluster(), databaseName)
	if !running {
		t.Fatal("no server runs")
	}
	db := pgtest.NewFixture(t, pgtest.Database{DirectURL: url})
	db.Kill(uuid.MustParse(pgtest.QueryOne[string](db, "SELECT id::text FROM reservations")))
	db.WaitUntil("SELECT status = 'EXPIRED' FROM reservations")
}

func TestErrorsNameTheRemedyInOneLine(t *testing.T) {
	t.Parallel()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := testConfig()
	taken.Port = l.Addr().(*net.TCPAddr).Port
	remote, unreachable := testConfig(), testConfig()
	remote.DatabaseURL = "postgres://u:p@db.example/d"
	unreachable.DatabaseURL = "postgres://u:secret@127.0.0.1:1/d"
	unbuilt := testOptions(t)
	unbuilt.lambdas = t.TempDir()
	old := testOptions(t)
	if err := os.MkdirAll(old.cluster(), 0o700); err != nil {
		t.Fatal(err)
	}
	version := filepath.Join(old.cluster(), "PG_VERSION")
	if err := os.WriteFile(version, []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	local := func(args ...string) func() error {
		return func() error { return run(t.Context(), args, io.Discard, io.Discard) }
	}
	for name, c := range map[string]struct {
		do   func() error
		want string
	}{
		"port taken": {
			func() error { return serve(t.Context(), testOptions(t), taken, io.Discard) },
			"is taken: stop the program that listens there, or choose another port (PORT=",
		},
		"unknown verb":   {local("jump"), "unknown verb"},
		"no verb":        {local(), "run, events, seed, psql or reset"},
		"extra argument": {local("run", "x"), "unexpected argument"},
		"function not built": {
			func() error { return serve(t.Context(), unbuilt, testConfig(), io.Discard) },
			"isn't built: type `make run-lambdas`",
		},
		"seed of another machine": {
			func() error { return seed(t.Context(), testOptions(t), remote, io.Discard) },
			"'-remote -erase-everything'",
		},
		"database unreachable by run": {
			func() error { return serve(t.Context(), testOptions(t), unreachable, io.Discard) },
			"can't use the database of DATABASE_URL: ",
		},
		"database unreachable by seed": {
			func() error { return seed(t.Context(), testOptions(t), unreachable, io.Discard) },
			"can't use the database of DATABASE_URL: ",
		},
		"a webhook elsewhere over http": {
			func() error {
				elsewhere := testOptions(t)
				elsewhere.webhook = "http://example.com/hook"
				return serve(t.Context(), elsewhere, testConfig(), io.Discard)
			},
			"the webhook's URL: it must be a URL with https, or with http to this machine",
		},
		"reset with DATABASE_URL": {
			func() error { return reset(testOptions(t), remote, io.Discard) }, "DATABASE_URL is set",
		},
		"data of another Postgres": {
			func() error { return serve(t.Context(), old, testConfig(), io.Discard) },
			"holds data of Postgres 9, which Postgres 17 can't read: type `make reset`",
		},
		"data of another user": {
			func() error { return explainData(old, fmt.Errorf("open it: %w", fs.ErrPermission)) },
			"no permission to write in " + old.data,
		},
	} {
		err := c.do()
		if err == nil || !strings.Contains(oneLine(err), c.want) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error = %v, want one line that says %q", name, err, c.want)
		}
	}
}

// newClient makes a program that prints its arguments, its password and the server's status, as a
// stand-in for psql, which a machine may lack.
func newClient(t *testing.T, opts options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "psql")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" \"password=$PGPASSWORD\"\n" +
		"[ ! -e " + opts.cluster() + "/postmaster.pid ] || echo running\n"
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return name
}

func TestPsqlStartsAServerForTheSessionAlone(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	opts.rest = []string{"-c", "SELECT 1"}
	var got, progress output

	if err := runClient(t.Context(), newClient(t, opts), opts, c, &got, &progress); err != nil {
		t.Fatal(err)
	}

	lines := strings.Split(strings.TrimSpace(got.String()), "\n")
	if len(lines) != 5 || lines[1] != "-c" || lines[2] != "SELECT 1" || lines[4] != "running" {
		t.Fatalf("psql saw %q, want a URL, the arguments, a password and a running server", lines)
	}
	if password := strings.TrimPrefix(lines[3], "password="); password == "" ||
		strings.Contains(lines[0], password) {
		t.Errorf(
			"psql got the URL %q and %q, want the password in the environment only",
			lines[0],
			lines[3],
		)
	}
	if _, running := pgserver.RunningURL(opts.cluster(), databaseName); running {
		t.Error("the server outlived the session")
	}
}

func TestPsqlLeavesARunningServerAlone(t *testing.T) {
	t.Parallel()

	opts, c := testOptions(t), testConfig()
	start(t, opts, c)
	var got output

	if err := runClient(t.Context(), newClient(t, opts), opts, c, &got, io.Discard); err != nil {
		t.Fatal(err)
	}

	url, running := pgserver.RunningURL(opts.cluster(), databaseName)
	if !running {
		t.Fatal("the server ended with the session")
	}
	if address, _, _ := postgres.ClientURL(url); !strings.HasPrefix(got.String(), address+"\n") {
		t.Errorf("psql saw %q, want the URL %s first", &got, address)
	}
}

func TestTheProgramEndsWithItsServer(t *testing.T) {
	t.Parallel()

	d := database{server: nil}
	if d.stopped() != nil || d.stop() != nil {
		t.Error("the program would stop a server that it didn't start")
	}
	opts, c := testOptions(t), testConfig()
	done := make(chan error, 1)
	var out output
	go func() { done <- serve(context.Background(), opts, c, &out) }()
	waitUntil(t, func() bool {
		select {
		case err := <-done:
			t.Fatalf("the program ended with %v before it was ready; it printed:\n%s", err, &out)
		default:
		}
		return strings.Contains(out.String(), "Ready in")
	})
	url, _ := pgserver.RunningURL(opts.cluster(), databaseName)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	// An operator stops the postmaster by accident. Most often that ends this statement too.
	_, _ = conn.Exec(t.Context(), "COPY (SELECT 1) TO PROGRAM 'kill -INT $(head -1 postmaster.pid)'")
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "the Postgres server ended") {
			t.Errorf("serve() = %v, want an error that says that the server ended", err)
		}
	case <-time.After(startLimit):
		t.Error(errors.New("the program still runs without its server"))
	}
}

// The printed secret verifies what the endpoint gets, and `make events` shows it.
func TestAWebhookIsToldOfAHold(t *testing.T) {
	t.Parallel()

	type delivery struct {
		header http.Header
		body   []byte
	}
	deliveries := make(chan delivery, 100)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		deliveries <- delivery{r.Header, body}
	}))
	t.Cleanup(endpoint.Close)
	opts, c := testOptions(t), testConfig()
	opts.webhook = endpoint.URL + "/hook"
	p := start(t, opts, c)
	if got := reserveLastMug(t, p); got != http.StatusCreated {
		t.Fatalf("reserving the last mug = %d, want 201", got)
	}
	waitUntil(t, func() bool { return strings.Contains(p.output.String(), "signed with ") })
	_, secret, _ := strings.Cut(p.output.String(), "signed with ")
	receiver, err := standardwebhooks.NewWebhook(strings.TrimSpace(secret))
	if err != nil {
		t.Fatal(err)
	}
	for isHeld := false; !isHeld; {
		select {
		case d := <-deliveries:
			if err := receiver.Verify(d.body, d.header); err != nil {
				t.Errorf("the endpoint can't verify %s: %v", d.body, err)
			}
			isHeld = strings.Contains(string(d.body), `"type":"allo.reservation.held"`)
		case <-time.After(startLimit):
			t.Fatal("the endpoint wasn't told of the hold")
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	var shown output
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"events", "-data", opts.data}, &shown, io.Discard) }()
	waitUntil(t, func() bool { return strings.Contains(shown.String(), "reservation.held") })
	cancel()
	if err := <-ended; err != nil || !strings.Contains(shown.String(), "units 1, lines 1, by verb") {
		t.Errorf("the events are shown as\n%s\n%v", &shown, err)
	}
}
