package reservation

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Reserve holds all the request's lines or none (I7), for as long as it asks. Lines of one stock row are merged first.
//
// It returns an *InvalidError, ErrInventoryNotFound, an *InsufficientStockError, ErrKeyReused, ErrKeyInUse, ErrBusy or
// ErrUnavailable. Stock that only dead holds occupy is reclaimed, so it is never the cause of an InsufficientStockError (I4).
func (s *Service) Reserve(ctx context.Context, r Request) (Answer, error) {
	lines, err := r.validate(s.opts.MaxHold)
	if err != nil {
		return Answer{}, err
	}
	// A UUIDv7 begins with the time, which keeps the primary key's inserts on one page; 62 of its bits can't be guessed.
	id, err := uuid.NewV7()
	if err != nil {
		return Answer{}, fmt.Errorf("make an id: %w", err)
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = s.opts.HoldTTL
	}
	// The key binds what was asked: a default that changes between two tries must not make them different requests.
	name, hash := key(r.Key, "reserve", seconds(r.TTL), lineBytes(lines))
	v := verb{success: []string{outcomeHeld}, lines: lines}
	v.held = func(at time.Time) Hold {
		return Hold{ID: id, Status: Pending, Quantity: units(lines), Lines: lines, CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(ttl)}
	}
	if len(lines) == 1 {
		v.procedure = reserveLine
		v.args = []any{id.String(), lines[0].ProductID.String(), lines[0].WarehouseID.String(), lines[0].Quantity, ttl, name, hash}
	} else {
		v.procedure = reserveCart
		products, warehouses, quantities := columns(lines)
		v.args = []any{id.String(), products, warehouses, quantities, ttl, name, hash}
	}
	return s.do(ctx, v)
}

// units is how many units the lines have together.
func units(lines []Line) int {
	sum := 0
	for _, line := range lines {
		sum += line.Quantity
	}
	return sum
}

// columns writes lines as the arrays that unnest makes rows of, in Postgres's text form.
func columns(lines []Line) (products, warehouses, quantities string) {
	var p, w, q []string
	for _, line := range lines {
		p = append(p, line.ProductID.String())
		w = append(w, line.WarehouseID.String())
		q = append(q, strconv.Itoa(line.Quantity))
	}
	array := func(values []string) string { return "{" + strings.Join(values, ",") + "}" }
	return array(p), array(w), array(q)
}

func lineBytes(lines []Line) []byte {
	b := make([]byte, 0, len(lines)*(len(uuid.UUID{})*2+4))
	for _, line := range lines {
		b = append(b, line.ProductID[:]...)
		b = append(b, line.WarehouseID[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(line.Quantity)) // #nosec G115 -- at most MaxQuantity
	}
	return b
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(d/time.Second)) // #nosec G115 -- no hold lasts below zero seconds, and these bytes are only hashed
}
