package pgserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is one running process as the kernel describes it.
type process struct {
	pid, parent int
	name        string
	started     string // distinguishes two processes with the same id
}

// signalOnDeath makes the kernel send sig to the child when its parent dies,
// which even `kill -9` can't prevent.
func signalOnDeath(attr *syscall.SysProcAttr, sig syscall.Signal) {
	attr.Pdeathsig = sig
}

// lookup describes a process. ok is false for one that has ended, even when its exit status hasn't
// been collected yet.
func lookup(pid int) (p process, ok bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	// The line is `pid (name) state parent ...`, and a name may hold anything,
	// closing parentheses too. The start time is the 22nd field: see proc(5).
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 20 || bytes.ContainsAny(fields[0], "ZX") {
		return process{}, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return process{}, false
	}
	name := string(stat[open+1 : end])
	return process{pid: pid, parent: parent, name: name, started: string(fields[19])}, true
}

// processes lists every process of this machine.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := lookup(pid); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// serves reports whether p is a postgres process of the data directory.
func (p process) serves(dataDir string) bool {
	if p.name != "postgres" {
		return false
	}
	dir := filepath.Join("/proc", strconv.Itoa(p.pid))
	// The postmaster keeps the command line that Start gave it. A backend writes
	// its own title there, but both work in the data directory. Reading that link
	// needs a privilege that root lacks in many containers, hence both ways.
	command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err == nil && slices.Contains(strings.Split(string(command), "\x00"), dataDir) {
		return true
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	return err == nil && cwd == dataDir
}
