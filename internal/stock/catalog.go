package stock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/reservation"
)

// The limits of a write of the catalog.
const (
	// MaxItems is the most products or warehouses of one call.
	MaxItems = 500
	// MaxCode is the most characters of an SKU or a code.
	MaxCode = 100
	// MaxName is the most characters of a name.
	MaxName = 500
	// MaxLimit is the largest limit of a product, in units.
	MaxLimit = reservation.MaxQuantity
)

// The statuses of products and warehouses.
const (
	Active   = "ACTIVE"
	Archived = "ARCHIVED"
	Open     = "OPEN"
	Closed   = "CLOSED"
)

// Outcome is what a write did to an item.
type Outcome string

// The outcomes of an item.
const (
	Created   Outcome = "CREATED"
	Updated   Outcome = "UPDATED"
	Unchanged Outcome = "UNCHANGED"
)

// ProductItem makes the product of an SKU, or changes it. A nil keeps what the product has. A new
// product needs a name. By default it is ACTIVE and has no limits.
type ProductItem struct {
	SKU    string
	Name   *string
	Status *string
	// MaxPerHold and MaxPerOwner are from 1 to MaxLimit units, or 0 to lift the limit
	// (reservation.Limits).
	MaxPerHold, MaxPerOwner *int
}

// WarehouseItem makes the warehouse of a code, or changes it, as a ProductItem does a product. By
// default it is OPEN.
type WarehouseItem struct {
	Code   string
	Name   *string
	Status *string
}

// ProductResult is what became of a ProductItem.
type ProductResult struct {
	SKU       string    `json:"sku"`
	ProductID uuid.UUID `json:"product_id"`
	Outcome   Outcome   `json:"outcome"`
}

// WarehouseResult is what became of a WarehouseItem.
type WarehouseResult struct {
	Code        string    `json:"code"`
	WarehouseID uuid.UUID `json:"warehouse_id"`
	Outcome     Outcome   `json:"outcome"`
}

// Problem is what is wrong with an item of a request.
type Problem struct {
	// Item counts from 0. It is -1 when the number of the items is wrong.
	Item int
	// Field is the item's field, by its name in the contract.
	Field string
	// Message says what a valid value is. Other, when it isn't -1, is the item that the message is
	// about, and the message goes on with it.
	Message string
	Other   int
}

// ItemsError lists the problems of a request's items. Nothing was changed.
type ItemsError struct{ Problems []Problem }

func (e *ItemsError) Error() string { return fmt.Sprintf("invalid items: %v", e.Problems) }

// ErrUnfinished means that the catalog was changed, but that some stock rows, or some reserves
// under way, may not follow yet, or that the change may not be on disk. A repeat of the request
// finishes it.
var ErrUnfinished = errors.New("the catalog changed, but some stock or reserves may not follow yet")

// problems collects the problems of a request.
type problems []Problem

func (p *problems) add(item int, field, format string, args ...any) {
	*p = append(*p, Problem{item, field, fmt.Sprintf(format, args...), -1})
}

func (p *problems) err() error {
	if len(*p) == 0 {
		return nil
	}
	return &ItemsError{*p}
}

const putProductsSQL = `
SELECT outcome, answer FROM put_products($1, $2, $3, $4, $5, $6, $7, $8)`

// PutProducts makes and changes products, all or none. The results are in the order of the items.
// replayed is true when an earlier call under the same key had the effect.
//
// It returns an *ItemsError, a *reservation.InvalidError for the key, reservation.ErrKeyReused,
// ErrKeyInUse, ErrBusy or ErrUnavailable, or ErrUnfinished. A repeat after the last two is safe.
func (s *Service) PutProducts(
	ctx context.Context, items []ProductItem, key string,
) (results []ProductResult, replayed bool, err error) {
	if err := checkProducts(items); err != nil {
		return nil, false, err
	}
	request, err := json.Marshal(items)
	if err != nil {
		return nil, false, fmt.Errorf("encode the items: %w", err)
	}
	name, hash, err := reservation.KeyArgs(ctx, key, "put-products", request)
	if err != nil {
		return nil, false, err
	}
	ids, err := newIDs(len(items))
	if err != nil {
		return nil, false, err
	}
	var skus []string
	var names, statuses []*string
	var perHold, perOwner []*int
	for _, item := range items {
		skus, names = append(skus, item.SKU), append(names, item.Name)
		statuses = append(statuses, item.Status)
		perHold, perOwner = append(perHold, item.MaxPerHold), append(perOwner, item.MaxPerOwner)
	}
	replayed, err = s.put(ctx, "sku", &results, putProductsSQL, ids, skus, names, statuses, perHold,
		perOwner, name, hash)
	if err != nil {
		return nil, false, fmt.Errorf("put products: %w", err)
	}
	var products []string
	for _, result := range results {
		products = append(products, result.ProductID.String())
	}
	return results, replayed, s.follow(ctx, products, nil)
}

const putWarehousesSQL = `
SELECT outcome, answer FROM put_warehouses($1, $2, $3, $4, $5, $6)`

// PutWarehouses makes and changes warehouses, as PutProducts does products.
func (s *Service) PutWarehouses(
	ctx context.Context, items []WarehouseItem, key string,
) (results []WarehouseResult, replayed bool, err error) {
	if err := checkWarehouses(items); err != nil {
		return nil, false, err
	}
	request, err := json.Marshal(items)
	if err != nil {
		return nil, false, fmt.Errorf("encode the items: %w", err)
	}
	name, hash, err := reservation.KeyArgs(ctx, key, "put-warehouses", request)
	if err != nil {
		return nil, false, err
	}
	ids, err := newIDs(len(items))
	if err != nil {
		return nil, false, err
	}
	var codes []string
	var names, statuses []*string
	for _, item := range items {
		codes, names = append(codes, item.Code), append(names, item.Name)
		statuses = append(statuses, item.Status)
	}
	replayed, err = s.put(ctx, "code", &results, putWarehousesSQL, ids, codes, names, statuses, name,
		hash)
	if err != nil {
		return nil, false, fmt.Errorf("put warehouses: %w", err)
	}
	var warehouses []string
	for _, result := range results {
		warehouses = append(warehouses, result.WarehouseID.String())
	}
	return results, replayed, s.follow(ctx, nil, warehouses)
}

// newIDs makes the ids of the products or warehouses that a call may make.
func newIDs(n int) ([]string, error) {
	ids := make([]string, n)
	for i := range ids {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an id: %w", err)
		}
		ids[i] = id.String()
	}
	return ids, nil
}

// put runs one of the two routines and reads its results. nameField is the field that names an
// item.
func (s *Service) put(
	ctx context.Context, nameField string, results any, sql string, args ...any,
) (replayed bool, err error) {
	out, err := reservation.QueryRow(ctx, s.db, pgx.RowToStructByPos[outcome], sql, args...)
	if err != nil {
		return false, err
	}
	switch out.Name {
	case outcomePut, outcomeReplayed:
		answer := struct {
			Results any `json:"results"`
		}{results}
		if err := json.Unmarshal(out.Data, &answer); err != nil {
			return false, fmt.Errorf("read the results: %w", err)
		}
		return out.Name == outcomeReplayed, nil
	case outcomeInvalid:
		return false, decodeProblems(nameField, out.Data)
	case outcomeKeyReused:
		return false, reservation.ErrKeyReused
	case outcomeKeyInUse:
		return false, reservation.ErrKeyInUse
	default:
		return false, fmt.Errorf("the outcome %q is unknown", out.Name)
	}
}

// decodeProblems reads the problems that a routine found by looking at the catalog.
func decodeProblems(nameField string, data []byte) error {
	var raw []struct {
		Item    int     `json:"item"`
		Problem string  `json:"problem"`
		Other   *string `json:"other"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("read the problems: %w", err)
	}
	var bad problems
	for _, row := range raw {
		switch row.Problem {
		case "NAMELESS":
			bad.add(row.Item, "name", "is required, because the %s is new", nameField)
		case "CASE":
			bad.add(row.Item, nameField, "differs from %s by case alone", *row.Other)
		case "REPEATED":
			other, err := strconv.Atoi(*row.Other)
			if err != nil {
				return fmt.Errorf("read the problems: %w", err)
			}
			bad = append(bad, Problem{row.Item, nameField, "must not be given twice: see", other})
		}
	}
	return &ItemsError{bad}
}

const followSQL = `
SELECT last_product, last_warehouse, busy_products, busy_warehouses
FROM follow_catalog($1, $2, $3, $4)`

// followed is a step of follow_catalog. Last* is nil when no stock row follows.
type followed struct {
	LastProduct, LastWarehouse   *string
	BusyProducts, BusyWarehouses []string
}

// follow makes the stock rows of the products, or of the warehouses, agree with them. It waits for
// the reserves that may have missed a limit of the products, and until everything is on disk. Its
// error is ErrUnfinished.
func (s *Service) follow(ctx context.Context, products, warehouses []string) error {
	product, warehouse := uuid.Nil.String(), uuid.Nil.String()
	for {
		step, err := reservation.QueryRow(ctx, s.db, pgx.RowToStructByPos[followed], followSQL,
			products, warehouses, product, warehouse)
		if err != nil {
			return fmt.Errorf("%w: let the stock rows follow: %w", ErrUnfinished, err)
		}
		for i := range step.BusyProducts {
			_, err := reservation.Query(ctx, s.db, pgx.RowTo[int], "CALL follow_busy_row($1, $2)",
				step.BusyProducts[i], step.BusyWarehouses[i])
			if err != nil {
				return fmt.Errorf("%w: let a stock row follow: %w", ErrUnfinished, err)
			}
		}
		if step.LastProduct == nil {
			break
		}
		product, warehouse = *step.LastProduct, *step.LastWarehouse
	}
	if products != nil {
		_, err := reservation.Query(ctx, s.db, pgx.RowTo[int], "CALL await_limited_reserves($1)",
			products)
		if err != nil {
			return fmt.Errorf("%w: wait for the reserves of limited products: %w", ErrUnfinished, err)
		}
	}
	_, err := reservation.QueryRow(ctx, s.db, pgx.RowTo[int64], "SELECT write_log_record()")
	if err != nil {
		return fmt.Errorf("%w: flush the log: %w", ErrUnfinished, err)
	}
	return nil
}

// checkProducts checks everything that the request itself shows.
func checkProducts(items []ProductItem) error {
	var bad problems
	if !checkNumber(&bad, len(items)) {
		return bad.err()
	}
	for i, item := range items {
		checkCode(&bad, i, "sku", item.SKU)
		checkName(&bad, i, item.Name)
		checkStatus(&bad, i, item.Status, Active, Archived)
		checkLimit(&bad, i, "maxPerHold", item.MaxPerHold)
		checkLimit(&bad, i, "maxPerOwner", item.MaxPerOwner)
	}
	return bad.err()
}

func checkWarehouses(items []WarehouseItem) error {
	var bad problems
	if !checkNumber(&bad, len(items)) {
		return bad.err()
	}
	for i, item := range items {
		checkCode(&bad, i, "code", item.Code)
		checkName(&bad, i, item.Name)
		checkStatus(&bad, i, item.Status, Open, Closed)
	}
	return bad.err()
}

// checkNumber says whether there may be n items. If not, nothing else is checked: a body has room
// for more wrong items than an answer could name.
func checkNumber(bad *problems, n int) bool {
	if n >= 1 && n <= MaxItems {
		return true
	}
	bad.add(-1, "items", "must be from 1 to %d items", MaxItems)
	return false
}

// checkCode accepts an SKU or a code that people can read and type again: without control
// characters, and without white space around it.
func checkCode(bad *problems, item int, field, text string) {
	n := utf8.RuneCountInString(text)
	switch {
	case n < 1 || n > MaxCode || !utf8.ValidString(text):
		bad.add(item, field, "must have from 1 to %d characters", MaxCode)
	case strings.ContainsFunc(text, unicode.IsControl):
		bad.add(item, field, "must not have control characters")
	case strings.TrimSpace(text) != text:
		bad.add(item, field, "must not begin or end with white space")
	}
}

func checkName(bad *problems, item int, name *string) {
	if name == nil {
		return
	}
	n := utf8.RuneCountInString(*name)
	switch {
	case strings.TrimSpace(*name) == "" || n > MaxName || !utf8.ValidString(*name):
		bad.add(item, "name", "must have from 1 to %d characters, not only white space", MaxName)
	case strings.ContainsFunc(*name, unicode.IsControl):
		bad.add(item, "name", "must not have control characters")
	}
}

func checkStatus(bad *problems, item int, status *string, one, other string) {
	if status != nil && *status != one && *status != other {
		bad.add(item, "status", "must be %s or %s", one, other)
	}
}

func checkLimit(bad *problems, item int, field string, limit *int) {
	if limit != nil && (*limit < 0 || *limit > MaxLimit) {
		bad.add(item, field, "must be a whole number from 0 to %d, where 0 means no limit", MaxLimit)
	}
}
