// Package objective counts the answers that the service level objectives call bad: those with a 5xx
// status, and the slow ones. It counts them in the functions, because the gateway has metrics of
// single routes only at a price, and one that must repeat the stage's throttle for each route.
// Lambda itself counts the invocations that failed or were throttled: no function sees them.
package objective

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/emf"
)

// maxWait is the longest time before a function begins that is believed: the gateway waits 30 s.
// A clock that is wrong by more must not make answers slow.
const maxWait = 30 * time.Second

// Measure returns a handler that also writes emf.ServerErrors and emf.SlowAnswers. It returns the
// handler itself for a function without an objective.
func Measure(function string, h fault.Handler, metrics *emf.Writer) fault.Handler {
	if !slices.Contains(emf.Objectives(), function) {
		return h
	}
	return measure(function, h, metrics, time.Now)
}

func measure(
	function string, h fault.Handler, metrics *emf.Writer, now func() time.Time,
) fault.Handler {
	return func(
		ctx context.Context, event events.APIGatewayV2HTTPRequest,
	) (events.APIGatewayV2HTTPResponse, error) {
		start := since(event, now())
		response, err := h(ctx, event)
		if err != nil {
			return response, err // Lambda counts it.
		}
		var values []emf.Value
		if response.StatusCode >= http.StatusInternalServerError {
			values = append(values, emf.ServerErrors.Of(function, 1))
		}
		if now().Sub(start) > emf.SlowAfter {
			values = append(values, emf.SlowAnswers.Of(function, 1))
		}
		metrics.Write(values...)
		return response, nil
	}
}

// since returns when the caller began to wait: when the gateway took the request. So the time in
// which Lambda started an environment counts too. An event without the time, or with one that can't
// be, began now.
func since(event events.APIGatewayV2HTTPRequest, now time.Time) time.Time {
	taken := time.UnixMilli(event.RequestContext.TimeEpoch)
	if wait := now.Sub(taken); wait < 0 || wait > maxWait {
		return now
	}
	return taken
}
