// Package outbox reads the events from the database: for the relay, page after page, and for GET
// /api/events and a hold's history. It also takes the ticks. Package events has the design.
package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/reservation"
)

// The bounds of a page. A Lambda's answer has at most 6 MB.
const (
	// MaxPage is the most events of a page.
	MaxPage = 500
	// maxBytes is the most bytes of a page's events, unless its first event alone has more.
	maxBytes = 3 << 20
)

// Options are the settings of an Outbox.
type Options struct {
	// Source names the deployment. The events' source is /Source/epoch, so it is part of their bytes.
	Source string
	// StockShown is the most units of a stock row that the live channel says are available, as in
	// the catalog. Zero means the exact figures.
	StockShown int
}

// Outbox reads the events. It is safe for concurrent use.
type Outbox struct {
	db   *reservation.Service
	opts Options
}

// New makes an Outbox on the database of a service. Both count their retries together.
func New(db *reservation.Service, opts Options) *Outbox { return &Outbox{db: db, opts: opts} }

const tickSQL = "SELECT take_tick()"

// Tick records what is committed now, if there is anything new. It returns the number of the last
// tick. When Tick returns, all that the tick sees is on disk.
//
// It returns reservation.ErrBusy or ErrUnavailable, and an error that names rebase_stream when the
// ticks are of another server.
func (o *Outbox) Tick(ctx context.Context) (last int64, err error) {
	last, err = reservation.QueryRow(ctx, o.db, pgx.RowTo[int64], tickSQL)
	if err != nil {
		return 0, fmt.Errorf("take a tick: %w", err)
	}
	return last, nil
}

const dueTickSQL = "SELECT last, more FROM take_due_tick()"

// dueTick is the answer of take_due_tick: the number of the last tick, and whether something is new
// for which it is too young to be followed.
type dueTick struct {
	Last int64
	More bool
}

// tickFor takes a tick for a relay, unless the relay is patient and the last one is young.
func (o *Outbox) tickFor(ctx context.Context, r events.Request) (t dueTick, err error) {
	if !r.Patient {
		t.Last, err = o.Tick(ctx)
		return t, err
	}
	t, err = reservation.QueryRow(ctx, o.db, pgx.RowToStructByPos[dueTick], dueTickSQL)
	if err != nil {
		return t, fmt.Errorf("take a tick that is due: %w", err)
	}
	return t, nil
}

const pruneSQL = "SELECT prune_old_ticks($1)"

// The bounds of Prune. A step takes some 30 ms, far less than the statement timeout. The feed has
// half a million ticks a day at most, so those that become old in a minute are pruned in it, and a
// backlog of millions within half an hour.
const (
	pruneStep  = 10_000
	pruneSteps = 20
)

// Prune removes ticks that are older than a week and that all sinks have passed, but for one a
// minute. It goes on where the last one ended, and looks at pruneSteps steps at most.
func (o *Outbox) Prune(ctx context.Context) error {
	for range pruneSteps {
		more, err := reservation.QueryRow(ctx, o.db, pgx.RowTo[bool], pruneSQL, pruneStep)
		if err != nil {
			return fmt.Errorf("prune the ticks: %w", err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

const claimSQL = `
SELECT leased, coalesce(done, 0), coalesce(batch, 0), coalesce(after, ''), last, epoch,
       (SELECT count(*) FROM parked p WHERE p.sink = sink_of($1))
FROM claim_sink($1, $2, $3, $4, $5, $6, $7, $8)`

// claimed is the answer of claim_sink: the place from which the relay goes on.
type claimed struct {
	Leased bool
	Done   int64
	// Batch is 0 when the place has all that the ticks see.
	Batch int64
	After string
	// Last is the number of the newest tick.
	Last  int64
	Epoch uuid.UUID
	// Parked is how many events of the sink were parked before the claim.
	Parked int
}

// Next keeps what the relay has done with its last page, and reads the next one. When there is
// none, it takes a tick, unless the relay is patient and the last one is young. Then it claims the
// place once more: another session may have taken the tick, and its commit may not be on disk. The
// events of a page are on disk. The rows of a sink and its places are made when a relay first asks.
//
// The page isn't Leased when another relay has the place's lease, or when the request comes too
// late. Next returns the errors of Tick. A request with Live is answered by Live.
func (o *Outbox) Next(ctx context.Context, r events.Request) (page events.Page, err error) {
	if r.Live != nil {
		live, err := o.Live(ctx, *r.Live)
		return events.Page{Live: &live}, err
	}
	page.Place = r.Sink
	c, err := o.claim(ctx, r)
	if err != nil {
		return page, fmt.Errorf("claim the place %s: %w", r.Sink, err)
	}
	if !c.Leased {
		return page, nil
	}
	page.Leased, page.Parked = true, c.Parked
	if c.Batch == 0 {
		tick, err := o.tickFor(ctx, r)
		if err != nil {
			return page, err
		}
		if page.More = tick.More; tick.Last <= c.Done {
			return page, nil
		}
		c, err = o.claim(ctx, events.Request{Sink: r.Sink, Lease: r.Lease})
		if err != nil {
			return page, fmt.Errorf("claim the batch of the place %s: %w", r.Sink, err)
		}
		if page.Leased = c.Leased && c.Batch != 0; !page.Leased {
			return page, nil
		}
	}
	if err := o.fill(ctx, &page, r, c); err != nil {
		return page, fmt.Errorf("read a page of the place %s: %w", r.Sink, err)
	}
	return page, nil
}

func (o *Outbox) claim(ctx context.Context, r events.Request) (c claimed, err error) {
	lease, err := uuid.Parse(r.Lease)
	if err != nil {
		return c, fmt.Errorf("the lease: %w", err)
	}
	var done, batch *int64
	var after, failure, parked *string
	if r.Ack != "" {
		p, err := parsePosition(r.Ack)
		if err != nil {
			return c, err
		}
		done, batch, after = &p.done, optional(p.batch), optional(p.after)
	}
	failure = optional(r.Failure)
	if len(r.Parked) > 0 {
		text, err := json.Marshal(r.Parked)
		if err != nil {
			return c, fmt.Errorf("encode the parked events: %w", err)
		}
		parked = optional(string(text))
	}
	return reservation.QueryRow(ctx, o.db, pgx.RowToStructByPos[claimed], claimSQL, r.Sink,
		lease.String(), done, batch, after, parked, failure, r.Release)
}

// optional turns a zero value into a null.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

const pageSQL = `
SELECT e.place, e.age, e.event,
       EXISTS (SELECT FROM parked p
               WHERE p.sink = sink_of($1) AND p.subject = e.subject
                 AND substring(p.id FROM '[0-9]+$')::bigint
                     <= coalesce(e.event ->> 'version', e.event ->> 'seq')::bigint)
FROM read_events($2, $3, $4, $5, $6) e`

// pageRow is an event of a batch.
type pageRow struct {
	Place  string
	Age    float64
	Event  []byte
	Behind bool // it is parked, or an earlier event of its subject is
}

// fill reads the next events of the place's batch.
func (o *Outbox) fill(
	ctx context.Context, page *events.Page, r events.Request, c claimed,
) error {
	rows, err := reservation.Query(ctx, o.db, pgx.RowToStructByPos[pageRow], pageSQL, r.Sink, c.Done,
		c.Batch, optional(c.After), kindsOf(events.TypesAt(r.Sink)), MaxPage+1)
	if err != nil {
		return err
	}
	next := position{done: c.Batch}
	var followers []events.Parked
	size := 0
	for i, row := range rows {
		event, err := o.build(c.Epoch, row.Event)
		if err != nil {
			return err
		}
		size += len(event.Body)
		if i == MaxPage || i > 0 && size > maxBytes {
			next = position{done: c.Done, batch: c.Batch, after: rows[i-1].Place}
			break
		}
		page.LagSeconds = max(page.LagSeconds, row.Age)
		if row.Behind {
			followers = append(followers, events.Parked{
				ID: event.ID, Subject: event.Subject, Error: "an earlier event of its subject is parked",
			})
			continue
		}
		event.Position = position{done: c.Done, batch: c.Batch, after: row.Place}.String()
		page.Events = append(page.Events, event)
	}
	page.Position, page.More = next.String(), next.batch != 0 || c.Last > c.Batch
	return o.park(ctx, r, followers)
}

const parkSQL = "SELECT park_followers($1, $2, $3)::text"

// park sets events aside that follow a parked one, unless the relay has lost the lease meanwhile.
func (o *Outbox) park(ctx context.Context, r events.Request, followers []events.Parked) error {
	if len(followers) == 0 {
		return nil
	}
	text, err := json.Marshal(followers)
	if err != nil {
		return fmt.Errorf("encode the parked events: %w", err)
	}
	_, err = reservation.QueryRow(ctx, o.db, pgx.RowTo[string], parkSQL, r.Sink, r.Lease,
		string(text))
	return err
}
