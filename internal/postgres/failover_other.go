//go:build !linux

package postgres

import "syscall"

// boundUnacked does nothing: only Linux has the option, and Lambda runs on Linux.
func boundUnacked(syscall.RawConn) error { return nil }
