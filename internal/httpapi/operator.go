package httpapi

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultHoldPage is the number of holds on a page when the request names none.
const defaultHoldPage = 50

// listedDTO is a hold in a list, with the time left.
type listedDTO struct {
	reservationDTO
	RemainingSeconds int64 `json:"remainingSeconds"`
	Expired          bool  `json:"expired"`
}

func (a *API) listReservations(w *recorder, r *http.Request) error {
	q := readQuery(r)
	filter := readHoldFilter(q)
	limit := q.readLimit(defaultHoldPage, reservation.MaxHoldPage)
	order := holdOrder(filter)
	var after reservation.HoldCursor
	q.readCursor(func(of string, id uuid.UUID, key []byte) (ok bool) {
		after.ID = id
		after.At, ok = parseTimeKey(key)
		return ok && of == order
	})
	if err := q.bad.err(); err != nil {
		return err
	}
	page, err := a.service.ListHolds(r.Context(), filter, after, limit)
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
	if next := page.Next; next != nil {
		q.linkNext(w, r, limit, encodeCursor(order, next.ID, timeKey(next.At)))
	}
	return writeJSON(w, http.StatusOK, body)
}

func readHoldFilter(q query) reservation.HoldFilter {
	filter := reservation.HoldFilter{
		ProductID: q.readID("productId"), WarehouseID: q.readID("warehouseId"),
	}
	q.read("status", "must be PENDING, CONFIRMED, RELEASED or EXPIRED", func(value string) bool {
		filter.Status = reservation.Status(value)
		switch filter.Status {
		case reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired:
			return true
		default:
			return false
		}
	})
	return filter
}

// holdOrder names the order of a list of holds, which depends on its filter.
func holdOrder(filter reservation.HoldFilter) string {
	if filter.ByEnd() {
		return orderByEnd
	}
	return orderByCreated
}

// statsDTO has the operator's figures, all of one moment.
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
