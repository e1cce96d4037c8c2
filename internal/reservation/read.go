package reservation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/postgres"
)

// Product is what is sold.
type Product struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
	SKU  string    `json:"sku"`
}

// Warehouse is where it lies.
type Warehouse struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// Stock is a product's count in one warehouse. Reserved counts live holds only, so Total less Reserved is what can be had.
type Stock struct {
	WarehouseID   uuid.UUID `json:"warehouse_id"`
	WarehouseName string    `json:"warehouse_name"`
	Total         int       `json:"total"`
	Reserved      int       `json:"reserved"`
}

// CatalogEntry is a product with its stock in each warehouse, by the warehouse's name.
type CatalogEntry struct {
	Product
	Stocks []Stock
}

// HoldView is a hold as a page shows it.
type HoldView struct {
	Hold Hold
	// Product and Warehouse are nil for a cart of several lines.
	Product   *Product
	Warehouse *Warehouse
	// Now is the database's clock when the hold was read.
	Now time.Time
}

// Cursor is a place in a list that is ordered by name, then id: just behind the entry that has them. The zero Cursor is the
// beginning.
type Cursor struct {
	Name string
	ID   uuid.UUID
}

// The most entries of one page of each list. A product's page is bounded lower, as each entry carries a row for each warehouse.
const (
	MaxProductPage   = 200
	MaxWarehousePage = 1000
)

const readHoldSQL = `SELECT outcome, answer FROM read_hold($1)`

// Get reads a hold. One that is past its end reads as EXPIRED whether or not the sweep has been (I4).
//
// It returns ErrNotFound, ErrBusy or ErrUnavailable.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (HoldView, error) {
	rows, err := s.query(ctx, readHoldSQL, id.String())
	if err != nil {
		return HoldView{}, fmt.Errorf("get reservation %s: %w", id, err)
	}
	outcome, answer := string(rows[0][0]), rows[0][1]
	if outcome == "NOT_FOUND" {
		return HoldView{}, ErrNotFound
	}
	var view struct {
		Hold      holdRow    `json:"hold"`
		Product   *Product   `json:"product"`
		Warehouse *Warehouse `json:"warehouse"`
		Now       time.Time  `json:"now"`
	}
	if err := json.Unmarshal(answer, &view); err != nil {
		return HoldView{}, fmt.Errorf("read reservation %s: %w", id, err)
	}
	return HoldView{Hold: view.Hold.hold(), Product: view.Product, Warehouse: view.Warehouse, Now: view.Now.UTC()}, nil
}

const listProductsSQL = `SELECT * FROM list_products($1, $2, $3)`

// ListProducts reads a page of the catalog, by name. A second answer of true says that more follow the last entry.
//
// The catalog is a picture: it may show a hold a moment before the disk has it, and nobody was promised anything by it.
func (s *Service) ListProducts(ctx context.Context, after Cursor, limit int) ([]CatalogEntry, bool, error) {
	limit = min(max(limit, 1), MaxProductPage)
	rows, err := s.query(ctx, listProductsSQL, after.Name, after.ID.String(), limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list products: %w", err)
	}
	entries, err := catalog(rows)
	if err != nil {
		return nil, false, fmt.Errorf("list products: %w", err)
	}
	page, more := cut(entries, limit)
	return page, more, nil
}

// catalog gathers list_products's rows, one for each product and warehouse, into entries.
func catalog(rows postgres.Rows) ([]CatalogEntry, error) {
	var entries []CatalogEntry
	for _, row := range rows {
		id, err := uuid.ParseBytes(row[0])
		if err != nil {
			return nil, err
		}
		if n := len(entries); n == 0 || entries[n-1].ID != id {
			entries = append(entries, CatalogEntry{Product: Product{ID: id, Name: string(row[1]), SKU: string(row[2])}, Stocks: []Stock{}})
		}
		if row[3] == nil {
			continue // it is kept nowhere
		}
		stock, err := newStock(row[3:])
		if err != nil {
			return nil, err
		}
		last := &entries[len(entries)-1]
		last.Stocks = append(last.Stocks, stock)
	}
	return entries, nil
}

func newStock(columns [][]byte) (Stock, error) {
	id, idErr := uuid.ParseBytes(columns[0])
	total, totalErr := strconv.Atoi(string(columns[2]))
	reserved, reservedErr := strconv.Atoi(string(columns[3]))
	return Stock{WarehouseID: id, WarehouseName: string(columns[1]), Total: total, Reserved: reserved},
		errors.Join(idErr, totalErr, reservedErr)
}

const listWarehousesSQL = `
SELECT id, name FROM warehouses
WHERE (name, id) > ($1, $2)
ORDER BY name, id
LIMIT $3`

// ListWarehouses reads a page of the warehouses, by name. A second answer of true says that more follow the last entry.
func (s *Service) ListWarehouses(ctx context.Context, after Cursor, limit int) ([]Warehouse, bool, error) {
	limit = min(max(limit, 1), MaxWarehousePage)
	rows, err := s.query(ctx, listWarehousesSQL, after.Name, after.ID.String(), limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list warehouses: %w", err)
	}
	var warehouses []Warehouse
	for _, row := range rows {
		id, err := uuid.ParseBytes(row[0])
		if err != nil {
			return nil, false, fmt.Errorf("list warehouses: %w", err)
		}
		warehouses = append(warehouses, Warehouse{ID: id, Name: string(row[1])})
	}
	page, more := cut(warehouses, limit)
	return page, more, nil
}

// cut drops the entry that was only read to see whether there are more.
func cut[T any](entries []T, limit int) ([]T, bool) {
	if len(entries) > limit {
		return entries[:limit], true
	}
	return entries, false
}

// Ping reports whether the database answers. It returns ErrUnavailable.
func (s *Service) Ping(ctx context.Context) error {
	if _, err := s.pool.Query(ctx, "SELECT 1"); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
