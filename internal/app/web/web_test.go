package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/allo/reservations/internal/app/web"
	"github.com/allo/reservations/internal/config"
)

// The console asks for openid alone, unless the settings name scopes and an audience.
func TestThePagesLearnHowToSignIn(t *testing.T) {
	t.Parallel()

	own := config.Pages{OIDCIssuer: "https://id.example/", OIDCClientID: "c"}
	asking := own
	asking.OIDCScopes, asking.OIDCAudience = []string{"openid", "inventory:read"}, "shop"
	for want, pages := range map[string]config.Pages{
		`null`: {},
		`{"issuer":"https://id.example/","clientId":"c","scopes":["openid"]}`: own,
		`{"issuer":"https://id.example/","clientId":"c",` +
			`"scopes":["openid","inventory:read"],"audience":"shop"}`: asking,
	} {
		pages.Guarded = true
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/settings.json", nil)
		got := httptest.NewRecorder()
		web.Handler(config.Config{Pages: pages}).ServeHTTP(got, r)
		if body := `{"demo":false,"auth":true,"signIn":` + want + `}`; got.Body.String() != body {
			t.Errorf("GET /settings.json = %s, want %s", got.Body, body)
		}
	}
}
