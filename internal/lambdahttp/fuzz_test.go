package lambdahttp

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// FuzzEvent feeds events that no gateway sends: any JSON, and fields of any bytes, which JSON can't
// carry. Whatever they hold, the function neither fails nor panics, and answers with a status that
// the gateway passes on.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{}`), "GET", "GET /api/reservations/{id}", "/api/reservations/50%", "a=%zz#",
		"idempotency-key", "a,b", "id", "a/b", "%%%", true)
	f.Add([]byte(`{"routeKey":"$default","cookies":["a=1"],`+
		`"requestContext":{"http":{"method":"POST","sourceIp":"::1"}}}`),
		"", "", "//x", "\n", "", "\x00", "proxy", "..", "{}", false)
	f.Add([]byte(`[]`), "PURGE", "ANY /{proxy+}", "\xff", "?", "host", "a b", "proxy", "a//b/../c",
		"eA==", true)
	f.Add([]byte(`null`), "HEAD", "GET {", "", "", "cookie", "é", "", "", "", false)

	fn := New(newReflector(), slog.New(slog.DiscardHandler))
	f.Fuzz(func(
		t *testing.T, raw []byte,
		method, routeKey, rawPath, query, header, value, name, param, body string, encoded bool,
	) {
		var event events.APIGatewayV2HTTPRequest
		if json.Unmarshal(raw, &event) != nil {
			event = events.APIGatewayV2HTTPRequest{}
		}
		if method != "" {
			event.RequestContext.HTTP.Method = method
			event.RouteKey, event.RawPath, event.RawQueryString = routeKey, rawPath, query
			event.RequestContext.HTTP.SourceIP, event.RequestContext.DomainName = value, value
			event.Headers = map[string]string{header: value, "x-param": param}
			event.PathParameters = map[string]string{name: param}
			event.Body, event.IsBase64Encoded = body, encoded
		}

		response, err := fn(t.Context(), event)

		if err != nil || response.StatusCode < 200 || response.StatusCode > 599 {
			t.Errorf("response = %+v, %v, want a status from 200 to 599", response, err)
		}
		if _, err := json.Marshal(response); err != nil {
			t.Errorf("response %+v can't be marshalled: %v", response, err)
		}
	})
}

// newReflector returns a handler that copies the request into every part of its answer.
func newReflector() http.Handler {
	mux := http.NewServeMux()
	echo := func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			w.Header()[name+" "] = values
			w.Header()[name] = values
		}
		w.Header().Set("Location", r.URL.String())
		w.Header().Add("Set-Cookie", r.URL.RawQuery)
		w.Header()[r.PathValue("id")] = []string{r.RequestURI, r.Host, r.RemoteAddr, r.PathValue("rest")}
		if r.ContentLength == 3 {
			panic(r.URL.Query())
		}
		_, _ = io.Copy(w, r.Body)
	}
	mux.HandleFunc("/", echo)
	mux.HandleFunc("GET /api/reservations/{id}", echo)
	mux.HandleFunc("POST /api/reservations/{id}/confirm", echo)
	mux.HandleFunc("/assets/{rest...}", echo)
	return mux
}
