package httpapi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// defaultMovementPage is the number of movements on a page when the request names none.
const defaultMovementPage = 50

// movementLineRequest is a line of a document. Pointers tell a missing field from a zero.
type movementLineRequest struct {
	SKU         *string      `json:"sku"`
	ProductID   *string      `json:"productId"`
	Warehouse   *string      `json:"warehouse"`
	WarehouseID *string      `json:"warehouseId"`
	Delta       *wholeNumber `json:"delta"`
	Counted     *wholeNumber `json:"counted"`
	AsOfSeq     *wholeNumber `json:"asOfSeq"`
	Note        *string      `json:"note"`
}

// movementsRequest is a document of movements.
type movementsRequest struct {
	Source    *string               `json:"source"`
	Reference *string               `json:"reference"`
	OnHeld    *string               `json:"onHeld"`
	Together  *bool                 `json:"together"`
	Lines     []movementLineRequest `json:"lines"`
}

// movementsAnswer has a result for each line of a document.
type movementsAnswer struct {
	Results []problem.LineResult `json:"results"`
}

func (a *API) moveStock(w *recorder, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	request, names, err := readMovements(r)
	if err != nil {
		return err
	}
	document, err := request.document(names)
	if err != nil {
		return err
	}
	results, replayed, err := a.stock.Move(r.Context(), document, key)
	if err != nil {
		return names.rename(err)
	}
	w.outcome = outcomeMoved
	if replayed {
		w.outcome = outcomeReplayed
		w.Header().Set(replayedHeader, "true")
	}
	return writeJSON(w, http.StatusOK, movementsAnswer{newLineResults(results)})
}

// lineNames has the CSV line of each line of a document. It is nil for JSON.
type lineNames []csvRow

// field names a field of a line: lines[0].delta, or line 2, column 3 (delta).
func (n lineNames) field(line int, column string) string {
	if n == nil {
		return fmt.Sprintf("lines[%d].%s", line, column)
	}
	return n[line].name(column)
}

// all names the lines together.
func (n lineNames) all() string {
	if n == nil {
		return "lines"
	}
	return "body"
}

// rename gives the fields of an invalid document the names of its CSV lines.
func (n lineNames) rename(err error) error {
	var bad *reservation.InvalidError
	if n == nil || !errors.As(err, &bad) {
		return err
	}
	renamed := map[string][]string{}
	for name, messages := range bad.Fields {
		if index, column, ok := strings.Cut(strings.TrimPrefix(name, "lines["), "]."); ok {
			if i, err := strconv.Atoi(index); err == nil {
				name = n.field(i, column)
			}
		}
		renamed[name] = messages
	}
	return &reservation.InvalidError{Fields: renamed}
}

// readMovements reads a document in JSON, or in CSV with its own fields in the query.
func readMovements(r *http.Request) (request movementsRequest, names lineNames, err error) {
	columns := []string{
		"sku", "productId", "warehouse", "warehouseId", "delta", "counted", "asOfSeq", "note",
	}
	names, err = readImport(r, &request, columns, func(row csvRow, bad fields) {
		request.Lines = append(request.Lines, movementLineRequest{
			SKU: row.text("sku"), ProductID: row.text("productId"),
			Warehouse: row.text("warehouse"), WarehouseID: row.text("warehouseId"),
			Delta: row.number("delta", bad), Counted: row.number("counted", bad),
			AsOfSeq: row.number("asOfSeq", bad), Note: row.text("note"),
		})
	}, "source", "reference", "onHeld", "together")
	if err != nil || names == nil {
		return request, nil, err
	}
	q := readQuery(r)
	text := func(name string, dst **string) {
		q.read(name, "", func(value string) bool { *dst = &value; return true })
	}
	text("source", &request.Source)
	text("reference", &request.Reference)
	text("onHeld", &request.OnHeld)
	q.read("together", "must be true or false", func(value string) bool {
		together := value == "true"
		request.Together = &together
		return together || value == "false"
	})
	return request, names, q.bad.err()
}

// document checks that the fields are well-formed. The service checks the limits.
func (q movementsRequest) document(names lineNames) (stock.Document, error) {
	bad := fields{}
	d := stock.Document{Together: q.Together != nil && *q.Together}
	for name, field := range map[string]*string{"source": q.Source, "reference": q.Reference} {
		if field == nil {
			bad.add(name, "is required")
		}
	}
	if bad.err() == nil {
		d.Source, d.Reference = *q.Source, *q.Reference
	}
	if q.OnHeld != nil {
		d.Clamp = *q.OnHeld == "CLAMP"
		if !d.Clamp && *q.OnHeld != "FAIL" {
			bad.add("onHeld", "must be FAIL or CLAMP")
		}
	}
	if len(q.Lines) > stock.MaxLines {
		bad.add(names.all(), fmt.Sprintf("must be from 1 to %d", stock.MaxLines))
		return d, bad.err()
	}
	for i, line := range q.Lines {
		d.Lines = append(d.Lines, line.line(func(column string) string {
			return names.field(i, column)
		}, bad))
	}
	return d, bad.err()
}

func (q movementLineRequest) line(name func(column string) string, bad fields) stock.Line {
	line := stock.Line{
		SKU: q.SKU, Warehouse: q.Warehouse, Note: q.Note,
		Delta: units(q.Delta), Counted: units(q.Counted),
	}
	if q.ProductID != nil {
		productID := id(name("productId"), q.ProductID, bad)
		line.ProductID = &productID
	}
	if q.WarehouseID != nil {
		warehouseID := id(name("warehouseId"), q.WarehouseID, bad)
		line.WarehouseID = &warehouseID
	}
	if q.AsOfSeq != nil {
		seq := int64(*q.AsOfSeq)
		line.AsOfSeq = &seq
	}
	return line
}

// units makes an int of a number. One that is out of the contract's bounds may not fit into an int,
// and becomes another one that is out of them.
func units(n *wholeNumber) *int {
	if n == nil {
		return nil
	}
	value := int(min(max(*n, -stock.MaxUnits-1), stock.MaxUnits+1))
	return &value
}

// lineProblems has the status and the sentence of each problem of a line.
var lineProblems = map[string]problem.LineProblem{
	stock.ProblemProductNotFound: {
		Status: http.StatusNotFound, Detail: "There is no product with this SKU or id.",
	},
	stock.ProblemWarehouseNotFound: {
		Status: http.StatusNotFound, Detail: "There is no warehouse with this code or id.",
	},
	stock.ProblemStockHeld: {
		Status: http.StatusConflict, Detail: "Less would be left than is held.",
	},
	stock.ProblemSeqUnknown: {
		Status: http.StatusUnprocessableEntity,
		Detail: "The stock row has no movement with the number asOfSeq.",
	},
	stock.ProblemReferenceReused: {
		Status: http.StatusConflict,
		Detail: "This line of the source and the reference was applied with other numbers.",
	},
	stock.ProblemTooManyUnits: {
		Status: http.StatusUnprocessableEntity,
		Detail: "A stock row can't have so many units.",
	},
}

func newLineResults(results []stock.LineResult) []problem.LineResult {
	out := make([]problem.LineResult, 0, len(results))
	for _, r := range results {
		dto := problem.LineResult{
			Line: r.Line, ProductID: r.ProductID, WarehouseID: r.WarehouseID,
			Outcome: string(r.Outcome), Delta: r.Delta, TotalQuantity: r.Total, Seq: r.Seq,
			Shortfall: r.Shortfall,
		}
		if r.Problem != "" {
			p := lineProblems[r.Problem]
			p.Code, p.Held = r.Problem, r.Held
			dto.Problem = &p
		}
		out = append(out, dto)
	}
	return out
}

// movementDTO is a movement in the contract's form.
type movementDTO struct {
	Seq           int64      `json:"seq"`
	At            time.Time  `json:"at"`
	Kind          string     `json:"kind"`
	Delta         int        `json:"delta"`
	TotalAfter    int        `json:"totalAfter"`
	Source        *string    `json:"source"`
	Reference     *string    `json:"reference"`
	Line          *int       `json:"line"`
	Note          *string    `json:"note"`
	Actor         *string    `json:"actor"`
	ReservationID *uuid.UUID `json:"reservationId"`
	ProductID     uuid.UUID  `json:"productId"`
	WarehouseID   uuid.UUID  `json:"warehouseId"`
}

func (a *API) listMovements(w *recorder, r *http.Request) error {
	q := readQuery(r)
	filter, order := readMovementFilter(q)
	list := movementList(q.binding())
	limit := q.readLimit(defaultMovementPage, stock.MaxMovementPage)
	var after stock.MovementCursor
	q.readCursor(func(of string, id uuid.UUID, key []byte) (ok bool) {
		after, ok = parseMovementCursor(of, key)
		return ok && of == order && (id == list || id == uuid.Nil)
	})
	if err := q.bad.err(); err != nil {
		return err
	}
	movements, next, err := a.stock.ListMovements(r.Context(), filter, after, limit)
	if err != nil {
		return err
	}
	body := make([]movementDTO, 0, len(movements))
	for _, m := range movements {
		body = append(body, movementDTO{
			Seq: m.Seq, At: m.At, Kind: m.Kind, Delta: m.Delta, TotalAfter: m.TotalAfter,
			Source: m.Source, Reference: m.Reference, Line: m.Line, Note: m.Note, Actor: m.Actor,
			ReservationID: m.ReservationID, ProductID: m.ProductID, WarehouseID: m.WarehouseID,
		})
	}
	if next != nil {
		q.linkNext(w, r, limit, movementCursor(order, list, *next))
	}
	return writeJSON(w, http.StatusOK, body)
}

// movementList makes the id of a cursor out of the binding of its list. The previous release writes
// the nil id and ignores the id that it reads, so a reader may change between the two from page to
// page. A later release refuses the nil id.
func movementList(binding []byte) (id uuid.UUID) {
	copy(id[:], binding)
	return id
}

// movementCursor writes a place in a list of movements. The key is the movement's number, or its
// time and its line, each in eight bytes.
func movementCursor(order string, list uuid.UUID, c stock.MovementCursor) string {
	key := binary.BigEndian.AppendUint64(nil, uint64(c.Seq)) // #nosec G115 -- it is above zero
	if order == orderByTime {
		key = binary.BigEndian.AppendUint64(timeKey(c.At), uint64(c.Line)) // #nosec G115 -- so is it
	}
	return encodeCursor(order, list, key)
}

// parseMovementCursor undoes movementCursor. It refuses a place that no list has.
func parseMovementCursor(order string, key []byte) (c stock.MovementCursor, ok bool) {
	if len(key) < 8 {
		return c, false
	}
	split := len(key) - 8
	number := binary.BigEndian.Uint64(key[split:])
	if order == orderBySeq {
		c.Seq = int64(number) // #nosec G115 -- checked below
		return c, split == 0 && c.Seq > 0
	}
	c.At, ok = parseTimeKey(key[:split])
	c.Line = int(min(number, stock.MaxLines)) // #nosec G115 -- it fits
	return c, ok && number <= stock.MaxLines && number > 0
}

// readMovementFilter reads which movements to list, and the order of the list.
func readMovementFilter(q query) (filter stock.MovementFilter, order string) {
	filter = stock.MovementFilter{
		ProductID: q.readID("productId"), WarehouseID: q.readID("warehouseId"),
	}
	text := func(name string) (found *string) {
		const message = "must have 1 to %d characters"
		q.read(name, fmt.Sprintf(message, stock.MaxReference), func(value string) bool {
			found = &value
			return isName(value) && len([]rune(value)) <= stock.MaxReference
		})
		return found
	}
	filter.Source, filter.Reference = text("source"), text("reference")
	byRow := filter.ProductID != nil && filter.WarehouseID != nil
	byDocument := filter.Source != nil && filter.Reference != nil
	someOfRow := filter.ProductID != nil || filter.WarehouseID != nil
	someOfDocument := filter.Source != nil || filter.Reference != nil
	isClear := byRow && !someOfDocument || byDocument && !someOfRow
	if !isClear && len(q.bad) == 0 { // a parameter that can't be read may be the missing one
		q.bad.add("productId", "and warehouseId are required, or else source and reference")
	}
	if byRow {
		return filter, orderBySeq
	}
	return filter, orderByTime
}
