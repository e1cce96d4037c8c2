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
	// overload is how many times its capacity is asked of the service.
	overload = 3
	// overloadTime is how long.
	overloadTime = 6 * time.Second
	// refusalLimit is how long somebody waits who is turned away: 99 of 100 of them.
	refusalLimit = time.Second
	// maxFlood bounds the callers at once, should the service let them pile up.
	maxFlood = 10_000
	// spareHeap and spareGoroutines are how much the process may have grown when it is idle again.
	spareHeap       = 32 << 20
	spareGoroutines = 100
	// maxPile bounds the callers who wait at once under overload: those in line before the pool, and those who are being turned away.
	maxPile = 1500
	// peakHeap is how much more than when idle may be in use under overload, garbage and the callers' own included.
	peakHeap = 256 << 20
)

// flood sends reserves at a steady rate, whether or not those before are answered. It returns the answers, and the most that waited and the
// most heap that was in use at once.
func sendAtRate(t *testing.T, s client, row stockRow, rate float64, lasts time.Duration) (replies []reply, pile, heap int) {
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
				r.Header, r.Body, r.Reservation = nil, nil, nil // of all that come in hours only this much can be kept
				mu.Lock()
				defer mu.Unlock()
				replies = append(replies, r)
			})
		}
	}
	all.Wait()
	return replies, pile, heap
}

// capacity is how many reserves a second so many callers get, who each wait for their answer.
func measureCapacity(t *testing.T, s client, row stockRow) float64 {
	t.Helper()
	const callers, lasts = 2 * functionConnections, time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var mu sync.Mutex
	done := 0
	runConcurrently(callers, func(int) {
		for ctx.Err() == nil {
			if r := s.reserve(t.Context(), "", 0, item{row.Product, row.Warehouse, 1}); r.Status != http.StatusCreated {
				t.Errorf("without overload a reserve is answered %d %s %v", r.Status, r.Body, r.Err)
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

// TestOverloadIsRefusedAtOnce asks three times what the service can do. The database is 20 ms away, so that what it can do is bounded by its
// connections and not by this machine, which the callers use too.
func TestOverloadIsRefusedAtOnce(t *testing.T) {
	link, db := newFaultyLink(t, pgtest.New(t))
	link.addToxics(`"type":"latency","stream":"downstream","attributes":{"latency":20}`)
	d := deploy(t, db, startInProcess)
	row := d.addProduct(1, 1_000_000)[0]
	s := newClient(d.url, maxFlood)
	measureCapacity(t, s, row) // opens the connections
	before := measureCapacity(t, s, row)
	heap, goroutines := inUse()

	replies, pile, peak := sendAtRate(t, s, row, overload*before, duration(overloadTime))
	t.Logf("at most %d callers waited at once, with %d MB of heap in use; %d MB when idle", pile, peak>>20, heap>>20)
	if pile > maxPile || peak > heap+peakHeap {
		t.Errorf("callers pile up, or memory does: want at most %d of them and %d MB", maxPile, (heap+peakHeap)>>20)
	}

	after := measureCapacity(t, s, row)
	var served, refused []time.Duration
	for _, r := range replies {
		if r.Err != nil {
			t.Fatalf("no answer that the contract has: %v", r.Err)
		}
		switch r.Status {
		case http.StatusCreated:
			served = append(served, r.Took)
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			refused = append(refused, r.Took)
		default:
			t.Fatalf("an answer of %d", r.Status)
		}
	}
	slow, turned := percentile(served, 0.99), percentile(refused, 0.99)
	t.Logf("%.0f calls a second could be served, %d were sent: %d served, the slowest hundredth in %s, %d turned away in %s; %.0f a second afterwards",
		before, len(replies), len(served), slow, len(refused), turned, after)
	if slow > answerLimit {
		t.Errorf("p99 of those served is %s, want at most %s", slow, answerLimit)
	}
	if turned > refusalLimit || len(refused) == 0 {
		t.Errorf("p99 of %d turned away is %s, want some, and at most %s", len(refused), turned, refusalLimit)
	}
	if least := before * overloadTime.Seconds() / 3; *soak == 0 && float64(len(served)) < least {
		t.Errorf("under overload %d were served, want at least %.0f: a third of what is served without", len(served), least)
	}
	if after < before/2 {
		t.Errorf("after the overload %.0f calls a second are served, before it %.0f", after, before)
	}
	s.http.CloseIdleConnections()
	for ctx := withTimeout(t, testLimit); ; {
		nowHeap, nowGoroutines := inUse()
		if nowHeap <= heap+spareHeap && nowGoroutines <= goroutines+spareGoroutines {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("heap and goroutines grew from %d, %d to %d, %d", heap, goroutines, nowHeap, nowGoroutines)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.audit()
}

// inUse is the process's heap, after a collection, and its goroutines.
func inUse() (heap, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), runtime.NumGoroutine()
}

// TestConcurrentCallsNeverDeadlock lets carts of up to twenty lines, all verbs and two sweeps fight over ten rows for a minute. Postgres counts
// deadlocks itself.
func TestConcurrentCallsNeverDeadlock(t *testing.T) {
	const rows, callers, maxLines = 10, 24, 20
	d := newDeployment(t)
	shelf := append(d.addProduct(rows/2, 1_000_000), d.addProduct(rows/2, 1_000_000)...)
	s := newClient(d.url, callers)
	ctx, cancel := context.WithTimeout(t.Context(), duration(time.Minute))
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
				t.Errorf("an answer of %d %s %v", answer.Status, answer.Body, answer.Err)
				return
			}
			if answer.ok() {
				done.Add(1)
			}
		}
	})
	if n := d.deadlocks(); n > 0 {
		t.Errorf("Postgres counts %d deadlocks", n)
	}
	d.audit()
	if done.Load() < int64(calls)/2 {
		t.Errorf("%d of %d calls were successes, want half: nobody fought", done.Load(), calls)
	}
	t.Logf("%d calls, %d of them successes, and no deadlock", calls, done.Load())
}
