package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/go-cmp/cmp"
)

// description holds the values in a function's context.
type description struct {
	RequestID, ARN, Function, Version string
	Remaining                         time.Duration
}

func describe(ctx context.Context) description {
	d := description{Function: lambdacontext.FunctionName, Version: lambdacontext.FunctionVersion}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		d.RequestID, d.ARN = lc.AwsRequestID, lc.InvokedFunctionArn
	}
	if deadline, ok := ctx.Deadline(); ok {
		d.Remaining = time.Until(deadline)
	}
	return d
}

// newRuntime returns a Runtime for this test binary and closes it at the end of the test.
func newRuntime(t *testing.T, cfg RuntimeConfig) *Runtime {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.Binary = "reserve", binary
	// A binary built for coverage complains on stderr without it.
	cfg.Env = append(cfg.Env, "GOCOVERDIR="+t.TempDir())
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	r := NewRuntime(cfg)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// invoke runs a job and decodes its result.
func invoke[T any](t *testing.T, r *Runtime, do, arg string) (T, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	payload, err := json.Marshal(job{do, arg})
	if err != nil {
		t.Fatal(err)
	}
	var value T
	out, err := r.Invoke(ctx, payload)
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(out, &value); err != nil {
		t.Fatalf("Invoke(%s) = %q: %v", do, out, err)
	}
	return value, nil
}

func mustInvoke[T any](t *testing.T, r *Runtime, do, arg string) T {
	t.Helper()
	value, err := invoke[T](t, r, do, arg)
	if err != nil {
		t.Fatalf("Invoke(%s): %v", do, err)
	}
	return value
}

func checkFunctionError(t *testing.T, err error, wantType, wantMessage string) {
	t.Helper()
	var got *FunctionError
	if !errors.As(err, &got) || got.Function != "reserve" || got.Type != wantType ||
		!strings.Contains(got.Message, wantMessage) {
		t.Errorf("error = %v, want a FunctionError of type %s with %q", err, wantType, wantMessage)
	}
}

func TestRuntimeReturnsTheFunctionsAnswer(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{})
	text := "any text, é \x00 \"quoted\""
	if got := mustInvoke[string](t, r, "echo", text); got != text {
		t.Errorf("echo = %q, want %q", got, text)
	}
	if a, b := mustInvoke[int](t, r, "pid", ""), mustInvoke[int](t, r, "pid", ""); a != b {
		t.Errorf("two invocations one after the other ran in processes %d and %d, want the same", a, b)
	}
}

func TestRuntimeSetsContextAndEnvironmentAsLambdaDoes(t *testing.T) {
	t.Parallel()

	r := newRuntime(
		t,
		RuntimeConfig{Env: []string{"SETTING=1", "AWS_REGION=ap-south-1"}, Timeout: patience},
	)
	got := mustInvoke[description](t, r, "context", "")
	if len(got.RequestID) != 36 || got.Remaining <= 0 || got.Remaining > patience {
		t.Errorf("context = %+v, want an id and a deadline within %v", got, patience)
	}
	got.RequestID, got.Remaining = "", 0
	want := description{
		ARN:      "arn:aws:lambda:us-east-1:123456789012:function:reserve",
		Function: "reserve",
		Version:  "$LATEST",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("context (-want +got):\n%s", diff)
	}

	environment := mustInvoke[[]string](t, r, "environment", "")
	for _, want := range []string{
		"SETTING=1", "AWS_REGION=ap-south-1", "_HANDLER=bootstrap", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/reserve",
	} {
		if !slices.Contains(environment, want) {
			t.Errorf("environment %q lacks %s", environment, want)
		}
	}
	if slices.ContainsFunc(
		environment,
		func(s string) bool { return strings.HasPrefix(s, "HOME=") || strings.HasPrefix(s, "PATH=") },
	) {
		t.Errorf("environment %q is inherited", environment)
	}
}

func TestRuntimePassesOutputOn(t *testing.T) {
	t.Parallel()

	var stdout, stderr bytes.Buffer
	r := newRuntime(t, RuntimeConfig{Stdout: &stdout, Stderr: &stderr})
	mustInvoke[any](t, r, "print", "x")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	if stdout.String() != "to stdout: x\n" || stderr.String() != "to stderr: x\n" {
		t.Errorf("stdout, stderr = %q, %q", stdout.String(), stderr.String())
	}
}

func TestRuntimeFailures(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		do, arg               string
		wantType, wantMessage string
		survives              bool // whether the next invocation meets the same process
	}{
		"handler's error": {"fail", "no stock", "errorString", "no stock", true},
		"panic":           {"panic", "boom", "string", "boom", false},
		"process death": {
			"exit",
			"out of luck",
			"Runtime.ExitError",
			"exit status 7: out of luck",
			false,
		},
		"too large": {"large", "", "Function.ResponseSizeTooLarge", "6291556", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := newRuntime(t, RuntimeConfig{MaxInstances: 1})
			before := mustInvoke[int](t, r, "pid", "")
			_, err := invoke[any](t, r, tt.do, tt.arg)
			checkFunctionError(t, err, tt.wantType, tt.wantMessage)

			if after := mustInvoke[int](t, r, "pid", ""); (after == before) != tt.survives {
				t.Errorf("process before and after: %d, %d; want the same: %v", before, after, tt.survives)
			}
		})
	}
}

func TestRuntimeKillsAFunctionThatTakesTooLong(t *testing.T) {
	t.Parallel()

	// The timeout has to leave the other invocations time on a busy machine.
	r := newRuntime(t, RuntimeConfig{MaxInstances: 1, Timeout: 2 * time.Second})
	before := mustInvoke[int](t, r, "pid", "")
	_, err := invoke[any](t, r, "hang", "")
	checkFunctionError(t, err, "Sandbox.Timedout", "Task timed out after 2.00 seconds")

	if isRunning(before) {
		t.Errorf("process %d still runs", before)
	}
	if after := mustInvoke[int](t, r, "pid", ""); after == before {
		t.Errorf("process %d was used again", after)
	}
}

func TestRuntimeReportsAFailedInit(t *testing.T) {
	t.Parallel()

	for how, want := range map[string]FunctionError{
		"exit":   {Type: "Runtime.ExitError", Message: "exit status 3: DATABASE_URL is not set"},
		"report": {Type: "Config.Missing", Message: "no such variable"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()

			r := newRuntime(t, RuntimeConfig{Env: []string{"TEST_INIT=" + how}})
			for range 2 { // The second finds no trace of the first.
				_, err := invoke[any](t, r, "echo", "")
				checkFunctionError(t, err, want.Type, want.Message)
			}
			if len(r.instances) != 0 {
				t.Errorf("%d instances are kept", len(r.instances))
			}
		})
	}
}

func TestInitThatHangsIsCutOff(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{Env: []string{"TEST_INIT=hang"}})
	i, _, err := r.acquire()
	if err != nil {
		t.Fatal(err)
	}
	err = i.waitReady(50 * time.Millisecond)
	checkFunctionError(t, err, "Sandbox.Timedout", "Init timed out after 0.05 seconds")
	r.forget(i)

	if isRunning(i.cmd.Process.Pid) {
		t.Errorf("process %d still runs", i.cmd.Process.Pid)
	}
}

func TestRuntimeWithoutABinary(t *testing.T) {
	t.Parallel()

	r := NewRuntime(RuntimeConfig{Name: "reserve", Binary: t.TempDir() + "/bootstrap"})
	if _, err := r.Invoke(t.Context(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Invoke error = %v, want ErrNotExist", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// meeting is a server that running functions call. They wait there until the test releases them.
type meeting struct {
	url     string
	arrived chan struct{}
	release func()
}

func newMeeting(t *testing.T) meeting {
	t.Helper()
	open := make(chan struct{})
	m := meeting{arrived: make(chan struct{}, 10), release: sync.OnceFunc(func() { close(open) })}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		m.arrived <- struct{}{}
		<-open
	}))
	m.url = server.URL
	t.Cleanup(func() {
		m.release()
		server.Close()
	})
	return m
}

func (m meeting) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-m.arrived:
		case <-time.After(patience):
			t.Fatalf("not all of %d functions run at once", n)
		}
	}
}

func TestRuntimeRunsOneInvocationPerInstanceUpToMaxInstances(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{MaxInstances: 2})
	m := newMeeting(t)
	pids := make(chan int, 2)
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() {
			if pid, err := invoke[int](t, r, "call", m.url); err != nil {
				t.Errorf("Invoke: %v", err)
			} else {
				pids <- pid
			}
		})
	}
	m.await(t, 2)

	// A third caller waits for as long as it has time.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Invoke(ctx, []byte(`{"Do":"echo"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("third caller's error = %v, want DeadlineExceeded", err)
	}
	m.release()
	callers.Wait()

	a, b := <-pids, <-pids
	if a == b {
		t.Errorf("two invocations at once in process %d", a)
	}
	if third := mustInvoke[int](t, r, "pid", ""); third != a && third != b {
		t.Errorf("process %d was started though %d and %d are idle", third, a, b)
	}
}

func TestRuntimeServesMoreCallersThanInstances(t *testing.T) {
	t.Parallel()

	const callers, each = 8, 5
	r := newRuntime(t, RuntimeConfig{MaxInstances: 2})
	var mu sync.Mutex
	pids := map[int]int{}
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for range each {
				pid, err := invoke[int](t, r, "pid", "")
				if err != nil {
					t.Errorf("Invoke: %v", err)
				}
				mu.Lock()
				pids[pid]++
				mu.Unlock()
			}
		})
	}
	group.Wait()

	total := 0
	for _, n := range pids {
		total += n
	}
	if len(pids) > 2 || total != callers*each {
		t.Errorf("invocations by process = %v, want %d in at most 2", pids, callers*each)
	}
}

func TestCallerThatGivesUpLeavesTheFunctionRunning(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{MaxInstances: 1})
	before := mustInvoke[int](t, r, "pid", "")
	m := newMeeting(t)
	ctx, cancel := context.WithCancel(t.Context())
	payload, _ := json.Marshal(job{"call", m.url})
	failed := make(chan error, 1)
	go func() {
		_, err := r.Invoke(ctx, payload)
		failed <- err
	}()
	m.await(t, 1)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Invoke error = %v, want Canceled", err)
	}
	m.release()

	if after := mustInvoke[int](t, r, "pid", ""); after != before {
		t.Errorf("the next invocation ran in process %d, want %d", after, before)
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{MaxInstances: 2})
	idle := mustInvoke[int](t, r, "pid", "")
	m := newMeeting(t)
	failed := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := invoke[int](t, r, "call", m.url)
			failed <- err
		}()
	}
	m.await(t, 2)
	var pids []int
	r.mu.Lock()
	for i := range r.instances {
		pids = append(pids, i.cmd.Process.Pid)
	}
	r.mu.Unlock()

	if err := r.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}

	if len(pids) != 2 || !slices.Contains(pids, idle) {
		t.Errorf("processes = %v, want 2, and %d among them", pids, idle)
	}
	for _, pid := range pids {
		if isRunning(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	for range 2 {
		checkFunctionError(t, <-failed, "Runtime.ExitError", "signal: killed")
	}
	if _, err := r.Invoke(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Invoke after Close = %v, want ErrClosed", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestCloseWhileInstancesStart(t *testing.T) {
	t.Parallel()

	r := newRuntime(t, RuntimeConfig{MaxInstances: 4})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { _, _ = invoke[int](t, r, "pid", "") })
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	group.Wait()

	if len(r.instances) != 0 {
		t.Errorf("%d instances are left", len(r.instances))
	}
}

func TestRuntimeAPIRefusesUnknownInvocations(t *testing.T) {
	t.Parallel()

	i := &instance{cfg: RuntimeConfig{Name: "reserve"}}
	for path, want := range map[string]int{
		"/2018-06-01/runtime/invocation/nobody/response": http.StatusBadRequest,
		"/2018-06-01/runtime/invocation/nobody/error":    http.StatusBadRequest,
		"/2018-06-01/runtime/init/error":                 http.StatusAccepted,
		"/2020-01-01/extension/register":                 http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		i.api().ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader("not JSON")))
		if w.Code != want {
			t.Errorf("POST %s = %d, want %d", path, w.Code, want)
		}
	}
}

func TestTailKeepsTheLastLine(t *testing.T) {
	t.Parallel()

	var last tail
	if got := last.lastLine(); got != "" {
		t.Errorf("last line of nothing = %q", got)
	}
	for _, s := range []string{"one\n", "tw", "o\nthr", "ee\n", "\n  \n"} {
		_, _ = io.WriteString(&last, s)
	}
	if got := last.lastLine(); got != "three" {
		t.Errorf("last line = %q, want three", got)
	}
	_, _ = io.WriteString(&last, strings.Repeat("x", 3*tailSize))
	if got := last.lastLine(); got != strings.Repeat("x", tailSize) {
		t.Errorf("last line of a long one has %d bytes, want %d", len(got), tailSize)
	}
}
