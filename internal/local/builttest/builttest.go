// Package builttest builds the functions for tests that run them as processes, like Lambda.
package builttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	once   sync.Once
	failed error
)

// Functions builds every function for this machine into build/NAME and returns that directory, for
// local.Built. It builds once for all tests of a program, and a later run reuses an up-to-date
// build. Programs that may run at the same time need different names.
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

func build(ctx context.Context, root, dir string) error {
	entries, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		out := filepath.Join(dir, e.Name(), "bootstrap")
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", "lambda.norpc",
			"-o", out, "./functions/"+e.Name())
		cmd.Dir = root
		if message, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", e.Name(), err, message)
		}
	}
	return nil
}
