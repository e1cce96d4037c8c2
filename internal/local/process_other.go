//go:build !unix

package local

import "syscall"

// childAttributes is nothing special here. A child whose parent was killed ends by itself when its Runtime API no longer
// answers.
func childAttributes() *syscall.SysProcAttr { return nil }
