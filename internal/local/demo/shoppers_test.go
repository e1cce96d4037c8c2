package demo

import (
	"context"
	"testing"
	"time"

	"github.com/allo/reservations/internal/pgtest"
)

// The shoppers hold, pay, release, let expire and fail to pay, and sell nothing out.
func TestTheShoppersKeepTheShopGoing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.server.pace = pace{
		pause:  span{time.Millisecond, 10 * time.Millisecond},
		hold:   span{time.Second, 2 * time.Second},
		paying: span{time.Millisecond, 20 * time.Millisecond},
	}
	const half = `
SELECT adjust_stock(product_id, warehouse_id, 4 - total, 'test') FROM inventory
WHERE product_id = $1 AND warehouse_id = $2`
	s.db.Exec(half, Products()[0].ID.String(), Warehouses()[0].ID.String())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.server.RunShoppers(ctx)
	}()
	for _, seen := range []string{
		"SELECT count(*) > 2 FROM reservations WHERE status = 'CONFIRMED'",
		"SELECT count(*) > 0 FROM reservations WHERE status = 'RELEASED'",
		"SELECT count(*) > 0 FROM reservations WHERE status = 'PENDING' AND expires_at < now()",
		"SELECT count(*) > 0 FROM ledger WHERE kind = 'f'",
		"SELECT count(*) > 0 FROM stock_movements WHERE source = 'demo'",
	} {
		s.db.WaitUntil(seen)
	}
	stop()
	<-ended
	const soldOut = `
SELECT count(*) FROM inventory i
WHERE i.total - i.reserved < 1 AND i.total > 0
   OR i.total = 0 AND EXISTS (SELECT FROM stock_movements m WHERE m.product_id = i.product_id
                              AND m.warehouse_id = i.warehouse_id AND m.kind = 'SALE')`
	if n := pgtest.QueryOne[int](s.db, soldOut); n != 0 {
		t.Errorf("%d shelves are sold out, want none", n)
	}
	if n := pgtest.QueryOne[int](s.db, "SELECT count(*) FROM reservations WHERE product_id = $1 "+
		"AND warehouse_id = $2", Products()[2].ID.String(), Warehouses()[2].ID.String()); n != 0 {
		t.Errorf("the shoppers touched the last mug %d times, want never", n)
	}
}

// Another catalog than the demo's is left alone.
func TestNobodyShopsElsewhere(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.db.Exec("TRUNCATE products CASCADE")
	s.db.Stock(s.db.NamedProduct("Mug", "CM-300"), Warehouses()[0].ID, 50)
	shelves, err := s.server.shelves(t.Context())
	if err != nil || len(shelves) != 0 {
		t.Errorf("shelves() = %d, %v, want none", len(shelves), err)
	}
}
