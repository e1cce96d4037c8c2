package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
)

// ConfirmPayment confirms a hold for the payment with this reference. A payment that comes again
// gets the same answer. When the hold is gone, and reacquire is set, it takes the hold's units
// anew: the answer's Hold is then a successor that is CONFIRMED, and Reacquired is true. If that
// can't be, the payment is lost. Both are final for the payment, whatever the stock does later.
//
// It returns what Confirm returns, and an *AlreadyPaidError or a *PaymentLostError: in both cases
// this payment must be refunded.
func (s *Service) ConfirmPayment(
	ctx context.Context, id uuid.UUID, payment string, reacquire bool, idempotencyKey string,
) (Answer, error) {
	var invalid InvalidError
	validateName(&invalid, "paymentReference", payment)
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	var successor *string
	gone := []byte("REFUSE")
	if reacquire {
		made, err := uuid.NewV7()
		if err != nil {
			return Answer{}, fmt.Errorf("make an id: %w", err)
		}
		text := made.String()
		successor, gone = &text, []byte("REACQUIRE")
	}
	name, hash := keyArgs(ctx, idempotencyKey, "confirm_payment", id[:], []byte(payment), gone)
	return s.call(ctx, verb{
		procedure: resolveHold,
		args: []any{
			id.String(), string(Confirmed), causeVerb, principal.Actor(ctx), payment, successor, name,
			hash,
		},
		success: []string{string(Confirmed), outcomeReacquired},
	})
}

// StartPayment says that the customer has gone to pay, for ttl in whole seconds. The hold ends
// then, or later if it would have lasted longer, and at most MaxPaymentHold after it was made.
// Until the payment is confirmed or has failed, the shopper can neither release nor extend the
// hold. The payment takes the place of another one that is under way. Of a hold that this payment
// has confirmed, it changes nothing.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrReleased, an *AlreadyPaidError,
// ErrExtensionLimit, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) StartPayment(
	ctx context.Context, id uuid.UUID, payment string, ttl time.Duration, idempotencyKey string,
) (Answer, error) {
	return s.extendForPayment(ctx, "p", id, payment, &ttl, idempotencyKey)
}

// FailPayment says that a payment failed. The hold ends ttl from now, so that the customer may try
// again; a ttl of nil is the time of a new hold, or what is left of MaxPaymentHold. Another payment
// than the one under way changes nothing, and neither does any when the hold is gone.
//
// It returns an *InvalidError, ErrNotFound, ErrExtensionLimit, ErrKeyReused, ErrKeyInUse, ErrBusy
// or ErrUnavailable.
func (s *Service) FailPayment(
	ctx context.Context, id uuid.UUID, payment string, ttl *time.Duration, idempotencyKey string,
) (Answer, error) {
	return s.extendForPayment(ctx, "f", id, payment, ttl, idempotencyKey)
}

// extendForPayment is the call of extend_hold for a payment. kind is that of the ledger.
func (s *Service) extendForPayment(
	ctx context.Context, kind string, id uuid.UUID, payment string, ttl *time.Duration,
	idempotencyKey string,
) (Answer, error) {
	var invalid InvalidError
	validateName(&invalid, "paymentReference", payment)
	asked := time.Duration(0)
	if ttl != nil {
		asked = *ttl
		if asked < time.Second || asked%time.Second != 0 {
			invalid.add("ttlSeconds", "must be a whole number from 1")
		}
	}
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := keyArgs(ctx, idempotencyKey, "payment_"+kind, id[:], []byte(payment),
		seconds(asked))
	if ttl != nil {
		asked = min(asked, s.opts.MaxPaymentHold+time.Second) // as in Extend
		ttl = &asked
	}
	return s.call(ctx, verb{
		procedure: extendHold,
		args: []any{
			id.String(), kind, payment, principal.Actor(ctx), ttl, s.opts.HoldTTL,
			s.opts.MaxPaymentHold, name, hash,
		},
		success: []string{string(Pending), outcomeUnchanged},
	})
}
