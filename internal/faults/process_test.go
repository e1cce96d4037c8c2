package faults

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
)

// built runs the functions as processes of their own, at most so many of each.
func built(instances int) how {
	return func(t testing.TB, databaseURL string) *local.Functions {
		t.Helper()
		f, err := local.Built(builttest.Functions(t, "faults-functions"), settings(databaseURL).Environ(), instances, quietly{}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// quietly discards what processes say whose database is made to fail.
type quietly struct{}

func (quietly) Write(p []byte) (int, error) { return len(p), nil }

// processes are the function's, by their ids.
func processes(t *testing.T, function string) []int {
	t.Helper()
	binary := filepath.Join(builttest.Functions(t, "faults-functions"), function, "bootstrap")
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, link := range links {
		// A process that has ended meanwhile, or is another user's, isn't ours.
		if program, err := os.Readlink(link); err == nil && program == binary {
			id, err := strconv.Atoi(strings.Split(link, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

// send sends a signal to the one process of a function.
func send(t *testing.T, function string, signal syscall.Signal) {
	t.Helper()
	ids := processes(t, function)
	if len(ids) != 1 {
		t.Fatalf("%s has processes %v, want one", function, ids)
	}
	if err := syscall.Kill(ids[0], signal); err != nil {
		t.Fatal(err)
	}
}

// awaitWaiting returns when somebody waits for a lock.
func (w *world) awaitWaiting() {
	w.t.Helper()
	for within := within(w.t, testLimit); ; {
		const sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
		if ask[bool](w, sql) {
			return
		}
		if within.Err() != nil {
			w.t.Fatal("nobody waits for the lock")
		}
	}
}

// reserving is a reserve under way that waits for its stock row, with what lets it go.
func (w *world) reserving(s shop, row stock, key string) (answer <-chan reply, free func()) {
	w.t.Helper()
	tx, err := w.admin.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	free = func() { _ = tx.Rollback(context.Background()) }
	w.t.Cleanup(free)
	if _, err := tx.Exec(w.t.Context(), "SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String()); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan reply, 1)
	go func() { done <- s.reserve(context.Background(), key, 0, item{row.Product, row.Warehouse, 1}) }()
	w.awaitWaiting()
	return done, free
}

// settled sends the reserve again until it is answered for certain, within the limit of a recovery.
func settled(t *testing.T, s shop, row stock, key string) reply {
	t.Helper()
	for start := time.Now(); ; {
		r := s.reserve(t.Context(), key, 0, item{row.Product, row.Warehouse, 1})
		if err := r.documented(); err != nil {
			t.Error(err)
		}
		if r.Status == http.StatusCreated {
			return r
		}
		if time.Since(start) > recoveryLimit {
			t.Fatalf("after %s the service still answers %d %s %v", recoveryLimit, r.Status, r.Body, r.Err)
		}
	}
}

// wantHolds fails the test unless the row has so many units held.
func (w *world) wantHolds(row stock, n int) {
	w.t.Helper()
	if got := ask[int](w, "SELECT count(*) FROM reservations WHERE product_id = $1", row.Product.String()); got != n {
		w.t.Errorf("there are %d holds, want %d", got, n)
	}
	if got := ask[int](w, "SELECT reserved FROM inventory WHERE product_id = $1", row.Product.String()); got != n {
		w.t.Errorf("%d units are held, want %d", got, n)
	}
	w.audit()
}

// TestAProcessThawsWithoutItsConnection freezes a function between two requests, as the platform does, and ends its connection meanwhile.
func TestAProcessThawsWithoutItsConnection(t *testing.T) {
	w := open(t, pgtest.New(t), built(1))
	s, row := newShop(w.url, 1), w.shelf(1, 10)[0]
	settled(t, s, row, uuid.NewString())
	send(t, "reserve", syscall.SIGSTOP)
	w.disconnect()
	send(t, "reserve", syscall.SIGCONT)
	r := s.reserve(t.Context(), uuid.NewString(), 0, item{row.Product, row.Warehouse, 1})
	if r.Status != http.StatusCreated && r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the first answer after the thaw is %d %s %v", r.Status, r.Body, r.Err)
	}
	made := 1
	if r.Status == http.StatusCreated {
		made++
	}
	settled(t, s, row, uuid.NewString())
	w.wantHolds(row, made+1)
}

// TestAProcessFrozenInARequestAnswersWhenItThaws freezes a function that waits for a lock, and ends its connection.
func TestAProcessFrozenInARequestAnswersWhenItThaws(t *testing.T) {
	w := open(t, pgtest.New(t), built(1))
	s, row, key := newShop(w.url, 2), w.shelf(1, 10)[0], uuid.NewString()
	answer, free := w.reserving(s, row, key)
	send(t, "reserve", syscall.SIGSTOP)
	w.disconnect()
	free()
	time.Sleep(100 * time.Millisecond) // frozen for a while
	send(t, "reserve", syscall.SIGCONT)
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil || r.Took > answerLimit {
		t.Errorf("the answer after the thaw is %d %s %v after %s, want a 503 that says when to come again", r.Status, r.Body, r.Err, r.Took)
	}
	settled(t, s, row, key)
	settled(t, s, row, key)
	w.wantHolds(row, 1)
}

// TestAProcessThatStaysFrozenIsGivenUp never thaws it: the platform ends the request in time, and the next one has another process.
func TestAProcessThatStaysFrozenIsGivenUp(t *testing.T) {
	w := open(t, pgtest.New(t), built(1))
	s, row, key := newShop(w.url, 2), w.shelf(1, 10)[0], uuid.NewString()
	answer, free := w.reserving(s, row, key)
	send(t, "reserve", syscall.SIGSTOP)
	free()
	// The function's own limit is 10 s, which is the platform's to keep.
	const platformLimit = 12 * time.Second
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil || r.Took > platformLimit {
		t.Errorf("the answer is %d %s %v after %s, want a 503 that says when to come again", r.Status, r.Body, r.Err, r.Took)
	}
	settled(t, s, row, key)
	w.wantHolds(row, 1)
}

// TestAProcessMayBeKilledInARequest kills it while it waits for a lock. Its statement ends with its connection or takes effect: a retry under
// the key finds out.
func TestAProcessMayBeKilledInARequest(t *testing.T) {
	w := open(t, pgtest.New(t), built(1))
	s, row, key := newShop(w.url, 2), w.shelf(1, 10)[0], uuid.NewString()
	answer, free := w.reserving(s, row, key)
	send(t, "reserve", syscall.SIGKILL)
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the answer is %d %s %v, want a 503 that says when to come again", r.Status, r.Body, r.Err)
	}
	free()
	settled(t, s, row, key)
	w.wantHolds(row, 1)
}

// TestTwoHundredProcessesShareAHundredConnections starts more functions than the server has connections for. Each call is answered as the
// contract has it, and each caller who comes again is served in the end.
func TestTwoHundredProcessesShareAHundredConnections(t *testing.T) {
	const processCount, connections = 200, 100
	_, db := pgtest.NewServer(t, map[string]string{"max_connections": strconv.Itoa(connections)})
	w := open(t, db, built(processCount))
	row := w.shelf(1, processCount)[0]
	w.audit() // which opens its connection while there are any
	s := newShop(w.url, processCount)
	var refused, calls atomic.Int64
	tx, err := w.admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	// The row is locked until every process runs, so that all of them want a connection at once.
	if _, err := tx.Exec(t.Context(), "SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String()); err != nil {
		t.Fatal(err)
	}
	const startLimit = 20 * time.Second // then those go on that have started
	together(processCount+1, func(n int) {
		if n == processCount {
			for start := time.Now(); time.Since(start) < startLimit && len(processes(t, "reserve")) < processCount; {
				time.Sleep(50 * time.Millisecond)
			}
			_ = tx.Rollback(context.Background())
			return
		}
		key := uuid.NewString()
		for start := time.Now(); ; {
			r := s.reserve(t.Context(), key, 0, item{row.Product, row.Warehouse, 1})
			calls.Add(1)
			if err := r.documented(); err != nil {
				t.Error(err)
			}
			if r.Status == http.StatusCreated {
				return
			}
			if r.Code == "DATABASE_UNAVAILABLE" {
				refused.Add(1)
			}
			if time.Since(start) > testLimit {
				t.Errorf("a caller isn't served within %s: %d %s %v", testLimit, r.Status, r.Body, r.Err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	running := len(processes(t, "reserve"))
	// The functions leave, and with them go the connections that the test wants for its own look.
	if err := w.functions.Close(); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t, testLimit); w.admin.Ping(ctx) != nil; {
		if ctx.Err() != nil {
			t.Fatal("the functions have ended and their connections haven't")
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.wantHolds(row, processCount)
	if refused.Load() == 0 {
		t.Error("nobody was refused for want of a connection: the server had connections for all")
	}
	t.Logf("%d calls of %d processes, %d of them answered 503", calls.Load(), running, refused.Load())
}
