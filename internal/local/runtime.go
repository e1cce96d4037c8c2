package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Limits of the Lambda service.
const (
	// initLimit is how long Lambda lets an instance take before it asks for its first invocation.
	initLimit = 10 * time.Second
	// maxResponse is the largest answer of an invocation, in bytes: 6 MB and what AWS adds to it.
	maxResponse = 6_291_556
	// reapLimit is how long a killed process may take to be gone. The kernel needs milliseconds; this is for a machine that
	// swaps.
	reapLimit = 10 * time.Second
)

// What a RuntimeConfig that leaves them out gets.
const (
	// defaultTimeout is the functions' timeout on AWS.
	defaultTimeout = 10 * time.Second
	// defaultMaxInstances is the concurrency that a new AWS account has.
	defaultMaxInstances = 10
)

// The types of a FunctionError whose process was there no longer, or not in time.
const (
	exitError = "Runtime.ExitError"
	timedOut  = "Sandbox.Timedout"
)

// ErrClosed is the error of an invocation of a Runtime that is closed.
var ErrClosed = errors.New("runtime is closed")

// FunctionError is an invocation that the function failed: its handler returned an error or panicked, or its process ended,
// took too long or didn't start.
type FunctionError struct {
	Function string // the name in RuntimeConfig
	Type     string // as Lambda calls it: Runtime.ExitError, Sandbox.Timedout, or the type of the handler's error
	Message  string
}

// Error names the function, what kind of failure it was and what the function said.
func (e *FunctionError) Error() string {
	return fmt.Sprintf("function %s: %s: %s", e.Function, e.Type, e.Message)
}

// RuntimeConfig describes a function that a Runtime runs.
type RuntimeConfig struct {
	Name   string // of the function
	Binary string // the path of the built bootstrap
	// Env is the function's whole environment but for what Lambda itself sets: nothing is inherited. It wins over Lambda's.
	Env []string
	// MaxInstances is how many processes may run at once, 10 if it isn't positive.
	MaxInstances int
	// Timeout is how long an invocation may take, 10 s if it isn't positive.
	Timeout time.Duration
	// Stdout and Stderr get what the processes write, never two writes at once. Nil discards it.
	Stdout, Stderr io.Writer
	// Log tells of processes that start and end. Nil discards it.
	Log *slog.Logger
}

// Runtime serves the Lambda Runtime API to a built bootstrap binary and invokes it. Like Lambda it runs one process, an
// instance, for every invocation that is under way, keeps it for the next, and starts another only when all are busy.
type Runtime struct {
	cfg    RuntimeConfig
	slots  chan struct{} // one for each invocation under way
	closed chan struct{}
	output sync.Mutex // held by whoever writes to Stdout or Stderr

	mu        sync.Mutex // guards what follows
	isClosed  bool
	instances map[*instance]struct{} // all that may still have a process
	idle      []*instance            // the last used is the last, and the next to be used
	running   sync.WaitGroup         // invocations under way
}

// NewRuntime prepares a Runtime. It starts no process: the first invocation does.
func NewRuntime(cfg RuntimeConfig) *Runtime {
	if cfg.MaxInstances <= 0 {
		cfg.MaxInstances = defaultMaxInstances
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runtime{
		cfg:       cfg,
		slots:     make(chan struct{}, cfg.MaxInstances),
		closed:    make(chan struct{}),
		instances: make(map[*instance]struct{}),
	}
	r.cfg.Stdout = lockedWriter{&r.output, cfg.Stdout}
	r.cfg.Stderr = lockedWriter{&r.output, cfg.Stderr}
	return r
}

// Invoke runs one invocation and returns the function's payload. It waits for a free instance, and for the function, until
// ctx ends; as on Lambda the function isn't told that its caller has gone, and runs until it is done or its timeout.
//
// The error is a *FunctionError when the function failed, ErrClosed after Close, and ctx's when ctx ended first.
func (r *Runtime) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	if err := r.begin(ctx); err != nil {
		return nil, fmt.Errorf("invoke %s: %w", r.cfg.Name, err)
	}
	done := make(chan outcome, 1)
	go func() {
		defer r.end()
		done <- r.run(payload)
	}()
	select {
	case out := <-done:
		return out.payload, out.err
	case <-ctx.Done():
		return nil, fmt.Errorf("invoke %s: %w", r.cfg.Name, ctx.Err())
	}
}

// Close kills every process that the Runtime started, waits until each is gone, and fails the invocations under way. It may
// be called again. Lambda kills instances in the same way.
func (r *Runtime) Close() error {
	r.mu.Lock()
	if !r.isClosed {
		r.isClosed = true
		close(r.closed)
	}
	instances := r.instances
	r.instances = make(map[*instance]struct{})
	r.idle = nil
	r.mu.Unlock()

	var errs []error
	for i := range instances {
		errs = append(errs, i.stop())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Without an instance every invocation fails at once, so this is short.
	r.running.Wait()
	return nil
}

// begin waits for a slot and counts the invocation, so that Close can wait for it.
func (r *Runtime) begin(ctx context.Context) error {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return ErrClosed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed {
		<-r.slots
		return ErrClosed
	}
	r.running.Add(1)
	return nil
}

func (r *Runtime) end() {
	<-r.slots
	r.running.Done()
}

// run invokes an idle instance, or a new one when there is none. An instance that has died since it was last used is no
// failure of this invocation, which it never got.
func (r *Runtime) run(payload []byte) outcome {
	for {
		i, isNew, err := r.acquire()
		if err != nil {
			return outcome{err: err}
		}
		if isNew {
			if err := i.waitReady(initLimit); err != nil {
				r.forget(i)
				return outcome{err: err}
			}
		}
		out := i.invoke(payload, r.cfg.Timeout)
		r.release(i)
		if isNew || !errors.Is(out.err, errGone) {
			return out
		}
	}
}

// acquire takes the idle instance that was used last, or starts one. It starts the process under the lock, so that Close sees
// either the process or no attempt to start it.
func (r *Runtime) acquire() (i *instance, isNew bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed {
		return nil, false, ErrClosed
	}
	if n := len(r.idle); n > 0 {
		i = r.idle[n-1]
		r.idle = slices.Delete(r.idle, n-1, n)
		return i, false, nil
	}
	i, err = startInstance(r.cfg)
	if err != nil {
		return nil, false, fmt.Errorf("start %s: %w", r.cfg.Name, err)
	}
	r.instances[i] = struct{}{}
	return i, true, nil
}

// release keeps an instance for the next invocation unless its process is gone.
func (r *Runtime) release(i *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i.isGone() {
		delete(r.instances, i)
		return
	}
	if !r.isClosed {
		r.idle = append(r.idle, i)
	}
}

func (r *Runtime) forget(i *instance) {
	if err := i.stop(); err != nil {
		r.cfg.Log.Error("process can't be ended", "function", r.cfg.Name, "error", err)
		return // Close tries again.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, i)
}
