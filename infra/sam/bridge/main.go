// Command bridge joins functions that SAM runs in containers with a Postgres that listens on this machine's loopback alone, as ours does.
// SAM can't put its containers on the host's network: with --docker-network host it makes them on the default one all the same, and there
// localhost is the container itself. So the bridge finds the address that this machine has on the containers' network, relays connections
// from there, and writes SAM's file of environment variables: for each function of a template that declares DATABASE_URL, the URL as it has
// to be inside of a container. Then it says "ready", and relays until it is told to end or whoever started it has ended.
//
// The database is that of DATABASE_URL, else the embedded server of `make run`, which is started where it isn't running. A database on
// another machine needs no relay.
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
	// variable is what the functions read their database's URL from.
	variable = "DATABASE_URL"
	// parentEvery is how often the bridge looks for whoever started it, who may be killed and can't tell us then.
	parentEvery = 200 * time.Millisecond
)

// options are the command line.
type options struct {
	// template is what the CDK synthesized, envFile what SAM takes with --env-vars.
	template, envFile string
	// engine is the address of the container engine, as in DOCKER_HOST.
	engine string
	// root is the checkout, which has the embedded server's data and the program that starts it.
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
	flags.StringVar(&opts.envFile, "env-file", "", "where SAM's environment variables are written")
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

// serve bridges to a database, the embedded one when its URL is empty, until ctx ends.
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

// bridge says how a database's URL has to be inside of a container, and returns the relay that it takes, nil for none.
func bridge(ctx context.Context, engineAddress, databaseURL string) (inside string, r *relay, err error) {
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
		return "", nil, fmt.Errorf("the container engine at %s is rootless, and its containers can't reach this machine's loopback: "+
			"use root's engine, or set %s to a database that they can reach", engineAddress, variable)
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

// template is as much as we read of one.
type template struct {
	Resources map[string]struct {
		Type       string
		Properties struct {
			Environment struct{ Variables map[string]any }
		}
	}
}

// declaring lists the logical ids of the functions that declare the variable. SAM sets no other on a function than what it declares.
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
		if _, ok := r.Properties.Environment.Variables[variable]; ok && r.Type == "AWS::Lambda::Function" {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no function of %s declares %s", path, variable)
	}
	return ids, nil
}

// writeEnvironment writes what SAM takes with --env-vars. The URL may hold a password, so nobody else may read the file.
func writeEnvironment(path string, functions []string, databaseURL string) error {
	environment := map[string]map[string]string{}
	for _, id := range functions {
		environment[id] = map[string]string{variable: databaseURL}
	}
	text, err := json.MarshalIndent(environment, "", "  ")
	if err != nil {
		return err
	}
	// One that is there may be readable by others, and would stay so.
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("write the environment: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the environment: %w", err)
	}
	return nil
}

// endWithParent ends the bridge when whoever started it has ended.
func endWithParent(cancel context.CancelFunc) {
	parent := os.Getppid()
	for range time.Tick(parentEvery) {
		if os.Getppid() != parent {
			cancel()
			return
		}
	}
}
