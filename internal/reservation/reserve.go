package reservation

import (
	"context"
	"encoding/binary"
	"fmt"
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
	v := verb{success: []string{"HELD"}, lines: lines}
	if len(lines) == 1 {
		v.name = "reserve_line"
		v.args = []any{id.String(), lines[0].ProductID.String(), lines[0].WarehouseID.String(), lines[0].Quantity, ttl, name, hash}
	} else {
		v.name = "reserve_cart"
		products, warehouses, quantities := columns(lines)
		v.args = []any{id.String(), products, warehouses, quantities, ttl, name, hash}
	}
	return s.do(ctx, v)
}

// columns turns lines into the arrays that unnest makes rows of.
func columns(lines []Line) (products, warehouses []string, quantities []int32) {
	for _, line := range lines {
		products = append(products, line.ProductID.String())
		warehouses = append(warehouses, line.WarehouseID.String())
		quantities = append(quantities, int32(line.Quantity))
	}
	return products, warehouses, quantities
}

func lineBytes(lines []Line) []byte {
	var b []byte
	for _, line := range lines {
		b = append(b, line.ProductID[:]...)
		b = append(b, line.WarehouseID[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(line.Quantity))
	}
	return b
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(d/time.Second))
}
