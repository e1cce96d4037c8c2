// Package lambdahttp runs an http.Handler behind API Gateway's payload format 2.0. The handler
// can't tell the Lambda from net/http's own server. No other package imports
// github.com/awslabs/aws-lambda-go-api-proxy.
//
// That library is archived, and it loses some requests of an HTTP API: it parses the gateway's
// decoded path as if it were still escaped, splits header values at commas, fails the invocation
// when the handler writes nothing, and lets a panic end the process. So the library gets a bare
// event that can't fail, and this package makes the request and the response that the handler sees:
//
//   - request.go rebuilds the URL, the headers and the addresses from the event;
//   - principal.go finds out who sent the request;
//   - cdn.go refuses who went around the CDN, where the deployment wants that;
//   - response.go is the http.ResponseWriter, with net/http's rules;
//   - problem.go has this package's own answers: 400 for an event that no HTTP request could have
//     caused, and 500 for a panic.
//
// Whatever the event holds, the answer is an HTTP response and never a Lambda error. A Lambda error
// would count against the function's alarms and roll back a canary, and any caller could cause one.
//
// Only the $default stage is supported: a named stage would be part of rawPath.
package lambdahttp

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
)

// deadlineMargin is how long before the Lambda's deadline the request's context ends. In that time
// the handler writes its error answer and the runtime sends it. Without it the function would be
// cut off, and its caller would get the gateway's bare 503.
const deadlineMargin = 300 * time.Millisecond

// New adapts an http.Handler to API Gateway's payload 2.0. It returns a function for lambda.Start
// that never returns an error and never panics, whatever the event holds and whatever the handler
// does.
//
// The request's context ends deadlineMargin before the Lambda's deadline. It carries the request's
// id, see RequestID, and the caller, see package principal.
func New(h http.Handler, log *slog.Logger, options ...Option) func(
	context.Context, events.APIGatewayV2HTTPRequest,
) (events.APIGatewayV2HTTPResponse, error) {
	a := adapter{handler: h, log: log}
	for _, option := range options {
		option(&a)
	}
	return a.invoke
}

// requestIDKey is the key of the request's id in a context.
type requestIDKey struct{}

// RequestID returns the id of the request that ctx belongs to, or "" outside a request. The gateway
// chooses the id, so that the same id stands in its access log, in our log and in the answer. The
// caller's headers never set it.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

type adapter struct {
	handler http.Handler
	log     *slog.Logger
	// secrets are the sums of those that the CDN may show. Without any, nobody is refused.
	secrets [][sha256.Size]byte
}

func (a adapter) invoke(
	ctx context.Context, event events.APIGatewayV2HTTPRequest,
) (events.APIGatewayV2HTTPResponse, error) {
	ctx = context.WithValue(ctx, requestIDKey{}, chooseRequestID(ctx, event))
	ctx, cancel := endEarly(principal.With(ctx, principalOf(event)))
	defer cancel()

	if a.refuses(event) {
		return a.proxy(ctx, event, nil, notThroughCDN)
	}
	req, err := newRequest(event)
	if err != nil {
		a.log.WarnContext(ctx, "malformed event refused", "requestId", RequestID(ctx), "error", err)
		return a.proxy(ctx, event, nil, malformed(err))
	}
	return a.proxy(ctx, event, req.body, func(w http.ResponseWriter, bare *http.Request) {
		a.serve(w, req.on(bare))
	})
}

// proxy runs h through the library. The library gets a bare event that can't trip it; newRequest
// makes the real request.
func (a adapter) proxy(
	ctx context.Context, event events.APIGatewayV2HTTPRequest, body []byte, h http.HandlerFunc,
) (events.APIGatewayV2HTTPResponse, error) {
	bare := events.APIGatewayV2HTTPRequest{
		RawPath: "/", Body: string(body), RequestContext: event.RequestContext,
	}
	bare.RequestContext.HTTP.Method = http.MethodGet
	bare.RequestContext.DomainName = ""

	response, err := httpadapter.NewV2(h).ProxyWithContext(ctx, bare)
	if err != nil {
		// No event causes this. A GO_API_HOST that isn't a URL does: the deployment set it wrongly.
		a.log.ErrorContext(ctx, "proxy failed", "requestId", RequestID(ctx), "error", err)
		return internalError(RequestID(ctx)).response(), nil
	}
	if !response.IsBase64Encoded && len(response.Body) > maxPlain {
		response.Body = base64.StdEncoding.EncodeToString([]byte(response.Body))
		response.IsBase64Encoded = true
	}
	return response, nil
}

// serve runs the handler and sends its answer. When the handler panicked or wrote more than a
// Lambda may answer, it sends a generic 500 instead.
func (a adapter) serve(w http.ResponseWriter, r *http.Request) {
	answer := newRecorder(RequestID(r.Context()))
	err := a.run(answer, r)
	if n := answer.body.Len(); n > MaxBody {
		err = fmt.Errorf("answer of %d bytes is over the limit of %d", n, MaxBody)
		a.log.ErrorContext(r.Context(), "answer too large",
			"requestId", RequestID(r.Context()), "error", err)
	}
	if err != nil {
		answer = newRecorder(RequestID(r.Context()))
		internalError(RequestID(r.Context())).write(answer)
	}
	answer.sendTo(w)
}

// run runs the handler and survives its panic, as net/http's server does. It returns an error when
// the handler panicked, and has logged it.
func (a adapter) run(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		err = errors.New("handler panicked")
		a.log.ErrorContext(r.Context(), "handler panicked", "requestId", RequestID(r.Context()),
			"method", r.Method, "path", r.URL.Path,
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}()
	a.handler.ServeHTTP(w, r)
	return nil
}

// endEarly returns a context that ends deadlineMargin before ctx's deadline, if ctx has one.
func endEarly(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-deadlineMargin))
}

// chooseRequestID returns the gateway's id, or else the Lambda's, or else a new one.
func chooseRequestID(ctx context.Context, event events.APIGatewayV2HTTPRequest) string {
	if id := event.RequestContext.RequestID; id != "" {
		return id
	}
	if lc, ok := lambdacontext.FromContext(ctx); ok && lc.AwsRequestID != "" {
		return lc.AwsRequestID
	}
	return uuid.NewString()
}
