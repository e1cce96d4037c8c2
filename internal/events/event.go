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
}

// Request asks the outbox for a sink's next page.
type Request struct {
	// Sink is the row in the table sinks, such as "topic".
	Sink string `json:"sink"`
	// Lease is the relay's own, random for each run: only one relay at a time publishes to a sink.
	Lease string `json:"lease"`
	// Ack is the Position of the page that was published whole, or empty.
	Ack string `json:"ack,omitempty"`
	// Parked are the events of that page that the sink refused for good, and those behind them.
	Parked []Parked `json:"parked,omitempty"`
	// Failure says why the page before couldn't be published, or is empty.
	Failure string `json:"failure,omitempty"`
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
	// Position acknowledges the page in the next request. It is empty when there are no events.
	Position string `json:"position"`
	// More says that another page is ready after this one.
	More bool `json:"more"`
	// LagSeconds is the age of the oldest transition that the sink doesn't have yet.
	LagSeconds float64 `json:"lagSeconds"`
}
