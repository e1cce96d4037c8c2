package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/reservation"
)

const (
	// maxBody is the most bytes of a request: a few ids and words.
	maxBody = 4 << 10
	// maxPayments is how many payments the server passes on at once. A person makes one at a time.
	maxPayments = 32
)

// auditor checks every promise in the data, and returns the violations that it finds.
type auditor = func(context.Context) ([]reservation.Violation, error)

// Options are what a Server needs.
type Options struct {
	// URL is the gateway's, such as http://127.0.0.1:3000. The server calls the API there.
	URL string
	// Token returns a token with the scopes of the payment side and of the stock, or is nil when the
	// gateway has no authorizer. It may be called concurrently.
	Token func(context.Context) (string, error)
	// Audit checks every promise in the data, and returns the violations that it finds.
	Audit auditor
	// Log gets what the shoppers couldn't do.
	Log *slog.Logger
}

// Server is the back end of the demo's shop, below /demo/. It pays for holds, and runs one flash
// sale at a time. Its pages are on the same origin: it refuses a POST that another site sends. It
// is safe for concurrent use.
type Server struct {
	api     *client
	audit   auditor
	log     *slog.Logger
	ctx     context.Context // ends the sale that runs
	handler http.Handler
	paying  chan struct{}
	sale    saleroom
	pace    pace
}

// NewServer returns a Server whose sales end with ctx. Call Wait after that.
func NewServer(ctx context.Context, o Options) *Server {
	s := &Server{
		api: newClient(o.URL, o.Token), audit: o.Audit, log: o.Log, ctx: ctx,
		paying: make(chan struct{}, maxPayments), pace: gentle,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /demo/payments", s.servePayment)
	mux.HandleFunc("GET /demo/sale", s.serveSale)
	mux.HandleFunc("POST /demo/sale", s.serveStart)
	mux.HandleFunc("POST /demo/sale/restock", s.serveRestock)
	mux.HandleFunc("/demo/", func(w http.ResponseWriter, _ *http.Request) {
		problem.NotFound().Write(w)
	})
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "CROSS_ORIGIN", "Another site sent this request.")
	}))
	s.handler = sameOrigin.Handler(mux)
	return s
}

// Wait waits for the end of the sale that runs.
func (s *Server) Wait() { s.sale.running.Wait() }

// Before returns a handler that answers the requests below /demo/, and leaves the others to next.
func (s *Server) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/demo/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		s.handler.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	problem.New(status, code, http.StatusText(status), detail).Write(w)
}

// busy says that the caller may try again soon.
func busy(w http.ResponseWriter, detail string) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", detail)
}

// read decodes the JSON of a request into in. When it can't, it answers and returns false.
func read(w http.ResponseWriter, r *http.Request, in any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(in)
	if err == nil {
		switch _, end := decoder.Token(); {
		case end == nil:
			err = errors.New("there is more than one value")
		case !errors.Is(end, io.EOF):
			err = end
		}
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "The body is too large.")
		return false
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "VALIDATION_FAILED", "The body isn't as expected: "+
			err.Error()+".")
		return false
	}
	return true
}

// write answers with a document.
func write(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // it fails when the caller has hung up
}
