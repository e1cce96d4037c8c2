package browser

import (
	"net"
	"sync"
	"testing"
)

// door is an address at which servers follow one another. It stays open between them, so that no
// other program takes its port. While there is no server it drops each connection at once.
type door struct {
	listener net.Listener
	mu       sync.Mutex
	server   *entrance
}

// newDoor opens a free port until the test ends.
func newDoor(t *testing.T) *door {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	d := &door{listener: listener}
	go d.admit()
	return d
}

func (d *door) address() string { return d.listener.Addr().String() }

// entrance makes a listener for the next server. It is shut when that server closes it.
func (d *door) entrance() net.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = &entrance{Listener: d.listener, come: make(chan net.Conn), shut: make(chan struct{})}
	return d.server
}

// admit gives each connection to the present server.
func (d *door) admit() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return // the test is over
		}
		d.mu.Lock()
		server := d.server
		d.mu.Unlock()
		if server == nil || !server.admit(conn) {
			_ = conn.Close()
		}
	}
}

// entrance is the listener of one server of a door.
type entrance struct {
	net.Listener
	come chan net.Conn
	once sync.Once
	shut chan struct{}
}

func (e *entrance) admit(conn net.Conn) bool {
	select {
	case e.come <- conn:
		return true
	case <-e.shut:
		return false
	}
}

// Accept returns the next connection.
func (e *entrance) Accept() (net.Conn, error) {
	select {
	case conn := <-e.come:
		return conn, nil
	case <-e.shut:
		return nil, net.ErrClosed
	}
}

// Close shuts the entrance. The door stays open.
func (e *entrance) Close() error {
	e.once.Do(func() { close(e.shut) })
	return nil
}
