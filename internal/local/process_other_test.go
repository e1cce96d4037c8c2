//go:build !linux

package local

import (
	"os"
	"syscall"
)

// isRunning sends signal 0, which only checks. It fails for a child that has been waited for.
func isRunning(pid int) bool {
	process, err := os.FindProcess(pid)
	return err == nil && process.Signal(syscall.Signal(0)) == nil
}

// runParent is for a test that runs on Linux only.
func runParent() {}
