package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of a body.
const (
	// maxBody is in bytes. A cart of a hundred lines takes 13,000.
	maxBody = 64 << 10
	// maxDepth is the most levels of nesting: an object, its items, an item.
	maxDepth = 3
)

// The media types of a body.
const (
	mediaJSON = "application/json"
	mediaCSV  = "text/csv"
)

// readBody reads a JSON body: nil when it is empty.
func readBody(r *http.Request) ([]byte, error) {
	body, err := readBytes(r, maxBody, errTooLarge)
	switch {
	case err != nil:
		return nil, err
	case len(body) == 0:
		return nil, nil
	case mediaType(r) != mediaJSON:
		return nil, errNotJSON
	}
	return body, nil
}

// readBytes reads a body of at most limit bytes. For a larger one it returns the error tooLarge.
func readBytes(r *http.Request, limit int64, tooLarge error) ([]byte, error) {
	var buffer bytes.Buffer
	// One allocation: ReadFrom grows a buffer that has less than MinRead bytes of room.
	buffer.Grow(int(min(max(r.ContentLength, 0), limit)) + bytes.MinRead)
	if _, err := buffer.ReadFrom(io.LimitReader(r.Body, limit+1)); err != nil {
		return nil, invalid("body", "could not be read")
	}
	if int64(buffer.Len()) > limit {
		return nil, tooLarge
	}
	return buffer.Bytes(), nil
}

// mediaType returns the media type of a body in UTF-8, and "" for a body in another charset. A body
// without a Content-Type counts as JSON.
func mediaType(r *http.Request) string {
	contentType := r.Header.Get("Content-Type")
	if contentType == "" {
		return mediaJSON
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || !isUTF8(params["charset"]) {
		return ""
	}
	return media
}

func isUTF8(charset string) bool {
	return charset == "" || strings.EqualFold(charset, "utf-8") ||
		strings.EqualFold(charset, "us-ascii")
}

// readJSON reads the body of a request that must have one.
func readJSON(r *http.Request, dst any) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	return decode(body, dst)
}

// readOptionalJSON reads the body of a request that needs none: dst stays as it is without one.
func readOptionalJSON(r *http.Request, dst any) error {
	body, err := readBody(r)
	if err != nil || body == nil {
		return err
	}
	return decode(body, dst)
}

// decode reads one JSON value into dst. It refuses unknown and repeated fields, names in another
// case, trailing bytes and invalid UTF-8.
func decode(body []byte, dst any) error {
	if err := checkDepth(body); err != nil {
		return err
	}
	err := json.Unmarshal(body, dst, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return invalid(fieldName(semantic.JSONPointer), semanticMessage(semantic))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) && errors.Is(err, jsontext.ErrDuplicateName) {
		return invalid(fieldName(syntactic.JSONPointer), "must not be given twice")
	}
	return invalid("body", "must be one valid JSON value in UTF-8")
}

// wholeNumber is a JSON number without a fraction or an exponent. A number that doesn't fit becomes
// the nearest one that does. So the contract's bounds refuse it, and not those of an int64.
type wholeNumber int64

var errNotWhole = errors.New("not a whole number")

// UnmarshalJSONFrom reads the number.
func (n *wholeNumber) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	// Of a number that is out of range, ParseInt returns the nearest one that isn't.
	parsed, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return errNotWhole
	}
	*n = wholeNumber(parsed)
	return nil
}

func semanticMessage(e *json.SemanticError) string {
	if errors.Is(e, json.ErrUnknownName) {
		return "is not a field of this request"
	}
	if e.GoType == nil {
		return "has the wrong type"
	}
	t := e.GoType
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Int64:
		return "must be a whole number"
	case reflect.Bool:
		return "must be true or false"
	case reflect.String:
		return "must be a string"
	case reflect.Slice:
		return "must be an array"
	default:
		return "must be an object"
	}
}

func checkDepth(body []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		if _, err := decoder.ReadToken(); err != nil {
			return nil //nolint:nilerr // the end, or a syntax error, which decode reports
		}
		if decoder.StackDepth() > maxDepth {
			return invalid("body", fmt.Sprintf("must not nest deeper than %d", maxDepth))
		}
	}
}

// fieldName writes a JSON pointer as a path of field names: /items/0/quantity is items[0].quantity.
func fieldName(p jsontext.Pointer) string {
	var name strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			name.WriteString("[" + token + "]")
			continue
		}
		if name.Len() > 0 {
			name.WriteByte('.')
		}
		name.WriteString(token)
	}
	if name.Len() == 0 {
		return "body"
	}
	return name.String()
}
