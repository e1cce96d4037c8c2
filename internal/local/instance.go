package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// functionMemory is the memory in the function's environment, in MB. Nothing enforces it here.
	functionMemory = "256"
	// pipeDelay is how long to read the output of a process that has ended. Its children may hold the
	// pipe open.
	pipeDelay = time.Second
	// tailSize is how many bytes of stderr are kept to find the last line. A longer line is cut.
	tailSize = 4 << 10
)

// errGone means that the instance ended before it took the invocation.
var errGone = errors.New("instance is gone")

// instance is one process of a function, with a Runtime API on its own listener. So an invocation
// can be sent to one process and not to another.
type instance struct {
	cfg    RuntimeConfig
	cmd    *exec.Cmd
	server *http.Server
	stderr *tail

	work   chan *invocation // the process's long poll receives from it
	ready  chan struct{}    // closed when the process first asks for work
	exited chan struct{}    // closed when the process has ended
	waited error            // the result of Wait; read it after exited

	mu        sync.Mutex // guards the fields below
	isReady   bool
	current   *invocation // the invocation under way
	initError *FunctionError
}

// invocation is one call of the function.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	done     chan outcome // buffered
}

// outcome is the result of an invocation.
type outcome struct {
	payload []byte
	err     error
}

// startInstance starts the process. Call waitReady before the first invoke.
func startInstance(cfg RuntimeConfig) (*instance, error) {
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return nil, err
	}
	// The instance outlives the invocation that starts it, and so does its context.
	ctx := context.Background()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &instance{
		cfg:    cfg,
		stderr: &tail{},
		work:   make(chan *invocation),
		ready:  make(chan struct{}),
		exited: make(chan struct{}),
	}
	// There is no read or write timeout: the process may wait long for its next invocation.
	i.server = &http.Server{
		Handler:           i.api(),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	i.cmd = exec.CommandContext(ctx, binary)
	i.cmd.Dir = filepath.Dir(binary)
	i.cmd.Env = environment(cfg, i.cmd.Dir, listener.Addr().String())
	i.cmd.Stdout = cfg.Stdout
	i.cmd.Stderr = io.MultiWriter(i.stderr, cfg.Stderr)
	i.cmd.WaitDelay = pipeDelay
	i.cmd.SysProcAttr = childAttributes()

	go func() { _ = i.server.Serve(listener) }()
	started := make(chan error)
	go i.supervise(started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, i.server.Close())
	}
	cfg.Log.Info("process started", "function", cfg.Name, "pid", i.cmd.Process.Pid)
	return i, nil
}

// supervise starts the process and waits for its end on one locked thread. Linux sends the death
// signal to a child when the thread that started it ends, and Go may end a thread that no goroutine
// has locked.
func (i *instance) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if err := i.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	i.waited = i.cmd.Wait()
	close(i.exited)
	_ = i.server.Close()
	i.cfg.Log.Info("process ended",
		"function", i.cfg.Name, "pid", i.cmd.Process.Pid, "state", i.cmd.ProcessState.String())
}

// environment returns the variables that Lambda sets, and cfg.Env.
func environment(cfg RuntimeConfig, taskRoot, api string) []string {
	day, id := time.Now().UTC().Format("2006/01/02"), strings.ReplaceAll(uuid.NewString(), "-", "")
	return append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"_HANDLER=bootstrap",
		"AWS_LAMBDA_FUNCTION_NAME=" + cfg.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + functionMemory,
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + cfg.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + day + "/[$LATEST]" + id,
		"AWS_REGION=" + region,
		"LAMBDA_TASK_ROOT=" + taskRoot,
		"TZ=:UTC",
	}, cfg.Env...)
}

// waitReady waits until the process asks for its first invocation. It fails when the process ends
// before, or takes longer than limit.
func (i *instance) waitReady(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-i.ready:
		return nil
	case <-i.exited:
		return i.exitError()
	case <-timer.C:
		return i.failure(timedOut, fmt.Sprintf("Init timed out after %.2f seconds", limit.Seconds()))
	}
}

// invoke hands the payload to the process and waits for the outcome. It kills a process that takes
// longer than timeout.
func (i *instance) invoke(payload []byte, timeout time.Duration) outcome {
	v := &invocation{
		id:       uuid.NewString(),
		payload:  payload,
		deadline: time.Now().Add(timeout),
		done:     make(chan outcome, 1),
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case i.work <- v:
	case <-i.exited:
		return outcome{err: errGone}
	case <-timer.C:
		return i.timedOut(timeout)
	}
	select {
	case out := <-v.done:
		return out
	case <-i.exited:
	case <-timer.C:
		return i.timedOut(timeout)
	}
	select {
	case out := <-v.done:
		return out // It answered before it ended.
	default:
		return outcome{err: i.exitError()}
	}
}

func (i *instance) timedOut(timeout time.Duration) outcome {
	err := i.failure(timedOut, fmt.Sprintf("Task timed out after %.2f seconds", timeout.Seconds()))
	return outcome{err: errors.Join(err, i.stop())}
}

// stop kills the process and waits for its end.
func (i *instance) stop() error {
	// Kill fails when the process has ended already.
	_ = i.cmd.Process.Kill()
	timer := time.NewTimer(reapLimit)
	defer timer.Stop()
	select {
	case <-i.exited:
		return nil
	case <-timer.C:
		return fmt.Errorf("process %d of %s survived its kill for %v",
			i.cmd.Process.Pid, i.cfg.Name, reapLimit)
	}
}

func (i *instance) isGone() bool {
	select {
	case <-i.exited:
		return true
	default:
		return false
	}
}

func (i *instance) failure(kind, message string) error {
	return &FunctionError{Function: i.cfg.Name, Type: kind, Message: message}
}

// exitError describes how the process ended: the error that it reported to the API, or else its
// exit status and the last line of its stderr.
func (i *instance) exitError() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.initError != nil {
		return i.initError
	}
	message := i.cmd.ProcessState.String()
	if line := i.stderr.lastLine(); line != "" {
		message += ": " + line
	}
	return i.failure(exitError, message)
}

// api returns the Lambda Runtime API, version 2018-06-01.
func (i *instance) api() http.Handler {
	const base = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base+"invocation/next", i.serveNext)
	mux.HandleFunc("POST "+base+"invocation/{id}/response", i.serveResponse)
	mux.HandleFunc("POST "+base+"invocation/{id}/error", i.serveError)
	mux.HandleFunc("POST "+base+"init/error", i.serveInitError)
	return mux
}

// serveNext answers the long poll when there is an invocation.
func (i *instance) serveNext(w http.ResponseWriter, r *http.Request) {
	i.markReady()
	select {
	case v := <-i.work:
		i.mu.Lock()
		i.current = v
		i.mu.Unlock()
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Lambda-Runtime-Aws-Request-Id", v.id)
		header.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(v.deadline.UnixMilli(), 10))
		header.Set("Lambda-Runtime-Invoked-Function-Arn",
			"arn:aws:lambda:"+region+":"+accountID+":function:"+i.cfg.Name)
		header.Set("Lambda-Runtime-Trace-Id", newTraceID(time.Now())+";Sampled=0")
		// A write fails when the process has ended. supervise notices that.
		_, _ = w.Write(v.payload)
	case <-r.Context().Done():
	}
}

func (i *instance) markReady() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.isReady {
		i.isReady = true
		close(i.ready)
	}
}

func (i *instance) serveResponse(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxResponse))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		message := "Response payload size exceeded maximum allowed payload size (" +
			strconv.Itoa(maxResponse) + " bytes)."
		i.finish(r.PathValue("id"), outcome{err: i.failure("Function.ResponseSizeTooLarge", message)})
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	i.acknowledge(w, r, outcome{payload: payload})
}

func (i *instance) serveError(w http.ResponseWriter, r *http.Request) {
	i.acknowledge(w, r, outcome{err: i.readError(w, r)})
}

func (i *instance) serveInitError(w http.ResponseWriter, r *http.Request) {
	err := i.readError(w, r)
	i.mu.Lock()
	i.initError = err
	i.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
}

// readError reads the error document of the Runtime API. A malformed document is an error all the
// same.
func (i *instance) readError(w http.ResponseWriter, r *http.Request) *FunctionError {
	var document struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	body := http.MaxBytesReader(w, r.Body, maxResponse)
	if err := json.NewDecoder(body).Decode(&document); err != nil {
		document.Type, document.Message = "Runtime.Unknown", "unreadable error: "+err.Error()
	}
	return &FunctionError{Function: i.cfg.Name, Type: document.Type, Message: document.Message}
}

func (i *instance) acknowledge(w http.ResponseWriter, r *http.Request, out outcome) {
	if !i.finish(r.PathValue("id"), out) {
		const message = `{"errorType":"InvalidRequestID","errorMessage":"no such invocation"}`
		http.Error(w, message, http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

// finish ends the invocation under way with an outcome. It returns false when its id is another.
func (i *instance) finish(id string, out outcome) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current == nil || i.current.id != id {
		return false
	}
	i.current.done <- out
	i.current = nil
	return true
}
