package pgserver

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long a server may take to shut down. A fast shutdown writes one checkpoint,
	// which takes well under a second with small buffers.
	stopTimeout = 10 * time.Second

	// killTimeout is how long the kernel may take to end killed processes. It takes milliseconds
	// unless a process is stuck in a disk driver.
	killTimeout = 10 * time.Second

	// endPollInterval is how often to check whether processes have ended that aren't children of this
	// one. No signal reports their end.
	endPollInterval = 5 * time.Millisecond
)

// alive reports whether p still runs. Another process with its id doesn't count.
func (p process) alive() bool {
	now, ok := lookup(p.pid)
	return ok && now.started == p.started
}

// signal sends sig to p; one that has ended already is not an error.
func (p process) signal(sig syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal postgres process %d: %w", p.pid, err)
	}
	return nil
}

// killServer ends the postmaster and its backends with SIGKILL, all at once,
// and returns when none of them is left.
func killServer(postmaster process) error {
	// A stopped postmaster starts no backend that the list would miss, and
	// doesn't react to the first backend's death.
	if err := postmaster.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	all, listErr := processes()
	doomed := []process{postmaster}
	for _, p := range all {
		if p.parent == postmaster.pid {
			doomed = append(doomed, p)
		}
	}
	return errors.Join(listErr, killAll(doomed))
}

// killAll ends the processes with SIGKILL and returns when none is left.
func killAll(doomed []process) error {
	var errs []error
	for _, p := range doomed {
		errs = append(errs, p.signal(syscall.SIGKILL))
	}
	for _, p := range doomed {
		if !p.awaitEnd(killTimeout) {
			errs = append(errs,
				fmt.Errorf("postgres process %d survived SIGKILL for %s", p.pid, killTimeout))
		}
	}
	return errors.Join(errs...)
}

// awaitEnd waits for the end of p and reports whether it came in time.
func (p process) awaitEnd(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); p.alive(); time.Sleep(endPollInterval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
