package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// replayedHeader marks an answer that was given before, under the same Idempotency-Key.
const replayedHeader = "Idempotency-Replayed"

// reservationDTO is a hold as the contract writes it. The product, the warehouse and the times of what didn't happen are null.
type reservationDTO struct {
	ID          uuid.UUID          `json:"id"`
	Status      reservation.Status `json:"status"`
	Quantity    *int               `json:"quantity"`
	ProductID   *uuid.UUID         `json:"productId"`
	WarehouseID *uuid.UUID         `json:"warehouseId"`
	Items       []itemDTO          `json:"items"`
	ExpiresAt   time.Time          `json:"expiresAt"`
	CreatedAt   time.Time          `json:"createdAt"`
	UpdatedAt   time.Time          `json:"updatedAt"`
	ConfirmedAt *time.Time         `json:"confirmedAt"`
	ReleasedAt  *time.Time         `json:"releasedAt"`
	ExpiredAt   *time.Time         `json:"expiredAt"`
}

type itemDTO struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

func newReservationDTO(h reservation.Hold) reservationDTO {
	dto := reservationDTO{
		ID: h.ID, Status: h.Status, ExpiresAt: h.ExpiresAt, CreatedAt: h.CreatedAt, UpdatedAt: h.UpdatedAt,
		ConfirmedAt: h.ResolvedAt(reservation.Confirmed),
		ReleasedAt:  h.ResolvedAt(reservation.Released),
		ExpiredAt:   h.ResolvedAt(reservation.Expired),
	}
	for _, line := range h.Lines {
		dto.Items = append(dto.Items, itemDTO(line))
	}
	if len(dto.Items) == 1 {
		item := &dto.Items[0]
		dto.ProductID, dto.WarehouseID, dto.Quantity = &item.ProductID, &item.WarehouseID, &item.Quantity
	}
	return dto
}

// reservationAnswer is the body of every verb that changes a hold.
type reservationAnswer struct {
	Reservation reservationDTO `json:"reservation"`
}

// buffers are those that answers are encoded in.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writeJSON encodes before it writes the status, so that a value that can't be encoded is a 500 and not half an answer.
func writeJSON(w http.ResponseWriter, status int, body any) error {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	if err := json.MarshalWrite(b, body); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the caller is gone: there is nobody to tell
	return nil
}

// writeAnswer writes what a verb did, which is its outcome unless it had done so before.
func writeAnswer(w *recorder, status int, outcome string, a reservation.Answer) error {
	w.outcome = outcome
	if a.Replayed {
		w.outcome = outcomeReplayed
		w.Header().Set(replayedHeader, "true")
	}
	return writeJSON(w, status, reservationAnswer{newReservationDTO(a.Hold)})
}

// itemRequest is a line as it is asked for. Pointers tell what is missing from what is zero.
type itemRequest struct {
	ProductID   *string `json:"productId"`
	WarehouseID *string `json:"warehouseId"`
	Quantity    *int64  `json:"quantity"`
}

// reserveRequest asks for one line in its own fields, or for several as items.
type reserveRequest struct {
	ProductID   *string       `json:"productId"`
	WarehouseID *string       `json:"warehouseId"`
	Quantity    *int64        `json:"quantity"`
	Items       []itemRequest `json:"items"`
	TTLSeconds  *int64        `json:"ttlSeconds"`
}

// fields collects what is wrong with a request.
type fields map[string][]string

func (f fields) add(name, message string) { f[name] = append(f[name], message) }

func (f fields) err() error {
	if len(f) == 0 {
		return nil
	}
	return &reservation.InvalidError{Fields: f}
}

// lines reads the request's lines, in whichever form it has them.
func (q reserveRequest) lines() ([]reservation.Line, error) {
	bad := fields{}
	single := q.ProductID != nil || q.WarehouseID != nil || q.Quantity != nil
	if single && q.Items != nil {
		bad.add("items", "must not be given beside productId, warehouseId and quantity")
		return nil, bad.err()
	}
	if q.Items == nil {
		line := itemRequest{q.ProductID, q.WarehouseID, q.Quantity}.line("", bad)
		return []reservation.Line{line}, bad.err()
	}
	var lines []reservation.Line
	for i, item := range q.Items {
		lines = append(lines, item.line(fmt.Sprintf("items[%d].", i), bad))
	}
	return lines, bad.err()
}

// line checks that the fields are there and what they are; their limits are the service's to check, but for a quantity that
// its type can't hold.
func (q itemRequest) line(prefix string, bad fields) reservation.Line {
	line := reservation.Line{
		ProductID:   id(prefix+"productId", q.ProductID, bad),
		WarehouseID: id(prefix+"warehouseId", q.WarehouseID, bad),
	}
	switch {
	case q.Quantity == nil:
		bad.add(prefix+"quantity", "is required")
	case *q.Quantity < 1 || *q.Quantity > reservation.MaxQuantity:
		bad.add(prefix+"quantity", fmt.Sprintf("must be a whole number from 1 to %d", reservation.MaxQuantity))
	default:
		line.Quantity = int(*q.Quantity)
	}
	return line
}

func id(field string, value *string, bad fields) uuid.UUID {
	if value == nil {
		bad.add(field, "is required")
		return uuid.UUID{}
	}
	id, ok := parseID(*value)
	if !ok {
		bad.add(field, "must be a UUID")
	}
	return id
}

// maxSeconds is the most that a duration can be asked for, so that no number of seconds overflows it.
const maxSeconds = int64(math.MaxInt64 / time.Second)

// ttl reads ttlSeconds. How long a hold may last is the service's to say.
func ttl(seconds *int64) (time.Duration, error) {
	if *seconds < 1 || *seconds > maxSeconds {
		return 0, invalid("ttlSeconds", "must be a whole number from 1")
	}
	return time.Duration(*seconds) * time.Second, nil
}

func (a *API) reserve(w *recorder, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q reserveRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	request := reservation.Request{Key: key}
	if request.Lines, err = q.lines(); err != nil {
		return err
	}
	if q.TTLSeconds != nil {
		if request.TTL, err = ttl(q.TTLSeconds); err != nil {
			return err
		}
	}
	answer, err := a.service.Reserve(r.Context(), request)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/reservations/"+answer.Hold.ID.String())
	return writeAnswer(w, http.StatusCreated, outcomeHeld, answer)
}

func (a *API) confirm(w *recorder, r *http.Request) error {
	return a.resolve(w, r, a.service.Confirm)
}

func (a *API) release(w *recorder, r *http.Request) error {
	return a.resolve(w, r, a.service.Release)
}

// resolve ends a hold by one of its verbs, which take no body, or an empty object.
func (a *API) resolve(w *recorder, r *http.Request,
	verb func(context.Context, uuid.UUID, string) (reservation.Answer, error),
) error {
	holdID, err := pathID(r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	if body != nil {
		if err := decode(body, &struct{}{}); err != nil {
			return err
		}
	}
	answer, err := verb(r.Context(), holdID, key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, string(answer.Hold.Status), answer)
}

// extendRequest asks for a new end of a hold.
type extendRequest struct {
	TTLSeconds *int64 `json:"ttlSeconds"`
}

func (a *API) extend(w *recorder, r *http.Request) error {
	holdID, err := pathID(r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q extendRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	if q.TTLSeconds == nil {
		return invalid("ttlSeconds", "is required")
	}
	duration, err := ttl(q.TTLSeconds)
	if err != nil {
		return err
	}
	answer, err := a.service.Extend(r.Context(), holdID, duration, key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, outcomeExtended, answer)
}

// holdAnswer is a hold with what a page needs to show it.
type holdAnswer struct {
	Reservation      reservationDTO `json:"reservation"`
	Product          *productRef    `json:"product"`
	Warehouse        *warehouseDTO  `json:"warehouse"`
	RemainingSeconds int64          `json:"remainingSeconds"`
	Expired          bool           `json:"expired"`
	ServerTime       time.Time      `json:"serverTime"`
}

type productRef struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
	SKU  string    `json:"sku"`
}

func (a *API) getReservation(w *recorder, r *http.Request) error {
	holdID, err := pathID(r)
	if err != nil {
		return err
	}
	view, err := a.service.Get(r.Context(), holdID)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, holdAnswer{
		Reservation:      newReservationDTO(view.Hold),
		Product:          (*productRef)(view.Product),
		Warehouse:        (*warehouseDTO)(view.Warehouse),
		RemainingSeconds: remaining(view),
		Expired:          view.Hold.Status == reservation.Expired,
		ServerTime:       view.Now,
	})
}

// remaining rounds up, so that a hold is at nought seconds only when it is dead.
func remaining(view reservation.HoldView) int64 {
	if view.Hold.Status != reservation.Pending {
		return 0
	}
	return int64(math.Ceil(view.Hold.ExpiresAt.Sub(view.Now).Seconds()))
}
