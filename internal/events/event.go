package events

import "encoding/json"

// Event is an event as it is published: under its id, it has the same bytes each time (I11).
type Event struct {
	// ID names the event for ever. It has no full stop.
	ID string `json:"id"`
	// Subject is the hold or the stock row. The events of one subject are published in order.
	Subject string `json:"subject"`
	// Type is the CloudEvents type, such as allo.reservation.held.
	Type string `json:"type"`
	// Body is the CloudEvent in structured JSON.
	Body json.RawMessage `json:"body"`
	// Position acknowledges the page up to this event. Only the events of a Page have it.
	Position string `json:"position,omitempty"`
}

// The types of the events.
const (
	TypeHeld           = "allo.reservation.held"
	TypeExtended       = "allo.reservation.extended"
	TypePaymentStarted = "allo.reservation.payment-started"
	TypePaymentFailed  = "allo.reservation.payment-failed"
	TypeConfirmed      = "allo.reservation.confirmed"
	TypeReleased       = "allo.reservation.released"
	TypeExpired        = "allo.reservation.expired"
	TypeMoved          = "allo.stock.moved"
)

// Types lists the types of the events.
func Types() []string {
	return []string{
		TypeHeld, TypeExtended, TypePaymentStarted, TypePaymentFailed, TypeConfirmed, TypeReleased,
		TypeExpired, TypeMoved,
	}
}

// Request asks the outbox for a sink's next page.
type Request struct {
	// Sink is the row in the table sinks, such as "topic".
	Sink string `json:"sink"`
	// Lease is the relay's own UUID, random for each run: only one relay at a time publishes to a
	// sink.
	Lease string `json:"lease"`
	// Ack is the Position of the page before, or of its last event up to which each was published or
	// parked. It is empty when there is none.
	Ack string `json:"ack,omitempty"`
	// Parked are the events up to Ack that the sink refused for good, and those behind them.
	Parked []Parked `json:"parked,omitempty"`
	// Failure says why the page before couldn't be published whole, or is empty.
	Failure string `json:"failure,omitempty"`
	// Release gives the lease back, at the end of a run. The answer has no events then.
	Release bool `json:"release,omitempty"`
}

// Parked is an event that wasn't published, with the sink's reason.
type Parked struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	Error   string `json:"error"`
}

// Page is the outbox's answer: the next events of a sink, in the order in which to publish them.
type Page struct {
	// Leased is false when another relay has the lease. There are no events then.
	Leased bool    `json:"leased"`
	Events []Event `json:"events"`
	// Position acknowledges the whole page in the next request. It is empty when nothing is left. A
	// page whose events were all parked has a Position and no events.
	Position string `json:"position"`
	// More says that another page is ready after this one.
	More bool `json:"more"`
	// LagSeconds is for how long the oldest transition that the sink doesn't have yet could have been
	// published: since it happened, but not since before the tick that the sink has passed.
	LagSeconds float64 `json:"lagSeconds"`
	// Parked is how many events of the sink were parked when the request came.
	Parked int `json:"parked,omitempty"`
}
