package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// PaymentOutcome is what became of a payment of a hold.
type PaymentOutcome string

// The outcomes of a payment.
const (
	// PaymentStarted says that the payment is under way, or was when the hold ended.
	PaymentStarted PaymentOutcome = "STARTED"
	// PaymentFailed says that the payment failed, or that another one took its place.
	PaymentFailed PaymentOutcome = "FAILED"
	// PaymentConfirmed says that the payment confirmed the hold.
	PaymentConfirmed PaymentOutcome = "CONFIRMED"
	// PaymentReacquired says that the hold was gone, and that a successor got the units anew.
	PaymentReacquired PaymentOutcome = "REACQUIRED"
	// PaymentLost says that the hold and its units were gone. The payment must be refunded.
	PaymentLost PaymentOutcome = "LOST"
)

// HoldPayment is a payment that named itself in a call for a hold.
type HoldPayment struct {
	Reference string         `json:"reference"`
	Outcome   PaymentOutcome `json:"outcome"`
	// At is when the payment got its outcome. For one under way it is when the payment started.
	At time.Time `json:"at"`
	// Successor is the hold that got the units of a PaymentReacquired, and nil otherwise.
	Successor *uuid.UUID `json:"successor"`
}

// MaxPayments is the most payments of a list. A customer tries a handful, but nothing bounds how
// many payments start and fail one after another.
const MaxPayments = 100

const listPaymentsSQL = "SELECT list_payments($1, $2)"

// ListPayments reads the newest MaxPayments payments of a hold, also of an archived one, in the
// order in which they got their outcomes. A confirm that names no payment leaves none. A payment
// that was refused because another one had paid isn't listed either, because it has changed
// nothing.
//
// It is read on the Reader, which may be a moment behind, and on the writer for a hold that the
// Reader doesn't have. It returns ErrNotFound, ErrBusy or ErrUnavailable.
func (s *Service) ListPayments(ctx context.Context, hold uuid.UUID) ([]HoldPayment, error) {
	payments, err := listOf[HoldPayment](ctx, s, listPaymentsSQL, hold, MaxPayments)
	if err != nil {
		return nil, fmt.Errorf("list the payments of hold %s: %w", hold, err)
	}
	for i := range payments {
		payments[i].At = payments[i].At.UTC()
	}
	return payments, nil
}
