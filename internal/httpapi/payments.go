package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/allo/reservations/internal/reservation"
)

// confirmRequest says which payment confirms a hold, and what it does when the hold is gone.
type confirmRequest struct {
	PaymentReference *string `json:"paymentReference"`
	OnGone           *string `json:"onGone"`
}

// The values of OnGone, and the outcomes of a confirm.
const (
	onGoneRefuse      = "REFUSE"
	onGoneReacquire   = "REACQUIRE"
	outcomeReacquired = "REACQUIRED"
)

// confirmAnswer has the hold that was paid: the one that was confirmed, or its successor.
type confirmAnswer struct {
	Reservation reservationDTO `json:"reservation"`
	Outcome     string         `json:"outcome"`
}

func (a *API) confirm(w *recorder, r *http.Request) error {
	holdID, key, err := target(r)
	if err != nil {
		return err
	}
	var q confirmRequest
	if err := readOptionalJSON(r, &q); err != nil {
		return err
	}
	payment, reacquire, err := q.payment()
	if err != nil {
		return err
	}
	var answer reservation.Answer
	if payment == "" {
		answer, err = a.service.Confirm(r.Context(), holdID, key)
	} else {
		answer, err = a.service.ConfirmPayment(r.Context(), holdID, payment, reacquire, key)
	}
	if err != nil {
		var lost *reservation.PaymentLostError
		if errors.As(err, &lost) && lost.Replayed {
			w.succeed(outcomeReplayed, true) // this refusal is stored, as a success is
		}
		return err
	}
	outcome := string(answer.Hold.Status)
	if answer.Reacquired {
		outcome = outcomeReacquired
	}
	w.succeed(outcome, answer.Replayed)
	return writeJSON(w, http.StatusOK, confirmAnswer{newReservationDTO(answer.Hold), outcome})
}

// payment reads which payment confirms, "" for none that is named, and whether it takes the units
// anew when the hold is gone.
func (q confirmRequest) payment() (reference string, reacquire bool, err error) {
	bad := fields{}
	reference = name("paymentReference", badReference, q.PaymentReference, bad)
	if q.OnGone != nil {
		reacquire = *q.OnGone == onGoneReacquire
		if !reacquire && *q.OnGone != onGoneRefuse {
			bad.add("onGone", "must be REFUSE or REACQUIRE")
		}
	}
	if reacquire && q.PaymentReference == nil {
		bad.add("paymentReference", "is required with REACQUIRE")
	}
	return reference, reacquire, bad.err()
}

// paymentRequest says that a payment has begun or has failed. TTLSeconds is counted from now.
type paymentRequest struct {
	PaymentReference *string      `json:"paymentReference"`
	TTLSeconds       *wholeNumber `json:"ttlSeconds"`
}

// readPayment reads a paymentRequest: the payment, and how long the hold is to last, or nil if the
// request doesn't say. The service checks both.
func readPayment(r *http.Request) (payment string, lasts *time.Duration, err error) {
	var q paymentRequest
	if err := readJSON(r, &q); err != nil {
		return "", nil, err
	}
	if q.PaymentReference == nil {
		return "", nil, invalid("paymentReference", "is required")
	}
	if q.TTLSeconds != nil {
		d := ttl(*q.TTLSeconds)
		lasts = &d
	}
	return *q.PaymentReference, lasts, nil
}

func (a *API) startPayment(w *recorder, r *http.Request) error {
	holdID, key, err := target(r)
	if err != nil {
		return err
	}
	payment, lasts, err := readPayment(r)
	if err != nil {
		return err
	}
	if lasts == nil {
		return invalid("ttlSeconds", "is required")
	}
	answer, err := a.service.StartPayment(r.Context(), holdID, payment, *lasts, key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, outcomePaying, answer)
}

func (a *API) failPayment(w *recorder, r *http.Request) error {
	holdID, key, err := target(r)
	if err != nil {
		return err
	}
	payment, lasts, err := readPayment(r)
	if err != nil {
		return err
	}
	answer, err := a.service.FailPayment(r.Context(), holdID, payment, lasts, key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, outcomePaymentFailed, answer)
}
