//go:build !linux

package pgserver

import (
	"errors"
	"os/exec"
	"syscall"
)

// mayOverride is for Linux, where root may lack what makes it root.
func mayOverride() error { return nil }

// allowPassage can't help: only Linux has capabilities that outlive giving up
// root.
func allowPassage(*syscall.SysProcAttr) error {
	return errors.New("this system can't let it in")
}

// startChild starts cmd.
func startChild(cmd *exec.Cmd) error { return cmd.Start() }
