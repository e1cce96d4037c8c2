package local

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// FuzzGateway sends every request that net/http can read through the gateway, the event and the
// adapter to a handler. No request may cause a 5xx.
func FuzzGateway(f *testing.F) {
	f.Add("GET", "/", "a=1&a=%zz", "Cookie", "a=1; b", "")
	f.Add("POST", "/api/reservations", "", "Content-Type", "application/json", `{"quantity":1}`)
	f.Add("POST", "/api/reservations/%2e%2e/confirm", "#", "Idempotency-Key", "a,b", "\xff\x00")
	f.Add("GET", "/api/reservations/50%25", ";", "X-Forwarded-For", "\x7f", "")
	f.Add("GET", "/assets/a//b/%2F/../c", "%", "Connection", "host, x-forwarded-for", "x")
	f.Add("CONNECT", "example.com:80", "", "Host", "a b", "")
	f.Add("HEAD", "*", "", "Transfer-Encoding", "chunked", "")

	gateway := newGateway(f, Handler(lambdahttp.New(newEchoMux(), quiet)))
	f.Fuzz(func(t *testing.T, method, path, query, header, value, body string) {
		raw := rawRequest(method, path+"?"+query, header, value, body)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			t.Skip()
		}
		r.RemoteAddr = "127.0.0.1:40000"
		w := httptest.NewRecorder()

		gateway.ServeHTTP(w, r)

		if w.Code >= 500 {
			t.Errorf("%q answered %d %s", raw, w.Code, w.Body)
		}
	})
}

// FuzzAuthorization holds that no Authorization header and no X-Amz-Date passes an authorizer. The
// fuzzer has neither a token nor the credential.
func FuzzAuthorization(f *testing.F) {
	i := newTestIssuer(f)
	id := i.Key().KeyID
	f.Add("Bearer a.b.c", "")
	f.Add("Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6Ijk5In0.e30.AAAA", "20261128T000000Z")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"`+id+`"}`))+".e30.", "")
	f.Add("AWS4-HMAC-SHA256 Credential=AKIATEST/20261128/us-east-1/execute-api/aws4_request, "+
		"SignedHeaders=host;x-amz-date, Signature=00", time.Now().UTC().Format(signedDate))
	f.Add("AWS4-HMAC-SHA256 Credential=,=,", "0")

	jwt, _ := guarded(f, i)
	iam, _ := guardedByIAM(f)
	f.Fuzz(func(t *testing.T, authorization, date string) {
		for status, g := range map[int]*Gateway{
			http.StatusUnauthorized: jwt, http.StatusForbidden: iam,
		} {
			r := httptest.NewRequest("POST", confirmPath, nil)
			r.Header.Set("Authorization", authorization)
			r.Header.Set("X-Amz-Date", date)
			w := httptest.NewRecorder()

			g.ServeHTTP(w, r)

			if w.Code != status {
				t.Errorf("%q, %q: %d %s, want %d", authorization, date, w.Code, w.Body, status)
			}
		}
	})
}

// rawRequest returns a request as a client would send it, with one header of the caller's choice.
func rawRequest(method, target, header, value, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop.example\r\n", method, target) +
		fmt.Sprintf("%s: %s\r\nContent-Length: %d\r\n\r\n%s", header, value, len(body), body)
}

// newEchoMux routes as the service does and echoes the request.
func newEchoMux() *http.ServeMux {
	echo := func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			w.Header()[name] = values
		}
		w.Header().Set("X-Id", r.PathValue("id")+r.PathValue("proxy"))
		_, _ = io.Copy(w, r.Body)
	}
	mux := http.NewServeMux()
	for _, pattern := range []string{
		"GET /{$}", "POST /api/reservations", "GET /api/reservations/{id}",
		"POST /api/reservations/{id}/confirm",
		"GET /assets/{proxy...}", "/any/{proxy...}",
	} {
		mux.HandleFunc(pattern, echo)
	}
	return mux
}

// FuzzDirectCall holds that a function in this process gets the event that JSON would bring it, and
// that the gateway gets the response that JSON would bring back, for every request that net/http
// reads and every answer that a function can give.
func FuzzDirectCall(f *testing.F) {
	f.Add("POST", "/a/%ff?a=1&a=2", "Cookie", "a=1; b\xff", "{}",
		201, "X-A", "1", "a=1", "body", false)
	f.Add("GET", "/any/x", "X-\x80", "<&>\u2028", "",
		199, "Content-Type", "\xff", "\xfe", "/w==", true)
	f.Add("HEAD", "/", "User-Agent", "é", "\xff", 600, "\xff", "", "", "%", true)

	f.Fuzz(func(t *testing.T, method, target, header, value, body string,
		status int, name, text, cookie, answer string, isBase64 bool,
	) {
		raw := rawRequest(method, target, header, value, body)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			t.Skip()
		}
		matched := route.Route{Method: method, Path: "/a/{id}"}
		params := map[string]string{"id": r.URL.Path}
		sent := newEvent(r, matched, params, []byte(body), "id", time.Now())
		want := events.APIGatewayV2HTTPResponse{
			StatusCode: status, Headers: map[string]string{name: text}, Cookies: []string{cookie},
			Body: answer, IsBase64Encoded: isBase64,
		}
		var got []events.APIGatewayV2HTTPRequest
		fn := httpHandler(func(
			_ context.Context, e events.APIGatewayV2HTTPRequest,
		) (events.APIGatewayV2HTTPResponse, error) {
			got = append(got, e)
			return want, nil
		})

		direct, directErr := respond(t.Context(), fn, sent)
		byJSON, jsonErr := respondJSON(t.Context(), fn, sent)

		if diff := cmp.Diff(got[1], got[0]); diff != "" {
			t.Errorf("%q: event (-by JSON +direct):\n%s", raw, diff)
		}
		diff := cmp.Diff(byJSON, direct, cmp.AllowUnexported(response{}))
		if diff != "" || fmt.Sprint(directErr) != fmt.Sprint(jsonErr) {
			t.Errorf("%+v: errors %v and %v, response (-by JSON +direct):\n%s",
				want, jsonErr, directErr, diff)
		}
	})
}
