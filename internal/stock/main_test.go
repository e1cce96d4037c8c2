package stock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a test's database and its callers. Each caller has a pool of one connection, like a
// Lambda.
type fixture struct {
	*pgtest.Fixture
	t       testing.TB
	callers []*caller
}

// caller has the services of one Lambda.
type caller struct {
	*stock.Service
	holds *reservation.Service
}

func newFixture(t testing.TB, callers int) *fixture {
	t.Helper()
	return open(t, pgtest.New(t), callers)
}

// open makes a fixture of a database on any server.
func open(t testing.TB, db pgtest.Database, callers int) *fixture {
	t.Helper()
	f := &fixture{Fixture: pgtest.NewFixture(t, db), t: t}
	for range callers {
		pool, err := postgres.Open(postgres.URL(db.URL), 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		holds := reservation.New(pool,
			reservation.Options{HoldTTL: 10 * time.Minute, MaxHold: time.Hour})
		f.callers = append(f.callers, &caller{stock.New(holds), holds})
	}
	return f
}

// mutate replaces a part of a routine's source. Negative controls use it to remove a guard.
func (f *fixture) mutate(function, old, replacement string) {
	f.t.Helper()
	pgtest.Mutate(f.t, f.Database, function, old, replacement)
}

// queryOne reads one value.
func queryOne[T any](f *fixture, sql string, args ...any) T {
	f.t.Helper()
	return pgtest.QueryOne[T](f.Fixture, sql, args...)
}

// broken returns the promises that the audit finds broken, also by changes of this moment.
func (f *fixture) broken() map[string]int {
	f.t.Helper()
	f.Exec("UPDATE products SET changed_at = '-infinity'")
	f.Exec("UPDATE warehouses SET changed_at = '-infinity'")
	violations, err := f.callers[0].holds.Audit(f.Context())
	if err != nil {
		f.t.Fatalf("Audit() = %v", err)
	}
	found := map[string]int{}
	for _, v := range violations {
		f.t.Logf("audit: %s: %s", v.Promise, v.Detail)
		found[v.Promise]++
	}
	return found
}

// mustAudit fails the test when the audit finds a broken promise.
func (f *fixture) mustAudit() {
	f.t.Helper()
	if found := f.broken(); len(found) != 0 {
		f.t.Errorf("Audit() finds %v broken, want nothing", found)
	}
}

// store is a product in two warehouses, with 100 units each.
type store struct {
	*fixture
	product    uuid.UUID
	east, west uuid.UUID
}

func newStore(t testing.TB, callers int) store {
	t.Helper()
	f := newFixture(t, callers)
	s := store{
		f, f.NamedProduct("Mug", "CM-300"), f.CodedWarehouse("E", "East"), f.CodedWarehouse("W", "West"),
	}
	f.Stock(s.product, s.east, 100)
	f.Stock(s.product, s.west, 100)
	return s
}

// line is one mug from a warehouse.
func (s store) line(warehouse uuid.UUID) reservation.Line {
	return reservation.Line{ProductID: s.product, WarehouseID: warehouse, Quantity: 1}
}

// reserve holds one mug from each of the warehouses.
func (s store) reserve(c *caller, warehouses ...uuid.UUID) (reservation.Hold, error) {
	var lines []reservation.Line
	for _, warehouse := range warehouses {
		lines = append(lines, s.line(warehouse))
	}
	answer, err := c.holds.Reserve(s.t.Context(), reservation.Request{Lines: lines})
	return answer.Hold, err
}

// isOpen reads whether a stock row is open.
func (s store) isOpen(warehouse uuid.UUID) bool {
	s.t.Helper()
	return queryOne[bool](s.fixture,
		"SELECT open FROM inventory WHERE product_id = $1 AND warehouse_id = $2",
		s.product.String(), warehouse.String())
}

func ptr[T any](value T) *T { return &value }

func product(sku string) stock.ProductItem {
	return stock.ProductItem{SKU: sku, Name: ptr("product " + sku)}
}

func productStatus(sku, status string) []stock.ProductItem {
	return []stock.ProductItem{{SKU: sku, Status: &status}}
}

func warehouseStatus(code, status string) []stock.WarehouseItem {
	return []stock.WarehouseItem{{Code: code, Status: &status}}
}

// putProducts puts products and returns their outcomes. It ends the test when it fails.
func (f *fixture) putProducts(items ...stock.ProductItem) []stock.Outcome {
	f.t.Helper()
	results, _, err := f.callers[0].PutProducts(f.Context(), items, "")
	if err != nil {
		f.t.Fatalf("PutProducts(%+v) = %v", items, err)
	}
	var outcomes []stock.Outcome
	for _, result := range results {
		outcomes = append(outcomes, result.Outcome)
	}
	return outcomes
}

// putWarehouses does the same for warehouses.
func (f *fixture) putWarehouses(items ...stock.WarehouseItem) []stock.Outcome {
	f.t.Helper()
	results, _, err := f.callers[0].PutWarehouses(f.Context(), items, "")
	if err != nil {
		f.t.Fatalf("PutWarehouses(%+v) = %v", items, err)
	}
	var outcomes []stock.Outcome
	for _, result := range results {
		outcomes = append(outcomes, result.Outcome)
	}
	return outcomes
}

// refusedLines returns the lines that a reserve names as not for sale, or nil for another answer.
func refusedLines(err error) []reservation.StockKey {
	var refused *reservation.NotForSaleError
	if !errors.As(err, &refused) {
		return nil
	}
	return refused.Lines
}

// together runs n calls of fn at the same moment, each in a goroutine of its own, and waits for
// them.
func together(n int, fn func(i int)) {
	var ready, done sync.WaitGroup
	gate := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-gate
			fn(i)
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
}

// begin runs fn in a goroutine of its own. The returned function waits for its error.
func begin(ctx context.Context, fn func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return func() error {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
