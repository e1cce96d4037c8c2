package local

import (
	"log/slog"
	"net/http"

	"github.com/allo/reservations/internal/httpapi"
	"github.com/allo/reservations/internal/lambdahttp"
)

// LiveFunction is the function live, for a Live on the gateway's own host. A browser may know this
// machine by several names, so it answers with the one that the request came to.
func LiveFunction(log *slog.Logger) Invoker {
	return Handler(lambdahttp.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api := httpapi.New(nil, httpapi.Options{
			Log: log, RequestID: lambdahttp.RequestID, MaxBody: lambdahttp.MaxBody,
			Live: httpapi.Live{URL: "ws://" + r.Host + liveRealtimePath, Host: r.Host},
		})
		api.Function("live").ServeHTTP(w, r)
	}), log))
}
