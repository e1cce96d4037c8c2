package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// network is the connection between a caller and Postgres. Its round trips take rtt longer than on
// the loopback. All of the delay comes before the write: a caller that waits for its answer sees no
// difference.
type network struct {
	rtt    time.Duration
	writes atomic.Int64
	wrap   func(net.Conn) net.Conn // around a connection, or nil
}

// dial is pgx's DialFunc. Only writes are delayed, the connect is not.
func (n *network) dial(ctx context.Context, proto, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, proto, address)
	if err != nil {
		return nil, err
	}
	if n.wrap != nil {
		conn = n.wrap(conn)
	}
	d, err := newDelay(n.rtt)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &slowConn{Conn: conn, network: n, delay: d}, nil
}

// slowConn is a connection with the delay of its network.
type slowConn struct {
	net.Conn
	network *network
	delay   *delay
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.network.writes.Add(1)
	if err := c.delay.wait(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *slowConn) Close() error { return errors.Join(c.Conn.Close(), c.delay.close()) }
