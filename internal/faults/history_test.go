package faults

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/faults/model"
)

// The size of one history. Linearizability is a property of each object alone (Herlihy and Wing's
// locality), so objects that share no stock row are checked apart. The callers meet on partitions:
// each is a product in several warehouses.
const (
	callers       = 32
	partitions    = 8
	partitionRows = 3
	// otherProducts bounds the products that the catalog may list before the partitions': the
	// demo's, and others of the test.
	otherProducts  = 8
	partitionTotal = 12
	historyTime    = 3 * time.Second
	checkLimit     = 30 * time.Second // of one partition; most take a few hundredths of a second
	// Of one partition of a control, which may have no order to find.
	controlLimit = 5 * time.Second
	sweepers     = 2
	sweepPause   = 20 * time.Millisecond
	lockers      = partitions
	maxLockTime  = 25 * time.Millisecond // of a lock taken by lockSomething
	maxLockPause = 50 * time.Millisecond // between two such locks
	rushTime     = 12 * time.Millisecond // how soon before a hold's end the callers come for it
	recentHolds  = 12
	maxUnits     = 4
	// deliveryUnits are what a delivery brings, so that there is something to sell.
	deliveryUnits = 10
	recentCounts  = 12
)

// event is one call of a history with its answer.
type event struct {
	caller  int
	verb    model.Verb
	id      uuid.UUID // of the hold, which the caller knew or the answer told
	key     string    // of a reserve
	lines   []model.Line
	ttl     time.Duration
	from    time.Time
	to      time.Time // zero if not answered
	outcome model.Outcome
	status  model.Status
	end     time.Time
	version int // 0 for an answer of an earlier call
	rows    []model.Row
	// of a document of movements
	reference string
	document  model.Document
	moved     []model.Moved
}

// partition is a few stock rows and the holds that its callers know of.
type partition struct {
	rows []stockRow

	mu      sync.Mutex
	events  []event
	recent  []knownHold
	ending  map[uuid.UUID]knownHold
	pending []event // reserves under way, which may be resent
	// documents are the latest documents, which may be resent, and lines counts the lines of all.
	documents []event
	lines     int
	// counts are stock rows as answers told of them: the total after a movement.
	counts []model.MoveLine
}

// knownHold is a hold that some caller was told of, with the keys of the calls announced for its
// end.
type knownHold struct {
	id   uuid.UUID
	end  time.Time
	keys []string
}

func (p *partition) record(e event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	if e.verb == model.Confirm || e.verb == model.Release {
		delete(p.ending, e.id)
	}
	for n, line := range e.document.Moves {
		if e.outcome == model.Done && e.moved[n].Seq > 0 {
			p.counts = append(p.counts,
				model.MoveLine{Row: line.Row, AsOf: e.moved[n].Seq, Base: e.moved[n].Total})
			p.counts = p.counts[max(0, len(p.counts)-recentCounts):]
		}
	}
	if e.outcome == model.Done && (e.verb == model.Reserve || e.verb == model.Extend) {
		p.recent = append(p.recent, knownHold{id: e.id, end: e.end})
		if p.ending != nil {
			p.ending[e.id] = knownHold{id: e.id, end: e.end}
		}
		p.recent = p.recent[max(0, len(p.recent)-recentHolds):]
	}
}

// recentHold returns one of the holds made lately.
func (p *partition) recentHold(r *rand.Rand) (knownHold, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.recent) == 0 {
		return knownHold{}, false
	}
	return p.recent[r.IntN(len(p.recent))], true
}

// endingSoon returns the hold that ends next, if it ends soon: the callers of a partition meet
// there.
func (p *partition) endingSoon() (knownHold, bool) { return p.endingWithin(10 * rushTime) }

func (p *partition) endingWithin(limit time.Duration) (knownHold, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, found := time.Now(), false
	var next knownHold
	for _, k := range p.ending {
		if ahead := k.end.Sub(now); ahead > 0 && ahead < limit &&
			(!found || k.end.Before(next.end)) {
			next, found = k, true
		}
	}
	return next, found
}

// announce says that a call with this key will come as the hold ends.
func (p *partition) announce(id uuid.UUID, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k, ok := p.ending[id]; ok {
		k.keys = append(slices.Clone(k.keys), key)
		p.ending[id] = k
	}
}

// announcedKeys returns the keys announced for the hold.
func (p *partition) announcedKeys(id uuid.UUID) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ending[id].keys
}

func (p *partition) rowNumber(product, warehouse uuid.UUID) int {
	return slices.Index(p.rows, stockRow{product, warehouse})
}

func (p *partition) items(lines []model.Line) []item {
	var items []item
	for _, line := range lines {
		row := p.rows[line.Row]
		items = append(items, item{row.Product, row.Warehouse, line.Quantity})
	}
	return items
}

// history is one round of concurrent calls.
type history struct {
	d          *deployment
	client     client
	partitions []*partition
	unexpected []string // answers that a round without faults must not have
	// refusals counts the calls that were told to try again.
	refusals atomic.Int64

	mu sync.Mutex
}

func (h *history) reportUnexpected(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unexpected = append(h.unexpected, fmt.Sprintf(format, args...))
}

func newHistory(d *deployment) *history {
	h := &history{d: d, client: newClient(d.url, callers)}
	for range partitions {
		h.partitions = append(h.partitions, &partition{
			rows:   d.addProduct(partitionRows, partitionTotal),
			ending: map[uuid.UUID]knownHold{},
		})
	}
	return h
}

// lateCall records the shortest history in which a call could decide by the wrong clock; random
// callers seldom produce it. A call for a living hold waits for another call with its key, until
// the hold is dead and some caller was told so.
func lateCall(d *deployment, send func(h *history, p *partition, e event)) *history {
	h := newHistory(d)
	p, ctx, key := h.partitions[0], d.t.Context(), uuid.NewString()
	h.sendReserve(ctx, p, event{
		key: uuid.NewString(), lines: []model.Line{{Row: 0, Quantity: 2}},
		ttl: time.Second,
	})
	hold, _ := p.endingWithin(time.Minute)
	unlock := d.db.Lock("SELECT pg_advisory_xact_lock(1, hashtext($1))", key)
	var waits sync.WaitGroup
	waits.Go(func() { send(h, p, event{caller: 1, id: hold.id, key: key, ttl: time.Second}) })
	d.db.WaitForBlocked(1)
	sleep(ctx, time.Until(hold.end)+time.Millisecond)
	h.get(ctx, p, event{caller: 2, id: hold.id})
	unlock()
	waits.Wait()
	h.get(ctx, p, event{caller: 2, id: hold.id})
	h.catalog(ctx, event{caller: 2})
	return h
}

func lateConfirm(d *deployment) *history {
	return lateCall(d, func(h *history, p *partition, e event) {
		h.resolve(context.Background(), p, e, model.Confirm)
	})
}

func lateExtend(d *deployment) *history {
	return lateCall(d, func(h *history, p *partition, e event) {
		h.extend(context.Background(), p, e)
	})
}

// documents records a short history in which documents meet as random ones seldom do. Two
// deliveries wait for one stock row, and one of them is sent again. A count of nothing meets a
// hold. The hold is sold, and a count tells what lay on the shelf before.
func documents(d *deployment) *history {
	h := newHistory(d)
	p, ctx := h.partitions[0], d.t.Context()
	send := func(caller int, reference string, line model.MoveLine) {
		h.sendMove(ctx, p, event{
			caller: caller, reference: reference,
			document: model.Document{Moves: []model.MoveLine{line}},
		})
	}
	deliver := func(n int) {
		send(n, fmt.Sprint("delivery ", n), model.MoveLine{Number: n, Units: deliveryUnits})
	}
	unlock := d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE",
		p.rows[0].Product.String())
	var waits sync.WaitGroup
	for n := range 2 {
		waits.Go(func() { deliver(n) })
	}
	d.db.WaitForBlocked(2)
	unlock()
	waits.Wait()
	deliver(0)
	h.sendReserve(ctx, p, event{
		key: uuid.NewString(), lines: []model.Line{{Row: 0, Quantity: maxUnits}}, ttl: time.Minute,
	})
	send(0, "nothing", model.MoveLine{Number: 2, Count: true})
	counted := p.counts[len(p.counts)-1]
	counted.Number, counted.Count, counted.Units = 3, true, counted.Base
	h.resolve(ctx, p, event{id: p.recent[0].id}, model.Confirm)
	send(0, "shelf", counted)
	p.lines = counted.Number + 1
	h.catalog(ctx, event{})
	return h
}

// recordHistory lets the callers work for a while, beside sweeps, and beside sessions that lock
// rows now and then, as a report or a migration may.
func recordHistory(d *deployment, round uint64, lasts time.Duration) *history {
	h := newHistory(d)
	ctx, cancel := context.WithTimeout(d.t.Context(), lasts)
	defer cancel()
	runConcurrently(callers+lockers+sweepers, func(n int) {
		r := newRand(round, uint64(n))
		switch {
		case n < callers:
			for ctx.Err() == nil {
				h.call(n, h.partitions[n%partitions], r)
			}
		case n < callers+lockers:
			for ctx.Err() == nil {
				h.lockSomething(ctx, n, h.partitions[n%partitions], r)
				sleep(ctx, time.Duration(r.Int64N(int64(maxLockPause))))
			}
		default:
			for ctx.Err() == nil {
				if err := d.sweep(ctx); err != nil && ctx.Err() == nil {
					h.reportUnexpected("a sweep: %v", err)
				}
				sleep(ctx, sweepPause)
			}
		}
	})
	return h
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lockSomething locks something of the partition for a moment, so that calls wait past the end of a
// hold: the hold, a stock row, or the keys of the calls that come for the hold. Those then wait
// before they have read the hold, while others see it dead.
func (h *history) lockSomething(ctx context.Context, n int, p *partition, r *rand.Rand) {
	tx, err := h.d.db.Admin.Begin(ctx)
	if err != nil {
		return
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	row, kind := p.rows[r.IntN(partitionRows)], r.IntN(6)
	hold, found := p.endingSoon()
	if found {
		// The lock begins just before the hold's end and ends just after it.
		sleep(ctx, time.Until(hold.end)-rushTime)
	}
	switch {
	case !found || kind == 0:
		_, err = tx.Exec(ctx, "SELECT FROM inventory "+
			"WHERE product_id = $1 AND warehouse_id = $2 FOR UPDATE",
			row.Product.String(), row.Warehouse.String())
	case kind < 3:
		_, err = tx.Exec(ctx, "SELECT FROM reservations WHERE id = $1 FOR UPDATE", hold.id.String())
	default:
		_, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock(1, hashtext(key)) "+
			"FROM unnest($1::text[]) key", p.announcedKeys(hold.id))
	}
	if err == nil && found && kind >= 3 {
		// A caller is told that the hold is dead before the calls go on that came while it lived.
		sleep(ctx, time.Until(hold.end))
		h.get(context.WithoutCancel(ctx), p, event{caller: n, id: hold.id})
	}
	if err == nil {
		sleep(ctx, max(0, time.Until(hold.end))+time.Duration(r.Int64N(int64(maxLockTime))))
	}
}

// call makes one call. The end of the round does not cut it short: each call gets its answer.
func (h *history) call(caller int, p *partition, r *rand.Rand) {
	ctx := context.Background()
	// Some callers don't wait for their answer.
	if r.IntN(200) == 0 {
		short, cancel := context.WithTimeout(ctx, time.Duration(1+r.IntN(4))*time.Millisecond)
		defer cancel()
		ctx = short
	}
	e := event{caller: caller, ttl: time.Second}
	choice := r.IntN(100)
	hold, found := p.recentHold(r)
	// A third of the calls come as a hold ends: the clock decides there.
	early := time.Duration(r.Int64N(int64(rushTime))) - rushTime/4
	if next, soon := p.endingSoon(); soon && choice >= 45 && choice < 88 && r.IntN(3) > 0 {
		hold, found = next, true
		if choice < 80 {
			e.key = uuid.NewString()
			p.announce(hold.id, e.key)
		}
		time.Sleep(time.Until(hold.end) - early)
	}
	if found && choice >= 45 && choice < 88 {
		e.id = hold.id
	}
	switch {
	case choice < 5:
		h.resend(ctx, p, e)
	case choice < 45 || !found && choice < 88:
		e.lines = p.reserveLines(r)
		e.key = uuid.NewString()
		h.reserve(ctx, p, e)
	case choice < 59:
		h.resolve(ctx, p, e, model.Confirm)
	case choice < 68:
		h.resolve(ctx, p, e, model.Release)
	case choice < 80:
		h.extend(ctx, p, e)
	case choice < 88:
		h.get(ctx, p, e)
	case choice < 94:
		h.catalog(ctx, e)
	case choice < 96:
		h.newest(ctx, p, e, r)
	default:
		h.move(ctx, p, e, r)
	}
}

// reserveLines draws one line, or a cart of several.
func (p *partition) reserveLines(r *rand.Rand) []model.Line {
	lines := []model.Line{{Row: r.IntN(partitionRows), Quantity: 1 + r.IntN(maxUnits)}}
	if r.IntN(2) == 0 {
		lines = nil
		for _, row := range r.Perm(partitionRows)[:2+r.IntN(partitionRows-1)] {
			lines = append(lines, model.Line{Row: row, Quantity: 1 + r.IntN(maxUnits)})
		}
	}
	return lines
}

// reserve sends a new reserve, which other callers may resend meanwhile.
func (h *history) reserve(ctx context.Context, p *partition, e event) {
	p.mu.Lock()
	p.pending = append(p.pending, e)
	p.pending = p.pending[max(0, len(p.pending)-2):]
	p.mu.Unlock()
	h.sendReserve(ctx, p, e)
}

// resend sends another caller's reserve again, under the same key.
func (h *history) resend(ctx context.Context, p *partition, e event) {
	p.mu.Lock()
	n := len(p.pending)
	if n > 0 {
		caller := e.caller
		e = p.pending[n-1]
		e.caller = caller
	}
	p.mu.Unlock()
	if n > 0 {
		h.sendReserve(ctx, p, e)
	}
}

func (h *history) sendReserve(ctx context.Context, p *partition, e event) {
	e.verb, e.from = model.Reserve, time.Now()
	r := h.client.reserve(ctx, e.key, int(e.ttl.Seconds()), p.items(e.lines)...)
	h.finish(p, e, r)
}

func (h *history) resolve(ctx context.Context, p *partition, e event, verb model.Verb) {
	e.verb, e.from = verb, time.Now()
	h.finish(p, e, h.client.act(ctx, e.id, string(verb), e.key))
}

func (h *history) extend(ctx context.Context, p *partition, e event) {
	e.verb, e.from = model.Extend, time.Now()
	h.finish(p, e, h.client.extend(ctx, e.id, e.key, int(e.ttl.Seconds())))
}

func (h *history) get(ctx context.Context, p *partition, e event) {
	e.verb, e.from = model.Get, time.Now()
	h.finish(p, e, h.client.get(ctx, e.id))
}

// catalog reads all rows at once, so it counts as one call in every partition.
func (h *history) catalog(ctx context.Context, e event) {
	e.verb, e.from = model.Catalog, time.Now()
	shelves, r := h.client.catalog(ctx, partitions+otherProducts)
	e.to = time.Now()
	if r.Err != nil && ctx.Err() == nil || r.Err == nil && !r.ok() {
		h.reportUnexpected("a catalog was answered %d %s %v", r.Status, r.Body, r.Err)
	}
	if !r.ok() {
		return
	}
	for _, p := range h.partitions {
		e.outcome, e.rows = model.Done, nil
		for _, shelf := range shelves {
			for _, s := range shelf.Inventories {
				if n := p.rowNumber(shelf.ID, s.WarehouseID); n >= 0 {
					e.rows = append(e.rows, model.Row{
						Number: n, Total: s.TotalQuantity,
						Reserved: s.ReservedQuantity, Available: s.AvailableStock,
					})
				}
			}
		}
		if len(e.rows) != partitionRows {
			h.reportUnexpected("a catalog shows %d of %d rows of a product", len(e.rows),
				partitionRows)
		}
		p.record(e)
	}
}

// newest reads the newest movement of a stock row.
func (h *history) newest(ctx context.Context, p *partition, e event, r *rand.Rand) {
	row := r.IntN(partitionRows)
	e.verb, e.outcome, e.lines = model.Newest, model.Done, []model.Line{{Row: row}}
	e.from = time.Now()
	newest, answer := h.client.movements(ctx, p.rows[row], 1)
	e.to = time.Now()
	switch {
	case answer.Err != nil && ctx.Err() != nil:
		return
	case len(newest) != 1:
		h.reportUnexpected("the movements of a row were answered %d %s %v", answer.Status, answer.Body,
			answer.Err)
		return
	}
	e.moved = []model.Moved{{Seq: newest[0].Seq, Total: newest[0].TotalAfter}}
	p.record(e)
}

// move sends a new document, or another caller's again.
func (h *history) move(ctx context.Context, p *partition, e event, r *rand.Rand) {
	p.mu.Lock()
	if n := len(p.documents); n > 0 && r.IntN(4) == 0 {
		e.reference, e.document = p.documents[n-1].reference, p.documents[n-1].document
	} else {
		e.reference, e.document = uuid.NewString(), p.draw(r)
		p.documents = append(p.documents, e)
		p.documents = p.documents[max(0, len(p.documents)-2):]
	}
	p.mu.Unlock()
	if e.document.Clamp {
		// The model can't tell what a clamped line did that was not answered.
		ctx = context.WithoutCancel(ctx)
	}
	h.sendMove(ctx, p, e)
}

func (h *history) sendMove(ctx context.Context, p *partition, e event) {
	e.verb, e.from = model.Move, time.Now()
	h.finishMove(p, e, h.client.move(ctx, p.documentOf(e.reference, e.document)))
}

// draw draws a document: mostly a delivery, else a loss, a count of now, or a count as of a
// movement that an answer told of. A document of several lines is one transaction. The partition is
// locked.
func (p *partition) draw(r *rand.Rand) (d model.Document) {
	rows := r.Perm(partitionRows)[:1]
	if r.IntN(4) == 0 {
		rows, d.Together = r.Perm(partitionRows)[:2], true
	}
	for _, row := range rows {
		line := model.MoveLine{Row: row, Units: deliveryUnits}
		switch choice := r.IntN(10); {
		case choice < 2:
			line.Units = -1 - r.IntN(maxUnits)
		case choice < 3:
			line.Count, line.Units = true, r.IntN(2*deliveryUnits)
		case choice < 6 && len(p.counts) > 0:
			line = p.counts[r.IntN(len(p.counts))]
			line.Count, line.Units = true, max(0, line.Base-2+r.IntN(deliveryUnits))
			if d.Together {
				line.Row, line.AsOf, line.Base = row, 0, 0
			}
		}
		line.Number = p.lines
		p.lines++
		d.Moves = append(d.Moves, line)
	}
	d.Clamp = r.IntN(4) == 0
	return d
}

// documentOf is a document as it is sent.
func (p *partition) documentOf(reference string, d model.Document) document {
	sent := document{Source: "history", Reference: reference, Together: d.Together}
	if d.Clamp {
		sent.OnHeld = "CLAMP"
	}
	for _, line := range d.Moves {
		l := documentLine{
			ProductID: p.rows[line.Row].Product, WarehouseID: p.rows[line.Row].Warehouse,
		}
		if line.Count {
			l.Counted = &line.Units
		} else {
			l.Delta = &line.Units
		}
		if line.AsOf > 0 {
			l.AsOfSeq = &line.AsOf
		}
		sent.Lines = append(sent.Lines, l)
	}
	return sent
}

var moveOutcomes = map[string]model.MoveOutcome{
	"APPLIED": model.Applied, "UNCHANGED": model.Unchanged, "REPLAYED": model.Replayed,
	"STOCK_HELD": model.Held, "SEQ_UNKNOWN": model.SeqUnknown, "REFERENCE_REUSED": model.Reused,
}

// moved are the results of a document's lines.
func (r reply) moved() []model.Moved {
	var moved []model.Moved
	for _, line := range r.Results {
		outcome := line.Outcome
		if outcome == "REFUSED" {
			outcome = line.Problem.Code
		}
		moved = append(moved, model.Moved{
			Outcome: moveOutcomes[outcome], Delta: line.Delta, Total: line.TotalQuantity,
			Seq: line.Seq, Shortfall: line.Shortfall, Held: line.Problem.Held,
		})
	}
	return moved
}

// firstRefusal leaves the first refused line of a refused document. The lines are looked at one
// after the other, so the answer isn't a picture of one moment. But when its first refused line was
// looked at, the document had to be refused.
func (e *event) firstRefusal() {
	for n, moved := range e.moved {
		if moved.Outcome != model.Applied && moved.Outcome != model.Unchanged &&
			moved.Outcome != model.Replayed {
			e.moved = e.moved[n : n+1]
			e.document.Moves = e.document.Moves[n : n+1]
			return
		}
	}
}

var statuses = map[string]model.Status{
	"PENDING": model.Pending, "CONFIRMED": model.Confirmed, "RELEASED": model.Released,
	"EXPIRED": model.Expired,
}

// finishMove records a document with its answer.
func (h *history) finishMove(p *partition, e event, r reply) {
	e.to = time.Now()
	switch {
	case r.ok():
		e.outcome, e.moved = model.Done, r.moved()
	case r.Code == "MOVEMENTS_REFUSED":
		e.outcome, e.moved = model.Refused, r.moved()
	case r.Code == "STOCK_BUSY": // lines that are one transaction
		e.outcome = model.Nothing
		h.refusals.Add(1)
	case r.Code == "MOVEMENTS_INCOMPLETE":
		e.outcome, e.to = model.Unknown, time.Time{}
		h.refusals.Add(1)
	case r.Err != nil:
		e.outcome, e.to = model.Unknown, time.Time{}
	default:
		h.reportUnexpected("a document was answered %d %s", r.Status, r.Body)
		e.outcome, e.to = model.Unknown, time.Time{}
	}
	p.record(e)
}

// finish records a call with its answer.
func (h *history) finish(p *partition, e event, r reply) {
	e.to = time.Now()
	switch {
	case r.ok() && r.Reservation != nil:
		e.outcome, e.status, e.end = model.Done, statuses[r.Reservation.Status],
			r.Reservation.ExpiresAt
		if e.id != uuid.Nil && e.id != r.Reservation.ID {
			h.reportUnexpected("a call for hold %s was answered with hold %s", e.id,
				r.Reservation.ID)
		}
		e.id = r.Reservation.ID
		if r.Header.Get("Idempotency-Replayed") != "true" {
			e.version = r.Reservation.Version
		}
	case r.Code == "INSUFFICIENT_STOCK":
		e.outcome = model.Short
		for _, s := range r.Shortages {
			e.rows = append(e.rows, model.Row{
				Number:    p.rowNumber(s.ProductID, s.WarehouseID),
				Available: s.Available,
			})
		}
	case r.Code == "NOT_FOR_SALE":
		e.outcome = model.Closed
		for _, line := range r.Lines {
			e.rows = append(e.rows, model.Row{Number: p.rowNumber(line.ProductID, line.WarehouseID)})
		}
	case r.Code == "RESERVATION_EXPIRED":
		e.outcome = model.Gone
	case r.Code == "RESERVATION_CONFIRMED":
		e.outcome, e.status = model.Settled, model.Confirmed
	case r.Code == "RESERVATION_RELEASED":
		e.outcome, e.status = model.Settled, model.Released
	case r.Code == "IDEMPOTENCY_KEY_IN_USE", r.Code == "STOCK_BUSY":
		e.outcome = model.Nothing
		h.refusals.Add(1)
	case r.Err != nil && e.verb == model.Get:
		return // no information and no effect
	case r.Err != nil:
		e.outcome, e.to = model.Unknown, time.Time{}
	default:
		// Without faults no other answer is expected, neither a 404 nor a 503: locks are free
		// within milliseconds.
		h.reportUnexpected("%s of %s was answered %d %s", e.verb, e.id, r.Status, r.Body)
		e.outcome, e.to = model.Unknown, time.Time{}
	}
	p.record(e)
}

// input is the part of a call that Porcupine sees.
type input struct {
	call   model.Call
	answer model.Answer
}

// operations turns a partition's events into Porcupine's operations, and numbers its holds.
func (p *partition) operations() (
	m *model.Model, operations []porcupine.Operation, unexpected []string,
) {
	var reserves []event
	numbers, keys, sent, made := map[uuid.UUID]int{}, map[string]int{}, map[string]int{},
		map[string]uuid.UUID{}
	for _, e := range p.events {
		if e.verb != model.Reserve {
			continue
		}
		if sent[e.key]++; sent[e.key] == 1 {
			keys[e.key] = len(reserves)
			reserves = append(reserves, e)
		}
		if e.outcome != model.Done {
			continue
		}
		if first, told := made[e.key]; told && first != e.id {
			unexpected = append(unexpected, fmt.Sprintf("one key made the holds %s and %s", first,
				e.id))
		}
		made[e.key] = e.id
		numbers[e.id] = keys[e.key]
	}
	m = model.New(slices.Repeat([]int{partitionTotal}, len(p.rows)), len(reserves), p.lines)
	for n, e := range reserves {
		m.SetLines(n, e.lines)
	}
	for _, e := range p.events {
		if e.outcome == model.Refused {
			e.firstRefusal()
		}
		hold := numbers[e.id]
		if e.verb == model.Reserve {
			hold = keys[e.key]
		}
		to := model.Never
		if !e.to.IsZero() {
			to = e.to.UnixMicro()
		}
		in := input{
			call: model.Call{
				Verb: e.verb, Hold: hold, Lines: e.lines, Document: e.document,
				TTL: e.ttl.Microseconds(), Repeats: sent[e.key] > 1, From: e.from.UnixMicro(), To: to,
			},
			answer: model.Answer{
				Outcome: e.outcome, Status: e.status, Version: e.version, Rows: e.rows, Moved: e.moved,
			},
		}
		if !e.end.IsZero() {
			in.answer.End = e.end.UnixMicro()
		}
		operations = append(operations, porcupine.Operation{
			ClientId: e.caller, Input: in,
			Call: in.call.From, Return: to,
		})
	}
	return m, operations, unexpected
}

// specification is the model in Porcupine's terms.
func specification(m *model.Model) porcupine.Model {
	n := porcupine.NondeterministicModel{
		Init: func() []any { return []any{m.Init()} },
		Step: func(state, in, _ any) []any {
			var states []any
			for _, s := range m.Step(state.(model.State), in.(input).call, in.(input).answer) {
				states = append(states, s)
			}
			return states
		},
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(in, _ any) string {
			return model.Describe(in.(input).call,
				in.(input).answer)
		},
		DescribeState: func(s any) string { return m.Describe(s.(model.State)) },
	}
	return n.ToModel()
}

// verdict is the result of the check of a history.
type verdict struct {
	calls, unanswered int
	// illegal names the partitions whose answers no order of the calls explains. unexpected lists
	// what else went wrong.
	illegal, unexpected []string
}

func (v verdict) clean() bool { return len(v.illegal) == 0 && len(v.unexpected) == 0 }

func (v verdict) String() string {
	return fmt.Sprintf("%d calls, %d unanswered, not linearizable: %q, unexpected: %.600q", v.calls,
		v.unanswered, v.illegal, v.unexpected)
}

// check looks for an order of the calls of each partition. With pages, it saves a page that shows
// the longest order of a partition that has none.
func (h *history) check(t *testing.T, pages bool) verdict {
	t.Helper()
	v := verdict{unexpected: h.unexpected}
	limit := checkLimit
	if !pages {
		limit = controlLimit
	}
	for n, p := range h.partitions {
		m, operations, unexpected := p.operations()
		v.unexpected = append(v.unexpected, unexpected...)
		v.calls += len(operations)
		for _, o := range operations {
			if o.Return == model.Never {
				v.unanswered++
			}
		}
		spec := specification(m)
		result, info := porcupine.CheckOperationsVerbose(spec, operations, limit)
		switch result {
		case porcupine.Ok:
		case porcupine.Illegal:
			name := fmt.Sprintf("%s-%d.html", uuid.NewString()[:8], n)
			v.illegal = append(v.illegal, name)
			if !pages {
				return v // enough for a control
			}
			saveFailure(t, name,
				func(f *os.File) error { return porcupine.Visualize(spec, info, f) })
			saveFailure(t, name+".txt",
				func(f *os.File) error { return explain(f, m, operations, info) })
		case porcupine.Unknown:
			v.unexpected = append(v.unexpected,
				fmt.Sprintf("the check of %d calls did not end within %s", len(operations), limit))
		}
	}
	// Locks are free within milliseconds here, so hardly any call is told to try again.
	if n := h.refusals.Load(); n*100 > int64(v.calls) {
		v.unexpected = append(v.unexpected, fmt.Sprintf("%d of %d calls were told to try again", n,
			v.calls))
	}
	return v
}

// explain writes the longest order found for a history that has none: its last calls, the state
// after them, and the next calls, which do not fit.
func explain(
	f io.Writer, m *model.Model, operations []porcupine.Operation, info porcupine.LinearizationInfo,
) error {
	const shown = 25
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	describe := func(o porcupine.Operation) string {
		in := o.Input.(input)
		return fmt.Sprintf("caller %d, %d to %d: %s", o.ClientId, in.call.From, in.call.To,
			model.Describe(in.call, in.answer))
	}
	states, done := []model.State{m.Init()}, map[string]int{}
	var b strings.Builder
	for n, o := range longest {
		var next []model.State
		for _, s := range states {
			next = append(next, m.Step(s, o.Input.(input).call, o.Input.(input).answer)...)
		}
		states = next
		done[describe(o)]++
		if n >= len(longest)-shown {
			fmt.Fprintln(&b, describe(o))
		}
	}
	for _, s := range states {
		fmt.Fprintf(&b, "\nthen: %s\n\n", m.Describe(s))
	}
	slices.SortFunc(operations,
		func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	left := 0
	for _, o := range operations {
		if done[describe(o)]--; done[describe(o)] < 0 && left < shown {
			left++
			fmt.Fprintln(&b, "not:", describe(o))
		}
	}
	_, err := io.WriteString(f, b.String())
	return err
}
