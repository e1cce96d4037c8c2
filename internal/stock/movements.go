package stock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

// The limits of a document and of a page of movements.
const (
	// MaxLines is the most lines of a document.
	MaxLines = 500
	// MaxReference is the most characters of a document's source and of its reference.
	MaxReference = 100
	// MaxNote is the most characters of a note.
	MaxNote = 500
	// MaxUnits is the most units of a line.
	MaxUnits = 1_000_000_000
	// MaxMovementPage is the most movements of a page.
	MaxMovementPage = 500
)

// Document is a delivery, a correction or a count. Its source and its reference name it. Each of
// its lines is applied once, however often the document is sent.
type Document struct {
	Source, Reference string
	// Clamp says what becomes of a line that would leave less than is held: down to what is held,
	// or refused.
	Clamp bool
	// Together makes the lines one transaction. A line that is refused then undoes the others.
	Together bool
	// Lines are numbered from 1.
	Lines []Line
}

// Line changes the total of one stock row. It names the product by its SKU or its id, and the
// warehouse by its code or its id.
type Line struct {
	SKU         *string    `json:"sku,omitempty"`
	ProductID   *uuid.UUID `json:"product_id,omitempty"`
	Warehouse   *string    `json:"warehouse,omitempty"`
	WarehouseID *uuid.UUID `json:"warehouse_id,omitempty"`
	// Delta is by how much the total changes. Counted is what was found on the shelf. A line has one
	// of them.
	Delta   *int `json:"delta,omitempty"`
	Counted *int `json:"counted,omitempty"`
	// AsOfSeq is the number of the newest movement at the time of the count. What has moved since
	// then is added to the count.
	AsOfSeq *int64  `json:"as_of_seq,omitempty"`
	Note    *string `json:"note,omitempty"`
}

// LineOutcome is what became of a line.
type LineOutcome string

// The outcomes of a line.
const (
	// LineApplied means that the line changed the total or made the stock row.
	LineApplied LineOutcome = "APPLIED"
	// LineUnchanged means that the line is remembered and the total is what it was. In a refused
	// document it is a line without a problem.
	LineUnchanged LineOutcome = "UNCHANGED"
	// LineReplayed means that the line was applied before. The result is the first one's.
	LineReplayed LineOutcome = "REPLAYED"
	// LineRefused means that the line has a problem.
	LineRefused LineOutcome = "REFUSED"
)

// The problems of a line.
const (
	ProblemProductNotFound   = "PRODUCT_NOT_FOUND"
	ProblemWarehouseNotFound = "WAREHOUSE_NOT_FOUND"
	// ProblemStockHeld means that less would be left than is held.
	ProblemStockHeld = "STOCK_HELD"
	// ProblemSeqUnknown means that the stock row has no movement AsOfSeq.
	ProblemSeqUnknown = "SEQ_UNKNOWN"
	// ProblemReferenceReused means that the line of this source and reference was applied with other
	// numbers.
	ProblemReferenceReused = "REFERENCE_REUSED"
	// ProblemTooManyUnits means that the total would be more than a stock row can have.
	ProblemTooManyUnits = "TOO_MANY_UNITS"
)

// LineResult is what became of a line, with the movement that it made, now or before.
type LineResult struct {
	Line        int         `json:"line"`
	ProductID   *uuid.UUID  `json:"product_id"`
	WarehouseID *uuid.UUID  `json:"warehouse_id"`
	Outcome     LineOutcome `json:"outcome"`
	Delta       int         `json:"delta"`
	// Total is the stock row's total after the movement, and Seq the movement's number. Both are nil
	// without a movement.
	Total *int   `json:"total"`
	Seq   *int64 `json:"seq"`
	// Shortfall is by how many units a clamped line missed the total that it asked for.
	Shortfall *int `json:"shortfall"`
	// Problem is empty unless the line was refused. Held is there with ProblemStockHeld: the units
	// that live holds have.
	Problem string `json:"problem"`
	Held    *int   `json:"held"`
}

// RefusedError means that a line of a document that is applied together was refused. Nothing was
// changed.
type RefusedError struct{ Results []LineResult }

func (e *RefusedError) Error() string { return "a line of the document was refused" }

// ErrIncomplete means that a lock wasn't free in time, or that other callers were faster at every
// try. Some lines may have been applied. It is safe to send the document again.
var ErrIncomplete = errors.New("some lines may not have been applied")

const moveSQL = "CALL move_stock($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL)"

// Move applies the lines of a document. replayed is true when an earlier call under the same key
// had the effect. When Move returns results, the movements are on disk.
//
// It returns a *reservation.InvalidError, whose fields are named as in the contract's JSON, a
// *RefusedError, ErrIncomplete, or reservation.ErrKeyReused, ErrKeyInUse, ErrBusy or
// ErrUnavailable.
func (s *Service) Move(
	ctx context.Context, d Document, key string,
) (results []LineResult, replayed bool, err error) {
	if err := d.validate(); err != nil {
		return nil, false, err
	}
	request, err := json.Marshal(d)
	if err != nil {
		return nil, false, fmt.Errorf("encode the document: %w", err)
	}
	name, hash, err := reservation.KeyArgs(ctx, key, "move-stock", request)
	if err != nil {
		return nil, false, err
	}
	lines, err := json.Marshal(d.numbered())
	if err != nil {
		return nil, false, fmt.Errorf("encode the lines: %w", err)
	}
	out, err := reservation.QueryRow(ctx, s.db, pgx.RowToStructByPos[outcome], moveSQL, d.Source,
		d.Reference, principal.Actor(ctx), d.Clamp, d.Together, string(lines), name, hash)
	if errors.Is(err, reservation.ErrBusy) && !d.Together {
		return nil, false, fmt.Errorf("move stock: %w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return nil, false, fmt.Errorf("move stock: %w", err)
	}
	return d.answer(out)
}

// The outcomes of move_stock, apart from those of an Idempotency-Key.
const (
	outcomeMoved   = "MOVED"
	outcomeRefused = "REFUSED"
	outcomeRetry   = "RETRY"
)

// answer turns the outcome of move_stock into the results or the error.
func (d Document) answer(out outcome) (results []LineResult, replayed bool, err error) {
	switch out.Name {
	case outcomeMoved, outcomeReplayed, outcomeRefused:
		answer := struct{ Results *[]LineResult }{&results}
		if err := json.Unmarshal(out.Data, &answer); err != nil {
			return nil, false, fmt.Errorf("read the results: %w", err)
		}
		if out.Name == outcomeRefused {
			return nil, false, &RefusedError{undone(results)}
		}
		return results, out.Name == outcomeReplayed, nil
	case outcomeRetry:
		const message = "%w: the rows changed at every try"
		if d.Together {
			return nil, false, fmt.Errorf(message, reservation.ErrBusy)
		}
		return nil, false, fmt.Errorf(message, ErrIncomplete)
	case outcomeKeyReused:
		return nil, false, reservation.ErrKeyReused
	case outcomeKeyInUse:
		return nil, false, reservation.ErrKeyInUse
	default:
		return nil, false, fmt.Errorf("move_stock returned %q", out.Name)
	}
}

// undone returns the results of a refused document. The lines that could have been applied made no
// movement.
func undone(results []LineResult) []LineResult {
	for i, r := range results {
		if r.Outcome == LineApplied || r.Outcome == LineUnchanged {
			results[i] = LineResult{
				Line: r.Line, ProductID: r.ProductID, WarehouseID: r.WarehouseID,
				Outcome: LineUnchanged,
			}
		}
	}
	return results
}

// numberedLine is a line as move_stock reads it.
type numberedLine struct {
	Number int `json:"line"`
	Line
}

func (d Document) numbered() []numberedLine {
	lines := make([]numberedLine, len(d.Lines))
	for i, line := range d.Lines {
		lines[i] = numberedLine{i + 1, line}
	}
	return lines
}

// invalidFields collects the errors of a document.
type invalidFields map[string][]string

// maxInvalidFields is the most fields that an error names: as many as those of other requests.
const maxInvalidFields = 3 * reservation.MaxLines

func (f invalidFields) add(name, format string, args ...any) {
	if _, known := f[name]; known || len(f) < maxInvalidFields {
		f[name] = append(f[name], fmt.Sprintf(format, args...))
	}
}

func (d Document) validate() error {
	bad := invalidFields{}
	for name, value := range map[string]string{"source": d.Source, "reference": d.Reference} {
		if !isText(value, MaxReference) || value == "" {
			bad.add(name, "must have 1 to %d characters, none of them a control character",
				MaxReference)
		}
	}
	if isOwnSource(d.Source) {
		bad.add("source", "must not begin with %s, as the service's own sources do", ownSources)
	}
	if len(d.Lines) < 1 || len(d.Lines) > MaxLines {
		bad.add("lines", "must be from 1 to %d", MaxLines)
	} else {
		for i, line := range d.Lines {
			line.validate(fmt.Sprintf("lines[%d].", i), bad)
		}
	}
	if len(bad) > 0 {
		return &reservation.InvalidError{Fields: bad}
	}
	return nil
}

func (l Line) validate(prefix string, bad invalidFields) {
	oneOf := func(name, other string, given, otherGiven bool) {
		if given == otherGiven {
			bad.add(prefix+name, "is required, or else %s, but not both", other)
		}
	}
	oneOf("sku", "productId", l.SKU != nil, l.ProductID != nil)
	oneOf("warehouse", "warehouseId", l.Warehouse != nil, l.WarehouseID != nil)
	oneOf("delta", "counted", l.Delta != nil, l.Counted != nil)
	for name, value := range map[string]*string{
		"sku": l.SKU, "warehouse": l.Warehouse, "note": l.Note,
	} {
		if value != nil && (*value == "" || !isText(*value, MaxNote)) {
			bad.add(prefix+name, "must have 1 to %d characters, none of them a control character",
				MaxNote)
		}
	}
	if l.Delta != nil && (*l.Delta < -MaxUnits || *l.Delta > MaxUnits) {
		bad.add(prefix+"delta", "must be a whole number from -%d to %d", MaxUnits, MaxUnits)
	}
	if l.Counted != nil && (*l.Counted < 0 || *l.Counted > MaxUnits) {
		bad.add(prefix+"counted", "must be a whole number from 0 to %d", MaxUnits)
	}
	if l.AsOfSeq != nil && (l.Counted == nil || *l.AsOfSeq < 1) {
		bad.add(prefix+"asOfSeq", "must be a whole number from 1, beside counted")
	}
}

// isText reports whether a text has at most so many characters and can be stored. Postgres takes no
// NUL and only UTF-8.
func isText(s string, most int) bool {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > most {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// Movement is one change of a stock row's total.
type Movement struct {
	ProductID, WarehouseID uuid.UUID
	// Seq numbers the movements of a stock row, from 1.
	Seq        int64
	At         time.Time
	Kind       string // OPENING, ADJUSTMENT, COUNT, SALE or RETURN
	Delta      int
	TotalAfter int
	// Source, Reference and Line name the line that asked for the movement. They are nil together.
	Source, Reference *string
	Line              *int
	Note, Actor       *string
	// ReservationID is the hold of a sale or a return.
	ReservationID *uuid.UUID
}

// MovementFilter selects the movements of a stock row, by both ids, or those of a document.
type MovementFilter struct {
	ProductID, WarehouseID *uuid.UUID
	Source, Reference      *string
}

// MovementCursor is a place in a list of movements. The zero MovementCursor is the beginning.
type MovementCursor struct {
	// Seq is the movement before the place, in the list of a stock row.
	Seq int64
	// At and Line are those of the movement before the place, in the list of a document.
	At   time.Time
	Line int
}

const (
	movementColumns = `
SELECT product_id, warehouse_id, seq, at, kind::text, delta, total_after, source, reference, line,
       note, actor, reservation_id
FROM `
	listMovementsSQL = movementColumns + "list_movements($1, $2, $3, $4)"
	listDocumentSQL  = movementColumns + "list_document($1, $2, $3, $4, $5)"
)

// ListMovements reads a page of movements, the newest first. Those of a stock row are in the order
// of their numbers. Those of a document are in the order of their times, and of their lines where
// the times are equal. next is where the next page begins, or nil on the last page.
//
// The list is a snapshot that locks nothing and waits for no disk. It is read as
// reservation.ReadKnown does. A server that follows the database may lack what comes next after a
// page of the database's own, and the list would pass it. So the later pages of a document are read
// where the other calls are, and so is a page of a stock row whose first number doesn't follow the
// cursor's. ListMovements returns reservation.ErrBusy or ErrUnavailable.
func (s *Service) ListMovements(
	ctx context.Context, filter MovementFilter, after MovementCursor, limit int,
) (movements []Movement, next *MovementCursor, err error) {
	limit = min(max(limit, 1), MaxMovementPage)
	byDocument := filter.ProductID == nil
	if byDocument {
		before, line := "infinity", after.Line
		if !after.At.IsZero() {
			before, ctx = after.At.Format(time.RFC3339Nano), reservation.OnWriter(ctx)
		}
		movements, err = reservation.Read(ctx, s.db, scanMovement, listDocumentSQL, filter.Source,
			filter.Reference, before, line, limit+1)
	} else {
		before := after.Seq
		if before == 0 {
			before = math.MaxInt64
		}
		follows := func(page []Movement) bool {
			return after.Seq <= 1 || len(page) > 0 && page[0].Seq == after.Seq-1
		}
		movements, err = reservation.ReadKnown(ctx, s.db, follows, scanMovement, listMovementsSQL,
			idText(filter.ProductID), idText(filter.WarehouseID), before, limit+1)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list movements: %w", err)
	}
	if len(movements) > limit {
		movements = movements[:limit]
		last := movements[limit-1]
		next = &MovementCursor{Seq: last.Seq}
		if byDocument {
			next = &MovementCursor{At: last.At, Line: *last.Line}
		}
	}
	return movements, next, nil
}

func scanMovement(row pgx.CollectableRow) (m Movement, err error) {
	err = row.Scan(&m.ProductID, &m.WarehouseID, &m.Seq, &m.At, &m.Kind, &m.Delta, &m.TotalAfter,
		&m.Source, &m.Reference, &m.Line, &m.Note, &m.Actor, &m.ReservationID)
	m.At = m.At.UTC()
	return m, err
}

func idText(id *uuid.UUID) *string {
	if id == nil {
		return nil
	}
	text := id.String()
	return &text
}
