package httpapi

import (
	"fmt"
	"net/http"
	"net/url"

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

// shown returns the available units of a stock row as a shopper is told them. With orMore it is the
// most that a shopper is told, and there may be more.
func (a *API) shown(available int) (units int, orMore bool) {
	if most := a.opts.StockShown; most > 0 && available >= most {
		return most, true
	}
	return available, false
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
	if q := readQuery(r); q.values.Has("sku") {
		return a.listProductsBySKU(w, r, q)
	}
	page, err := readNamePage(r, defaultProductPage, reservation.MaxProductPage)
	if err != nil {
		return err
	}
	entries, next, err := a.service.ListProducts(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	page.linkNext(w, r, next)
	return writeCatalog(w, a.newProductDTOs(entries))
}

// listProductsBySKU answers with chosen products. The answer isn't a page of the catalog, so it has
// no limit. It takes the cursor of its own Link header alone, which it sends when the products have
// more stock rows than an answer may have.
func (a *API) listProductsBySKU(w *recorder, r *http.Request, q query) error {
	skus := q.readEach("sku", reservation.MaxSKUs, "must be an SKU", isName)
	if len(url.Values{"sku": skus}.Encode()) > maxSKUQuery {
		q.bad.add("sku", fmt.Sprintf("must take at most %d bytes of the URL in all", maxSKUQuery))
	}
	if q.values.Has("limit") {
		q.bad.add("limit", "must not be given with sku")
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
	return writeCatalog(w, a.newProductDTO(entry))
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
