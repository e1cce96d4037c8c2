package httpapi

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/stock"
)

const (
	// defaultRowPage is the number of stock rows on a page when the request names none.
	defaultRowPage = 50
	// maxFilterText is the most characters of an SKU or a code to look for.
	maxFilterText = 500
)

// stockRowDTO is a stock row with its product and its warehouse.
type stockRowDTO struct {
	ProductID        uuid.UUID `json:"productId"`
	SKU              string    `json:"sku"`
	Name             string    `json:"name"`
	Status           string    `json:"status"`
	WarehouseID      uuid.UUID `json:"warehouseId"`
	WarehouseCode    string    `json:"warehouseCode"`
	WarehouseStatus  string    `json:"warehouseStatus"`
	TotalQuantity    int       `json:"totalQuantity"`
	ReservedQuantity int       `json:"reservedQuantity"`
	AvailableStock   int       `json:"availableStock"`
	Seq              int64     `json:"seq"`
}

func (a *API) listStock(w *recorder, r *http.Request) error {
	q := readQuery(r)
	filter := readRowFilter(q)
	binding := q.binding()
	limit := q.readLimit(defaultRowPage, stock.MaxRowPage)
	var after *stock.RowCursor
	q.readCursor(func(order string, product uuid.UUID, key []byte) (ok bool) {
		after, ok = parseRowKey(product, key, binding)
		return ok && order == orderBySKU
	})
	total := q.readTotal()
	if err := q.bad.err(); err != nil {
		return err
	}
	rows, next, err := a.stock.ListRows(r.Context(), filter, after, limit)
	if err != nil {
		return err
	}
	if total {
		count, err := a.stock.CountRows(r.Context(), filter)
		if err != nil {
			return err
		}
		tellTotal(w, count)
	}
	body := make([]stockRowDTO, 0, len(rows))
	for _, row := range rows {
		body = append(body, stockRowDTO{
			ProductID: row.ProductID, SKU: row.SKU, Name: row.Name, Status: row.Status,
			WarehouseID: row.WarehouseID, WarehouseCode: row.WarehouseCode,
			WarehouseStatus: row.WarehouseStatus, TotalQuantity: row.Total,
			ReservedQuantity: row.Reserved, AvailableStock: row.Total - row.Reserved, Seq: row.Seq,
		})
	}
	if next != nil {
		key := binding
		if next.Warehouse != nil {
			key = append(key, next.Warehouse[:]...)
		}
		q.linkNext(w, r, limit, encodeCursor(orderBySKU, next.Product, key))
	}
	return writeJSON(w, http.StatusOK, body)
}

// readRowFilter reads which stock rows to list.
func readRowFilter(q query) (filter stock.RowFilter) {
	text := func(name string) (found *string) {
		const message = "must have 1 to %d characters"
		q.read(name, fmt.Sprintf(message, maxFilterText), func(value string) bool {
			found = &value
			return isName(value) && utf8.RuneCountInString(value) <= maxFilterText
		})
		return found
	}
	filter.SKU, filter.Warehouse = text("sku"), text("warehouse")
	filter.ProductID, filter.WarehouseID = q.readID("productId"), q.readID("warehouseId")
	filter.Words = q.readWords()
	const message = "must be a whole number from 1 to %d"
	q.read("availableBelow", fmt.Sprintf(message, stock.MaxUnits), func(value string) bool {
		units, err := strconv.Atoi(value)
		filter.AvailableBelow = &units
		return err == nil && units >= 1 && units <= stock.MaxUnits
	})
	return filter
}

// bindingSize is the length of a list's binding, in bytes. It finds mistakes, and no attacks.
const bindingSize = 8

// binding is a hash of the parameters that were read so far. The key of a cursor begins with it, so
// that the cursor of one filter is no cursor of another.
func (q query) binding() []byte {
	sum := sha256.Sum256([]byte(q.known.Encode()))
	return sum[:bindingSize]
}

// parseRowKey reads the place of a cursor. The key is the binding of its list, and then the
// warehouse, if it has one.
func parseRowKey(product uuid.UUID, key, binding []byte) (after *stock.RowCursor, ok bool) {
	if product == uuid.Nil || !bytes.HasPrefix(key, binding) {
		return nil, false
	}
	after = &stock.RowCursor{Product: product}
	switch rest := key[len(binding):]; len(rest) {
	case 0:
		return after, true
	case len(uuid.Nil):
		warehouse := uuid.UUID(rest)
		after.Warehouse = &warehouse
		return after, true
	default:
		return nil, false
	}
}
