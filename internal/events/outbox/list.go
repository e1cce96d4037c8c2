package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/reservation"
)

// The errors of List.
var (
	// ErrTooOld means that events behind the cursor were archived, or are of another epoch. The
	// caller reads the holds themselves, and begins again without a cursor.
	ErrTooOld = errors.New("the events behind the cursor are archived")
	// ErrBadCursor means that no list has had the cursor.
	ErrBadCursor = errors.New("no list has this cursor")
)

const listSQL = `
SELECT outcome, epoch, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), event
FROM follow_events($1, $2, $3, $4, $5, $6)`

// listedRow is a row of follow_events.
type listedRow struct {
	Outcome     string
	Epoch       uuid.UUID
	Done, Batch int64
	After       string
	Event       []byte // nil in the last row of a list that ends
}

// List reads up to limit events behind a cursor, in the order in which they are published, and the
// cursor behind the last of them. Without a cursor it begins behind the newest archived event:
// older events that are left, such as movements with a document, have gaps between them. types
// selects types of events, and nil stands for all. At the end of the list a page is empty, and its
// cursor is the one that the caller gave. With types a page may be short or empty before the end,
// and then its cursor is another one.
//
// List shows the events of the ticks that were taken, so it shows none that a crash can undo. It is
// read as reservation.Read does, and a server that follows the database skips no event. It has a
// tick together with all events that the tick sees, because it applies the log in its order. When
// the cursor is ahead of its newest tick, the page is empty and keeps the cursor, and a batch that
// it knows by fewer ticks begins anew (list_events in read_events.sql). List returns ErrTooOld,
// ErrBadCursor, reservation.ErrBusy or ErrUnavailable.
func (o *Outbox) List(
	ctx context.Context, after string, types []string, limit int,
) (page []events.Event, next string, err error) {
	var epoch *string
	var p position
	if after != "" {
		of, place, ok := parseCursor(after)
		if !ok {
			return nil, "", ErrBadCursor
		}
		epoch, p = optional(of.String()), place
	}
	return o.list(ctx, after, p, limit, listSQL, epoch, p.done, optional(p.batch), optional(p.after),
		kindsOf(types))
}

const listSinceSQL = `
SELECT outcome, epoch, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), event
FROM follow_events_since($1, $2, $3)`

// ListSince is List for a caller who has no cursor and wants no events of long ago. It begins at
// the newest tick that was taken before a time, so the page has all events since then and may begin
// with some that are older. If events since then are archived, it begins as List does.
func (o *Outbox) ListSince(
	ctx context.Context, since time.Time, types []string, limit int,
) (page []events.Event, next string, err error) {
	at := since.UTC().Format(time.RFC3339Nano)
	return o.list(ctx, "", position{}, limit, listSinceSQL, at, kindsOf(types))
}

// list reads a page of at most limit events by a statement, whose last argument is the limit. The
// page begins behind the cursor after, whose position is p.
func (o *Outbox) list(
	ctx context.Context, after string, p position, limit int, sql string, args ...any,
) (page []events.Event, next string, err error) {
	limit = min(max(limit, 1), MaxPage)
	rows, err := reservation.Read(ctx, o.db, pgx.RowToStructByPos[listedRow], sql,
		append(args, limit+1)...)
	if err != nil {
		return nil, "", fmt.Errorf("list events: %w", err)
	}
	next = after
	size := 0
	for _, row := range rows {
		switch row.Outcome {
		case "TOO_OLD":
			return nil, "", ErrTooOld
		case "UNKNOWN":
			return nil, "", ErrBadCursor
		}
		reached := position{row.Done, row.Batch, row.After}.cursor(row.Epoch)
		if row.Event == nil {
			if len(page) > 0 || after == "" || row.Done > p.done {
				next = reached
			}
			break
		}
		if len(page) == limit {
			// At the end of a batch the cursor stands between two. What is before it may be archived.
			if row.Batch != rows[limit-1].Batch {
				next = position{done: row.Done}.cursor(row.Epoch)
			}
			break
		}
		event, err := o.build(row.Epoch, row.Event)
		if err != nil {
			return nil, "", err
		}
		if size += len(event.Body); size > maxBytes && len(page) > 0 {
			break
		}
		page, next = append(page, event), reached
	}
	return page, next, nil
}

// kindsOf returns the kinds of the events of the types, or nil for all.
func kindsOf(types []string) []string {
	if types == nil {
		return nil
	}
	out := []string{}
	for _, name := range types {
		for kind, known := range kinds {
			if known == name {
				out = append(out, kind)
			}
		}
	}
	return out
}

// Transition is a row of a hold's ledger.
type Transition struct {
	Version   int       `json:"version"`
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Cause     string    `json:"cause"`
	Actor     *string   `json:"actor"`
	ExpiresAt time.Time `json:"expires_at"`
}

// MaxHistory is the most transitions of a history. A hold can be extended without end, an answer of
// a Lambda has at most 6 MB, and a transition has less than half a kilobyte.
const MaxHistory = 1000

const historySQL = "SELECT hold_history($1, $2)"

// History reads the newest MaxHistory rows of the ledger of a hold, also of an archived one, in the
// order of their versions. When the first version isn't 1, older ones are left out. Kind is the
// last part of the event's type, such as held. A hold from before there was a ledger begins at its
// first transition since then. The expiry of a dead hold is there once a sweep has written it.
//
// It is read as reservation.ReadKnown does. It returns reservation.ErrNotFound, ErrBusy or
// ErrUnavailable.
func (o *Outbox) History(ctx context.Context, hold uuid.UUID) ([]Transition, error) {
	found := func(answers [][]byte) bool { return len(answers) == 1 && answers[0] != nil }
	answers, err := reservation.ReadKnown(ctx, o.db, found, pgx.RowTo[[]byte], historySQL,
		hold.String(), MaxHistory)
	if err != nil {
		return nil, fmt.Errorf("read the history of hold %s: %w", hold, err)
	}
	if !found(answers) {
		return nil, reservation.ErrNotFound
	}
	var history []Transition
	if err := json.Unmarshal(answers[0], &history); err != nil {
		return nil, fmt.Errorf("read the history of hold %s: %w", hold, err)
	}
	for i, t := range history {
		t.Kind, t.Cause = kindNames[t.Kind], causes[t.Cause]
		t.At, t.ExpiresAt = t.At.UTC(), t.ExpiresAt.UTC()
		history[i] = t
	}
	return history, nil
}

// kindNames are the names of the ledger's kinds in a history.
var kindNames = map[string]string{
	"h": "held", "x": "extended", "p": "payment-started", "f": "payment-failed", "c": "confirmed",
	"r": "released", "e": "expired",
}
