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

// Handler serves the pages, their files and the document. It uses no ServeMux, which would answer
// an address like //ops with a redirect.
func Handler() http.Handler {
	document, pages := openapi.Handler(), webui.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/openapi.json" {
			document.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// Lambda returns the web function's handler for lambda.Start.
func Lambda() fault.Handler {
	c, log := config.Start(false)
	return fault.Count("web", lambdahttp.New(Handler(), log), emf.New(os.Stdout, c.MetricNamespace))
}
