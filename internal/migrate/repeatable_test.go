package migrate

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	comment = regexp.MustCompile(`(?m)^--.*$`)
	// repeatableIndex and repeatableLoop match the two forms of a statement that doc.go allows.
	repeatableIndex = regexp.MustCompile(
		`^CREATE (UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS \w+\s+ON [^;]+;$`)
	repeatableLoop = regexp.MustCompile(
		`(?s)^DO \$\$.*\bLOOP\b.*\bEXIT WHEN NOT FOUND;.*\bCOMMIT;.*\bEND LOOP;.*END \$\$;$`)
	message = regexp.MustCompile(`RAISE (NOTICE|INFO|WARNING|LOG|DEBUG)`)
)

// CheckRepeatable checks the rule of doc.go for files without a transaction. The statements of each
// file are of one of the two forms.
func CheckRepeatable(texts map[string]string) error {
	var errs []error
	for name, text := range texts {
		if !hasNoTransaction(text) {
			continue
		}
		body := strings.TrimSpace(comment.ReplaceAllString(text, ""))
		if repeatableLoop.MatchString(body) && !message.MatchString(body) {
			continue
		}
		for _, statement := range strings.SplitAfter(body, ";") {
			statement = strings.TrimSpace(statement)
			if statement != "" && !repeatableIndex.MatchString(statement) {
				errs = append(errs, fmt.Errorf("%s has a statement that may not be repeated: %s", name,
					statement))
			}
		}
	}
	return errors.Join(errs...)
}
