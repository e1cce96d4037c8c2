package events

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events/channel"
)

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

// epochDigits is how much of an epoch a DedupID has. SNS takes 128 characters, and the longest ID
// has 93: with the whole epoch it would be too long. Two epochs of a database share these digits
// once in four billion times.
const epochDigits = 8

// DedupID names the event among those of all epochs: the first digits of the epoch, a hyphen and
// the ID. After a restore an ID may come again for another event. Whoever drops repeats by one text
// goes by this one. It has no full stop. An event without a source has its ID.
func (e Event) DedupID() string {
	var of struct{ Source string }
	_ = json.Unmarshal(e.Body, &of) // without a source it isn't an event of the outbox
	epoch := of.Source[strings.LastIndexByte(of.Source, '/')+1:]
	if len(epoch) < epochDigits {
		return e.ID
	}
	return epoch[:epochDigits] + "-" + e.ID
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

// Places returns the names of a sink's two places, which are rows of the table sinks: NAME-holds
// for the holds' events, and NAME-stock for the movements. A relay goes on from each by itself, so
// that neither part of the feed waits for the other.
func Places(sink string) []string { return []string{sink + holdsPlace, sink + stockPlace} }

// The ends of a place's name.
const holdsPlace, stockPlace = "-holds", "-stock"

// TypesAt lists the types of the events that are published from a place. It is nil for all: a relay
// of the previous release asks for a sink, and not for one of its places.
func TypesAt(place string) []string {
	isMoved := func(name string) bool { return name == TypeMoved }
	switch {
	case strings.HasSuffix(place, holdsPlace):
		return slices.DeleteFunc(Types(), isMoved)
	case strings.HasSuffix(place, stockPlace):
		return []string{TypeMoved}
	default:
		return nil
	}
}

// Request asks the outbox for the next page of a sink's place.
type Request struct {
	// Sink is the place: the row in the table sinks, such as "topic-holds".
	Sink string `json:"sink"`
	// Lease is the relay's own UUID, random for each run and place: only one relay at a time publishes
	// from a place.
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
	// Patient says that the relay comes again soon. Then the outbox takes no tick while the last one
	// is young, and the answer may be empty and say More. An outbox of the previous release ignores
	// it.
	Patient bool `json:"patient,omitempty"`
	// Live, unless nil, asks for news of the live channel instead, and the rest is empty. An outbox of
	// the previous release then refuses the empty Lease.
	Live *LiveRequest `json:"live,omitempty"`
}

// Parked is an event that wasn't published, with the sink's reason.
type Parked struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	Error   string `json:"error"`
}

// Page is the outbox's answer: the next events of a place, in the order in which to publish them.
type Page struct {
	// Place is that of the request. An outbox of the previous release answers none: it knows of no
	// places, and its page has the events of both.
	Place string `json:"place"`
	// Leased is false when another relay has the lease. There are no events then.
	Leased bool    `json:"leased"`
	Events []Event `json:"events"`
	// Position acknowledges the whole page in the next request. It is empty when nothing is left. A
	// page whose events were all parked has a Position and no events.
	Position string `json:"position"`
	// More says that another page is ready after this one. Without a Position it says that something
	// is new, and that a tick is taken for it soon.
	More bool `json:"more"`
	// LagSeconds is for how long the oldest event of the place could have been published: since it
	// happened, but not since before the tick that the place has passed.
	LagSeconds float64 `json:"lagSeconds"`
	// Parked is how many events of the sink, of both places, were parked when the request came.
	Parked int `json:"parked,omitempty"`
	// Live answers a request with Live.
	Live *LivePage `json:"live,omitempty"`
}

// LiveRequest asks the outbox for the next batch of news of the live channel, or for the next page
// of the batch.
type LiveRequest struct {
	// Lease is the relay's own UUID, random for each run.
	Lease string `json:"lease"`
	// AsOf names the batch that the relay has, or is zero when it has none. Without After the batch
	// is published, and the answer begins the next one.
	AsOf int64 `json:"asOf,omitempty"`
	// After is where the next page of the batch begins.
	After *LivePlace `json:"after,omitempty"`
	// Release gives the lease back, at the end of a run. The answer has no news then.
	Release bool `json:"release,omitempty"`
}

// LivePage is news of the live channel: stock rows as they are now, and holds that have changed.
type LivePage struct {
	// Leased is false when another relay has the lease. There is no news then.
	Leased bool `json:"leased"`
	// AsOf names the batch. It is zero when there is no news.
	AsOf  int64           `json:"asOf,omitempty"`
	Stock []channel.Stock `json:"stock,omitempty"`
	Holds []channel.Hold  `json:"holds,omitempty"`
	// After is where the next page of the batch begins, or nil if this is the last one.
	After *LivePlace `json:"after,omitempty"`
	// LagSeconds is for how long the oldest news of the page has been waiting.
	LagSeconds float64 `json:"lagSeconds,omitempty"`
}

// LivePlace is a place in a batch of the live channel, as the outbox writes it: behind a stock row
// of a class, and behind a hold.
type LivePlace struct {
	Class       int       `json:"class"`
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	HoldID      uuid.UUID `json:"holdId"`
}
