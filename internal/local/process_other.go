//go:build !unix

package local

import "syscall"

// childAttributes returns nil here. A child whose parent was killed ends when its Runtime API no
// longer answers.
func childAttributes() *syscall.SysProcAttr { return nil }
