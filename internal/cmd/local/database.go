package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// databaseName is the embedded server's one database for us.
const databaseName = "postgres"

// database is where the service keeps its data: a server that somebody else runs, or one of ours.
type database struct {
	url    string
	server *pgserver.Server // nil when somebody else runs it
}

// stopped is closed when a server of ours has ended; it is nil, and so never ready, when the server isn't ours.
func (d database) stopped() <-chan struct{} {
	if d.server == nil {
		return nil
	}
	return d.server.Done()
}

func (d database) stop() error {
	if d.server == nil {
		return nil
	}
	return d.server.Stop()
}

// openDatabase reaches DATABASE_URL, or starts the embedded server when it isn't set.
func openDatabase(ctx context.Context, opts options, c config.Config, stdout io.Writer) (database, error) {
	if c.DatabaseURL != "" {
		return database{url: c.DatabaseURL}, nil
	}
	bin, err := pgserver.Find(opts.root)
	if err != nil {
		return database{}, err
	}
	if err := os.MkdirAll(opts.data, 0o755); err != nil {
		return database{}, fmt.Errorf("make a place for the data: %w", err)
	}
	server, err := pgserver.Start(ctx, pgserver.Config{
		BinDir:  bin,
		DataDir: opts.cluster(),
		// Every built function may have ten processes with a connection each.
		Settings: map[string]string{"max_connections": "200"},
		Progress: func(step string) { fmt.Fprintln(stdout, "  "+step) },
	})
	if err != nil {
		return database{}, err
	}
	return database{url: server.URL(databaseName), server: server}, nil
}

// prepare brings the schema up to date and seeds a database that is empty.
func (d database) prepare(ctx context.Context, stdout io.Writer) error {
	fmt.Fprintln(stdout, "  bringing the schema up to date")
	applied, err := migrate.Up(ctx, postgres.URL(d.url))
	if err != nil {
		return d.blame(err)
	}
	for _, name := range applied {
		fmt.Fprintln(stdout, "  applied the migration "+name)
	}
	seeded, err := demo.SeedEmpty(ctx, d.url)
	if err != nil {
		return err
	}
	if seeded {
		fmt.Fprintln(stdout, "  seeded the demo catalog")
	}
	return nil
}

// blame names the variable that chose a database which can't be used.
func (d database) blame(err error) error {
	if d.server != nil {
		return err
	}
	return fmt.Errorf("the database of DATABASE_URL can't be used: %w", err)
}

// seed puts the demo catalog back. It uses the server of a `run` that is going on, or starts one for the while.
func seed(ctx context.Context, opts options, c config.Config, stdout io.Writer) (err error) {
	twice := opts.remote && opts.eraseEverything
	if c.DatabaseURL != "" && !twice && demo.RefuseRemote(c.DatabaseURL) != nil {
		return errors.New("DATABASE_URL is not on this machine; if everything on it may be removed, say so twice: " +
			"make seed ARGS='-remote -erase-everything'")
	}
	d, err := runningDatabase(ctx, opts, c, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := migrate.Up(ctx, postgres.URL(d.url)); err != nil {
		return d.blame(err)
	}
	if err := demo.Reset(ctx, d.url); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "The demo catalog is as it was, and every reservation is gone.")
	return nil
}

func runningDatabase(ctx context.Context, opts options, c config.Config, stdout io.Writer) (database, error) {
	if c.DatabaseURL == "" {
		if url, ok := pgserver.RunningURL(opts.cluster(), databaseName); ok {
			return database{url: url}, nil
		}
	}
	return openDatabase(ctx, opts, c, stdout)
}

// reset removes the embedded server's data, unless it is in use.
func reset(opts options, c config.Config, stdout io.Writer) error {
	if c.DatabaseURL != "" {
		return errors.New("DATABASE_URL is set, and reset is for the embedded server: use seed, or unset it")
	}
	if _, running := pgserver.RunningURL(opts.cluster(), databaseName); running {
		return errors.New("the service is running: stop it first")
	}
	if err := os.RemoveAll(opts.data); err != nil {
		return fmt.Errorf("remove the data: %w", err)
	}
	fmt.Fprintln(stdout, "The embedded server's data is gone; the next `make run` starts afresh.")
	return nil
}
