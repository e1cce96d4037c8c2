package reservation

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// holdRow is a hold as the SQL function hold_json writes it. A hold of one line has product_id and
// warehouse_id, a cart has items.
type holdRow struct {
	ID          uuid.UUID  `json:"id"`
	Status      Status     `json:"status"`
	Quantity    int        `json:"quantity"`
	ProductID   *uuid.UUID `json:"product_id"`
	WarehouseID *uuid.UUID `json:"warehouse_id"`
	Items       []Line     `json:"items"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	ExpiresAt   time.Time  `json:"expires_at"`
	Version     int        `json:"version"`
}

func (r holdRow) hold() Hold {
	h := Hold{
		ID: r.ID, Status: r.Status, Quantity: r.Quantity, Lines: r.Items,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(),
		Version: r.Version,
	}
	if r.ProductID != nil && r.WarehouseID != nil {
		h.Lines = []Line{
			{ProductID: *r.ProductID, WarehouseID: *r.WarehouseID, Quantity: r.Quantity},
		}
	}
	return h
}

func decodeHold(data []byte) (Hold, error) {
	var row holdRow
	if err := json.Unmarshal(data, &row); err != nil {
		return Hold{}, fmt.Errorf("read a hold: %w", err)
	}
	return row.hold(), nil
}

// shortRow is a line that reserve_line or reserve_cart refuses.
type shortRow struct {
	Shortage
	// NotForSale means that the product is archived or the warehouse closed. Either all rows of an
	// answer have it or none.
	NotForSale bool `json:"not_for_sale"`
}

// decodeShortages returns an *InsufficientStockError or a *NotForSaleError.
func decodeShortages(data []byte) error {
	var rows []shortRow
	if err := json.Unmarshal(data, &rows); err != nil {
		return fmt.Errorf("read the shortages: %w", err)
	}
	var short InsufficientStockError
	var closed NotForSaleError
	for _, row := range rows {
		if row.NotForSale {
			closed.Lines = append(closed.Lines, StockKey{row.ProductID, row.WarehouseID})
		} else {
			short.Shortages = append(short.Shortages, row.Shortage)
		}
	}
	if len(closed.Lines) > 0 {
		return &closed
	}
	return &short
}
