package postgres_test

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
)

// A machine that has gone says nothing, and no test can take one away. So this reads what the
// kernel was told.
func TestTheKernelEndsAConnectionToAMachineThatHasGone(t *testing.T) {
	t.Parallel()

	var socket syscall.Conn
	p := open(t, pgtest.New(t).DirectURL, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			socket, _ = conn.(syscall.Conn)
			return conn, err
		}
	})
	if err := p.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct {
		name               string
		level, code, value int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{
			"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
			int(postgres.UnackedTimeout.Milliseconds()),
		},
	} {
		var got int
		var failed error
		err := raw.Control(func(fd uintptr) {
			got, failed = unix.GetsockoptInt(int(fd), option.level, option.code)
		})
		if err != nil || failed != nil || got != option.value {
			t.Errorf("%s = %d, %v, %v, want %d", option.name, got, err, failed, option.value)
		}
	}
}

// listenDeafly returns an address that answers no attempt to connect: its queue is full.
func listenDeafly(t *testing.T) (address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for { // until an attempt isn't answered
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// An address that nobody answers at costs a caller dialTimeout. The kernel alone would give it up
// after unackedTimeout.
func TestAMachineThatHasGoneIsGivenUpSoon(t *testing.T) {
	t.Parallel()

	p := open(t, "postgres://u@"+listenDeafly(t)+"/d?sslmode=disable")
	start := time.Now()
	err := p.Exec(t.Context(), "SELECT 1")
	if took := time.Since(start); !postgres.NoConnection(err) ||
		took < postgres.DialTimeout || took >= postgres.UnackedTimeout {
		t.Errorf("Exec() = %v after %v, want no connection after %v", err, took,
			postgres.DialTimeout)
	}
}
