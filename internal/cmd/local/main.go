// Command local runs the whole service on one machine: Postgres, a gateway like AWS's with the API
// and the pages behind it, and the sweeper every minute. It takes one verb:
//
//	local run     serve until Ctrl-C; -lambdas DIR runs the built functions, each in its own process;
//	              -webhook URL posts the events there; -auth guards the API, and starts an issuer
//	              where the console signs in; -demo=false leaves out what only a demo shop has,
//	              and -still only the shoppers that come by themselves
//	local events  print the events while they are published, until Ctrl-C
//	local seed    put the demo catalog back and remove every reservation
//	local psql    open the database in psql; arguments after -- are psql's
//	local reset   remove the embedded server's data
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
)

const verbs = "run, events, seed, psql or reset"

// options are the command line.
type options struct {
	verb string
	// root is the checkout, where npm installs the embedded Postgres. data is the directory that
	// holds its data.
	root, data string
	// lambdas is the directory of the built functions. Empty runs the handlers in this process.
	lambdas string
	// webhook is the URL of an endpoint that gets the events, or empty.
	webhook string
	// auth starts the stand-in issuer on issuerPort, or on any free port where that is zero.
	auth       bool
	issuerPort int
	// demo shows what only a demo shop has. still leaves out its shoppers.
	demo, still bool
	// withParent ends the program when the process that started it ends, as make may by kill -9.
	withParent bool
	// remote and eraseEverything together let seed empty a database on another machine.
	remote, eraseEverything bool
	// rest are psql's arguments.
	rest []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "local: "+oneLine(err))
		os.Exit(1)
	}
}

// oneLine joins the lines of an error. Some drivers use several.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	load := config.LoadWithoutAuth
	if opts.verb == "run" { // the other verbs have no gateway
		load = config.Load
	}
	c, err := load()
	if err != nil {
		return err
	}
	switch opts.verb {
	case "run":
		return serve(ctx, opts, c, stdout)
	case "events":
		return local.Follow(ctx, opts.data, stdout)
	case "seed":
		return seed(ctx, opts, c, stdout)
	case "psql":
		return psql(ctx, opts, c, stdout, stderr)
	case "reset":
		return reset(opts, c, stdout)
	default:
		return fmt.Errorf("unknown verb %q: use %s", opts.verb, verbs)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.root, "root", ".", "the checkout")
	flags.StringVar(&opts.data, "data", "", "the embedded server's data (default <root>/.local)")
	flags.StringVar(&opts.lambdas, "lambdas", "", "run: directory of the built functions to run")
	flags.StringVar(&opts.webhook, "webhook", "", "run: URL of an endpoint that gets the events")
	flags.BoolVar(&opts.auth, "auth", false, "run: guard the API, and start an issuer to sign in at")
	flags.IntVar(&opts.issuerPort, "issuer-port", usualIssuerPort, "run: the issuer's port, 0 for any")
	flags.BoolVar(&opts.demo, "demo", true, "run: show demo prices, demo payments, the flash sale")
	flags.BoolVar(&opts.still, "still", false, "run: let no shoppers come by themselves to the demo")
	flags.BoolVar(&opts.withParent, "with-parent", false, "run: end when the starting process ends")
	flags.BoolVar(&opts.remote, "remote", false, "seed: allow a database on another machine")
	flags.BoolVar(&opts.eraseEverything, "erase-everything", false, "seed: allow to remove its data")
	if len(args) == 0 || args[0] == "" || args[0][0] == '-' {
		return opts, errors.New("no verb: use " + verbs)
	}
	opts.verb = args[0]
	if err := flags.Parse(args[1:]); err != nil {
		return opts, err
	}
	opts.rest = flags.Args()
	if len(opts.rest) > 0 && opts.verb != "psql" {
		return opts, fmt.Errorf("unexpected argument %q", opts.rest[0])
	}
	if opts.data == "" {
		opts.data = filepath.Join(opts.root, ".local")
	}
	var errs [2]error
	opts.root, errs[0] = filepath.Abs(opts.root)
	opts.data, errs[1] = filepath.Abs(opts.data)
	return opts, errors.Join(errs[:]...)
}

// cluster returns the embedded server's data directory, which lies in the data.
func (o options) cluster() string { return filepath.Join(o.data, "postgres") }
