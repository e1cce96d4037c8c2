// Package web wires the web function, which serves the pages and the API's document. It is apart
// from package app because it needs no database and so links no driver.
package web

import (
	"context"
	"net/http"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/httpapi/openapi"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/webui"
)

// Handler serves the pages, their files and the API's document.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/openapi.json", openapi.Handler())
	mux.Handle("/", webui.Handler())
	return mux
}

// Lambda returns the handler of the web function.
func Lambda() func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	_, log := config.Start(false)
	return lambdahttp.New(Handler(), log)
}
