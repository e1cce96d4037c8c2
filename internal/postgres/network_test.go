package postgres_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// network carries connections to a server until the test calls forget. The connections then stay
// open and carry nothing more, while new ones work. It never carries a request to cancel a
// statement.
type network struct {
	t      *testing.T
	server string
	url    string // the server's URL through the network
	mu     sync.Mutex
	lost   chan struct{} // closed by forget; later connections get another channel
}

func newNetwork(t *testing.T, address string) *network {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, server: u.Host, lost: make(chan struct{})}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { n.carry(client) })
		}
	})
	u.Host = listener.Addr().String()
	n.url = u.String()
	return n
}

// forget cuts the connections that are open now, without closing them.
func (n *network) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.lost)
	n.lost = make(chan struct{})
}

// cancelCode is the second word of a request to cancel. Other connections send the protocol's
// version there.
var cancelCode = []byte{4, 210, 22, 46}

func (n *network) carry(client net.Conn) {
	defer client.Close()
	n.mu.Lock()
	lost := n.lost
	n.mu.Unlock()
	begin := make([]byte, 8)
	if _, err := io.ReadFull(client, begin); err != nil {
		return
	}
	if bytes.Equal(begin[4:], cancelCode) {
		_, _ = io.Copy(io.Discard, client) // until the client gives up
		return
	}
	server, err := net.Dial("tcp", n.server)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(begin); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pass(server, client, lost); server.Close() })
	both.Go(func() { pass(client, server, lost) })
	both.Wait()
}

// pass copies what it reads, or drops it once the connection is forgotten.
func pass(to io.Writer, from io.Reader, lost <-chan struct{}) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-lost:
			continue
		default:
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// listenSilently accepts connections and answers nothing.
func listenSilently(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	return listener.Addr().String()
}
