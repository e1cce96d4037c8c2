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
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/principal"
	"github.com/allo/reservations/internal/reservation"
)

// replayedHeader marks an answer that repeats an earlier one, under the same Idempotency-Key.
const replayedHeader = "Idempotency-Replayed"

// reservationDTO is a hold in the contract's form. Quantity, ProductID and WarehouseID are null
// unless the hold has one line; the times of transitions that didn't happen are null.
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
	Version     int                `json:"version"`
	Payment     *paymentDTO        `json:"payment"`
	Reference   *string            `json:"reference"`
	Replaces    *uuid.UUID         `json:"replaces"`
	ReplacedBy  *uuid.UUID         `json:"replacedBy"`
}

// paymentDTO is the payment under way.
type paymentDTO struct {
	Reference string    `json:"reference"`
	StartedAt time.Time `json:"startedAt"`
}

type itemDTO struct {
	ProductID   uuid.UUID `json:"productId"`
	WarehouseID uuid.UUID `json:"warehouseId"`
	Quantity    int       `json:"quantity"`
}

func newReservationDTO(h reservation.Hold) reservationDTO {
	dto := reservationDTO{
		ID:          h.ID,
		Status:      h.Status,
		ExpiresAt:   h.ExpiresAt,
		CreatedAt:   h.CreatedAt,
		UpdatedAt:   h.UpdatedAt,
		ConfirmedAt: h.ResolvedAt(reservation.Confirmed),
		ReleasedAt:  h.ResolvedAt(reservation.Released),
		ExpiredAt:   h.ResolvedAt(reservation.Expired),
		Version:     h.Version,
		Payment:     (*paymentDTO)(h.Payment),
		Reference:   orNull(h.Reference),
		Replaces:    h.Replaces,
		ReplacedBy:  h.ReplacedBy,
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

// orNull turns an empty text into a null.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// reservationAnswer is the body of every POST that changes a hold, except a confirm.
type reservationAnswer struct {
	Reservation reservationDTO `json:"reservation"`
}

// buffers keeps the buffers that answers are encoded in.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writeJSON encodes the body before it writes the status: if that fails, or the body is larger than
// the platform takes, the caller gets a whole 500 and not half an answer.
func writeJSON(w *recorder, status int, body any) error {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	// An event keeps its bytes: without the option its strings would be written anew.
	if err := json.MarshalWrite(b, body, jsontext.PreserveRawStrings(true)); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if w.maxBody > 0 && b.Len() > w.maxBody {
		return fmt.Errorf("%w: it has %d bytes, and the limit is %d", errAnswerTooLarge, b.Len(),
			w.maxBody)
	}
	w.Header().Set("Content-Type", "application/json")
	w.sendBody(status, b.Bytes())
	return nil
}

// writeAnswer answers with the hold of a verb that succeeded, and records the outcome.
func writeAnswer(w *recorder, status int, outcome string, a reservation.Answer) error {
	w.succeed(outcome, a.Replayed)
	return writeJSON(w, status, reservationAnswer{newReservationDTO(a.Hold)})
}

// succeed records the outcome of a verb, and marks an answer that repeats an earlier one.
func (r *recorder) succeed(outcome string, replayed bool) {
	r.outcome = outcome
	if replayed {
		r.outcome = outcomeReplayed
		r.Header().Set(replayedHeader, "true")
	}
}

// itemRequest is a line of a request. Pointers tell a missing field from a zero.
type itemRequest struct {
	ProductID   *string      `json:"productId"`
	WarehouseID *string      `json:"warehouseId"`
	Quantity    *wholeNumber `json:"quantity"`
}

// reserveRequest asks for one line by fields of its own, or for several lines by Items.
type reserveRequest struct {
	ProductID   *string       `json:"productId"`
	WarehouseID *string       `json:"warehouseId"`
	Quantity    *wholeNumber  `json:"quantity"`
	Items       []itemRequest `json:"items"`
	TTLSeconds  *wholeNumber  `json:"ttlSeconds"`
	Reference   *string       `json:"reference"`
	Owner       *string       `json:"owner"`
	Replaces    *string       `json:"replaces"`
}

// lines reads the request's lines from either form.
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

// line checks that the fields are there and well-formed. The service checks the limits; the range
// of a quantity is checked here too, as an int may be too small for the request's number.
func (q itemRequest) line(prefix string, bad fields) reservation.Line {
	line := reservation.Line{
		ProductID:   id(prefix+"productId", q.ProductID, bad),
		WarehouseID: id(prefix+"warehouseId", q.WarehouseID, bad),
	}
	switch {
	case q.Quantity == nil:
		bad.add(prefix+"quantity", "is required")
	case *q.Quantity < 1 || *q.Quantity > reservation.MaxQuantity:
		const message = "must be a whole number from 1 to %d"
		bad.add(prefix+"quantity", fmt.Sprintf(message, reservation.MaxQuantity))
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

// maxSeconds is the largest number of seconds that a time.Duration can hold.
const maxSeconds = wholeNumber(math.MaxInt64 / time.Second)

// ttl reads ttlSeconds. The service checks its bounds. To the service a TTL of zero is a request
// without one, so any number below 1 becomes a negative TTL. Longer times than a time.Duration can
// hold become the longest.
func ttl(seconds wholeNumber) time.Duration {
	if seconds < 1 {
		return -time.Second
	}
	return time.Duration(min(seconds, maxSeconds)) * time.Second
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
	request, err := q.request(principal.From(r.Context()))
	if err != nil {
		return err
	}
	request.Key = key
	answer, err := a.service.Reserve(r.Context(), request)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/reservations/"+answer.Hold.ID.String())
	return writeAnswer(w, http.StatusCreated, outcomeHeld, answer)
}

// request reads what a caller asks for.
func (q reserveRequest) request(caller principal.Principal) (reservation.Request, error) {
	lines, err := q.lines()
	if err != nil {
		return reservation.Request{}, err
	}
	bad := fields{}
	request := reservation.Request{
		Lines:     lines,
		Reference: name("reference", badReference, q.Reference, bad),
		Owner:     name("owner", badOwner, q.Owner, bad),
	}
	if q.TTLSeconds != nil {
		request.TTL = ttl(*q.TTLSeconds)
	}
	if q.Replaces != nil {
		replaces := id("replaces", q.Replaces, bad)
		request.Replaces = &replaces
	}
	if err := bad.err(); err != nil {
		return reservation.Request{}, err
	}
	request.Owner, err = ownerFor(caller, request.Owner)
	return request, err
}

// name reads an optional name: "" without one. To the service an empty name is none, so it is
// refused here, with the message. The service checks the rest.
func name(field, message string, value *string, bad fields) string {
	if value == nil {
		return ""
	}
	if *value == "" {
		bad.add(field, message)
	}
	return *value
}

// ownerFor returns the owner of a hold that a caller asks for, and that names this owner or none. A
// shopper with a token is the owner. Only the shop's own back end names another one: it signs the
// request, or its token has a scope. An anonymous caller can name anybody, as nothing says who it
// is.
func ownerFor(caller principal.Principal, named string) (string, error) {
	switch {
	case caller.Kind == principal.Anonymous, caller.Kind == principal.IAM, caller.ActsForAny:
		return named, nil
	case named != "" && named != caller.Subject:
		return "", errOwnerMismatch
	case caller.Subject != "" && !reservation.IsOwner(caller.Subject):
		return "", invalid("Authorization", badSubject)
	default:
		return caller.Subject, nil
	}
}

func (a *API) release(w *recorder, r *http.Request) error {
	return a.freeHold(w, r, a.service.Release)
}

func (a *API) cancel(w *recorder, r *http.Request) error {
	return a.freeHold(w, r, a.service.Cancel)
}

// freeHold gives the units of a hold back. The body is empty or an empty object.
func (a *API) freeHold(w *recorder, r *http.Request,
	verb func(context.Context, uuid.UUID, string) (reservation.Answer, error),
) error {
	holdID, key, err := target(r)
	if err != nil {
		return err
	}
	if err := readOptionalJSON(r, &struct{}{}); err != nil {
		return err
	}
	answer, err := verb(r.Context(), holdID, key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, string(answer.Hold.Status), answer)
}

// target reads the hold of the path and the Idempotency-Key.
func target(r *http.Request) (holdID uuid.UUID, key string, err error) {
	if holdID, err = pathID(r); err != nil {
		return uuid.UUID{}, "", err
	}
	key, err = idempotencyKey(r)
	return holdID, key, err
}

// extendRequest asks for a new end of a hold, counted from now.
type extendRequest struct {
	TTLSeconds *wholeNumber `json:"ttlSeconds"`
}

func (a *API) extend(w *recorder, r *http.Request) error {
	holdID, key, err := target(r)
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
	answer, err := a.service.Extend(r.Context(), holdID, ttl(*q.TTLSeconds), key)
	if err != nil {
		return err
	}
	return writeAnswer(w, http.StatusOK, outcomeExtended, answer)
}

// holdAnswer is a hold with the names, the time left and the clock that a page shows beside it.
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

// remaining is the time left in seconds, rounded up: only a dead hold has 0.
func remaining(view reservation.HoldView) int64 {
	if view.Hold.Status != reservation.Pending {
		return 0
	}
	return int64(math.Ceil(view.Hold.ExpiresAt.Sub(view.Now).Seconds()))
}
