package reservation

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/postgres"
)

// The refusals of a verb. Each is an answer of the contract, not a fault of the service.
var (
	// ErrNotFound means that there is no hold with that id.
	ErrNotFound = errors.New("reservation not found")
	// ErrProductNotFound means that there is no product with that id.
	ErrProductNotFound = errors.New("product not found")
	// ErrInventoryNotFound means that a line's product has no stock row in its warehouse.
	ErrInventoryNotFound = errors.New("no stock row for this product and warehouse")
	// ErrExpired means that the hold died before the call.
	ErrExpired = errors.New("reservation expired")
	// ErrConfirmed means that the hold was confirmed before.
	ErrConfirmed = errors.New("reservation confirmed")
	// ErrReleased means that the hold was released before.
	ErrReleased = errors.New("reservation released")
	// ErrPaymentStarted means that the hold is being paid, so that the shopper can't change it.
	ErrPaymentStarted = errors.New("payment started")
	// ErrOwnerRequired means that a product has a limit for each owner, and the request names none.
	ErrOwnerRequired = errors.New("owner required")
	// ErrExtensionLimit means that the requested end is more than MaxHold, or MaxPaymentHold, after
	// the hold's creation.
	ErrExtensionLimit = errors.New("extension limit reached")
	// ErrKeyReused means that the Idempotency-Key was used for another request.
	ErrKeyReused = errors.New("idempotency key used for another request")
	// ErrKeyInUse means that the first request under the Idempotency-Key is still running.
	ErrKeyInUse = errors.New("idempotency key in use")
	// ErrBusy means that a lock wasn't free in time, or that other callers were faster at every
	// try. Nothing changed.
	ErrBusy = errors.New("the rows are busy")
	// ErrUnavailable means that the database couldn't be reached or didn't answer in time, or that
	// its synchronous standby didn't. The call may have taken effect. A retry under the same
	// Idempotency-Key is safe.
	ErrUnavailable = errors.New("the database is unavailable")
)

// Shortage is a line that asks for more units than are available.
type Shortage struct {
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Requested   int       `json:"requested"`
	Available   int       `json:"available"`
}

// InsufficientStockError lists every short line. Nothing was held.
type InsufficientStockError struct{ Shortages []Shortage }

func (e *InsufficientStockError) Error() string {
	return fmt.Sprintf("insufficient stock for %d lines", len(e.Shortages))
}

// StockKey names a stock row.
type StockKey struct {
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
}

// NotForSaleError lists every line whose product is archived or whose warehouse is closed. Nothing
// was held.
type NotForSaleError struct{ Lines []StockKey }

func (e *NotForSaleError) Error() string {
	return fmt.Sprintf("%d lines aren't for sale", len(e.Lines))
}

// Limit is a limit of a product that a request would exceed.
type Limit struct {
	ProductID uuid.UUID
	// Max is the most units that a line, or an owner, may have. Used is how many the owner has, and
	// Requested how many more the request asks for. Used is 0 for the limit of a line.
	Max, Used, Requested int
}

// LimitError lists every limit that a request would exceed. Nothing was held.
type LimitError struct{ Limits []Limit }

func (e *LimitError) Error() string {
	return fmt.Sprintf("%d limits would be exceeded", len(e.Limits))
}

// AlreadyPaidError means that another payment than the caller's has paid for the hold, or that the
// hold was confirmed without naming one. The caller's payment must be refunded.
type AlreadyPaidError struct {
	// Payment is the reference of the payment that was first, or nil if it wasn't named.
	Payment *string
}

func (e *AlreadyPaidError) Error() string { return "another payment was first" }

// PaymentLostError means that a payment came when the hold was gone, and couldn't take its units
// anew. It must be refunded, for good.
type PaymentLostError struct {
	// Shortages are the lines that were short then. They are empty when another hold had taken the
	// place of the one that was paid, or when the owner's limit was reached.
	Shortages []Shortage
	// Limits are the limits of the owner that were reached then.
	Limits []Limit
	// Replayed is true when an earlier call under the same key got this answer.
	Replayed bool
}

func (e *PaymentLostError) Error() string {
	return fmt.Sprintf("the payment is lost: %d lines were short", len(e.Shortages))
}

// NoConnection reports whether a call failed with ErrUnavailable because the service got no
// connection to the database, unless its caller gave up.
func NoConnection(err error) bool { return postgres.NoConnection(err) }
