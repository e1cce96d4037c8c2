package httpapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// problem is an error as RFC 9457 writes it, with a stable code for programs.
type problem struct {
	Type      string              `json:"type"`
	Title     string              `json:"title"`
	Status    int                 `json:"status"`
	Detail    string              `json:"detail"`
	Code      string              `json:"code"`
	Error     string              `json:"error"` // the sentence of Detail again
	RequestID string              `json:"requestId"`
	Details   map[string][]string `json:"details,omitempty"`
	Shortages []shortage          `json:"shortages,omitempty"`
}

type shortage struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Requested   int       `json:"requested"`
	Available   int       `json:"available"`
}

// What the decoder refuses before the service is asked.
var (
	errTooLarge = errors.New("the body is too large")
	errNotJSON  = errors.New("the body isn't JSON")
)

// invalid is the error of one field.
func invalid(field, message string) error {
	return &reservation.InvalidError{Fields: map[string][]string{field: {message}}}
}

// answers is the one table from errors to answers. What it lacks is a bug, and answers 500.
var answers = []struct {
	err    error
	status int
	code   string
	title  string
	detail string
}{
	{reservation.ErrNotFound, http.StatusNotFound, "RESERVATION_NOT_FOUND", "Reservation not found", "There is no reservation with this id."},
	{reservation.ErrInventoryNotFound, http.StatusNotFound, "INVENTORY_NOT_FOUND", "Inventory not found", "A product of the request isn't kept in the warehouse that it names."},
	{reservation.ErrExpired, http.StatusGone, "RESERVATION_EXPIRED", "Reservation expired", "The reservation has expired and its units are free again. Reserve again."},
	{reservation.ErrConfirmed, http.StatusConflict, "RESERVATION_CONFIRMED", "Reservation confirmed", "The reservation was confirmed and can't change any more."},
	{reservation.ErrReleased, http.StatusConflict, "RESERVATION_RELEASED", "Reservation released", "The reservation was released and can't change any more."},
	{reservation.ErrExtensionLimit, http.StatusUnprocessableEntity, "EXTENSION_LIMIT", "Extension limit reached", "The reservation would last longer than a hold may. Ask for a shorter time, or confirm it."},
	{reservation.ErrKeyReused, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED", "Idempotency key reused", "This Idempotency-Key was used for another request. Use a new key for a new request."},
	{reservation.ErrKeyInUse, http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE", "Idempotency key in use", "A request with this Idempotency-Key is still being answered. Try again shortly, with the same key."},
	{reservation.ErrBusy, http.StatusServiceUnavailable, "STOCK_BUSY", "Stock busy", "The stock is in use by others and couldn't be had in time. Nothing was changed. Try again."},
	{reservation.ErrUnavailable, http.StatusServiceUnavailable, "DATABASE_UNAVAILABLE", "Database unavailable", "The database can't answer now. Try again, with the same Idempotency-Key."},
	{errTooLarge, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "Body too large", fmt.Sprintf("The body is larger than %d bytes.", maxBody)},
	{errNotJSON, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type", "The body must be JSON: send Content-Type: application/json."},
	{errNoRoute, http.StatusNotFound, "NOT_FOUND", "Not found", "There is nothing at this address."},
}

// codeShort is the code of a reserve that is short of stock.
const codeShort = "INSUFFICIENT_STOCK"

// problemFor finds the answer to an error.
func problemFor(err error) problem {
	var bad *reservation.InvalidError
	if errors.As(err, &bad) {
		p := newProblem(http.StatusBadRequest, "VALIDATION_FAILED", "Validation failed", "The request is not valid: see details.")
		p.Details = bad.Fields
		return p
	}
	var short *reservation.InsufficientStockError
	if errors.As(err, &short) {
		p := newProblem(http.StatusConflict, codeShort, "Insufficient stock", "There is less in stock than requested: see shortages.")
		for _, s := range short.Shortages {
			p.Shortages = append(p.Shortages, shortage(s))
		}
		return p
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return newProblem(a.status, a.code, a.title, a.detail)
		}
	}
	return newProblem(http.StatusInternalServerError, outcomeInternal, "Internal server error", "Something went wrong on our side.")
}

func newProblem(status int, code, title, detail string) problem {
	return problem{Type: "urn:allo:problem:" + code, Title: title, Status: status, Detail: detail, Code: code, Error: detail}
}

// retryAfter is what a caller is asked to wait, in seconds, when the database can't answer: about a lock's time-out.
const retryAfter = "1"

func writeProblem(w http.ResponseWriter, p problem, requestID string) {
	p.RequestID = requestID
	body, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		// Strings, numbers and maps of strings always encode; what they hold was made valid UTF-8 when it was decoded.
		panic(fmt.Sprintf("httpapi: encode a problem: %v", err))
	}
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the caller is gone: there is nobody to tell
}
