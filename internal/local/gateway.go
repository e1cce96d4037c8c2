// Package local lets one machine stand in for AWS: no account, no Docker, and the same Lambda handlers.
//
//   - Gateway is API Gateway's HTTP API: it turns requests into payload-2.0 events and the functions' answers into responses.
//   - RunRule is the EventBridge rule that sends a scheduled event every minute.
//   - Runtime is the Lambda service for a built bootstrap binary: it runs the binary's processes and serves them the Lambda
//     Runtime API.
//
// Whatever a caller can notice is done as AWS does it, its refusals and its limits included, because a test that passes here
// should pass there. What AWS does that no caller can notice (throttling, signing, scaling down) is left out. Nothing here
// runs in a Lambda.
//
// Two things are done as the contract has them and not as AWS does: a 503 of the gateway's own says when to come again, and a function whose
// process was killed is a 503 too, where AWS answers 500.
package local

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/allo/reservations/internal/route"
)

// The quotas of an HTTP API, which can't be raised.
const (
	// maxRequestBody is the payload size, 10 MB.
	maxRequestBody = 10 << 20
	// maxRequestHeader is the size of the request line and the headers together.
	maxRequestHeader = 10_240
	// integrationLimit is how long the gateway waits for a function.
	integrationLimit = 30 * time.Second
)

// Timeouts of the server that the gateway runs on. They keep a slow or silent client from holding a connection.
const (
	// headerTimeout is ample for the 10 KB that a header may have.
	headerTimeout = 10 * time.Second
	// readTimeout lets a slow line upload the largest body.
	readTimeout = 60 * time.Second
	// writeTimeout starts with the request, so it has to hold the upload, the function and the download.
	writeTimeout = readTimeout + integrationLimit + 30*time.Second
	// idleTimeout outlasts a client's pause for thought, and returns the file descriptor of one that has left.
	idleTimeout = 2 * time.Minute
)

// Invoker runs one invocation of one function: payload in, payload out. It may be asked for many at once. A *Runtime is one,
// and Handler makes one of a handler in this process.
type Invoker interface {
	Invoke(ctx context.Context, payload []byte) ([]byte, error)
}

// Gateway is an http.Handler: the HTTP API of API Gateway on this machine.
type Gateway struct {
	table     table
	functions map[string]Invoker
	log       *slog.Logger
}

// NewGateway routes requests to functions, which are keyed by the Function of a route. It fails when a route has no function,
// is malformed or takes the same requests as another, and when a function was made by lambda.NewHandler, see Handler.
func NewGateway(routes []route.Route, functions map[string]Invoker, log *slog.Logger) (*Gateway, error) {
	table, err := newTable(routes)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if functions[r.Function] == nil {
			return nil, fmt.Errorf("route %s: no function %q", r.Key(), r.Function)
		}
		if sharesBuffer(functions[r.Function]) {
			return nil, fmt.Errorf("function %q: a handler of lambda.NewHandler can't be invoked concurrently: use local.Handler", r.Function)
		}
	}
	return &Gateway{table: table, functions: functions, log: log}, nil
}

// NewServer serves h as the gateway does: every phase of a request has a deadline, and the header has the gateway's quota
// (net/http adds 4 KB of slack to it). The caller chooses the listener and so the interface.
func NewServer(addr string, h http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
	}
}

// ServeHTTP answers one request by invoking the function of its route.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newRequestID()
	w.Header().Set("Apigw-Requestid", id)

	matched, params, ok := g.table.match(r.Method, r.URL.EscapedPath())
	if !ok {
		refuse(w, http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		refuse(w, statusOfReadError(err))
		return
	}
	event := newEvent(r, matched, params, body, id, time.Now())
	answer, err := g.invoke(r.Context(), g.functions[matched.Function], event)
	if err != nil {
		g.log.ErrorContext(r.Context(), "invocation failed", "function", matched.Function, "requestId", id, "error", err)
		refuse(w, statusOfInvokeError(err))
		return
	}
	answer.send(w, r.Method)
}

// invoke waits for the function for as long as the gateway does, even when the caller has hung up: the
// gateway never tells a function. It doesn't wait longer, even for a function that ignores its context.
func (g *Gateway) invoke(ctx context.Context, fn Invoker, e event) (response, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), integrationLimit)
	defer cancel()

	type outcome struct {
		response response
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := respondSafely(ctx, fn, e)
		done <- outcome{r, err}
	}()
	select {
	case out := <-done:
		return out.response, out.err
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
}

// respondSafely turns a panic into an error. On AWS a panic ends the function's process; here it would
// end the gateway's.
func respondSafely(ctx context.Context, fn Invoker, e event) (r response, err error) {
	defer recoverError(&err)
	if h, ok := fn.(httpHandler); ok {
		return respond(ctx, h, e)
	}
	return respondJSON(ctx, fn, e)
}

func recoverError(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("function panicked: %v\n%s", p, debug.Stack())
	}
}

func statusOfReadError(err error) int {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// statusOfInvokeError tells a function that failed from one that couldn't answer: its process was killed, or took too long. AWS answers 500
// for a killed one; here it is 503 as for the other, because the contract has no 500 for what a retry puts right.
func statusOfInvokeError(err error) int {
	var failed *FunctionError
	gone := errors.As(err, &failed) && (failed.Type == exitError || failed.Type == timedOut)
	if gone || errors.Is(err, errGone) || errors.Is(err, context.DeadlineExceeded) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// refuse writes the gateway's own answer, which is JSON but no problem document.
func refuse(w http.ResponseWriter, status int) {
	// What AWS doesn't do: the contract promises the request's id on every answer, under its own name.
	w.Header().Set("X-Request-Id", w.Header().Get("Apigw-Requestid"))
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1") // which the contract promises with it, and AWS doesn't send
	}
	w.WriteHeader(status)
	// A caller who has hung up is nobody to tell.
	_, _ = fmt.Fprintf(w, `{"message":%q}`, http.StatusText(status))
}

// requestIDBytes makes an id of 16 characters that ends in "=", as the gateway's do.
const requestIDBytes = 11

func newRequestID() string {
	var b [requestIDBytes]byte
	// crypto/rand never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return base64.URLEncoding.EncodeToString(b[:])
}
