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

// startProcesses runs the functions as processes, at most so many of each.
func startProcesses(instances int) functionStarter {
	return func(t testing.TB, databaseURL string) *local.Functions {
		t.Helper()
		f, err := local.Built(builttest.Functions(t, "faults-functions"),
			settings(databaseURL).Environ(), instances, io.Discard, discardLog())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// processIDs returns the ids of the processes of a function.
func processIDs(t *testing.T, function string) []int {
	t.Helper()
	binary := filepath.Join(builttest.Functions(t, "faults-functions"), function, "bootstrap")
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, link := range links {
		// A process that has ended meanwhile, or that is another user's, is not ours.
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

// signalProcess sends a signal to the only process of a function.
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

// startBlockedReserve starts a reserve that waits for its locked stock row. Call free to let it go
// on.
func (d *deployment) startBlockedReserve(
	s client, row stockRow, key string,
) (answer <-chan reply, free func()) {
	d.t.Helper()
	d.db.Patient()
	free = d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE",
		row.Product.String())
	done := make(chan reply, 1)
	go func() {
		done <- s.reserve(context.Background(), key, 0,
			item{row.Product, row.Warehouse, 1})
	}()
	d.db.WaitForBlocked(1)
	return done, free
}

// reserveUntilCreated repeats the reserve until it is answered 201, at most until recoveryLimit.
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
			t.Fatalf("after %s a reserve is still answered %d %s %v", recoveryLimit, r.Status,
				r.Body, r.Err)
		}
	}
}

// wantHolds fails the test unless the row has n holds of one unit each.
func (d *deployment) wantHolds(row stockRow, n int) {
	d.t.Helper()
	if got := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations WHERE product_id = $1",
		row.Product.String()); got != n {
		d.t.Errorf("the row has %d holds, want %d", got, n)
	}
	if got := d.db.Counts(row.Product, row.Warehouse).Reserved; got != n {
		d.t.Errorf("reserved = %d, want %d", got, n)
	}
	d.audit()
}

// TestThawedProcessReplacesItsLostConnection freezes a function between two requests, as the
// platform does, and ends its connection meanwhile.
func TestThawedProcessReplacesItsLostConnection(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row := newClient(d.url, 1), d.addProduct(1, 10)[0]
	reserveUntilCreated(t, s, row, uuid.NewString())
	signalProcess(t, "reserve", syscall.SIGSTOP)
	d.db.EndSessions()
	signalProcess(t, "reserve", syscall.SIGCONT)
	r := s.reserve(t.Context(), uuid.NewString(), 0, item{row.Product, row.Warehouse, 1})
	if r.Status != http.StatusCreated && r.Status != http.StatusServiceUnavailable ||
		r.documented() != nil {
		t.Errorf("the first answer after the thaw = %d %s %v, want a 201 or a 503", r.Status,
			r.Body, r.Err)
	}
	made := 1
	if r.Status == http.StatusCreated {
		made++
	}
	reserveUntilCreated(t, s, row, uuid.NewString())
	d.wantHolds(row, made+1)
}

// TestProcessFrozenInARequestAnswersAfterTheThaw freezes a function that waits for a lock, and ends
// its connection.
func TestProcessFrozenInARequestAnswersAfterTheThaw(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGSTOP)
	d.db.EndSessions()
	free()
	time.Sleep(100 * time.Millisecond) // stay frozen for a while
	signalProcess(t, "reserve", syscall.SIGCONT)
	r := <-answer
	const own = 9 * time.Second // the platform ends the request after 10 s
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil || r.Took > own {
		t.Errorf("the answer after the thaw = %d %s %v after %s, want a 503 with Retry-After",
			r.Status, r.Body, r.Err, r.Took)
	}
	reserveUntilCreated(t, s, row, key)
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestProcessThatStaysFrozenTimesOut never thaws the process: the platform ends the request in
// time, and the next request gets another process.
func TestProcessThatStaysFrozenTimesOut(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGSTOP)
	free()
	// The platform enforces the function's limit, which is 10 s. The gateway would wait for 30 s.
	const platformLimit = 20 * time.Second
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil ||
		r.Took > platformLimit {
		t.Errorf("the answer = %d %s %v after %s, want a 503 with Retry-After", r.Status, r.Body,
			r.Err, r.Took)
	}
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestRetryAfterAKilledProcessMakesOneHold kills a process that waits for a lock. Its statement
// ends with its connection or takes effect: a retry under the key finds out.
func TestRetryAfterAKilledProcessMakesOneHold(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	s, row, key := newClient(d.url, 2), d.addProduct(1, 10)[0], uuid.NewString()
	answer, free := d.startBlockedReserve(s, row, key)
	signalProcess(t, "reserve", syscall.SIGKILL)
	r := <-answer
	if r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the answer = %d %s %v, want a 503 with Retry-After", r.Status, r.Body, r.Err)
	}
	free()
	reserveUntilCreated(t, s, row, key)
	d.wantHolds(row, 1)
}

// TestDocumentAfterAKilledProcessIsAppliedOnce kills a process whose document waits for a lock, and
// sends the document again.
func TestDocumentAfterAKilledProcessIsAppliedOnce(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	d.db.Patient()
	s, row, units := newClient(d.url, 2), d.addProduct(1, 10)[0], 5
	delivery := document{Source: loadSource, Reference: "delivery", Lines: []documentLine{
		{ProductID: row.Product, WarehouseID: row.Warehouse, Delta: &units},
	}}
	free := d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String())
	answer := make(chan reply, 1)
	go func() { answer <- s.move(context.Background(), delivery) }()
	d.db.WaitForBlocked(1)
	signalProcess(t, "move-stock", syscall.SIGKILL)
	if r := <-answer; r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the answer = %d %s %v, want a 503 with Retry-After", r.Status, r.Body, r.Err)
	}
	free()
	r := reply{}
	for ctx := withTimeout(t, recoveryLimit); !r.ok() && ctx.Err() == nil; {
		r = s.move(t.Context(), delivery)
	}
	again := s.move(t.Context(), delivery)
	if !again.ok() || len(again.Results) != 1 || again.Results[0].Outcome != "REPLAYED" ||
		again.Results[0].TotalQuantity != 15 {
		t.Errorf("the document, sent again = %d %s, want it REPLAYED with a total of 15", again.Status,
			again.Body)
	}
	if n := len(movementsOf(t, d.db, loadSource)); n != 1 {
		t.Errorf("the document made %d movements, want one", n)
	}
	d.audit()
}

// TestLatePaymentAfterAKilledProcessHasOneSuccessor kills a process in which a payment of a hold
// that is gone waits for a lock, and lets the payment come again.
func TestLatePaymentAfterAKilledProcessHasOneSuccessor(t *testing.T) {
	d := deploy(t, pgtest.New(t), startProcesses(1))
	d.db.Patient()
	s, row := newClient(d.url, 2), d.addProduct(1, 10)[0]
	id := reserveUntilCreated(t, s, row, "").Reservation.ID
	s.act(t.Context(), id, "release", "")
	free := d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE", row.Product.String())
	answer := make(chan reply, 1)
	go func() { answer <- s.confirm(context.Background(), id, "", paymentNames[0], true) }()
	d.db.WaitForBlocked(1)
	signalProcess(t, "confirm", syscall.SIGKILL)
	if r := <-answer; r.Status != http.StatusServiceUnavailable || r.documented() != nil {
		t.Errorf("the answer = %d %s %v, want a 503 with Retry-After", r.Status, r.Body, r.Err)
	}
	free()
	r := reply{}
	for ctx := withTimeout(t, recoveryLimit); !r.ok() && ctx.Err() == nil; {
		r = s.confirm(t.Context(), id, "", paymentNames[0], true)
	}
	again := s.confirm(t.Context(), id, "", paymentNames[0], true)
	if r.Outcome != "REACQUIRED" || saidOf(again) != saidOf(r) {
		t.Errorf("the payment was answered %d %s, and then %s", r.Status, r.Body, saidOf(again))
	}
	if n := pgtest.QueryOne[int](d.db, "SELECT count(*) FROM reservations"); n != 2 {
		t.Errorf("there are %d holds, want the one that is gone and its successor", n)
	}
	d.audit()
}

// TestTwoHundredProcessesShareAHundredConnections starts more functions than the server has
// connections for. Each call is answered within the contract, and each caller that retries is
// served in the end.
func TestTwoHundredProcessesShareAHundredConnections(t *testing.T) {
	const processCount, connections = 200, 100
	_, db := pgtest.NewServer(t, map[string]string{"max_connections": strconv.Itoa(connections)})
	d := deploy(t, db, startProcesses(processCount))
	row := d.addProduct(1, processCount)[0]
	d.audit() // opens its connection while some are free
	s := newClient(d.url, processCount)
	var refused, calls atomic.Int64
	// The row stays locked until every process runs, so that all of them want a connection at once.
	unlock := d.db.Lock("SELECT FROM inventory WHERE product_id = $1 FOR UPDATE",
		row.Product.String())
	const startLimit = 20 * time.Second // then the row is unlocked anyway
	runConcurrently(processCount+1, func(n int) {
		if n == processCount {
			for start := time.Now(); time.Since(start) < startLimit &&
				len(processIDs(t, "reserve")) < processCount; {
				time.Sleep(50 * time.Millisecond)
			}
			unlock()
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
			if took := time.Since(start); took > startLimit+testLimit {
				t.Errorf("a caller was not served within %s: %d %s %v", took, r.Status, r.Body, r.Err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	running := len(processIDs(t, "reserve"))
	// Closing the functions frees the connections that the test's own queries need.
	if err := d.functions.Close(); err != nil {
		t.Fatal(err)
	}
	for ctx := withTimeout(t, testLimit); d.db.Admin.Ping(ctx) != nil; {
		if ctx.Err() != nil {
			t.Fatal("the functions ended, but their connections did not")
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.wantHolds(row, processCount)
	if refused.Load() == 0 {
		t.Error("no call was refused for want of a connection: the server had enough for all")
	}
	t.Logf("%d calls of %d processes, %d of them answered 503", calls.Load(), running,
		refused.Load())
}
