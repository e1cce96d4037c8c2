package reservation

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Status is the state of a hold.
type Status string

// The statuses. Only a PENDING hold changes.
const (
	Pending   Status = "PENDING"
	Confirmed Status = "CONFIRMED"
	Released  Status = "RELEASED"
	Expired   Status = "EXPIRED"
)

// The limits of a request. They keep a call short and a mistake small. The schema would allow more.
const (
	// MaxQuantity is the most units of one line, after lines of the same stock row are merged.
	MaxQuantity = 1_000_000
	// MaxLines is the most lines of a cart, after merging. Each is a row that is locked until the
	// commit.
	MaxLines = 100
	// MaxKeyLength is the most characters of an Idempotency-Key.
	MaxKeyLength = 255
)

// Line asks for, or holds, units of one product in one warehouse.
type Line struct {
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Quantity    int       `json:"quantity"`
}

// compareLines is the lock order of stock rows. Postgres compares UUIDs by their bytes too.
func compareLines(a, b Line) int {
	return cmp.Or(slices.Compare(a.ProductID[:], b.ProductID[:]),
		slices.Compare(a.WarehouseID[:], b.WarehouseID[:]))
}

// Hold is a reservation as it stood when it was read.
type Hold struct {
	ID        uuid.UUID
	Status    Status
	Quantity  int    // the units of all lines together
	Lines     []Line // by (product, warehouse); never empty
	CreatedAt time.Time
	UpdatedAt time.Time // when the hold was last changed; for a resolved hold, when it was resolved
	ExpiresAt time.Time
	// Version is the number of the hold's newest transition in the ledger. It is 0 for a hold that has
	// not changed since before there was a ledger.
	Version int
}

// ResolvedAt returns when the hold got the status, or nil when it has another.
func (h Hold) ResolvedAt(in Status) *time.Time {
	if h.Status != in {
		return nil
	}
	at := h.UpdatedAt // a pointer into h itself would move all of h to the heap
	return &at
}

// Request asks for a hold.
type Request struct {
	Lines []Line
	// TTL is how long the hold lasts, in whole seconds; zero means the service's default.
	TTL time.Duration
	// Key is the Idempotency-Key, or empty.
	Key string
}

// InvalidError lists the errors of a request, by field.
type InvalidError struct{ Fields map[string][]string }

func (e *InvalidError) Error() string { return fmt.Sprintf("invalid request: %v", e.Fields) }

func (e *InvalidError) add(field, format string, args ...any) {
	if e.Fields == nil {
		e.Fields = map[string][]string{}
	}
	e.Fields[field] = append(e.Fields[field], fmt.Sprintf(format, args...))
}

func (e *InvalidError) orNil() error {
	if e.Fields == nil {
		return nil
	}
	return e
}

// MergeLines adds up the lines of each stock row and sorts them in the lock order. Without merging,
// two lines of one row would each be checked against the same available units.
func MergeLines(lines []Line) []Line {
	merged := slices.Clone(lines)
	slices.SortFunc(merged, compareLines)
	out := merged[:0]
	for _, line := range merged {
		if n := len(out); n > 0 && compareLines(out[n-1], line) == 0 {
			out[n-1].Quantity += line.Quantity
			continue
		}
		out = append(out, line)
	}
	return out
}

// validate merges the request's lines and checks its limits. It checks each quantity before
// merging, because a negative one could hide in a sum.
func (r Request) validate(ctx context.Context, maxHold time.Duration) ([]Line, error) {
	var invalid InvalidError
	for i, line := range r.Lines {
		if line.Quantity < 1 || line.Quantity > MaxQuantity {
			invalid.add(fmt.Sprintf("items[%d].quantity", i), "must be a whole number from 1 to %d",
				MaxQuantity)
		}
	}
	lines := MergeLines(r.Lines)
	if len(lines) < 1 || len(lines) > MaxLines {
		invalid.add("items", "must be from 1 to %d different lines", MaxLines)
	}
	for _, line := range lines {
		if invalid.Fields == nil && line.Quantity > MaxQuantity {
			invalid.add("items", "add up to %d units of product %s in warehouse %s, more than %d",
				line.Quantity, line.ProductID, line.WarehouseID, MaxQuantity)
		}
	}
	if r.TTL != 0 && (r.TTL < time.Second || r.TTL > maxHold || r.TTL%time.Second != 0) {
		invalid.add("ttlSeconds", "must be a whole number from 1 to %d", int(maxHold.Seconds()))
	}
	validateKey(ctx, &invalid, r.Key)
	return lines, invalid.orNil()
}
