package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// followEvery is how often Follow looks for new lines.
	followEvery = 200 * time.Millisecond
	// shownBefore is how many of the events that are there already Follow prints.
	shownBefore = 20
)

// Follow prints the last events of the archive in a directory, and then those that are added, until
// ctx ends. It waits for an archive that isn't there yet, and says so.
func Follow(ctx context.Context, dir string, to io.Writer) error {
	f := follower{path: filepath.Join(dir, archiveFile), to: to, skip: true}
	defer f.close()
	if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(to, "Waiting for `make run` to publish events.")
	}
	for {
		if err := f.poll(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// follower reads a file that grows, and that another one replaces now and then.
type follower struct {
	path string
	to   io.Writer
	file *os.File // nil before the file is there
	part []byte   // the beginning of a line whose end isn't there yet
	skip bool     // print only the last lines of what is read first
}

// poll prints the new lines.
func (f *follower) poll() error {
	if f.file == nil {
		file, err := os.Open(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow the events: %w", err)
		}
		f.file = file
	}
	// Whether the file was replaced is asked before the read, so that the read gets its last lines.
	replaced := f.replaced()
	if err := f.print(); err != nil {
		return fmt.Errorf("follow the events: %w", err)
	}
	if !replaced {
		return nil
	}
	f.close()
	f.part = nil
	return f.poll()
}

// replaced reports whether the path names another file than the open one. Until the path names a
// file again, the open one isn't replaced.
func (f *follower) replaced() bool {
	open, err := f.file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.path)
	return err == nil && !os.SameFile(open, named)
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file = nil
}

func (f *follower) print() error {
	text, err := io.ReadAll(f.file)
	if err != nil {
		return err
	}
	lines := bytes.Split(append(f.part, text...), []byte("\n"))
	f.part = lines[len(lines)-1]
	lines = lines[:len(lines)-1]
	if f.skip {
		lines = lines[max(len(lines)-shownBefore, 0):]
		f.skip = false
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(f.to, eventLine(line)); err != nil {
			return err
		}
	}
	return nil
}

// shownEvent is what eventLine shows of an event.
type shownEvent struct {
	Time                    time.Time
	Type, Subject, Sequence string
	Data                    struct {
		Reservation *struct {
			Items []struct{ Quantity int64 }
		}
		Cause             string
		Kind              string
		Delta, TotalAfter int64
	}
}

// eventLine returns a line for a person: the time, the type, the subject, its sequence, and how
// many units it is about.
func eventLine(line []byte) string {
	var e shownEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return "(a line that isn't an event)"
	}
	sequence := strings.TrimLeft(e.Sequence, "0")
	return fmt.Sprintf("%s  %-28s  %s  %s  %s", e.Time.Format("15:04:05.000"),
		strings.TrimPrefix(e.Type, "allo."), e.Subject, sequence, e.what())
}

func (e shownEvent) what() string {
	if e.Data.Reservation == nil {
		return fmt.Sprintf("units %+d, now %d, %s", e.Data.Delta, e.Data.TotalAfter,
			strings.ToLower(e.Data.Kind))
	}
	units := int64(0)
	for _, item := range e.Data.Reservation.Items {
		units += item.Quantity
	}
	return fmt.Sprintf("units %d, lines %d, by %s", units, len(e.Data.Reservation.Items), e.Data.Cause)
}
