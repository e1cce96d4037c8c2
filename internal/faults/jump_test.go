package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// jumps are the sizes of the clock's jumps. Each goes forward or back.
var jumps = []time.Duration{300 * time.Millisecond, 8 * time.Second, time.Hour}

const (
	// farthest bounds how far the jumps together may lead. Beyond a day keys would be forgotten.
	farthest = 3 * time.Hour
	// jumpPause is the longest time between two jumps.
	jumpPause = 150 * time.Millisecond
	// scarce is the stock of each row, so that reserves meet dead holds.
	scarce = 12
	// rareSweep is the pause between two sweeps, which leaves dead holds to the reserves.
	rareSweep = 400 * time.Millisecond
)

// jumper moves the clock of a server while callers work, and checks what they are answered.
type jumper struct {
	*witness
	d      *deployment
	server *pgtest.Disturbed
	shelf  []stockRow

	mu    sync.Mutex
	holds []uuid.UUID
	keys  map[string]uuid.UUID // the hold that a key made
	paid  map[payment]string   // what an answer said of a payment, which is final
}

func newJumper(d *deployment, server *pgtest.Disturbed) *jumper {
	return &jumper{
		witness: newWitness(d), d: d, server: server, shelf: d.addProduct(4, scarce),
		keys: map[string]uuid.UUID{}, paid: map[payment]string{},
	}
}

func (j *jumper) fault(format string, args ...any) {
	j.witness.mu.Lock()
	defer j.witness.mu.Unlock()
	j.problems = append(j.problems, fmt.Errorf(format, args...))
}

// jump moves the clock forward or back.
func (j *jumper) jump(r *rand.Rand) {
	by := jumps[r.IntN(len(jumps))]
	offset := j.server.ClockOffset()
	if r.IntN(2) == 0 && offset-by > -farthest || offset+by > farthest {
		by = -by
	}
	j.server.JumpClock(by)
}

// call makes one random call.
func (j *jumper) call(r *rand.Rand) {
	ctx := context.Background()
	id := j.recent(r)
	switch choice := r.IntN(100); {
	case choice < 45 || id == uuid.Nil:
		j.reserve(r)
	case choice < 55:
		j.hearFinal("confirm", id, j.client.act(ctx, id, "confirm", uuid.NewString()))
	case choice < 63:
		j.hearFinal("release", id, j.client.act(ctx, id, "release", ""))
	case choice < 70:
		j.hearFinal("extend", id, j.client.extend(ctx, id, uuid.NewString(), 1+r.IntN(10)))
	case choice < 73:
		j.hearFinal("start", id, j.client.pay(ctx, id, "", paymentNames[r.IntN(2)], 1+r.IntN(10)))
	case choice < 80:
		j.settle(ctx, payment{id, paymentNames[r.IntN(2)]})
	case choice < 90:
		j.hearFinal("get", id, j.client.get(ctx, id))
	default:
		paths := []string{
			"/api/products", "/api/reservations", "/api/reservations?status=PENDING",
			"/api/reservations?status=EXPIRED", "/api/stats",
		}
		path := paths[r.IntN(len(paths))]
		j.inTime(path, j.client.send(ctx, http.MethodGet, path, "", nil))
	}
}

// hearFinal hears an answer. A hold that is EXPIRED may come back to life, when the clock jumps
// back before anyone has written that down. So only the final statuses bind.
func (j *jumper) hearFinal(verb string, id uuid.UUID, r reply) {
	j.inTime(verb, r)
	if r.Reservation != nil && r.Reservation.Status != "CONFIRMED" &&
		r.Reservation.Status != "RELEASED" {
		return
	}
	j.hear(verb, id, r)
}

// settle lets a payment come, which takes the units anew if the hold is gone. Its answer stays the
// same.
func (j *jumper) settle(ctx context.Context, p payment) {
	r := j.client.confirm(ctx, p.hold, "", p.reference, true)
	j.hearFinal("payment", p.hold, r)
	if !r.ok() && r.Code != "PAYMENT_LOST" && r.Code != "ALREADY_PAID" {
		return
	}
	said := saidOf(r)
	j.mu.Lock()
	defer j.mu.Unlock()
	if before, found := j.paid[p]; found && before != said {
		j.fault("payment %v was answered %s, and then %s", p, before, said)
	}
	j.paid[p] = said
}

// inTime checks that an answer is one of the contract, and that no jump made its caller wait for
// longer than the service's own clock allows.
func (j *jumper) inTime(verb string, r reply) {
	if err := r.documented(); err != nil {
		j.fault("%s: %w", verb, err)
	}
	if r.Took > answerLimit {
		j.fault("a %s took %s, want at most %s", verb, r.Took, answerLimit)
	}
}

// reserve makes a hold of one or more lines, sometimes by two calls under one key at once.
func (j *jumper) reserve(r *rand.Rand) {
	var items []item
	for _, n := range r.Perm(len(j.shelf))[:1+r.IntN(3)] {
		items = append(items, item{j.shelf[n].Product, j.shelf[n].Warehouse, 1 + r.IntN(3)})
	}
	key, ttl := uuid.NewString(), 1+r.IntN(20)
	runConcurrently(1+r.IntN(2), func(int) {
		got := j.client.reserve(context.Background(), key, ttl, items...)
		if j.inTime("reserve", got); !got.ok() {
			return
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if made, found := j.keys[key]; found && made != got.Reservation.ID {
			j.fault("I6: one key made the holds %s and %s", made, got.Reservation.ID)
		}
		j.keys[key] = got.Reservation.ID
		j.holds = append(j.holds, got.Reservation.ID)
		j.successes.Add(1)
	})
}

// recent returns one of the newest holds.
func (j *jumper) recent(r *rand.Rand) uuid.UUID {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.holds) == 0 {
		return uuid.Nil
	}
	newest := j.holds[max(0, len(j.holds)-32):]
	return newest[r.IntN(len(newest))]
}

// play lets callers, sweeps, deliveries and audits run for a while, between jumps of the clock.
func (j *jumper) play(part uint64, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(j.d.t.Context(), lasts)
	defer cancel()
	forever := func(seed uint64, pause time.Duration, step func(r *rand.Rand)) func() {
		return func() {
			for r := newRand(part, seed); ctx.Err() == nil; sleep(ctx, pause) {
				step(r)
			}
		}
	}
	var all sync.WaitGroup
	for n := range uint64(callers / 2) {
		all.Go(forever(n, 0, j.call))
	}
	for n := range uint64(sweepers) {
		all.Go(forever(100+n, rareSweep, func(*rand.Rand) {
			if err := j.d.sweep(ctx); err != nil && ctx.Err() == nil {
				j.fault("a sweep: %w", err)
			}
		}))
	}
	all.Go(forever(200, sweepPause, j.adjust))
	all.Go(forever(201, jumpPause, j.auditOnce))
	all.Go(func() {
		for r := newRand(part, 202); ctx.Err() == nil; {
			sleep(ctx, time.Duration(r.Int64N(int64(jumpPause))))
			j.jump(r)
		}
	})
	all.Wait()
}

// adjust books a delivery, or takes units away that nobody holds.
func (j *jumper) adjust(r *rand.Rand) {
	row := j.shelf[r.IntN(len(j.shelf))]
	_, err := j.d.db.Admin.Exec(context.Background(), `
SELECT adjust_stock($1, $2, CASE WHEN total < $3 THEN 2 ELSE -1 END, 'count')
FROM inventory WHERE product_id = $1::uuid AND warehouse_id = $2::uuid AND reserved < total`,
		row.Product.String(), row.Warehouse.String(), scarce)
	pgErr := (*pgconn.PgError)(nil)
	isTaken := errors.As(err, &pgErr) && pgErr.ConstraintName == "i1_reserved_within_total"
	if err != nil && !isTaken { // a reserve may take the last unit before the adjustment
		j.fault("an adjustment: %w", err)
	}
}

func (j *jumper) auditOnce(*rand.Rand) {
	violations, err := j.d.service.Audit(withTimeout(j.d.t, testLimit))
	if err != nil || len(violations) > 0 {
		j.fault("Audit() between two jumps = %v, %w", violations, err)
	}
}

// lostLineSQL counts the PENDING carts of which a line isn't counted any more, before their end.
const lostLineSQL = `
SELECT count(DISTINCT r.id) FROM reservations r
JOIN reservation_items l ON l.reservation_id = r.id AND NOT l.counted
WHERE r.status = 'PENDING' AND r.expires_at > clock_timestamp()`

// strandCarts makes a cart of two lines, lets every hold die, lets reserves take all units of the
// first line's row and some of others, and jumps back.
func (j *jumper) strandCarts(r *rand.Rand) {
	ctx, first, second := context.Background(), j.shelf[0], j.shelf[1]
	for _, row := range []stockRow{first, second} {
		j.d.db.Exec("SELECT adjust_stock($1, $2, 1, 'count')", row.Product.String(),
			row.Warehouse.String())
	}
	cart := j.client.reserve(ctx, uuid.NewString(), 120, // it ends when a slow machine has compared
		item{first.Product, first.Warehouse, 1}, item{second.Product, second.Warehouse, 1})
	if !cart.ok() {
		j.fault("a cart of units that were just delivered: %+v", cart)
	}
	j.server.JumpClock(time.Hour)
	total := pgtest.QueryOne[int](j.d.db, "SELECT max(total) FROM inventory WHERE product_id = $1 "+
		"AND warehouse_id = $2", first.Product.String(), first.Warehouse.String())
	for n := total; n > 0; n-- {
		if j.client.reserve(ctx, uuid.NewString(), 20,
			item{first.Product, first.Warehouse, n}).ok() {
			break
		}
	}
	for range 20 {
		j.reserve(r)
	}
	j.server.JumpClock(-time.Hour)
}

// TestJumpsOfTheClockKeepThePromises lets the database's clock jump both ways while callers work.
// No answer may be outside the contract, no final status may change, no key may have two effects,
// and every audit must be clean. Then the clock goes on without jumps, for a comparison of all
// readers.
func TestJumpsOfTheClockKeepThePromises(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startInProcess)
	j := newJumper(d, server)
	lostLines := 0
	for n := range rounds(t, 16*time.Second) {
		server.JumpClock(-server.ClockOffset())
		j.play(n, 3*time.Second)
		j.strandCarts(newRand(n, 300))
		lostLines += pgtest.QueryOne[int](d.db, lostLineSQL)
		for _, difference := range j.compareReaders(t) {
			t.Error(difference)
		}
	}
	j.verify(t, d.db)
	d.audit()
	if n := d.deadlocks(); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
	t.Logf("%d carts had lost a line before their end, by a clock that jumped back", lostLines)
	if lostLines == 0 {
		t.Error("no cart had lost a line: the comparison of the readers proves nothing")
	}
}

// TestJumpsFindTheRemovedGuard is the control: a cart that lost a line is alive again for readers.
func TestJumpsFindTheRemovedGuard(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startInProcess)
	mutate("hold_is_dead", " OR has_lost_line(_hold)", "")(d)
	j := newJumper(d, server)
	for n := uint64(0); ; n++ {
		server.JumpClock(-server.ClockOffset())
		j.play(400+n, 300*time.Millisecond)
		j.strandCarts(newRand(n, 401))
		if len(j.compareReaders(t)) > 0 {
			return
		}
		if n == 10 {
			t.Fatal("no reader showed a cart that lost a line as alive: the control proves nothing")
		}
	}
}

// seenSQL is what every reader must say of each hold, by the clock of the query.
const seenSQL = `
SELECT r.id::text, CASE WHEN r.status = 'PENDING' AND (r.expires_at <= clock_timestamp()
    OR EXISTS (SELECT FROM reservation_items l WHERE l.reservation_id = r.id AND NOT l.counted))
    THEN 'EXPIRED' ELSE r.status::text END
FROM reservations r`

// seen reads what every reader must say of each hold now.
func (j *jumper) seen(t *testing.T) map[uuid.UUID]reservation.Status {
	t.Helper()
	rows, err := j.d.db.Admin.Query(withTimeout(t, testLimit), seenSQL)
	if err != nil {
		t.Fatal(err)
	}
	found := map[uuid.UUID]reservation.Status{}
	var id string
	var status reservation.Status
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		found[uuid.MustParse(id)] = status
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// listed returns the holds that the operator's list shows with a status; empty means any.
func (j *jumper) listed(t *testing.T, status reservation.Status) map[uuid.UUID]reservation.Status {
	t.Helper()
	filter, after := reservation.HoldFilter{Status: status}, reservation.HoldCursor{}
	found := map[uuid.UUID]reservation.Status{}
	for {
		page, err := j.d.service.ListHolds(withTimeout(t, testLimit), filter, after,
			reservation.MaxHoldPage)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range page.Holds {
			found[h.ID] = h.Status
		}
		if page.Next == nil {
			return found
		}
		after = *page.Next
	}
}

// compareReaders compares the readers while the clock doesn't jump, and returns how they differ. A
// hold that dies meanwhile is left out.
func (j *jumper) compareReaders(t *testing.T) (differences []string) {
	t.Helper()
	differ := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	before := j.seen(t)
	all := j.listed(t, "")
	byStatus := map[reservation.Status]map[uuid.UUID]reservation.Status{}
	for _, status := range []reservation.Status{
		reservation.Pending, reservation.Confirmed, reservation.Released, reservation.Expired,
	} {
		byStatus[status] = j.listed(t, status)
	}
	j.mu.Lock()
	recent := slices.Clone(j.holds[max(0, len(j.holds)-100):])
	j.mu.Unlock()
	got := map[uuid.UUID]reply{}
	for _, id := range recent {
		got[id] = j.client.get(t.Context(), id)
	}
	stats, err := j.d.service.Stats(withTimeout(t, testLimit))
	after := j.seen(t)
	living := int64(0)
	for _, status := range after {
		if status == reservation.Pending {
			living++
		}
	}
	if err != nil || maps.Equal(before, after) && stats.Live != living {
		differ("the stats count %d living holds, %v, want %d", stats.Live, err, living)
	}
	for id, want := range before {
		if after[id] != want {
			continue
		}
		if all[id] != want {
			differ("the list of all holds shows hold %s as %q, want %s", id, all[id], want)
		}
		for status, holds := range byStatus {
			if _, found := holds[id]; found != (status == want) {
				differ("the list of %s holds has hold %s: %t, but it is %s", status, id, found, want)
			}
		}
		if r, asked := got[id]; asked && (r.Reservation == nil ||
			r.Reservation.Status != string(want)) {
			differ("a get of hold %s = %d %s, want %s", id, r.Status, r.Body, want)
		}
	}
	return differences
}

// jumpCase is a deterministic jump. Its rows have 2 units each.
type jumpCase struct {
	name string
	play func(t *testing.T, c *jumpTable)
}

// jumpTable plays the cases on one server.
type jumpTable struct {
	t      *testing.T
	server *pgtest.Disturbed
	d      *deployment
	client client
	rows   []stockRow
}

func newJumpTable(t *testing.T, server *pgtest.Disturbed, d *deployment) *jumpTable {
	t.Helper()
	return &jumpTable{
		t: t, server: server, d: d, client: newClient(d.url, 2), rows: d.addProduct(3, 2),
	}
}

// hold makes a hold of two units of each of the rows.
func (c *jumpTable) hold(ttl int, rows ...stockRow) uuid.UUID {
	c.t.Helper()
	var items []item
	for _, row := range rows {
		items = append(items, item{row.Product, row.Warehouse, 2})
	}
	r := c.client.reserve(c.t.Context(), "", ttl, items...)
	if r.Reservation == nil {
		c.t.Fatalf("a reserve was answered %d %s %v", r.Status, r.Body, r.Err)
	}
	return r.Reservation.ID
}

// want checks an answer: its HTTP status, and the hold's status or the code of the problem.
func (c *jumpTable) want(name string, r reply, status int, said string) {
	c.t.Helper()
	got := r.Code
	if r.Reservation != nil {
		got = r.Reservation.Status
	}
	if r.Status != status || got != said {
		c.t.Errorf("%s = %d %s %v, want %d %s", name, r.Status, r.Body, r.Err, status, said)
	}
}

// wantDead checks that the hold is dead for every verb and reader.
func (c *jumpTable) wantDead(id uuid.UUID) {
	c.t.Helper()
	ctx := c.t.Context()
	c.want("a get", c.client.get(ctx, id), http.StatusOK, "EXPIRED")
	c.want("a confirm", c.client.act(ctx, id, "confirm", ""), http.StatusGone,
		"RESERVATION_EXPIRED")
	c.want("an extend", c.client.extend(ctx, id, "", 60), http.StatusGone, "RESERVATION_EXPIRED")
	c.want("a release", c.client.act(ctx, id, "release", uuid.NewString()), http.StatusOK, "EXPIRED")
}

var jumpCases = []jumpCase{
	{"forward past the end", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.server.JumpClock(time.Hour)
		c.wantDead(id)
		c.want("a confirm of the next", c.client.act(t.Context(), c.hold(600, c.rows[0]), "confirm",
			""), http.StatusOK, "CONFIRMED")
	}},
	{"forward and back, before anyone wrote that the hold is dead", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.server.JumpClock(time.Hour)
		c.wantDead(id)
		c.server.JumpClock(-time.Hour)
		c.want("a get", c.client.get(t.Context(), id), http.StatusOK, "PENDING")
		c.want("a confirm", c.client.act(t.Context(), id, "confirm", ""), http.StatusOK, "CONFIRMED")
	}},
	{"forward, a sweep, and back", func(t *testing.T, c *jumpTable) {
		id, cart := c.hold(600, c.rows[0]), c.hold(600, c.rows[1:]...)
		c.server.JumpClock(time.Hour)
		if err := c.d.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.server.JumpClock(-time.Hour)
		c.wantDead(id)
		c.wantDead(cart)
	}},
	{"forward, a reserve of the units, and back", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.server.JumpClock(8 * time.Second)
		c.server.JumpClock(time.Hour)
		next := c.hold(600, c.rows[0])
		c.server.JumpClock(-time.Hour)
		c.wantDead(id)
		c.want("a confirm of the next", c.client.act(t.Context(), next, "confirm", ""),
			http.StatusOK, "CONFIRMED")
	}},
	{"back, after a line of a dead cart was reclaimed", func(t *testing.T, c *jumpTable) {
		cart := c.hold(60, c.rows...)
		c.server.JumpClock(61 * time.Second)
		next := c.hold(600, c.rows[0])
		c.server.JumpClock(-63 * time.Second) // the cart's end is a minute ahead again
		c.wantDead(cart)
		c.d.audit()
		other := c.client.reserve(t.Context(), "", 60,
			item{c.rows[1].Product, c.rows[1].Warehouse, 1})
		c.want("a reserve of its other lines", other, http.StatusConflict, "INSUFFICIENT_STOCK")
		c.want("a confirm of the next", c.client.act(t.Context(), next, "confirm", ""),
			http.StatusOK, "CONFIRMED")
		c.server.JumpClock(2 * time.Minute)
		c.wantDead(cart)
		if err := c.d.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.wantDead(cart)
		c.hold(60, c.rows[1:]...)
	}},
	{"forward past the end, a late payment that is kept, and back", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.want("a start", c.client.pay(t.Context(), id, "", paymentNames[0], 600), http.StatusOK,
			"PENDING")
		c.server.JumpClock(time.Hour)
		kept := c.late(id, 0)
		c.want("the payment", kept, http.StatusOK, "CONFIRMED")
		c.server.JumpClock(-time.Hour)
		c.wantDead(id)
		if again := c.late(id, 0); saidOf(again) != saidOf(kept) {
			t.Errorf("the payment was answered %s, and then %s", saidOf(kept), saidOf(again))
		}
		c.want("another payment", c.late(id, 1), http.StatusConflict, "ALREADY_PAID")
	}},
	{"forward past the end, a late payment that is lost, and back", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.server.JumpClock(time.Hour)
		c.change("CLOSED", c.rows[0])
		c.want("the payment", c.late(id, 0), http.StatusConflict, "PAYMENT_LOST")
		c.change("OPEN", c.rows[0])
		c.server.JumpClock(-time.Hour)
		c.want("the payment again", c.late(id, 0), http.StatusConflict, "PAYMENT_LOST")
		c.wantDead(id)
		c.want("another payment", c.late(id, 1), http.StatusOK, "CONFIRMED")
	}},
	{"back, while a hold lives", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		c.server.JumpClock(-time.Hour)
		r := c.client.extend(t.Context(), id, "", 1)
		c.want("an extend", r, http.StatusOK, "PENDING")
		// The extension isn't earlier than the hold's last change, which the old clock has dated.
		if r.Reservation != nil && time.Until(r.Reservation.ExpiresAt) < -10*time.Minute {
			t.Errorf("the extended hold ends at %s, want it by the old clock", r.Reservation.ExpiresAt)
		}
		c.want("a get", c.client.get(t.Context(), id), http.StatusOK, "PENDING")
		c.server.JumpClock(time.Hour + time.Minute)
		c.wantDead(id)
	}},
	{"forward past the end, while a confirm waits", func(t *testing.T, c *jumpTable) {
		id := c.hold(600, c.rows[0])
		answer, free := c.blocked("confirm", id)
		c.server.JumpClock(time.Hour)
		free()
		// The jump may also end the statement, as if its time were over.
		if r := <-answer; r.Status != http.StatusServiceUnavailable {
			c.want("the confirm", r, http.StatusGone, "RESERVATION_EXPIRED")
		}
		c.wantDead(id)
	}},
	{"back, while a reserve waits", func(t *testing.T, c *jumpTable) {
		answer, free := c.d.startBlockedReserve(c.client, c.rows[0], uuid.NewString())
		c.server.JumpClock(-time.Hour)
		free()
		c.want("the reserve", <-answer, http.StatusCreated, "PENDING")
	}},
	{"a day forward, which forgets keys", func(t *testing.T, c *jumpTable) {
		key, items := uuid.NewString(), item{c.rows[0].Product, c.rows[0].Warehouse, 1}
		first := c.client.reserve(t.Context(), key, 60, items)
		c.want("a reserve", first, http.StatusCreated, "PENDING")
		c.server.JumpClock(-time.Hour)
		again := c.client.reserve(t.Context(), key, 60, items)
		if c.want("its replay", again, http.StatusCreated, "PENDING"); again.Reservation != nil &&
			again.Reservation.ID != first.Reservation.ID {
			t.Errorf("an hour back one key made two holds")
		}
		c.server.JumpClock(26 * time.Hour)
		anew := c.client.reserve(t.Context(), key, 60, items)
		if c.want("the same request", anew, http.StatusCreated, "PENDING"); anew.Reservation != nil &&
			anew.Reservation.ID == first.Reservation.ID {
			t.Errorf("a day forward the key was still known")
		}
	}},
}

// late lets a payment come for a hold that may be gone.
func (c *jumpTable) late(id uuid.UUID, n int) reply {
	return c.client.confirm(c.t.Context(), id, "", paymentNames[n], true)
}

// change sets the status of a row's warehouse.
func (c *jumpTable) change(status string, row stockRow) {
	c.t.Helper()
	r := c.d.change(c.t.Context(), c.client, "warehouses", row.Warehouse,
		map[string]any{"status": status})
	if !r.ok() {
		c.t.Fatalf("a change of the catalog was answered %d %s %v", r.Status, r.Body, r.Err)
	}
}

// blocked starts a verb that waits for its locked hold.
func (c *jumpTable) blocked(verb string, id uuid.UUID) (answer <-chan reply, free func()) {
	c.t.Helper()
	free = c.d.db.Lock("SELECT FROM reservations WHERE id = $1 FOR UPDATE", id.String())
	done := make(chan reply, 1)
	go func() { done <- c.client.act(context.Background(), id, verb, "") }()
	c.d.db.WaitForBlocked(1)
	return done, free
}

// TestEachJumpOfTheClock plays what doc.go says of a jump.
func TestEachJumpOfTheClock(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startInProcess)
	d.db.Patient()
	for _, jump := range jumpCases {
		t.Run(jump.name, func(t *testing.T) {
			server.JumpClock(-server.ClockOffset())
			c := newJumpTable(t, server, d)
			jump.play(t, c)
			d.audit()
		})
	}
}

// TestAuditFindsALineTakenFromALiveCart is the control of the audit after a jump back. It doesn't
// name a cart that lost a line after its end and before the jump, but it names a cart that lost one
// without having ended.
func TestAuditFindsALineTakenFromALiveCart(t *testing.T) {
	server, db := pgtest.NewDisturbedServer(t, roomy)
	d := deploy(t, db, startInProcess)
	c := newJumpTable(t, server, d)
	c.hold(60, c.rows...)
	server.JumpClock(61 * time.Second)
	c.hold(600, c.rows[0])
	server.JumpClock(-63 * time.Second)
	d.audit()
	f := pgtest.NewFixture(t, db)
	f.Exec("SELECT adjust_stock(product_id, warehouse_id, 2, 'delivery') FROM inventory")
	live := c.hold(600, c.rows...)
	f.Exec(`
WITH taken AS (
    UPDATE reservation_items SET counted = false WHERE reservation_id = $1
    RETURNING product_id, warehouse_id, quantity
)
UPDATE inventory i SET reserved = i.reserved - taken.quantity FROM taken
WHERE i.product_id = taken.product_id AND i.warehouse_id = taken.warehouse_id`, live.String())
	violations, err := d.service.Audit(withTimeout(t, testLimit))
	if err != nil || len(violations) != len(c.rows) || violations[0].Promise != "I7" {
		t.Errorf("Audit() = %v, %v, want a violation of I7 for each line", violations, err)
	}
}
