// Package webhooks builds the handlers of the functions list-webhooks and redeliver-webhook, which
// show the webhooks to an operator and send their dead letters once more. It is apart from package
// app because it needs no database, and so links no driver.
package webhooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/app/fault"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/lambdahttp"
	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/route"
)

const (
	// requestTimeout bounds a request. It is shorter than the function's timeout of 10 s, so that the
	// caller gets the error.
	requestTimeout = 7 * time.Second
	// maxKey is the most characters of an Idempotency-Key, as on every POST of the API.
	maxKey = 255
	// maxBody is the most bytes of a body, as of every POST. Here only {} has a meaning.
	maxBody = 64 << 10
)

// Codes of the problems that no other function answers with.
const (
	CodeUnknown     = "WEBHOOK_NOT_FOUND"
	CodeUnavailable = "QUEUES_UNAVAILABLE"
)

// Lambda makes the handler of one of the two functions.
func Lambda(function string) fault.Handler {
	c, log := config.Start(false)
	handler := lambdahttp.New(Handler(function, deliver.NewOperator(c, log), log), log,
		lambdahttp.OnlyThroughCDN(c.OriginSecrets))
	return fault.Count(function, handler, emf.New(os.Stdout, c.MetricNamespace))
}

// handler answers a request, or returns an error and writes nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler returns the handler of one of the two functions. It panics for another function.
func Handler(function string, operator deliver.Operator, log *slog.Logger) http.Handler {
	handlers := map[string]handler{
		"GET /api/webhooks":                   list(operator),
		"POST /api/webhooks/{name}/redeliver": redeliver(operator),
	}
	mux := http.NewServeMux()
	found := false
	for _, r := range route.Direct() {
		if r.Function == function {
			mux.Handle(r.Key(), wrap(r.Key(), handlers[r.Key()], log))
			found = true
		}
	}
	if !found {
		panic("webhooks: no route belongs to the function " + function)
	}
	none := wrap("none", func(http.ResponseWriter, *http.Request) error { return errNoRoute }, log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux answers a path with empty or dot segments with a redirect, and the contract has none.
		if _, pattern := mux.Handler(r); pattern == "" || strings.Contains(r.URL.Path, "//") ||
			strings.Contains(r.URL.Path, "/.") {
			none.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// wrap adds to a handler the request id, the deadline, the line in the log and the problem of an
// error.
func wrap(routeKey string, h handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		id := lambdahttp.RequestID(ctx)
		if id == "" {
			id = uuid.NewString()
		}
		header := w.Header()
		header.Set("X-Request-Id", id)
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		status, level := http.StatusOK, slog.LevelInfo
		err := h(w, r.WithContext(ctx))
		if err != nil {
			p := problemFor(err)
			status = p.Status
			p.Write(w)
		}
		attrs := []slog.Attr{
			slog.String("route", routeKey), slog.Int("status", status),
			slog.Float64("tookMs", float64(time.Since(start).Microseconds())/1000),
			slog.String("requestId", id),
			slog.String("principal", principal.From(ctx).Kind.String()),
		}
		if status == http.StatusServiceUnavailable {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		log.LogAttrs(ctx, level, "request", attrs...)
	})
}

// webhookDTO is a webhook in the contract's form.
type webhookDTO struct {
	Name        string        `json:"name"`
	URL         string        `json:"url"`
	Types       []string      `json:"types"`
	Parked      bool          `json:"parked"`
	Waiting     int           `json:"waiting"`
	DeadLetters int           `json:"deadLetters"`
	LagSeconds  *float64      `json:"lagSeconds"` // null if it can't be read
	Deliveries  []deliveryDTO `json:"deliveries"` // null if they can't be read
}

type deliveryDTO struct {
	ID           string    `json:"id"`
	Type         string    `json:"type"`
	At           time.Time `json:"at"`
	Attempt      int       `json:"attempt"`
	Status       *int      `json:"status"`
	Outcome      string    `json:"outcome"`
	Milliseconds int64     `json:"milliseconds"`
}

func newWebhookDTO(s deliver.State) webhookDTO {
	dto := webhookDTO{
		Name: s.Name, URL: s.URL, Types: append([]string{}, s.Types...), Parked: s.Parked,
		Waiting: s.Waiting, DeadLetters: s.DeadLetters,
	}
	if s.Lag != nil {
		dto.LagSeconds = new(s.Lag.Seconds())
	}
	if s.Deliveries == nil {
		return dto
	}
	dto.Deliveries = []deliveryDTO{}
	for _, d := range s.Deliveries {
		one := deliveryDTO{
			ID: d.ID, Type: d.Type, At: d.At, Attempt: d.Attempt, Outcome: d.Outcome,
			Milliseconds: d.Milliseconds,
		}
		if d.Status != 0 {
			one.Status = &d.Status
		}
		dto.Deliveries = append(dto.Deliveries, one)
	}
	return dto
}

func list(operator deliver.Operator) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		states, err := operator.States(r.Context())
		if err != nil {
			return err
		}
		body := make([]webhookDTO, 0, len(states))
		for _, s := range states {
			body = append(body, newWebhookDTO(s))
		}
		return writeJSON(w, body)
	}
}

// redeliveryDTO says what a redelivery has begun.
type redeliveryDTO struct {
	Name string `json:"name"`
	// DeadLetters is how many dead letters there were.
	DeadLetters int `json:"deadLetters"`
}

func redeliver(operator deliver.Operator) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := checkRequest(r); err != nil {
			return err
		}
		name := r.PathValue("name")
		dead, err := operator.Redeliver(r.Context(), name)
		if err != nil {
			return err
		}
		return writeJSON(w, redeliveryDTO{Name: name, DeadLetters: dead})
	}
}

func writeJSON(w http.ResponseWriter, body any) error {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, body, json.FormatNilSliceAsNull(true)); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b.Bytes()) // an error means that the caller has gone
	return nil
}

// errNoRoute means that the function has no route with the path and the method.
var errNoRoute = errors.New("no route has this path and method")

// invalidError means that a part of the request is invalid.
type invalidError struct{ field, message string }

func (e *invalidError) Error() string { return e.field + " " + e.message }

// checkRequest checks the parts of the POST that every POST of the API may have. An Idempotency-Key
// needs no store here, because a redelivery may be repeated.
func checkRequest(r *http.Request) error {
	if values := r.Header.Values("Idempotency-Key"); len(values) > 0 {
		if key := strings.Join(values, ","); !isKey(key) {
			const message = "must be 1 to %d printable ASCII characters without a comma"
			return &invalidError{"Idempotency-Key", fmt.Sprintf(message, maxKey)}
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return &invalidError{"body", "could not be read"}
	}
	if len(body) > maxBody {
		return errTooLarge
	}
	text := strings.Join(strings.Fields(string(body)), "")
	if text == "" {
		return nil
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" {
		return errNotJSON
	}
	if text != "{}" {
		return &invalidError{"body", "must be empty or {}"}
	}
	return nil
}

// The errors of a body that isn't read.
var (
	errTooLarge = errors.New("the body is too large")
	errNotJSON  = errors.New("the body isn't JSON")
)

func isKey(key string) bool {
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return key != "" && len(key) <= maxKey
}

// problemFor is the answer to an error. Every error that isn't the caller's comes from AWS.
func problemFor(err error) problem.Problem {
	if bad := (*invalidError)(nil); errors.As(err, &bad) {
		p := problem.New(http.StatusBadRequest, "VALIDATION_FAILED", "Validation failed",
			"The request is invalid: see details.")
		p.Details = map[string][]string{bad.field: {bad.message}}
		return p
	}
	switch {
	case errors.Is(err, errNoRoute):
		return problem.NotFound()
	case errors.Is(err, errTooLarge):
		return problem.New(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "Body too large",
			"The body must have at most 64 KiB.")
	case errors.Is(err, errNotJSON):
		return problem.New(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE",
			"Unsupported media type", "The body must be JSON. Send Content-Type: application/json.")
	case errors.Is(err, deliver.ErrUnknownWebhook):
		return problem.New(http.StatusNotFound, CodeUnknown, "Webhook not found",
			"There is no webhook with this name.")
	default:
		return problem.New(http.StatusServiceUnavailable, CodeUnavailable, "Queues unavailable",
			"The webhooks' queues can't answer now. Try again.")
	}
}
