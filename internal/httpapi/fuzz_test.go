package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

// FuzzDecode feeds bodies to the decoder. Nothing may panic. Each refusal must be a client error
// with an answer. Each accepted body must be one JSON value in UTF-8, with lines within their
// limits.
func FuzzDecode(f *testing.F) {
	const line = `{"productId":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01",` +
		`"warehouseId":"9b2f1d7e-3a50-4a0f-8c3e-71f5c2b0aa01","quantity":1}`
	for _, body := range []string{
		line, `{"items":[` + line + `,` + line + `],"ttlSeconds":60}`, `{"ttlSeconds":1}`, `{}`,
		strings.Replace(line, "1}", `1,"reference":"order 1","owner":"ann","replaces":null}`, 1),
		strings.Replace(line, "1}", `1,"owner":"","replaces":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01"}`, 1),
		`{"paymentReference":"p","onGone":"REACQUIRE"}`, `{"paymentReference":"p","ttlSeconds":60}`,
		`{"onGone":"REACQUIRE"}`, `{"paymentReference":"\u0000","ttlSeconds":null}`,
		`null`, `[]`, ``, ` `, `{"items":null,"":1}`,
		strings.Replace(line, "1}", "1e3}", 1), strings.Replace(line, "1}", `1,"quantity":1}`, 1),
		`{"items":[{"a":[[]]}]}`, `{"a":{"~1~0/":1}}`,
		"{\"\xff\":1}", `{"\ud800":1}`, `{"\u0000":"\u0000"}`, "\ufeff{}", line + line,
		strings.Repeat("[", 100), `{"items":[null,1,"x"]}`,
	} {
		f.Add([]byte(body), "application/json")
	}
	f.Add([]byte(line), "")
	f.Add([]byte(line), "application/json; charset=utf-16")
	f.Add([]byte(line), "text/plain;;")
	// No large body: the fuzzer would spend its time on minimizing it, and limits_test.go has some.

	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		var reserve reserveRequest
		err := readJSON(request(body, contentType), &reserve)
		if checkRefusal(t, err); err == nil {
			checkLetThrough(t, body)
			asked, err := reserve.request(principal.Principal{})
			if checkRefusal(t, err); err == nil {
				checkLines(t, asked.Lines)
			}
			checkTTL(t, reserve.TTLSeconds)
		}
		var confirm confirmRequest
		err = readJSON(request(body, contentType), &confirm)
		if checkRefusal(t, err); err == nil {
			checkLetThrough(t, body)
			payment, reacquire, err := confirm.payment()
			if checkRefusal(t, err); err == nil && reacquire && payment == "" {
				t.Errorf("the body %q reacquires for no payment", body)
			}
		}
		_, lasts, err := readPayment(request(body, contentType))
		if checkRefusal(t, err); err == nil {
			checkLetThrough(t, body)
			if lasts != nil && *lasts == 0 {
				t.Errorf("the body %q makes a hold last for no time", body)
			}
		}
		var extend extendRequest
		err = readJSON(request(body, contentType), &extend)
		if checkRefusal(t, err); err == nil {
			checkLetThrough(t, body)
			checkTTL(t, extend.TTLSeconds)
		}
		err = readJSON(request(body, contentType), &struct{}{})
		if checkRefusal(t, err); err == nil {
			checkLetThrough(t, body)
		}
	})
}

func request(body []byte, contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/reservations", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

// checkRefusal fails the test unless err is nil or a client error with a valid answer.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var bad *reservation.InvalidError
	if !errors.As(err, &bad) && !errors.Is(err, errTooLarge) && !errors.Is(err, errNotJSON) {
		t.Errorf("the refusal %v is no client error", err)
	}
	w := httptest.NewRecorder()
	problemFor(err).Write(w)
	if w.Code < 400 || w.Code > 499 || !json.Valid(w.Body.Bytes()) || !utf8.Valid(w.Body.Bytes()) {
		t.Errorf("the refusal %v is answered with %d %q", err, w.Code, w.Body)
	}
}

func checkLetThrough(t *testing.T, body []byte) {
	t.Helper()
	if len(body) > maxBody || !json.Valid(body) || !utf8.Valid(body) ||
		bytes.IndexByte(body, 0) >= 0 {
		t.Errorf("the body %q of %d bytes is let through", body, len(body))
	}
}

func checkLines(t *testing.T, lines []reservation.Line) {
	t.Helper()
	for _, line := range lines {
		if line.Quantity < 1 || line.Quantity > reservation.MaxQuantity {
			t.Errorf("the line %+v is let through", line)
		}
	}
}

func checkTTL(t *testing.T, seconds *wholeNumber) {
	t.Helper()
	if seconds == nil {
		return
	}
	d := ttl(*seconds)
	if *seconds < 1 && d >= 0 || *seconds >= 1 && d < time.Second || d%time.Second != 0 {
		t.Errorf("ttl(%d) = %s, want whole seconds of the same sign, not zero", *seconds, d)
	}
}

// FuzzCursor feeds cursors of every order. A cursor that is let through is one that encodeCursor
// can write, and Postgres accepts what it holds.
func FuzzCursor(f *testing.F) {
	id := uuid.UUID{1}
	for _, name := range []string{"Ceramic Mug", "a\x00b", "\xff", ""} {
		f.Add(encodeCursor(orderByName, id, []byte(name)))
	}
	f.Add(encodeCursor(orderByEnd, id, timeKey(time.Now())))
	f.Add(encodeCursor(orderByCreated, id, timeKey(time.Unix(1<<40, 0))))
	f.Add("")
	f.Add("Mug")
	f.Add("name.")
	f.Add("end.AAA9AGYAnAAAAAAAAAA9AGYU4Ye\nT")

	f.Fuzz(func(t *testing.T, cursor string) {
		order, id, key, ok := decodeCursor(cursor)
		if !ok {
			return
		}
		if again := encodeCursor(order, id, key); again != cursor {
			t.Errorf("the cursor %q is read as that of %q", cursor, again)
		}
		name := string(key)
		if isName(name) && (!utf8.ValidString(name) || strings.Contains(name, "\x00")) {
			t.Errorf("the name %q is let through, which Postgres refuses", name)
		}
		if at, ok := parseTimeKey(key); ok {
			if _, err := at.MarshalText(); err != nil || !bytes.Equal(timeKey(at), key) {
				t.Errorf("the time key %x is read as %s, %v", key, at, err)
			}
		}
	})
}
