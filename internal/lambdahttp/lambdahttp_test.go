package lambdahttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"
	"github.com/google/go-cmp/cmp"
)

// seen holds the parts of a handler's request that the library's traps spoil.
type seen struct {
	Method, Path, EscapedPath, RequestURI string
	Host, RemoteAddr                      string
	Header                                http.Header
	Query                                 map[string][]string
	ID, Rest                              string
	Body                                  string
	ContentLength                         int64
}

// newMux routes as the service does and answers with the request that it saw.
func newMux() *http.ServeMux {
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen{
			Method: r.Method, Path: r.URL.Path, EscapedPath: r.URL.EscapedPath(), RequestURI: r.RequestURI,
			Host: r.Host, RemoteAddr: r.RemoteAddr, Header: r.Header, Query: r.URL.Query(),
			ID: r.PathValue("id"), Rest: r.PathValue("rest"),
			Body: string(body), ContentLength: r.ContentLength,
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", echo)
	mux.HandleFunc("/api/reservations/{id}", echo)
	mux.HandleFunc("/api/reservations/{id}/confirm", echo)
	mux.HandleFunc("/assets/{rest...}", echo)
	return mux
}

func newEvent(routeKey, rawPath string) events.APIGatewayV2HTTPRequest {
	event := events.APIGatewayV2HTTPRequest{
		Version:  "2.0",
		RouteKey: routeKey,
		RawPath:  rawPath,
		Headers:  map[string]string{"host": "shop.example"},
	}
	event.RequestContext.RequestID = "request-1"
	event.RequestContext.DomainName = "shop.example"
	event.RequestContext.Stage = "$default"
	event.RequestContext.HTTP.Method = http.MethodGet
	event.RequestContext.HTTP.Path = rawPath
	event.RequestContext.HTTP.SourceIP = "192.0.2.7"
	return event
}

// invokeAdapter sends the event through New. An error or a panic fails every test.
func invokeAdapter(
	t *testing.T, h http.Handler, event events.APIGatewayV2HTTPRequest,
) events.APIGatewayV2HTTPResponse {
	t.Helper()
	response, err := New(h, slog.New(slog.DiscardHandler))(t.Context(), event)
	if err != nil {
		t.Fatalf("New(h)(%+v) error = %v, want none", event, err)
	}
	if got := response.Headers["X-Request-Id"]; got == "" {
		t.Errorf("headers = %v, want an X-Request-Id on every answer", response.Headers)
	}
	return response
}

// answerWithoutID is invokeAdapter's answer without the request's id, which invokeAdapter has
// checked.
func answerWithoutID(
	t *testing.T, h http.Handler, event events.APIGatewayV2HTTPRequest,
) events.APIGatewayV2HTTPResponse {
	t.Helper()
	response := invokeAdapter(t, h, event)
	delete(response.Headers, "X-Request-Id")
	return response
}

// invokeLibrary sends the event through the library alone. It is the tests' negative control.
func invokeLibrary(
	t *testing.T, h http.Handler, event events.APIGatewayV2HTTPRequest,
) (events.APIGatewayV2HTTPResponse, error) {
	t.Helper()
	return httpadapter.NewV2(h).ProxyWithContext(t.Context(), event)
}

func decodeSeen(t *testing.T, response events.APIGatewayV2HTTPResponse) seen {
	t.Helper()
	var got seen
	err := json.Unmarshal([]byte(response.Body), &got)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("response = %+v, want 200 and JSON (%v)", response, err)
	}
	return got
}

func TestPathIsRebuiltFromTheRoute(t *testing.T) {
	t.Parallel()

	const (
		one     = "GET /api/reservations/{id}"
		confirm = "GET /api/reservations/{id}/confirm"
		assets  = "GET /assets/{proxy+}"
	)
	tests := map[string]struct {
		key, rawPath string
		params       map[string]string
		path         string // r.URL.Path
		escaped      string // r.URL.EscapedPath()
		id, rest     string
		bareIsRight  bool
	}{
		"plain":          {one, "/api/reservations/7", map[string]string{"id": "7"}, "/api/reservations/7", "/api/reservations/7", "7", "", true},
		"slash in id":    {one, "/api/reservations/a/b", map[string]string{"id": "a/b"}, "/api/reservations/a/b", "/api/reservations/a%2Fb", "a/b", "", false},
		"slash, longer":  {confirm, "/api/reservations/a/b/confirm", map[string]string{"id": "a/b"}, "/api/reservations/a/b/confirm", "/api/reservations/a%2Fb/confirm", "a/b", "", false},
		"percent":        {one, "/api/reservations/50%", map[string]string{"id": "50%"}, "/api/reservations/50%", "/api/reservations/50%25", "50%", "", false},
		"escape in id":   {one, "/api/reservations/%41", map[string]string{"id": "%41"}, "/api/reservations/%41", "/api/reservations/%2541", "%41", "", false},
		"space":          {one, "/api/reservations/a b", map[string]string{"id": "a b"}, "/api/reservations/a b", "/api/reservations/a%20b", "a b", "", true},
		"question mark":  {one, "/api/reservations/a?b", map[string]string{"id": "a?b"}, "/api/reservations/a?b", "/api/reservations/a%3Fb", "a?b", "", false},
		"hash":           {one, "/api/reservations/a#b", map[string]string{"id": "a#b"}, "/api/reservations/a#b", "/api/reservations/a%23b", "a#b", "", false},
		"dot dot":        {one, "/api/reservations/..", map[string]string{"id": ".."}, "/api/reservations/..", "/api/reservations/%2E%2E", "..", "", false},
		"control":        {one, "/api/reservations/a\nb", map[string]string{"id": "a\nb"}, "/api/reservations/a\nb", "/api/reservations/a%0Ab", "a\nb", "", false},
		"braces in id":   {one, "/api/reservations/{id}", map[string]string{"id": "{id}"}, "/api/reservations/{id}", "/api/reservations/%7Bid%7D", "{id}", "", true},
		"proxy":          {assets, "/assets/css/a b%.css", map[string]string{"proxy": "css/a b%.css"}, "/assets/css/a b%.css", "/assets/css/a%20b%25.css", "", "css/a b%.css", false},
		"no route":       {"$default", "/50%?#", nil, "/50%?#", "/50%25%3F%23", "", "", false},
		"no parameter":   {one, "/api/reservations/7", nil, "/api/reservations/7", "/api/reservations/7", "7", "", true},
		"no path at all": {"", "", nil, "/", "/", "", "", true},
		"relative path":  {"", "api", nil, "/api", "/api", "", "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := newEvent(tt.key, tt.rawPath)
			event.PathParameters = tt.params
			event.RawQueryString = "q=1"

			got := decodeSeen(t, invokeAdapter(t, newMux(), event))

			want := seen{
				Path: tt.path, EscapedPath: tt.escaped, RequestURI: tt.escaped + "?q=1",
				ID: tt.id, Rest: tt.rest,
			}
			path := seen{
				Path: got.Path, EscapedPath: got.EscapedPath, RequestURI: got.RequestURI,
				ID: got.ID, Rest: got.Rest,
			}
			if diff := cmp.Diff(want, path); diff != "" {
				t.Errorf("handler saw (-want +got):\n%s", diff)
			}
			response, err := invokeLibrary(t, newMux(), event)
			bareIsRight := err == nil &&
				strings.Contains(response.Body, fmt.Sprintf(`"ID":%q,"Rest":%q`, tt.id, tt.rest))
			if bareIsRight != tt.bareIsRight {
				t.Errorf("bare library right = %v, want %v: %+v, %v",
					bareIsRight, tt.bareIsRight, response, err)
			}
		})
	}
}

func TestPathThatIsNotUTF8(t *testing.T) {
	t.Parallel()

	event := newEvent("GET /api/reservations/{id}", "/api/reservations/\xff")
	event.PathParameters = map[string]string{"id": "\xff"}

	var escaped, id string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/reservations/{id}", func(_ http.ResponseWriter, r *http.Request) {
		escaped, id = r.URL.EscapedPath(), r.PathValue("id")
	})
	response := invokeAdapter(t, mux, event)

	if response.StatusCode != http.StatusOK || escaped != "/api/reservations/%FF" || id != "\xff" {
		t.Errorf("status, path, id = %d, %q, %q", response.StatusCode, escaped, id)
	}
}

func TestHeaderValuesStayWhole(t *testing.T) {
	t.Parallel()

	event := newEvent("GET /", "/")
	event.Headers = map[string]string{
		"host":            "shop.example",
		"idempotency-key": "a,b",
		"date":            "Wed, 21 Oct 2026 07:28:00 GMT",
		"x-spaces":        " a ,  b ",
		"accept":          "text/html,application/json;q=0.9",
		"x-utf8":          "schön",
	}
	event.Cookies = []string{"a=1", "b=2,3"}

	got := decodeSeen(t, invokeAdapter(t, newMux(), event)).Header

	want := http.Header{
		"Idempotency-Key": {"a,b"},
		"Date":            {"Wed, 21 Oct 2026 07:28:00 GMT"},
		"X-Spaces":        {" a ,  b "},
		"Accept":          {"text/html,application/json;q=0.9"},
		"X-Utf8":          {"schön"},
		"Cookie":          {"a=1; b=2,3"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("handler's headers (-want +got):\n%s", diff)
	}
	response, err := invokeLibrary(t, newMux(), event)
	if err != nil {
		t.Fatalf("bare library error = %v", err)
	}
	split := decodeSeen(t, response).Header["Idempotency-Key"]
	if diff := cmp.Diff([]string{"a", "b"}, split); diff != "" {
		t.Errorf("the bare library no longer splits at commas (-want +got):\n%s", diff)
	}
}

func TestHandlerThatWritesNothingAnswers200(t *testing.T) {
	t.Parallel()

	silent := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	got := answerWithoutID(t, silent, newEvent("GET /", "/"))

	want := answer(http.StatusOK, "", "", false)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	if response, err := invokeLibrary(t, silent, newEvent("GET /", "/")); err == nil {
		t.Errorf("bare library = %+v, want an error", response)
	}
}

func TestFirstWriteHeaderFixesStatusAndHeaders(t *testing.T) {
	t.Parallel()

	twice := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Early", "1")
		w.WriteHeader(http.StatusCreated)
		w.Header().Set("X-Late", "1")
		w.WriteHeader(http.StatusInternalServerError)
	})
	got := answerWithoutID(t, twice, newEvent("GET /", "/"))

	want := answer(http.StatusCreated, "", "", false)
	want.Headers["X-Early"] = "1"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	response, err := invokeLibrary(t, twice, newEvent("GET /", "/"))
	if err != nil || response.StatusCode != http.StatusInternalServerError ||
		response.Headers["X-Late"] != "1" {
		t.Errorf("bare library = %+v, %v, want the last status and the late header", response, err)
	}
}

func TestPanicIsAnswered500AndLogged(t *testing.T) {
	t.Parallel()

	for name, value := range map[string]any{
		"string": "boom", "error": io.ErrUnexpectedEOF, "abort": http.ErrAbortHandler, "nil": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/again" {
					return
				}
				w.Header().Set("X-Half", "1")
				_, _ = io.WriteString(w, "half an answer, with a secret")
				panic(value)
			})
			var log bytes.Buffer
			fn := New(h, slog.New(slog.NewJSONHandler(&log, nil)))

			got, err := fn(t.Context(), newEvent("GET /", "/"))
			if err != nil {
				t.Fatalf("error = %v, want none", err)
			}
			wantHeaders := map[string]string{
				"Content-Type": "application/problem+json", "X-Request-Id": "request-1",
				"Cache-Control": "no-store",
			}
			diff := cmp.Diff(wantHeaders, got.Headers)
			if diff != "" || got.StatusCode != http.StatusInternalServerError {
				t.Errorf("status %d, headers (-want +got):\n%s", got.StatusCode, diff)
			}
			var document map[string]any
			if err := json.Unmarshal([]byte(got.Body), &document); err != nil {
				t.Fatalf("body %q: %v", got.Body, err)
			}
			const sentence = "Something went wrong on our side."
			want := map[string]any{
				"type": "urn:allo:problem:INTERNAL", "title": "Internal server error", "status": 500.0,
				"detail": sentence, "code": "INTERNAL", "error": sentence, "requestId": "request-1",
			}
			if diff := cmp.Diff(want, document); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
			if !strings.Contains(log.String(), "lambdahttp_test.go") ||
				!strings.Contains(log.String(), "request-1") {
				t.Errorf("log = %s, want the stack and the request id", log.String())
			}
			again, err := fn(t.Context(), newEvent("GET /again", "/again"))
			if err != nil || again.StatusCode != http.StatusOK {
				t.Errorf("the next request = %+v, %v, want 200", again, err)
			}
			bare := func() { _, _ = invokeLibrary(t, h, newEvent("GET /", "/")) }
			if panicOf(bare) == nil {
				t.Error("the bare library no longer lets a panic escape")
			}
		})
	}
}

// panicOf returns what f panicked with. A panic(nil) counts: the runtime turns it into an error.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestInvalidStatusIsAnswered500(t *testing.T) {
	t.Parallel()

	for _, status := range []int{-1, 0, 99, 101, 600, 1000} {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		got := invokeAdapter(t, h, newEvent("GET /", "/")).StatusCode
		if got != http.StatusInternalServerError {
			t.Errorf("WriteHeader(%d) answered %d, want 500", status, got)
		}
	}
}

func TestAnswerOverTheLimitIs500(t *testing.T) {
	t.Parallel()

	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, MaxBody+1))
	})
	got := invokeAdapter(t, h, newEvent("GET /", "/"))

	if got.StatusCode != http.StatusInternalServerError ||
		!strings.Contains(got.Body, `"code":"INTERNAL"`) {
		t.Errorf("response = %d %.100q, want a 500 problem", got.StatusCode, got.Body)
	}
}

// Lambda's runtime sends an answer as JSON, in which a byte of text may take six.
func TestEveryAnswerUpToTheLimitFitsLambda(t *testing.T) {
	t.Parallel()

	const lambdaLimit = 6_291_556
	for _, text := range []string{"a", `"`, "<", "\x01", "\u2028", "\xff"} {
		for _, size := range []int{maxPlain, maxPlain + 1, MaxBody} {
			body := []byte(strings.Repeat(text, size/len(text)))
			h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(body)
			})
			got := invokeAdapter(t, h, newEvent("GET /", "/"))
			sent, err := json.Marshal(got)
			if err != nil || got.StatusCode != http.StatusOK || len(sent) > lambdaLimit {
				t.Errorf("%d bytes of %q are answered %d in %d bytes, %v, want 200 in at most %d",
					len(body), text, got.StatusCode, len(sent), err, lambdaLimit)
			}
			back := []byte(got.Body)
			if got.IsBase64Encoded {
				if back, err = base64.StdEncoding.DecodeString(got.Body); err != nil {
					t.Error(err)
				}
			}
			if !bytes.Equal(back, body) {
				t.Errorf("%d bytes of %q don't reach the caller", len(body), text)
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()

	tests := map[string]struct{ sourceIP, host, domain, wantAddr, wantHost string }{
		"IPv4":           {"192.0.2.7", "shop.example:8080", "x.example", "192.0.2.7:0", "shop.example:8080"},
		"IPv6":           {"2001:db8::1", "[::1]:80", "x.example", "[2001:db8::1]:0", "[::1]:80"},
		"none":           {"", "", "", "0.0.0.0:0", ""},
		"not an address": {"192.0.2.1:443", "", "x.example", "0.0.0.0:0", "x.example"},
		"bad domain":     {"192.0.2.7", "", "a b/c", "192.0.2.7:0", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := newEvent("GET /", "/")
			event.RequestContext.HTTP.SourceIP = tt.sourceIP
			event.RequestContext.DomainName = tt.domain
			event.Headers = map[string]string{"Host": tt.host}

			got := decodeSeen(t, invokeAdapter(t, newMux(), event))

			if got.RemoteAddr != tt.wantAddr || got.Host != tt.wantHost || len(got.Header) != 0 {
				t.Errorf("RemoteAddr, Host, Header = %q, %q, %v, want %q, %q, none",
					got.RemoteAddr, got.Host, got.Header, tt.wantAddr, tt.wantHost)
			}
			if _, _, err := net.SplitHostPort(got.RemoteAddr); err != nil {
				t.Errorf("SplitHostPort(%q): %v", got.RemoteAddr, err)
			}
		})
	}
	response, err := invokeLibrary(t, newMux(), newEvent("GET /", "/"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := net.SplitHostPort(decodeSeen(t, response).RemoteAddr); err == nil {
		t.Error("the bare library's RemoteAddr has a port now")
	}
}

func TestRequestBody(t *testing.T) {
	t.Parallel()

	binary := "\x00\xff\x80 body"
	tests := map[string]struct {
		body    string
		encoded bool
		want    string
	}{
		"text":    {`{"a":1}`, false, `{"a":1}`},
		"base64":  {base64.StdEncoding.EncodeToString([]byte(binary)), true, binary},
		"empty":   {"", true, ""},
		"literal": {"eA==", false, "eA=="},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := newEvent("POST /", "/")
			event.RequestContext.HTTP.Method = http.MethodPost
			event.Body, event.IsBase64Encoded = tt.body, tt.encoded
			var got []byte
			var length int64
			response := invokeAdapter(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got, _ = io.ReadAll(r.Body)
				length = r.ContentLength
			}), event)

			if response.StatusCode != http.StatusOK || string(got) != tt.want ||
				length != int64(len(tt.want)) {
				t.Errorf("status, body, length = %d, %q, %d, want 200, %q, %d",
					response.StatusCode, got, length, tt.want, len(tt.want))
			}
		})
	}
}

func TestMalformedEventIsAnswered400(t *testing.T) {
	t.Parallel()

	type event = events.APIGatewayV2HTTPRequest
	tests := map[string]struct {
		spoil func(*event)
		// bareFails is true when the bare library fails. Otherwise the handler gets the request.
		bareFails bool
	}{
		"base64":              {func(e *event) { e.Body, e.IsBase64Encoded = "%%%", true }, true},
		"method with a space": {func(e *event) { e.RequestContext.HTTP.Method = "GE T" }, true},
		"method with newline": {func(e *event) { e.RequestContext.HTTP.Method = "GET\n" }, true},
		"no method at all":    {func(e *event) { e.RequestContext.HTTP.Method, e.RouteKey = "", "$default" }, false},
		"any method":          {func(e *event) { e.RequestContext.HTTP.Method, e.RouteKey = "", "ANY /" }, false},
		"header name":         {func(e *event) { e.Headers["a b"] = "1" }, false},
		"empty header name":   {func(e *event) { e.Headers[""] = "1" }, false},
		"header name bytes":   {func(e *event) { e.Headers["\xff"] = "1" }, false},
		"newline in header":   {func(e *event) { e.Headers["x-a"] = "1\r\nx-b: 2" }, false},
		"NUL in header":       {func(e *event) { e.Headers["x-a"] = "\x00" }, false},
		"newline in cookie":   {func(e *event) { e.Cookies = []string{"a=1\n"} }, false},
		"host":                {func(e *event) { e.Headers["host"] = "a b" }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			e := newEvent("GET /", "/")
			tt.spoil(&e)
			got := invokeAdapter(t, newMux(), e)

			if got.StatusCode != http.StatusBadRequest ||
				got.Headers["Content-Type"] != "application/problem+json" ||
				!strings.Contains(got.Body, `"code":"MALFORMED_REQUEST"`) ||
				!strings.Contains(got.Body, `"requestId":"request-1"`) {
				t.Errorf("response = %+v, want a 400 problem", got)
			}
			if _, err := invokeLibrary(t, newMux(), e); (err != nil) != tt.bareFails {
				t.Errorf("bare library error = %v, want one: %v", err, tt.bareFails)
			}
		})
	}
}

func TestUnusualButValidRequestsReachTheHandler(t *testing.T) {
	t.Parallel()

	type event = events.APIGatewayV2HTTPRequest
	tests := map[string]struct {
		change      func(*event)
		method      string
		query       map[string][]string
		bareIsRight bool
	}{
		"unknown method":      {func(e *event) { e.RequestContext.HTTP.Method = "PURGE" }, "PURGE", nil, true},
		"lower-case method":   {func(e *event) { e.RequestContext.HTTP.Method = "get" }, "get", nil, false},
		"method of the route": {func(e *event) { e.RequestContext.HTTP.Method = ""; e.RouteKey = "PUT /" }, "PUT", nil, false},
		"duplicates":          {func(e *event) { e.RawQueryString = "a=1&a=2" }, "GET", map[string][]string{"a": {"1", "2"}}, true},
		"malformed escape":    {func(e *event) { e.RawQueryString = "a=%zz&b=2" }, "GET", map[string][]string{"b": {"2"}}, true},
		"hash in query":       {func(e *event) { e.RawQueryString = "a=1#2&b=3" }, "GET", map[string][]string{"a": {"1#2"}, "b": {"3"}}, false},
		"newline in query":    {func(e *event) { e.RawQueryString = "a=1\n2" }, "GET", map[string][]string{"a": {"1\n2"}}, false},
		"space in query":      {func(e *event) { e.RawQueryString = "a=1 2" }, "GET", map[string][]string{"a": {"1 2"}}, true},
		"parameters only":     {func(e *event) { e.QueryStringParameters = map[string]string{"a": "1&2"} }, "GET", map[string][]string{"a": {"1&2"}}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			e := newEvent("GET /", "/")
			tt.change(&e)
			if tt.query == nil {
				tt.query = map[string][]string{}
			}
			got := decodeSeen(t, invokeAdapter(t, newMux(), e))

			if diff := cmp.Diff(tt.query, got.Query); diff != "" || got.Method != tt.method {
				t.Errorf("method = %q, want %q; query (-want +got):\n%s", got.Method, tt.method, diff)
			}
			if strings.ContainsAny(got.RequestURI, " \n#") {
				t.Errorf("RequestURI = %q, want one that fits a request line", got.RequestURI)
			}
			response, err := invokeLibrary(t, newMux(), e)
			right := err == nil && cmp.Equal(tt.query, decodeSeen(t, response).Query) &&
				decodeSeen(t, response).Method == tt.method
			if right != tt.bareIsRight {
				t.Errorf("bare library right = %v, want %v (%v)", right, tt.bareIsRight, err)
			}
		})
	}
}

func TestResponseBodyAndType(t *testing.T) {
	t.Parallel()

	png := "\x89PNG\r\n\x1a\n"
	packed := "\x1f\x8b\b\x00" // the beginning of every gzip
	inBase64 := base64.StdEncoding.EncodeToString([]byte(packed))
	tests := map[string]struct {
		method, contentType, body string
		status                    int
		want                      events.APIGatewayV2HTTPResponse
	}{
		"JSON without a type": {"GET", "", `{"a":1}`, 200, answer(200, "application/json", `{"a":1}`, false)},
		"array":               {"GET", "", ` [1] `, 200, answer(200, "application/json", ` [1] `, false)},
		"almost JSON":         {"GET", "", `{"a":`, 200, answer(200, "text/plain; charset=utf-8", `{"a":`, false)},
		"typed":               {"GET", "text/css", "a{}", 200, answer(200, "text/css", "a{}", false)},
		"binary":              {"GET", "", png, 200, answer(200, "image/png", base64.StdEncoding.EncodeToString([]byte(png)), true)},
		"compressed":          {"GET", "application/json", packed, 200, answer(200, "application/json", inBase64, true)},
		"compressed for HEAD": {"HEAD", "application/json", packed, 200, answer(200, "application/json", inBase64, true)},
		"not modified":        {"GET", "", packed, 304, answer(304, "", "", false)},
		"empty":               {"GET", "", "", 202, answer(202, "", "", false)},
		"no content":          {"GET", "", "body", 204, answer(204, "", "", false)},
		"HEAD":                {"HEAD", "", `{"a":1}`, 200, answer(200, "application/json", `{"a":1}`, false)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := newEvent("GET /", "/")
			event.RequestContext.HTTP.Method = tt.method
			got := answerWithoutID(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.contentType != "" {
					w.Header().Set("Content-Type", tt.contentType)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}), event)

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("response (-want +got):\n%s", diff)
			}
		})
	}
	untyped := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"a":1}`)
	})
	bare, err := invokeLibrary(t, untyped, newEvent("GET /", "/"))
	if err != nil || bare.Headers["Content-Type"] != "text/plain; charset=utf-8" {
		t.Errorf("bare library = %+v, %v, want JSON called text/plain", bare, err)
	}
}

func answer(status int, contentType, body string, encoded bool) events.APIGatewayV2HTTPResponse {
	headers := map[string]string{}
	if contentType != "" {
		headers["Content-Type"] = contentType
	}
	return events.APIGatewayV2HTTPResponse{
		StatusCode: status, Headers: headers, Body: body, IsBase64Encoded: encoded, Cookies: []string{},
	}
}

func TestResponseHeaders(t *testing.T) {
	t.Parallel()

	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Vary", "Accept")
		w.Header().Add("Vary", "Origin")
		w.Header().Add("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("X-Split", "a\r\nX-Injected: 1\x00")
		w.Header().Set("X-Bytes", "\xff")
		w.Header()["bad name"] = []string{"1"}
		w.Header()["content-length"] = []string{"12345"}
		w.Header().Set("Transfer-Encoding", "chunked")
	})
	got := answerWithoutID(t, h, newEvent("GET /", "/"))

	want := events.APIGatewayV2HTTPResponse{
		StatusCode: http.StatusOK,
		Headers: map[string]string{
			"Vary": "Accept,Origin", "X-Split": "a  X-Injected: 1", "X-Bytes": "\uFFFD",
		},
		Cookies: []string{"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	bare, err := invokeLibrary(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(w, r)
		w.WriteHeader(http.StatusOK)
	}), newEvent("GET /", "/"))
	if err != nil || !slices.Contains(slices.Collect(maps.Keys(bare.Headers)), "bad name") ||
		!strings.Contains(bare.Headers["X-Split"], "\n") {
		t.Errorf("bare library = %+v, %v, want bad headers passed on", bare, err)
	}
}

func TestContextEndsBeforeTheLambda(t *testing.T) {
	t.Parallel()

	deadline := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	var got time.Time
	var inner context.Context
	_, err := New(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = r.Context().Deadline()
		inner = r.Context()
	}), slog.New(slog.DiscardHandler))(ctx, newEvent("GET /", "/"))

	if err != nil || !got.Equal(deadline.Add(-deadlineMargin)) {
		t.Errorf("deadline = %v, %v, want %v", got, err, deadline.Add(-deadlineMargin))
	}
	if inner.Err() == nil {
		t.Error("the request's context is alive after the answer")
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()

	lc := &lambdacontext.LambdaContext{AwsRequestID: "lambda-1"}
	inLambda := lambdacontext.NewContext(t.Context(), lc)
	tests := map[string]struct {
		ctx     context.Context
		gateway string
		want    string
	}{
		"the gateway's":  {inLambda, "gateway-1", "gateway-1"},
		"the Lambda's":   {inLambda, "", "lambda-1"},
		"a fresh one":    {t.Context(), "", ""},
		"not the header": {t.Context(), "gateway-2", "gateway-2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := newEvent("GET /", "/")
			event.RequestContext.RequestID = tt.gateway
			event.Headers["x-request-id"] = "forged"
			var got string
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = RequestID(r.Context())
			})
			if _, err := New(h, slog.New(slog.DiscardHandler))(tt.ctx, event); err != nil {
				t.Fatal(err)
			}

			if tt.want == "" && len(got) == 36 {
				return
			}
			if got != tt.want {
				t.Errorf("RequestID = %q, want %q", got, tt.want)
			}
		})
	}
	if got := RequestID(t.Context()); got != "" {
		t.Errorf("RequestID outside a request = %q, want none", got)
	}
}

func TestFailingLibraryIsAnswered500(t *testing.T) {
	// Not parallel: the library reads this variable for every event.
	t.Setenv("GO_API_HOST", "http://[broken")
	got := invokeAdapter(t, newMux(), newEvent("GET /", "/"))

	if got.StatusCode != http.StatusInternalServerError ||
		!strings.Contains(got.Body, `"code":"INTERNAL"`) {
		t.Errorf("response = %+v, want a 500 problem", got)
	}
}
