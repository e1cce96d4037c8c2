package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

// crowd is callers who each hold, and then confirm, release or leave, one call after the other. Every POST has an Idempotency-Key, and whoever
// isn't told what became of a call sends it again under the same key until told. So when the crowd has gone home, what everyone was told and
// what the database has must be the same to the last hold, whatever happened meanwhile.
type crowd struct {
	w      *world
	shop   shop
	rows   []stock
	calls  atomic.Int64
	unsure atomic.Int64 // calls of which nobody could say whether they had taken effect

	mu     sync.Mutex
	told   map[uuid.UUID]string // what the callers know each hold to be
	faults []error              // answers that the contract doesn't have, or that came late
	last   time.Time            // of the latest success
}

const crowdSize = 16

func newCrowd(w *world) *crowd {
	return &crowd{w: w, shop: newShop(w.url, crowdSize), rows: w.shelf(4, 2_000_000_000), told: map[uuid.UUID]string{}}
}

// come lets the crowd in until the context ends, and returns when each has settled its last call.
func (c *crowd) come(ctx context.Context, part uint64) {
	together(crowdSize, func(n int) {
		r := random(part, uint64(n))
		for ctx.Err() == nil {
			c.visit(r)
		}
	})
}

// invite lets the crowd in. What it returns waits until all have gone home, and compares what they were told with what is there.
func (c *crowd) invite(t *testing.T, part uint64) (leave func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.come(ctx, part)
	}()
	return func() {
		cancel()
		<-done
		c.leave(t)
	}
}

// visit is one customer's.
func (c *crowd) visit(r *rand.Rand) {
	row := c.rows[r.IntN(len(c.rows))]
	items := []item{{row.Product, row.Warehouse, 1 + r.IntN(3)}}
	if r.IntN(4) == 0 {
		items = nil
		for _, row := range c.rows[:2+r.IntN(2)] {
			items = append(items, item{row.Product, row.Warehouse, 1})
		}
	}
	held := c.settle(func(ctx context.Context, key string) reply { return c.shop.reserve(ctx, key, 0, items...) })
	if held.Reservation == nil {
		return
	}
	id := held.Reservation.ID
	c.tell(id, "PENDING")
	verb, status := "confirm", "CONFIRMED"
	switch r.IntN(3) {
	case 0:
		verb, status = "release", "RELEASED"
	case 1:
		return
	}
	if c.settle(func(ctx context.Context, key string) reply { return c.shop.act(ctx, id, verb, key) }).ok() {
		c.tell(id, status)
	}
}

func (c *crowd) tell(id uuid.UUID, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[id] = status
}

// settle sends a call until it is answered for certain.
func (c *crowd) settle(send func(ctx context.Context, key string) reply) reply {
	key := uuid.NewString()
	for start := time.Now(); ; {
		r := send(context.Background(), key)
		c.calls.Add(1)
		c.judge(r)
		if r.ok() {
			return r
		}
		if r.unclear() {
			c.unsure.Add(1)
		}
		if r.Status/100 == 4 && r.Code != "IDEMPOTENCY_KEY_IN_USE" || time.Since(start) > testLimit {
			c.blame(errors.Join(fmt.Errorf("a call that nothing stands against ended in %d %s", r.Status, r.Body), r.Err))
			return r
		}
		time.Sleep(10 * time.Millisecond) // as long as a client may take to ask again
	}
}

// judge holds an answer against the contract, in whatever state the service is.
func (c *crowd) judge(r reply) {
	if err := r.documented(); err != nil {
		c.blame(fmt.Errorf("no answer that the contract has: %w", err))
	}
	if r.Took > answerLimit {
		c.blame(fmt.Errorf("an answer took %s, want at most %s", r.Took, answerLimit))
	}
	if r.ok() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = time.Now()
	}
}

func (c *crowd) blame(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
}

// succeeded waits until a call that ended after the given instant was a success, and says how long that took.
func (c *crowd) succeeded(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	for ctx := within(t, testLimit); ; {
		c.mu.Lock()
		last := c.last
		c.mu.Unlock()
		if last.After(since) {
			return last.Sub(since)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no call succeeded within %s of the fault's end", testLimit)
		case <-time.After(time.Millisecond):
		}
	}
}

// leave compares what everyone was told with what is there.
func (c *crowd) leave(t *testing.T) {
	t.Helper()
	for n, err := range c.faults {
		if n == 5 {
			t.Errorf("and %d more", len(c.faults)-n)
			break
		}
		t.Error(err)
	}
	rows, err := c.w.admin.Query(within(t, testLimit), "SELECT id::text, status::text FROM reservations")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	there := map[uuid.UUID]string{}
	for rows.Next() {
		var id uuid.UUID
		var text, status string
		if err := rows.Scan(&text, &status); err != nil {
			t.Fatal(err)
		}
		if id, err = uuid.Parse(text); err != nil {
			t.Fatal(err)
		}
		there[id] = status
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for id, status := range c.told {
		if there[id] != status {
			if wrong++; wrong < 5 {
				t.Errorf("hold %s is %q, its caller was told %s", id, there[id], status)
			}
		}
	}
	if len(there) != len(c.told) {
		t.Errorf("there are %d holds, the callers were told of %d: a key made two, or none", len(there), len(c.told))
	}
	c.w.audit()
}

// crashes is how often the server is killed.
const crashes = 25

// TestNothingToldIsLostInACrash kills the server under load again and again.
func TestNothingToldIsLostInACrash(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "200"})
	w := open(t, db, inProcess)
	c := newCrowd(w)
	r := random(3)
	leave := c.invite(t, 3)

	count := 0
	var slowest time.Duration
	for start := time.Now(); count < crashes || time.Since(start) < lasting(0); count++ {
		c.succeeded(t, time.Now())
		time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond)))) // the moment of a crash is drawn
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(within(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		took := c.succeeded(t, time.Now())
		slowest = max(slowest, took)
		if took > recoveryLimit {
			t.Errorf("after crash %d the first success took %s, want at most %s", count+1, took, recoveryLimit)
		}
	}
	leave()
	if c.unsure.Load() < crashes {
		t.Errorf("%d calls were cut off by %d crashes", c.unsure.Load(), count)
	}
	t.Logf("%d crashes, %d calls, %d of them unsure, %d holds told of; the first success at most %s after a restart",
		count, c.calls.Load(), c.unsure.Load(), len(c.told), slowest)
}

// TestWithoutTheFlushACrashLosesWhatWasTold is the control: early release without its second commit.
func TestWithoutTheFlushACrashLosesWhatWasTold(t *testing.T) {
	server, db := pgtest.NewServer(t, map[string]string{"max_connections": "200", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	w := open(t, db, inProcess)
	mutate("commit_early", "PERFORM pg_logical_emit_message(true, 'allo', '');", "NULL;")(w)
	lost := 0
	for try := 0; try < 10 && lost == 0; try++ {
		s, row := newShop(w.url, 1), w.shelf(1, 1000)[0]
		var told []uuid.UUID
		for range 50 {
			if r := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1}); r.Status == http.StatusCreated {
				told = append(told, r.Reservation.ID)
			}
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(within(t, testLimit)); err != nil {
			t.Fatal(err)
		}
		w.admin.Reset()
		for _, id := range told {
			if ask[int](w, "SELECT count(*) FROM reservations WHERE id = $1", id.String()) == 0 {
				lost++
			}
		}
	}
	if lost == 0 {
		t.Error("no hold was lost: the control shows nothing")
	}
	t.Logf("%d holds lost that their callers were told of", lost)
}
