package local

import "syscall"

// childAttributes makes a child die with us, even when we are killed and can't close anything, and keeps the terminal's
// Ctrl-C from it, so that we end it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
