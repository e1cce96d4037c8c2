// Package live builds the handler of the live function, which tells the pages where the live
// channel is. It is apart from package app because it opens no database.
package live

import (
	"os"

	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/lambdahttp"
)

// function is the name in the route table.
const function = "live"

// Lambda returns the handler for lambda.Start.
func Lambda() fault.Handler {
	c, log := config.Start(false)
	api := httpapi.New(nil, httpapi.Options{
		Log: log, RequestID: lambdahttp.RequestID, MaxBody: lambdahttp.MaxBody,
		Live: httpapi.LiveOf(c.LiveURL, c.LiveHTTP),
	})
	handler := lambdahttp.New(api.Function(function), log,
		lambdahttp.OnlyThroughCDN(c.OriginSecrets))
	return fault.Count(function, handler, emf.New(os.Stdout, c.MetricNamespace))
}
