// Package builttest builds the functions for tests that run them as processes, like Lambda.
package builttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var (
	once   sync.Once
	failed error
)

// Functions builds every function for this machine and returns the directory build/NAME, for
// local.Built. It builds once for all tests of a program. All programs share the binaries, so a
// later one builds only what is out of date. A process is known by its path, so programs that may
// run at the same time need different names.
func Functions(t testing.TB, name string) string {
	t.Helper()
	root := Root(t)
	dir := filepath.Join(root, "build", name)
	once.Do(func() { failed = build(t.Context(), root, dir) })
	if failed != nil {
		t.Fatal(failed)
	}
	return dir
}

// Root returns the checkout's directory.
func Root(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// build builds all functions at once into build/tested, which leaves alone what is up to date. Each
// dir/NAME/bootstrap is another name of a binary there. One program builds at a time.
func build(ctx context.Context, root, dir string) error {
	entries, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		return err
	}
	binaries := filepath.Join(root, "build", "tested")
	if err := os.MkdirAll(binaries, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(binaries)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which also unlocks it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", binaries, err)
	}
	// Without tables for debuggers the binaries are linked faster, and are more like a deploy's.
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", "lambda.norpc",
		"-ldflags", "-s -w", "-o", binaries+string(filepath.Separator), "./functions/...")
	cmd.Dir = root
	if message, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the functions: %w: %s", err, message)
	}
	for _, e := range entries {
		bootstrap := filepath.Join(dir, e.Name(), "bootstrap")
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(bootstrap), 0o755), os.RemoveAll(bootstrap),
		); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(binaries, e.Name()), bootstrap); err != nil {
			return err
		}
	}
	return nil
}
