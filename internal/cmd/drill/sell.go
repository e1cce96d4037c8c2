package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
)

// sale is a hold whose confirmation was answered.
type sale struct {
	hold     uuid.UUID
	answered time.Time
}

// selling are the customers of a shop, until stop.
type selling struct {
	end     context.CancelFunc
	all     sync.WaitGroup
	sold    chan struct{} // closed at the first sale
	failed  chan struct{} // closed at the first failure
	mu      sync.Mutex
	sales   []sale
	failure error
}

// startSelling lets customers buy one unit after another.
func (s *shop) startSelling(ctx context.Context) *selling {
	ctx, end := context.WithCancel(ctx)
	g := &selling{end: end, sold: make(chan struct{}), failed: make(chan struct{})}
	for n := range sellers {
		g.all.Go(func() {
			for round := n; ctx.Err() == nil; round++ {
				hold, err := s.sell(context.WithoutCancel(ctx), s.rows[round%len(s.rows)])
				g.add(hold, err)
			}
		})
	}
	return g
}

// sell lets one customer reserve a unit and pay for it. A call that began is always waited for.
func (s *shop) sell(ctx context.Context, r row) (hold uuid.UUID, err error) {
	hold, err = s.post(ctx, "/api/reservations", map[string]any{
		"productId": r.Product, "warehouseId": r.Warehouse, "quantity": 1,
	})
	if err != nil {
		return hold, err
	}
	return s.post(ctx, "/api/reservations/"+hold.String()+"/confirm", map[string]any{})
}

func (g *selling) add(hold uuid.UUID, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		if g.failure == nil {
			g.failure = err
			close(g.failed)
		}
		g.end()
		return
	}
	g.sales = append(g.sales, sale{hold, time.Now()})
	if len(g.sales) == 1 {
		close(g.sold)
	}
}

// wait lets the customers buy for a while. It returns the first failure.
func (g *selling) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-g.failed:
		return g.failure
	case <-ctx.Done():
		return ctx.Err()
	}
}

// first waits for the first sale.
func (g *selling) first(ctx context.Context) error {
	select {
	case <-g.sold:
		return nil
	case <-g.failed:
		return g.failure
	case <-ctx.Done():
		return errors.Join(errors.New("no sale was made"), ctx.Err())
	}
}

// stop ends the calls and returns the sales.
func (g *selling) stop() []sale {
	g.end()
	g.all.Wait()
	return g.sales
}
