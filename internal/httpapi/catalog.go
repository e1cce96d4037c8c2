package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultProductPage is the number of products on a page when the request names none. Warehouses
// come in pages of the largest size.
const defaultProductPage = 50

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
	TotalQuantity    int       `json:"totalQuantity"`
	ReservedQuantity int       `json:"reservedQuantity"`
	AvailableStock   int       `json:"availableStock"`
}

func newStockDTO(s reservation.Stock) stockDTO {
	return stockDTO{
		WarehouseID: s.WarehouseID, WarehouseCode: s.WarehouseCode, WarehouseName: s.WarehouseName,
		TotalQuantity: s.Total, ReservedQuantity: s.Reserved, AvailableStock: s.Total - s.Reserved,
	}
}

type warehouseDTO struct {
	ID   uuid.UUID `json:"id"`
	Code string    `json:"code"`
	Name string    `json:"name"`
}

func (a *API) listProducts(w *recorder, r *http.Request) error {
	page, err := readNamePage(r, defaultProductPage, reservation.MaxProductPage)
	if err != nil {
		return err
	}
	entries, next, err := a.service.ListProducts(r.Context(), page.after, page.limit)
	if err != nil {
		return err
	}
	body := make([]productDTO, 0, len(entries))
	for _, e := range entries {
		product := productDTO{
			ID: e.ID, Name: e.Name, SKU: e.SKU,
			MaxPerHold: e.MaxPerHold, MaxPerOwner: e.MaxPerOwner, Inventories: []stockDTO{},
		}
		for _, s := range e.Stocks {
			product.Inventories = append(product.Inventories, newStockDTO(s))
		}
		body = append(body, product)
	}
	page.linkNext(w, r, next)
	return writeJSON(w, http.StatusOK, body)
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
	return writeJSON(w, http.StatusOK, body)
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
