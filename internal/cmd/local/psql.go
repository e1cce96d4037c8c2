package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/pgserver"
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
	address, password, err := splitPassword(d.url)
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

// splitPassword takes the password out of a URL: every user of this machine can read a command
// line.
func splitPassword(address string) (rest, password string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", errors.New("DATABASE_URL isn't a URL") // the parser's error repeats the password
	}
	if u.User != nil {
		password, _ = u.User.Password()
		u.User = url.User(u.User.Username())
	}
	return u.String(), password, nil
}
