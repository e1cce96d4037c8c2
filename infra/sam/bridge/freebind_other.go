//go:build !linux

package main

import "syscall"

// freebind does nothing: where containers run in a virtual machine, the engine forwards to this machine's loopback, and nothing is relayed.
func freebind(_, _ string, _ syscall.RawConn) error { return nil }
