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
	otherProducts  = 17
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
	// The limits of the product of every second partition. Now and then a new owner comes, because
	// what an owner has bought counts for ever.
	perHold, perOwner = 3, 8
	ownerReserves     = 12
)

// paymentNames are the references of a hold's payments. The model numbers them from 1.
var paymentNames = [model.Payments]string{"payment 1", "payment 2"}

// paymentNumber is the number of a payment, or 0 for none.
func paymentNumber(name string) int {
	return slices.Index(paymentNames[:], name) + 1
}

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
	limits  []model.Excess
	// of a reserve
	owner    int
	replaces uuid.UUID
	// of a payment: its number, or 0 for none
	payment   int
	reacquire bool
	// of a return
	shelf model.Shelf
	// what the answer says of the hold: the payment under way, or the one that was first, and the
	// holds before and after it
	told struct {
		hold, replaces, replacedBy uuid.UUID
		payment                    int
	}
	// of a document of movements
	reference string
	document  model.Document
	moved     []model.Moved
}

// partition is a few stock rows and the holds that its callers know of.
type partition struct {
	rows    []stockRow
	limited bool

	mu      sync.Mutex
	owners  int // counts the reserves for an owner
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
	id    uuid.UUID
	end   time.Time
	lines []model.Line
	keys  []string
}

func (p *partition) record(e event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	switch e.verb {
	case model.Confirm, model.Release, model.Cancel:
		delete(p.ending, e.id)
	default:
	}
	for n, line := range e.document.Moves {
		if e.outcome == model.Done && e.moved[n].Seq > 0 {
			p.counts = append(p.counts,
				model.MoveLine{Row: line.Row, AsOf: e.moved[n].Seq, Base: e.moved[n].Total})
			p.counts = p.counts[max(0, len(p.counts)-recentCounts):]
		}
	}
	switch {
	case e.outcome == model.Reacquired:
		p.remember(knownHold{id: e.told.hold, lines: e.lines})
	case e.outcome == model.Done && e.status == model.Pending && e.verb != model.Get:
		known := knownHold{id: e.id, end: e.end, lines: e.lines}
		p.remember(known)
		if p.ending != nil {
			p.ending[e.id] = known
		}
	}
}

// remember adds a hold to the recent ones. The partition is locked.
func (p *partition) remember(known knownHold) {
	p.recent = append(p.recent, known)
	p.recent = p.recent[max(0, len(p.recent)-recentHolds):]
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
func (p *partition) endingSoon() (knownHold, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, found := time.Now(), false
	var next knownHold
	for _, k := range p.ending {
		if ahead := k.end.Sub(now); ahead > 0 && ahead < 10*rushTime &&
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

// newHistory makes the partitions. Calls wait for a lock for as long as a slow machine needs: some
// because the test acts meanwhile, and others behind the calls of many callers.
func newHistory(d *deployment) *history {
	d.db.Patient()
	h := &history{d: d, client: newClient(d.url, callers)}
	for n := range partitions {
		p := &partition{
			rows:    d.addProduct(partitionRows, partitionTotal),
			ending:  map[uuid.UUID]knownHold{},
			limited: n%2 == 1,
		}
		if p.limited {
			r := d.change(d.t.Context(), h.client, "products", p.rows[0].Product,
				map[string]any{"maxPerHold": perHold, "maxPerOwner": perOwner})
			if !r.ok() {
				d.t.Fatalf("a change of the catalog was answered %d %s %v", r.Status, r.Body, r.Err)
			}
		}
		h.partitions = append(h.partitions, p)
	}
	return h
}

// lateTime is how long the hold of a late call lives. Its caller must wait by then. It is less than
// the service gives a request, because the call waits until the hold is dead.
const lateTime = 3 * time.Second

// lateCall records the shortest history in which a call could decide by the wrong clock; random
// callers seldom produce it. A call for a living hold waits for another call with its key, until
// the hold is dead and some caller was told so.
func lateCall(d *deployment, send func(h *history, p *partition, e event)) *history {
	h := newHistory(d)
	p, ctx, key := h.partitions[0], d.t.Context(), uuid.NewString()
	hold := h.holdFor(p, 2, lateTime)
	unlock := d.db.Lock("SELECT pg_advisory_xact_lock(1, hashtext($1))", key)
	var waits sync.WaitGroup
	waits.Go(func() { send(h, p, event{caller: 1, id: hold.id, key: key, ttl: lateTime}) })
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

// meet lets two calls wait for the first stock row of the partition, and then go on together.
func (h *history) meet(p *partition, call func(n int)) {
	unlock := h.d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE",
		p.rows[0].Product.String())
	var waits sync.WaitGroup
	for n := range 2 {
		waits.Go(func() { call(n) })
	}
	h.d.db.WaitForBlocked(2)
	unlock()
	waits.Wait()
}

// holdOf makes a hold of some units of the first stock row.
func (h *history) holdOf(p *partition, units int) knownHold {
	h.d.t.Helper()
	return h.holdFor(p, units, time.Minute)
}

// holdFor is holdOf for so long.
func (h *history) holdFor(p *partition, units int, ttl time.Duration) knownHold {
	h.d.t.Helper()
	h.sendReserve(h.d.t.Context(), p, event{
		key: uuid.NewString(), lines: []model.Line{{Row: 0, Quantity: units}}, ttl: ttl,
	})
	if len(p.recent) == 0 {
		h.d.t.Fatalf("a reserve made no hold: %v", h.unexpected)
	}
	return p.recent[len(p.recent)-1]
}

// latePayments records a short history of payments that come when their hold is gone. Two of one
// hold meet: one gets the units. Then one finds none, is lost, and stays lost when there are some
// again.
func latePayments(d *deployment) *history {
	h := newHistory(d)
	p, ctx := h.partitions[0], d.t.Context()
	late := func(hold knownHold, payment int) {
		h.confirm(ctx, p, event{
			caller: payment, id: hold.id, lines: hold.lines, payment: payment, reacquire: true,
		})
	}
	paid, lost := h.holdOf(p, 2), h.holdOf(p, 3)
	h.resolve(ctx, p, event{id: paid.id}, model.Release)
	h.meet(p, func(n int) { late(paid, n+1) })
	late(paid, 1)
	late(paid, 2)
	h.resolve(ctx, p, event{id: lost.id}, model.Release)
	all := h.holdOf(p, partitionTotal-2)
	late(lost, 1)
	h.resolve(ctx, p, event{id: all.id}, model.Release)
	late(lost, 1)
	late(lost, 2)
	h.get(ctx, p, event{id: lost.id})
	h.catalog(ctx, event{})
	return h
}

// underWay records a short history of a hold that is being paid: the shopper can't change it,
// another payment takes the place of the first, and the one under way confirms.
func underWay(d *deployment) *history {
	h := newHistory(d)
	p, ctx := h.partitions[0], d.t.Context()
	hold := h.holdOf(p, 2)
	pay := func(payment int, verb model.Verb) {
		h.pay(ctx, p, event{id: hold.id, payment: payment, ttl: time.Minute}, verb)
	}
	pay(1, model.Start)
	pay(2, model.Start)
	pay(1, model.Fail)
	h.extend(ctx, p, event{id: hold.id, ttl: time.Minute})
	h.sendReserve(ctx, p, event{
		key: uuid.NewString(), lines: []model.Line{{Row: 0, Quantity: 1}}, ttl: time.Minute,
		replaces: hold.id,
	})
	h.resolve(ctx, p, event{id: hold.id}, model.Release)
	h.get(ctx, p, event{id: hold.id})
	h.confirm(ctx, p, event{id: hold.id})
	h.confirm(ctx, p, event{id: hold.id, payment: 1, reacquire: true})
	h.catalog(ctx, event{})
	return h
}

// ownersMeet records a short history in which two reserves of one owner meet. Together they are
// more than the owner's limit.
func ownersMeet(d *deployment) *history {
	h := newHistory(d)
	p, ctx := h.partitions[1], d.t.Context()
	reserve := func(n int) {
		h.sendReserve(ctx, p, event{
			caller: n, key: uuid.NewString(), ttl: time.Minute, owner: 1, lines: []model.Line{
				{Row: 0, Quantity: perHold}, {Row: 1, Quantity: perHold},
			},
		})
	}
	h.meet(p, reserve)
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
		e.id, e.lines = hold.id, hold.lines
	}
	switch {
	case choice < 5:
		h.resend(ctx, p, e)
	case choice < 45 || !found && choice < 88:
		e.lines = p.reserveLines(r)
		e.key = uuid.NewString()
		p.drawParties(&e, r)
		h.reserve(ctx, p, e)
	case choice < 62:
		// A third names no payment. Of the others, most may take the units anew.
		if e.payment = r.IntN(model.Payments + 1); e.payment > 0 {
			e.reacquire = r.IntN(3) > 0
		}
		h.confirm(ctx, p, e)
	case choice < 69:
		h.resolve(ctx, p, e, []model.Verb{model.Release, model.Release, model.Cancel}[r.IntN(3)])
	case choice < 75:
		e.payment = 1 + r.IntN(model.Payments)
		h.pay(ctx, p, e, []model.Verb{model.Start, model.Start, model.Fail}[r.IntN(3)])
	case choice < 80:
		h.extend(ctx, p, e)
	case choice < 86:
		h.get(ctx, p, e)
	case choice < 88:
		e.lines = e.lines[:1]
		// Half of the returns go to the shelf of before, the others to any shelf or to none.
		if e.shelf = model.ShelfOf(e.lines[0].Row); r.IntN(2) == 0 {
			e.shelf = model.Shelf(r.IntN(partitionRows + 1))
		}
		h.bringBack(ctx, p, e)
	case choice < 94:
		h.catalog(ctx, e)
	case choice < 96:
		h.newest(ctx, p, e, r)
	default:
		h.move(ctx, p, e, r)
	}
}

// drawParties draws for whom a reserve is, and which hold it takes the place of. A reserve of a
// limited product mostly has an owner.
func (p *partition) drawParties(e *event, r *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limited && r.IntN(20) > 0 || !p.limited && r.IntN(4) == 0 {
		p.owners++
		e.owner = p.owners/ownerReserves + 1 + r.IntN(2)
	}
	if len(p.recent) > 0 && r.IntN(4) == 0 {
		e.replaces = p.recent[r.IntN(len(p.recent))].id
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
	h.finish(p, e, h.client.order(ctx, e.key, p.order(e)))
}

// order is a reserve as it is sent.
func (p *partition) order(e event) reserveBody {
	body := reserveBody{Items: p.items(e.lines), TTLSeconds: int(e.ttl.Seconds())}
	if e.owner > 0 {
		body.Owner = fmt.Sprint("owner ", e.owner)
	}
	if e.replaces != uuid.Nil {
		body.Replaces = &e.replaces
	}
	return body
}

// confirm confirms a hold, by a payment if the event has one.
func (h *history) confirm(ctx context.Context, p *partition, e event) {
	if e.payment == 0 {
		h.resolve(ctx, p, e, model.Confirm)
		return
	}
	e.verb, e.from = model.Confirm, time.Now()
	h.finish(p, e, h.client.confirm(ctx, e.id, e.key, paymentNames[e.payment-1], e.reacquire))
}

// pay starts a payment, or says that it failed.
func (h *history) pay(ctx context.Context, p *partition, e event, verb model.Verb) {
	send := h.client.pay
	if verb == model.Fail {
		send = h.client.fail
	}
	e.verb, e.from = verb, time.Now()
	h.finish(p, e, send(ctx, e.id, e.key, paymentNames[e.payment-1], int(e.ttl.Seconds())))
}

// bringBack brings the units of a line back. Each line has one return.
func (h *history) bringBack(ctx context.Context, p *partition, e event) {
	e.verb, e.from = model.Return, time.Now()
	h.finish(p, e, h.client.bringBack(ctx, e.id, fmt.Sprint("return ", e.lines[0].Row),
		p.returnOf(e.lines[0], e.shelf)))
}

// returnOf is the line of a return as it is sent.
func (p *partition) returnOf(line model.Line, shelf model.Shelf) returned {
	back := returned{item: p.items([]model.Line{line})[0]}
	switch shelf {
	case model.NoShelf:
		back.Restock = new(bool)
	case model.ShelfOf(line.Row):
	default:
		back.ToWarehouseID = &p.rows[shelf-1].Warehouse
	}
	return back
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
		h.hear(&e, r)
	case e.refusedBy(p, r):
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

// hear notes the hold of a success.
func (h *history) hear(e *event, r reply) {
	shown := r.Reservation
	e.outcome, e.status, e.end = model.Done, statuses[shown.Status], shown.ExpiresAt
	e.told.hold = shown.ID
	switch {
	case r.Outcome == "REACQUIRED":
		e.outcome = model.Reacquired
	case e.id != uuid.Nil && e.id != shown.ID:
		h.reportUnexpected("a call for hold %s was answered with hold %s", e.id, shown.ID)
	default:
		e.id = shown.ID
	}
	if shown.Payment != nil {
		e.told.payment = paymentNumber(shown.Payment.Reference)
	}
	if shown.Replaces != nil {
		e.told.replaces = *shown.Replaces
	}
	if shown.ReplacedBy != nil {
		e.told.replacedBy = *shown.ReplacedBy
	}
	if r.Header.Get("Idempotency-Replayed") != "true" {
		e.version = shown.Version
	}
}

// refusals are the refusals without more to tell, by their code.
var refusals = map[string]model.Outcome{
	"RESERVATION_EXPIRED": model.Gone, "PAYMENT_STARTED": model.Paying,
	"OWNER_REQUIRED": model.NeedsOwner, "VALIDATION_FAILED": model.TooMany,
	"RESERVATION_NOT_CONFIRMED": model.Unsold, "REFERENCE_REUSED": model.Elsewhere,
}

// refusedBy notes a refusal that the model explains, and reports whether the answer is one.
func (e *event) refusedBy(p *partition, r reply) bool {
	switch r.Code {
	case "INSUFFICIENT_STOCK", "PAYMENT_LOST":
		e.outcome = model.Short
		if r.Code == "PAYMENT_LOST" {
			e.outcome = model.Lost
		}
		for _, s := range r.Shortages {
			e.rows = append(e.rows, model.Row{
				Number:    p.rowNumber(s.ProductID, s.WarehouseID),
				Available: s.Available,
			})
		}
	case "NOT_FOR_SALE":
		e.outcome = model.Closed
		for _, line := range r.Lines {
			e.rows = append(e.rows, model.Row{Number: p.rowNumber(line.ProductID, line.WarehouseID)})
		}
	case "LIMIT_EXCEEDED":
		e.outcome = model.Limited
	case "RESERVATION_CONFIRMED":
		e.outcome, e.status = model.Settled, model.Confirmed
	case "RESERVATION_RELEASED":
		e.outcome, e.status = model.Settled, model.Released
	case "ALREADY_PAID":
		e.outcome = model.AlreadyPaid
		if r.PaymentReference != nil {
			e.told.payment = paymentNumber(*r.PaymentReference)
		}
	default:
		outcome, found := refusals[r.Code]
		e.outcome = outcome
		return found
	}
	for _, l := range r.Limits {
		e.limits = append(e.limits, model.Excess{Max: l.Max, Used: l.Used, Requested: l.Requested})
	}
	return true
}

// input is the part of a call that Porcupine sees.
type input struct {
	call   model.Call
	answer model.Answer
}

// numbering numbers the holds of a partition for the model.
type numbering struct {
	holds map[uuid.UUID]int // also those that took another one's place
	keys  map[string]int    // by the key of the reserve
	sent  map[string]int    // how often a key was sent
	// successors are the holds that a payment that comes too late would make, by the hold that is
	// gone.
	successors map[int]int
	unexpected []string
}

// name says that the hold has the number. Two holds of one number are one too many.
func (n *numbering) name(id uuid.UUID, number int, by string) {
	for other, taken := range n.holds {
		if taken == number && other != id {
			n.unexpected = append(n.unexpected, fmt.Sprintf("one %s made the holds %s and %s", by, other,
				id))
		}
	}
	n.holds[id] = number
}

// ref is the number of a hold as the model names it. It is false for a hold that no call made whose
// answer came.
func (n *numbering) ref(id uuid.UUID) (model.Ref, bool) {
	number, found := n.holds[id]
	if id == uuid.Nil || !found {
		return 0, id == uuid.Nil
	}
	return model.To(number), true
}

// call is the call of an event, as the model sees it.
func (n *numbering) call(e event) model.Call {
	to := model.Never
	if !e.to.IsZero() {
		to = e.to.UnixMicro()
	}
	hold := n.holds[e.id]
	if e.verb == model.Reserve {
		hold = n.keys[e.key]
	}
	replaces, _ := n.ref(e.replaces)
	return model.Call{
		Verb: e.verb, Hold: hold, Lines: e.lines, Document: e.document,
		Owner: e.owner, Replaces: replaces, Payment: e.payment, Reacquire: e.reacquire,
		Successor: n.successors[hold], Shelf: e.shelf, TTL: e.ttl.Microseconds(),
		Repeats: n.sent[e.key] > 1, From: e.from.UnixMicro(), To: to,
	}
}

// answer is the answer of an event, as the model sees it.
func (n *numbering) answer(e event) model.Answer {
	a := model.Answer{
		Outcome: e.outcome, Status: e.status, Version: e.version, Rows: e.rows, Moved: e.moved,
		Limits: e.limits, Payment: e.told.payment,
	}
	var before, after bool
	a.Replaces, before = n.ref(e.told.replaces)
	a.ReplacedBy, after = n.ref(e.told.replacedBy)
	if !before || !after {
		a.Version = 0 // it can't be compared
	}
	if !e.end.IsZero() {
		a.End = e.end.UnixMicro()
	}
	return a
}

// number numbers the holds of the partition's events, and returns the model that knows them.
func (p *partition) number() (*numbering, *model.Model) {
	n := &numbering{
		holds: map[uuid.UUID]int{}, keys: map[string]int{}, sent: map[string]int{},
		successors: map[int]int{},
	}
	var reserves []event
	for _, e := range p.events {
		if e.verb != model.Reserve {
			continue
		}
		if n.sent[e.key]++; n.sent[e.key] == 1 {
			n.keys[e.key] = len(reserves)
			reserves = append(reserves, e)
		}
		if e.outcome == model.Done {
			n.name(e.id, n.keys[e.key], "key")
		}
	}
	made := reserves
	for _, e := range p.events {
		if !e.reacquire && e.outcome != model.Reacquired {
			continue
		}
		gone := n.holds[e.id]
		if _, found := n.successors[gone]; !found {
			n.successors[gone] = len(made)
			made = append(made, made[gone])
		}
		if e.outcome == model.Reacquired {
			n.name(e.told.hold, n.successors[gone], "hold that is gone")
		}
	}
	m := model.New(slices.Repeat([]int{partitionTotal}, len(p.rows)), len(made), p.lines)
	if p.limited {
		m.PerHold, m.PerOwner = perHold, perOwner
	}
	for number, e := range made {
		m.SetHold(number, e.owner, e.lines)
	}
	return n, m
}

// operations turns a partition's events into Porcupine's operations, and numbers its holds.
func (p *partition) operations() (
	m *model.Model, operations []porcupine.Operation, unexpected []string,
) {
	n, m := p.number()
	for _, e := range p.events {
		if e.outcome == model.Refused {
			e.firstRefusal()
		}
		in := input{n.call(e), n.answer(e)}
		operations = append(operations, porcupine.Operation{
			ClientId: e.caller, Input: in, Call: in.call.From, Return: in.call.To,
		})
	}
	return m, operations, n.unexpected
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
