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
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/route"
)

const (
	// localConnections is the size of each function's pool in this process. With more, calls would
	// only wait for each other inside Postgres.
	localConnections = 8
	// startTimeout bounds the start, a first initdb included.
	startTimeout = 2 * time.Minute
	// shutdownTimeout is how long the requests under way may take after Ctrl-C.
	shutdownTimeout = 5 * time.Second
	// parentEvery is how often -with-parent checks that the parent is there.
	parentEvery = 200 * time.Millisecond
	// gcPercent lets garbage grow to four times the live data before it is collected. The live data is
	// a few megabytes, so by default the collector runs all the time and takes a tenth of a request's
	// processor time.
	gcPercent = 400
)

// serve runs the whole service until ctx ends or a part of it fails. It stops all that it started.
func serve(ctx context.Context, opts options, c config.Config, stdout io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	debug.SetGCPercent(gcPercent)
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
	issuer, err := startIssuer(ctx, opts, &c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, issuer.close()) }()
	c.Pages.Demo, c.Pages.Guarded = isDemo(opts, c, issuer), c.Auth.Kind != config.AuthNone

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
		return d.explain(err)
	}
	functions, err := startFunctions(opts, c, stdout, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, functions.Close()) }()
	feed, err := local.NewFeed(functions.Outbox, opts.data, opts.webhook, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, feed.Close()) }()
	functions.Operate(feed.Operator(), log)
	fmt.Fprintf(stdout, "Ready in %.1f s: http://%s (Ctrl-C ends it)\n",
		time.Since(start).Seconds(), shownAddress(listener))
	if opts.webhook != "" {
		fmt.Fprintf(stdout, "The events go to %s, signed with %s\n", opts.webhook, feed.Secret())
	}
	tellCallers(stdout, c.Auth, issuer)
	functions.HTTP["live"] = local.LiveFunction(log)
	gateway, err := newGateway(c.Auth, functions, log)
	if err != nil {
		return err
	}
	if c.Auth.Kind == config.AuthIAM {
		feed.Live.LetPublish(local.NewLivePublisher(c.Auth.AccessKeyID, c.Auth.SecretAccessKey))
	}
	shop, err := openBackEnd(ctx, opts, c, issuer, listener, log)
	if err != nil {
		return err
	}
	defer shop.close()
	return serveUntil(ctx, d, functions, feed, gateway, shop, listener, c.SweepInterval, log)
}

// newGateway returns a gateway for all routes, guarded as the settings say.
func newGateway(
	c config.Auth, f *local.Functions, log *slog.Logger,
) (*local.Gateway, error) {
	routes := route.All()
	for n, r := range routes {
		routes[n] = r.Guarded(c.Reserve)
	}
	gateway, err := local.NewGateway(routes, f.HTTP, log)
	if err != nil {
		return nil, err
	}
	gateway.Guard(local.NewAuthorizer(c, log))
	return gateway, nil
}

// tellCallers says who may call the guarded routes, where there are any.
func tellCallers(stdout io.Writer, c config.Auth, issuer *standIn) {
	if c.Kind != config.AuthNone {
		fmt.Fprintln(stdout, callers(c))
	}
	issuer.tell(stdout)
}

// callers says in one line who may call the guarded routes.
func callers(c config.Auth) string {
	need := "a token of " + c.JWTIssuer + " for " + c.JWTAudience + ": -H 'Authorization: Bearer ...'"
	if c.Kind == config.AuthIAM {
		need = "a signature by " + c.AccessKeyID + ": " + local.CurlSigns
	}
	return "Guarded routes need " + need + " (internal/local/README.md)"
}

// serveUntil answers requests, publishes the events and runs the sweeper, until ctx ends or the
// embedded server does.
func serveUntil(
	ctx context.Context, d database, f *local.Functions, feed *local.Feed, gateway *local.Gateway,
	shop *backEnd, l net.Listener, every time.Duration, log *slog.Logger,
) (err error) {
	server := local.NewServer(l.Addr().String(), shop.before(feed.Live.Handler(gateway)))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()

	working, stopWorking := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { local.RunRule(working, every, f.Sweep, log) })
	work.Go(func() { feed.Run(working) })
	work.Go(func() { shop.run(working) })
	defer work.Wait()
	defer stopWorking()

	select {
	case <-ctx.Done():
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-d.stopped():
		err = errors.New("the Postgres server ended: see postgres.log beside its data")
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	shutdownErr := server.Shutdown(ending)
	if shutdownErr != nil && !errors.Is(shutdownErr, http.ErrServerClosed) {
		err = errors.Join(err, server.Close())
	}
	return err
}

// check refuses a database server whose settings would lose holds.
func check(ctx context.Context, c config.Config, log *slog.Logger) error {
	a, err := app.New(c, log, 1)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Connect(ctx)
}

func startFunctions(
	opts options, c config.Config, stdout io.Writer, log *slog.Logger,
) (*local.Functions, error) {
	if opts.lambdas == "" {
		return local.InProcess(c, localConnections, log)
	}
	return local.Built(opts.lambdas, c.Environ(), 0, stdout, log)
}

func listen(ctx context.Context, c config.Config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d of %s is taken: stop the program that listens there, "+
			"or choose another port (PORT=%d make run)", c.Port, c.Host, c.Port+1)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("no permission to listen on port %d: "+
			"choose one from 1024 (PORT=3000 make run)", c.Port)
	case err != nil:
		return nil, fmt.Errorf("listen on HOST=%s PORT=%d: %w", c.Host, c.Port, err)
	}
	return l, nil
}

// shownAddress returns the address that a person types: localhost for the loopback.
func shownAddress(l net.Listener) string {
	address := l.Addr().(*net.TCPAddr)
	if address.IP.IsLoopback() || address.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(address.Port))
	}
	return address.String()
}

// endWithParent cancels the program when its parent has ended. A make that is killed can't tell its
// children, and an orphan would keep the port.
func endWithParent(cancel context.CancelCauseFunc) {
	parent := os.Getppid()
	for range time.Tick(parentEvery) {
		if os.Getppid() != parent {
			cancel(errors.New("the starting process ended"))
			return
		}
	}
}
