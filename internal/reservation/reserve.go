package reservation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Reserve holds all lines of the request or none (I7). Lines of one stock row are merged first.
//
// It returns an *InvalidError, ErrInventoryNotFound, a *NotForSaleError, a *LimitError,
// ErrOwnerRequired, an *InsufficientStockError, ErrKeyReused, ErrKeyInUse, ErrBusy or
// ErrUnavailable; and of the hold that it is to replace ErrNotFound, ErrConfirmed or
// ErrPaymentStarted. Stock that only dead holds occupy is reclaimed, so dead holds never cause an
// InsufficientStockError (I4).
func (s *Service) Reserve(ctx context.Context, r Request) (Answer, error) {
	lines, err := r.validate(ctx, limits{s.opts.MaxHold, s.opts.MaxUnits, s.opts.MaxLines})
	if err != nil {
		return s.refuse(ctx, r, err)
	}
	// A UUIDv7 begins with the time, so new rows go to the end of the primary key's index. 62 of its
	// bits come from crypto/rand for each id. They keep it secret: who knows it can use the hold.
	id, err := uuid.NewV7()
	if err != nil {
		return Answer{}, fmt.Errorf("make an id: %w", err)
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = s.opts.HoldTTL
	}
	name, hash := r.keyArgs(ctx, lines)
	if r.isDetailed() {
		return s.reserveDetailed(ctx, id, r, lines, ttl, name, hash)
	}
	v := verb{success: []string{outcomeHeld}}
	v.newHold = func(at time.Time) Hold {
		return Hold{
			ID: id, Status: Pending, Quantity: units(lines), Lines: lines,
			CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(ttl), Version: 1,
		}
	}
	if len(lines) == 1 {
		product, warehouse := lines[0].ProductID.String(), lines[0].WarehouseID.String()
		v.procedure = reserveLine
		v.args = []any{id.String(), product, warehouse, lines[0].Quantity, ttl, name, hash}
	} else {
		products, warehouses, quantities := columns(lines)
		v.procedure = reserveCart
		v.args = []any{id.String(), products, warehouses, quantities, ttl, name, hash}
	}
	return s.call(ctx, v)
}

// reserveDetailed reserves for an owner, under a reference or in the place of another hold.
func (s *Service) reserveDetailed(
	ctx context.Context, id uuid.UUID, r Request, lines []Line, ttl time.Duration, name *string,
	hash []byte,
) (Answer, error) {
	products, warehouses, quantities := columns(lines)
	return s.call(ctx, verb{
		procedure: reserveDetailed,
		args: []any{
			id.String(), products, warehouses, quantities, ttl, optional(r.Owner),
			optional(r.Reference), optionalID(r.Replaces), name, hash,
		},
		success: []string{string(Pending)},
	})
}

// keyArgs is the function keyArgs for a request that has these lines after merging. The hash has
// the requested TTL, not the one in effect. Otherwise a changed default would make a retry a
// different request.
func (r Request) keyArgs(ctx context.Context, lines []Line) (name *string, hash []byte) {
	if !r.isDetailed() {
		return keyArgs(ctx, r.Key, "reserve", seconds(r.TTL), lineBytes(lines))
	}
	var replaces []byte
	if r.Replaces != nil {
		replaces = r.Replaces[:]
	}
	return keyArgs(ctx, r.Key, "reserve", seconds(r.TTL), lineBytes(lines), []byte(r.Owner),
		[]byte(r.Reference), replaces)
}

// refuse refuses an invalid request. MaxHold, MaxUnits and MaxLines are settings, so they may have
// been higher when the first request under the key was answered. A request that only they refuse
// gets that answer again (I6). Only such a request with a key costs a round trip.
func (s *Service) refuse(ctx context.Context, r Request, refusal error) (Answer, error) {
	lines, err := r.validate(ctx, limits{r.TTL, MaxLines * MaxQuantity, MaxLines})
	if r.Key == "" || err != nil {
		return Answer{}, refusal
	}
	name, hash := r.keyArgs(ctx, lines)
	answer, err := s.call(ctx, verb{procedure: replayAnswer, args: []any{name, hash}})
	if errors.Is(err, errKeyUnused) {
		return Answer{}, refusal
	}
	return answer, err
}

// units adds up the quantities of the lines.
func units(lines []Line) int {
	sum := 0
	for _, line := range lines {
		sum += line.Quantity
	}
	return sum
}

// columns turns lines into the arrays that the procedure unnests.
func columns(lines []Line) (products, warehouses []string, quantities []int) {
	for _, line := range lines {
		products = append(products, line.ProductID.String())
		warehouses = append(warehouses, line.WarehouseID.String())
		quantities = append(quantities, line.Quantity)
	}
	return products, warehouses, quantities
}

// lineBytes and seconds are parts of a key's hash. They must stay the same across releases.
func lineBytes(lines []Line) []byte {
	b := make([]byte, 0, len(lines)*(len(uuid.UUID{})*2+4))
	for _, line := range lines {
		b = append(b, line.ProductID[:]...)
		b = append(b, line.WarehouseID[:]...)
		quantity := uint32(line.Quantity) // #nosec G115 -- at most MaxQuantity
		b = binary.BigEndian.AppendUint32(b, quantity)
	}
	return b
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(d/time.Second)) // #nosec G115 -- only hashed
}
