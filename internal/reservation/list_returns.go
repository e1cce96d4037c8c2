package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// ReturnedLine is a line of a return: units of a hold's line that came back.
type ReturnedLine struct {
	Reference   string    `json:"reference"`
	Line        int       `json:"line"` // numbers the lines of a reference from 1
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"` // from which the units were sold
	Quantity    int       `json:"quantity"`
	// ToWarehouseID is where the units are for sale again. It is nil when they weren't restocked.
	ToWarehouseID *uuid.UUID `json:"to_warehouse_id"`
	At            time.Time  `json:"at"`
	Actor         *string    `json:"actor"` // nil while nobody signs in
}

// MaxReturnedLines is the most lines of a list. A hold of 100 lines that comes back in one parcel
// fits twice, and the answer is within 100 KB.
const MaxReturnedLines = 200

const listReturnsSQL = "SELECT list_returns($1, $2)"

// ListReturns reads the newest MaxReturnedLines lines of a hold's returns, also of an archived
// hold, in the order in which they came back. Units that weren't restocked have no movement, so
// this list alone tells of them.
//
// It is read on the Reader, which may be a moment behind, and on the writer for a hold that the
// Reader doesn't have. It returns ErrNotFound, ErrBusy or ErrUnavailable.
func (s *Service) ListReturns(ctx context.Context, hold uuid.UUID) ([]ReturnedLine, error) {
	lines, err := listOf[ReturnedLine](ctx, s, listReturnsSQL, hold, MaxReturnedLines)
	if err != nil {
		return nil, fmt.Errorf("list the returns of hold %s: %w", hold, err)
	}
	for i := range lines {
		lines[i].At = lines[i].At.UTC()
	}
	return lines, nil
}
