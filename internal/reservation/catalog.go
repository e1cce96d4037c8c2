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
	Code string    `json:"code"`
	Name string    `json:"name"`
}

// Limits are the most units of a product that callers may hold. Nil means no limit.
type Limits struct {
	MaxPerHold  *int // by one line of a hold
	MaxPerOwner *int // by one owner, in live and confirmed holds, less what was returned (I12)
}

// Stock is a product's count in one warehouse. Reserved counts live holds only, so Total less
// Reserved is available.
type Stock struct {
	WarehouseID   uuid.UUID
	WarehouseCode string
	WarehouseName string
	Total         int
	Reserved      int
}

// Shown returns the available units of a stock row as a shopper is told them, when the shopper is
// told at most so many, or all if most is zero. With orMore there may be more.
func Shown(available, most int) (units int, orMore bool) {
	if most > 0 && available >= most {
		return most, true
	}
	return available, false
}

// CatalogEntry is a product with its stock in each OPEN warehouse, ordered by the warehouse's name.
type CatalogEntry struct {
	Product
	Limits
	Stocks []Stock
	// AsOf is the number of the newest tick that the entry's snapshot sees. All entries of a page have
	// the same. What the live channel says with a higher one is newer.
	AsOf int64
}

// Cursor is a place in a list that is ordered by name, then id. The zero Cursor is the beginning.
type Cursor struct {
	// ID and Name are those of the entry before the place. Without a Name it is the name that the
	// entry has when the list goes on; if there is no such entry by then, nothing follows.
	ID   uuid.UUID
	Name string
	// Warehouse, unless zero, is a warehouse of the product ID. The place is inside the product,
	// after this warehouse.
	Warehouse uuid.UUID
}

// name returns the cursor's name as an argument of the statements: nil means that they look it up.
func (c Cursor) name() *string {
	if c.Name == "" && c.ID != uuid.Nil {
		return nil
	}
	return &c.Name
}

// The most entries of a page. A page of products has fewer, because each product has a row for
// every warehouse.
const (
	MaxProductPage   = 200
	MaxWarehousePage = 1000
	// MaxSKUs is the most SKUs of one read. A shop's page of search results has fewer.
	MaxSKUs = 50
)

// The bounds of a page as a whole. A page ends early when it meets one, and the next page goes on
// there. JSON makes at most six bytes of a byte of text, and a stock row has 199 bytes beside its
// text, so that no page is larger than 4 MB.
const (
	// MaxStockPage is the most stock rows of a page of products.
	MaxStockPage = 5000
	// maxPageText is the most text of a page, in bytes: its names, SKUs and codes. A page has more
	// only if its first row alone has more.
	maxPageText = 512 << 10
)

const listProductsSQL = `
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick())
FROM list_catalog($1, $2, $3, $4, $5, $6)`

// stockRow is a row of list_catalog. A product's first row has its name, SKU and limits, and the
// others may have them. A product without stock has one row, with nulls. A last row without a
// product says that more follows.
type stockRow struct {
	ID            *uuid.UUID
	Name, SKU     *string
	MaxPerHold    *int
	MaxPerOwner   *int
	WarehouseID   *uuid.UUID
	WarehouseCode *string
	WarehouseName *string
	Total         *int
	Reserved      *int
	AsOf          int64
}

// ListProducts reads a page of the catalog, the ACTIVE products ordered by name. next is where the
// next page begins, or nil on the last page. A page has at most limit products and MaxStockPage
// stock rows. A product whose stock rows don't fit on the rest of a page begins the next one. Only
// a product that doesn't fit on a page of its own is divided: its first stock rows are on one page,
// and the others on the next. ListProducts returns ErrBusy or ErrUnavailable.
//
// The catalog is a snapshot that promises nothing. It may show a hold that isn't on disk yet. It is
// read on the Reader, which may be a moment behind. AsOf tells which moment it is of: a reader has
// a tick together with all that the tick's snapshot sees, as its log is in that order.
func (s *Service) ListProducts(
	ctx context.Context, after Cursor, limit int,
) (entries []CatalogEntry, next *Cursor, err error) {
	limit = min(max(limit, 1), MaxProductPage)
	rows, err := read(ctx, s, pgx.RowToStructByPos[stockRow], listProductsSQL, after.name(),
		after.ID.String(), unlessNil(after.Warehouse), limit, MaxStockPage, maxPageText)
	if err != nil {
		return nil, nil, fmt.Errorf("list products: %w", err)
	}
	entries, next = catalog(rows)
	return entries, next, nil
}

const searchProductsSQL = `
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick()), place
FROM search_catalog($1, $2, $3, $4, $5, $6, $7)`

// searchedRow is a row of search_catalog. A last row with a place has nothing else.
type searchedRow struct {
	stockRow
	Place *uuid.UUID
}

// SearchProducts reads a page of the products that have each of the words in their name or their
// SKU, in any case. It is a page of ListProducts otherwise, and it looks at MaxSearch products: so
// it may be short or empty, and next isn't nil as long as products are left. Of after only the ids
// count: a product's name is the present one. It returns ErrBusy or ErrUnavailable.
func (s *Service) SearchProducts(
	ctx context.Context, words []string, after Cursor, limit int,
) (entries []CatalogEntry, next *Cursor, err error) {
	limit = min(max(limit, 1), MaxProductPage)
	found, err := read(ctx, s, pgx.RowToStructByPos[searchedRow], searchProductsSQL, words,
		unlessNil(after.ID), unlessNil(after.Warehouse), limit, MaxSearch, MaxStockPage, maxPageText)
	if err != nil {
		return nil, nil, fmt.Errorf("search products: %w", err)
	}
	var place *Cursor
	rows := make([]stockRow, 0, len(found))
	for _, row := range found {
		if row.Place != nil {
			place = &Cursor{ID: *row.Place}
			break
		}
		rows = append(rows, row.stockRow)
	}
	if entries, next = catalog(rows); next == nil {
		next = place
	}
	return entries, next, nil
}

const readProductsSQL = `
SELECT product_id, product_name, sku, max_per_hold, max_per_owner,
       warehouse_id, warehouse_code, warehouse_name, total, reserved, (SELECT last_tick())
FROM read_products($1, $2, $3, $4, $5, $6)`

// ListProductsBySKU reads the products that have one of the SKUs, of which it takes the first
// MaxSKUs, ordered by name. It leaves out an SKU that no product has. It ends where a page of
// ListProducts would, with MaxStockPage stock rows at most: next is then where the rest begins, and
// otherwise nil. Of after only the ids count: a product's name is the present one.
// ListProductsBySKU returns ErrBusy or ErrUnavailable.
func (s *Service) ListProductsBySKU(
	ctx context.Context, skus []string, after Cursor,
) (entries []CatalogEntry, next *Cursor, err error) {
	return s.readProducts(ctx, nil, skus[:min(len(skus), MaxSKUs)], after)
}

// Product reads one product. If its stock rows don't fit on a page of ListProducts, the entry has
// the first of them, and next is the last warehouse that it has: after leads to the others. next is
// otherwise zero, and so is after at first. Product returns ErrProductNotFound, ErrBusy or
// ErrUnavailable.
func (s *Service) Product(
	ctx context.Context, id, after uuid.UUID,
) (entry CatalogEntry, next uuid.UUID, err error) {
	var place Cursor
	if after != uuid.Nil {
		place = Cursor{ID: id, Warehouse: after}
	}
	entries, rest, err := s.readProducts(ctx, &id, nil, place)
	switch {
	case err != nil:
		return CatalogEntry{}, uuid.Nil, err
	case len(entries) == 0:
		return CatalogEntry{}, uuid.Nil, ErrProductNotFound
	case rest != nil:
		next = rest.Warehouse
	}
	return entries[0], next, nil
}

// readProducts reads the product with the id, or those with the SKUs.
func (s *Service) readProducts(
	ctx context.Context, id *uuid.UUID, skus []string, after Cursor,
) (entries []CatalogEntry, next *Cursor, err error) {
	found := func(rows []stockRow) bool { return id == nil || len(rows) > 0 }
	rows, err := readKnown(ctx, s, found, pgx.RowToStructByPos[stockRow], readProductsSQL,
		optionalID(id), skus, unlessNil(after.ID), unlessNil(after.Warehouse), MaxStockPage,
		maxPageText)
	if err != nil {
		return nil, nil, fmt.Errorf("read products: %w", err)
	}
	entries, next = catalog(rows)
	return entries, next, nil
}

// unlessNil returns an id as an argument of the statements: null for the nil UUID.
func unlessNil(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	return optionalID(&id)
}

// catalog gathers rows into entries. The rows of one product follow one another. It drops the last
// product if its other stock rows are missing, unless it is the only one.
func catalog(rows []stockRow) (entries []CatalogEntry, next *Cursor) {
	for _, row := range rows {
		if row.ID == nil { // more follows, so there is an entry
			if row.WarehouseID != nil && len(entries) == 1 {
				only := entries[0]
				return entries, &Cursor{ID: only.ID, Name: only.Name, Warehouse: *row.WarehouseID}
			}
			if row.WarehouseID != nil {
				entries = entries[:len(entries)-1]
			}
			last := entries[len(entries)-1]
			return entries, &Cursor{ID: last.ID, Name: last.Name}
		}
		if len(entries) == 0 || entries[len(entries)-1].ID != *row.ID {
			product := Product{ID: *row.ID, Name: *row.Name, SKU: *row.SKU}
			entries = append(entries, CatalogEntry{
				Product: product, Limits: Limits{row.MaxPerHold, row.MaxPerOwner}, Stocks: []Stock{},
				AsOf: row.AsOf,
			})
		}
		if row.WarehouseID == nil {
			continue // the product has no stock row
		}
		last := &entries[len(entries)-1]
		last.Stocks = append(last.Stocks, Stock{
			WarehouseID: *row.WarehouseID, WarehouseCode: *row.WarehouseCode,
			WarehouseName: *row.WarehouseName, Total: *row.Total, Reserved: *row.Reserved,
		})
	}
	return entries, nil
}

// listWarehousesSQL reads one warehouse more than the page has, to see whether more follow. It
// answers the first one even if its name alone is too long.
const listWarehousesSQL = `
WITH page AS MATERIALIZED (
    SELECT w.id, w.code, w.name,
           sum(octet_length(w.code) + octet_length(w.name)) OVER (ORDER BY w.name, w.id) AS bytes
    FROM (SELECT id, code, name FROM warehouses
          WHERE (name, id) > (coalesce($1, (SELECT name FROM warehouses WHERE id = $2)), $2)
            AND status = 'OPEN'
          ORDER BY name, id LIMIT $3 + 1) w
)
SELECT id, code, name, (SELECT count(*) FROM page)
FROM page WHERE bytes <= $4 OR bytes = octet_length(code) + octet_length(name)
ORDER BY name, id LIMIT $3`

// warehouseRow is a row of listWarehousesSQL.
type warehouseRow struct {
	Warehouse
	Read int // how many warehouses were read
}

// ListWarehouses reads a page of the OPEN warehouses, ordered by name. next is where the next page
// begins, or nil on the last page. A page may have fewer than limit warehouses if their names are
// long. ListWarehouses returns ErrBusy or ErrUnavailable.
func (s *Service) ListWarehouses(
	ctx context.Context, after Cursor, limit int,
) (warehouses []Warehouse, next *Cursor, err error) {
	limit = min(max(limit, 1), MaxWarehousePage)
	rows, err := read(ctx, s, pgx.RowToStructByPos[warehouseRow],
		listWarehousesSQL, after.name(), after.ID.String(), limit, maxPageText)
	if err != nil {
		return nil, nil, fmt.Errorf("list warehouses: %w", err)
	}
	for _, row := range rows {
		warehouses = append(warehouses, row.Warehouse)
	}
	if n := len(rows); n > 0 && rows[0].Read > n {
		next = &Cursor{ID: rows[n-1].ID, Name: rows[n-1].Name}
	}
	return warehouses, next, nil
}
