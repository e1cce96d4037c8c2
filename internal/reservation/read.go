package reservation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
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
	var outcome string
	var answer []byte
	err := s.retry(ctx, func() error {
		return s.pool.QueryRow(ctx, readHoldSQL, id.String()).Scan(&outcome, &answer)
	})
	if err != nil {
		return HoldView{}, fmt.Errorf("get reservation %s: %w", id, err)
	}
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

// The page is cut first, by the index on (name, id), so that a deep page costs what the first does. Only a row with something reserved
// can have dead holds, so the others aren't asked. All of it is one snapshot, in
// which reserved and the dead holds that are taken off it agree.
const listProductsSQL = `
WITH page AS MATERIALIZED (
    SELECT id, name, sku FROM products
    WHERE (name, id) > ($1, $2)
    ORDER BY name, id
    LIMIT $3
)
SELECT p.id, p.name, p.sku,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'warehouse_id', w.id, 'warehouse_name', w.name, 'total', i.total,
                   'reserved', i.reserved - CASE WHEN i.reserved > 0 THEN dead_units(i.product_id, i.warehouse_id) ELSE 0 END)
                   ORDER BY w.name, w.id), '[]')
        FROM inventory i
        JOIN warehouses w ON w.id = i.warehouse_id
        WHERE i.product_id = p.id)
FROM page p
ORDER BY p.name, p.id`

// ListProducts reads a page of the catalog, by name. A second answer of true says that more follow the last entry.
//
// The catalog is a picture: it may show a hold a moment before the disk has it, and nobody was promised anything by it.
func (s *Service) ListProducts(ctx context.Context, after Cursor, limit int) ([]CatalogEntry, bool, error) {
	limit = min(max(limit, 1), MaxProductPage)
	var entries []CatalogEntry
	err := s.retry(ctx, func() error {
		rows, err := s.pool.Query(ctx, listProductsSQL, after.Name, after.ID.String(), limit+1)
		if err != nil {
			return err
		}
		entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (CatalogEntry, error) {
			var e CatalogEntry
			var stocks []byte
			if err := row.Scan(&e.ID, &e.Name, &e.SKU, &stocks); err != nil {
				return e, err
			}
			return e, json.Unmarshal(stocks, &e.Stocks)
		})
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("list products: %w", err)
	}
	page, more := cut(entries, limit)
	return page, more, nil
}

const listWarehousesSQL = `
SELECT id, name FROM warehouses
WHERE (name, id) > ($1, $2)
ORDER BY name, id
LIMIT $3`

// ListWarehouses reads a page of the warehouses, by name. A second answer of true says that more follow the last entry.
func (s *Service) ListWarehouses(ctx context.Context, after Cursor, limit int) ([]Warehouse, bool, error) {
	limit = min(max(limit, 1), MaxWarehousePage)
	var warehouses []Warehouse
	err := s.retry(ctx, func() error {
		rows, err := s.pool.Query(ctx, listWarehousesSQL, after.Name, after.ID.String(), limit+1)
		if err != nil {
			return err
		}
		warehouses, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Warehouse])
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("list warehouses: %w", err)
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
	var one int
	if err := s.pool.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
