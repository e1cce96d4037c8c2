// Package httpapi is the HTTP contract: strict decoding, one call of the reservation service, one table from errors to answers.
// It knows neither pgx nor Lambda, so the same handlers answer on a laptop and in the cloud.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
)

// RequestTimeout bounds a request. It is longer than Postgres lets a statement run (5 s) and shorter than the platform lets the
// function run (10 s), by more than the second that cancelling a statement may take, so that each limit is answered for by the one
// inside it.
const RequestTimeout = 7 * time.Second

// Options are what the handlers are told of their surroundings.
type Options struct {
	Log *slog.Logger
	// RequestID reads the platform's id of the request from its context. When it is nil or answers "", an id is made.
	RequestID func(context.Context) string
	// Observe is told what became of each request of a route, when it isn't nil.
	Observe func(Observation)
}

// API answers the routes of the reservation API.
type API struct {
	service *reservation.Service
	opts    Options
}

// New makes an API over a service.
func New(service *reservation.Service, opts Options) *API { return &API{service: service, opts: opts} }

// handler answers a request or says what kept it from doing so. It writes nothing when it returns an error.
type handler func(w *recorder, r *http.Request) error

// handlers names the handler of each route by its key.
func (a *API) handlers() map[string]handler {
	return map[string]handler{
		"GET /api/products":                   a.listProducts,
		"GET /api/warehouses":                 a.listWarehouses,
		"POST /api/reservations":              a.reserve,
		"GET /api/reservations":               a.listReservations,
		"GET /api/reservations/{id}":          a.getReservation,
		"POST /api/reservations/{id}/confirm": a.confirm,
		"POST /api/reservations/{id}/release": a.release,
		"POST /api/reservations/{id}/extend":  a.extend,
		"GET /api/stats":                      a.stats,
		"GET /api/health":                     a.health,
	}
}

// Function answers the routes of one Lambda function, as the table binds them. It panics on a function that has none, which a
// test of every function's main would find.
func (a *API) Function(name string) http.Handler {
	mux := http.NewServeMux()
	handlers := a.handlers()
	found := false
	for _, route := range route.API() {
		if route.Function == name {
			mux.Handle(route.Key(), a.wrap(route.Key(), handlers[route.Key()]))
			found = true
		}
	}
	if !found {
		panic("httpapi: no route belongs to the function " + name)
	}
	none := a.wrap("none", func(*recorder, *http.Request) error { return errNoRoute })
	mux.Handle("/", none)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would answer a path with empty or dot segments itself, with a redirect that isn't in the contract.
		if !isClean(r.URL.EscapedPath()) {
			none.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isClean reports whether ServeMux takes a path as it is. A slash at its end may stay.
func isClean(escaped string) bool {
	clean := path.Clean("/" + escaped)
	return escaped == clean || clean != "/" && escaped == clean+"/"
}

// wrap gives a handler its request id, its deadline, its line in the log and its way to fail.
func (a *API) wrap(routeKey string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := a.requestID(r.Context())
		ctx, cancel := context.WithTimeout(r.Context(), RequestTimeout)
		defer cancel()

		answer := &recorder{ResponseWriter: w}
		answer.Header().Set("X-Request-Id", id)
		answer.Header().Set("Cache-Control", "no-store")
		answer.Header().Set("X-Content-Type-Options", "nosniff")
		err := recovered(h, answer, r.WithContext(ctx))
		if err != nil && answer.status == 0 {
			writeProblem(answer, problemFor(err), id)
		}
		a.logRequest(ctx, routeKey, id, answer, time.Since(start), err)
		if a.opts.Observe != nil {
			a.opts.Observe(observe(routeKey, answer, err))
		}
	})
}

func (a *API) requestID(ctx context.Context) string {
	if a.opts.RequestID != nil {
		if id := a.opts.RequestID(ctx); id != "" {
			return id
		}
	}
	return uuid.NewString()
}

// panicError is a handler's panic, made an error so that its caller gets an answer and the log gets the stack.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

func recovered(h handler, w *recorder, r *http.Request) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicError{value: value, stack: debug.Stack()}
		}
	}()
	return h(w, r)
}

// logRequest writes the one line of a request. It names the route and not the path, and nothing that the client wrote.
func (a *API) logRequest(ctx context.Context, routeKey, id string, answer *recorder, took time.Duration, err error) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("route", routeKey),
		slog.Int("status", answer.status),
		slog.Float64("tookMs", float64(took.Microseconds())/1000),
		slog.String("requestId", id),
	}
	if answer.Header().Get(replayedHeader) != "" {
		attrs = append(attrs, slog.Bool("replayed", true))
	}
	switch {
	case answer.status == http.StatusServiceUnavailable:
		level = slog.LevelWarn // the database's doing, or a caller's who hung up
	case answer.status >= http.StatusInternalServerError:
		level = slog.LevelError // ours
	}
	if level > slog.LevelInfo {
		attrs = append(attrs, slog.Any("error", err))
	}
	a.opts.Log.LogAttrs(ctx, level, "request", attrs...)
}

// recorder remembers the status of an answer, and what a verb that succeeded did.
type recorder struct {
	http.ResponseWriter
	status  int
	outcome string
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
		r.ResponseWriter.WriteHeader(status)
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.ResponseWriter.Write(b)
}

// errNoRoute means that the path or the method isn't one of the function's.
var errNoRoute = errors.New("no route takes this path")

// pathID reads the reservation id in the path. What isn't a UUID is the id of no reservation.
func pathID(r *http.Request) (uuid.UUID, error) {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return uuid.UUID{}, reservation.ErrNotFound
	}
	return id, nil
}

// parseID takes the canonical form only: 36 characters, in either case.
func parseID(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil
}

// idempotencyKey reads the header: "" when there is none. Repeated headers are joined as the gateway joins them, and then refused
// for their comma.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := strings.Join(values, ",")
	if key == "" {
		return "", invalid("Idempotency-Key", fmt.Sprintf("must be 1 to %d printable ASCII characters without a comma", reservation.MaxKeyLength))
	}
	return key, nil
}
