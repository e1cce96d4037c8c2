package reservation_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

func TestCatalogIsReadInPagesByName(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	ctx := f.Context()
	s := f.services()[0]
	// The order is by bytes: capitals come before small letters. Entries of one name are ordered by
	// id.
	names := []string{"B", "a", "a", "b", "ä"}
	for i, name := range names {
		f.Exec("INSERT INTO products (id, name, sku) VALUES ($1, $2, $3)", uuid.NewString(), name,
			fmt.Sprint("SKU-", i))
		f.Exec("INSERT INTO warehouses (id, name) VALUES ($1, $2)", uuid.NewString(), name)
	}
	f.Exec(`
INSERT INTO inventory (product_id, warehouse_id, total)
SELECT p.id, w.id, 7 FROM products p, warehouses w WHERE p.name = 'b'`)

	for limit := 1; limit <= len(names)+1; limit++ {
		var products, warehouses []string
		readAll(t, func(after reservation.Cursor) (reservation.Cursor, bool) {
			page, next, err := s.ListProducts(ctx, after, limit)
			if err != nil || len(page) == 0 || len(page) > limit {
				t.Fatalf("ListProducts(%+v, %d) = %d entries, %v", after, limit, len(page), err)
			}
			for _, e := range page {
				products = append(products, e.Name)
			}
			if next == nil {
				return reservation.Cursor{}, false
			}
			return *next, true
		})
		readAll(t, func(after reservation.Cursor) (reservation.Cursor, bool) {
			page, next, err := s.ListWarehouses(ctx, after, limit)
			if err != nil || len(page) == 0 || len(page) > limit {
				t.Fatalf("ListWarehouses(%+v, %d) = %d entries, %v", after, limit, len(page), err)
			}
			for _, e := range page {
				warehouses = append(warehouses, e.Name)
			}
			if next == nil {
				return reservation.Cursor{}, false
			}
			return *next, true
		})
		if diff := cmp.Diff(names, products); diff != "" {
			t.Errorf("ListProducts() in pages of %d differs (-want +got):\n%s", limit, diff)
		}
		if diff := cmp.Diff(names, warehouses); diff != "" {
			t.Errorf("ListWarehouses() in pages of %d differs (-want +got):\n%s", limit, diff)
		}
	}
	page, _, err := s.ListProducts(ctx, reservation.Cursor{Name: "a", ID: uuid.Max}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, stock := range page[0].Stocks {
		order = append(order, stock.WarehouseName)
	}
	if diff := cmp.Diff(names, order); diff != "" {
		t.Errorf("the stocks of a product differ in order (-want +got):\n%s", diff)
	}
}

// readAll reads page after page from the beginning, as long as there are more.
func readAll(t *testing.T, page func(reservation.Cursor) (reservation.Cursor, bool)) {
	t.Helper()
	after, more := page(reservation.Cursor{})
	for more {
		after, more = page(after)
	}
}

func TestEmptyCatalogIsAnEmptyPage(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	s := f.services()[0]

	products, nextProducts, err := s.ListProducts(f.Context(), reservation.Cursor{}, 50)
	if err != nil || len(products) != 0 || nextProducts != nil {
		t.Errorf("ListProducts() = %v, %v, %v, want none", products, nextProducts, err)
	}
	warehouses, nextWarehouses, err := s.ListWarehouses(f.Context(), reservation.Cursor{}, 50)
	if err != nil || len(warehouses) != 0 || nextWarehouses != nil {
		t.Errorf("ListWarehouses() = %v, %v, %v, want none", warehouses, nextWarehouses, err)
	}
	if err := s.Ping(f.Context()); err != nil {
		t.Errorf("Ping() = %v", err)
	}
}

func TestTheCatalogIsConsistentWhileHoldsDieAndAreSwept(t *testing.T) {
	t.Parallel()

	mustHold(t, 6, raceOfCatalogAndSweep)
}

// raceOfCatalogAndSweep lists the catalog while a sweep expires dead holds. There are no live
// holds, so the catalog must never show a reserved unit.
func raceOfCatalogAndSweep(ctx context.Context, f *fixture, r *report) {
	const rounds, dead = 15, 6
	services := f.services()
	rows := f.stocks(dead, dead)
	for range rounds {
		for n := range dead {
			f.kill(f.hold(rows[:1+n%2]...))
		}
		together(len(services), func(i int) {
			if i == 0 {
				_, err := services[i].Sweep(ctx)
				r.check(err == nil, "error", "Sweep() = %v", err)
				return
			}
			entries, _, err := services[i].ListProducts(ctx, reservation.Cursor{}, 50)
			r.check(err == nil, "error", "ListProducts() = %v", err)
			for _, e := range entries {
				if e.ID == rows[0].ProductID || e.ID == rows[1].ProductID {
					r.check(e.Stocks[0].Reserved == 0, "I4",
						"the catalog shows %+v, want none reserved", e.Stocks[0])
				}
			}
		})
	}
}
