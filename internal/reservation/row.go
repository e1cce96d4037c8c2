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
}

func (r holdRow) hold() Hold {
	h := Hold{
		ID: r.ID, Status: r.Status, Quantity: r.Quantity, Lines: r.Items,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(),
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

func decodeNotForSale(data []byte) error {
	var refused NotForSaleError
	if err := json.Unmarshal(data, &refused.Lines); err != nil {
		return fmt.Errorf("read the lines that aren't for sale: %w", err)
	}
	return &refused
}

func decodeShortages(data []byte) error {
	var short InsufficientStockError
	if err := json.Unmarshal(data, &short.Shortages); err != nil {
		return fmt.Errorf("read the shortages: %w", err)
	}
	return &short
}
