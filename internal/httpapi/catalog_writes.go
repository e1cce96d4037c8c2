package httpapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// maxImport is the limit of a body with many items, in bytes. 500 products take 100,000.
const maxImport = 1 << 20

// productsRequest makes and changes products.
type productsRequest struct {
	Items []productItemRequest `json:"items"`
}

// productItemRequest is a product of a request. Pointers tell a missing field from an empty one.
type productItemRequest struct {
	SKU         *string      `json:"sku"`
	Name        *string      `json:"name"`
	Status      *string      `json:"status"`
	MaxPerHold  limitOfUnits `json:"maxPerHold"`
	MaxPerOwner limitOfUnits `json:"maxPerOwner"`
}

// limitOfUnits is a limit of a product. It is nil when the request leaves it out, which keeps the
// product's limit. Null is 0, which lifts it: the catalog shows null for no limit, and a caller
// that writes back what it has read must get that.
type limitOfUnits struct{ units *wholeNumber }

// UnmarshalJSONFrom reads the limit, if the request has it.
func (l *limitOfUnits) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	l.units = new(wholeNumber)
	if d.PeekKind() == jsontext.KindNull {
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, l.units)
}

// warehousesRequest makes and changes warehouses.
type warehousesRequest struct {
	Items []warehouseItemRequest `json:"items"`
}

type warehouseItemRequest struct {
	Code   *string `json:"code"`
	Name   *string `json:"name"`
	Status *string `json:"status"`
}

// productsAnswer says what became of each product of a request.
type productsAnswer struct {
	Results []productResultDTO `json:"results"`
}

type productResultDTO struct {
	SKU       string        `json:"sku"`
	ProductID uuid.UUID     `json:"productId"`
	Outcome   stock.Outcome `json:"outcome"`
}

// warehousesAnswer says what became of each warehouse of a request.
type warehousesAnswer struct {
	Results []warehouseResultDTO `json:"results"`
}

type warehouseResultDTO struct {
	Code        string        `json:"code"`
	WarehouseID uuid.UUID     `json:"warehouseId"`
	Outcome     stock.Outcome `json:"outcome"`
}

func (a *API) putProducts(w *recorder, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q productsRequest
	columns := []string{"sku", "name", "status", "maxPerHold", "maxPerOwner"}
	rows, err := readImport(r, &q, columns, func(row csvRow, bad fields) {
		q.Items = append(q.Items, productItemRequest{
			row.text("sku"), row.text("name"), row.text("status"),
			limitOfUnits{row.number("maxPerHold", bad)},
			limitOfUnits{row.number("maxPerOwner", bad)},
		})
	})
	if err != nil {
		return err
	}
	items := make([]stock.ProductItem, 0, len(q.Items))
	for _, item := range q.Items {
		items = append(items, stock.ProductItem{
			SKU: text(item.SKU), Name: item.Name, Status: item.Status,
			MaxPerHold: limit(item.MaxPerHold.units), MaxPerOwner: limit(item.MaxPerOwner.units),
		})
	}
	results, replayed, err := a.stock.PutProducts(r.Context(), items, key)
	if err != nil {
		return placeProblems(err, placeOf(rows))
	}
	answer := productsAnswer{}
	for _, result := range results {
		answer.Results = append(answer.Results, productResultDTO(result))
	}
	return writeImported(w, replayed, answer)
}

func (a *API) putWarehouses(w *recorder, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q warehousesRequest
	columns := []string{"code", "name", "status"}
	rows, err := readImport(r, &q, columns, func(row csvRow, _ fields) {
		q.Items = append(q.Items,
			warehouseItemRequest{row.text("code"), row.text("name"), row.text("status")})
	})
	if err != nil {
		return err
	}
	items := make([]stock.WarehouseItem, 0, len(q.Items))
	for _, item := range q.Items {
		items = append(items,
			stock.WarehouseItem{Code: text(item.Code), Name: item.Name, Status: item.Status})
	}
	results, replayed, err := a.stock.PutWarehouses(r.Context(), items, key)
	if err != nil {
		return placeProblems(err, placeOf(rows))
	}
	answer := warehousesAnswer{}
	for _, result := range results {
		answer.Results = append(answer.Results, warehouseResultDTO(result))
	}
	return writeImported(w, replayed, answer)
}

// writeImported answers a request whose items all took effect.
func writeImported(w *recorder, replayed bool, body any) error {
	if replayed {
		w.Header().Set(replayedHeader, "true")
	}
	return writeJSON(w, http.StatusOK, body)
}

// text is a field's text, or "", which the service refuses, without the field.
func text(field *string) string {
	if field == nil {
		return ""
	}
	return *field
}

// limit is a number that the service accepts or refuses as it does n. An int may be too small for n
// itself.
func limit(n *wholeNumber) *int {
	if n == nil {
		return nil
	}
	clamped := int(min(max(*n, -1), stock.MaxLimit+1))
	return &clamped
}

// place names a field of an item in the form in which the request came. An item of -1 means all of
// them together.
type place func(item int, field string) string

// placeOf returns the places in a body with these rows of CSV, each of which is an item, or in a
// JSON body if there are no rows.
func placeOf(rows []csvRow) place {
	return func(item int, field string) string {
		switch {
		case rows == nil && item < 0:
			return field
		case rows == nil:
			return fmt.Sprintf("items[%d].%s", item, field)
		case item < 0:
			return "body"
		default:
			return rows[item].name(field)
		}
	}
}

// readImport reads a body of JSON or CSV. It decodes JSON into dst. It passes each row of CSV,
// which may have these columns, to take, and returns the rows. They are nil for JSON.
//
// A request with CSV has those fields in its query that are no columns, so its query is read as
// strictly as a body of JSON. parameters are their names. A request with JSON has none.
func readImport(
	r *http.Request, dst any, columns []string, take func(row csvRow, bad fields),
	parameters ...string,
) ([]csvRow, error) {
	body, err := readBytes(r, maxImport, errImportTooLarge)
	if err != nil {
		return nil, err
	}
	q := readQuery(r)
	switch mediaType(r) {
	case mediaJSON:
		q.refuseOthers()
		if err := q.bad.err(); err != nil {
			return nil, err
		}
		return nil, decode(body, dst)
	case mediaCSV:
		q.refuseOthers(parameters...)
		if err := q.bad.err(); err != nil {
			return nil, err
		}
		rows, err := readCSV(body, columns...)
		if err != nil {
			return nil, err
		}
		bad := fields{}
		for _, row := range rows {
			take(row, bad)
		}
		return rows, bad.err()
	default:
		return nil, errNotImport
	}
}

// placeProblems names the fields that are wrong with a request's items. It returns any other error
// as it is.
func placeProblems(err error, place place) error {
	var wrong *stock.ItemsError
	if !errors.As(err, &wrong) {
		return err
	}
	bad := fields{}
	for _, p := range wrong.Problems {
		message := p.Message
		if p.Other >= 0 {
			message += " " + place(p.Other, p.Field)
		}
		bad.add(place(p.Item, p.Field), message)
	}
	return &reservation.InvalidError{Fields: bad}
}
