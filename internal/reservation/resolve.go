package reservation

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
)

// Confirm takes a live hold's units out of stock for good. Confirming again gives the same answer.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrReleased, ErrKeyReused, ErrKeyInUse,
// ErrBusy or ErrUnavailable.
func (s *Service) Confirm(
	ctx context.Context, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	return s.resolve(ctx, "confirm_hold", id, principal.Actor(ctx), idempotencyKey, Confirmed)
}

// Release gives a live hold's units back. Releasing again gives the same answer. Releasing an
// expired hold succeeds too, with the status EXPIRED: its units are free already.
//
// It returns an *InvalidError, ErrNotFound, ErrConfirmed, ErrKeyReused, ErrKeyInUse, ErrBusy or
// ErrUnavailable.
func (s *Service) Release(
	ctx context.Context, id uuid.UUID, idempotencyKey string,
) (Answer, error) {
	return s.resolve(ctx, "release_hold", id, nil, idempotencyKey, Released, Expired)
}

// resolve sets a hold to the first of the statuses. An answer with any of them is a success.
// verbName goes into the key's hash, so it must stay the same across releases. The actor goes into
// the ledger, and is nil for a shopper.
func (s *Service) resolve(
	ctx context.Context, verbName string, id uuid.UUID, actor *string, idempotencyKey string,
	success ...Status,
) (Answer, error) {
	var invalid InvalidError
	validateKey(ctx, &invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := keyArgs(ctx, idempotencyKey, verbName, id[:])
	v := verb{
		procedure: resolveHold,
		args:      []any{id.String(), string(success[0]), actor, name, hash},
	}
	for _, status := range success {
		v.success = append(v.success, string(status))
	}
	return s.call(ctx, v)
}

// Extend gives a live hold a new end, ttl from now, in whole seconds.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrConfirmed, ErrReleased, ErrKeyReused,
// ErrKeyInUse, ErrBusy or ErrUnavailable, and ErrExtensionLimit when the hold would outlive its
// creation by more than MaxHold.
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
		args:      []any{id.String(), ttl, s.opts.MaxHold, name, hash},
		success:   []string{string(Pending)},
	})
}
