package main

import (
	"errors"
	"syscall"
)

// ipFreebind is IP_FREEBIND of linux/in.h. Package syscall has no name for it.
const ipFreebind = 15

// freebind allows a socket to listen on an address that this machine doesn't have yet.
func freebind(_, _ string, c syscall.RawConn) error {
	var setErr error
	err := c.Control(
		func(fd uintptr) { setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipFreebind, 1) },
	)
	return errors.Join(err, setErr)
}
