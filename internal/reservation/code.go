package reservation

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A short code names a hold on a screen, a parcel or the telephone: eight characters of Crockford's
// base32, such as 7K2M-9QXD. It is made of the id alone, so it needs no column and no index. Its 40
// bits are the milliseconds of the id's time, of which it keeps the last codeTimeBits, and the last
// codeIDBits of the id, in reverse order: so the codes of two holds of one minute differ at once.
//
// The time comes again every codeSpan. A code that is looked up stands for one millisecond in each
// span since codeEpoch, and the primary key leads to the few holds of these milliseconds. Two holds
// have one code only if they agree in all 40 bits, so ByCode may return more than one.
const (
	codeTimeBits = 35
	codeIDBits   = 5
	codeBits     = codeTimeBits + codeIDBits
	// codeSpan is 397 days.
	codeSpan = int64(1) << codeTimeBits
	// codeChars is how many characters a code has, without its hyphen.
	codeChars = codeBits / 5
	// maxOfCode is the most holds that a code leads to. A shop would need more than that many holds in
	// one millisecond to have more.
	maxOfCode = 100
	// codeSlack is how much later than this machine's clock a hold may have been made: by that of
	// another machine.
	codeSlack = 24 * time.Hour
)

// codeEpoch is before the first hold of any shop, in milliseconds since 1970.
var codeEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// crockford are the digits of Crockford's base32, which leaves out I, L, O and U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Code is a hold's short code, as a number of codeBits bits.
type Code uint64

// CodeOf returns the short code of a hold's id, a UUIDv7.
func CodeOf(id uuid.UUID) Code {
	ms := binary.BigEndian.Uint64(id[:8]) >> 16
	n := ms%uint64(codeSpan)<<codeIDBits | uint64(id[15])&(1<<codeIDBits-1)
	return Code(bits.Reverse64(n) >> (64 - codeBits))
}

// String writes the code as XXXX-XXXX.
func (c Code) String() string {
	var text [codeChars]byte
	for i := range text {
		text[i] = crockford[uint64(c)>>(codeBits-5*(i+1))&31]
	}
	return string(text[:codeChars/2]) + "-" + string(text[codeChars/2:])
}

// ParseCode reads a code as a person writes it: in any case, with or without hyphens and spaces,
// with O for 0, and with I or L for 1.
func ParseCode(text string) (code Code, ok bool) {
	digits := 0
	for _, c := range strings.ToUpper(text) {
		switch c {
		case '-', ' ':
			continue
		case 'O':
			c = '0'
		case 'I', 'L':
			c = '1'
		}
		value := strings.IndexRune(crockford, c)
		if value < 0 || digits == codeChars {
			return 0, false
		}
		code, digits = code<<5|Code(value), digits+1 // #nosec G115 -- from 0 to 31
	}
	return code, digits == codeChars
}

// ranges returns the first and the last id of each millisecond that a code may stand for, until
// now, and the last bits of the id.
func (c Code) ranges(now time.Time) (first, last []string, low int) {
	n := int64(bits.Reverse64(uint64(c)) >> (64 - codeBits)) // #nosec G115 -- it has codeBits bits
	ms := n >> codeIDBits
	ms += (codeEpoch - ms + codeSpan - 1) / codeSpan * codeSpan
	for end := now.Add(codeSlack).UnixMilli(); ms <= end; ms += codeSpan {
		var from, to uuid.UUID
		binary.BigEndian.PutUint64(from[:8], uint64(ms)<<16)         // #nosec G115 -- after codeEpoch
		binary.BigEndian.PutUint64(to[:8], uint64(ms)<<16|(1<<16-1)) // #nosec G115 -- the same
		binary.BigEndian.PutUint64(to[8:], ^uint64(0))
		first, last = append(first, from.String()), append(last, to.String())
	}
	return first, last, int(n & (1<<codeIDBits - 1))
}

const listHoldsOfCodeSQL = `
SELECT id, hold, matches, walked, seen_at, seen_at, 0, 0, 0, 0
FROM list_holds_of_code($1, $2, $3, $4)`

// ByCode reads the holds that have a short code, the newest first. There is seldom more than one,
// and none is left out but those of the archive. It is read as ListHolds does, and the page has no
// next one. It returns ErrBusy or ErrUnavailable.
func (s *Service) ByCode(ctx context.Context, code Code) (HoldPage, error) {
	first, last, low := code.ranges(time.Now())
	rows, err := read(ctx, s, pgx.RowToStructByPos[listedHold], listHoldsOfCodeSQL, first, last, low,
		maxOfCode)
	if err != nil {
		return HoldPage{}, fmt.Errorf("list the holds of a code: %w", err)
	}
	return newHoldPage(rows, maxOfCode, -1), nil
}
