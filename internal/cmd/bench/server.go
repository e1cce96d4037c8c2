package main

import (
	"context"
	_ "embed" // for the C source
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/local/pgserver"
	"github.com/allo/reservations/internal/migrate"
	"github.com/allo/reservations/internal/postgres"
)

//go:embed slowflush/slowflush.c
var slowFlushSource []byte

// database is the name of the measured database.
const database = "postgres"

// server is the embedded Postgres, on a disk whose flushes can be made slower.
type server struct {
	*pgserver.Server
	dir   string
	flush *os.File // nil without a C compiler to build the delay
	env   []string
	admin *pgx.Conn
}

// settings are a production server's where that matters. The large buffers keep checkpoints out of
// a run. fsync and synchronous_commit stay on: startServer refuses a server without them.
var settings = map[string]string{
	"max_connections":    "200",
	"shared_buffers":     "2GB",
	"max_wal_size":       "16GB",
	"checkpoint_timeout": "30min",
	"full_page_writes":   "on",
	"wal_sync_method":    "fdatasync",
	"track_io_timing":    "off",
}

// startServer starts a fresh, migrated server in a directory of its own.
func startServer(ctx context.Context, root string) (s *server, err error) {
	bin, err := pgserver.Find(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "allo-bench-")
	if err != nil {
		return nil, err
	}
	// The server may run as another user.
	//nolint:gosec // it holds nothing secret; the data directory has its own mode
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	s = &server{dir: dir}
	if err := s.slowFlush(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: flushes cannot be slowed here: %v\n", err)
	}
	s.Server, err = pgserver.Start(ctx, pgserver.Config{
		BinDir: bin, DataDir: filepath.Join(dir, "data"), Settings: settings, Env: s.env,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if _, err := migrate.Up(ctx, postgres.URL(s.url())); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	if s.admin, err = pgx.Connect(ctx, s.url()); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	// The bench's own queries read whole tables, so they use Postgres's default planner settings.
	defaults := map[string]string{"enable_seqscan": "on", "plan_cache_mode": "auto", "jit": "on"}
	for name, value := range defaults {
		if _, err := s.admin.Exec(ctx, "SELECT set_config($1, $2, false)", name,
			value); err != nil {
			return nil, errors.Join(err, s.close(ctx))
		}
	}
	// The reference's queue on a hot row outlasts the service's time-outs, which would turn its
	// figures into errors.
	for _, name := range []string{"lock_timeout", "statement_timeout"} {
		for _, sql := range []string{
			"SET " + name + " = 0",
			"ALTER ROLE CURRENT_USER IN DATABASE " + database + " SET " + name + " = '1min'",
		} {
			if _, err := s.admin.Exec(ctx, sql); err != nil {
				return nil, errors.Join(err, s.close(ctx))
			}
		}
	}
	return s, s.mustBeDurable(ctx)
}

func (s *server) url() string { return s.URL(database) }

func (s *server) close(ctx context.Context) error {
	if s.admin != nil {
		_ = s.admin.Close(ctx)
	}
	return errors.Join(s.Stop(), os.RemoveAll(s.dir))
}

// slowFlush builds the library that slows flushes, and adds it to the server's environment.
func (s *server) slowFlush(ctx context.Context) error {
	if runtime.GOOS != "linux" {
		return errors.New("only Linux can preload the delay")
	}
	source := filepath.Join(s.dir, "slowflush.c")
	library := filepath.Join(s.dir, "slowflush.so")
	delays := filepath.Join(s.dir, "delay")
	//nolint:gosec // read by the server's user
	if err := os.WriteFile(source, slowFlushSource, 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "cc", "-O2", "-shared", "-fPIC", "-o", library, source,
		"-ldl").CombinedOutput(); err != nil {
		return fmt.Errorf("cc: %w: %s", err, out)
	}
	//nolint:gosec // read by the server's user
	if err := os.WriteFile(delays, make([]byte, 4), 0o644); err != nil {
		return err
	}
	file, err := os.OpenFile(delays, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.flush = file
	s.env = []string{"LD_PRELOAD=" + library, "SLOWFLUSH_FILE=" + delays}
	return nil
}

// setFlush makes every flush slower by d from now on.
func (s *server) setFlush(d time.Duration) error {
	if s.flush == nil {
		if d == 0 {
			return nil
		}
		return errors.New("flushes cannot be slowed here")
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(d.Microseconds()))
	_, err := s.flush.WriteAt(b[:], 0)
	return err
}

// describe returns one line with the command, the date, the versions and the machine.
func (s *server) describe(ctx context.Context, o options) (string, error) {
	var version string
	if err := s.admin.QueryRow(ctx,
		"SELECT split_part(version(), ' on ', 1)").Scan(&version); err != nil {
		return "", err
	}
	command := "make bench"
	if o.quick {
		command += " ARGS=-quick"
	}
	if o.only != "" {
		command += " ARGS='-only " + o.only + "'"
	}
	size := fmt.Sprintf("%d processors", runtime.NumCPU())
	if memory := machineMemory(); memory > 0 {
		size += fmt.Sprintf(" and %d GiB of memory", memory)
	}
	return fmt.Sprintf("`%s` on %s: %d rounds of %v, %s, %s, %s/%s with %s.\n\n", command,
		time.Now().UTC().Format(time.DateOnly),
		o.rounds, o.length, version, runtime.Version(), runtime.GOOS, runtime.GOARCH, size), nil
}

// mustBeDurable refuses a server that does not flush: its figures would mean nothing.
func (s *server) mustBeDurable(ctx context.Context) error {
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		if err := s.admin.QueryRow(ctx, "SELECT current_setting($1)",
			name).Scan(&value); err != nil {
			return err
		}
		if value != "on" {
			return fmt.Errorf("the server has %s = %s: its figures would mean nothing", name, value)
		}
	}
	return nil
}
