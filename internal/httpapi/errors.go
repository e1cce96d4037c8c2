package httpapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// Errors that a handler finds before it calls the service.
var (
	errTooLarge = errors.New("the body is too large")
	errNotJSON  = errors.New("the body isn't JSON")
	errNoRoute  = errors.New("no route has this path and method")
	// errOwnerMismatch means that a shopper with a token names somebody else as the owner of a hold.
	errOwnerMismatch = errors.New("the token's subject is another owner")
	// errImportTooLarge and errNotImport are the same two for the routes that take many items.
	errImportTooLarge = errors.New("the body is too large for an import")
	errNotImport      = errors.New("the body is neither JSON nor CSV")
	// errAnswerTooLarge is the last resort. The pages of each list have bounds of their own.
	errAnswerTooLarge = errors.New("the answer is too large")
)

// invalid is an error about one field.
func invalid(field, message string) error {
	return &reservation.InvalidError{Fields: map[string][]string{field: {message}}}
}

// fields collects the errors of a request's fields.
type fields map[string][]string

// The messages for invalid names. badReference is also for the reference of a payment, and
// badSubject is for the sub of a token that would become an owner.
var (
	badReference = badName("", reservation.MaxNameLength)
	badOwner     = badName("", reservation.MaxOwnerLength)
	badSubject   = badName("the token's sub ", reservation.MaxOwnerLength)
)

func badName(whose string, most int) string {
	return fmt.Sprintf("%smust be 1 to %d characters without control characters", whose, most)
}

// maxFields is the most fields that an answer names: all of a cart with the most lines. A body of
// 64 KiB could have 65,000 invalid ones, whose answer would be fifty times as large.
const maxFields = 3 * reservation.MaxLines

func (f fields) add(name, message string) {
	if _, known := f[name]; known || len(f) < maxFields {
		f[name] = append(f[name], message)
	}
}

// err is nil when every field is valid.
func (f fields) err() error {
	if len(f) == 0 {
		return nil
	}
	return &reservation.InvalidError{Fields: f}
}

// The codes of errors that have more to tell than their code.
const (
	// codeShort means that a reserve asks for more than there is.
	codeShort = "INSUFFICIENT_STOCK"
	// codeNotForSale means that a reserve asks for what isn't for sale.
	codeNotForSale = "NOT_FOR_SALE"
	// codeLimit means that a reserve asks for more than a hold or its owner may have.
	codeLimit = "LIMIT_EXCEEDED"
	// codePaid means that another payment was first.
	codePaid = "ALREADY_PAID"
	// codeLost means that a payment came too late.
	codeLost = "PAYMENT_LOST"
	// codeExceedsSold means that more would be back than was sold.
	codeExceedsSold = "RETURN_EXCEEDS_SOLD"
	// codeRefused means that a line of a document that is applied together was refused.
	codeRefused = "MOVEMENTS_REFUSED"
)

// answers is the one table from errors to problems. An error that isn't in it is a bug, and
// answers 500.
var answers = []struct {
	err     error
	problem problem.Problem
}{
	{reservation.ErrNotFound, problem.New(
		http.StatusNotFound, "RESERVATION_NOT_FOUND", "Reservation not found",
		"There is no reservation with this id.",
	)},
	{reservation.ErrProductNotFound, problem.New(
		http.StatusNotFound, "PRODUCT_NOT_FOUND", "Product not found",
		"There is no product with this id.",
	)},
	{reservation.ErrInventoryNotFound, problem.New(
		http.StatusNotFound, "INVENTORY_NOT_FOUND", "Inventory not found",
		"The warehouse of a line doesn't stock its product.",
	)},
	{reservation.ErrExpired, problem.New(
		http.StatusGone, "RESERVATION_EXPIRED", "Reservation expired",
		"The reservation has expired and its units are free again. Reserve again.",
	)},
	{reservation.ErrConfirmed, problem.New(
		http.StatusConflict, "RESERVATION_CONFIRMED", "Reservation confirmed",
		"The reservation is confirmed and can't change any more.",
	)},
	{reservation.ErrReleased, problem.New(
		http.StatusConflict, "RESERVATION_RELEASED", "Reservation released",
		"The reservation is released and can't change any more.",
	)},
	{reservation.ErrPaymentStarted, problem.New(
		http.StatusConflict, "PAYMENT_STARTED", "Payment started",
		"The reservation is being paid. It can change once the payment has failed.",
	)},
	{reservation.ErrOwnerRequired, problem.New(
		http.StatusUnprocessableEntity, "OWNER_REQUIRED", "Owner required",
		"A product is limited for each customer. Say who the owner of the reservation is.",
	)},
	{errOwnerMismatch, problem.New(
		http.StatusForbidden, "OWNER_MISMATCH", "Owner mismatch",
		"The owner must be the sub of the token. Another one needs reservations:act-for-any.",
	)},
	{stock.ErrNotConfirmed, problem.New(
		http.StatusConflict, "RESERVATION_NOT_CONFIRMED", "Reservation not confirmed",
		"The reservation isn't confirmed, so nothing of it was sold.",
	)},
	{stock.ErrReferenceReused, problem.New(
		http.StatusConflict, "REFERENCE_REUSED", "Reference reused",
		"Another return of this reservation has this reference. Use a new one for a new return.",
	)},
	{stock.ErrWarehouseNotFound, problem.New(
		http.StatusNotFound, "WAREHOUSE_NOT_FOUND", "Warehouse not found",
		"There is no warehouse with the toWarehouseId of a line.",
	)},
	{stock.ErrTooManyUnits, problem.New(
		http.StatusUnprocessableEntity, "TOO_MANY_UNITS", "Too many units",
		"A stock row can't have so many units.",
	)},
	{outbox.ErrTooOld, problem.New(
		http.StatusGone, "CURSOR_TOO_OLD", "Cursor too old",
		"Events behind this cursor are gone. Read the reservations, and begin without a cursor.",
	)},
	{reservation.ErrExtensionLimit, problem.New(
		http.StatusUnprocessableEntity, "EXTENSION_LIMIT", "Extension limit reached",
		"The hold would exceed the longest time. Ask for less, or confirm it now.",
	)},
	{reservation.ErrKeyReused, problem.New(
		http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED", "Idempotency key reused",
		"This Idempotency-Key belongs to another request. Use a new key for a new request.",
	)},
	{reservation.ErrKeyInUse, problem.New(
		http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE", "Idempotency key in use",
		"A request with this Idempotency-Key is still running. Try again with the same key.",
	)},
	// Before the errors that it wraps.
	{stock.ErrUnfinished, problem.New(
		http.StatusServiceUnavailable, "CATALOG_UNFINISHED", "Catalog unfinished",
		"The catalog changed, but some stock or reserves don't follow yet. Send this request again.",
	)},
	{stock.ErrIncomplete, problem.New( // before ErrBusy, which it wraps
		http.StatusServiceUnavailable, "MOVEMENTS_INCOMPLETE", "Movements incomplete",
		"A lock wasn't free in time. Send the document again; each line is applied once.",
	)},
	{reservation.ErrBusy, problem.New(
		http.StatusServiceUnavailable, "STOCK_BUSY", "Stock busy",
		"Other requests hold a lock on this stock. Nothing was changed. Try again.",
	)},
	{reservation.ErrUnavailable, problem.New(
		http.StatusServiceUnavailable, "DATABASE_UNAVAILABLE", "Database unavailable",
		"The database can't answer now. Try again with the same Idempotency-Key.",
	)},
	{errTooLarge, problem.New(
		http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "Body too large",
		fmt.Sprintf("The body is larger than %d bytes.", maxBody),
	)},
	{errNotJSON, problem.New(
		http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type",
		"The body must be JSON in UTF-8. Send Content-Type: application/json.",
	)},
	{errImportTooLarge, problem.New(
		http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "Body too large",
		fmt.Sprintf("The body is larger than %d bytes.", maxImport),
	)},
	{errNotImport, problem.New(
		http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type",
		"The body must be JSON or CSV in UTF-8: application/json or text/csv.",
	)},
	{errAnswerTooLarge, problem.New(
		http.StatusInternalServerError, "ANSWER_TOO_LARGE", "Answer too large",
		"The answer is larger than the service can send. Ask for fewer entries with limit.",
	)},
	{errNoRoute, problem.NotFound()},
}

// refusal returns the answer to an error. Of a short line it tells no more units than the catalog
// shows, or anybody could read the stock by asking for too much.
func (a *API) refusal(err error) problem.Problem {
	p := problemFor(err)
	for i := range p.Shortages {
		s := &p.Shortages[i]
		s.Available, s.OrMore = a.shown(s.Available)
	}
	return p
}

// problemFor is the refusal of an error, with the exact figures.
func problemFor(err error) problem.Problem {
	for _, explain := range []func(error) (problem.Problem, bool){
		explainRequest, explainReserve, explainPayment, explainStock,
	} {
		if p, ok := explain(err); ok {
			return p
		}
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return a.problem
		}
	}
	return problem.Internal()
}

// explainRequest answers an invalid request, and one that the database isn't ready for. Like the
// functions below, it returns false for every other error.
func explainRequest(err error) (problem.Problem, bool) {
	var bad *reservation.InvalidError
	if errors.As(err, &bad) {
		p := problem.New(http.StatusBadRequest, "VALIDATION_FAILED", "Validation failed",
			"The request is invalid: see details.")
		p.Details = bad.Fields
		return p, true
	}
	var lacks *reservation.NotReadyError
	if errors.As(err, &lacks) {
		return notReady(lacks), true
	}
	return problem.Problem{}, false
}

// explainReserve says why a reserve is refused.
func explainReserve(err error) (problem.Problem, bool) {
	var short *reservation.InsufficientStockError
	if errors.As(err, &short) {
		p := problem.New(http.StatusConflict, codeShort, "Insufficient stock",
			"Less is available than the request asks for: see shortages.")
		p.Shortages = newShortages(short.Shortages)
		return p, true
	}
	var closed *reservation.NotForSaleError
	if errors.As(err, &closed) {
		p := problem.New(http.StatusConflict, codeNotForSale, "Not for sale",
			"Some lines can't be sold: an archived product or a closed warehouse.")
		for _, line := range closed.Lines {
			p.Lines = append(p.Lines, problem.StockKey(line))
		}
		return p, true
	}
	var limited *reservation.LimitError
	if errors.As(err, &limited) {
		p := problem.New(http.StatusUnprocessableEntity, codeLimit, "Limit exceeded",
			"A hold, or its owner, may not have so many units of a product: see limits.")
		p.Limits = newLimits(limited.Limits)
		return p, true
	}
	return problem.Problem{}, false
}

// explainPayment says why a payment must be refunded.
func explainPayment(err error) (problem.Problem, bool) {
	var paid *reservation.AlreadyPaidError
	if errors.As(err, &paid) {
		p := problem.New(http.StatusConflict, codePaid, "Already paid",
			"Another payment was first: see paymentReference. Refund this one.")
		p.PaymentReference = &paid.Payment
		return p, true
	}
	var lost *reservation.PaymentLostError
	if errors.As(err, &lost) {
		p := problem.New(http.StatusConflict, codeLost, "Payment lost",
			"The hold is gone, and its units can't be had anew: see shortages. Refund the payment.")
		p.Shortages = newShortages(lost.Shortages)
		p.Limits = newLimits(lost.Limits)
		return p, true
	}
	return problem.Problem{}, false
}

// explainStock says why goods don't come back, or a document isn't applied.
func explainStock(err error) (problem.Problem, bool) {
	var excess *stock.ExcessError
	if errors.As(err, &excess) {
		p := problem.New(http.StatusConflict, codeExceedsSold, "Return exceeds sold",
			"More would be back than was sold: see excess.")
		p.Excess = newExcess(excess)
		return p, true
	}
	var refused *stock.RefusedError
	if errors.As(err, &refused) {
		p := problem.New(http.StatusConflict, codeRefused, "Movements refused",
			"A line was refused, so nothing was changed: see results.")
		p.Results = newLineResults(refused.Results)
		return p, true
	}
	return problem.Problem{}, false
}

// newShortages lists short lines. Without any it is empty, and not nil.
func newShortages(lines []reservation.Shortage) []problem.Shortage {
	short := make([]problem.Shortage, 0, len(lines))
	for _, s := range lines {
		short = append(short, problem.Shortage{
			ProductID: s.ProductID, WarehouseID: s.WarehouseID,
			Requested: s.Requested, Available: s.Available,
		})
	}
	return short
}

func newLimits(reached []reservation.Limit) (limits []problem.Limit) {
	for _, l := range reached {
		limits = append(limits, problem.Limit(l))
	}
	return limits
}

// notReady answers a health check with what the database lacks.
func notReady(lacks *reservation.NotReadyError) problem.Problem {
	p := problem.New(http.StatusServiceUnavailable, "NOT_READY", "Not ready",
		"The service can't reserve on its database: see details.")
	p.Details = map[string][]string{}
	for name, messages := range map[string][]string{
		"settings": lacks.Settings, "schema": lacks.Schema, "routines": lacks.Routines,
	} {
		if len(messages) > 0 {
			p.Details[name] = messages
		}
	}
	return p
}
