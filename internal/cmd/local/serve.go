package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

const (
	// localConnections is each function's pool in this process. More would only wait for one another inside Postgres.
	localConnections = 8
	// startTimeout bounds the start, from the server's first initdb to the answer.
	startTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may take to end after Ctrl-C.
	shutdownTimeout = 5 * time.Second
	// parentEvery is how often a program that ends with its parent looks for it.
	parentEvery = 200 * time.Millisecond
)

// serve runs everything until ctx ends or something breaks, and leaves nothing behind.
func serve(ctx context.Context, opts options, c config.Config, stdout io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if opts.withParent {
		go endWithParent(cancel)
	}
	start := time.Now()
	fmt.Fprintln(stdout, "Allo Reservations, starting:")
	listener, err := listen(ctx, c)
	if err != nil {
		return err
	}
	defer listener.Close()

	starting, started := context.WithTimeout(ctx, startTimeout)
	defer started()
	d, err := openDatabase(starting, opts, c, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.prepare(starting, stdout); err != nil {
		return err
	}
	c.DatabaseURL = d.url
	log := c.Logger()
	if err := check(starting, c, log); err != nil {
		return d.blame(err)
	}
	functions, err := startFunctions(opts, c, stdout, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, functions.Close()) }()
	fmt.Fprintf(stdout, "Ready in %.1f s: http://%s (Ctrl-C ends it)\n", time.Since(start).Seconds(), shown(listener))
	return serveUntil(ctx, d, functions, listener, c.SweepInterval, log)
}

// serveUntil answers requests and sweeps until ctx ends or the database server does.
func serveUntil(ctx context.Context, d database, f *local.Functions, l net.Listener, every time.Duration, log *slog.Logger) error {
	gateway, err := local.NewGateway(route.All(), f.HTTP, log)
	if err != nil {
		return err
	}
	server := local.NewServer(l.Addr().String(), gateway)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()

	sweeping, stopSweeping := context.WithCancel(ctx)
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		local.RunRule(sweeping, every, f.Sweep, log)
	}()
	defer func() { <-swept }()
	defer stopSweeping()

	select {
	case <-ctx.Done():
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-d.stopped():
		err = errors.New("the Postgres server ended; postgres.log beside its data says why")
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if shutdownErr := server.Shutdown(ending); shutdownErr != nil && !errors.Is(shutdownErr, http.ErrServerClosed) {
		err = errors.Join(err, server.Close())
	}
	return err
}

// check refuses a server that would lose what it acknowledges.
func check(ctx context.Context, c config.Config, log *slog.Logger) error {
	a, err := app.New(c, log, 1)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Check(ctx)
}

func startFunctions(opts options, c config.Config, stdout io.Writer, log *slog.Logger) (*local.Functions, error) {
	if opts.lambdas == "" {
		return local.InProcess(c, localConnections, log)
	}
	return local.Built(opts.lambdas, c.Environ(), 0, stdout, log)
}

func listen(ctx context.Context, c config.Config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d of %s is taken: stop what listens there, or choose another: PORT=%d make run", c.Port, c.Host, c.Port+1)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on HOST=%s PORT=%d: %w", c.Host, c.Port, err)
	}
	return l, nil
}

// shown is the address that a person types: localhost for the loopback.
func shown(l net.Listener) string {
	address := l.Addr().(*net.TCPAddr)
	if address.IP.IsLoopback() || address.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(address.Port))
	}
	return address.String()
}

// endWithParent ends the program when its parent has: make, killed, can't tell us, and an orphan would keep the port.
func endWithParent(cancel context.CancelCauseFunc) {
	parent := os.Getppid()
	for range time.Tick(parentEvery) {
		if os.Getppid() != parent {
			cancel(errors.New("the starting process ended"))
			return
		}
	}
}
