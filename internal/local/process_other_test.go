//go:build !linux

package local

import (
	"os"
	"syscall"
)

// isRunning asks with the signal that is none. A process of ours that has been waited for is gone.
func isRunning(pid int) bool {
	process, err := os.FindProcess(pid)
	return err == nil && process.Signal(syscall.Signal(0)) == nil
}

// runParent belongs to a test of Linux alone.
func runParent() {}
