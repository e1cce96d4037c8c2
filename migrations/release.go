package migrations

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// CommentPrefix begins the comment on each routine that package migrate has installed. The comment
// is "allo: FILE HASH EARLIER...": the routine's file, the hash of that file's text, and the hashes
// of the texts before, the latest first. After its file has left the folder, the comment is "allo:
// FILE retired TIME EARLIER...".
const CommentPrefix = "allo: "

// Hash is the hash of a routine's file, as comments have it: 64 hexadecimal digits.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Definitions counts the routines that a file defines.
func Definitions(text string) int { return strings.Count("\n"+text, "\nCREATE OR REPLACE ") }

// Texts reads a folder like Routines. It returns the text of each file by its path.
func Texts(folder fs.FS) (map[string]string, error) {
	paths, err := fs.Glob(folder, "procedures/*.sql")
	if err != nil {
		return nil, fmt.Errorf("list the routines' files: %w", err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		text, err := fs.ReadFile(folder, path)
		if err != nil {
			return nil, fmt.Errorf("read a routine's file: %w", err)
		}
		texts[path] = string(text)
	}
	return texts, nil
}

// PreviousRelease is the file of the routines that only the previous release calls, because their
// signature has changed since. There is no such file when there is no such routine.
const PreviousRelease = "procedures/previous_release.sql"

// Version is the number of the newest file of a folder like Schema.
func Version(folder fs.FS) (version int64, err error) {
	paths, err := fs.Glob(folder, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list the schema's files: %w", err)
	}
	for _, name := range paths {
		digits, _, _ := strings.Cut(path.Base(name), "_")
		number, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the number of %s: %w", name, err)
		}
		version = max(version, number)
	}
	return version, nil
}
