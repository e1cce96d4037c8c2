// Command migrateremote applies this commit's migrations to a stack's database, however long they
// take, before the commit is deployed:
//
//	migrateremote -stack allo-prod
//
// It builds the migrate function, puts it into the stack's function STACK-migrate and invokes it
// again and again. Each invocation lasts for a minute at most and answers what the database does. A
// statement that takes longer goes on inside Postgres meanwhile (internal/migrate). So nothing ends
// it: neither Lambda's limit of fifteen minutes nor this program's end. Started again, the program
// goes on where the database is.
//
// A build in CodeBuild would have no such limit either. But CodeBuild asks for subnets with a NAT
// gateway (its user guide, "Allow Amazon VPC access in your CodeBuild projects"), and the stack's
// subnets have no way to the internet. The function has its place in the network, its role and its
// login already.
//
// It changes the function's code but publishes no version, so the deploy that follows finds one to
// publish. The versions of earlier deploys stay as they are. The program needs AWS's command line,
// and runs in its region and account.
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

const (
	// stepSeconds is how long an invocation waits for the database. Networks drop a connection on
	// which nothing is sent for some minutes, and an operator wants to see something.
	stepSeconds = 50
	// usualLimit is how long the program goes on by default. A day is enough for any index.
	usualLimit = 24 * time.Hour
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "migrateremote: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("migrateremote", flag.ContinueOnError)
	flags.SetOutput(stderr)
	stack := flags.String("stack", "", "the stack's name, such as allo-prod")
	limit := flags.Duration("limit", usualLimit, "how long to go on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *stack == "" || flags.NArg() > 0 {
		return errors.New("name the stack, and nothing else: make migrate-remote STACK=allo-prod")
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	f := remote{name: *stack + "-migrate", command: command, stderr: stderr}
	if err := f.update(ctx); err != nil {
		return err
	}
	return follow(ctx, f.invoke, stdout)
}
