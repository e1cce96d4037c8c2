package local

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/route"
)

// The functions of the gateway refuse who goes around the CDN. They need no database for that, and
// this one is out of reach.
func TestTheFunctionsServeOnlyTheCDN(t *testing.T) {
	t.Parallel()

	const (
		first  = "first0123456789abcdefABCDEF012345"
		second = "second0123456789abcdefABCDEF01234"
	)
	gateway := func(secrets ...string) *Gateway {
		f, err := InProcess(config.Config{
			DatabaseURL: "postgres://u@127.0.0.1:1/d?connect_timeout=1", OriginSecrets: secrets,
		}, 1, quiet)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		g, err := NewGateway(route.All(), f.HTTP, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	refuses := func(g *Gateway, method, path, secret string) bool {
		r := httptest.NewRequest(method, path, strings.NewReader(""))
		if secret != "" {
			r.Header.Set(lambdahttp.OriginHeader, secret)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Code == http.StatusForbidden && (method == http.MethodHead || // it has no body
			strings.Contains(w.Body.String(), lambdahttp.CodeNotThroughCDN))
	}
	closed, open := gateway(first, second), gateway()
	for _, r := range route.All() {
		path := strings.NewReplacer("{id}", "1", "{name}", "crm", "{proxy+}", "ops").Replace(r.Path)
		if !refuses(closed, r.Method, path, "") {
			t.Errorf("%s serves who goes around the CDN", r.Key())
		}
	}
	for _, path := range []string{"/", "/api/openapi.json", "/api/webhooks"} {
		for _, secret := range []string{first, second} {
			if refuses(closed, "GET", path, secret) {
				t.Errorf("GET %s refuses the CDN", path)
			}
		}
		if !refuses(closed, "GET", path, first+second) {
			t.Errorf("GET %s takes a wrong secret", path)
		}
		if refuses(open, "GET", path, "") {
			t.Errorf("GET %s refuses callers without a secret being set", path)
		}
	}
}
