package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// function is an Invoker made of a func.
type function func(ctx context.Context, payload []byte) ([]byte, error)

func (f function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	return f(ctx, payload)
}

// answering returns a function that always returns the same payload.
func answering(payload string) Invoker {
	return function(func(context.Context, []byte) ([]byte, error) { return []byte(payload), nil })
}

var quiet = slog.New(slog.DiscardHandler)

// newGateway routes all of route.All, and two routes of its own, to fn.
func newGateway(t testing.TB, fn Invoker) *Gateway {
	t.Helper()
	routes := append(route.All(), route.Route{Function: "any", Method: "GET", Path: "/any/{proxy+}"},
		route.Route{Function: "any", Method: "HEAD", Path: "/any/{proxy+}"})
	functions := map[string]Invoker{}
	for _, r := range routes {
		functions[r.Function] = fn
	}
	g, err := NewGateway(routes, functions, quiet)
	if err != nil {
		t.Fatalf("NewGateway: %v", err)
	}
	return g
}

// eventOf sends a request through a gateway and returns the event that the function got.
func eventOf(t *testing.T, r *http.Request) event {
	t.Helper()
	var got event
	g := newGateway(t, function(func(_ context.Context, payload []byte) ([]byte, error) {
		return []byte(`{"statusCode":204}`), json.Unmarshal(payload, &got)
	}))
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Code != http.StatusNoContent {
		t.Fatalf("%s %s answered %d %s, want the function's 204", r.Method, r.URL, w.Code, w.Body)
	}
	return got
}

func TestEventEqualsAWSs(t *testing.T) {
	t.Parallel()

	const target = "/api/reservations/a%2Fb%25/extend?a=1&a=2&b=x%20y&c"
	r := httptest.NewRequest("POST", target, strings.NewReader(`{"ttlSeconds":60}`))
	r.Host = "abc.shop.example:8080"
	r.RemoteAddr = "192.0.2.7:50000"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "curl/8")
	r.Header.Set("Idempotency-Key", "key,1")
	r.Header.Add("X-Twice", "1")
	r.Header.Add("X-Twice", "2")
	r.Header.Add("Cookie", "a=1; b=2")
	r.Header.Add("Cookie", "c=3")
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	r.Header.Set("X-Forwarded-Proto", "gopher")
	r.Header.Set("Connection", "keep-alive, X-Hop")
	r.Header.Set("X-Hop", "1")
	r.Header.Set("Te", "trailers")
	before := time.Now()
	var payload []byte
	g := newGateway(t, function(func(_ context.Context, p []byte) ([]byte, error) {
		payload = p
		return []byte(`{"statusCode":204}`), nil
	}))
	w := httptest.NewRecorder()

	g.ServeHTTP(w, r)

	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	headers, requestContext := got["headers"].(map[string]any), got["requestContext"].(map[string]any)
	normalize(t, headers, "x-amzn-trace-id", `^Root=1-[0-9a-f]{8}-[0-9a-f]{24}$`)
	id := w.Header().Get("Apigw-Requestid")
	normalize(t, requestContext, "requestId", "^"+regexp.QuoteMeta(id)+"$")
	normalize(t, requestContext, "time", `^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000$`)
	if epoch := requestContext["timeEpoch"].(float64); epoch < float64(before.UnixMilli()) {
		t.Errorf("timeEpoch = %v, want milliseconds of now", epoch)
	}
	requestContext["timeEpoch"] = 0
	encoded, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/event.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(encoded)); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// normalize checks a field whose value differs from run to run and replaces the value by the name.
func normalize(t *testing.T, fields map[string]any, name, pattern string) {
	t.Helper()
	if value, _ := fields[name].(string); !regexp.MustCompile(pattern).MatchString(value) {
		t.Errorf("%s = %q, want a match of %s", name, value, pattern)
	}
	fields[name] = name
}

func TestRouting(t *testing.T) {
	t.Parallel()

	tests := []struct {
		method, path string
		wantKey      string // "" is the gateway's 404
		wantParams   map[string]string
	}{
		{"GET", "/", "GET /", nil},
		{"GET", "/api/products", "GET /api/products", nil},
		{"GET", "/api/%70roducts", "GET /api/products", nil},
		{"GET", "/api/products/", "GET /{proxy+}", map[string]string{"proxy": "api/products/"}},
		{"GET", "//api/products", "GET /{proxy+}", map[string]string{"proxy": "/api/products"}},
		{"POST", "/api/products", "", nil},
		{"HEAD", "/", "HEAD /", nil},
		{"HEAD", "/api/products", "HEAD /api/products", nil},
		{"HEAD", "/nothing", "HEAD /{proxy+}", map[string]string{"proxy": "nothing"}},
		{"OPTIONS", "/api/products", "", nil},
		{"get", "/api/products", "", nil},
		{"GET", "/api/reservations/", "GET /{proxy+}", map[string]string{"proxy": "api/reservations/"}},
		{"GET", "/api/reservations/7", "GET /api/reservations/{id}", map[string]string{"id": "7"}},
		{"GET", "/api/reservations/a%2Fb", "GET /api/reservations/{id}", map[string]string{"id": "a/b"}},
		{"GET", "/api/reservations/a/b", "GET /{proxy+}", map[string]string{"proxy": "api/reservations/a/b"}},
		{"GET", "/api/reservations/%25", "GET /api/reservations/{id}", map[string]string{"id": "%"}},
		{"GET", "/api/reservations/%ff", "GET /api/reservations/{id}", map[string]string{"id": "\uFFFD"}},
		{"POST", "/api/reservations/7/confirm", "POST /api/reservations/{id}/confirm", map[string]string{"id": "7"}},
		{"GET", "/api/reservations/7/confirm", "GET /{proxy+}", map[string]string{"proxy": "api/reservations/7/confirm"}},
		{"POST", "/api/reservations//confirm", "", nil},
		{"GET", "/assets/css/a.css", "GET /{proxy+}", map[string]string{"proxy": "assets/css/a.css"}},
		{"GET", "/nothing", "GET /{proxy+}", map[string]string{"proxy": "nothing"}},
		{"POST", "/nothing", "", nil},
		{"GET", "/any/", "GET /{proxy+}", map[string]string{"proxy": "any/"}},
		{"HEAD", "/any/x", "HEAD /any/{proxy+}", map[string]string{"proxy": "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()

			var got event
			g := newGateway(t, function(func(_ context.Context, payload []byte) ([]byte, error) {
				return []byte(`{"statusCode":204}`), json.Unmarshal(payload, &got)
			}))
			w := httptest.NewRecorder()
			g.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))

			if tt.wantKey == "" {
				checkRefusal(t, w, http.StatusNotFound, `{"message":"Not Found"}`)
			}
			diff := cmp.Diff(tt.wantParams, got.PathParameters)
			if diff != "" || got.RouteKey != tt.wantKey || got.RequestContext.RouteKey != tt.wantKey {
				t.Errorf("routed to %q, want %q; parameters (-want +got):\n%s",
					got.RouteKey, tt.wantKey, diff)
			}
		})
	}
}

func checkRefusal(t *testing.T, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	contentType := w.Header().Get("Content-Type")
	if w.Code != status || w.Body.String() != body || contentType != "application/json" {
		t.Errorf("answer = %d %s %s, want %d %s as JSON", w.Code, contentType, w.Body, status, body)
	}
	if len(w.Header().Get("Apigw-Requestid")) != 16 {
		t.Errorf("Apigw-Requestid = %q, want 16 characters", w.Header().Get("Apigw-Requestid"))
	}
}

func TestMoreSpecificRouteWins(t *testing.T) {
	t.Parallel()

	table, err := newRouteTable([]route.Route{
		{Function: "greedy", Method: "GET", Path: "/{all+}"},
		{Function: "single", Method: "GET", Path: "/a/{id}"},
		{Function: "literal", Method: "GET", Path: "/a/b"},
		{Function: "deep", Method: "GET", Path: "/a/{id}/c"},
		{Function: "rest", Method: "GET", Path: "/a/{rest+}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/a/b": "literal", "/a/x": "single", "/a/b/c": "deep", "/a/b/d": "rest", "/a/x/c/d": "rest",
		"/b": "greedy", "/a": "greedy", "/": "",
	} {
		if got, _, _ := table.match("GET", path); got.Function != want {
			t.Errorf("match(%s) = %q, want %q", path, got.Function, want)
		}
	}
}

func TestNewGatewayRefusesTablesThatCantWork(t *testing.T) {
	t.Parallel()

	for name, routes := range map[string][]route.Route{
		"no function":       {{Function: "missing", Method: "GET", Path: "/a"}},
		"relative path":     {{Function: "f", Method: "GET", Path: "a"}},
		"greedy not last":   {{Function: "f", Method: "GET", Path: "/{a+}/b"}},
		"empty segment":     {{Function: "f", Method: "GET", Path: "/a//b"}},
		"half a parameter":  {{Function: "f", Method: "GET", Path: "/{a"}},
		"unnamed parameter": {{Function: "f", Method: "GET", Path: "/{}"}},
		"the same twice":    {{Function: "f", Method: "GET", Path: "/a/{b}"}, {Function: "f", Method: "GET", Path: "/a/{c}"}},
	} {
		if _, err := NewGateway(routes, map[string]Invoker{"f": answering(`{}`)}, quiet); err == nil {
			t.Errorf("%s: NewGateway took %v", name, routes)
		}
	}
}

func TestBodyIsEncodedAsTheGatewayDoes(t *testing.T) {
	t.Parallel()

	tests := []struct {
		contentType, body, want string
		encoded                 bool
	}{
		{"application/json", `{}`, `{}`, false},
		{"Application/JSON; charset=utf-8", `{}`, `{}`, false},
		{"application/xml", `<a/>`, `<a/>`, false},
		{"application/javascript", `1`, `1`, false},
		{"text/html", `é`, `é`, false},
		{"application/json", "\xff", "/w==", true},
		{"application/merge-patch+json", `{}`, "e30=", true},
		{"application/x-www-form-urlencoded", "a=1", "YT0x", true},
		{"application/octet-stream", "x", "eA==", true},
		{"", "x", "eA==", true},
		{"application/octet-stream", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.contentType+" "+tt.body, func(t *testing.T) {
			t.Parallel()

			r := httptest.NewRequest("POST", "/api/reservations", strings.NewReader(tt.body))
			if tt.contentType != "" {
				r.Header.Set("Content-Type", tt.contentType)
			}
			got := eventOf(t, r)

			if got.Body != tt.want || got.IsBase64Encoded != tt.encoded {
				t.Errorf("body = %q, %v, want %q, %v", got.Body, got.IsBase64Encoded, tt.want, tt.encoded)
			}
		})
	}
}

func TestQueryThatCantBeDecodedStays(t *testing.T) {
	t.Parallel()

	got := eventOf(t, httptest.NewRequest("GET", "/api/products?a=%zz&&b=1;c=2&%41=%2C&=v", nil))

	want := map[string]string{"a": "%zz", "b": "1;c=2", "A": ",", "": "v"}
	if diff := cmp.Diff(want, got.QueryStringParameters); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

func TestBodyOverTheQuotaIs413(t *testing.T) {
	t.Parallel()

	var size int
	g := newGateway(t, function(func(_ context.Context, payload []byte) ([]byte, error) {
		var e event
		err := json.Unmarshal(payload, &e)
		size = len(e.Body)
		return []byte(`{"statusCode":204}`), err
	}))
	post := func(n int) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		body := bytes.NewReader(bytes.Repeat([]byte("x"), n))
		r := httptest.NewRequest("POST", "/api/reservations", body)
		r.Header.Set("Content-Type", "text/plain")
		g.ServeHTTP(w, r)
		return w
	}

	if w := post(maxRequestBody); w.Code != http.StatusNoContent || size != maxRequestBody {
		t.Errorf("a body of the quota: %d, %d bytes, want 204, %d", w.Code, size, maxRequestBody)
	}
	checkRefusal(t, post(maxRequestBody+1), http.StatusRequestEntityTooLarge,
		`{"message":"Request Entity Too Large"}`)
}

func TestUnreadableBodyIs400(t *testing.T) {
	t.Parallel()

	w := httptest.NewRecorder()
	body := io.MultiReader(strings.NewReader("{"), brokenReader{})
	r := httptest.NewRequest("POST", "/api/reservations", body)
	newGateway(t, answering(`{}`)).ServeHTTP(w, r)

	checkRefusal(t, w, http.StatusBadRequest, `{"message":"Bad Request"}`)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestFailedInvocationIs500(t *testing.T) {
	t.Parallel()

	for name, fn := range map[string]Invoker{
		"error":           function(func(context.Context, []byte) ([]byte, error) { return nil, errors.New("secret") }),
		"panic":           function(func(context.Context, []byte) ([]byte, error) { panic("secret") }),
		"not JSON":        answering(`secret`),
		"nothing":         answering(``),
		"status of 0":     answering(`{"statusCode":0}`),
		"status of 199":   answering(`{"statusCode":199}`),
		"status of 600":   answering(`{"statusCode":600}`),
		"status in words": answering(`{"statusCode":"ok"}`),
		"null status":     answering(`{"statusCode":null}`),
		"body not text":   answering(`{"statusCode":200,"body":{"a":1}}`),
		"header of lists": answering(`{"statusCode":200,"headers":{"a":["b"]}}`),
		"bad base64":      answering(`{"statusCode":200,"body":"%","isBase64Encoded":true}`),
		"bad cookies":     answering(`{"statusCode":200,"cookies":"a=1"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := httptest.NewRecorder()
			newGateway(t, fn).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))

			checkRefusal(t, w, http.StatusInternalServerError, `{"message":"Internal Server Error"}`)
		})
	}
}

func TestFunctionWhoseProcessIsGoneIs503(t *testing.T) {
	t.Parallel()

	for _, kind := range []string{exitError, timedOut} {
		w := httptest.NewRecorder()
		gone := function(func(context.Context, []byte) ([]byte, error) {
			return nil, &FunctionError{Type: kind, Message: "secret"}
		})
		newGateway(t, gone).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))

		checkRefusal(t, w, http.StatusServiceUnavailable, `{"message":"Service Unavailable"}`)
		if after := w.Header().Get("Retry-After"); after != "1" {
			t.Errorf("%s: Retry-After = %q, want 1", kind, after)
		}
	}
}

func TestFunctionOverTheIntegrationLimitIs503(t *testing.T) {
	t.Parallel()

	for name, minds := range map[string]bool{"heeds its context": true, "ignores its context": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				g := newGateway(t, function(func(ctx context.Context, _ []byte) ([]byte, error) {
					if !minds {
						<-release
					}
					<-ctx.Done()
					return nil, fmt.Errorf("function: %w", ctx.Err())
				}))
				w := httptest.NewRecorder()
				start := time.Now()

				g.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))

				checkRefusal(t, w, http.StatusServiceUnavailable, `{"message":"Service Unavailable"}`)
				if waited := time.Since(start); waited != integrationLimit {
					t.Errorf("answered after %v, want %v", waited, integrationLimit)
				}
			})
		})
	}
}

func TestFunctionRunsOnWhenTheCallerHangsUp(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	g := newGateway(t, function(func(ctx context.Context, _ []byte) ([]byte, error) {
		cancel()
		return []byte(`{"statusCode":204}`), ctx.Err()
	}))
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))

	if w.Code != http.StatusNoContent {
		t.Errorf("answer = %d %s, want the function's 204", w.Code, w.Body)
	}
}

func TestAnswersAreDecoded(t *testing.T) {
	t.Parallel()

	const jsonType, plainType = "application/json", "text/plain; charset=utf-8"
	tests := map[string]struct {
		payload string
		status  int
		header  http.Header
		body    string
	}{
		"full": {
			`{"statusCode":201,"headers":{"content-type":"text/css","Location":"/x","x-n":7,"x-b":true},"multiValueHeaders":{"x-m":["1"]},"cookies":["a=1; Path=/","b=2"],"body":"a{}"}`,
			201,
			http.Header{
				"Content-Type": {"text/css"}, "Location": {"/x"}, "X-N": {"7"}, "X-B": {"true"},
				"Set-Cookie": {"a=1; Path=/", "b=2"},
			},
			"a{}",
		},
		"base64":               {`{"statusCode":200,"headers":{"Content-Type":"image/png"},"body":"/w==","isBase64Encoded":true}`, 200, http.Header{"Content-Type": {"image/png"}}, "\xff"},
		"no type":              {`{"statusCode":200,"body":"{}"}`, 200, http.Header{"Content-Type": {plainType}}, "{}"},
		"status only":          {`{"statusCode":404}`, 404, http.Header{}, ""},
		"status in quotes":     {`{"statusCode":"418"}`, 418, http.Header{}, ""},
		"nulls":                {`{"statusCode":200,"headers":null,"cookies":null,"body":null}`, 200, http.Header{}, ""},
		"framing headers":      {`{"statusCode":200,"headers":{"content-length":"99","connection":"close","apigw-requestid":"x"}}`, 200, http.Header{}, ""},
		"object, no status":    {`{"a":1}`, 200, http.Header{"Content-Type": {jsonType}}, `{"a":1}`},
		"array":                {`[1]`, 200, http.Header{"Content-Type": {jsonType}}, `[1]`},
		"string":               {`"hello \u00e9"`, 200, http.Header{"Content-Type": {jsonType}}, "hello é"},
		"null":                 {`null`, 200, http.Header{"Content-Type": {jsonType}}, "null"},
		"status in upper case": {`{"StatusCode":404}`, 200, http.Header{"Content-Type": {jsonType}}, `{"StatusCode":404}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := httptest.NewRecorder()
			newGateway(t, answering(tt.payload)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))

			header := w.Header().Clone()
			if len(header.Get("Apigw-Requestid")) != 16 || len(header["Apigw-Requestid"]) != 1 {
				t.Errorf("Apigw-Requestid = %q, want one of the gateway's", header["Apigw-Requestid"])
			}
			header.Del("Apigw-Requestid")
			diff := cmp.Diff(tt.header, header)
			if diff != "" || w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("answer = %d %q, want %d %q; headers (-want +got):\n%s",
					w.Code, w.Body, tt.status, tt.body, diff)
			}
		})
	}
}

func TestHeadHasTheHeadersOfGetAndNoBody(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("x", 100_000)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"1"`)
		_, _ = io.WriteString(w, long)
	})
	server := httptest.NewServer(newGateway(t, Handler(lambdahttp.New(page, quiet))))
	defer server.Close()

	response, err := http.Head(server.URL + "/any/x")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)

	if err != nil || len(body) > 0 || response.StatusCode != http.StatusOK ||
		response.ContentLength != int64(len(long)) || response.Header.Get("ETag") != `"1"` ||
		response.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("HEAD = %d %v, %d bytes, %v, want the headers of GET alone",
			response.StatusCode, response.Header, len(body), err)
	}
}

func TestServerHasTheGatewaysQuotas(t *testing.T) {
	t.Parallel()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer("", newGateway(t, answering(`{"statusCode":200,"body":"ok"}`)))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})

	// net/http lets 4 KB more than MaxHeaderBytes pass.
	const head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: "
	for size, want := range map[int]int{
		8_000: http.StatusOK, 20_000: http.StatusRequestHeaderFieldsTooLarge,
	} {
		request := head + strings.Repeat("a", size) + "\r\n\r\n"
		if got := rawStatus(t, listener.Addr(), request); got != want {
			t.Errorf("a header of %d bytes: %d, want %d", size, got, want)
		}
	}
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 ||
		server.WriteTimeout <= integrationLimit || server.IdleTimeout == 0 {
		t.Errorf("timeouts = %v %v %v %v, want all set", server.ReadHeaderTimeout, server.ReadTimeout,
			server.WriteTimeout, server.IdleTimeout)
	}
}

// rawStatus sends bytes and reads the status of the answer.
func rawStatus(t *testing.T, addr net.Addr, request string) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}
