package httpapi

import (
	"encoding/binary"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/reservation"
)

// defaultHoldPage is the number of holds on a page when the request names none.
const defaultHoldPage = 50

// listedDTO is a hold in the operator's list, with its owner and the time left.
type listedDTO struct {
	reservationDTO
	Owner            *string `json:"owner"`
	RemainingSeconds int64   `json:"remainingSeconds"`
	Expired          bool    `json:"expired"`
}

func (a *API) listReservations(w *recorder, r *http.Request) error {
	q := readQuery(r)
	if q.values.Has("code") {
		return a.listReservationsOfCode(w, r, q)
	}
	filter := readHoldFilter(q)
	limit := q.readLimit(defaultHoldPage, reservation.MaxHoldPage)
	var after reservation.HoldCursor
	q.readCursor(func(order string, id uuid.UUID, key []byte) (ok bool) {
		after, ok = parseHoldKey(filter, order, key)
		after.ID = id
		return ok
	})
	total := q.readTotal()
	if total && !filter.UpdatedSince.IsZero() {
		q.bad.add("total", "must not be true with updatedSince, whose list may have a hold twice")
	}
	if err := q.bad.err(); err != nil {
		return err
	}
	page, err := a.service.ListHolds(r.Context(), filter, after, limit)
	if err != nil {
		return err
	}
	if total {
		count, err := a.service.CountHolds(r.Context(), filter)
		if err != nil {
			return err
		}
		tellTotal(w, count)
	}
	if page.Next != nil {
		q.linkNext(w, r, limit, holdCursor(filter, *page.Next))
	}
	return writeJSON(w, http.StatusOK, newListedDTOs(page))
}

// listReservationsOfCode answers with the holds that have a short code. They are few, so they come
// on one page, whatever the limit is.
func (a *API) listReservationsOfCode(w *recorder, r *http.Request, q query) error {
	var code reservation.Code
	q.read("code", "must be a short code such as 7K2M-9QXD", func(value string) (ok bool) {
		code, ok = reservation.ParseCode(value)
		return ok
	})
	q.readLimit(defaultHoldPage, reservation.MaxHoldPage)
	total := q.readTotal()
	for _, name := range []string{
		"status", "productId", "warehouseId", "reference", "owner", "updatedSince", "cursor",
	} {
		if q.values.Has(name) {
			q.bad.add(name, "must not be given with code")
		}
	}
	if err := q.bad.err(); err != nil {
		return err
	}
	page, err := a.service.ByCode(r.Context(), code)
	if err != nil {
		return err
	}
	if total {
		tellTotal(w, reservation.Count{N: int64(len(page.Holds))})
	}
	return writeJSON(w, http.StatusOK, newListedDTOs(page))
}

func newListedDTOs(page reservation.HoldPage) []listedDTO {
	listed := make([]listedDTO, 0, len(page.Holds))
	for _, hold := range page.Holds {
		listed = append(listed, listedDTO{
			reservationDTO:   newReservationDTO(hold),
			Owner:            orNull(hold.Owner),
			RemainingSeconds: remaining(reservation.HoldView{Hold: hold, Now: page.Now}),
			Expired:          hold.Status == reservation.Expired,
		})
	}
	return listed
}

func readHoldFilter(q query) reservation.HoldFilter {
	filter := reservation.HoldFilter{
		ProductID: q.readID("productId"), WarehouseID: q.readID("warehouseId"),
		Reference:    q.readName("reference", badReference, reservation.IsReference),
		Owner:        q.readName("owner", badOwner, reservation.IsOwner),
		UpdatedSince: q.readTime("updatedSince"),
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

// holdOrder names the order of a list of holds, which depends on its filter. A list of what was
// updated since a time has this order or orderByChange: the database decides on the first page.
func holdOrder(filter reservation.HoldFilter) string {
	switch {
	case filter.Reference != "" || filter.Owner != "":
		return orderByParty
	case filter.ByEnd():
		return orderByEnd
	default:
		return orderByCreated
	}
}

// changeKeyLength is the length of the key of orderByChange: five numbers of eight bytes.
const changeKeyLength = 5 * 8

// holdCursor writes a place in a list of holds.
func holdCursor(filter reservation.HoldFilter, c reservation.HoldCursor) string {
	key := timeKey(c.At)
	if c.Change == (reservation.ChangePlace{}) {
		return encodeCursor(holdOrder(filter), c.ID, key)
	}
	for _, n := range []int64{c.Change.Tick, c.Change.Xid, c.Change.Begun, c.Change.Bound} {
		key = binary.BigEndian.AppendUint64(key, uint64(n)) // #nosec G115 -- parseHoldKey undoes it
	}
	return encodeCursor(orderByChange, c.ID, key)
}

// parseHoldKey undoes holdCursor, except for the id.
func parseHoldKey(
	filter reservation.HoldFilter, order string, key []byte,
) (c reservation.HoldCursor, ok bool) {
	if order != orderByChange {
		c.At, ok = parseTimeKey(key)
		return c, ok && order == holdOrder(filter)
	}
	if len(key) != changeKeyLength || filter.UpdatedSince.IsZero() ||
		holdOrder(filter) == orderByParty {
		return c, false
	}
	c.At, ok = parseTimeKey(key[:8])
	number := func(n int) int64 {
		value := int64(binary.BigEndian.Uint64(key[8*n:])) // #nosec G115 -- checked here
		ok = ok && value >= 0
		return value
	}
	c.Change = reservation.ChangePlace{
		Tick: number(1), Xid: number(2), Begun: number(3), Bound: number(4),
	}
	return c, ok && c.Change.Tick > 0
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
	Events     feedStats    `json:"events"`
}

// feedStats says how far the events are published.
type feedStats struct {
	LagSeconds float64     `json:"lagSeconds"`
	Parked     int64       `json:"parked"`
	Sinks      []sinkStats `json:"sinks"`
}

type sinkStats struct {
	Name       string  `json:"name"`
	LagSeconds float64 `json:"lagSeconds"`
	Parked     int64   `json:"parked"`
	Failures   int     `json:"failures"`
	Error      *string `json:"error"`
}

func newFeedStats(s reservation.FeedStats) feedStats {
	feed := feedStats{LagSeconds: s.Lag.Seconds(), Parked: s.Parked, Sinks: []sinkStats{}}
	for _, sink := range s.Sinks {
		feed.Sinks = append(feed.Sinks, sinkStats{
			Name: sink.Name, LagSeconds: sink.Lag.Seconds(), Parked: sink.Parked,
			Failures: sink.Failures, Error: orNull(sink.Error),
		})
	}
	return feed
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
		Events:     newFeedStats(stats.Feed),
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
