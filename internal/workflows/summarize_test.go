package workflows

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The page of a run shows what the command said, and a command that fails still fails the job.
func TestASummaryHasTheOutputAndKeepsTheStatus(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		command string
		status  int
		want    string
	}{
		"success":  {"echo Stack allo-dev; echo changes >&2", 0, "Stack allo-dev\nchanges\n"},
		"failure":  {"echo no credentials; exit 3", 3, "no credentials\n"},
		"too long": {"head -c 2000000 /dev/zero | tr '\\0' x", 0, "... and more: see the log.\n"},
	} {
		summary := filepath.Join(t.TempDir(), "summary.md")
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, ".ci", "summarize"),
			"bash", "-c", test.command)
		cmd.Env = append(os.Environ(), "GITHUB_STEP_SUMMARY="+summary)
		said, err := cmd.CombinedOutput()
		var failed *exec.ExitError
		status := 0
		if errors.As(err, &failed) {
			status = failed.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(summary)
		if err != nil {
			t.Fatal(err)
		}
		if status != test.status || !strings.Contains(string(text), test.want) ||
			len(text) > 1<<20 || len(said) == 0 {
			t.Errorf("%s: status %d, want %d; the summary has %d bytes and lacks %q",
				name, status, test.status, len(text), test.want)
		}
	}
}
