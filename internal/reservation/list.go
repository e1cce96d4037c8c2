package reservation

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Bounds of a list of holds.
const (
	// MaxHoldPage is the most holds of one page.
	MaxHoldPage = 200
	// maxHoldScan is how many holds one page looks through for those of a product or a warehouse: 20 ms, on the machine of the benchmark. A page
	// that finds fewer than were asked for says where the next one goes on.
	maxHoldScan = 10_000
)

// HoldFilter says which holds to list. The zero HoldFilter is all of them.
type HoldFilter struct {
	// Status is as a reader of the hold sees it: PENDING is alive, EXPIRED is dead, whether or not the sweep has been. Empty is any.
	Status Status
	// ProductID and WarehouseID ask for holds that have a line of both; nil is any.
	ProductID, WarehouseID *uuid.UUID
}

// ByEnd reports whether the filter's holds are listed by their end, the next to die first. All others are listed by when they were made,
// the newest first.
func (f HoldFilter) ByEnd() bool { return f.Status == Pending }

// scan is how many holds a page of so many looks through.
func (f HoldFilter) scan(limit int) int {
	if f.ProductID == nil && f.WarehouseID == nil {
		return limit
	}
	return maxHoldScan
}

// HoldCursor is a place in a list of holds: just behind the one that has the id and, in At, the time that the list goes by. Neither ever
// changes of a hold that nobody extends, so a cursor stays where it is whatever happens around it. The zero HoldCursor is the beginning.
type HoldCursor struct {
	At time.Time
	ID uuid.UUID
}

// cursor is the place behind a hold.
func (f HoldFilter) cursor(h Hold) HoldCursor {
	if f.ByEnd() {
		return HoldCursor{At: h.ExpiresAt, ID: h.ID}
	}
	return HoldCursor{At: h.CreatedAt, ID: h.ID}
}

// HoldPage is a page of a list of holds.
type HoldPage struct {
	Holds []Hold
	// Now is the database's clock when they were read. It is zero when there are none.
	Now time.Time
	// Next is where the next page begins, or nil when this is the last. A page of one product's holds may be short, or empty, and not be the
	// last: so many others lay between.
	Next *HoldCursor
}

const (
	listLiveHoldsSQL = `SELECT hold, matches, walked, to_json(seen_at) FROM list_live_holds($1, $2, $3, $4, $5, $6)`
	listHoldsSQL     = `SELECT hold, matches, walked, to_json(seen_at) FROM list_holds($1, $2, $3, $4, $5, $6, $7)`
)

// ListHolds reads a page of the holds, for the operator: of those that are alive the next to die first, of all others the newest first.
// A hold that was made, resolved or extended while a caller reads page after page may be missed or seen twice; any other is seen once.
//
// Like the catalog it is a picture, which locks nothing and waits for no disk: a confirm that came in time and isn't written down yet may be
// seen as EXPIRED for a moment.
func (s *Service) ListHolds(ctx context.Context, filter HoldFilter, after HoldCursor, limit int) (HoldPage, error) {
	limit = min(max(limit, 1), MaxHoldPage)
	scan := filter.scan(limit + 1)
	sql, args := listHoldsSQL, []any{optional(string(filter.Status))}
	if filter.ByEnd() {
		sql, args = listLiveHoldsSQL, nil
	}
	at, id := after.place(filter)
	rows, err := s.query(ctx, sql, append(args, optionalID(filter.ProductID), optionalID(filter.WarehouseID), at, id, limit+1, scan)...)
	if err != nil {
		return HoldPage{}, fmt.Errorf("list holds: %w", err)
	}
	var page HoldPage
	for _, row := range rows {
		hold, err := decodeHold(row[0])
		if err != nil {
			return HoldPage{}, fmt.Errorf("list holds: %w", err)
		}
		if err := page.Now.UnmarshalJSON(row[3]); err != nil {
			return HoldPage{}, fmt.Errorf("list holds: read the clock: %w", err)
		}
		if string(row[1]) == "t" {
			page.Holds = append(page.Holds, hold)
		}
		if string(row[2]) == strconv.Itoa(scan) {
			next := filter.cursor(hold)
			page.Next = &next
		}
	}
	page.Now = page.Now.UTC()
	if len(page.Holds) > limit {
		page.Holds = page.Holds[:limit]
		next := filter.cursor(page.Holds[limit-1])
		page.Next = &next
	}
	return page, nil
}

// place is where a page begins, as the statements take it.
func (c HoldCursor) place(filter HoldFilter) (at, id string) {
	switch {
	case c != HoldCursor{}:
		return c.At.UTC().Format(time.RFC3339Nano), c.ID.String()
	case filter.ByEnd():
		return "-infinity", uuid.Nil.String()
	default:
		return "infinity", uuid.Max.String()
	}
}

// optional is a text that may be missing.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalID(id *uuid.UUID) *string {
	if id == nil {
		return nil
	}
	return optional(id.String())
}
