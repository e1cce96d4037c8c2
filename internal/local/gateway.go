// Package local lets one machine stand in for AWS, with the same Lambda handlers and without an
// account or Docker.
//
//   - Gateway is API Gateway's HTTP API: it turns requests into payload-2.0 events and the
//     functions' answers into responses. Its Authorizer checks tokens and signatures; README.md
//     says how to run it with one.
//   - Router is the DNS before several stacks: it sends each request to the cell of its host.
//   - RunRule is the EventBridge rule that sends a scheduled event every minute.
//   - Runtime is the Lambda service: it runs the processes of a built bootstrap binary and serves
//     them the Lambda Runtime API.
//
// A caller sees the same behaviour as on AWS, refusals and limits included, because a test that
// passes here should pass there. Throttling, CORS and scaling down are left out. Nothing here
// runs in a Lambda.
//
// In two things the gateway follows the HTTP contract and not AWS. Its own 503 has a Retry-After.
// And it answers 503 when a function's process was killed, where AWS answers 500.
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

// These are quotas of an HTTP API. AWS doesn't raise them.
const (
	// maxRequestBody is the largest body, in bytes.
	maxRequestBody = 10 << 20
	// maxRequestHeader is the largest sum of the request line and the headers, in bytes.
	maxRequestHeader = 10_240
	// integrationLimit is how long the gateway waits for a function.
	integrationLimit = 30 * time.Second
)

// These timeouts of the gateway's server keep a slow or silent client from holding a connection.
const (
	// headerTimeout is ample for maxRequestHeader.
	headerTimeout = 10 * time.Second
	// readTimeout lets a slow line upload the largest body.
	readTimeout = 60 * time.Second
	// writeTimeout starts with the request, so it covers the upload, the function and the download.
	writeTimeout = readTimeout + integrationLimit + 30*time.Second
	// idleTimeout outlasts a client's pauses and closes the connection of a client that has left.
	idleTimeout = 2 * time.Minute
)

// Invoker invokes one function with a payload and returns the function's payload. Invoke may be
// called concurrently. *Runtime is an Invoker, and Handler makes one of a handler in this process.
type Invoker interface {
	Invoke(ctx context.Context, payload []byte) ([]byte, error)
}

// Gateway is an http.Handler that stands in for API Gateway's HTTP API.
type Gateway struct {
	table     routeTable
	functions map[string]Invoker
	log       *slog.Logger
	// authorizer is nil when all routes are open.
	authorizer Authorizer
}

// NewGateway returns a gateway for the routes. The keys of functions are the routes' Function
// fields. It fails when a route has no function, is malformed or takes the same requests as
// another, and when lambda.NewHandler made a function, see Handler.
func NewGateway(
	routes []route.Route, functions map[string]Invoker, log *slog.Logger,
) (*Gateway, error) {
	table, err := newRouteTable(routes)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if functions[r.Function] == nil {
			return nil, fmt.Errorf("route %s: no function %q", r.Key(), r.Function)
		}
		if sharesBuffer(functions[r.Function]) {
			return nil, fmt.Errorf("function %q: a handler of lambda.NewHandler isn't safe for "+
				"concurrent use: use local.Handler", r.Function)
		}
	}
	return &Gateway{table: table, functions: functions, log: log}, nil
}

// NewServer returns a server for h with the gateway's limits: every phase of a request has a
// deadline, and the header has the gateway's quota (net/http adds 4 KB of slack). The caller
// chooses the listener.
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
	caller, refused := g.authorize(r, body, matched)
	if refused != nil {
		refused.send(w, r, matched, g.log)
		return
	}
	event := newEvent(r, matched, params, body, id, time.Now())
	event.RequestContext.Authorizer = caller
	answer, err := g.invoke(r.Context(), g.functions[matched.Function], event)
	if err != nil {
		g.log.ErrorContext(r.Context(), "invocation failed",
			"function", matched.Function, "requestId", id, "error", err)
		refuse(w, statusOfInvokeError(err))
		return
	}
	answer.send(w, r.Method)
}

// invoke invokes the function and waits integrationLimit for it at most, even when the function
// ignores its context. As on AWS, the function isn't cancelled when the caller hangs up.
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

// respondSafely turns a panic into an error. On AWS a panic ends the function's process; here it
// would end the gateway's.
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

// statusOfInvokeError returns 503 when the function's process was killed or took too long, and
// otherwise 500. AWS answers 500 for a killed process too, but in the HTTP contract a 500 is a bug,
// and a retry is the remedy here.
func statusOfInvokeError(err error) int {
	var failed *FunctionError
	gone := errors.As(err, &failed) && (failed.Type == exitError || failed.Type == timedOut)
	if gone || errors.Is(err, errGone) || errors.Is(err, context.DeadlineExceeded) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// refuse writes the gateway's own answer. Like AWS's, it is JSON but not a problem document.
func refuse(w http.ResponseWriter, status int) {
	// AWS sets neither X-Request-Id nor Retry-After, but the HTTP contract promises both.
	w.Header().Set("X-Request-Id", w.Header().Get("Apigw-Requestid"))
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	// A write fails when the caller has hung up. That doesn't matter.
	_, _ = fmt.Fprintf(w, `{"message":%q}`, http.StatusText(status))
}

// requestIDBytes is the number of random bytes in a request id. As base64 they are 16 characters
// that end in "=", like the gateway's ids.
const requestIDBytes = 11

func newRequestID() string {
	var b [requestIDBytes]byte
	// crypto/rand never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return base64.URLEncoding.EncodeToString(b[:])
}
