package pgtest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameTTL is the TTL of each answer, in seconds. It is longer than any test, so a client that keeps
// answers would notice no change.
const nameTTL = 3600

// NameServer stands in for a region's DNS: each name has the address that the test has given it
// last.
type NameServer struct {
	conn net.PacketConn

	mu        sync.Mutex
	addresses map[string]netip.Addr
	asked     int
}

// NewNameServer starts a name server on 127.0.0.1, until the test ends.
func NewNameServer(t testing.TB) *NameServer {
	t.Helper()
	var listener net.ListenConfig
	conn, err := listener.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &NameServer{conn: conn, addresses: map[string]netip.Addr{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.serve()
	}()
	t.Cleanup(func() {
		_ = conn.Close() // which ends serve
		<-done
	})
	return n
}

// Point gives a name an IPv4 address. A name without an address doesn't exist.
func (n *NameServer) Point(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses[name+"."] = netip.MustParseAddr(address)
}

// Asked counts the questions for an IPv4 address so far.
func (n *NameServer) Asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// Resolver returns Go's own resolver, as a static program has it, with this server in place of the
// one in /etc/resolv.conf.
func (n *NameServer) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "udp", n.conn.LocalAddr().String())
		},
	}
}

// serve answers questions until the server is closed.
func (n *NameServer) serve() {
	buffer := make([]byte, 512) // the most that a question over UDP has
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var question dnsmessage.Message
		if question.Unpack(buffer[:size]) != nil || len(question.Questions) != 1 {
			continue // the client asks again
		}
		answer := n.answer(question.ID, question.Questions[0])
		if packed, err := answer.Pack(); err == nil {
			_, _ = n.conn.WriteTo(packed, from)
		}
	}
}

// answer answers one question.
func (n *NameServer) answer(id uint16, q dnsmessage.Question) dnsmessage.Message {
	answer := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, Authoritative: true},
		Questions: []dnsmessage.Question{q},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	address, found := n.addresses[q.Name.String()]
	switch {
	case !found:
		answer.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		n.asked++
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{
				Name: q.Name, Type: q.Type, Class: q.Class, TTL: nameTTL,
			},
			Body: &dnsmessage.AResource{A: address.As4()},
		}}
	}
	return answer
}
