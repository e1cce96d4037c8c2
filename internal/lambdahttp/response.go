package lambdahttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// recorder is the http.ResponseWriter of a handler. Unlike the library's, it keeps net/http's
// rules: the first WriteHeader counts and fixes the headers, and a handler that writes nothing
// answers 200.
type recorder struct {
	header http.Header // the handler may still change it
	sent   http.Header // a copy of header from when the status was written
	status int
	body   bytes.Buffer
}

// newRecorder begins an answer that has the request's id in a header.
func newRecorder(requestID string) *recorder {
	return &recorder{header: http.Header{"X-Request-Id": {requestID}}}
}

// Header returns the headers that WriteHeader will send.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader fixes the status and the headers. It drops informational answers, because a Lambda
// gives one answer. As in net/http it panics on a status that no final answer can have; the caller
// then gets a 500.
func (w *recorder) WriteHeader(status int) {
	informational := status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols
	if w.status != 0 || informational {
		return
	}
	if status < 200 || status > 599 {
		panic(fmt.Sprintf("lambdahttp: invalid status %d of a final answer", status))
	}
	w.status = status
	w.sent = w.header.Clone()
}

// Write appends to the body, after a WriteHeader(200) if there was none.
func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(p)
}

// The limits of an answer's body, in bytes. Lambda fails an invocation whose answer, as JSON, has
// more than 6,291,556 bytes. The gateway's own limit is 10 MB.
const (
	// MaxBody is the largest body. Base64 makes four bytes of three.
	MaxBody = 4 << 20
	// maxPlain is the largest body that is sent as text. In JSON a byte of text takes up to six. A
	// larger body is sent in base64.
	maxPlain = 1_000_000
)

// sendTo hands the finished answer to the library. The library joins the values of a header, puts
// the cookies apart and encodes a body that isn't UTF-8. sendTo cleans the headers as net/http
// does: it drops those with an invalid name and replaces line breaks by spaces.
//
// The answer to a HEAD keeps its body. The gateway counts it for Content-Length and doesn't send
// it.
func (w *recorder) sendTo(library http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	w.setContentType()
	header := library.Header()
	for name, values := range w.sent {
		if !isToken(name) || isFraming(name) {
			continue
		}
		for i, value := range values {
			values[i] = clean(value)
		}
		// sent is a copy, so the library may keep the values.
		key := http.CanonicalHeaderKey(name)
		if _, twice := header[key]; twice {
			values = append(header[key], values...)
		}
		header[key] = values
	}
	library.WriteHeader(w.status)
	if w.body.Len() > 0 {
		// The library's writer is a buffer and never fails.
		_, _ = library.Write(w.body.Bytes())
	}
}

// isFraming reports whether the gateway sets a header itself: those of the connection, and those
// that frame the message.
func isFraming(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// setContentType sets the type of a body when the handler didn't. It recognizes JSON, which the
// gateway, net/http and the library would all call text/plain. An empty body has no type.
func (w *recorder) setContentType() {
	body := w.body.Bytes()
	if _, set := w.sent["Content-Type"]; set || len(body) == 0 {
		return
	}
	contentType := http.DetectContentType(body)
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') && json.Valid(body) {
		contentType = "application/json"
	}
	w.sent.Set("Content-Type", contentType)
}

// clean returns a header's value that every HTTP implementation takes and that JSON can carry.
func clean(value string) string {
	value = strings.Map(func(r rune) rune {
		if r < 0x80 && isControl(byte(r)) { // #nosec G115 -- below 0x80
			return ' '
		}
		return r
	}, value)
	return strings.TrimSpace(value)
}
