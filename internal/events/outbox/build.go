package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
)

// row is an event as read_events answers it: a row of the ledger with its hold, or a movement.
type row struct {
	// Kind is the ledger's, or kindMoved.
	Kind  string    `json:"kind"`
	At    time.Time `json:"at"`
	Actor *string   `json:"actor"`

	Cause     string     `json:"cause"`
	HoldID    uuid.UUID  `json:"hold_id"`
	Version   int        `json:"version"`
	CreatedAt *time.Time `json:"created_at"` // nil if the hold is missing
	ExpiresAt time.Time  `json:"expires_at"`
	Replaces  *uuid.UUID `json:"replaces"` // nil if the hold took no other's place
	Items     []struct {
		ProductID   uuid.UUID `json:"product_id"`
		WarehouseID uuid.UUID `json:"warehouse_id"`
		Quantity    int       `json:"quantity"`
	} `json:"items"`

	ProductID     uuid.UUID  `json:"product_id"`
	WarehouseID   uuid.UUID  `json:"warehouse_id"`
	Seq           int64      `json:"seq"`
	Movement      string     `json:"movement"`
	Delta         int        `json:"delta"`
	TotalAfter    int        `json:"total_after"`
	Source        *string    `json:"source"`
	ReservationID *uuid.UUID `json:"reservation_id"`
}

// kindMoved is the kind of a movement.
const kindMoved = "m"

// kinds maps the kinds of the ledger, and kindMoved, to the types of the events.
var kinds = map[string]string{
	"h": events.TypeHeld, "x": events.TypeExtended, "p": events.TypePaymentStarted,
	"f": events.TypePaymentFailed, "c": events.TypeConfirmed, "r": events.TypeReleased,
	"e": events.TypeExpired, kindMoved: events.TypeMoved,
}

// causes are the names of the ledger's causes.
var causes = map[string]string{
	"v": "verb", "s": "sweep", "m": "reclaim", "o": "operator", "r": "replaced",
}

// The names of the schemas in openapi.yaml. They name no address: one could change, and with it the
// bytes of old events.
const (
	reservationSchema = "urn:allo:reservations:event:reservation:1"
	stockSchema       = "urn:allo:reservations:event:stock:1"
)

// cloudEvent is a CloudEvent in structured JSON. Its fields, and those of its data, stand in the
// order in which they are published.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	DataSchema      string    `json:"dataschema"`
	// Sequence is the number of the event within its subject, in ten digits or more, so that it
	// sorts as text.
	Sequence     string `json:"sequence"`
	PartitionKey string `json:"partitionkey"`
	Data         any    `json:"data"`
}

// reservationData is the data of a hold's event: the hold as it was then, as GET showed it.
type reservationData struct {
	Reservation holdData `json:"reservation"`
	Cause       string   `json:"cause"`
	Actor       *string  `json:"actor"`
}

type holdData struct {
	ID          uuid.UUID  `json:"id"`
	Status      string     `json:"status"`
	Quantity    *int       `json:"quantity"`
	ProductID   *uuid.UUID `json:"productId"`
	WarehouseID *uuid.UUID `json:"warehouseId"`
	Items       []itemData `json:"items"`
	ExpiresAt   time.Time  `json:"expiresAt"`
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	ConfirmedAt *time.Time `json:"confirmedAt"`
	ReleasedAt  *time.Time `json:"releasedAt"`
	ExpiredAt   *time.Time `json:"expiredAt"`
	Version     int        `json:"version"`
	// Replaces is the hold whose place this one took. It is left out when there is none, so that the
	// events from before there were replacements keep their bytes.
	Replaces *uuid.UUID `json:"replaces,omitempty"`
}

type itemData struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

// movementData is the data of a stock row's event. The reference and the note of a movement are
// left out: a person may have written them about a person.
type movementData struct {
	ProductID     uuid.UUID  `json:"productId"`
	WarehouseID   uuid.UUID  `json:"warehouseId"`
	Seq           int64      `json:"seq"`
	At            time.Time  `json:"at"`
	Kind          string     `json:"kind"`
	Delta         int        `json:"delta"`
	TotalAfter    int        `json:"totalAfter"`
	Source        *string    `json:"source"`
	Actor         *string    `json:"actor"`
	ReservationID *uuid.UUID `json:"reservationId"`
}

// build makes the event of a row. It is the one place that does, so that an event has the same
// bytes on every path. They depend on the row, the epoch and the Options alone.
func (o *Outbox) build(epoch uuid.UUID, text []byte) (events.Event, error) {
	var r row
	if err := json.Unmarshal(text, &r); err != nil {
		return events.Event{}, fmt.Errorf("read the event %s: %w", text, err)
	}
	e := cloudEvent{
		SpecVersion: "1.0", Source: "/" + o.opts.Source + "/" + epoch.String(), Type: kinds[r.Kind],
		Time: r.At.UTC(), DataContentType: "application/json",
	}
	e.DataSchema = reservationSchema
	if r.Kind == kindMoved {
		e.DataSchema = stockSchema
		e.ID = fmt.Sprintf("%s-%s-%d", r.ProductID, r.WarehouseID, r.Seq)
		e.Subject = fmt.Sprintf("%s/%s", r.ProductID, r.WarehouseID)
		e.Sequence, e.Data = fmt.Sprintf("%010d", r.Seq), r.movement()
	} else {
		if e.Type == "" || causes[r.Cause] == "" || r.CreatedAt == nil || len(r.Items) == 0 {
			return events.Event{}, fmt.Errorf(
				"version %d of hold %s has the kind %q and the cause %q, or the hold is missing",
				r.Version, r.HoldID, r.Kind, r.Cause)
		}
		e.ID, e.Subject = fmt.Sprintf("%s-%d", r.HoldID, r.Version), r.HoldID.String()
		e.Sequence, e.Data = fmt.Sprintf("%010d", r.Version), r.reservation()
	}
	e.PartitionKey = e.Subject
	body, err := json.Marshal(e)
	if err != nil {
		return events.Event{}, fmt.Errorf("encode the event %s: %w", e.ID, err)
	}
	return events.Event{ID: e.ID, Subject: e.Subject, Type: e.Type, Body: escape(body)}, nil
}

// escape writes the characters U+FFFE and U+FFFF of a JSON text as \ufffe and \uffff. SQS takes no
// message with them, and the source of a movement or an actor may have them. It refuses control
// characters too, but package json escapes those.
func escape(body []byte) []byte {
	body = bytes.ReplaceAll(body, []byte("\ufffe"), []byte(`\ufffe`))
	return bytes.ReplaceAll(body, []byte("\uffff"), []byte(`\uffff`))
}

func (r row) reservation() reservationData {
	at := r.At.UTC()
	hold := holdData{
		ID: r.HoldID, Status: "PENDING", ExpiresAt: r.ExpiresAt.UTC(), CreatedAt: r.CreatedAt.UTC(),
		UpdatedAt: at, Version: r.Version, Replaces: r.Replaces,
	}
	switch r.Kind {
	case "c":
		hold.Status, hold.ConfirmedAt = "CONFIRMED", &at
	case "r":
		hold.Status, hold.ReleasedAt = "RELEASED", &at
	case "e":
		hold.Status, hold.ExpiredAt = "EXPIRED", &at
	}
	for _, item := range r.Items {
		hold.Items = append(hold.Items, itemData(item))
	}
	if len(hold.Items) == 1 {
		item := &hold.Items[0]
		hold.ProductID, hold.WarehouseID = &item.ProductID, &item.WarehouseID
		hold.Quantity = &item.Quantity
	}
	return reservationData{Reservation: hold, Cause: causes[r.Cause], Actor: r.Actor}
}

func (r row) movement() movementData {
	return movementData{
		ProductID: r.ProductID, WarehouseID: r.WarehouseID, Seq: r.Seq, At: r.At.UTC(),
		Kind: r.Movement, Delta: r.Delta, TotalAfter: r.TotalAfter, Source: r.Source, Actor: r.Actor,
		ReservationID: r.ReservationID,
	}
}
