package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// acquire makes the data directory ours until release, or until this process
// ends. It tells a server whose starter is gone, which we may end, from one that
// somebody uses. It also makes the directories for what it is given to keep.
func (s *Server) acquire(a account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		return nil // A server that crashed by itself still has it.
	}
	for _, file := range []string{s.config.DataDir, s.config.LogFile} {
		if err := a.makeDir(filepath.Dir(file)); err != nil {
			return fmt.Errorf("make room for the database: %w", err)
		}
	}
	// From here on there is one spelling of the path, whoever looks at it.
	dataDir, err := resolve(s.config.DataDir)
	if err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	s.config.DataDir = dataDir
	s.lock, err = lockFile(dataDir+".lock", a)
	return err
}

// release gives the data directory back.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		// A process that is being started at this moment has a copy of the file until it runs its
		// program, and the lock is the file's: closing ours would leave it locked until then.
		_ = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN)
		_ = s.lock.Close() // Nothing was written that a failure could lose.
		s.lock = nil
	}
}

// lockFile locks the file for this process and writes our id into it for the
// next one's error. The file stays when the lock goes: to remove it would let
// two processes lock two files of one name.
func lockFile(name string, a account) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory (as %s): %w", a.name, err)
	}
	if err := a.own(name); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name) // The message does without it.
		return nil, errors.Join(fmt.Errorf("%s is in use by process %s: stop that first",
			strings.TrimSuffix(name, ".lock"), strings.TrimSpace(string(holder))), file.Close())
	}
	if err := errors.Join(file.Truncate(0), writeAtStart(file, os.Getpid())); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data directory: %w", err), file.Close())
	}
	return file, nil
}

func writeAtStart(file *os.File, pid int) error {
	_, err := file.WriteAt(fmt.Appendln(nil, pid), 0)
	return err
}

// InUse reports whether a living process keeps a server on the data directory,
// or seems to: a lock that can't be read says so too.
func InUse(dataDir string) bool {
	file, err := os.Open(dataDir + ".lock")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	locked := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Join(locked, file.Close()) != nil
}
