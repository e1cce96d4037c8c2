package fault_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/app/web"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/lambdahttp"
)

func get(path string) events.APIGatewayV2HTTPRequest {
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path}
	event.RequestContext.HTTP.Method, event.RequestContext.HTTP.Path = http.MethodGet, path
	return event
}

func TestAFaultIsAnAnswerThatBlamesTheFunction(t *testing.T) {
	t.Parallel()

	for status, want := range map[int]bool{
		200: false, 304: false, 400: false, 404: false, 409: false, 410: false, 413: false, 422: false,
		429: false, 500: true, 501: true, 502: true, 503: false, 504: true,
	} {
		var metrics bytes.Buffer
		handler := fault.Count("reserve", func(
			context.Context, events.APIGatewayV2HTTPRequest,
		) (events.APIGatewayV2HTTPResponse, error) {
			return events.APIGatewayV2HTTPResponse{StatusCode: status}, nil
		}, emf.New(&metrics, "Allo/test"))
		response, err := handler(t.Context(), get("/"))
		if err != nil || response.StatusCode != status {
			t.Errorf("the answer is %d, %v, want %d", response.StatusCode, err, status)
		}
		const line = `"Faults":1,"Function":"reserve"`
		if got := metrics.String(); strings.Contains(got, line) != want || (got != "") != want {
			t.Errorf("%d: the metrics are %q, want a fault: %t", status, got, want)
		}
	}
}

// Lambda itself counts an invocation that fails.
func TestAFailedInvocationIsNotCountedTwice(t *testing.T) {
	t.Parallel()

	var metrics bytes.Buffer
	failed := errors.New("failed")
	handler := fault.Count("reserve", func(
		context.Context, events.APIGatewayV2HTTPRequest,
	) (events.APIGatewayV2HTTPResponse, error) {
		return events.APIGatewayV2HTTPResponse{StatusCode: 500}, failed
	}, emf.New(&metrics, "Allo/test"))
	if _, err := handler(t.Context(), get("/")); !errors.Is(err, failed) || metrics.Len() > 0 {
		t.Errorf("the handler returns %v and writes %q, want the error alone", err, metrics.String())
	}
}

// The function web has no handler that can fail, so the test adds a panic.
func TestAPanicOfAPageIsAFault(t *testing.T) {
	t.Parallel()

	var metrics bytes.Buffer
	pages := web.Handler(config.Config{})
	handler := fault.Count("web", lambdahttp.New(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("a bug")
			}
			pages.ServeHTTP(w, r)
		}), slog.New(slog.DiscardHandler)), emf.New(&metrics, "Allo/test"))
	for path, status := range map[string]int{"/": 200, "/nowhere": 404, "/panic": 500} {
		response, err := handler(t.Context(), get(path))
		if err != nil || response.StatusCode != status {
			t.Errorf("GET %s = %d, %v, want %d", path, response.StatusCode, err, status)
		}
		if faults := strings.Count(metrics.String(), `"Faults":1`); (faults == 1) != (status == 500) {
			t.Errorf("GET %s: the metrics are %q", path, metrics.String())
		}
		metrics.Reset()
	}
}
