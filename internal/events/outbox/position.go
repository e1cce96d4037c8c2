package outbox

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// position is a place in the stream: behind the batch that tick done ends and, if batch isn't 0,
// inside the next one, which tick batch ends, behind the place after.
type position struct {
	done, batch int64
	after       string // as read_events writes a place, or empty
}

var errPosition = errors.New("malformed position")

// String writes the position: 7, or 7:9:place.
func (p position) String() string {
	if p.batch == 0 {
		return strconv.FormatInt(p.done, 10)
	}
	return fmt.Sprintf("%d:%d:%s", p.done, p.batch, p.after)
}

// parsePosition undoes String. It refuses every text that String doesn't write, and every place
// that read_events can't have written.
func parsePosition(text string) (p position, err error) {
	done, rest, inside := strings.Cut(text, ":")
	if p.done, err = strconv.ParseInt(done, 10, 64); err != nil || p.done < 0 {
		return p, errPosition
	}
	if inside {
		batch, after, _ := strings.Cut(rest, ":")
		if p.batch, err = strconv.ParseInt(batch, 10, 64); err != nil || p.batch <= p.done {
			return p, errPosition
		}
		if p.after = after; !isPlace(after) {
			return p, errPosition
		}
	}
	if p.String() != text {
		return p, errPosition
	}
	return p, nil
}

// placeTime is the form of a time in a place.
const placeTime = "2006-01-02T15:04:05.000000"

// isPlace reports whether read_events may have written the place. Postgres has no year 0.
func isPlace(place string) bool {
	parts := strings.Split(place, " ")
	if len(parts) != 4 {
		return false
	}
	switch parts[0] {
	case "h":
		at, err := time.Parse(placeTime, parts[1])
		return err == nil && at.Year() > 0 && at.Format(placeTime) == parts[1] &&
			isNumber(parts[2], 10, 32) && isID(parts[3])
	case "m":
		return isID(parts[1]) && isID(parts[2]) && isNumber(parts[3], 19, 64)
	default:
		return false
	}
}

// isNumber reports whether a text has so many digits and fits into so many bits with a sign.
func isNumber(s string, digits, bits int) bool {
	_, err := strconv.ParseUint(s, 10, bits-1)
	return err == nil && len(s) == digits
}

func isID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

// cursor writes a position in an epoch for a client, who must treat it as opaque.
func (p position) cursor(epoch uuid.UUID) string {
	return base64.RawURLEncoding.EncodeToString(append(epoch[:], p.String()...))
}

// parseCursor undoes cursor. It refuses every text that cursor doesn't write.
func parseCursor(text string) (epoch uuid.UUID, p position, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < len(epoch) {
		return epoch, p, false
	}
	copy(epoch[:], b)
	p, err = parsePosition(string(b[len(epoch):]))
	return epoch, p, err == nil && p.cursor(epoch) == text
}
