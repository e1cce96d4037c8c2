// Package httpapi is the HTTP contract: a handler decodes its request strictly, calls the
// reservation service once and encodes the result, and one table maps errors to problems. The
// package imports neither pgx nor Lambda, so the same handlers run on a laptop and on AWS.
package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
	"github.com/allo/reservations/internal/stock"
)

// RequestTimeout bounds a request. It is longer than a statement's timeout (5 s) and shorter than
// the function's (10 s), so the innermost limit always ends first and its error reaches the caller.
// The distance is more than the second that cancelling a statement may take.
const RequestTimeout = 7 * time.Second

// Options connect the handlers to their surroundings.
type Options struct {
	// Log gets one line a request.
	Log *slog.Logger
	// RequestID returns the platform's id of the request from its context. When RequestID is nil or
	// returns "", the handlers make a random id.
	RequestID func(context.Context) string
	// MaxBody is the platform's limit of an answer's body, in bytes. Zero means none.
	MaxBody int
	// StockShown is the most units of a stock row that a shopper is told are available. Totals are
	// then left out. Zero means that shoppers see the exact figures.
	StockShown int
	// Events are the settings of the events that GET /api/events shows.
	Events outbox.Options
	// Live is the live channel, of which GET /api/live tells.
	Live Live
	// Observe, unless nil, is called after each request, with its outcome.
	Observe func(Observation)
}

// API answers the routes of the reservation API.
type API struct {
	service *reservation.Service
	stock   *stock.Service
	outbox  *outbox.Outbox
	opts    Options
}

// New returns the API of a service.
func New(service *reservation.Service, opts Options) *API {
	return &API{
		service: service, stock: stock.New(service), outbox: outbox.New(service, opts.Events), opts: opts,
	}
}

// handler answers a request, or returns an error and writes nothing.
type handler func(w *recorder, r *http.Request) error

// handlers maps the key of each route to its handler.
func (a *API) handlers() map[string]handler {
	return map[string]handler{
		"GET /api/products":                          a.listProducts,
		"GET /api/products/{id}":                     a.getProduct,
		"GET /api/warehouses":                        a.listWarehouses,
		"POST /api/reservations":                     a.reserve,
		"GET /api/reservations":                      a.listReservations,
		"GET /api/reservations/{id}":                 a.getReservation,
		"POST /api/reservations/{id}/confirm":        a.confirm,
		"POST /api/reservations/{id}/release":        a.release,
		"POST /api/reservations/{id}/extend":         a.extend,
		"POST /api/reservations/{id}/payment":        a.startPayment,
		"POST /api/reservations/{id}/payment/failed": a.failPayment,
		"POST /api/reservations/{id}/cancel":         a.cancel,
		"POST /api/reservations/{id}/returns":        a.returnGoods,
		"POST /api/catalog/products":                 a.putProducts,
		"POST /api/catalog/warehouses":               a.putWarehouses,
		"GET /api/stock":                             a.listStock,
		"POST /api/stock/movements":                  a.moveStock,
		"GET /api/stock/movements":                   a.listMovements,
		"GET /api/reservations/{id}/history":         a.history,
		"GET /api/reservations/{id}/payments":        a.listPayments,
		"GET /api/reservations/{id}/returns":         a.listReturns,
		"POST /api/owners/erase":                     a.eraseOwner,
		"GET /api/events":                            a.listEvents,
		"GET /api/live":                              a.live,
		"GET /api/stats":                             a.stats,
		"GET /api/health":                            a.health,
	}
}

// Function returns the handler of one Lambda function's routes, which the route table lists. It
// panics for a function without routes: a test of every function's main would find that.
func (a *API) Function(name string) http.Handler {
	mux := http.NewServeMux()
	handlers := a.handlers()
	found := false
	for _, r := range route.API() {
		if r.Function == name {
			mux.Handle(r.Key(), a.wrap(r.Key(), fresh(r, handlers[r.Key()])))
			found = true
		}
	}
	if !found {
		panic("httpapi: no route belongs to the function " + name)
	}
	none := a.wrap("none", func(*recorder, *http.Request) error { return errNoRoute })
	mux.Handle("/", none)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux redirects a path with empty or dot segments. The contract has no redirects.
		if !isClean(r.URL.EscapedPath()) {
			none.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isClean reports whether ServeMux serves a path without a redirect. A slash at its end is fine.
func isClean(escaped string) bool {
	clean := path.Clean("/" + escaped)
	return escaped == clean || clean != "/" && escaped == clean+"/"
}

// wrap adds to a handler the request id, the deadline, the line in the log and the problem of an
// error.
func (a *API) wrap(routeKey string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := a.requestID(r.Context())
		ctx, cancel := context.WithTimeout(r.Context(), RequestTimeout)
		defer cancel()

		answer := &recorder{
			ResponseWriter: w, maxBody: a.opts.MaxBody, asked: r.Header,
			isRead: r.Method == http.MethodGet || r.Method == http.MethodHead,
		}
		answer.Header().Set("X-Request-Id", id)
		answer.Header().Set("Cache-Control", "no-store")
		answer.Header().Set("X-Content-Type-Options", "nosniff")
		err := recovered(h, answer, r.WithContext(ctx))
		if err != nil && answer.status == 0 {
			a.refusal(err).Write(answer)
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

// panicError is a handler's panic as an error: its caller gets a 500 and the log gets the stack.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// recovered calls a handler and returns a panic as an error.
func recovered(h handler, w *recorder, r *http.Request) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicError{value: value, stack: debug.Stack()}
		}
	}()
	return h(w, r)
}

// logRequest writes a request's line. The line has the route, not the path, the kind of caller, not
// its name, and nothing that the client wrote.
func (a *API) logRequest(
	ctx context.Context, routeKey, id string, answer *recorder, took time.Duration, err error,
) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("route", routeKey),
		slog.Int("status", answer.status),
		slog.Float64("tookMs", float64(took.Microseconds())/1000),
		slog.String("requestId", id),
		slog.String("principal", principal.From(ctx).Kind.String()),
	}
	if answer.Header().Get(replayedHeader) != "" {
		attrs = append(attrs, slog.Bool("replayed", true))
	}
	switch {
	case answer.status == http.StatusServiceUnavailable:
		level = slog.LevelWarn // the database failed, or the caller hung up
	case answer.status >= http.StatusInternalServerError:
		level = slog.LevelError // a bug of ours
	}
	if level > slog.LevelInfo {
		attrs = append(attrs, slog.Any("error", err))
	}
	a.opts.Log.LogAttrs(ctx, level, "request", attrs...)
}

// recorder remembers the status of an answer, and the outcome of a verb that succeeded.
type recorder struct {
	http.ResponseWriter
	status  int
	outcome string
	maxBody int // in bytes, or zero
	// asked has the headers of the request.
	asked http.Header
	// isRead says that the request is a GET or a HEAD.
	isRead bool
	// isCatalog says that the answer is a part of the catalog, which caches may keep.
	isCatalog bool
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

// pathID reads the reservation id of the path. A malformed id answers 404, as no reservation has
// it.
func pathID(r *http.Request) (uuid.UUID, error) {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return uuid.UUID{}, reservation.ErrNotFound
	}
	return id, nil
}

// parseID reads a UUID in its canonical form of 36 characters, in upper or lower case.
func parseID(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil
}

// idempotencyKey reads the Idempotency-Key header: "" without one. Repeated headers are joined with
// a comma, as the gateway joins them, and the service then refuses the comma.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := strings.Join(values, ",")
	if key == "" {
		const message = "must be 1 to %d printable ASCII characters without a comma"
		return "", invalid("Idempotency-Key", fmt.Sprintf(message, reservation.MaxKeyLength))
	}
	return key, nil
}
