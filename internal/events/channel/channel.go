// Package channel is the contract of the live channel, on which the pages hear of stock and holds
// while they are open: the names of its channels, its messages, and who may subscribe to what. The
// channel is AppSync Events on AWS, and a server with the same protocol on one machine.
//
// A message is state, and no event: it says what a stock row has now. Messages can be lost, come
// late, or come twice. So each has asOf, the number of a tick, and a reader keeps the message with
// the highest asOf of each stock row or hold. It also reads the same from the API now and then.
package channel

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
)

// Protocol is the subprotocol of the WebSocket.
const Protocol = "aws-appsync-event-ws"

// The channels. AppSync calls their first part a namespace.
const (
	// StockNamespace is the namespace of the stock rows.
	StockNamespace = "stock"
	// HoldsNamespace is the namespace of the holds.
	HoldsNamespace = "holds"
	// AllStock has the messages of all stock rows.
	AllStock = "/" + StockNamespace + "/all"
	// holds has a channel for each hold, by its id.
	holds = "/" + HoldsNamespace + "/"
	// AnyHold shows how the channel of a hold is named.
	AnyHold = holds + "{id}"
)

// OfHold returns the channel of a hold.
func OfHold(id uuid.UUID) string { return holds + id.String() }

// Token is the Authorization of every reader: the channels are open, but AppSync wants a token.
const Token = "anyone"

// The bounds of a publish. AppSync drops an event that is larger, and says nothing.
const (
	// MaxEvents is the most messages of one request to the channel.
	MaxEvents = 5
	// MaxBytes is the most bytes of a message.
	MaxBytes = 240_000
)

// Publisher sends messages to a channel. It is safe for concurrent use.
type Publisher interface {
	// Publish sends the messages, each a JSON object of at most MaxBytes, and any number of them. It
	// returns an error when one of them may not have been sent. The others may have been.
	Publish(ctx context.Context, channel string, messages []json.RawMessage) error
}

// Stock is a message on AllStock: a stock row as the catalog shows it. The catalog may be set to
// hide the figures (STOCK_SHOWN): then the quantities are null, and AvailableStock has a limit.
type Stock struct {
	ProductID        uuid.UUID `json:"productId"`
	WarehouseID      uuid.UUID `json:"warehouseId"`
	TotalQuantity    *int      `json:"totalQuantity"`
	ReservedQuantity *int      `json:"reservedQuantity"`
	AvailableStock   int       `json:"availableStock"`
	// OrMore says that AvailableStock is the most that is shown.
	OrMore bool  `json:"orMore,omitzero"`
	AsOf   int64 `json:"asOf"`
}

// Hold is a message on the channel of a hold: it changed. The reader asks the API for the hold.
type Hold struct {
	ReservationID uuid.UUID `json:"reservationId"`
	Version       int       `json:"version"`
	AsOf          int64     `json:"asOf"`
}

// The operations of a client of the channel, as AppSync names them.
const (
	Connect   = "EVENT_CONNECT"
	Subscribe = "EVENT_SUBSCRIBE"
	Publish   = "EVENT_PUBLISH"
)

// Allows reports whether everybody may do an operation on a channel. A connect has no channel. Only
// the relay publishes, by other rights.
//
// The id of a hold is a secret: with it one may read the hold, and release it. So a reader may
// subscribe to the hold whose id it knows, and never to several holds by a wildcard.
func Allows(operation, name string) bool {
	switch operation {
	case Connect:
		return true
	case Subscribe:
		return name == AllStock || isHold(name)
	default:
		return false
	}
}

// isHold reports whether a name is the channel of one hold.
func isHold(name string) bool {
	if len(name) != len(holds)+36 {
		return false
	}
	id, err := uuid.Parse(name[len(holds):])
	return err == nil && OfHold(id) == name
}
