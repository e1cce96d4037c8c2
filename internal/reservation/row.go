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
	Payment     *Payment   `json:"payment"`
	Reference   string     `json:"reference"`
	Owner       string     `json:"owner"`
	Replaces    *uuid.UUID `json:"replaces"`
	ReplacedBy  *uuid.UUID `json:"replaced_by"`
}

func (r holdRow) hold() Hold {
	h := Hold{
		ID: r.ID, Status: r.Status, Quantity: r.Quantity, Lines: r.Items,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(),
		Version: r.Version, Reference: r.Reference, Owner: r.Owner,
		Replaces: r.Replaces, ReplacedBy: r.ReplacedBy,
	}
	if r.Payment != nil {
		h.Payment = &Payment{r.Payment.Reference, r.Payment.StartedAt.UTC()}
	}
	if r.ProductID != nil && r.WarehouseID != nil {
		h.Lines = []Line{
			{ProductID: *r.ProductID, WarehouseID: *r.WarehouseID, Quantity: r.Quantity},
		}
	}
	return h
}

func decodeHold(data []byte) (Hold, error) {
	answer, err := decodeAnswer(data, false)
	return answer.Hold, err
}

// decodeAnswer reads a success, or the answer to a payment that is lost, which is stored under a
// key as a success is.
func decodeAnswer(data []byte, replayed bool) (Answer, error) {
	var row struct {
		holdRow
		Outcome string     `json:"outcome"`
		Short   []shortRow `json:"short"`
	}
	if err := json.Unmarshal(data, &row); err != nil {
		return Answer{}, fmt.Errorf("read an answer: %w", err)
	}
	if row.Outcome == outcomePaymentLost {
		lost := &PaymentLostError{Replayed: replayed}
		lost.Shortages, lost.Limits, _ = split(row.Short)
		return Answer{}, lost
	}
	return Answer{
		Hold: row.hold(), Replayed: replayed, Reacquired: row.Outcome == outcomeReacquired,
	}, nil
}

// decodeAlreadyPaid returns an *AlreadyPaidError.
func decodeAlreadyPaid(data []byte) error {
	var row struct {
		Payment *string `json:"payment"`
	}
	if err := json.Unmarshal(data, &row); err != nil {
		return fmt.Errorf("read the payment that was first: %w", err)
	}
	return &AlreadyPaidError{Payment: row.Payment}
}

// shortRow is a line that a reserve refuses. All rows of an answer are of one kind.
type shortRow struct {
	Shortage
	// NotForSale means that the product is archived or the warehouse closed.
	NotForSale bool `json:"not_for_sale"`
	// Max is the limit that the line exceeds, or nil when it exceeds none. Used is what the owner has.
	Max  *int `json:"max"`
	Used int  `json:"used"`
	// OwnerRequired means that the limit is one for each owner, and the request names none.
	OwnerRequired bool `json:"owner_required"`
}

// split sorts rows by their kind. A line that isn't for sale is among the shortages too.
func split(rows []shortRow) (short []Shortage, limits []Limit, closed []StockKey) {
	for _, row := range rows {
		if row.Max != nil {
			limits = append(limits, Limit{
				ProductID: row.ProductID, Max: *row.Max, Used: row.Used, Requested: row.Requested,
			})
			continue
		}
		short = append(short, row.Shortage)
		if row.NotForSale {
			closed = append(closed, StockKey{row.ProductID, row.WarehouseID})
		}
	}
	return short, limits, closed
}

// decodeShortages returns an *InsufficientStockError, a *NotForSaleError, a *LimitError or
// ErrOwnerRequired.
func decodeShortages(data []byte) error {
	var rows []shortRow
	if err := json.Unmarshal(data, &rows); err != nil {
		return fmt.Errorf("read the shortages: %w", err)
	}
	short, limits, closed := split(rows)
	switch {
	case len(limits) > 0 && rows[0].OwnerRequired:
		return ErrOwnerRequired
	case len(limits) > 0:
		return &LimitError{limits}
	case len(closed) > 0:
		return &NotForSaleError{closed}
	default:
		return &InsufficientStockError{short}
	}
}
