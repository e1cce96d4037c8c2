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

// acquire locks the data directory until release, or until this process ends. A server on a
// directory that nobody has locked is an orphan, which a start may end. acquire also makes the
// directories of the data and the log.
func (s *Server) acquire(a account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		return nil // the lock of a server that crashed by itself
	}
	for _, file := range []string{s.config.DataDir, s.config.LogFile} {
		if err := a.makeDir(filepath.Dir(file)); err != nil {
			return fmt.Errorf("make room for the database: %w", err)
		}
	}
	// From here on the path is spelled as Postgres shows it.
	dataDir, err := resolve(s.config.DataDir)
	if err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	s.config.DataDir = dataDir
	s.lock, err = lockFile(dataDir+".lock", a)
	return err
}

// release unlocks the data directory.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		// A process that is starting has a copy of the file until its exec, and the lock belongs to the
		// file. Without the unlock, a close would leave the directory locked until then.
		_ = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN)
		_ = s.lock.Close() // nothing written is lost if it fails
		s.lock = nil
	}
}

// lockFile locks the file for this process and writes the process's id into it, for the error of
// the next process. The file stays when the lock goes: if it were removed, two processes could lock
// two files of the same name.
func lockFile(name string, a account) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory (as %s): %w", a.name, err)
	}
	if err := a.own(name); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name) // without it the message lacks the id
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

// InUse reports whether a process has locked the data directory for a server. It is also true when
// the lock can't be read.
func InUse(dataDir string) bool {
	file, err := os.Open(dataDir + ".lock")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	locked := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Join(locked, file.Close()) != nil
}
