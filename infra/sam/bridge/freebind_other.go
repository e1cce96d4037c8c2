//go:build !linux

package main

import "syscall"

// freebind does nothing. On systems other than Linux, containers run in a virtual machine. The
// engine forwards to this machine's loopback, and the bridge relays nothing.
func freebind(_, _ string, _ syscall.RawConn) error { return nil }
