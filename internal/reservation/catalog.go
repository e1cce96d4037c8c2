package reservation

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Product is a product of the catalog.
type Product struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
	SKU  string    `json:"sku"`
}

// Warehouse is a place where stock is kept.
type Warehouse struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// Stock is a product's count in one warehouse. Reserved counts live holds only, so Total less
// Reserved is available.
type Stock struct {
	WarehouseID   uuid.UUID
	WarehouseName string
	Total         int
	Reserved      int
}

// CatalogEntry is a product with its stock in each warehouse, ordered by the warehouse's name.
type CatalogEntry struct {
	Product
	Stocks []Stock
}

// Cursor is a place in a list that is ordered by name, then id: just after the entry with these
// two. The zero Cursor is the beginning.
type Cursor struct {
	Name string
	ID   uuid.UUID
}

// The most entries of a page. A page of products has fewer, because each product has a row for
// every warehouse.
const (
	MaxProductPage   = 200
	MaxWarehousePage = 1000
)

const listProductsSQL = `
SELECT product_id, product_name, sku, warehouse_id, warehouse_name, total, reserved
FROM list_products($1, $2, $3)`

// stockRow is a row of list_products. A product without stock has one row, with nulls.
type stockRow struct {
	ID            uuid.UUID
	Name, SKU     string
	WarehouseID   *uuid.UUID
	WarehouseName *string
	Total         *int
	Reserved      *int
}

// ListProducts reads a page of the catalog, ordered by name. It also reports whether more entries
// follow. It returns ErrBusy or ErrUnavailable.
//
// The catalog is a snapshot that promises nothing. It may show a hold that isn't on disk yet.
func (s *Service) ListProducts(
	ctx context.Context, after Cursor, limit int,
) (entries []CatalogEntry, more bool, err error) {
	limit = min(max(limit, 1), MaxProductPage)
	rows, err := query(ctx, s, pgx.RowToStructByPos[stockRow],
		listProductsSQL, after.Name, after.ID.String(), limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list products: %w", err)
	}
	entries, more = cut(catalog(rows), limit)
	return entries, more, nil
}

// catalog gathers rows into entries. The rows of one product follow one another.
func catalog(rows []stockRow) []CatalogEntry {
	var entries []CatalogEntry
	for _, row := range rows {
		if n := len(entries); n == 0 || entries[n-1].ID != row.ID {
			product := Product{ID: row.ID, Name: row.Name, SKU: row.SKU}
			entries = append(entries, CatalogEntry{Product: product, Stocks: []Stock{}})
		}
		if row.WarehouseID == nil {
			continue // the product has no stock row
		}
		last := &entries[len(entries)-1]
		last.Stocks = append(last.Stocks, Stock{
			WarehouseID: *row.WarehouseID, WarehouseName: *row.WarehouseName,
			Total: *row.Total, Reserved: *row.Reserved,
		})
	}
	return entries
}

const listWarehousesSQL = `
SELECT id, name
FROM warehouses
WHERE (name, id) > ($1, $2)
ORDER BY name, id
LIMIT $3`

// ListWarehouses reads a page of the warehouses, ordered by name. It also reports whether more
// follow. It returns ErrBusy or ErrUnavailable.
func (s *Service) ListWarehouses(
	ctx context.Context, after Cursor, limit int,
) (warehouses []Warehouse, more bool, err error) {
	limit = min(max(limit, 1), MaxWarehousePage)
	warehouses, err = query(ctx, s, pgx.RowToStructByPos[Warehouse],
		listWarehousesSQL, after.Name, after.ID.String(), limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list warehouses: %w", err)
	}
	warehouses, more = cut(warehouses, limit)
	return warehouses, more, nil
}

// cut drops the entry that was read only to see whether more follow.
func cut[T any](entries []T, limit int) ([]T, bool) {
	if len(entries) > limit {
		return entries[:limit], true
	}
	return entries, false
}
