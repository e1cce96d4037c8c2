package sam

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

var (
	assembly = flag.String("assembly", "", "an existing CDK assembly to use instead of a new one")
	engine   = flag.String(
		"engine", "",
		"a container engine's address, as in DOCKER_HOST, to use instead of the test's own podman",
	)
)

const (
	// prepareTimeout limits a run that compiles the CDK app or installs SAM for the first time.
	prepareTimeout = 10 * time.Minute
	// commandTimeout limits every other run. The longest takes about ten seconds.
	commandTimeout = 2 * time.Minute
	// startTimeout limits the wait until SAM listens, which takes about three seconds.
	startTimeout = time.Minute
	// stopTimeout limits the wait until SAM ends. SAM stops its containers one after the other.
	stopTimeout = time.Minute
	// pollEvery is how often a condition is checked.
	pollEvery = 50 * time.Millisecond
)

// root is the path of the checkout. script is the tool that the test rehearses.
const (
	root   = "../../.."
	script = "infra/sam/sam.sh"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestSAMRunsWhatTheCDKSynthesizes(t *testing.T) {
	t.Parallel()

	sam(t, prepareTimeout, nil, "tool")
	out := synthesized(t)

	t.Run("the template is valid", func(t *testing.T) { t.Parallel(); valid(t, out) })
	t.Run("the routes are the table's", func(t *testing.T) { t.Parallel(); mounted(t, out) })
	t.Run("the functions answer and sweep", func(t *testing.T) { t.Parallel(); answered(t, out) })
}

// synthesized returns a folder with an assembly: the flag's, or a new one outside the folder that
// developers use.
func synthesized(t *testing.T) string {
	t.Helper()
	if *assembly != "" {
		return *assembly
	}
	out := filepath.Join(t.TempDir(), "cdk.out")
	sam(t, prepareTimeout, []string{"OUT=" + out}, "synth")
	return out
}

// program is a run of the script, which becomes SAM.
type program struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr output
	ended  chan error
}

// output collects a program's output.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts the script with more environment variables, and kills it when the test ends. The
// script stays in the test's process group, so Ctrl-C ends it too.
func start(t *testing.T, more []string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(filepath.Join(root, script), args...), ended: make(chan error, 1)}
	p.cmd.Env = append(p.cmd.Environ(), more...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// A child that outlives the script keeps its output open. Don't wait for it.
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// wait waits until the program ends and returns its output.
func (p *program) wait(t *testing.T, limit time.Duration) (stdout string, err error) {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil // the script succeeded; its bridge ends a moment later
		}
		return p.stdout.String(), err
	case <-time.After(limit):
		t.Fatalf("%s takes longer than %s:\n%s", p.cmd, limit, &p.stderr)
		return "", nil
	}
}

// sam runs the script, which must succeed, and returns its output.
func sam(t *testing.T, limit time.Duration, more []string, args ...string) string {
	t.Helper()
	p := start(t, more, args...)
	out, err := p.wait(t, limit)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", p.cmd, err, out, &p.stderr)
	}
	return out
}

// valid checks that SAM's linter accepts the template and refuses a broken one.
func valid(t *testing.T, out string) {
	sam(t, commandTimeout, []string{"OUT=" + out}, "lint")

	broken := t.TempDir()
	text := bytes.Replace(
		template(t, out), []byte(`"Runtime": "provided.al2023"`),
		[]byte(`"Runtime": "provided.al1984"`), 1,
	)
	if err := os.WriteFile(filepath.Join(broken, "broken.template.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"OUT=" + broken}, "lint")
	if said, err := p.wait(t, commandTimeout); err == nil ||
		!strings.Contains(said+p.stderr.String(), "al1984") {
		t.Errorf(
			"sam validate accepts a runtime that doesn't exist: %q%s, %v", said, &p.stderr, err,
		)
	}
}

func template(t *testing.T, out string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(out, "*.template.json"))
	if err != nil || len(names) != 1 {
		t.Fatalf("the templates in %s are %v, %v; want one", out, names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// mounted checks that SAM serves the routes of the table, each by its function. That needs no
// container: SAM only checks that an engine answers before it lists its routes.
func mounted(t *testing.T, out string) {
	address := answeringEngine(t)
	api := startAPI(t, out, "postgres://unused.invalid/unused", address)

	var want []string
	for _, r := range route.All() {
		want = append(want, r.Key()+" "+r.Function)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, api.routes(t)); diff != "" {
		t.Errorf("SAM's routes differ from the table's (-table +SAM):\n%s", diff)
	}
}

// answeringEngine starts a stub that answers like a container engine but runs nothing, and returns
// its address.
func answeringEngine(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/networks/bridge") {
			fmt.Fprint(w, `{"IPAM": {"Config": [{"Gateway": "127.0.0.1"}]}}`)
			return
		}
		fmt.Fprint(w, "{}")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "unix://" + socket
}

// shortDir returns a temporary folder with a short path: socket paths are limited to about 100
// characters.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "allo-sam-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// api is a running `sam local start-api`.
type api struct {
	*program
	url string
}

// startAPI starts SAM, waits until it listens, and stops it when the test ends.
func startAPI(t *testing.T, out, databaseURL, engine string, options ...string) *api {
	t.Helper()
	port := freePort(t)
	environment := append(environment(out, databaseURL, engine), "PORT="+strconv.Itoa(port))
	a := &api{
		program: start(t, environment, append([]string{"api"}, options...)...),
		url:     "http://127.0.0.1:" + strconv.Itoa(port),
	}
	t.Cleanup(func() { a.stop(t) })
	waitFor(t, startTimeout, "SAM to listen", func() bool {
		select {
		case err := <-a.ended:
			a.ended <- err
			t.Fatalf("SAM ended before it listened: %v\n%s", err, &a.stderr)
		default:
		}
		return strings.Contains(a.stderr.String(), "Running on "+a.url)
	})
	return a
}

// environment returns the script's environment variables.
func environment(out, databaseURL, engine string) []string {
	return []string{"SYNTH=no", "OUT=" + out, "DATABASE_URL=" + databaseURL, "DOCKER_HOST=" + engine}
}

// stop ends SAM and checks that it ends without an error. It sends SIGTERM, because a shell may
// have made SAM ignore Ctrl-C.
func (a *api) stop(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return
	}
	if _, err := a.wait(t, stopTimeout); err != nil {
		t.Errorf("SAM ends with %v:\n%s", err, &a.stderr)
	}
}

// routes returns the routes that SAM mounts, each as its key and its function's name.
func (a *api) routes(t *testing.T) []string {
	t.Helper()
	mounting := regexp.MustCompile(
		`^Mounting allo-dev-(\S+) at ` + regexp.QuoteMeta(a.url) + `(/\S*) \[(.*)\]$`,
	)
	var routes []string
	lines := bufio.NewScanner(strings.NewReader(a.stderr.String()))
	for lines.Scan() {
		m := mounting.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		for method := range strings.SplitSeq(m[3], ", ") {
			routes = append(routes, method+" "+m[2]+" "+m[1])
		}
	}
	slices.Sort(routes)
	return routes
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// waitFor waits until a condition holds, and fails the test after the limit.
func waitFor(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", limit, what)
		case <-time.After(pollEvery):
		}
	}
}

// decode decodes JSON.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
