package local

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/app/site"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// The platform's limits of the functions, as the stack declares them.
const (
	httpTimeout  = 10 * time.Second
	sweepTimeout = 50 * time.Second
)

// Functions are the Lambdas of the service by name: those of the route table, and the sweeper.
type Functions struct {
	HTTP  map[string]Invoker
	Sweep Invoker
	close []func() error
}

// Close ends what the functions run in. They aren't invoked any more.
func (f *Functions) Close() error {
	var errs []error
	for _, closeOne := range f.close {
		errs = append(errs, closeOne())
	}
	return errors.Join(errs...)
}

// InProcess runs the functions' handlers in this process, each as its main would start it, and with a pool of so many connections of
// its own: on AWS too, one function's queue is no other's.
func InProcess(c config.Config, connections int, log *slog.Logger) (*Functions, error) {
	f := &Functions{HTTP: map[string]Invoker{"web": Handler(lambdahttp.New(site.Handler(), log))}}
	open := func() (*app.App, error) {
		a, err := app.New(c, log, connections)
		if err == nil {
			f.close = append(f.close, func() error { a.Close(); return nil })
		}
		return a, err
	}
	for _, r := range route.API() {
		a, err := open()
		if err != nil {
			return nil, err
		}
		f.HTTP[r.Function] = Handler(a.HTTP(r.Function))
	}
	a, err := open()
	if err != nil {
		return nil, err
	}
	f.Sweep = Handler(a.Sweep)
	return f, nil
}

// Built runs the built binaries, dir/<function>/bootstrap, each in processes of its own behind the Lambda Runtime API, with env as
// their environment, at most so many of each function at once, or RuntimeConfig's default if that is zero. It fails when one isn't there.
func Built(dir string, env []string, instances int, output io.Writer, log *slog.Logger) (*Functions, error) {
	f := &Functions{HTTP: map[string]Invoker{}}
	start := func(name string, timeout time.Duration) (Invoker, error) {
		binary := filepath.Join(dir, name, "bootstrap")
		if _, err := os.Stat(binary); err != nil {
			return nil, fmt.Errorf("the function %s isn't built: type `make run-lambdas` (%w)", name, err)
		}
		runtime := NewRuntime(RuntimeConfig{
			Name: name, Binary: binary, Env: env, MaxInstances: instances, Timeout: timeout, Stdout: output, Stderr: output, Log: log,
		})
		f.close = append(f.close, runtime.Close)
		return runtime, nil
	}
	var err error
	for _, r := range route.All() {
		if f.HTTP[r.Function] != nil {
			continue
		}
		if f.HTTP[r.Function], err = start(r.Function, httpTimeout); err != nil {
			return nil, err
		}
	}
	f.Sweep, err = start("sweep", sweepTimeout)
	return f, err
}
