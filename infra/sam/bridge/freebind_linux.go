package main

import (
	"errors"
	"syscall"
)

// ipFreebind is IP_FREEBIND of linux/in.h, which package syscall doesn't name.
const ipFreebind = 15

// freebind lets a socket listen on an address that this machine doesn't have yet.
func freebind(_, _ string, c syscall.RawConn) error {
	var setErr error
	err := c.Control(func(fd uintptr) { setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipFreebind, 1) })
	return errors.Join(err, setErr)
}
