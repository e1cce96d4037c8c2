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
	err  error // How it ended; to be read after done is closed.
}

// Spawn starts cmd in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us and we shut the program down in order. On Linux the
// kernel sends the program the signal last when we die without having done so.
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

// run starts the program and waits for it on one locked thread: what the kernel
// takes for the parent's death is the end of the thread that started the child,
// and an ordinary goroutine's thread may end at any time.
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

// Signal sends sig; a program that has ended already is not an error.
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
	// Ports are picked from below the range that Linux (32768) and macOS (49152)
	// give to outgoing connections: a server that restarts on its port must not
	// find some client's connection there.
	lowestPort, highestPort = 20000, 32767

	// portTries bounds the search for a free port. With half of the range taken,
	// that many picks all fail once in a million times.
	portTries = 20
)

// FreePort returns a TCP port on 127.0.0.1 on which nothing listens. Nothing
// holds it for the caller, who must be ready to find it taken after all.
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
