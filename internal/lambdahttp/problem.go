package lambdahttp

import (
	"fmt"
	"net/http"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/problem"
)

// ownAnswer is an error that this package answers with by itself, without the handler.
type ownAnswer struct{ problem problem.Problem }

// internalError answers for a bug. It gives no reason: the log has it, under the same request id.
func internalError(requestID string) ownAnswer {
	return newOwnAnswer(problem.Internal(), requestID)
}

// malformed answers an event that newRequest refused.
func malformed(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		detail := fmt.Sprintf("The request is malformed: %v.", err)
		p := problem.New(http.StatusBadRequest, "MALFORMED_REQUEST", "Malformed request", detail)
		newOwnAnswer(p, RequestID(r.Context())).write(w)
	}
}

// newOwnAnswer cleans the id, as a header must be able to carry it.
func newOwnAnswer(p problem.Problem, requestID string) ownAnswer {
	p.RequestID = clean(requestID)
	return ownAnswer{p}
}

func (a ownAnswer) write(w http.ResponseWriter) {
	w.Header().Set("X-Request-Id", a.problem.RequestID)
	a.problem.Write(w)
}

// response makes the same answer without the library, for when the library has failed.
func (a ownAnswer) response() events.APIGatewayV2HTTPResponse {
	return events.APIGatewayV2HTTPResponse{
		StatusCode: a.problem.Status,
		Headers: map[string]string{
			"Cache-Control": "no-store",
			"Content-Type":  problem.ContentType,
			"X-Request-Id":  a.problem.RequestID,
		},
		Body: string(a.problem.JSON()),
	}
}
