package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

// database is the name of the shop's database.
const database = "postgres"

// server is a Postgres of the drill.
type server struct{ *pgserver.Server }

func (s *server) url() string { return s.URL(database) }

// connect makes a connection of the superuser, who is an operator too.
func (s *server) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.url())
	if err != nil {
		return nil, fmt.Errorf("connect to a server of the drill: %w", err)
	}
	return conn, nil
}

// start starts a server on a folder of its own.
func (d *drill) start(
	ctx context.Context, name string, settings map[string]string,
) (*server, error) {
	settings["max_connections"] = "300" // each function has a pool of its own
	s, err := pgserver.Start(ctx, pgserver.Config{
		BinDir: d.bin, DataDir: d.data(name), Settings: settings,
		LogFile: d.data(name) + ".log",
	})
	if err != nil {
		return nil, err
	}
	return &server{s}, nil
}

func (d *drill) data(name string) string { return filepath.Join(d.dir, name) }

// startFirst starts the shop's server, which archives its log, with a catalog.
func (d *drill) startFirst(ctx context.Context) (*server, error) {
	s, err := d.start(ctx, "first", map[string]string{
		"archive_mode":    "on",
		"archive_command": fmt.Sprintf("cp %%p '%s/%%f'", d.archive()),
	})
	if err != nil {
		return nil, err
	}
	_, err = migrate.Up(ctx, postgres.URL(s.url()))
	if err == nil {
		err = seed(ctx, s)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// startOther starts a new server that has the schema and no data.
func (d *drill) startOther(ctx context.Context) (*server, error) {
	s, err := d.start(ctx, "other", map[string]string{})
	if err != nil {
		return nil, err
	}
	if _, err := migrate.Up(ctx, postgres.URL(s.url())); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// baseBackup copies the first server's data while it runs, as pg_basebackup does (Postgres's
// documentation, "Making a Base Backup Using the Low Level API").
func (d *drill) baseBackup(ctx context.Context) error {
	conn, err := d.first.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SELECT pg_backup_start('drill', true)"); err != nil {
		return fmt.Errorf("begin the base backup: %w", err)
	}
	if err := copyData(d.backup(), d.data("first")); err != nil {
		return fmt.Errorf("copy the data: %w", err)
	}
	var label string
	const stop = "SELECT labelfile FROM pg_backup_stop(true)"
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return fmt.Errorf("end the base backup: %w", err)
	}
	return os.WriteFile(filepath.Join(d.backup(), "backup_label"), []byte(label), 0o600)
}

// restore starts a second server on the base backup and lets it read the archived log up to the
// moment.
func (d *drill) restore(ctx context.Context) (*server, error) {
	name := fmt.Sprintf("restored-%d", time.Now().UnixNano())
	if err := copyData(d.data(name), d.backup()); err != nil {
		return nil, fmt.Errorf("copy the base backup: %w", err)
	}
	password, err := os.ReadFile(d.data("first") + ".password")
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(d.data(name)+".password", password, 0o600),
		os.WriteFile(filepath.Join(d.data(name), "recovery.signal"), nil, 0o600),
	)
	if err != nil {
		return nil, err
	}
	s, err := d.start(ctx, name, map[string]string{
		"restore_command":        fmt.Sprintf("cp '%s/%%f' %%p", d.archive()),
		"recovery_target_time":   d.moment.UTC().Format("2006-01-02 15:04:05.999999-07"),
		"recovery_target_action": "promote",
	})
	if err != nil {
		return nil, err
	}
	if err := s.awaitWritable(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// recoveryPause is how long the drill waits before it asks again whether the server takes writes.
const recoveryPause = 20 * time.Millisecond

func (s *server) awaitWritable(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		var recovering bool
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
			return fmt.Errorf("wait for the recovery: %w", err)
		}
		if !recovering {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the recovery: %w", ctx.Err())
		case <-time.After(recoveryPause):
		}
	}
}

// copyData copies a data directory. It leaves out the log, which is in the archive, and what names
// the running server. A file that vanishes meanwhile is one that the log makes anew.
func copyData(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.Mkdir(target, 0o700)
		case filepath.Dir(relative) == "pg_wal" || filepath.Dir(relative) == "pg_wal/archive_status" ||
			relative == "postmaster.pid" || relative == "postmaster.opts":
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
}
