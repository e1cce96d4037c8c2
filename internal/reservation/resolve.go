package reservation

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
)

// Confirm takes a live hold's units out of stock for good. Confirming again gives the same answer.
// When a payment is under way, it is the one that confirms.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrReleased, ErrKeyReused, ErrKeyInUse,
// ErrBusy or ErrUnavailable.
func (s *Service) Confirm(
	ctx context.Context, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	return s.resolve(ctx, resolution{
		verb: "confirm_hold", cause: causeVerb, actor: principal.Actor(ctx),
		success: []Status{Confirmed},
	}, id, idempotencyKey)
}

// Release gives a live hold's units back. Releasing again gives the same answer. Releasing an
// expired hold succeeds too, with the status EXPIRED: its units are free already.
//
// It returns an *InvalidError, ErrNotFound, ErrConfirmed, ErrPaymentStarted, ErrKeyReused,
// ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) Release(
	ctx context.Context, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	return s.resolve(ctx, resolution{
		verb: "release_hold", cause: causeVerb, success: []Status{Released, Expired},
	}, id, idempotencyKey)
}

// Cancel is an operator's Release: it also releases a hold that is being paid. A payment that comes
// all the same finds the hold gone.
//
// It returns an *InvalidError, ErrNotFound, ErrConfirmed, ErrKeyReused, ErrKeyInUse, ErrBusy or
// ErrUnavailable.
func (s *Service) Cancel(
	ctx context.Context, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	return s.resolve(ctx, resolution{
		verb: "cancel_hold", cause: causeOperator, actor: principal.Actor(ctx),
		success: []Status{Released, Expired},
	}, id, idempotencyKey)
}

// resolution says how a hold is resolved.
type resolution struct {
	// verb goes into the key's hash, so it must stay the same across releases.
	verb string
	// cause and actor go into the ledger. The actor is nil for a shopper.
	cause string
	actor *string
	// success lists the statuses that are a success. The hold is set to the first.
	success []Status
}

func (s *Service) resolve(
	ctx context.Context, r resolution, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	var invalid InvalidError
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := keyArgs(ctx, idempotencyKey, r.verb, id[:])
	v := verb{
		procedure: resolveHold,
		args: []any{
			id.String(), string(r.success[0]), r.cause, r.actor, nil, nil, name, hash,
		},
	}
	for _, status := range r.success {
		v.success = append(v.success, string(status))
	}
	return s.call(ctx, v)
}

// Extend gives a live hold a new end, ttl from now, in whole seconds.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrConfirmed, ErrReleased,
// ErrPaymentStarted, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable, and ErrExtensionLimit
// when the hold would outlive its creation by more than MaxHold.
func (s *Service) Extend(
	ctx context.Context, id uuid.UUID, ttl time.Duration, idempotencyKey string,
) (Answer, error) {
	var invalid InvalidError
	if ttl < time.Second || ttl%time.Second != 0 {
		invalid.add("ttlSeconds", "must be a whole number from 1")
	}
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := keyArgs(ctx, idempotencyKey, "extend_hold", id[:], seconds(ttl))
	// The longest durations don't fit into Postgres's interval. Every TTL above MaxHold is refused
	// alike, so a shorter one takes their place.
	ttl = min(ttl, s.opts.MaxHold+time.Second)
	return s.call(ctx, verb{
		procedure: extendHold,
		args:      []any{id.String(), "x", nil, nil, ttl, nil, s.opts.MaxHold, name, hash},
		success:   []string{string(Pending)},
	})
}
