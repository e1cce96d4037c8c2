package httpapi

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// query reads the parameters of one request, by one rule for every route. A parameter may be given
// once, as neither of two values is the obvious one.
//
// A GET ignores a parameter that the route doesn't know. Content delivery networks, trackers and
// caches add parameters to the links of a catalog, and such a link must go on working. An import
// refuses it (refuseOthers), because it would write something else than its caller asked for.
type query struct {
	values url.Values
	// known holds the parameters that were read. The link to the next page repeats them.
	known url.Values
	bad   fields
}

// queryField names the query as a whole in an error.
const queryField = "query"

// readQuery parses the query. r.URL.Query() would leave out what it can't parse, and the route
// would answer a question that nobody asked.
func readQuery(r *http.Request) query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := query{values: values, known: url.Values{}, bad: fields{}}
	if err != nil {
		q.bad.add(queryField, "must be name=value pairs with & between them, where a value has % as "+
			"%25 and ; as %3B")
	}
	return q
}

// maxShownName is the most characters of a parameter's name that an error repeats.
const maxShownName = 50

// refuseOthers refuses each parameter whose name isn't among these. A query has room for more names
// than an answer, so the error names the first one.
func (q query) refuseOthers(names ...string) {
	may := "this request takes no parameters"
	if len(names) > 0 {
		may = "the parameters are " + strings.Join(names, ", ")
	}
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		if !slices.Contains(names, name) {
			q.bad.add(queryField, fmt.Sprintf("must not have %.*q: %s", maxShownName, name, may))
			return
		}
	}
}

// read passes a parameter's value to take, if the request has the parameter. When take returns
// false, message says what a valid value is.
func (q query) read(name, message string, take func(value string) (ok bool)) {
	values := q.values[name]
	switch {
	case len(values) == 0:
		return
	case len(values) > 1:
		q.bad.add(name, "must be given once")
	case !take(values[0]):
		q.bad.add(name, message)
	}
	q.known[name] = values
}

// readID reads a parameter that is a UUID: nil without one.
func (q query) readID(name string) (id *uuid.UUID) {
	q.read(name, "must be a UUID", func(value string) bool {
		parsed, ok := parseID(value)
		id = &parsed
		return ok
	})
	return id
}

// readName reads a parameter that is a reference or an owner, as isValid says: "" without one. bad
// says what a valid one is.
func (q query) readName(name, bad string, isValid func(string) bool) (text string) {
	q.read(name, bad, func(value string) bool {
		text = value
		return isValid(value)
	})
	return text
}

// readTime reads a parameter that is a time of RFC 3339, which allows a small t and z. It returns
// the zero time without one, and refuses a time that no list can have.
func (q query) readTime(name string) (t time.Time) {
	const message = "must be a time such as 2026-03-01T10:00:00Z, with a + written as %2B"
	q.read(name, message, func(value string) bool {
		parsed, err := time.Parse(time.RFC3339Nano, strings.ToUpper(value))
		t = parsed.UTC()
		return err == nil && t.Year() >= 1970 && t.Year() <= 9999
	})
	return t
}

// readEach reads a parameter that may be given up to most times. valid returns false for an invalid
// value, and message then says what a valid one is.
func (q query) readEach(
	name string, most int, message string, valid func(value string) bool,
) (values []string) {
	values = q.values[name]
	for _, value := range values {
		if !valid(value) {
			q.bad.add(name, message)
			break
		}
	}
	if len(values) > most {
		q.bad.add(name, fmt.Sprintf("must be given at most %d times", most))
	}
	q.known[name] = values
	return values
}

// readLimit reads the number of entries of a page: from 1 to most.
func (q query) readLimit(fallback, most int) int {
	limit := fallback
	q.read(
		"limit",
		fmt.Sprintf("must be a whole number from 1 to %d", most),
		func(value string) bool {
			n, err := strconv.Atoi(value)
			limit = n
			return err == nil && n >= 1 && n <= most
		},
	)
	return limit
}

const (
	// maxSearch is the most characters of a text to search for.
	maxSearch = 100
	// totalHeader has the number of entries of a list.
	totalHeader = "Total-Count"
)

// readWords reads the words of a search: nil without one. Each word is there once.
func (q query) readWords() (words []string) {
	const message = "must have 1 to %d characters, with a word among them"
	q.read("q", fmt.Sprintf(message, maxSearch), func(value string) bool {
		for _, word := range strings.Fields(value) {
			if !slices.Contains(words, word) {
				words = append(words, word)
			}
		}
		return isName(value) && utf8.RuneCountInString(value) <= maxSearch && words != nil
	})
	return words
}

// readTotal reads whether to count the entries of the list. Only the first page tells the number,
// which would cost each page as much. Call it after binding, because the number doesn't change the
// list.
func (q query) readTotal() (wanted bool) {
	q.read("total", "must be true or false", func(value string) bool {
		wanted = value == "true" && len(q.values["cursor"]) == 0
		return value == "true" || value == "false"
	})
	delete(q.known, "total") // the next page has no use for it
	return wanted
}

// tellTotal answers with the number of entries of a list, such as 1234, or 200000+ for at least so
// many.
func tellTotal(w http.ResponseWriter, c reservation.Count) {
	total := strconv.FormatInt(c.N, 10)
	if c.AtLeast {
		total += "+"
	}
	w.Header().Set(totalHeader, total)
}

// badCursor says what a valid cursor is.
const badCursor = "must be the cursor of a Link header of the same list, unchanged"

// readCursor passes the parts of the request's cursor to take, if there is one. take returns false
// for another list's order, or for a key that the list never had.
func (q query) readCursor(take func(order string, id uuid.UUID, key []byte) (ok bool)) {
	q.read("cursor", badCursor, func(value string) bool {
		order, id, key, ok := decodeCursor(value)
		return ok && take(order, id, key)
	})
}

// linkNext adds the Link header (RFC 8288) that leads to the page after cursor. It repeats the
// parameters of this page.
func (q query) linkNext(w http.ResponseWriter, r *http.Request, limit int, cursor string) {
	q.known.Set("limit", strconv.Itoa(limit))
	q.linkRest(w, r, cursor)
}

// linkRest is linkNext for an answer without a limit on its entries.
func (q query) linkRest(w http.ResponseWriter, r *http.Request, cursor string) {
	q.known.Set("cursor", cursor)
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, q.known.Encode()))
}

// The orders of the lists. A cursor names its order, as it has no meaning in another one.
const (
	orderByName    = "name"
	orderByEnd     = "end"
	orderByCreated = "created"
	// orderByParty is that of the holds of an owner or a reference: by id, the newest first. The key
	// is a time of no meaning.
	orderByParty = "party"
	// orderByChange is that of the holds that were updated since a time: by their changes. The key is
	// a time and the four numbers of a reservation.ChangePlace.
	orderByChange = "change"
	orderBySeq    = "seq"
	orderByTime   = "at"
	orderBySKU    = "sku"
	// orderInside is the order by name too. The key is empty, or a warehouse inside the product and
	// then the product's name, unless that is too long.
	orderInside = "id"
	// orderOfChosen is that of products chosen by their SKU or id: by name too. The key is empty, or
	// a warehouse inside the product.
	orderOfChosen = "chosen"
	// orderOfFound is that of products that a search finds: by name too. The key is the binding of the
	// search, and then a warehouse if the place is inside the product.
	orderOfFound = "found"
)

// encodeCursor writes the place behind the entry that has the key, in the list's order, and the
// id. Callers must treat a cursor as opaque. It is the order, a dot, and the id and the key in
// base64. The dot keeps cursors of the older format out, which were base64 alone.
func encodeCursor(order string, id uuid.UUID, key []byte) string {
	return order + "." + base64.RawURLEncoding.EncodeToString(append(id[:], key...))
}

// decodeCursor undoes encodeCursor. It refuses every text that encodeCursor doesn't write: the
// base64 decoder ignores line breaks.
func decodeCursor(cursor string) (order string, id uuid.UUID, key []byte, ok bool) {
	order, encoded, ok := strings.Cut(cursor, ".")
	if !ok {
		return "", uuid.UUID{}, nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < len(id) {
		return "", uuid.UUID{}, nil, false
	}
	id, key = uuid.UUID(b[:len(id)]), b[len(id):]
	return order, id, key, encodeCursor(order, id, key) == cursor
}

// maxCursorName is the longest name in a cursor, in bytes. The gateway takes 10,240 bytes of
// headers in all, and as many of a request's line and headers. A longer name is left out and read
// again when the cursor comes back.
const maxCursorName = 2000

// namePage is the part of a list ordered by name that a request asks for.
type namePage struct {
	query query
	limit int
	after reservation.Cursor
}

func readNamePage(r *http.Request, fallback, most int) (namePage, error) {
	q := readQuery(r)
	p := namePage{query: q, limit: q.readLimit(fallback, most)}
	q.readCursor(func(order string, id uuid.UUID, key []byte) bool {
		p.after.ID = id
		switch {
		case order == orderByName:
			p.after.Name = string(key)
			return isName(p.after.Name)
		case order == orderInside && len(key) >= len(p.after.Warehouse):
			p.after.Warehouse = uuid.UUID(key[:len(p.after.Warehouse)])
			p.after.Name = string(key[len(p.after.Warehouse):])
			return id != uuid.Nil && (p.after.Name == "" || isName(p.after.Name))
		default:
			return order == orderInside && len(key) == 0 && id != uuid.Nil
		}
	})
	return p, q.bad.err()
}

// linkNext leads to the next page, if there is one.
func (p namePage) linkNext(w http.ResponseWriter, r *http.Request, next *reservation.Cursor) {
	if next == nil {
		return
	}
	order, key := orderByName, []byte(next.Name)
	if len(next.Name) > maxCursorName {
		order, key = orderInside, nil
	}
	if next.Warehouse != uuid.Nil {
		order, key = orderInside, append(next.Warehouse[:], key...)
	}
	p.query.linkNext(w, r, p.limit, encodeCursor(order, next.ID, key))
}

// readChosen reads the cursor of an answer with chosen products: the zero Cursor without one.
func (q query) readChosen() (after reservation.Cursor) {
	q.readCursor(func(order string, id uuid.UUID, key []byte) bool {
		after.ID = id
		inside := len(key) == len(after.Warehouse)
		if inside {
			after.Warehouse = uuid.UUID(key)
		}
		ok := order == orderOfChosen && id != uuid.Nil &&
			(len(key) == 0 || inside && after.Warehouse != uuid.Nil)
		if !ok {
			after = reservation.Cursor{}
		}
		return ok
	})
	return after
}

// linkChosen leads to the rest of an answer with chosen products.
func (q query) linkChosen(w http.ResponseWriter, r *http.Request, next reservation.Cursor) {
	var key []byte
	if next.Warehouse != uuid.Nil {
		key = next.Warehouse[:]
	}
	q.linkRest(w, r, encodeCursor(orderOfChosen, next.ID, key))
}

// isName reports whether a list can have an entry of this name. Postgres refuses any other text.
func isName(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// timeKey writes a time as the key of a cursor: its microseconds since 1970, as Postgres keeps no
// more of it.
func timeKey(t time.Time) []byte {
	microseconds := uint64(t.UnixMicro()) // #nosec G115 -- parseTimeKey turns it back
	return binary.BigEndian.AppendUint64(nil, microseconds)
}

// parseTimeKey undoes timeKey. It refuses a time that RFC 3339 can't write, as no list had it.
func parseTimeKey(key []byte) (t time.Time, ok bool) {
	if len(key) != 8 {
		return time.Time{}, false
	}
	microseconds := int64(binary.BigEndian.Uint64(key)) // #nosec G115 -- as timeKey wrote it
	t = time.UnixMicro(microseconds).UTC()
	return t, t.Year() >= 1970 && t.Year() <= 9999
}
