package reservation

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/postgres"
)

// What a verb answers instead of a hold. Each is an answer of the contract and no fault of the service.
var (
	// ErrNotFound means that there is no hold of that id.
	ErrNotFound = errors.New("reservation not found")
	// ErrInventoryNotFound means that a line's product isn't kept in its warehouse.
	ErrInventoryNotFound = errors.New("no stock row for this product and warehouse")
	// ErrExpired means that the hold died before the call.
	ErrExpired = errors.New("reservation expired")
	// ErrConfirmed means that the hold was confirmed before.
	ErrConfirmed = errors.New("reservation confirmed")
	// ErrReleased means that the hold was released before.
	ErrReleased = errors.New("reservation released")
	// ErrExtensionLimit means that the hold may not last as long as asked.
	ErrExtensionLimit = errors.New("extension limit reached")
	// ErrKeyReused means that the Idempotency-Key was used for another request.
	ErrKeyReused = errors.New("idempotency key used for another request")
	// ErrKeyInUse means that the Idempotency-Key's first request didn't end in time.
	ErrKeyInUse = errors.New("idempotency key in use")
	// ErrBusy means that a row's lock couldn't be had in time, or that others were faster time and again. Nothing happened.
	ErrBusy = errors.New("the rows are busy")
	// ErrUnavailable means that the database couldn't be reached or didn't answer in time. It can't be known whether the call
	// took effect; a retry under the same Idempotency-Key settles it.
	ErrUnavailable = errors.New("the database is unavailable")
)

// Shortage is a line that can't be held.
type Shortage struct {
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Requested   int       `json:"requested"`
	Available   int       `json:"available"`
}

// InsufficientStockError names every line that is short. Nothing was held.
type InsufficientStockError struct{ Shortages []Shortage }

func (e *InsufficientStockError) Error() string {
	return fmt.Sprintf("insufficient stock for %d lines", len(e.Shortages))
}

// NoConnection reports whether a call ended in ErrUnavailable because no connection to the database could be had or made, for another reason
// than that its caller gave up.
func NoConnection(err error) bool { return postgres.NoConnection(err) }
