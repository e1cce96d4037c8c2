package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/allo/reservations/internal/local/pgserver"
)

const (
	// startTimeout limits the start of the embedded server, including its first initdb.
	startTimeout = 2 * time.Minute
	// startEvery is how often the bridge checks that the server has started.
	startEvery = 100 * time.Millisecond
	// stopTimeout is how long the server may take to stop before it is killed.
	stopTimeout = 20 * time.Second
	// databaseName is the service's database on the embedded server.
	databaseName = "postgres"
)

// embedded is the Postgres server of `make run`.
type embedded struct {
	url  string
	stop func() // stops the server if openEmbedded started it
}

// openEmbedded finds the server of a running `make run`, or starts one. The server's output goes to
// a file in dir.
func openEmbedded(ctx context.Context, root, dir string) (embedded, error) {
	data := filepath.Join(root, ".local", "postgres")
	if url, ok := pgserver.RunningURL(data, databaseName); ok {
		return embedded{url: url, stop: func() {}}, nil
	}
	output, err := os.Create(filepath.Join(dir, "local.log"))
	if err != nil {
		return embedded{}, fmt.Errorf("create the log of the local program: %w", err)
	}
	defer func() { _ = output.Close() }() // the program has its own handle
	port, err := freePort(ctx)
	if err != nil {
		return embedded{}, err
	}
	running, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(
		running, filepath.Join(root, "build", "bin", "local"), "run", "-with-parent", "-root", root,
	)
	cmd.Stdout, cmd.Stderr = output, output
	// The program sweeps rarely, so that `make sam-sweep` finds holds to expire.
	cmd.Env = append(cmd.Environ(), "HOST=127.0.0.1", "PORT="+strconv.Itoa(port), "SWEEP_INTERVAL=1h")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		cancel()
		return embedded{}, fmt.Errorf(
			"start the embedded Postgres: %w; make build/bin/local, or set %s", err, variable,
		)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its output has the reason
	}()
	e := embedded{stop: func() { cancel(); <-ended }}
	health := "http://127.0.0.1:" + strconv.Itoa(port) + "/api/health"
	if err := waitHealthy(ctx, health, ended); err != nil {
		e.stop()
		return embedded{}, fmt.Errorf(
			"start the embedded Postgres: %w; see %s, or set %s", err, output.Name(), variable,
		)
	}
	url, ok := pgserver.RunningURL(data, databaseName)
	if !ok {
		e.stop()
		return embedded{}, fmt.Errorf("the embedded Postgres has ended; see %s", output.Name())
	}
	e.url = url
	return e, nil
}

// waitHealthy waits until the local program answers. By then the schema is migrated and seeded.
func waitHealthy(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("the local program ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startEvery):
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
