package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultProductPage is the catalog's page when the request doesn't say. A list of warehouses comes whole up to its most.
const defaultProductPage = 50

// productDTO is a product with its stock in each warehouse.
type productDTO struct {
	ID          uuid.UUID  `json:"id"`
	Name        string     `json:"name"`
	SKU         string     `json:"sku"`
	Inventories []stockDTO `json:"inventories"`
}

type stockDTO struct {
	WarehouseID      uuid.UUID `json:"warehouseId"`
	WarehouseName    string    `json:"warehouseName"`
	TotalQuantity    int       `json:"totalQuantity"`
	ReservedQuantity int       `json:"reservedQuantity"`
	AvailableStock   int       `json:"availableStock"`
}

type warehouseDTO struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

func (a *API) listProducts(w *recorder, r *http.Request) error {
	page, err := readPage(r, defaultProductPage, reservation.MaxProductPage)
	if err != nil {
		return err
	}
	entries, more, err := a.service.ListProducts(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	body := make([]productDTO, 0, len(entries))
	for _, e := range entries {
		product := productDTO{ID: e.ID, Name: e.Name, SKU: e.SKU, Inventories: []stockDTO{}}
		for _, s := range e.Stocks {
			product.Inventories = append(product.Inventories, stockDTO{s.WarehouseID, s.WarehouseName, s.Total, s.Reserved, s.Total - s.Reserved})
		}
		body = append(body, product)
	}
	if more {
		last := entries[len(entries)-1]
		page.announceNext(w, r, reservation.Cursor{Name: last.Name, ID: last.ID})
	}
	return writeJSON(w, http.StatusOK, body)
}

func (a *API) listWarehouses(w *recorder, r *http.Request) error {
	page, err := readPage(r, reservation.MaxWarehousePage, reservation.MaxWarehousePage)
	if err != nil {
		return err
	}
	warehouses, more, err := a.service.ListWarehouses(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	body := make([]warehouseDTO, 0, len(warehouses))
	for _, warehouse := range warehouses {
		body = append(body, warehouseDTO(warehouse))
	}
	if more {
		last := warehouses[len(warehouses)-1]
		page.announceNext(w, r, reservation.Cursor{Name: last.Name, ID: last.ID})
	}
	return writeJSON(w, http.StatusOK, body)
}

func (a *API) health(w *recorder, r *http.Request) error {
	if err := a.service.Ping(r.Context()); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, healthDTO{Status: "ok"})
}

type healthDTO struct {
	Status string `json:"status"`
}

// page is the part of a list that a request asks for.
type page struct {
	limit int
	after reservation.Cursor
}

func readPage(r *http.Request, fallback, most int) (page, error) {
	p := page{limit: fallback}
	bad := fields{}
	query := r.URL.Query()
	if query.Has("limit") {
		n, err := strconv.Atoi(query.Get("limit"))
		if err != nil || n < 1 || n > most {
			bad.add("limit", fmt.Sprintf("must be a whole number from 1 to %d", most))
		}
		p.limit = n
	}
	if query.Has("cursor") {
		after, ok := decodeCursor(query.Get("cursor"))
		if !ok {
			bad.add("cursor", "must be the cursor of a Link header, unchanged")
		}
		p.after = after
	}
	return p, bad.err()
}

// announceNext names the next page as RFC 8288 does.
func (p page) announceNext(w http.ResponseWriter, r *http.Request, after reservation.Cursor) {
	query := url.Values{"limit": {strconv.Itoa(p.limit)}, "cursor": {encodeCursor(after)}}
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, query.Encode()))
}

// A cursor is the id and the name of the last entry shown, in base64.
func encodeCursor(c reservation.Cursor) string {
	return base64.RawURLEncoding.EncodeToString(append(c.ID[:], c.Name...))
}

func decodeCursor(s string) (reservation.Cursor, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= len(uuid.UUID{}) {
		return reservation.Cursor{}, false
	}
	var c reservation.Cursor
	copy(c.ID[:], b)
	c.Name = string(b[len(c.ID):])
	return c, utf8.ValidString(c.Name) && !strings.ContainsRune(c.Name, 0)
}
