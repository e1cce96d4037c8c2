package objective

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/emf"
)

// answered returns the metrics of one answer, which came some time after the gateway took the
// request.
func answered(
	t *testing.T, function string, event events.APIGatewayV2HTTPRequest, status int,
	took time.Duration, failed error,
) string {
	t.Helper()
	var metrics bytes.Buffer
	now := time.UnixMilli(1_800_000_000_000)
	handler := measure(function, func(
		context.Context, events.APIGatewayV2HTTPRequest,
	) (events.APIGatewayV2HTTPResponse, error) {
		now = now.Add(took)
		return events.APIGatewayV2HTTPResponse{StatusCode: status}, failed
	}, emf.New(&metrics, "Allo/test"), func() time.Time { return now })
	if _, err := handler(t.Context(), event); !errors.Is(err, failed) {
		t.Errorf("the handler's error is %v, want %v", err, failed)
	}
	return metrics.String()
}

// takenAgo returns an event that the gateway took before the function began.
func takenAgo(ago time.Duration) (event events.APIGatewayV2HTTPRequest) {
	event.RequestContext.TimeEpoch = time.UnixMilli(1_800_000_000_000).Add(-ago).UnixMilli()
	return event
}

func TestABadAnswerIsCounted(t *testing.T) {
	t.Parallel()

	const server, slow = `"ServerErrors":1`, `"SlowAnswers":1`
	for name, c := range map[string]struct {
		event  events.APIGatewayV2HTTPRequest
		status int
		took   time.Duration
		failed error
		want   []string
	}{
		"good":         {takenAgo(0), 201, 20 * time.Millisecond, nil, nil},
		"refused":      {takenAgo(0), 409, 20 * time.Millisecond, nil, nil},
		"a bug":        {takenAgo(0), 500, 20 * time.Millisecond, nil, []string{server}},
		"no database":  {takenAgo(0), 503, time.Second, nil, []string{server, slow}},
		"just in time": {takenAgo(0), 201, 500 * time.Millisecond, nil, nil},
		"slow":         {takenAgo(0), 201, 501 * time.Millisecond, nil, []string{slow}},
		"a cold start": {
			takenAgo(490 * time.Millisecond), 201, 20 * time.Millisecond, nil, []string{slow},
		},
		"a clock that goes": {takenAgo(-time.Second), 201, 20 * time.Millisecond, nil, nil},
		"an absurd clock":   {takenAgo(time.Hour), 201, 20 * time.Millisecond, nil, nil},
		"no time at all":    {events.APIGatewayV2HTTPRequest{}, 201, 20 * time.Millisecond, nil, nil},
		"Lambda counts it":  {takenAgo(0), 500, time.Second, errors.New("failed"), nil},
	} {
		got := answered(t, "reserve", c.event, c.status, c.took, c.failed)
		for _, metric := range []string{server, slow} {
			wanted := strings.Contains(strings.Join(c.want, " "), metric)
			if strings.Contains(got, metric) != wanted || (got == "") != (len(c.want) == 0) {
				t.Errorf("%s: the metrics are %q, want %v", name, got, c.want)
			}
		}
	}
}

// Each function that writes one of these metrics pays for it.
func TestOnlyFunctionsWithAnObjectiveAreMeasured(t *testing.T) {
	t.Parallel()

	for function, want := range map[string]bool{"reserve": true, "confirm": true, "health": false} {
		var metrics bytes.Buffer
		handler := Measure(function, func(
			context.Context, events.APIGatewayV2HTTPRequest,
		) (events.APIGatewayV2HTTPResponse, error) {
			return events.APIGatewayV2HTTPResponse{StatusCode: 503}, nil
		}, emf.New(&metrics, "Allo/test"))
		if _, err := handler(t.Context(), events.APIGatewayV2HTTPRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(metrics.String(), `"Function":"`+function+`"`); got != want {
			t.Errorf("%s is measured: %v, want %v", function, got, want)
		}
	}
}
