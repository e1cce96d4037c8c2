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
	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/app/web"
	"github.com/allo/reservations/internal/app/webhooks"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// These are the functions' timeouts in the stack.
const (
	httpTimeout  = 10 * time.Second
	sweepTimeout = 50 * time.Second
)

// Functions are the service's Lambdas.
type Functions struct {
	HTTP   map[string]Invoker // by the name in the route table
	Sweep  Invoker
	Outbox events.Outbox
	close  []func() error
	// originSecrets are those of the functions that run in this process.
	originSecrets []string
}

// Close ends the functions' processes and connections. They must not be invoked afterwards.
func (f *Functions) Close() error {
	var errs []error
	for _, closeOne := range f.close {
		errs = append(errs, closeOne())
	}
	return errors.Join(errs...)
}

// Operate lets the functions of the webhooks show the webhooks of an operator on this machine. On
// AWS they ask SQS.
func (f *Functions) Operate(operator deliver.Operator, log *slog.Logger) {
	for _, name := range []string{"list-webhooks", "redeliver-webhook"} {
		f.HTTP[name] = Handler(lambdahttp.New(webhooks.Handler(name, operator, log), log,
			lambdahttp.OnlyThroughCDN(f.originSecrets)))
	}
}

// InProcess runs the functions' handlers in this process, each as its main would start it. As on
// AWS each function has its own pool, here of the given number of connections.
func InProcess(c config.Config, connections int, log *slog.Logger) (*Functions, error) {
	pages := Handler(lambdahttp.New(web.Handler(c), log,
		lambdahttp.OnlyThroughCDN(c.OriginSecrets)))
	f := &Functions{HTTP: map[string]Invoker{"web": pages}, originSecrets: c.OriginSecrets}
	f.Operate(deliver.NewOperator(c, log), log)
	open := func() (*app.App, error) {
		a, err := app.New(c, log, connections)
		if err == nil {
			f.close = append(f.close, func() error { a.Close(); return nil })
		}
		return a, err
	}
	for _, r := range route.API() {
		if f.HTTP[r.Function] != nil {
			continue
		}
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
	if a, err = open(); err != nil {
		return nil, err
	}
	f.Outbox = a.Outbox()
	return f, nil
}

// Built runs the built functions dir/<function>/bootstrap behind the Lambda Runtime API, with env
// as their environment. Each function has at most the given number of processes; 0 means
// RuntimeConfig's default. Built fails when a function isn't built.
func Built(
	dir string, env []string, instances int, output io.Writer, log *slog.Logger,
) (*Functions, error) {
	f := &Functions{HTTP: map[string]Invoker{}}
	start := func(name string, timeout time.Duration) (Invoker, error) {
		binary := filepath.Join(dir, name, "bootstrap")
		if _, err := os.Stat(binary); err != nil {
			return nil, fmt.Errorf("the function %s isn't built: type `make run-lambdas` (%w)", name, err)
		}
		runtime := NewRuntime(RuntimeConfig{
			Name: name, Binary: binary, Env: env, MaxInstances: instances, Timeout: timeout,
			Stdout: output, Stderr: output, Log: log,
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
	if f.Sweep, err = start("sweep", sweepTimeout); err != nil {
		return nil, err
	}
	outbox, err := start("outbox", httpTimeout)
	f.Outbox = invokeOutbox(outbox)
	return f, err
}
