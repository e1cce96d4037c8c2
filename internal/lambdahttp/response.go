package lambdahttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// recorder is the http.ResponseWriter of a handler. It keeps net/http's rules, which the library's doesn't: the first
// WriteHeader counts, the headers are fixed when it is called, and a handler that writes nothing has answered 200.
type recorder struct {
	header http.Header // what the handler may still change
	sent   http.Header // header as it was when the status was written
	status int
	body   bytes.Buffer
}

// newRecorder begins an answer that tells the request's id, whatever the handler does.
func newRecorder(requestID string) *recorder {
	return &recorder{header: http.Header{"X-Request-Id": {requestID}}}
}

// Header returns the headers that WriteHeader will send.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader fixes the status and the headers. Informational answers are dropped, because a Lambda has one answer; what no
// final HTTP answer can be panics, as in net/http, and is so answered 500.
func (w *recorder) WriteHeader(status int) {
	informational := status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols
	if w.status != 0 || informational {
		return
	}
	if status < 200 || status > 599 {
		panic(fmt.Sprintf("lambdahttp: %d is no status of a final answer", status))
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

// maxBody is the largest body we can answer with. Lambda fails an invocation whose answer is over 6 MB, and base64 makes four
// bytes of three.
const maxBody = 4 << 20

// sendTo hands the finished answer to the library, which joins the values of a header, puts cookies apart and encodes a body
// that isn't UTF-8. Headers are cleaned as net/http cleans them: a name that isn't one is dropped, a line break is a space.
func (w *recorder) sendTo(library http.ResponseWriter, method string) {
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
		// The values are sent's own copies, so the library may have them as they are.
		key := http.CanonicalHeaderKey(name)
		if _, twice := header[key]; twice {
			values = append(header[key], values...)
		}
		header[key] = values
	}
	library.WriteHeader(w.status)
	if w.body.Len() > 0 && method != http.MethodHead {
		// The library's writer is a buffer and never fails.
		_, _ = library.Write(w.body.Bytes())
	}
}

// isFraming tells the headers of the connection and of the message's framing, which are the gateway's: it counts the bytes
// itself.
func isFraming(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// setContentType names the type of a body that the handler didn't name. JSON is called JSON: the gateway's guess, net/http's
// and the library's would all be text/plain. An empty body has no type.
func (w *recorder) setContentType() {
	body := w.body.Bytes()
	if _, set := w.sent["Content-Type"]; set || len(body) == 0 {
		return
	}
	contentType := http.DetectContentType(body)
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) > 0 && (first[0] == '{' || first[0] == '[') && json.Valid(body) {
		contentType = "application/json"
	}
	w.sent.Set("Content-Type", contentType)
}

// clean makes a header's value one that any HTTP implementation takes and JSON can carry.
func clean(value string) string {
	value = strings.Map(func(r rune) rune {
		if r < 0x80 && isControl(byte(r)) { // #nosec G115 -- below 0x80
			return ' '
		}
		return r
	}, value)
	return strings.TrimSpace(value)
}
