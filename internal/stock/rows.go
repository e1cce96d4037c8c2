package stock

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// The bounds of a page of stock rows.
const (
	// MaxRowPage is the most stock rows of a page.
	MaxRowPage = 500
	// MaxRowScan is how many stock rows one page looks at, and products without one.
	MaxRowScan = 5000
	// maxRowText is the most text of a page, in bytes: its SKUs, names and codes. JSON makes at most
	// six bytes of a byte of text, and a row has 400 bytes beside its text, so that no page is larger
	// than 4 MB. A page has more only if its first row alone has more.
	maxRowText = 512 << 10
)

// Row is a product's stock in one warehouse.
type Row struct {
	ProductID       uuid.UUID
	SKU, Name       string
	Status          string // of the product: Active or Archived
	WarehouseID     uuid.UUID
	WarehouseCode   string
	WarehouseStatus string // Open or Closed
	// Reserved counts live holds only, so Total less Reserved is available.
	Total, Reserved int
	// Seq is the number of the newest movement.
	Seq int64
}

// RowFilter says which stock rows to list. A nil stands for any.
type RowFilter struct {
	// Words select the stock rows of the products that have each word in their name or their SKU, in
	// any case.
	Words []string
	// ProductID and WarehouseID select the stock rows of a product, and of a warehouse.
	ProductID, WarehouseID *uuid.UUID
	SKU                    *string
	Warehouse              *string // its code
	// AvailableBelow selects the stock rows of which fewer units are available.
	AvailableBelow *int
}

// RowCursor is a place in a list of stock rows: after the stock row of a product in a warehouse, or
// after all those of the product if Warehouse is nil.
type RowCursor struct {
	Product   uuid.UUID
	Warehouse *uuid.UUID
}

const listStockSQL = `
SELECT product_id, sku, name, status, warehouse_id, warehouse_code, warehouse_status, total,
       reserved, seq
FROM list_stock($1, $2, $3, $4, $5, $6, $7, $8)`

const findStockSQL = `
SELECT product_id, sku, name, status, warehouse_id, warehouse_code, warehouse_status, total,
       reserved, seq
FROM find_stock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`

// statement is the SQL of the page of limit rows after a place, with its arguments.
func (f RowFilter) statement(product, warehouse *string, limit int) (sql string, args []any) {
	if f.Words == nil && f.ProductID == nil && f.WarehouseID == nil {
		return listStockSQL, []any{
			f.SKU, f.Warehouse, f.AvailableBelow, product, warehouse, limit, MaxRowScan, maxRowText,
		}
	}
	return findStockSQL, []any{
		f.Words, idText(f.ProductID), idText(f.WarehouseID), f.SKU, f.Warehouse, f.AvailableBelow,
		product, warehouse, limit, reservation.MaxSearch, MaxRowScan, maxRowText,
	}
}

// listedRow is a row of list_stock. A last one without an SKU is the place where the next page
// begins.
type listedRow struct {
	ProductID                      uuid.UUID
	SKU, Name, Status              *string
	WarehouseID                    *uuid.UUID
	WarehouseCode, WarehouseStatus *string
	Total                          *int
	Reserved                       *int
	Seq                            *int64
}

// ListRows reads a page of the stock rows by (SKU, warehouse code), also those of archived products
// and closed warehouses. next is where the next page begins, or nil on the last page. A page may be
// short or empty without being the last: it looks at MaxRowScan stock rows at most, and with Words
// at reservation.MaxSearch products.
//
// The list is a snapshot that locks nothing and waits for no disk. It is read as reservation.Read
// does. ListRows returns reservation.ErrBusy or ErrUnavailable.
func (s *Service) ListRows(
	ctx context.Context, filter RowFilter, after *RowCursor, limit int,
) (rows []Row, next *RowCursor, err error) {
	limit = min(max(limit, 1), MaxRowPage)
	var product, warehouse *string
	if after != nil {
		product, warehouse = idText(&after.Product), idText(after.Warehouse)
	}
	sql, args := filter.statement(product, warehouse, limit)
	listed, err := reservation.Read(ctx, s.db, pgx.RowToStructByPos[listedRow], sql, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("list stock rows: %w", err)
	}
	for _, r := range listed {
		if r.SKU == nil {
			return rows, &RowCursor{r.ProductID, r.WarehouseID}, nil
		}
		rows = append(rows, Row{
			ProductID: r.ProductID, SKU: *r.SKU, Name: *r.Name, Status: *r.Status,
			WarehouseID: *r.WarehouseID, WarehouseCode: *r.WarehouseCode,
			WarehouseStatus: *r.WarehouseStatus, Total: *r.Total, Reserved: *r.Reserved, Seq: *r.Seq,
		})
	}
	return rows, nil, nil
}

// maxBelowCount is how many stock rows a count looks at with AvailableBelow, because it looks for
// the dead holds of each one that may be short.
const maxBelowCount = 20_000

const countStockSQL = `SELECT n, whole FROM count_stock($1, $2, $3, $4, $5, $6, $7, $8)`

// CountRows counts the stock rows that ListRows lists, up to reservation.MaxCount. It looks at
// reservation.MaxCountSearch products at most, and with AvailableBelow at maxBelowCount stock rows.
// It is read as reservation.Read does. It returns reservation.ErrBusy or ErrUnavailable.
func (s *Service) CountRows(ctx context.Context, f RowFilter) (reservation.Count, error) {
	scan := reservation.MaxCount
	if f.AvailableBelow != nil {
		scan = maxBelowCount
	}
	rows, err := reservation.Read(ctx, s.db, pgx.RowToStructByPos[reservation.CountRow],
		countStockSQL, f.Words, idText(f.ProductID), idText(f.WarehouseID), f.SKU, f.Warehouse,
		f.AvailableBelow, reservation.MaxCountSearch, scan)
	if err != nil {
		return reservation.Count{}, fmt.Errorf("count stock rows: %w", err)
	}
	return rows[0].Count(), nil // a call of a function has one row
}
