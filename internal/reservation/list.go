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
	// maxHoldScan is how many holds one page reads to find those that the filter selects. That takes
	// less than 10 ms on the benchmark's machine. A page that finds too few has a cursor for the next
	// one, which continues there.
	maxHoldScan = 6000
	// changeScan is the same for changes of holds, the last of which leads to its hold.
	changeScan = 4000
	// liveHoldScan is the same for the live holds of a warehouse that has more of them than this. An
	// index finds those of another warehouse or of a product, and such a page is never short.
	liveHoldScan = 2000
)

// HoldFilter says which holds to list. The zero HoldFilter lists all.
type HoldFilter struct {
	// Status is the status that a reader sees: a dead hold is EXPIRED even before a sweep. Empty
	// means any.
	Status Status
	// ProductID and WarehouseID select the holds that have a line of both. Nil means any.
	ProductID, WarehouseID *uuid.UUID
	// Reference and Owner select the holds that were reserved with them. Empty means any.
	Reference, Owner string
	// UpdatedSince selects the holds that were updated then or later, by UpdatedAt as a reader sees
	// it: that of a dead hold is its end. Zero means any.
	UpdatedSince time.Time
}

// ByEnd reports whether the list is ordered by expires_at, the next to die first.
func (f HoldFilter) ByEnd() bool {
	return f.Status == Pending && !f.byParty() && f.UpdatedSince.IsZero()
}

// byParty reports whether the list is that of an owner or of a reference.
func (f HoldFilter) byParty() bool { return f.Reference != "" || f.Owner != "" }

// scan is how many holds to read for a page of limit holds.
func (f HoldFilter) scan(limit int) int {
	switch {
	case f.ByEnd() && (f.ProductID != nil || f.WarehouseID != nil):
		return liveHoldScan
	case f.ByEnd(), f == HoldFilter{Status: f.Status}:
		return limit
	case !f.UpdatedSince.IsZero() && !f.byParty():
		return changeScan
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
	// Change is set in most lists of what was updated since a time. At is then the end of a hold, or
	// when the list of the dead ones ended.
	Change ChangePlace
}

// ChangePlace is a place among the changes of holds, as list_updated_holds.sql explains it. None of
// its numbers is negative.
type ChangePlace struct{ Tick, Xid, Begun, Bound int64 }

// HoldPage is a page of a list of holds.
type HoldPage struct {
	Holds []Hold
	// Now is the database's clock when the holds were read. It is zero when there are none.
	Now time.Time
	// Next is where the next page begins, or nil on the last page. A page of a filter may be short or
	// empty without being the last, when many other holds lie between.
	Next *HoldCursor
}

const (
	listLiveHoldsSQL = `
SELECT (hold ->> 'id')::uuid, hold, matches, walked, seen_at, (hold ->> 'expires_at')::timestamptz,
       0, 0, 0, 0
FROM list_live_holds($1, $2, $3, $4, $5, $6)`
	listHoldsSQL = `
SELECT (hold ->> 'id')::uuid, hold, matches, walked, seen_at, (hold ->> 'created_at')::timestamptz,
       0, 0, 0, 0
FROM list_holds($1, $2, $3, $4, $5, $6, $7, $8)`
	listHoldsOfSQL = `
SELECT id, hold, matches, walked, seen_at, seen_at, 0, 0, 0, 0
FROM list_holds_of($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	listUpdatedHoldsSQL = `
SELECT id, hold, matches, walked, seen_at, at, tick, xid, begun, bound
FROM list_updated_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
)

// listedHold is a row of the lists' statements.
type listedHold struct {
	ID      uuid.UUID
	Hold    *holdRow // nil for some that don't match
	Matches bool     // false only for the last hold that was read, if the filter excludes it
	Walked  int      // how many holds were read up to this one
	SeenAt  time.Time
	// At and those that follow it are the place of the hold.
	At                      time.Time
	Tick, Xid, Begun, Bound int64
}

// cursor is the place after the hold.
func (h listedHold) cursor() *HoldCursor {
	return &HoldCursor{
		At: h.At.UTC(), ID: h.ID, Change: ChangePlace{h.Tick, h.Xid, h.Begun, h.Bound},
	}
}

// ListHolds reads a page of the holds for the operator. With the status PENDING alone, or with a
// product or a warehouse, they are in the order of expires_at, the next to die first. The holds of
// an owner or of a reference come by id, and most others by created_at, in both cases the newest
// first. A filter of UpdatedSince leads to the order of the changes, the oldest first, if the
// database knows that order from then on.
//
// When a hold is made, resolved or extended while a caller reads page after page, or in the moment
// before, the caller may miss it or see it twice. The caller sees every other hold once. With
// UpdatedSince alone no hold is missed that the first page could have: one that changes meanwhile,
// or dies, or is swept, may come again. To see what changes later, ask again with the Now of the
// first page less a minute: a change is visible only when its transaction has committed, and when
// the Reader has it.
//
// It returns ErrBusy or ErrUnavailable. Archived holds aren't listed.
//
// Like the catalog, the list is a snapshot that locks nothing and waits for no disk. It is read on
// the Reader, which may be a moment behind. A hold whose confirm came in time may show as EXPIRED
// until the confirm commits. The later pages of a list of changes are read on the writer. The first
// page's bound says up to where such a list goes. A server that is further behind than the one that
// answered the first page would lack changes below it, and the list would pass them.
func (s *Service) ListHolds(
	ctx context.Context, filter HoldFilter, after HoldCursor, limit int,
) (HoldPage, error) {
	limit = min(max(limit, 1), MaxHoldPage)
	scan := filter.scan(limit + 1)
	sql, args := filter.statement(after)
	if after.Change.Tick != 0 {
		ctx = OnWriter(ctx)
	}
	rows, err := read(ctx, s, pgx.RowToStructByPos[listedHold], sql,
		append(args, limit+1, scan)...)
	if err != nil {
		return HoldPage{}, fmt.Errorf("list holds: %w", err)
	}
	return newHoldPage(rows, limit, scan), nil
}

// statement is the SQL of the page after a cursor, with its arguments but for the last two.
func (f HoldFilter) statement(after HoldCursor) (sql string, args []any) {
	status, since := optional(string(f.Status)), f.since()
	product, warehouse := optionalID(f.ProductID), optionalID(f.WarehouseID)
	at, id := after.place(f)
	place := after.Change
	switch {
	case f.byParty():
		return listHoldsOfSQL, []any{
			optional(f.Owner), optional(f.Reference), status, product, warehouse, since, id,
		}
	case f.ByEnd():
		return listLiveHoldsSQL, []any{product, warehouse, at, id}
	case since != nil && (after == HoldCursor{} || place.Tick != 0):
		return listUpdatedHoldsSQL, []any{
			status, product, warehouse, since, at, id, place.Tick, place.Xid, place.Begun, place.Bound,
		}
	default:
		return listHoldsSQL, []any{status, product, warehouse, since, at, id}
	}
}

// since is UpdatedSince as an argument of the statements, rounded up to a microsecond, as Postgres
// keeps no more of a time. No hold is older than the year 1970.
func (f HoldFilter) since() *string {
	if f.UpdatedSince.IsZero() {
		return nil
	}
	at := f.UpdatedSince.UTC().Add(time.Microsecond - 1).Truncate(time.Microsecond)
	if at.Before(time.Unix(0, 0)) {
		at = time.Unix(0, 0).UTC()
	}
	return optional(at.Format(time.RFC3339Nano))
}

// newHoldPage makes a page of at most limit holds from rows, of which at most scan were read.
func newHoldPage(rows []listedHold, limit, scan int) HoldPage {
	var page HoldPage
	var full *HoldCursor // after the last hold of a full page
	for _, row := range rows {
		page.Now = row.SeenAt.UTC()
		if row.Matches {
			page.Holds = append(page.Holds, row.Hold.hold())
		}
		if row.Matches && len(page.Holds) == limit {
			full = row.cursor()
		}
		if row.Walked == scan {
			page.Next = row.cursor()
		}
	}
	if len(page.Holds) > limit {
		page.Holds, page.Next = page.Holds[:limit], full
	}
	return page
}

// place returns the cursor's time and id as arguments of the statements.
func (c HoldCursor) place(filter HoldFilter) (at, id string) {
	ascends := filter.ByEnd() || !filter.UpdatedSince.IsZero() && !filter.byParty()
	switch {
	case c != HoldCursor{}:
		return c.At.UTC().Format(time.RFC3339Nano), c.ID.String()
	case ascends:
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
