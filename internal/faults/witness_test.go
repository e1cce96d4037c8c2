package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/allo/reservations/internal/pgtest"
)

const (
	// witnessCallers make and resolve holds, and witnessReaders look at all holds that there are.
	witnessCallers, witnessReaders = 8, 8
	// witnessCalls is how many successes, and later how many failures, a history waits for.
	witnessCalls = 60
)

// witness remembers what answers said about holds: a success, a GET by id, and a 409 that says what
// the hold was. After a crash or a fail-over the database must still agree with all of them.
//
// A caller doesn't repeat a call that failed, because the second call could store again what the
// crash lost.
type witness struct {
	client client
	rows   []stockRow

	// seen leads to the database in which the readers find holds.
	seen atomic.Pointer[pgxpool.Pool]

	successes, failures, reads atomic.Int64

	mu       sync.Mutex
	told     map[uuid.UUID]testimony
	moved    map[string]lineResult // movements that answers told of, by reference
	problems []error               // answers outside the contract, or against I3
}

// witnessSource is the source of the witness's documents.
const witnessSource = "witness"

// testimony is the most that answers said about a hold: a final status, or else the latest end.
type testimony struct {
	status string
	end    time.Time
	by     string // the call that was answered so
}

func newWitness(d *deployment) *witness {
	w := &witness{
		client: newClient(d.url, witnessCallers+witnessReaders),
		rows:   d.addProduct(3, 1_000_000), told: map[uuid.UUID]testimony{},
		moved: map[string]lineResult{},
	}
	w.seen.Store(d.db.Admin)
	return w
}

// run lets the callers and the readers work until the context ends.
func (w *witness) run(ctx context.Context, part uint64) {
	runConcurrently(witnessCallers+witnessReaders, func(n int) {
		r := newRand(part, uint64(n))
		for ctx.Err() == nil {
			if n < witnessCallers {
				w.shop(r)
			} else {
				w.look(ctx, r)
			}
		}
	})
}

// start lets them work in the background, until stop is called.
func (w *witness) start(t *testing.T, part uint64) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx, part)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// shop makes a hold and does something with it, or brings units now and then.
func (w *witness) shop(r *rand.Rand) {
	ctx, key := context.Background(), uuid.NewString()
	if r.IntN(5) == 0 {
		w.deliver(ctx, w.rows[r.IntN(len(w.rows))])
		return
	}
	items := []item{}
	for _, n := range r.Perm(len(w.rows))[:1+r.IntN(2)] {
		items = append(items, item{w.rows[n].Product, w.rows[n].Warehouse, 1})
	}
	held := w.hear("reserve", uuid.Nil, w.client.reserve(ctx, key, 0, items...))
	if held.Reservation == nil {
		return
	}
	w.act(ctx, held.Reservation.ID, r)
}

// deliver brings a unit to a stock row.
func (w *witness) deliver(ctx context.Context, row stockRow) {
	one := 1
	d := document{
		Source: witnessSource, Reference: uuid.NewString(), Lines: []documentLine{
			{ProductID: row.Product, WarehouseID: row.Warehouse, Delta: &one},
		},
	}
	r := w.hear("move", uuid.Nil, w.client.move(ctx, d))
	if r.ok() && len(r.Results) == 1 {
		w.successes.Add(1)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.moved[d.Reference] = r.Results[0]
	}
}

// act confirms, releases or extends a hold, lets a payment come for it that takes the units anew if
// the hold is gone, or leaves it.
func (w *witness) act(ctx context.Context, id uuid.UUID, r *rand.Rand) {
	switch r.IntN(5) {
	case 0:
		w.hear("confirm", id, w.client.act(ctx, id, "confirm", ""))
	case 1:
		w.hear("release", id, w.client.act(ctx, id, "release", uuid.NewString()))
	case 2:
		// Each end is later than the one before.
		w.hear("extend", id, w.client.extend(ctx, id, "", 1200))
	case 3:
		w.hear("payment", id, w.client.confirm(ctx, id, "", paymentNames[r.IntN(2)], true))
	}
}

// look reads one of the newest holds, also one that no caller was told of, or calls a verb that may
// be refused because the hold was resolved.
func (w *witness) look(ctx context.Context, r *rand.Rand) {
	id, err := w.anyHold(ctx)
	if err != nil {
		sleep(ctx, time.Millisecond) // the server is down
		return
	}
	if r.IntN(2) == 0 {
		w.hear("get", id, w.client.get(context.Background(), id))
	} else {
		w.act(context.Background(), id, r)
	}
	w.reads.Add(1)
}

func (w *witness) anyHold(ctx context.Context) (uuid.UUID, error) {
	var id string
	err := w.seen.Load().QueryRow(ctx, `
SELECT id::text FROM (SELECT id FROM reservations ORDER BY id DESC LIMIT 24) r
ORDER BY random() LIMIT 1`).Scan(&id)
	if err != nil {
		return uuid.Nil, err
	}
	return uuid.Parse(id)
}

// hear takes down what an answer says.
func (w *witness) hear(verb string, id uuid.UUID, r reply) reply {
	heard := testimony{by: fmt.Sprintf("a %s, %d %s", verb, r.Status, r.Code)}
	switch {
	case r.ok() && r.Reservation != nil:
		id = r.Reservation.ID
		heard.status, heard.end = r.Reservation.Status, r.Reservation.ExpiresAt
		w.successes.Add(1)
	case r.Code == "RESERVATION_CONFIRMED":
		heard.status = "CONFIRMED"
	case r.Code == "RESERVATION_RELEASED":
		heard.status = "RELEASED"
	case r.ok():
	default:
		w.failures.Add(1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := r.documented(); err != nil {
		w.problems = append(w.problems, fmt.Errorf("%s: %w", verb, err))
	}
	if heard.status != "" {
		w.note(id, heard)
	}
	return r
}

// note keeps the stronger of two testimonies.
func (w *witness) note(id uuid.UUID, heard testimony) {
	before, found := w.told[id]
	switch {
	case !found, before.status == "PENDING" &&
		(heard.status != "PENDING" || heard.end.After(before.end)):
		w.told[id] = heard
	case before.status != "PENDING" && heard.status != "PENDING" && before.status != heard.status:
		w.problems = append(w.problems, fmt.Errorf("hold %s was %s by %s, then %s by %s", id,
			before.status, before.by, heard.status, heard.by))
	}
}

// await waits until a counter has grown by n.
func (w *witness) await(t *testing.T, what string, counter *atomic.Int64, n int64) {
	t.Helper()
	want := counter.Load() + n
	for ctx := withTimeout(t, testLimit); counter.Load() < want; sleep(ctx, time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("the callers had too few %s", what)
		}
	}
}

// verify compares what was said with the database.
func (w *witness) verify(t *testing.T, db *pgtest.Fixture) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, err := range w.problems[:min(5, len(w.problems))] {
		t.Error(err)
	}
	contradictions := w.contradictions(t, db)
	for _, err := range contradictions[:min(5, len(contradictions))] {
		t.Error(err)
	}
	t.Logf("%d successes, %d failures, %d holds and %d movements that answers told of, "+
		"%d contradictions",
		w.successes.Load(), w.failures.Load(), len(w.told), len(w.moved), len(contradictions))
}

// contradictions are the holds and movements of which the database says another thing than the
// answers said.
func (w *witness) contradictions(t *testing.T, db *pgtest.Fixture) []error {
	t.Helper()
	rows, err := db.Admin.Query(withTimeout(t, testLimit),
		"SELECT id::text, status::text, expires_at FROM reservations")
	if err != nil {
		t.Fatal(err)
	}
	there := map[uuid.UUID]testimony{}
	var id string
	var now testimony
	if _, err := pgx.ForEachRow(rows, []any{&id, &now.status, &now.end}, func() error {
		there[uuid.MustParse(id)] = now
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var found []error
	for id, was := range w.told {
		now, ok := there[id]
		switch {
		case !ok:
			found = append(found, fmt.Errorf("hold %s was %s by %s, and is gone", id, was.status,
				was.by))
		case was.status != "PENDING" && now.status != was.status:
			found = append(found, fmt.Errorf("hold %s was %s by %s, and is %s", id, was.status, was.by,
				now.status))
		case now.end.Before(was.end):
			found = append(found, fmt.Errorf("hold %s was to end at %s by %s, and ends at %s", id,
				was.end, was.by, now.end))
		}
	}
	return append(found, lostMoves(w.moved, movementsOf(t, db, witnessSource))...)
}
