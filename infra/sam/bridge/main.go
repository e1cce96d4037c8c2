// Command bridge connects functions in SAM's containers to a Postgres that listens only on this
// machine's loopback, as the embedded one does. In a container, localhost is the container itself,
// and SAM can't use the host's network: even with --docker-network host it creates containers on
// the default network.
//
// So the bridge finds this machine's address on the containers' network and relays connections from
// there. It writes SAM's file of environment variables, which sets DATABASE_URL, as a container
// must see it, for each function that declares it. Then it prints "ready" and relays until it is
// told to end or its parent process ends.
//
// The database is that of DATABASE_URL. Without it, it is the embedded server of `make run`, which
// is started if it isn't running. A database on another machine needs no relay.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/allo/reservations/internal/config"
)

const (
	// variable is the environment variable with the functions' database URL.
	variable = "DATABASE_URL"
	// parentEvery is how often the bridge checks that its parent lives. A killed parent sends no
	// signal.
	parentEvery = 200 * time.Millisecond
)

// options are the command line's.
type options struct {
	// template is the synthesized template. envFile is the file for SAM's --env-vars.
	template, envFile string
	// engine is the container engine's address, in the form of DOCKER_HOST.
	engine string
	// root is the checkout. It has the embedded server's data and the program that starts it.
	root string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bridge: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opts options
	flags := flag.NewFlagSet("bridge", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.template, "template", "", "the synthesized template")
	flags.StringVar(&opts.envFile, "env-file", "", "the file to write SAM's environment variables to")
	flags.StringVar(&opts.engine, "engine", defaultEngine, "the container engine's address")
	flags.StringVar(&opts.root, "root", ".", "the checkout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := config.Load()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go endWithParent(cancel)
	return serve(ctx, opts, c.DatabaseURL, stdout)
}

// serve bridges to a database until ctx ends. An empty URL means the embedded server.
func serve(ctx context.Context, opts options, databaseURL string, stdout io.Writer) error {
	functions, err := declaring(opts.template)
	if err != nil {
		return err
	}
	if databaseURL == "" {
		embedded, err := openEmbedded(ctx, opts.root, filepath.Dir(opts.envFile))
		if err != nil {
			return err
		}
		defer embedded.stop()
		databaseURL = embedded.url
	}
	inside, r, err := bridge(ctx, opts.engine, databaseURL)
	if err != nil {
		return err
	}
	if err := writeEnvironment(opts.envFile, functions, inside); err != nil {
		return err
	}
	defer func() { _ = os.Remove(opts.envFile) }()
	fmt.Fprintln(stdout, "ready")
	if r != nil {
		return r.serve(ctx)
	}
	<-ctx.Done()
	return nil
}

// bridge returns the database's URL for use in a container, and the relay that this URL needs, nil
// for none.
func bridge(
	ctx context.Context,
	engineAddress, databaseURL string,
) (inside string, r *relay, err error) {
	e, err := newEngine(engineAddress)
	if err != nil {
		return "", nil, err
	}
	host, err := e.host(ctx)
	if err != nil {
		return "", nil, err
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", variable, err)
	}
	switch {
	case !isLoopback(u.Hostname()):
		return databaseURL, nil, nil
	case host.rootless:
		return "", nil, fmt.Errorf(
			"the container engine at %s is rootless, so its containers can't reach this machine: "+
				"use root's engine, or set %s to a database that they can reach",
			engineAddress,
			variable,
		)
	case host.forwards:
		u.Host = net.JoinHostPort(host.name, port(u))
		return u.String(), nil, nil
	}
	r, err = newRelay(ctx, host.name, net.JoinHostPort(u.Hostname(), port(u)))
	if err != nil {
		return "", nil, err
	}
	u.Host = r.listener.Addr().String()
	return u.String(), r, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// port is a URL's port, or Postgres's.
func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "5432"
}

// template is the part of a CloudFormation template that the bridge reads.
type template struct {
	Resources map[string]struct {
		Type       string
		Properties struct {
			Environment struct{ Variables map[string]any }
		}
	}
}

// declaring returns the logical ids of the functions that declare the variable. SAM only sets
// variables that a function declares.
func declaring(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	var t template
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read the template %s: %w", path, err)
	}
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(t.Resources)) {
		r := t.Resources[id]
		if _, ok := r.Properties.Environment.Variables[variable]; ok &&
			r.Type == "AWS::Lambda::Function" {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no function of %s declares %s", path, variable)
	}
	return ids, nil
}

// writeEnvironment writes the file for SAM's --env-vars. The URL may have a password, so only the
// owner can read the file.
func writeEnvironment(path string, functions []string, databaseURL string) error {
	environment := map[string]map[string]string{}
	for _, id := range functions {
		environment[id] = map[string]string{variable: databaseURL}
	}
	text, err := json.MarshalIndent(environment, "", "  ")
	if err != nil {
		return err
	}
	// An existing file would keep its permissions.
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("write the environment: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the environment: %w", err)
	}
	return nil
}

// endWithParent cancels the bridge when its parent process has ended.
func endWithParent(cancel context.CancelFunc) {
	parent := os.Getppid()
	for range time.Tick(parentEvery) {
		if os.Getppid() != parent {
			cancel()
			return
		}
	}
}
