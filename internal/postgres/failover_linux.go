package postgres

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnacked ends the connection when data that it has sent isn't acknowledged for
// unackedTimeout.
func boundUnacked(conn syscall.RawConn) error {
	var set error
	err := conn.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
			int(unackedTimeout.Milliseconds()))
	})
	return errors.Join(err, set)
}
