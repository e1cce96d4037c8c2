// Command drill rehearses a restore on this machine, and says how long it took and what it lost:
//
//	drill                   a point in time, on a second server
//	drill -client DIR       and then the runbook's dump, with the pg_dump and the psql of DIR
//
// A shop sells on a server of its own. A base backup is made meanwhile, and the server archives its
// log, as Aurora does by itself. Then somebody overwrites the names of all products, and the shop
// sells on for a while. When that is noticed, the drill stops the calls, restores the moment before
// the mistake, begins a new epoch of the events, audits everything, and sells again. Consumers of
// the events watch the whole time: they fail the drill if one event has two meanings.
//
// It prints the time from the notice to the first sale (RTO), and the sales between the restored
// moment and the notice, which are lost (RPO). There is no Aurora on this machine: what its own
// restore takes is in infra/RUNBOOK.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// limit bounds a drill. On a laptop it takes half a minute.
const limit = 15 * time.Minute

// options are the command line.
type options struct {
	// root is the checkout.
	root string
	// sell is how long the shop sells before the mistake, and unnoticed how long after it.
	sell, unnoticed time.Duration
	// client is the directory of pg_dump and psql, in the server's version or later. Empty leaves the
	// dump out.
	client string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "drill: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{}
	flags := flag.NewFlagSet("drill", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.root, "root", ".", "the checkout")
	flags.DurationVar(&o.sell, "sell", 10*time.Second, "how long the shop sells before the mistake")
	flags.DurationVar(&o.unnoticed, "unnoticed", 3*time.Second, "how long it sells after the mistake")
	flags.StringVar(&o.client, "client", "", "directory of pg_dump and psql")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	d, err := newDrill(ctx, o, stdout)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx), d.close())
}
