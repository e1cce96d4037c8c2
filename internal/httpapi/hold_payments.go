package httpapi

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// holdPaymentDTO is a payment of a hold in the contract's form.
type holdPaymentDTO struct {
	Reference string                     `json:"reference"`
	Outcome   reservation.PaymentOutcome `json:"outcome"`
	At        time.Time                  `json:"at"`
	Successor *uuid.UUID                 `json:"successor"`
}

func (a *API) listPayments(w *recorder, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	payments, err := a.service.ListPayments(r.Context(), id)
	if err != nil {
		return err
	}
	body := make([]holdPaymentDTO, 0, len(payments))
	for _, p := range payments {
		body = append(body, holdPaymentDTO(p))
	}
	return writeJSON(w, http.StatusOK, body)
}
