package pgserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Child is a started program that doesn't outlive this process.
type Child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // the result of Wait; read it after done is closed
}

// Spawn starts cmd in its own process group, so that a Ctrl-C in the terminal reaches only this
// process, which then shuts the program down. On Linux the kernel sends the program the signal last
// when this process dies first.
func Spawn(cmd *exec.Cmd, last syscall.Signal) (*Child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	signalOnDeath(cmd.SysProcAttr, last)

	c := &Child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// run starts the program and waits for it on one locked thread. The kernel takes the end of the
// thread that started the child for the parent's death, and the thread of an ordinary goroutine may
// end at any time.
func (c *Child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := startChild(c.cmd)
	started <- err
	if err == nil {
		c.err = c.cmd.Wait()
		close(c.done)
	}
}

// PID returns the program's process id, also after its end.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the program has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Signal sends sig. It returns nil when the program has ended already.
func (c *Child) Signal(sig os.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// WaitFor waits for the program's end and reports whether it came in time.
func (c *Child) WaitFor(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}

const (
	// Ports are picked below the range of outgoing connections, which begins at 32768 on Linux and
	// 49152 on macOS. So a restarted server doesn't find a client's connection on its port.
	lowestPort, highestPort = 20000, 32767

	// portTries bounds the search for a free port. With half of the range taken, all tries fail once
	// in a million searches.
	portTries = 20
)

// FreePort returns a TCP port on 127.0.0.1 on which nothing listens. It isn't reserved: another
// program may take it before the caller does.
func FreePort() (int, error) {
	var lastErr error
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(loopback), Port: port})
		if err != nil {
			lastErr = err
			continue
		}
		return port, listener.Close()
	}
	return 0, fmt.Errorf("find a free port: %w", lastErr)
}
