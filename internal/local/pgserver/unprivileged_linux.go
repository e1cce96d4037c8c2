package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

const (
	// capDACOverride lets a process pass through directories that its user may not enter. Postgres
	// accepts it: it only refuses the user id 0.
	capDACOverride = 1

	// capSetPCap allows a change of the security bits; see startChild.
	capSetPCap = 8

	// noSetuidFixup is the security bit SECBIT_NO_SETUID_FIXUP of
	// capabilities(7).
	noSetuidFixup = 1 << 2
)

// mayOverride returns an error unless this process has CAP_DAC_OVERRIDE and may pass it on. A
// container may have dropped it; then root can't read the data of the user that runs the server.
func mayOverride() error {
	if !mayPassOn(capDACOverride) {
		return errors.New("this root lacks CAP_DAC_OVERRIDE")
	}
	return nil
}

// allowPassage lets a program that gives up root still enter every directory.
func allowPassage(attr *syscall.SysProcAttr) error {
	if !mayPassOn(capDACOverride) || !mayPassOn(capSetPCap) {
		return errors.New("this root lacks CAP_DAC_OVERRIDE or CAP_SETPCAP")
	}
	attr.AmbientCaps = append(attr.AmbientCaps, capDACOverride)
	return nil
}

// startChild starts cmd from a locked thread. A program that keeps a capability without being root
// also gets a security bit. Without it the capability has no effect in two places: at the exec that
// looks the program up, and in access(2), by which Postgres finds its own parts. The bit belongs to
// the thread: the child inherits it, and startChild takes it back.
func startChild(cmd *exec.Cmd) error {
	if len(cmd.SysProcAttr.AmbientCaps) == 0 {
		return cmd.Start()
	}
	before, err := prctl(syscall.PR_GET_SECUREBITS, 0)
	if err != nil {
		return fmt.Errorf("read the security bits: %w", err)
	}
	if _, err := prctl(syscall.PR_SET_SECUREBITS, before|noSetuidFixup); err != nil {
		return fmt.Errorf("set a security bit: %w", err)
	}
	err = cmd.Start()
	if _, resetErr := prctl(syscall.PR_SET_SECUREBITS, before); resetErr != nil {
		// The bit has no effect on a thread that doesn't change its user. All the same, no other code
		// may run on this thread.
		runtime.LockOSThread()
	}
	return err
}

func prctl(option, argument uintptr) (uintptr, error) {
	value, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, option, argument, 0)
	if errno != 0 {
		return 0, errno
	}
	return value, nil
}

// mayPassOn reports whether this process has the capability and may give it to a child.
func mayPassOn(capability uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for _, set := range []string{"CapEff:", "CapPrm:", "CapBnd:"} {
		if !hasCapability(string(status), set, capability) {
			return false
		}
	}
	return true
}

// hasCapability looks a capability up in one set of /proc/self/status, which
// shows sets as hexadecimal masks.
func hasCapability(status, set string, capability uint) bool {
	for line := range strings.Lines(status) {
		if mask, ok := strings.CutPrefix(line, set); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && bits&(1<<capability) != 0
		}
	}
	return false
}
