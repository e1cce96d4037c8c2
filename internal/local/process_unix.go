//go:build unix && !linux

package local

import "syscall"

// childAttributes keeps the terminal's Ctrl-C from a child, so that we end it in order. There is no death signal: a child
// whose parent was killed ends by itself when its Runtime API no longer answers.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
