//go:build unix && !linux

package local

import "syscall"

// childAttributes keeps the terminal's Ctrl-C from a child, which this process ends in order. There
// is no death signal here: a child whose parent was killed ends when its Runtime API no longer
// answers.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
