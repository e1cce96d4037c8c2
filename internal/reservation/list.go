package reservation

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The bounds of a list of holds.
const (
	// MaxHoldPage is the most holds of one page.
	MaxHoldPage = 200
	// maxHoldScan is how many holds one page reads to find the resolved holds of a product or a
	// warehouse. That takes 10 ms on the benchmark's machine. A page that finds too few has a cursor
	// for the next one, which continues there.
	maxHoldScan = 10_000
	// liveHoldScan is how many live holds one page reads before it looks for those of a product or a
	// warehouse by an index. The index has all that there are, so such a page is never short.
	liveHoldScan = 1000
)

// HoldFilter says which holds to list. The zero HoldFilter lists all.
type HoldFilter struct {
	// Status is the status that a reader sees: a dead hold is EXPIRED even before a sweep. Empty
	// means any.
	Status Status
	// ProductID and WarehouseID select the holds that have a line of both. Nil means any.
	ProductID, WarehouseID *uuid.UUID
}

// ByEnd reports whether the list is ordered by expires_at, the next to die first. Other lists are
// ordered by created_at, the newest first.
func (f HoldFilter) ByEnd() bool { return f.Status == Pending }

// scan is how many holds to read for a page of limit holds.
func (f HoldFilter) scan(limit int) int {
	switch {
	case f.ProductID == nil && f.WarehouseID == nil:
		return limit
	case f.ByEnd():
		return liveHoldScan
	default:
		return maxHoldScan
	}
}

// HoldCursor is a place in a list of holds, just after the hold with this id. At is that hold's
// expires_at or created_at, by which the list is ordered. Only an extension changes a hold's place,
// so a cursor stays valid. The zero HoldCursor is the beginning.
type HoldCursor struct {
	At time.Time
	ID uuid.UUID
}

// cursorAfter is the place after a hold.
func (f HoldFilter) cursorAfter(h Hold) *HoldCursor {
	if f.ByEnd() {
		return &HoldCursor{At: h.ExpiresAt, ID: h.ID}
	}
	return &HoldCursor{At: h.CreatedAt, ID: h.ID}
}

// HoldPage is a page of a list of holds.
type HoldPage struct {
	Holds []Hold
	// Now is the database's clock when the holds were read. It is zero when there are none.
	Now time.Time
	// Next is where the next page begins, or nil on the last page. A page of one product's resolved
	// holds may be short or empty without being the last, when many other holds lie between.
	Next *HoldCursor
}

const (
	listLiveHoldsSQL = `
SELECT hold, matches, walked, seen_at
FROM list_live_holds($1, $2, $3, $4, $5, $6)`
	listHoldsSQL = `
SELECT hold, matches, walked, seen_at
FROM list_holds($1, $2, $3, $4, $5, $6, $7)`
)

// listedHold is a row of list_live_holds and of list_holds.
type listedHold struct {
	Hold    holdRow
	Matches bool // false only for the last hold that was read, if the filter excludes it
	Walked  int  // how many holds were read up to this one
	SeenAt  time.Time
}

// ListHolds reads a page of the holds for the operator, in the order of [HoldFilter.ByEnd]. When a
// hold is made, resolved or extended while a caller reads page after page, the caller may miss it
// or see it twice. The caller sees every other hold once. It returns ErrBusy or ErrUnavailable.
//
// Like the catalog, the list is a snapshot that locks nothing and waits for no disk. It is read on
// the Reader, which may be a moment behind. A hold whose confirm came in time may show as EXPIRED
// until the confirm commits.
func (s *Service) ListHolds(
	ctx context.Context, filter HoldFilter, after HoldCursor, limit int,
) (HoldPage, error) {
	limit = min(max(limit, 1), MaxHoldPage)
	scan := filter.scan(limit + 1)
	sql, args := listHoldsSQL, []any{optional(string(filter.Status))}
	if filter.ByEnd() {
		sql, args = listLiveHoldsSQL, nil
	}
	at, id := after.place(filter)
	args = append(args, optionalID(filter.ProductID), optionalID(filter.WarehouseID), at, id,
		limit+1, scan)
	rows, err := read(ctx, s, pgx.RowToStructByPos[listedHold], sql, args...)
	if err != nil {
		return HoldPage{}, fmt.Errorf("list holds: %w", err)
	}
	return filter.page(rows, limit, scan), nil
}

// page makes a page of at most limit holds from rows, of which at most scan were read.
func (f HoldFilter) page(rows []listedHold, limit, scan int) HoldPage {
	var page HoldPage
	for _, row := range rows {
		hold := row.Hold.hold()
		page.Now = row.SeenAt.UTC()
		if row.Matches {
			page.Holds = append(page.Holds, hold)
		}
		if row.Walked == scan {
			page.Next = f.cursorAfter(hold)
		}
	}
	if len(page.Holds) > limit {
		page.Holds = page.Holds[:limit]
		page.Next = f.cursorAfter(page.Holds[limit-1])
	}
	return page
}

// place returns the cursor's time and id as arguments of the statements.
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

// optional turns an empty string into a null.
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
