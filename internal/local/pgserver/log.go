package pgserver

import (
	"errors"
	"io"
	"os"
	"strings"
)

const (
	// logTail is how many bytes of a log's end are read for an error.
	logTail = 8 << 10

	// logLines is how many lines an error shows: the cause, a detail, a hint and two lines before.
	logLines = 5
)

// lastLines returns the log's last lines after its first start bytes, joined to one line. It never
// fails, because it explains another failure.
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
		// The server begins a line with the time and `[process]`.
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
