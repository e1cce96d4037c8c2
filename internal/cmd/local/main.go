// Command local runs the whole service on one machine: Postgres, the API and the page behind a gateway like AWS's, and the sweep
// every minute. It takes one verb:
//
//	local run     serve until Ctrl-C; with -lambdas DIR the built binaries answer, each in a process of its own
//	local seed    put the demo catalog back as it was, and remove every reservation
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
)

// options are the command line.
type options struct {
	verb string
	// root is the checkout, whose infra/node_modules holds the server's programs; data is where its data is kept.
	root, data string
	// lambdas is the directory of the built functions; empty runs the handlers in this process.
	lambdas string
	// withParent ends the program when whoever started it ends, as make may by kill -9.
	withParent bool
	// remote and eraseEverything together let seed loose on a database on another machine.
	remote, eraseEverything bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "local: "+oneLine(err))
		os.Exit(1)
	}
}

// oneLine folds what a driver tells in several lines.
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
	c, err := config.Load()
	if err != nil {
		return err
	}
	switch opts.verb {
	case "run":
		return serve(ctx, opts, c, stdout)
	case "seed":
		return seed(ctx, opts, c, stdout)
	case "reset":
		return reset(opts, c, stdout)
	default:
		return fmt.Errorf("unknown verb %q: it is run, seed or reset", opts.verb)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.root, "root", ".", "the checkout")
	flags.StringVar(&opts.data, "data", "", "where the embedded server keeps its data (default <root>/.local)")
	flags.StringVar(&opts.lambdas, "lambdas", "", "run the binaries built in this directory")
	flags.BoolVar(&opts.withParent, "with-parent", false, "end when the starting process ends")
	flags.BoolVar(&opts.remote, "remote", false, "seed: the database may be on another machine")
	flags.BoolVar(&opts.eraseEverything, "erase-everything", false, "seed: everything on it may be removed")
	if len(args) == 0 || args[0] == "" || args[0][0] == '-' {
		return opts, errors.New("say what to do: run, seed or reset")
	}
	opts.verb = args[0]
	if err := flags.Parse(args[1:]); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if opts.data == "" {
		opts.data = filepath.Join(opts.root, ".local")
	}
	var errs [2]error
	opts.root, errs[0] = filepath.Abs(opts.root)
	opts.data, errs[1] = filepath.Abs(opts.data)
	return opts, errors.Join(errs[:]...)
}

// cluster is the embedded server's data directory, one of the things that are kept in the data.
func (o options) cluster() string { return filepath.Join(o.data, "postgres") }
