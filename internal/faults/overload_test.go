package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
)

const (
	// overload is the load, as a multiple of the capacity.
	overload = 3
	// overloadTime is how long the overload lasts.
	overloadTime = 6 * time.Second
	// refusalLimit bounds the time to a refusal, for 99 of 100 of them.
	refusalLimit = time.Second
	// maxFlood bounds the callers at once, should the service let them pile up.
	maxFlood = 10_000
	// spareHeap and spareGoroutines bound the growth of the process, measured when it is idle
	// again.
	spareHeap       = 32 << 20
	spareGoroutines = 100
	// maxPile bounds the callers that wait at once under overload: those queued for the pool, and
	// those being refused.
	maxPile = 1500
	// peakHeap bounds the growth of the heap under overload, with garbage and the callers' own
	// memory.
	peakHeap = 256 << 20
)

// sendAtRate sends reserves at a steady rate, without waiting for answers. It returns the answers,
// and the most callers and the most heap at any one time.
func sendAtRate(
	t *testing.T, s client, row stockRow, rate float64, lasts time.Duration,
) (replies []reply, pile, heap int) {
	t.Helper()
	const tick = 5 * time.Millisecond
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, maxFlood)
	begin, sent := time.Now(), 0
	for now := range time.Tick(tick) {
		if now.Sub(begin) > lasts {
			break
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		pile, heap = max(pile, len(slots)), max(heap, int(m.HeapAlloc))
		for ; float64(sent) < rate*now.Sub(begin).Seconds(); sent++ {
			slots <- struct{}{}
			all.Go(func() {
				r := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1})
				<-slots
				r.Err = r.documented()
				// A soak gets too many to keep them whole.
				r.Header, r.Body, r.Reservation = nil, nil, nil
				mu.Lock()
				defer mu.Unlock()
				replies = append(replies, r)
			})
		}
	}
	all.Wait()
	return replies, pile, heap
}

// measureCapacity returns the reserves a second that a closed loop of callers gets.
func measureCapacity(t *testing.T, s client, row stockRow) float64 {
	t.Helper()
	const callers, lasts = 2 * functionConnections, time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var mu sync.Mutex
	done := 0
	runConcurrently(callers, func(int) {
		for ctx.Err() == nil {
			if r := s.reserve(t.Context(), "", 0,
				item{row.Product, row.Warehouse, 1}); r.Status != http.StatusCreated {
				t.Errorf("without overload a reserve was answered %d %s %v", r.Status, r.Body,
					r.Err)
				return
			}
			mu.Lock()
			done++
			mu.Unlock()
		}
	})
	return float64(done) / lasts.Seconds()
}

func percentile(d []time.Duration, p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(p*float64(len(d)-1))]
}

// TestOverloadIsRefusedAtOnce sends three times the load that the service can serve. The database
// is 20 ms away, so that connections bound the capacity, not this machine, which the callers use
// too.
func TestOverloadIsRefusedAtOnce(t *testing.T) {
	link, db := newFaultyLink(t, pgtest.New(t))
	link.addToxics(`"type":"latency","stream":"downstream","attributes":{"latency":20}`)
	d := deploy(t, db, startInProcess)
	row := d.addProduct(1, 1_000_000)[0]
	s := newClient(d.url, maxFlood)
	measureCapacity(t, s, row) // opens the connections
	before := measureCapacity(t, s, row)
	heap, goroutines := inUse()

	lasts := duration(overloadTime)
	replies, pile, peak := sendAtRate(t, s, row, overload*before, lasts)
	t.Logf("at most %d callers waited at once; %d MB of heap then, %d MB when idle", pile, peak>>20,
		heap>>20)
	if pile > maxPile || peak > heap+peakHeap {
		t.Errorf("too many callers or too much memory: want at most %d callers and %d MB", maxPile,
			(heap+peakHeap)>>20)
	}

	after := measureCapacity(t, s, row)
	var served, refused []time.Duration
	for _, r := range replies {
		if r.Err != nil {
			t.Fatalf("an answer outside the contract: %v", r.Err)
		}
		switch r.Status {
		case http.StatusCreated:
			served = append(served, r.Took)
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			refused = append(refused, r.Took)
		default:
			t.Fatalf("a reserve was answered %d", r.Status)
		}
	}
	slow, refusal := percentile(served, 0.99), percentile(refused, 0.99)
	t.Logf("capacity %.0f calls a second; %d sent, %d served with p99 %s, %d refused with p99 "+
		"%s; capacity afterwards %.0f",
		before, len(replies), len(served), slow, len(refused), refusal, after)
	if slow > answerLimit {
		t.Errorf("p99 of the served calls = %s, want at most %s", slow, answerLimit)
	}
	if refusal > refusalLimit || len(refused) == 0 {
		t.Errorf("p99 of %d refusals = %s, want some refusals and at most %s", len(refused),
			refusal, refusalLimit)
	}
	if least := before * lasts.Seconds() / 3; *soak == 0 && float64(len(served)) < least {
		t.Errorf("%d calls were served under overload, want at least %.0f: a third of the capacity",
			len(served), least)
	}
	if after < before/2 {
		t.Errorf("capacity after the overload = %.0f calls a second, before it %.0f", after, before)
	}
	s.http.CloseIdleConnections()
	for ctx := withTimeout(t, testLimit); ; {
		nowHeap, nowGoroutines := inUse()
		if nowHeap <= heap+spareHeap && nowGoroutines <= goroutines+spareGoroutines {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("heap and goroutines grew from %d, %d to %d, %d", heap, goroutines, nowHeap,
				nowGoroutines)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.audit()
}

// inUse returns the size of the heap after a collection, and the number of goroutines.
func inUse() (heap, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), runtime.NumGoroutine()
}

// contention is how long TestConcurrentCallsNeverDeadlock lasts. A cart without its lock order
// deadlocks within a few rounds of three seconds (TestHistoryCheckFindsEachRemovedGuard).
const contention = 20 * time.Second

// TestConcurrentCallsNeverDeadlock lets carts of up to twenty lines, all verbs and two sweeps
// contend for ten rows. Postgres counts deadlocks. A call waits for a lock until its 7 s are over,
// because a slow machine needs long for ten rows.
func TestConcurrentCallsNeverDeadlock(t *testing.T) {
	const rows, callers, maxLines = 10, 24, 20
	d := newDeployment(t)
	d.db.Patient()
	shelf := append(d.addProduct(rows/2, 1_000_000), d.addProduct(rows/2, 1_000_000)...)
	s := newClient(d.url, callers)
	ctx, cancel := context.WithTimeout(t.Context(), duration(contention))
	defer cancel()
	var mu sync.Mutex
	var recent []uuid.UUID
	calls := 0
	var done atomic.Int64
	pick := func(r *rand.Rand) uuid.UUID {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if len(recent) == 0 {
			return uuid.Nil
		}
		return recent[r.IntN(len(recent))]
	}
	runConcurrently(callers+sweepers, func(n int) {
		r := newRand(6, uint64(n))
		for ctx.Err() == nil {
			if n >= callers {
				if err := d.sweep(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("a sweep: %v", err)
				}
				continue
			}
			var answer reply
			id := pick(r)
			switch verb := r.IntN(10); {
			case verb < 6 || id == uuid.Nil:
				var items []item
				for range 1 + r.IntN(maxLines) {
					row := shelf[r.IntN(rows)]
					items = append(items, item{row.Product, row.Warehouse, 1 + r.IntN(2)})
				}
				if answer = s.reserve(t.Context(), "", 1, items...); answer.Reservation != nil {
					mu.Lock()
					recent = append(recent, answer.Reservation.ID)
					recent = recent[max(0, len(recent)-2*callers):]
					mu.Unlock()
				}
			case verb < 7:
				answer = s.act(t.Context(), id, "confirm", "")
			case verb < 8:
				answer = s.act(t.Context(), id, "release", "")
			case verb < 9:
				answer = s.extend(t.Context(), id, "", 1)
			default:
				answer = s.get(t.Context(), id)
			}
			if answer.Err != nil || answer.Status/100 == 5 {
				t.Errorf("a call was answered %d %s %v", answer.Status, answer.Body, answer.Err)
				return
			}
			if answer.ok() {
				done.Add(1)
			}
		}
	})
	if n := d.deadlocks(); n > 0 {
		t.Errorf("Postgres counted %d deadlocks", n)
	}
	d.audit()
	if done.Load() < int64(calls)/2 {
		t.Errorf("%d of %d calls succeeded, want half: without successes nothing contends",
			done.Load(), calls)
	}
	t.Logf("%d calls, %d of them successes", calls, done.Load())
}
