package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pidFile is the content of the server's postmaster.pid.
type pidFile struct {
	pid   int
	port  int
	ready bool
}

// readPIDFile reads the data directory's postmaster.pid. It is false when there
// is none, or none that names a process.
func readPIDFile(dataDir string) (pidFile, bool) {
	content, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, false
	}
	// The lines are documented in Postgres' miscadmin.h: process id, data
	// directory, start time, port, socket directory, address, memory key, status.
	const pidLine, portLine, statusLine, lines = 0, 3, 7, 8
	var fields [lines]string
	copy(fields[:], strings.Split(string(content), "\n"))

	pid, err := strconv.Atoi(strings.TrimSpace(fields[pidLine]))
	if err != nil || pid <= 1 {
		return pidFile{}, false
	}
	// A file cut short by a crash has no port; then it isn't ready either.
	port, err := strconv.Atoi(strings.TrimSpace(fields[portLine]))
	ready := err == nil && strings.TrimSpace(fields[statusLine]) == "ready"
	return pidFile{pid: pid, port: port, ready: ready}, true
}

// RunningURL returns the URL of a database on the server that runs on the data directory. The
// server may belong to another process. ok is false when none runs or it doesn't accept connections
// yet.
func RunningURL(dataDir, database string) (url string, ok bool) {
	dataDir, err := resolve(dataDir)
	if err != nil {
		return "", false
	}
	file, ok := readPIDFile(dataDir)
	if !ok || !file.ready {
		return "", false
	}
	if p, ok := lookup(file.pid); !ok || !p.serves(dataDir) {
		return "", false
	}
	password, err := readPassword(dataDir)
	if err != nil {
		return "", false
	}
	return databaseURL(file.port, password, database), true
}

// clearLeftovers makes the data directory ready for a start: it ends the last server if it still
// runs, and removes its pid file, which may name an unrelated process.
//
// The caller holds the directory's lock, so a server that runs here is an orphan.
func clearLeftovers(dataDir string) error {
	if file, ok := readPIDFile(dataDir); ok {
		if p, ok := lookup(file.pid); ok && p.serves(dataDir) {
			if err := stopOrphan(p); err != nil {
				return err
			}
		}
	}
	// Backends that outlived their postmaster hold its shared memory, and
	// Postgres refuses to start beside them.
	all, err := processes()
	if err != nil {
		return err
	}
	var strays []process
	for _, p := range all {
		if p.serves(dataDir) {
			strays = append(strays, p)
		}
	}
	if err := killAll(strays); err != nil {
		return err
	}
	err = os.Remove(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a stale pid file: %w", err)
	}
	return nil
}

// stopOrphan shuts a server down whose starter has ended, or kills it after stopTimeout.
func stopOrphan(postmaster process) error {
	if err := postmaster.signal(syscall.SIGINT); err != nil {
		return err
	}
	if postmaster.awaitEnd(stopTimeout) {
		return nil
	}
	return killServer(postmaster)
}
