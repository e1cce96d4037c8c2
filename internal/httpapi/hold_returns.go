package httpapi

import (
	"net/http"
	"time"

	"github.com/google/uuid"
)

// listedReturnDTO is a line of a return in the contract's form.
type listedReturnDTO struct {
	Reference     string     `json:"reference"`
	Line          int        `json:"line"`
	ProductID     uuid.UUID  `json:"productId"`
	WarehouseID   uuid.UUID  `json:"warehouseId"`
	Quantity      int        `json:"quantity"`
	ToWarehouseID *uuid.UUID `json:"toWarehouseId"`
	At            time.Time  `json:"at"`
	Actor         *string    `json:"actor"`
}

func (a *API) listReturns(w *recorder, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	lines, err := a.service.ListReturns(r.Context(), id)
	if err != nil {
		return err
	}
	body := make([]listedReturnDTO, 0, len(lines))
	for _, line := range lines {
		body = append(body, listedReturnDTO(line))
	}
	return writeJSON(w, http.StatusOK, body)
}
