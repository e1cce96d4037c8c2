package reservation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// HoldView is a hold with the names that a page shows beside it.
type HoldView struct {
	Hold Hold
	// Product and Warehouse are nil for a cart of several lines.
	Product   *Product
	Warehouse *Warehouse
	// Now is the database's clock when the hold was read.
	Now time.Time
}

const readHoldSQL = `SELECT outcome, answer FROM read_hold($1)`

// Get reads a hold. A hold past its expires_at reads as EXPIRED, even before a sweep (I4).
//
// It returns ErrNotFound, ErrBusy or ErrUnavailable.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (HoldView, error) {
	out, err := queryRow(ctx, s, pgx.RowToStructByPos[outcome], readHoldSQL, id.String())
	if err != nil {
		return HoldView{}, fmt.Errorf("get reservation %s: %w", id, err)
	}
	if out.Name == outcomeNotFound {
		return HoldView{}, ErrNotFound
	}
	var view struct {
		Hold      holdRow    `json:"hold"`
		Product   *Product   `json:"product"`
		Warehouse *Warehouse `json:"warehouse"`
		Now       time.Time  `json:"now"`
	}
	if err := json.Unmarshal(out.Data, &view); err != nil {
		return HoldView{}, fmt.Errorf("read reservation %s: %w", id, err)
	}
	return HoldView{
		Hold: view.Hold.hold(), Product: view.Product, Warehouse: view.Warehouse, Now: view.Now.UTC(),
	}, nil
}
