package pgserver

import (
	"errors"
	"io"
	"os"
	"strings"
)

const (
	// logTail is how much of a log's end an error may look at.
	logTail = 8 << 10

	// logLines is how many lines of it an error shows: the cause, a detail and a
	// hint, and what led to them.
	logLines = 5
)

// lastLines returns the last lines that were written to a log after the first
// start bytes, on one line. It never fails: it explains another failure.
func lastLines(name string, start int64) string {
	file, err := os.Open(name)
	if err != nil {
		return "(no log)"
	}
	if info, err := file.Stat(); err == nil {
		start = max(start, info.Size()-logTail)
	}
	tail, err := io.ReadAll(io.NewSectionReader(file, start, logTail))
	if err := errors.Join(err, file.Close()); err != nil {
		return "(no log)"
	}
	return oneLine(string(tail))
}

// oneLine joins the last lines of a program's output.
func oneLine(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		// The server puts the time and `[process]` in front.
		if _, message, ok := strings.Cut(line, "] "); ok && strings.Contains(line, " UTC [") {
			line = message
		}
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "(nothing)"
	}
	return strings.Join(lines[max(0, len(lines)-logLines):], "; ")
}
