package local

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// isRunning reports whether a process exists and isn't a zombie.
func isRunning(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// runParent runs as the process that TestChildrenDieWithTheirParent kills. Its child prints its id
// and hangs in a handler, so that only the death signal ends it.
func runParent() {
	binary, err := os.Executable()
	if err != nil {
		panic(err)
	}
	r := NewRuntime(
		RuntimeConfig{Name: "reserve", Binary: binary, Timeout: patience, Stdout: os.Stdout},
	)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _ = r.Invoke(ctx, []byte(`{"Do":"hang"}`))
}

func TestChildrenDieWithTheirParent(t *testing.T) {
	t.Parallel()

	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(binary)
	parent.Env = []string{"TEST_PARENT=1"}
	parent.Stderr = t.Output()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	child, err := strconv.Atoi(strings.TrimSpace(line))
	killErr := parent.Process.Kill()
	_ = parent.Wait()
	if err != nil || killErr != nil {
		t.Fatalf("parent printed %q: %v, %v", line, err, killErr)
	}

	for deadline := time.Now().Add(patience); isRunning(child); {
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatalf("process %d has outlived its parent", child)
		}
		time.Sleep(time.Millisecond) // Only a parent is told of a process's end.
	}
}
