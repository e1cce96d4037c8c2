// Package builttest builds the functions for tests that run them as processes, as Lambda does.
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

// Functions builds every function for this machine into build/NAME, once for all tests of the program, and returns that folder, which
// local.Built takes. The next run finds them there, and Go sees that they are current. Programs that may run at once have names of their own.
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

// Root is the checkout.
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
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", "lambda.norpc", "-o", out, "./functions/"+e.Name())
		cmd.Dir = root
		if message, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", e.Name(), err, message)
		}
	}
	return nil
}
