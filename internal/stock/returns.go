package stock

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

// MaxReturnLines is the most lines of a return, after merging. A hold has no more lines.
const MaxReturnLines = reservation.MaxLines

// ownSources begins the source of every movement that the service makes by itself. No document has
// such a source, so that a document and a return never have the same line.
const ownSources = "/api/"

// Return is a parcel of goods of one hold that came back. Its reference names it among the hold's
// returns. It has one effect, however often it is sent.
type Return struct {
	Reservation uuid.UUID
	Reference   string
	Lines       []ReturnLine
}

// ReturnLine is units of a hold's line that came back.
type ReturnLine struct {
	// ProductID and WarehouseID name the line of the hold.
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Quantity    int       `json:"quantity"`
	// ToWarehouseID is where the units go back on the shelf. Nil means that they can't be sold again.
	ToWarehouseID *uuid.UUID `json:"to_warehouse_id"`
}

// ReturnedLine is a line of a return that was taken back.
type ReturnedLine struct {
	ReturnLine
	// Seq is the number of the movement of the stock row that the units went to, or nil.
	Seq *int64 `json:"seq"`
}

// Returned is what became of a return, now or at the first call under its reference.
type Returned struct {
	Hold  reservation.Hold
	Lines []ReturnedLine // merged, by (product, destination, warehouse)
	// Replayed is true when an earlier call under the same Idempotency-Key had the effect.
	Replayed bool
}

// The refusals of a return. Nothing was changed.
var (
	// ErrNotConfirmed means that the hold isn't CONFIRMED, so that nothing of it was sold.
	ErrNotConfirmed = errors.New("the hold isn't confirmed")
	// ErrReferenceReused means that the return of this reference had other lines.
	ErrReferenceReused = errors.New("the reference was used for another return")
	// ErrWarehouseNotFound means that a line would go to a warehouse that doesn't exist.
	ErrWarehouseNotFound = errors.New("warehouse not found")
	// ErrTooManyUnits means that a total would be more than a stock row can have.
	ErrTooManyUnits = errors.New("too many units for a stock row")
)

// Excess is a line of a hold of which more would be back than was sold. Of a line that the hold
// doesn't have, nothing was sold.
type Excess struct {
	ProductID   uuid.UUID `json:"product_id"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Sold        int       `json:"sold"`
	Returned    int       `json:"returned"` // by the returns before
	Requested   int       `json:"requested"`
}

// ExcessError lists every line of which more would be back than was sold. Nothing was changed.
type ExcessError struct{ Lines []Excess }

func (e *ExcessError) Error() string {
	return fmt.Sprintf("of %d lines more would be back than was sold", len(e.Lines))
}

const returnSQL = "CALL return_goods($1, $2, $3, $4, $5, $6, NULL, NULL)"

// Return takes goods of a confirmed hold back: all of its lines, or none. The same return again
// gets the same answer. When Return succeeds, the effect is on disk.
//
// It returns a *reservation.InvalidError, whose fields are named as in the contract's JSON, an
// *ExcessError, ErrNotConfirmed, ErrReferenceReused, ErrWarehouseNotFound, ErrTooManyUnits, or
// reservation.ErrNotFound, ErrKeyReused, ErrKeyInUse, ErrBusy or ErrUnavailable.
func (s *Service) Return(ctx context.Context, r Return, key string) (Returned, error) {
	merged, err := r.validate()
	if err != nil {
		return Returned{}, err
	}
	r.Lines = merged
	request, err := json.Marshal(r)
	if err != nil {
		return Returned{}, fmt.Errorf("encode the return: %w", err)
	}
	name, hash, err := reservation.KeyArgs(ctx, key, "return-goods", request)
	if err != nil {
		return Returned{}, err
	}
	lines, err := json.Marshal(r.numbered())
	if err != nil {
		return Returned{}, fmt.Errorf("encode the lines: %w", err)
	}
	out, err := reservation.QueryRow(ctx, s.db, pgx.RowToStructByPos[outcome], returnSQL,
		r.Reservation.String(), r.Reference, principal.Actor(ctx), string(lines), name, hash)
	if err != nil {
		return Returned{}, fmt.Errorf("return goods: %w", err)
	}
	return returned(out)
}

// mergeReturn adds up the lines of the same product, warehouse and destination. It sorts them in
// the lock order of the stock rows that they go to.
func mergeReturn(lines []ReturnLine) []ReturnLine {
	merged := slices.Clone(lines)
	slices.SortFunc(merged, compareReturnLines)
	out := merged[:0]
	for _, line := range merged {
		if n := len(out); n > 0 && compareReturnLines(out[n-1], line) == 0 {
			out[n-1].Quantity += line.Quantity
			continue
		}
		out = append(out, line)
	}
	return out
}

func compareReturnLines(a, b ReturnLine) int {
	destination := func(l ReturnLine) []byte {
		if l.ToWarehouseID == nil {
			return nil
		}
		return l.ToWarehouseID[:]
	}
	return cmp.Or(slices.Compare(a.ProductID[:], b.ProductID[:]),
		slices.Compare(destination(a), destination(b)),
		slices.Compare(a.WarehouseID[:], b.WarehouseID[:]))
}

// validate merges the return's lines and checks its limits. It checks each quantity before merging,
// because a negative one could hide in a sum.
func (r Return) validate() ([]ReturnLine, error) {
	bad := invalidFields{}
	if r.Reference == "" || !isText(r.Reference, MaxReference) {
		bad.add("reference", "must have 1 to %d characters, none of them a control character",
			MaxReference)
	}
	for i, line := range r.Lines {
		if line.Quantity < 1 || line.Quantity > reservation.MaxQuantity {
			bad.add(fmt.Sprintf("lines[%d].quantity", i), "must be a whole number from 1 to %d",
				reservation.MaxQuantity)
		}
	}
	lines := mergeReturn(r.Lines)
	if len(lines) < 1 || len(lines) > MaxReturnLines {
		bad.add("lines", "must be from 1 to %d different lines", MaxReturnLines)
	}
	for _, line := range lines {
		if len(bad) == 0 && line.Quantity > reservation.MaxQuantity {
			bad.add("lines", "add up to %d units of product %s of warehouse %s, more than %d",
				line.Quantity, line.ProductID, line.WarehouseID, reservation.MaxQuantity)
		}
	}
	if len(bad) > 0 {
		return nil, &reservation.InvalidError{Fields: bad}
	}
	return lines, nil
}

// numberedReturnLine is a line as return_goods reads it.
type numberedReturnLine struct {
	Number int `json:"line"`
	ReturnLine
}

func (r Return) numbered() []numberedReturnLine {
	lines := make([]numberedReturnLine, len(r.Lines))
	for i, line := range r.Lines {
		lines[i] = numberedReturnLine{i + 1, line}
	}
	return lines
}

// The outcomes of return_goods, apart from those of an Idempotency-Key.
const (
	outcomeReturned          = "RETURNED"
	outcomeNotFound          = "NOT_FOUND"
	outcomeNotConfirmed      = "NOT_CONFIRMED"
	outcomeReferenceReused   = "REFERENCE_REUSED"
	outcomeWarehouseNotFound = "WAREHOUSE_NOT_FOUND"
	outcomeExceedsSold       = "EXCEEDS_SOLD"
	outcomeTooManyUnits      = "TOO_MANY_UNITS"
)

// returned turns the outcome of return_goods into the answer or the error.
func returned(out outcome) (Returned, error) {
	switch out.Name {
	case outcomeReturned, outcomeReplayed:
		hold, err := reservation.DecodeHold(out.Data)
		answer := struct {
			Returned []ReturnedLine `json:"returned"`
		}{}
		if err := errors.Join(err, json.Unmarshal(out.Data, &answer)); err != nil {
			return Returned{}, fmt.Errorf("read the return: %w", err)
		}
		return Returned{hold, answer.Returned, out.Name == outcomeReplayed}, nil
	case outcomeExceedsSold:
		var refused ExcessError
		if err := json.Unmarshal(out.Data, &refused.Lines); err != nil {
			return Returned{}, fmt.Errorf("read the excess of a return: %w", err)
		}
		return Returned{}, &refused
	case outcomeNotFound:
		return Returned{}, reservation.ErrNotFound
	case outcomeNotConfirmed:
		return Returned{}, ErrNotConfirmed
	case outcomeReferenceReused:
		return Returned{}, ErrReferenceReused
	case outcomeWarehouseNotFound:
		return Returned{}, ErrWarehouseNotFound
	case outcomeTooManyUnits:
		return Returned{}, ErrTooManyUnits
	case outcomeKeyReused:
		return Returned{}, reservation.ErrKeyReused
	case outcomeKeyInUse:
		return Returned{}, reservation.ErrKeyInUse
	default:
		return Returned{}, fmt.Errorf("return_goods returned %q", out.Name)
	}
}

// isOwnSource reports whether only the service itself makes movements of a source.
func isOwnSource(source string) bool { return strings.HasPrefix(source, ownSources) }
