package demo

import (
	"net/http"

	"github.com/google/uuid"
)

// The steps of a payment.
const (
	// stepStart says that the customer has gone to pay.
	stepStart = "START"
	// stepFail says that the payment failed. The hold goes on as before the payment.
	stepFail = "FAIL"
	// stepLapse says the same and leaves the hold one second. The money comes nevertheless: the page
	// sends stepPay after the hold has ended.
	stepLapse = "LAPSE"
	// stepPay says that the money has arrived. When the hold is gone, it takes the units anew.
	stepPay = "PAY"
)

// paymentLasts is how many seconds the demo's customer has for a payment.
const paymentLasts = 900

// paymentRequest is what the page tells the shop's back end.
type paymentRequest struct {
	ReservationID    string `json:"reservationId"`
	PaymentReference string `json:"paymentReference"`
	Step             string `json:"step"`
}

// call returns the path and the body of the API's call for a step, or "" for no step.
func (q paymentRequest) call() (path string, body object) {
	body = object{"paymentReference": q.PaymentReference}
	switch q.Step {
	case stepStart:
		body["ttlSeconds"] = paymentLasts
		return "/payment", body
	case stepFail:
		return "/payment/failed", body
	case stepLapse:
		body["ttlSeconds"] = 1
		return "/payment/failed", body
	case stepPay:
		body["onGone"] = "REACQUIRE"
		return "/confirm", body
	default:
		return "", nil
	}
}

// servePayment does in the name of the shop's back end what the page says that the payment provider
// did. A real back end asks the provider and believes no page. The answer is the API's own. The
// API checks the payment's reference and the request's Idempotency-Key.
func (s *Server) servePayment(w http.ResponseWriter, r *http.Request) {
	var q paymentRequest
	if !read(w, r, &q) {
		return
	}
	hold, err := uuid.Parse(q.ReservationID)
	path, body := q.call()
	if err != nil || path == "" {
		refuse(w, http.StatusBadRequest, "VALIDATION_FAILED",
			"Send reservationId, a UUID, and step: START, FAIL, LAPSE or PAY.")
		return
	}
	select {
	case s.paying <- struct{}{}:
		defer func() { <-s.paying }()
	default:
		busy(w, "Too many payments are under way.")
		return
	}
	a, err := s.api.send(r.Context(), http.MethodPost, "/api/reservations/"+hold.String()+path, body,
		r.Header.Get("Idempotency-Key"))
	if err != nil {
		s.log.WarnContext(r.Context(), "the demo can't pay", "error", err.Error())
		busy(w, "The shop's back end can't reach the API.")
		return
	}
	for _, name := range []string{"Content-Type", "Retry-After", "Idempotency-Replayed"} {
		if value := a.header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // it fails when the caller has hung up
}
