package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultProductPage is the number of products on a page when the request names none. Warehouses
// come in pages of the largest size.
const defaultProductPage = 50

// maxSKUQuery bounds the SKUs of a request, in bytes of an encoded query. The Link header of the
// answer may repeat them, and the gateway takes 10,240 bytes of headers in all.
const maxSKUQuery = 6000

// productDTO is a product and its stock in each warehouse.
type productDTO struct {
	ID          uuid.UUID  `json:"id"`
	Name        string     `json:"name"`
	SKU         string     `json:"sku"`
	MaxPerHold  *int       `json:"maxPerHold"`
	MaxPerOwner *int       `json:"maxPerOwner"`
	Inventories []stockDTO `json:"inventories"`
}

type stockDTO struct {
	WarehouseID      uuid.UUID `json:"warehouseId"`
	WarehouseCode    string    `json:"warehouseCode"`
	WarehouseName    string    `json:"warehouseName"`
	TotalQuantity    *int      `json:"totalQuantity"`
	ReservedQuantity *int      `json:"reservedQuantity"`
	AvailableStock   int       `json:"availableStock"`
	// OrMore says that AvailableStock is the most that is shown.
	OrMore bool `json:"orMore,omitzero"`
}

func (a *API) newStockDTO(s reservation.Stock) stockDTO {
	dto := stockDTO{
		WarehouseID: s.WarehouseID, WarehouseCode: s.WarehouseCode, WarehouseName: s.WarehouseName,
	}
	dto.AvailableStock, dto.OrMore = a.shown(s.Total - s.Reserved)
	if a.opts.StockShown == 0 {
		dto.TotalQuantity, dto.ReservedQuantity = &s.Total, &s.Reserved
	}
	return dto
}

// shown returns the available units of a stock row as a shopper is told them.
func (a *API) shown(available int) (units int, orMore bool) {
	return reservation.Shown(available, a.opts.StockShown)
}

type warehouseDTO struct {
	ID   uuid.UUID `json:"id"`
	Code string    `json:"code"`
	Name string    `json:"name"`
}

func (a *API) newProductDTO(e reservation.CatalogEntry) productDTO {
	product := productDTO{
		ID: e.ID, Name: e.Name, SKU: e.SKU,
		MaxPerHold: e.MaxPerHold, MaxPerOwner: e.MaxPerOwner, Inventories: []stockDTO{},
	}
	for _, s := range e.Stocks {
		product.Inventories = append(product.Inventories, a.newStockDTO(s))
	}
	return product
}

func (a *API) newProductDTOs(entries []reservation.CatalogEntry) []productDTO {
	dtos := make([]productDTO, 0, len(entries))
	for _, e := range entries {
		dtos = append(dtos, a.newProductDTO(e))
	}
	return dtos
}

func (a *API) listProducts(w *recorder, r *http.Request) error {
	switch q := readQuery(r); {
	case q.values.Has("sku"):
		return a.listProductsBySKU(w, r, q)
	case q.values.Has("q"):
		return a.searchProducts(w, r, q)
	}
	page, err := readNamePage(r, defaultProductPage, reservation.MaxProductPage)
	total := page.query.readTotal()
	if err = cmp.Or(err, page.query.bad.err()); err != nil {
		return err
	}
	entries, next, err := a.service.ListProducts(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	if err := a.countProducts(w, r, total, nil); err != nil {
		return err
	}
	page.linkNext(w, r, next)
	w.stockAsOf(entries)
	return writeCatalog(w, a.newProductDTOs(entries))
}

// searchProducts answers with a page of the products that a search finds.
func (a *API) searchProducts(w *recorder, r *http.Request, q query) error {
	words := q.readWords()
	binding := q.binding()
	limit := q.readLimit(defaultProductPage, reservation.MaxProductPage)
	var after reservation.Cursor
	q.readCursor(func(order string, id uuid.UUID, key []byte) bool {
		place, ok := parseRowKey(id, key, binding)
		if !ok || order != orderOfFound {
			return false
		}
		after.ID = place.Product
		if place.Warehouse != nil {
			after.Warehouse = *place.Warehouse
		}
		return true
	})
	total := q.readTotal()
	if err := q.bad.err(); err != nil {
		return err
	}
	entries, next, err := a.service.SearchProducts(r.Context(), words, after, limit)
	if err != nil {
		return err
	}
	if err := a.countProducts(w, r, total, words); err != nil {
		return err
	}
	if next != nil {
		if next.Warehouse != uuid.Nil {
			binding = append(binding, next.Warehouse[:]...)
		}
		q.linkNext(w, r, limit, encodeCursor(orderOfFound, next.ID, binding))
	}
	w.stockAsOf(entries)
	return writeCatalog(w, a.newProductDTOs(entries))
}

// countProducts tells the number of products, all of them or those with the words, if it is wanted.
func (a *API) countProducts(w *recorder, r *http.Request, wanted bool, words []string) error {
	if !wanted {
		return nil
	}
	count, err := a.service.CountProducts(r.Context(), words)
	if err != nil {
		return err
	}
	tellTotal(w, count)
	return nil
}

// listProductsBySKU answers with chosen products. The answer isn't a page of the catalog, so it has
// no limit. It takes the cursor of its own Link header alone, which it sends when the products have
// more stock rows than an answer may have.
func (a *API) listProductsBySKU(w *recorder, r *http.Request, q query) error {
	skus := q.readEach("sku", reservation.MaxSKUs, "must be an SKU", isName)
	if len(url.Values{"sku": skus}.Encode()) > maxSKUQuery {
		q.bad.add("sku", fmt.Sprintf("must take at most %d bytes of the URL in all", maxSKUQuery))
	}
	for _, name := range []string{"limit", "q", "total"} {
		if q.values.Has(name) {
			q.bad.add(name, "must not be given with sku")
		}
	}
	after := q.readChosen()
	if err := q.bad.err(); err != nil {
		return err
	}
	entries, next, err := a.service.ListProductsBySKU(r.Context(), skus, after)
	if err != nil {
		return err
	}
	if next != nil {
		q.linkChosen(w, r, *next)
	}
	w.stockAsOf(entries)
	return writeCatalog(w, a.newProductDTOs(entries))
}

func (a *API) getProduct(w *recorder, r *http.Request) error {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return reservation.ErrProductNotFound
	}
	q := readQuery(r)
	after := q.readChosen()
	if after != (reservation.Cursor{}) && (after.ID != id || after.Warehouse == uuid.Nil) {
		q.bad.add("cursor", badCursor)
	}
	if err := q.bad.err(); err != nil {
		return err
	}
	entry, next, err := a.service.Product(r.Context(), id, after.Warehouse)
	if err != nil {
		return err
	}
	if next != uuid.Nil {
		q.linkChosen(w, r, reservation.Cursor{ID: id, Warehouse: next})
	}
	w.stockAsOf([]reservation.CatalogEntry{entry})
	return writeCatalog(w, a.newProductDTO(entry))
}

// stockAsOf says how new the stock of the answer is, so that a page can compare it with what it
// heard on the live channel. An answer without a product has no stock. The header is no part of the
// answer's ETag: the same stock is as good under a later number.
func (r *recorder) stockAsOf(entries []reservation.CatalogEntry) {
	if len(entries) > 0 {
		r.Header().Set("Stock-As-Of", strconv.FormatInt(entries[0].AsOf, 10))
	}
}

func (a *API) listWarehouses(w *recorder, r *http.Request) error {
	page, err := readNamePage(r, reservation.MaxWarehousePage, reservation.MaxWarehousePage)
	if err != nil {
		return err
	}
	warehouses, next, err := a.service.ListWarehouses(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	body := make([]warehouseDTO, 0, len(warehouses))
	for _, warehouse := range warehouses {
		body = append(body, warehouseDTO(warehouse))
	}
	page.linkNext(w, r, next)
	return writeCatalog(w, body)
}

func (a *API) health(w *recorder, r *http.Request) error {
	if err := a.service.Ready(r.Context()); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, healthDTO{Status: "ok"})
}

type healthDTO struct {
	Status string `json:"status"`
}
