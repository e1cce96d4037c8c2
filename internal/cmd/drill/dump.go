package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// dumpBlock matches the commands of RUNBOOK.md that dump the restored copy and load the dump.
var dumpBlock = regexp.MustCompile("(?s)```sh\n( *pg_dump \"\\$copy\".*?)```")

// loadDump restores the moment on a second server, dumps it, and loads the dump into another one,
// by the runbook's own commands.
func (d *drill) loadDump(ctx context.Context, name string, into *server, routine string) error {
	start := time.Now()
	restored, err := d.restore(ctx)
	if err != nil {
		return err
	}
	copied := time.Now()
	err = d.runbook(ctx, restored, into)
	parts := fmt.Sprintf("restored in %s, dumped and loaded in %s", rounded(copied.Sub(start)),
		rounded(time.Since(copied)))
	if err := errors.Join(err, restored.Stop()); err != nil {
		return err
	}
	return d.reopen(ctx, name, into, routine, start, parts)
}

// runbook runs the runbook's commands on two servers.
func (d *drill) runbook(ctx context.Context, from, into *server) error {
	text, err := os.ReadFile(filepath.Join(d.root, "infra", "RUNBOOK.md"))
	if err != nil {
		return err
	}
	commands := dumpBlock.FindSubmatch(text)
	if commands == nil {
		return errors.New("RUNBOOK.md has no commands that begin with pg_dump")
	}
	// The passwords are of servers that end with the drill.
	script := `copy=$1 cluster=$2 PATH="$3:$PATH"` + "\n" + string(commands[1])
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script, "bash", from.url(),
		into.url(), d.client)
	cmd.Dir = d.dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run the commands of RUNBOOK.md: %w: %.2000s", err, output)
	}
	return nil
}
