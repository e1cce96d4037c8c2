package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/postgres"
)

// psql opens the service's database in psql, with opts.rest as psql's arguments. It uses the server
// of a running `make run`, or starts one and stops it when psql ends.
func psql(ctx context.Context, opts options, c config.Config, stdout, stderr io.Writer) error {
	program, err := pgserver.FindClient()
	if err != nil {
		return err
	}
	return runClient(ctx, program, opts, c, stdout, stderr)
}

func runClient(
	ctx context.Context, program string, opts options, c config.Config, stdout, stderr io.Writer,
) (err error) {
	d, err := runningDatabase(ctx, opts, c, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	// psql handles Ctrl-C itself: it cancels the running query. Only SIGTERM ends psql.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
	defer stop()
	address, password, err := postgres.ClientURL(d.url)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{address}, opts.rest...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	if password != "" {
		cmd.Env = append(cmd.Environ(), "PGPASSWORD="+password)
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("psql: %w", err)
	}
	return nil
}
