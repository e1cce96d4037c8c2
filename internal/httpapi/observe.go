package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/stock"
)

// Observation describes a finished request, for metrics.
type Observation struct {
	// Outcome is the result of a POST, except one on the catalog: one of Outcomes. It is empty for
	// any other request.
	Outcome string
	// Shortages is the number of lines that asked for more than there was.
	Shortages int
	// NoConnection is true when the service got no connection to the database.
	NoConnection bool
}

// The outcomes that are neither a status of a hold nor a problem's code.
const (
	outcomeHeld     = "HELD"
	outcomeExtended = "EXTENDED"
	// outcomePaying means that a payment has begun, and PAYMENT_STARTED that one is in the way.
	outcomePaying        = "PAYING"
	outcomePaymentFailed = "PAYMENT_FAILED"
	outcomeMoved         = "MOVED"
	outcomeReturned      = "RETURNED"
	outcomeErased        = "ERASED"
	outcomeReplayed      = "REPLAYED"
	// outcomeInvalid stands for every request that was refused before the service was called.
	outcomeInvalid = "INVALID"
)

// Outcomes returns every outcome that a POST can have, except those of the catalog. They are few,
// as each is a metric.
func Outcomes() []string {
	all := []string{
		outcomeHeld, outcomeExtended, outcomePaying, outcomePaymentFailed, outcomeReacquired,
		outcomeMoved, outcomeReturned, outcomeErased, outcomeReplayed, outcomeInvalid,
		problem.CodeInternal, codeShort, codeNotForSale, codeLimit, codePaid, codeLost, codeRefused,
		codeExceedsSold,
		string(reservation.Confirmed), string(reservation.Released), string(reservation.Expired),
	}
	for _, a := range answers {
		never := errors.Is(a.err, errNoRoute) || errors.Is(a.err, stock.ErrUnfinished) ||
			errors.Is(a.err, reservation.ErrProductNotFound) || errors.Is(a.err, outbox.ErrTooOld)
		if !isInvalid(a.problem.Status) && !never {
			all = append(all, a.problem.Code)
		}
	}
	return all
}

// isInvalid reports whether a status means that the request is invalid whatever the stock and the
// holds are.
func isInvalid(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType:
		return true
	}
	return false
}

func observe(routeKey string, answer *recorder, err error) Observation {
	o := Observation{NoConnection: reservation.NoConnection(err)}
	isPost := strings.HasPrefix(routeKey, http.MethodPost+" ")
	if !isPost || strings.Contains(routeKey, " /api/catalog/") {
		return o
	}
	if err == nil || answer.outcome == outcomeReplayed { // a refusal that is repeated isn't a new one
		o.Outcome = answer.outcome
		return o
	}
	p := problemFor(err)
	o.Outcome, o.Shortages = p.Code, len(p.Shortages)
	if isInvalid(p.Status) {
		o.Outcome = outcomeInvalid
	}
	return o
}
