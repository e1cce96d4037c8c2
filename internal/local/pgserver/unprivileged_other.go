//go:build !linux

package pgserver

import (
	"errors"
	"os/exec"
	"syscall"
)

// mayOverride returns nil: only on Linux may root lack capabilities.
func mayOverride() error { return nil }

// allowPassage fails: only on Linux do capabilities outlive a change of the user.
func allowPassage(*syscall.SysProcAttr) error {
	return errors.New("this system has no capabilities")
}

// startChild starts cmd.
func startChild(cmd *exec.Cmd) error { return cmd.Start() }
