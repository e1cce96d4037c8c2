// Package fault counts a function's answers that are bugs. Lambda doesn't see them: for Lambda an
// invocation that answers 500 has succeeded. So a new version whose every answer is 500 would pass
// its canary without this count. Package fault is apart from package app because the web function,
// which links no database driver, counts its faults too.
package fault

import (
	"context"
	"net/http"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/emf"
)

// Handler is the handler of a function behind the gateway.
type Handler = func(
	context.Context, events.APIGatewayV2HTTPRequest,
) (events.APIGatewayV2HTTPResponse, error)

// Count returns a handler that also writes emf.Faults for each answer that is a fault of the
// function with this name in the route table.
func Count(function string, h Handler, metrics *emf.Writer) Handler {
	return func(
		ctx context.Context, event events.APIGatewayV2HTTPRequest,
	) (events.APIGatewayV2HTTPResponse, error) {
		response, err := h(ctx, event)
		if err == nil && isFault(response.StatusCode) {
			metrics.Write(emf.Faults.Of(function, 1))
		}
		return response, err
	}
}

// isFault reports whether a status blames the function itself. A 503 doesn't: mostly the database
// is out of reach or its rows are locked.
func isFault(status int) bool {
	return status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable
}
