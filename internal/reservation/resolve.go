package reservation

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Confirm takes a live hold's units out of stock for good. Confirming again answers the same.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrReleased, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) Confirm(ctx context.Context, id uuid.UUID, idempotencyKey string) (Answer, error) {
	return s.resolve(ctx, "confirm_hold", id, idempotencyKey, Confirmed)
}

// Release gives a live hold's units back. Releasing again answers the same, and a hold that expired is answered as such, for
// what the caller wants has come about.
//
// It returns an *InvalidError, ErrNotFound, ErrConfirmed, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) Release(ctx context.Context, id uuid.UUID, idempotencyKey string) (Answer, error) {
	return s.resolve(ctx, "release_hold", id, idempotencyKey, Released, Expired)
}

// resolve brings a hold to the first of the statuses that are a success.
func (s *Service) resolve(ctx context.Context, keyed string, id uuid.UUID, idempotencyKey string, success ...Status) (Answer, error) {
	var invalid InvalidError
	validateKey(&invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := key(idempotencyKey, keyed, id[:])
	v := verb{procedure: resolveHold, args: []any{id.String(), string(success[0]), name, hash}}
	for _, status := range success {
		v.success = append(v.success, string(status))
	}
	return s.do(ctx, v)
}

// Extend gives a live hold a new end, ttl from now, in whole seconds.
//
// It returns an *InvalidError, ErrNotFound, ErrExpired, ErrConfirmed, ErrReleased, ErrExtensionLimit when the hold would outlive
// its creation by more than MaxHold, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) Extend(ctx context.Context, id uuid.UUID, ttl time.Duration, idempotencyKey string) (Answer, error) {
	var invalid InvalidError
	if ttl < time.Second || ttl%time.Second != 0 {
		invalid.add("ttlSeconds", "must be a whole number from 1")
	}
	validateKey(&invalid, idempotencyKey)
	if err := invalid.orNil(); err != nil {
		return Answer{}, err
	}
	name, hash := key(idempotencyKey, "extend_hold", id[:], seconds(ttl))
	// Whatever is past the limit is so by a second too, and Postgres's intervals end before Go's durations do.
	return s.do(ctx, verb{
		procedure: extendHold,
		args:      []any{id.String(), min(ttl, s.opts.MaxHold+time.Second), s.opts.MaxHold, name, hash},
		success:   []string{string(Pending)},
	})
}
