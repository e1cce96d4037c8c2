package httpapi

import (
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/stock"
)

// returnRequest is a return of goods. Pointers tell a missing field from a zero.
type returnRequest struct {
	Reference *string             `json:"reference"`
	Lines     []returnLineRequest `json:"lines"`
}

// returnLineRequest is a line of a return.
type returnLineRequest struct {
	ProductID     *string      `json:"productId"`
	WarehouseID   *string      `json:"warehouseId"`
	Quantity      *wholeNumber `json:"quantity"`
	Restock       *bool        `json:"restock"`
	ToWarehouseID *string      `json:"toWarehouseId"`
}

// returnAnswer has the hold, which a return doesn't change, and the lines that were taken back.
type returnAnswer struct {
	Reservation reservationDTO `json:"reservation"`
	Returned    []returnedDTO  `json:"returned"`
}

// returnedDTO is a line that was taken back. ToWarehouseID and Seq are null unless it was
// restocked.
type returnedDTO struct {
	ProductID     uuid.UUID  `json:"productId"`
	WarehouseID   uuid.UUID  `json:"warehouseId"`
	Quantity      int        `json:"quantity"`
	Restock       bool       `json:"restock"`
	ToWarehouseID *uuid.UUID `json:"toWarehouseId"`
	Seq           *int64     `json:"seq"`
}

func (a *API) returnGoods(w *recorder, r *http.Request) error {
	holdID, key, err := target(r)
	if err != nil {
		return err
	}
	var q returnRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	request, err := q.returnOf(holdID)
	if err != nil {
		return err
	}
	returned, err := a.stock.Return(r.Context(), request, key)
	if err != nil {
		return err
	}
	w.succeed(outcomeReturned, returned.Replayed)
	answer := returnAnswer{Reservation: newReservationDTO(returned.Hold)}
	for _, line := range returned.Lines {
		answer.Returned = append(answer.Returned, returnedDTO{
			ProductID: line.ProductID, WarehouseID: line.WarehouseID, Quantity: line.Quantity,
			Restock: line.ToWarehouseID != nil, ToWarehouseID: line.ToWarehouseID, Seq: line.Seq,
		})
	}
	return writeJSON(w, http.StatusOK, answer)
}

// returnOf checks that the fields are well-formed. The service checks the limits.
func (q returnRequest) returnOf(hold uuid.UUID) (stock.Return, error) {
	bad := fields{}
	request := stock.Return{Reservation: hold}
	if q.Reference == nil {
		bad.add("reference", "is required")
	} else {
		request.Reference = *q.Reference
	}
	for i, line := range q.Lines {
		request.Lines = append(request.Lines, line.line(fmt.Sprintf("lines[%d].", i), bad))
	}
	return request, bad.err()
}

func (q returnLineRequest) line(prefix string, bad fields) stock.ReturnLine {
	item := itemRequest{q.ProductID, q.WarehouseID, q.Quantity}.line(prefix, bad)
	line := stock.ReturnLine{
		ProductID: item.ProductID, WarehouseID: item.WarehouseID, Quantity: item.Quantity,
	}
	restock := q.Restock == nil || *q.Restock
	if restock {
		line.ToWarehouseID = &item.WarehouseID
	}
	if q.ToWarehouseID != nil {
		to := id(prefix+"toWarehouseId", q.ToWarehouseID, bad)
		line.ToWarehouseID = &to
		if !restock {
			bad.add(prefix+"toWarehouseId", "must not be given when restock is false")
		}
	}
	return line
}

// newExcess lists the lines of which more would be back than was sold.
func newExcess(err *stock.ExcessError) (lines []problem.Excess) {
	for _, line := range err.Lines {
		lines = append(lines, problem.Excess(line))
	}
	return lines
}
