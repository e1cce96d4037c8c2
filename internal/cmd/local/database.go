package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/allo/reservations/internal/app"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local/demo"
	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// databaseName is the database that the service uses on the embedded server.
const databaseName = "postgres"

// database is where the service keeps its data.
type database struct {
	url    string
	server *pgserver.Server // nil when this program didn't start the server
}

// stopped returns a channel that is closed when the embedded server has ended. It is nil, and so
// never ready, for a server that this program didn't start.
func (d database) stopped() <-chan struct{} {
	if d.server == nil {
		return nil
	}
	return d.server.Done()
}

// stop stops the embedded server if this program started it.
func (d database) stop() error {
	if d.server == nil {
		return nil
	}
	return d.server.Stop()
}

// openDatabase connects to DATABASE_URL, or starts the embedded server when that isn't set.
func openDatabase(
	ctx context.Context, opts options, c config.Config, progress io.Writer,
) (database, error) {
	if c.DatabaseURL != "" {
		d := database{url: c.DatabaseURL}
		return d, d.ping(ctx, c)
	}
	bin, err := pgserver.Find(opts.root)
	if err != nil {
		return database{}, err
	}
	if err := os.MkdirAll(opts.data, 0o755); err != nil {
		return database{}, explainData(opts, err)
	}
	server, err := pgserver.Start(ctx, pgserver.Config{
		BinDir:  bin,
		DataDir: opts.cluster(),
		// Every built function may have ten processes with a connection each.
		Settings: map[string]string{"max_connections": "200"},
		Progress: func(step string) { fmt.Fprintln(progress, "  "+step) },
	})
	if err != nil {
		return database{}, explainData(opts, err)
	}
	return database{url: server.URL(databaseName), server: server}, nil
}

// runningDatabase returns the embedded server of a running `make run`, if there is one. Otherwise
// it does what openDatabase does.
func runningDatabase(
	ctx context.Context, opts options, c config.Config, progress io.Writer,
) (database, error) {
	if c.DatabaseURL == "" {
		if url, ok := pgserver.RunningURL(opts.cluster(), databaseName); ok {
			return database{url: url}, nil
		}
	}
	return openDatabase(ctx, opts, c, progress)
}

// explainData names the remedy for data that this user may not write or this Postgres can't read.
func explainData(opts options, err error) error {
	var version *pgserver.VersionError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to write in %s: make it yours (sudo chown -R \"$USER\" %[1]s), "+
			"or choose another directory (make run ARGS='-data DIR')", opts.data)
	case errors.As(err, &version):
		return fmt.Errorf("%w: type `make reset` to remove the data, or install Postgres %s",
			version, version.Data)
	}
	return err
}

// ping connects to DATABASE_URL. It runs first, so that an unusable URL is reported at once. It
// checks no settings, because the migration sets some of them.
func (d database) ping(ctx context.Context, c config.Config) error {
	a, err := app.New(c, c.Logger(), 1, postgres.Unchecked)
	if err != nil {
		return err
	}
	defer a.Close()
	return d.explain(a.Service.Ping(ctx))
}

// explain adds the name DATABASE_URL to the error of a database that can't be used. It keeps only
// the reason of a failed connect, without the text of each layer.
func (d database) explain(err error) error {
	if err == nil || d.server != nil {
		return err
	}
	if none := (*postgres.NoConnectionError)(nil); errors.As(err, &none) {
		err = none.Err
	}
	return fmt.Errorf("can't use the database of DATABASE_URL: %w", err)
}

// prepare brings the schema up to date and seeds an empty database.
func (d database) prepare(ctx context.Context, progress io.Writer) error {
	fmt.Fprintln(progress, "  bringing the schema up to date")
	applied, err := migrate.Up(ctx, postgres.URL(d.url))
	if err != nil {
		return d.explain(err)
	}
	routines := 0
	for _, name := range applied {
		if strings.HasPrefix(name, "procedures/") {
			routines++
			continue
		}
		fmt.Fprintln(progress, "  applied the migration "+name)
	}
	if routines > 0 {
		fmt.Fprintf(progress, "  installed the routines of %d files\n", routines)
	}
	seeded, err := demo.SeedEmpty(ctx, d.url)
	if err != nil {
		return err
	}
	if seeded {
		fmt.Fprintln(progress, "  seeded the demo catalog")
	}
	return nil
}

// seed puts the demo catalog back. It uses the server of a running `make run`, or starts one and
// stops it afterwards.
func seed(ctx context.Context, opts options, c config.Config, stdout io.Writer) (err error) {
	confirmed := opts.remote && opts.eraseEverything
	if c.DatabaseURL != "" && !confirmed && demo.RefuseRemote(c.DatabaseURL) != nil {
		return errors.New("DATABASE_URL is on another machine, and seed removes all its data: " +
			"if you want that, type make seed ARGS='-remote -erase-everything'")
	}
	d, err := runningDatabase(ctx, opts, c, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := migrate.Up(ctx, postgres.URL(d.url)); err != nil {
		return d.explain(err)
	}
	if err := demo.Reset(ctx, d.url); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "The demo catalog is back, and all reservations are gone.")
	return nil
}

// reset removes the embedded server's data, unless the server runs.
func reset(opts options, c config.Config, stdout io.Writer) error {
	if c.DatabaseURL != "" {
		return errors.New("DATABASE_URL is set, and reset removes only the embedded server's data: " +
			"unset DATABASE_URL, or type `make seed` to reset its database")
	}
	if _, running := pgserver.RunningURL(opts.cluster(), databaseName); running {
		return errors.New("the service is running: stop it first")
	}
	if err := os.RemoveAll(opts.data); err != nil {
		return explainData(opts, fmt.Errorf("remove the data: %w", err))
	}
	fmt.Fprintln(stdout, "The embedded server's data is gone; the next `make run` starts afresh.")
	return nil
}
