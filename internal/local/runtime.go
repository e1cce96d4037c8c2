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

const (
	// initLimit is how long Lambda waits for an instance's first request for work.
	initLimit = 10 * time.Second
	// maxResponse is Lambda's limit of an answer, in bytes: 6 MB and AWS's overhead.
	maxResponse = 6_291_556
	// reapLimit is how long a killed process may take to end. The kernel needs milliseconds; a machine
	// that swaps needs longer.
	reapLimit = 10 * time.Second
)

// These are the defaults of RuntimeConfig.
const (
	// defaultTimeout is the functions' timeout on AWS.
	defaultTimeout = 10 * time.Second
	// defaultMaxInstances is the concurrency that a new AWS account has.
	defaultMaxInstances = 10
)

// These are types of a FunctionError.
const (
	exitError = "Runtime.ExitError" // the process ended
	timedOut  = "Sandbox.Timedout"  // the process took too long
)

// ErrClosed means that the Runtime was closed before the invocation began.
var ErrClosed = errors.New("runtime is closed")

// FunctionError means that an invocation failed in the function: its handler returned an error or
// panicked, or its process ended, took too long or didn't start.
type FunctionError struct {
	Function string // the name in RuntimeConfig
	// Type is Lambda's name for the failure, such as Runtime.ExitError or Sandbox.Timedout, or the Go
	// type of the handler's error.
	Type    string
	Message string
}

// Error returns the function, the type of the failure and the message.
func (e *FunctionError) Error() string {
	return fmt.Sprintf("function %s: %s: %s", e.Function, e.Type, e.Message)
}

// RuntimeConfig describes a function that a Runtime runs.
type RuntimeConfig struct {
	Name   string // the function's name
	Binary string // the path of the built bootstrap
	// Env is added to the variables that Lambda sets, and wins over them. The function inherits
	// nothing from this process.
	Env []string
	// MaxInstances is how many processes may run at once. It is 10 if it isn't positive.
	MaxInstances int
	// Timeout is how long an invocation may take. It is 10 s if it isn't positive.
	Timeout time.Duration
	// Stdout and Stderr get the processes' output, one write at a time. Nil discards it.
	Stdout, Stderr io.Writer
	// Log records the start and the end of each process. Nil discards it.
	Log *slog.Logger
}

// Runtime invokes a built bootstrap binary through the Lambda Runtime API. Like Lambda it runs one
// process, an instance, for each invocation under way, keeps it for the next invocation, and starts
// another only when all are busy.
type Runtime struct {
	cfg    RuntimeConfig
	slots  chan struct{} // one for each invocation under way
	closed chan struct{}
	output sync.Mutex // held during a write to Stdout or Stderr

	mu        sync.Mutex // guards the fields below
	isClosed  bool
	instances map[*instance]struct{} // every instance that may have a process
	idle      []*instance            // a stack: the last used instance is used next
	running   sync.WaitGroup         // invocations under way
}

// NewRuntime returns a Runtime. The first invocation starts the first process.
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

// Invoke runs one invocation and returns the function's payload. It waits for a free instance, and
// for the function, until ctx ends. As on Lambda the function isn't cancelled then: it runs until
// it is done or its timeout.
//
// The error is a *FunctionError when the function failed, ErrClosed after Close, and ctx's error
// when ctx ended first.
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

// Close kills every process that the Runtime started, as Lambda does, and waits for their end. The
// invocations under way fail. Close may be called again.
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

// run invokes an idle instance, or a new one when there is none. When an idle instance turns out to
// be dead, run takes another: the invocation didn't reach it.
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

// acquire takes the idle instance that was used last, or starts one. It holds the lock meanwhile,
// so that Close sees each process that was started.
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

// release keeps an instance for the next invocation unless its process has ended.
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
		r.cfg.Log.Error("can't end a process", "function", r.cfg.Name, "error", err)
		return // Close tries again.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, i)
}
