package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/allo/reservations/internal/events"
)

const (
	// archiveFile has the events of this machine, one CloudEvent a line. The file before it is
	// olderFile, so that both together have at most twice maxArchive bytes.
	archiveFile, olderFile = "events.jsonl", "events.1.jsonl"
	maxArchive             = 16 << 20
)

// Archive adds events to a file. It is safe for concurrent use.
type Archive struct {
	dir string
	max int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenArchive opens the archive in a directory, and makes both if there are none.
func OpenArchive(dir string) (*Archive, error) {
	a := &Archive{dir: dir, max: maxArchive}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the archive of the events: %w", err)
	}
	return a, a.open()
}

func (a *Archive) open() error {
	file, err := os.OpenFile(filepath.Join(a.dir, archiveFile),
		os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the archive of the events: %w", err)
	}
	size, err := cutPart(file)
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("open the archive of the events: %w", err)
	}
	a.file, a.size = file, size
	return nil
}

// cutPart removes the part of a line at the file's end, which a program left that ended while it
// wrote. It returns the file's size.
func cutPart(file *os.File) (int64, error) {
	text, err := io.ReadAll(file)
	if err != nil {
		return 0, err
	}
	size := int64(bytes.LastIndexByte(text, '\n') + 1)
	return size, file.Truncate(size)
}

// Append adds a line with the event. When it returns an error, the line isn't there.
func (a *Archive) Append(e events.Event) error {
	var line bytes.Buffer
	if err := json.Compact(&line, e.Body); err != nil {
		return &events.RefusedError{Reason: "the event isn't JSON: " + err.Error()}
	}
	line.WriteByte('\n')
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return errors.New("the archive of the events is closed")
	}
	if a.size > 0 && a.size+int64(line.Len()) > a.max {
		if err := a.rotate(); err != nil {
			return err
		}
	}
	if _, err := a.file.Write(line.Bytes()); err != nil {
		return fmt.Errorf("write to the archive of the events: %w",
			errors.Join(err, a.file.Truncate(a.size)))
	}
	a.size += int64(line.Len())
	return nil
}

func (a *Archive) rotate() error {
	current := filepath.Join(a.dir, archiveFile)
	err := os.Rename(current, filepath.Join(a.dir, olderFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody may have removed it
		return fmt.Errorf("rotate the archive of the events: %w", err)
	}
	old := a.file
	if err := a.open(); err != nil {
		return err
	}
	return old.Close()
}

// Close closes the file.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}
