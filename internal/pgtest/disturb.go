package pgtest

import (
	"context"
	_ "embed" // for the library's source
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/allo/reservations/internal/local/pgserver"
)

//go:embed testdata/disturb.c
var disturbSource []byte

// disturbance is what the library reads from its file. Its layout is that of the type in disturb.c.
type disturbance struct {
	clockOffset atomic.Int64 // microseconds
	diskStalled atomic.Int64 // 0 or 1
}

// Disturbed is a server whose clock a test can move and whose disk a test can stall, while the
// server runs. A restart changes neither.
type Disturbed struct {
	*pgserver.Server
	current *disturbance
}

// NewDisturbedServer starts a server as [NewServer] does, with a library that stands between the
// server and the C library. The C compiler that the race detector needs builds the library. Where
// there is none, or no Linux, the test is skipped, except in CI.
func NewDisturbedServer(t testing.TB, settings map[string]string) (*Disturbed, Database) {
	t.Helper()
	library := buildLibrary(t)
	path, current := mapDisturbance(t)
	server, db := newServer(t, pgserver.Config{
		Settings: settings,
		Env:      []string{"LD_PRELOAD=" + library, "PGTEST_DISTURBANCE=" + path},
	})
	d := &Disturbed{Server: server, current: current}
	t.Cleanup(d.ResumeDisk) // so that the server can stop
	return d, db
}

// JumpClock moves the server's wall clock by d, forward or back, at once and for all sessions.
func (d *Disturbed) JumpClock(by time.Duration) { d.current.clockOffset.Add(by.Microseconds()) }

// ClockOffset returns by how much the server's wall clock is ahead of this machine's.
func (d *Disturbed) ClockOffset() time.Duration {
	return time.Duration(d.current.clockOffset.Load()) * time.Microsecond
}

// StallDisk makes every flush of the server wait until ResumeDisk, or until the process is killed.
// Writes to the page cache go on. A flush of the log holds the lock that a write of the log needs,
// so a commit during the stall stays in the server's memory. A kill then loses it.
func (d *Disturbed) StallDisk() { d.current.diskStalled.Store(1) }

// ResumeDisk ends the stall.
func (d *Disturbed) ResumeDisk() { d.current.diskStalled.Store(0) }

// buildLibrary compiles the library and returns its path.
func buildLibrary(t testing.TB) string {
	t.Helper()
	compiler, err := exec.LookPath("gcc")
	if err != nil || runtime.GOOS != "linux" {
		if os.Getenv("CI") != "" {
			t.Fatalf("this test needs Linux and a C compiler: %v", err)
		}
		t.Skipf("this test needs Linux and a C compiler, because it preloads a library: %v", err)
	}
	library := filepath.Join(t.TempDir(), "disturb.so")
	source := filepath.Join(filepath.Dir(library), "disturb.c")
	if err := os.WriteFile(source, disturbSource, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	build := exec.CommandContext(ctx, compiler, "-O2", "-Wall", "-Wextra", "-shared",
		"-fPIC", "-o", library, source, "-ldl")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile disturb.c: %v: %s", err, output)
	}
	return library
}

// mapDisturbance makes the library's file and maps it into this process, until the test ends.
func mapDisturbance(t testing.TB) (path string, current *disturbance) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disturbance")
	size := int(unsafe.Sizeof(disturbance{})) // #nosec G103 -- the size of a mapping
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // the mapping stays
	mapped, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_SHARED)
	if err != nil {
		t.Fatalf("map %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(mapped); err != nil {
			t.Errorf("unmap %s: %v", path, err)
		}
	})
	// #nosec G103 -- the mapping is aligned to a page and as large as the type
	return path, (*disturbance)(unsafe.Pointer(&mapped[0]))
}
