package httpapi

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultHoldPage is a page of the list of holds when the request doesn't say.
const defaultHoldPage = 50

// listedDTO is a hold in a list, with what a page needs to show it.
type listedDTO struct {
	reservationDTO
	RemainingSeconds int64 `json:"remainingSeconds"`
	Expired          bool  `json:"expired"`
}

func (a *API) listReservations(w *recorder, r *http.Request) error {
	q, err := readHoldQuery(r.URL.Query())
	if err != nil {
		return err
	}
	page, err := a.service.ListHolds(r.Context(), q.filter, q.after, q.limit)
	if err != nil {
		return err
	}
	body := make([]listedDTO, 0, len(page.Holds))
	for _, hold := range page.Holds {
		body = append(body, listedDTO{
			reservationDTO:   newReservationDTO(hold),
			RemainingSeconds: remaining(reservation.HoldView{Hold: hold, Now: page.Now}),
			Expired:          hold.Status == reservation.Expired,
		})
	}
	if page.Next != nil {
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, q.next(*page.Next).Encode()))
	}
	return writeJSON(w, http.StatusOK, body)
}

// holdQuery is which holds a request asks for.
type holdQuery struct {
	filter reservation.HoldFilter
	limit  int
	after  reservation.HoldCursor
}

// readHoldQuery takes each parameter once at most: of two it couldn't be known which one is meant.
func readHoldQuery(query url.Values) (holdQuery, error) {
	q := holdQuery{limit: defaultHoldPage}
	bad := fields{}
	read := func(name string, take func(value string) (ok bool), message string) {
		values := query[name]
		if len(values) > 1 {
			bad.add(name, "must be given once")
		} else if len(values) == 1 && !take(values[0]) {
			bad.add(name, message)
		}
	}
	read("status", q.takeStatus, "must be PENDING, CONFIRMED, RELEASED or EXPIRED")
	read("productId", func(value string) (ok bool) { q.filter.ProductID, ok = optionalID(value); return ok }, "must be a UUID")
	read("warehouseId", func(value string) (ok bool) { q.filter.WarehouseID, ok = optionalID(value); return ok }, "must be a UUID")
	read("limit", func(value string) bool {
		n, err := strconv.Atoi(value)
		q.limit = n
		return err == nil && n >= 1 && n <= reservation.MaxHoldPage
	}, fmt.Sprintf("must be a whole number from 1 to %d", reservation.MaxHoldPage))
	read("cursor", func(value string) (ok bool) { q.after, ok = decodeHoldCursor(value, q.filter); return ok },
		"must be the cursor of a Link header, unchanged, with the status of that list")
	return q, bad.err()
}

func (q *holdQuery) takeStatus(value string) bool {
	switch status := reservation.Status(value); status {
	case reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired:
		q.filter.Status = status
		return true
	default:
		return false
	}
}

func optionalID(value string) (*uuid.UUID, bool) {
	id, ok := parseID(value)
	return &id, ok
}

// next is the query of the next page.
func (q holdQuery) next(after reservation.HoldCursor) url.Values {
	query := url.Values{"limit": {strconv.Itoa(q.limit)}, "cursor": {encodeHoldCursor(after, q.filter)}}
	if q.filter.Status != "" {
		query.Set("status", string(q.filter.Status))
	}
	if q.filter.ProductID != nil {
		query.Set("productId", q.filter.ProductID.String())
	}
	if q.filter.WarehouseID != nil {
		query.Set("warehouseId", q.filter.WarehouseID.String())
	}
	return query
}

// holdCursorSize is a byte for the list's order, the time in microseconds and the id.
const holdCursorSize = 1 + 8 + 16

// order leads a cursor, as the time in it is another in each order.
func order(filter reservation.HoldFilter) byte {
	if filter.ByEnd() {
		return 'e'
	}
	return 'c'
}

func encodeHoldCursor(c reservation.HoldCursor, filter reservation.HoldFilter) string {
	b := make([]byte, 0, holdCursorSize)
	b = append(b, order(filter))
	b = binary.BigEndian.AppendUint64(b, uint64(c.At.UnixMicro())) // #nosec G115 -- it is turned back into the same number
	return base64.RawURLEncoding.EncodeToString(append(b, c.ID[:]...))
}

func decodeHoldCursor(s string, filter reservation.HoldFilter) (reservation.HoldCursor, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != holdCursorSize || b[0] != order(filter) {
		return reservation.HoldCursor{}, false
	}
	c := reservation.HoldCursor{At: time.UnixMicro(int64(binary.BigEndian.Uint64(b[1:]))).UTC()} // #nosec G115 -- as it was written
	copy(c.ID[:], b[9:])
	// What can't be written as RFC 3339 was never in a cursor.
	return c, c.At.Year() >= 1970 && c.At.Year() <= 9999
}

// statsDTO is how the shop stands.
type statsDTO struct {
	ServerTime time.Time    `json:"serverTime"`
	Holds      holdStats    `json:"holds"`
	Stock      stockStats   `json:"stock"`
	Minutes    []minuteDTO  `json:"minutes"`
	Hour       hourDTO      `json:"hour"`
	Sweep      sweepStats   `json:"sweep"`
	Audit      *auditResult `json:"audit"`
}

type holdStats struct {
	Live      int64 `json:"live"`
	LiveUnits int64 `json:"liveUnits"`
	Dead      int64 `json:"dead"`
}

type stockStats struct {
	Total int64 `json:"total"`
	Held  int64 `json:"held"`
}

type minuteDTO struct {
	At        time.Time `json:"at"`
	Held      int64     `json:"held"`
	Confirmed int64     `json:"confirmed"`
	Released  int64     `json:"released"`
	Expired   int64     `json:"expired"`
}

type hourDTO struct {
	Held      int64 `json:"held"`
	Confirmed int64 `json:"confirmed"`
	Released  int64 `json:"released"`
	Expired   int64 `json:"expired"`
}

type sweepStats struct {
	LagSeconds float64 `json:"lagSeconds"`
}

type auditResult struct {
	At         time.Time `json:"at"`
	Violations int       `json:"violations"`
	Unfinished bool      `json:"unfinished"`
}

func (a *API) stats(w *recorder, r *http.Request) error {
	stats, err := a.service.Stats(r.Context())
	if err != nil {
		return err
	}
	body := statsDTO{
		ServerTime: stats.Now,
		Holds:      holdStats{Live: stats.Live, LiveUnits: stats.LiveUnits, Dead: stats.Dead},
		Stock:      stockStats{Total: stats.Total, Held: stats.LiveUnits},
		Minutes:    make([]minuteDTO, 0, reservation.StatsMinutes),
		Sweep:      sweepStats{LagSeconds: stats.SweepLag.Seconds()},
		Audit:      (*auditResult)(stats.Audit),
	}
	for _, m := range stats.Minutes {
		body.Minutes = append(body.Minutes, minuteDTO(m))
		body.Hour.Held += m.Held
		body.Hour.Confirmed += m.Confirmed
		body.Hour.Released += m.Released
		body.Hour.Expired += m.Expired
	}
	return writeJSON(w, http.StatusOK, body)
}
