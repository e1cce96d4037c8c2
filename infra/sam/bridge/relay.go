package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// relayLimit is the number of connections at once, as many as the embedded server accepts. The
	// next one waits.
	relayLimit = 200
	// dialTimeout limits connecting to a server on this machine.
	dialTimeout = 5 * time.Second
)

// relay forwards connections from an address on the containers' network to one on this machine.
type relay struct {
	listener net.Listener
	target   string
}

// newRelay listens on a free port of the address. The address may appear only with the first
// container.
func newRelay(ctx context.Context, address, target string) (*relay, error) {
	lc := net.ListenConfig{Control: freebind}
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen on the containers' network: %w", err)
	}
	return &relay{listener: l, target: target}, nil
}

// serve relays until ctx ends. Then it closes every connection.
func (r *relay) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel()
	defer r.listener.Close()
	defer context.AfterFunc(ctx, func() { _ = r.listener.Close() })()
	slots := make(chan struct{}, relayLimit)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := r.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		connections.Go(func() {
			defer func() { <-slots }()
			r.carry(ctx, c)
		})
	}
}

// carry copies in both directions until one side closes. Postgres and its clients never close only
// one direction.
func (r *relay) carry(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }() // nothing is buffered that a failed close could lose
	d := net.Dialer{Timeout: dialTimeout}
	server, err := d.DialContext(ctx, "tcp", r.target)
	if err != nil {
		return // the function sees the connection close and reports the database as unreachable
	}
	defer func() { _ = server.Close() }()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, server}, {server, c}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // an error ends the connection like a close
			ended <- struct{}{}
		}()
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
