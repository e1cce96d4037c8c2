package reservation

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	// MaxNameLength is the most characters of a reference, and of a payment's reference.
	MaxNameLength = 100
	// MaxOwnerLength is the most characters of an owner: as many as OpenID Connect allows the sub of a
	// token.
	MaxOwnerLength = 255
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
	// Payment is the payment under way, or nil. A hold that isn't PENDING has none.
	Payment *Payment
	// Reference is what the caller calls the hold, and Owner is the customer. Both are empty when the
	// request named none, and when they were erased.
	Reference, Owner string
	// Replaces is the hold whose place this one took, or nil.
	Replaces *uuid.UUID
	// ReplacedBy is the hold that took the place of this one, or nil. A hold has at most one.
	ReplacedBy *uuid.UUID
}

// Payment is a payment under way: the customer has gone to pay.
type Payment struct {
	// Reference is the payment side's name for the payment.
	Reference string    `json:"reference"`
	StartedAt time.Time `json:"started_at"`
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
	// Reference is the caller's own name for the hold, such as an order number, or empty. Owner is the
	// customer, or empty. IsReference and IsOwner say what else they can be.
	Reference, Owner string
	// Replaces is a hold that this one takes the place of, or nil. Its units count as free. When it is
	// dead or released, it is ignored.
	Replaces *uuid.UUID
}

// isDetailed reports whether the request asks for more than lines and a time.
func (r Request) isDetailed() bool {
	return r.Reference != "" || r.Owner != "" || r.Replaces != nil
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

// limits are the settings that bound a request.
type limits struct {
	ttl          time.Duration
	units, lines int
}

// validate merges the request's lines and checks its limits. It checks each quantity before
// merging, because a negative one could hide in a sum.
func (r Request) validate(ctx context.Context, most limits) ([]Line, error) {
	var invalid InvalidError
	for i, line := range r.Lines {
		if line.Quantity < 1 || line.Quantity > MaxQuantity {
			invalid.add(fmt.Sprintf("items[%d].quantity", i), "must be a whole number from 1 to %d",
				MaxQuantity)
		}
	}
	lines := MergeLines(r.Lines)
	if len(lines) < 1 || len(lines) > most.lines {
		invalid.add("items", "must be from 1 to %d different lines", most.lines)
	}
	for _, line := range lines {
		if invalid.Fields == nil && line.Quantity > MaxQuantity {
			invalid.add("items", "add up to %d units of product %s in warehouse %s, more than %d",
				line.Quantity, line.ProductID, line.WarehouseID, MaxQuantity)
		}
	}
	if sum := units(lines); invalid.Fields == nil && sum > most.units {
		invalid.add("items", "add up to %d units, more than the %d of one hold", sum, most.units)
	}
	if r.TTL != 0 && (r.TTL < time.Second || r.TTL > most.ttl || r.TTL%time.Second != 0) {
		invalid.add("ttlSeconds", "must be a whole number from 1 to %d", int(most.ttl.Seconds()))
	}
	if r.Reference != "" {
		validateName(&invalid, "reference", r.Reference)
	}
	if r.Owner != "" {
		validateOwner(&invalid, r.Owner)
	}
	validateKey(ctx, &invalid, r.Key)
	return lines, invalid.orNil()
}

// IsReference reports whether a name is valid as a reference: 1 to MaxNameLength characters of
// UTF-8, without control characters.
func IsReference(name string) bool { return isName(name, MaxNameLength) }

// IsOwner reports whether a name is valid as an owner: 1 to MaxOwnerLength characters of UTF-8,
// without control characters.
func IsOwner(name string) bool { return isName(name, MaxOwnerLength) }

func isName(name string, most int) bool {
	length := utf8.RuneCountInString(name)
	return length >= 1 && length <= most && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, unicode.IsControl)
}

// badName says what a valid name is.
const badName = "must be 1 to %d characters without control characters"

// validateName accepts what IsReference does.
func validateName(invalid *InvalidError, field, name string) {
	if !IsReference(name) {
		invalid.add(field, badName, MaxNameLength)
	}
}

// validateOwner accepts what IsOwner does.
func validateOwner(invalid *InvalidError, owner string) {
	if !IsOwner(owner) {
		invalid.add("owner", badName, MaxOwnerLength)
	}
}
