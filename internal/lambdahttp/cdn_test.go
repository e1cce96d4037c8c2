package lambdahttp

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
)

const (
	newSecret = "new-secret-0123456789"
	oldSecret = "old-secret-0123456789"
)

func jwtAuthorizer() *events.APIGatewayV2HTTPRequestContextAuthorizerDescription {
	return &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
		JWT: &events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription{},
	}
}

func TestOnlyCallersWhoCameThroughTheCDNAreServed(t *testing.T) {
	t.Parallel()

	both := []string{newSecret, oldSecret}
	iam := &events.APIGatewayV2HTTPRequestContextAuthorizerDescription{
		IAM: &events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription{},
	}
	tests := map[string]struct {
		secrets       []string
		header, value string
		authorizer    *events.APIGatewayV2HTTPRequestContextAuthorizerDescription
		direct        bool // the function was invoked without a gateway
		want          int
	}{
		"the new secret":           {both, "x-origin-verify", newSecret, nil, false, 200},
		"the old secret":           {both, "x-origin-verify", oldSecret, nil, false, 200},
		"a header in capitals":     {both, "X-Origin-Verify", newSecret, nil, false, 200},
		"the old one is forgotten": {[]string{newSecret}, "x-origin-verify", oldSecret, nil, false, 403},
		"no header":                {both, "x-other", newSecret, nil, false, 403},
		"an empty header":          {both, "x-origin-verify", "", nil, false, 403},
		"a wrong secret":           {both, "x-origin-verify", "new-secret-0123456788", nil, false, 403},
		"the beginning of one":     {both, "x-origin-verify", newSecret[:8], nil, false, 403},
		"one with more behind it":  {both, "x-origin-verify", newSecret + "0", nil, false, 403},
		"both at once":             {both, "x-origin-verify", newSecret + "," + oldSecret, nil, false, 403},
		"a token":                  {both, "x-other", "", jwtAuthorizer(), false, 200},
		"a signature":              {both, "x-other", "", iam, false, 200},
		"invoked directly":         {both, "x-other", "", nil, true, 200},
		"no secret is set":         {nil, "x-other", "", nil, false, 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			served := 0
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				served++
				if got := r.Header.Values(OriginHeader); got != nil {
					t.Errorf("the handler sees the secret %q", got)
				}
			})
			event := newEvent("GET /", "/")
			event.Headers[tt.header] = tt.value
			event.RequestContext.Authorizer = tt.authorizer
			if event.RequestContext.APIID = "api1"; tt.direct {
				event.RequestContext.APIID = ""
			}
			fn := New(h, slog.New(slog.DiscardHandler), OnlyThroughCDN(tt.secrets))

			got, err := fn(t.Context(), event)

			if err != nil || got.StatusCode != tt.want || (served == 1) != (tt.want == 200) {
				t.Errorf("answer = %d, %v, after %d calls of the handler, want %d",
					got.StatusCode, err, served, tt.want)
			}
		})
	}
}

// A caller's mistake isn't looked at before the CDN's secret: the refusal comes first.
func TestTheRefusalComesBeforeEverythingElse(t *testing.T) {
	t.Parallel()

	event := newEvent("GET /", "/")
	event.RequestContext.APIID = "api1"
	event.Headers["a b"] = "no header has this name"
	event.Body, event.IsBase64Encoded = "%", true
	var log bytes.Buffer
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the handler is called")
	})
	fn := New(h, slog.New(slog.NewJSONHandler(&log, nil)), OnlyThroughCDN([]string{newSecret}))

	got, err := fn(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	wantHeaders := map[string]string{
		"Content-Type": "application/problem+json", "X-Request-Id": "request-1",
		"Cache-Control": "no-store",
	}
	if diff := cmp.Diff(wantHeaders, got.Headers); diff != "" || got.StatusCode != 403 {
		t.Errorf("status %d, headers (-want +got):\n%s", got.StatusCode, diff)
	}
	var document map[string]any
	if err := json.Unmarshal([]byte(got.Body), &document); err != nil {
		t.Fatal(err)
	}
	const sentence = "This address is closed. Use the shop's public address."
	want := map[string]any{
		"type": "urn:allo:problem:NOT_THROUGH_CDN", "title": "Not through the CDN", "status": 403.0,
		"detail": sentence, "code": CodeNotThroughCDN, "error": sentence, "requestId": "request-1",
	}
	if diff := cmp.Diff(want, document); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
	if log.Len() > 0 || strings.Contains(got.Body, newSecret) {
		t.Errorf("the log is %q, want nothing, and no secret in the answer", log.String())
	}
	// The control: the same event with the secret is malformed.
	event.Headers[strings.ToLower(OriginHeader)] = newSecret
	if got, err := fn(t.Context(), event); err != nil || got.StatusCode != http.StatusBadRequest {
		t.Errorf("with the secret the answer is %d, %v, want 400", got.StatusCode, err)
	}
}
