//go:build !linux

package pgserver

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// psTimeout bounds one run of ps, which answers within milliseconds.
const psTimeout = 5 * time.Second

// process is one running process as ps describes it.
type process struct {
	pid, parent int
	name        string
	started     string // distinguishes two processes with the same id
	command     string
}

// signalOnDeath does nothing: only Linux can tell a child of its parent's
// death. Elsewhere the next Start on the data directory ends an orphan.
func signalOnDeath(*syscall.SysProcAttr, syscall.Signal) {}

// lookup describes a process. ok is false for one that has ended, even when its exit status hasn't
// been collected yet.
func lookup(pid int) (p process, ok bool) {
	all, err := processes()
	i := slices.IndexFunc(all, func(p process) bool { return p.pid == pid })
	if err != nil || i < 0 {
		return process{}, false
	}
	return all[i], true
}

// processes lists every process of this machine.
func processes() ([]process, error) {
	ctx, cancel := context.WithTimeout(context.Background(), psTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,lstart=,command=")
	cmd.Env = []string{"LC_ALL=C"} // The start time is five words in this locale.
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var all []process
	for line := range strings.Lines(string(output)) {
		if p, ok := parseProcess(line); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// parseProcess reads one line of ps: the ids, the state, the start time as
// `Mon Jan 2 15:04:05 2006`, and the command line. It is false for a zombie.
func parseProcess(line string) (process, bool) {
	fields := strings.Fields(line)
	if len(fields) < 9 || strings.HasPrefix(fields[2], "Z") {
		return process{}, false
	}
	pid, pidErr := strconv.Atoi(fields[0])
	parent, parentErr := strconv.Atoi(fields[1])
	return process{
		pid:     pid,
		parent:  parent,
		name:    filepath.Base(fields[8]),
		started: strings.Join(fields[3:8], " "),
		command: strings.Join(fields[8:], " "),
	}, pidErr == nil && parentErr == nil
}

// serves reports whether p is the postmaster of the data directory. Backends
// don't show the directory; they end by themselves when their postmaster does.
func (p process) serves(dataDir string) bool {
	return strings.Contains(p.command, "postgres -D "+dataDir+" ")
}
