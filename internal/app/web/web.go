// Package web builds the handler of the web function, which serves the pages and the OpenAPI
// document. It is apart from package app because it needs no database, and so links no driver.
package web

import (
	"net/http"
	"os"

	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi/openapi"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/webui"
)

// Handler serves the pages, their files, their settings and the document. It uses no ServeMux,
// which would answer an address like //ops with a redirect.
func Handler(c config.Config) http.Handler {
	document, pages := openapi.Handler(), webui.Handler(settings(c))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/openapi.json" {
			document.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// settings returns the settings of the pages. Unless they name scopes, the issuer is asked for
// openid alone: an issuer that knows the account's groups adds what the account may do.
func settings(c config.Config) webui.Settings {
	s := webui.Settings{
		Demo: c.Pages.Demo, Guarded: c.Pages.Guarded, TokenOrigin: c.Pages.OIDCTokenOrigin,
		LiveURL: c.LiveURL,
	}
	if c.Pages.OIDCIssuer != "" {
		s.SignIn = &webui.SignIn{
			Issuer: c.Pages.OIDCIssuer, ClientID: c.Pages.OIDCClientID,
			Scopes: c.Pages.OIDCScopes, Audience: c.Pages.OIDCAudience,
		}
		if len(s.SignIn.Scopes) == 0 {
			s.SignIn.Scopes = []string{"openid"}
		}
	}
	return s
}

// Lambda returns the web function's handler for lambda.Start.
func Lambda() fault.Handler {
	c, log := config.Start(false)
	handler := lambdahttp.New(Handler(c), log, lambdahttp.OnlyThroughCDN(c.OriginSecrets))
	return fault.Count("web", handler, emf.New(os.Stdout, c.MetricNamespace))
}
