package reservation_test

import (
	"context"
	"errors"
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

// stockedCatalog makes three products: two of one name, in two warehouses of one name and a third,
// and one without stock. Some of their units are held, and others belong to dead holds.
func stockedCatalog(f *fixture) (skus []string) {
	f.t.Helper()
	skus = []string{"M-1", "M-2", "L-1"}
	products := []uuid.UUID{
		f.NamedProduct("Mug", skus[0]), f.NamedProduct("Mug", skus[1]),
		f.NamedProduct("Lamp", skus[2]),
	}
	for _, name := range []string{"East", "East", "North"} {
		warehouse := f.NamedWarehouse(name)
		for _, product := range products[:2] {
			f.Stock(product, warehouse, 10)
			line := reservation.Line{ProductID: product, WarehouseID: warehouse, Quantity: 2}
			f.hold(line)
			f.kill(f.hold(line))
		}
	}
	return skus
}

// chosenDiffs compares the chosen products with the list of all.
func chosenDiffs(f *fixture, skus []string) (diffs []string) {
	f.t.Helper()
	ctx := f.Context()
	s := f.services()[0]
	add := func(call string, want, got any) {
		if diff := cmp.Diff(want, got); diff != "" {
			diffs = append(diffs, fmt.Sprintf("%s differs (-list +got):\n%s", call, diff))
		}
	}
	all, _, err := s.ListProducts(ctx, reservation.Cursor{}, reservation.MaxProductPage)
	if err != nil {
		f.t.Fatal(err)
	}
	asked := append([]string{"none", skus[0]}, skus...)
	got, next, err := s.ListProductsBySKU(ctx, asked, reservation.Cursor{})
	if err != nil || next != nil {
		f.t.Fatalf("ListProductsBySKU(%q) leads to %+v, %v, want all at once", asked, next, err)
	}
	add("ListProductsBySKU() of all", all, got)
	for i, want := range all {
		entry, next, err := s.Product(ctx, want.ID, uuid.Nil)
		add("the end of Product()", "<nil> "+uuid.Nil.String(), fmt.Sprint(err, " ", next))
		add("Product()", want, entry)
		rest, _, err := s.ListProductsBySKU(ctx, asked, reservation.Cursor{ID: want.ID})
		if err != nil {
			f.t.Fatal(err)
		}
		add("ListProductsBySKU() after a product", len(all[i+1:]), len(rest))
		for n, stock := range want.Stocks {
			entry, _, err := s.Product(ctx, want.ID, stock.WarehouseID)
			add("the end of Product() after a warehouse", "<nil>", fmt.Sprint(err))
			add("Product() after a warehouse", want.Stocks[n+1:], entry.Stocks)
		}
	}
	return diffs
}

func TestChosenProductsAreThoseOfTheList(t *testing.T) {
	t.Parallel()

	f := newFixture(t, 1)
	for _, diff := range chosenDiffs(f, stockedCatalog(f)) {
		t.Error(diff)
	}
	s := f.services()[0]
	none, next, err := s.ListProductsBySKU(f.Context(), []string{"none"}, reservation.Cursor{})
	if err != nil || len(none) != 0 || next != nil {
		t.Errorf("ListProductsBySKU() of no product = %v, %v, %v, want none", none, next, err)
	}
	for _, after := range []uuid.UUID{uuid.Nil, uuid.New()} {
		_, _, err := s.Product(f.Context(), uuid.New(), after)
		if !errors.Is(err, reservation.ErrProductNotFound) {
			t.Errorf("Product() of no product = %v, want ErrProductNotFound", err)
		}
	}
}

// Each case removes one part of the statement. The comparison with the list must show it.
func TestBrokenChosenProductsDifferFromTheList(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ old, replacement string }{
		"dead holds count as reserved": {"IF reserved > 0 THEN", "IF false THEN"},
		"the products have no order":   {"ORDER BY p.name, p.id", "ORDER BY p.sku DESC"},
		"warehouses of one name have no order": {
			"ORDER BY s.name, s.id", "ORDER BY s.name, s.id DESC",
		},
		"the rest begins with the product again": {
			"OR p.id = _after AND _warehouse IS NOT NULL", "OR p.id = _after",
		},
		"warehouses of one name are skipped": {
			"(w.name, w.id) > (_from, coalesce(_warehouse, _nowhere))", "w.name > _from",
		},
		"a product without stock is left out": {"LEFT JOIN", "JOIN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := newFixture(t, 1)
			skus := stockedCatalog(f)
			f.mutate("read_products", c.old, c.replacement)
			if diffs := chosenDiffs(f, skus); len(diffs) == 0 {
				t.Error("the chosen products agree with the list, want a difference")
			}
		})
	}
}
