package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/allo/reservations/internal/reservation"
)

// Observation is what became of a request.
type Observation struct {
	// Outcome is what a verb did: one of Outcomes. It is empty for a request that only reads.
	Outcome string
	// Shortages counts the lines that were short.
	Shortages int
	// NoConnection says that no connection to the database could be had or made.
	NoConnection bool
}

// The outcomes that aren't a status of a hold or a problem's code.
const (
	outcomeHeld     = "HELD"
	outcomeExtended = "EXTENDED"
	outcomeReplayed = "REPLAYED"
	// outcomeInvalid is any request that was refused before the service was asked.
	outcomeInvalid = "INVALID"
	// outcomeInternal is problemFor's code of a bug.
	outcomeInternal = "INTERNAL"
)

// Outcomes are all that a verb's request can end in: few, as each is a metric of its own.
func Outcomes() []string {
	all := []string{
		outcomeHeld, outcomeExtended, outcomeReplayed, outcomeInvalid, outcomeInternal, codeShort,
		string(reservation.Confirmed), string(reservation.Released), string(reservation.Expired),
	}
	for _, a := range answers {
		if !isInvalid(a.status) && !errors.Is(a.err, errNoRoute) {
			all = append(all, a.code)
		}
	}
	return all
}

// isInvalid reports whether a status is the request's own fault, whatever the stock and the holds are.
func isInvalid(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge || status == http.StatusUnsupportedMediaType
}

func observe(routeKey string, answer *recorder, err error) Observation {
	o := Observation{NoConnection: reservation.NoConnection(err)}
	if !strings.HasPrefix(routeKey, http.MethodPost+" ") {
		return o
	}
	if err == nil {
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
