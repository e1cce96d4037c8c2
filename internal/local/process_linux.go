package local

import "syscall"

// childAttributes makes a child die with this process, even when this process is killed. It keeps
// the terminal's Ctrl-C from the child, which this process ends in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
