package faults

import (
	"context"
	"io"
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
func startProcesses(instances int) functionStarter {
	return func(t testing.TB, databaseURL string) *local.Functions {
		t.Helper()
		f, err := local.Built(builttest.Functions(t, "faults-functions"), settings(databaseURL).Environ(), instances, io.Discard, discardLog())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// processes are the function's, by their ids.
func processIDs(t *testing.T, function string) []int {
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
func signalProcess(t *testing.T, function string, signal syscall.Signal) {
	t.Helper()
	ids := processIDs(t, function)
	if len(ids) != 1 {
		t.Fatalf("%s has processes %v, want one", function, ids)
	}
	if err := syscall.Kill(ids[0], signal); err != nil {
		t.Fatal(err)
	}
}

// awaitLockWait returns when somebody waits for a lock.
func (d *deployment) awaitLockWait() {
	d.t.Helper()
	for withTimeout := withTimeout(d.t, testLimit); ; {
		const sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
		if queryValue[bool](d, sql) {
			return
		}
		if withTimeout.Err() != nil {
			d.t.Fatal("nobody waits for the lock")
		}
	}
}

// reserving is a reserve under way that waits for its stock row, with what lets it go.
func (d *deployment) startBlockedReserve(s client, row stockRow, key string) (answer <-chan reply, free func()) {
	d.t.Helper()
	tx, err := d.admin.Begin(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	free = func() { _ = tx.Rollback(context.Background()) }
	d.t.Cleanup(free)
	if _, err := tx.Exec(d.t.Context(), "SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String()); err != nil {
		d.t.Fatal(err)
	}
	done := make(chan reply, 1)
	go func() { done <- s.reserve(context.Background(), key, 0, item{row.Product, row.Warehouse, 1}) }()
	d.awaitLockWait()
	return done, free
}

// settled sends the reserve again until it is answered for certain, withTimeout the limit of a recovery.
func reserveUntilCreated(t *testing.T, s client, row stockRow, key string) reply {
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
func (d *deployment) wantHolds(row stockRow, n int) {
	d.t.Helper()
	if got := queryValue[int](d, "SELECT count(*) FROM reservations WHERE product_id = $1", row.Product.String()); got != n {
		d.t.Errorf("there are %d holds, want %d", got, n)
	}
	if got := queryValue[int](d, "SELECT reserved FROM inventory WHERE product_id = $1", row.Product.String()); got != n {
		d.t.Errorf("%d units are held, want %d", got, n)
	}
	d.audit()
}

// TestThawedProcessReplacesItsLostConnection freezes a function between two requests, as the platform does, and ends its connection meanwhile.
func TestThawedProcessReplacesItsLostConnection(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row := newClient(d.url, 1), d.addProduct(1, 10)[0]
	reserveUntilCreated(t, s, row, uuid.NewString())
	signalProcess(t, "reserve", syscall.SIGSTOP)
	d.disconnect()
	signalProcess(t, "reserve", syscall.SIGCONT)
	r := s.reserve(t.Context(), uuid.NewString(), 0, item{row.Product, row.Warehouse, 1})
	if r.Status != http.StatusCreated && r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the first answer after the thaw is %d %s %v", r.Status, r.Body, r.Err)
	}
	made := 1
	if r.Status == http.StatusCreated {
		made++
	}
	reserveUntilCreated(t, s, row, uuid.NewString())
	d.wantHolds(row, made+1)
}

// TestProcessFrozenInARequestAnswersAfterTheThaw freezes a function that waits for a lock, and ends its connection.
func TestProcessFrozenInARequestAnswersAfterTheThaw(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGSTOP)
	d.disconnect()
	free()
	time.Sleep(100 * time.Millisecond) // frozen for a while
	signalProcess(t, "reserve", syscall.SIGCONT)
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil || r.Took > answerLimit {
		t.Errorf("the answer after the thaw is %d %s %v after %s, want a 503 that says when to come again", r.Status, r.Body, r.Err, r.Took)
	}
	reserveUntilCreated(t, s, row, key)
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestProcessThatStaysFrozenTimesOut never thaws it: the platform ends the request in time, and the next one has another process.
func TestProcessThatStaysFrozenTimesOut(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGSTOP)
	free()
	// The function's own limit is 10 s, which is the platform's to keep.
	const platformLimit = 12 * time.Second
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil || r.Took > platformLimit {
		t.Errorf("the answer is %d %s %v after %s, want a 503 that says when to come again", r.Status, r.Body, r.Err, r.Took)
	}
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestRetryAfterAKilledProcessMakesOneHold kills it while it waits for a lock. Its statement ends with its connection or takes effect: a retry under
// the key finds out.
func TestRetryAfterAKilledProcessMakesOneHold(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGKILL)
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the answer is %d %s %v, want a 503 that says when to come again", r.Status, r.Body, r.Err)
	}
	free()
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestTwoHundredProcessesShareAHundredConnections starts more functions than the server has connections for. Each call is answered as the
// contract has it, and each caller who comes again is served in the end.
func TestTwoHundredProcessesShareAHundredConnections(t *testing.T) {
	const processCount, connections = 200, 100
	_, db := pgtest.NewServer(t, map[string]string{"max_connections": strconv.Itoa(connections)})
	d := deploy(t, db, startProcesses(processCount))
	row := d.addProduct(1, processCount)[0]
	d.audit() // which opens its connection while there are any
	s := newClient(d.url, processCount)
	var refused, calls atomic.Int64
	tx, err := d.admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	// The row is locked until every process runs, so that all of them want a connection at once.
	if _, err := tx.Exec(t.Context(), "SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String()); err != nil {
		t.Fatal(err)
	}
	const startLimit = 20 * time.Second // then those go on that have started
	runConcurrently(processCount+1, func(n int) {
		if n == processCount {
			for start := time.Now(); time.Since(start) < startLimit && len(processIDs(t, "reserve")) < processCount; {
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
				t.Errorf("a caller isn't served withTimeout %s: %d %s %v", testLimit, r.Status, r.Body, r.Err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	running := len(processIDs(t, "reserve"))
	// The functions leave, and with them go the connections that the test wants for its own look.
	if err := d.functions.Close(); err != nil {
		t.Fatal(err)
	}
	for ctx := withTimeout(t, testLimit); d.admin.Ping(ctx) != nil; {
		if ctx.Err() != nil {
			t.Fatal("the functions have ended and their connections haven't")
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.wantHolds(row, processCount)
	if refused.Load() == 0 {
		t.Error("nobody was refused for want of a connection: the server had connections for all")
	}
	t.Logf("%d calls of %d processes, %d of them answered 503", calls.Load(), running, refused.Load())
}
