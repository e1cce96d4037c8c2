package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/local/builttest"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

const (
	// cellCallers is how many callers a cell has. Each function has a process for each of them.
	cellCallers = 6
	// cellCalls is how many calls of a cell must succeed in each part of an outage.
	cellCalls = 100
	// cellLimit bounds each part of an outage in the cell that is well. It needs less than a second
	// on idle processors, and several on a slow machine or beside other tests.
	cellLimit = 20 * time.Second
)

// cell is one deployment of several behind a router by host: a server of its own, functions of its
// own in processes of their own, and callers who know only its host.
type cell struct {
	*deployment
	name, host string
	server     *pgtest.Disturbed
	answers    *tally
	load       *load
	stop       func()
}

// cells are two cells, and the router before them.
type cells struct {
	north, south *cell
}

// wiring says how two cells are put together. The zero value shares nothing.
type wiring struct {
	// sharedDatabase lets the functions of the south use the database of the north.
	sharedDatabase bool
	// wrap, unless nil, takes the router's place.
	wrap func(http.Handler) http.Handler
}

// startCells starts two cells and the router.
func startCells(t *testing.T, w wiring) cells {
	t.Helper()
	northServer, northDB := pgtest.NewDisturbedServer(t, roomy)
	southServer, southDB := pgtest.NewDisturbedServer(t, roomy)
	if w.sharedDatabase {
		southDB = northDB
	}
	var gateways []local.Cell
	newCell := func(name string, server *pgtest.Disturbed, db pgtest.Database) *cell {
		f := startCellFunctions(t, name, db.URL)
		gateway, err := local.NewGateway(route.All(), f.HTTP, discardLog())
		if err != nil {
			t.Fatal(err)
		}
		c := &cell{
			deployment: attach(t, db, ""), name: name, host: name + ".example", server: server,
		}
		c.functions = f
		// Two cells with one database need names of their own.
		c.products = len(gateways) * 1000
		gateways = append(gateways, local.Cell{Name: name, Hosts: []string{c.host}, Gateway: gateway})
		return c
	}
	both := cells{
		north: newCell("north", northServer, northDB), south: newCell("south", southServer, southDB),
	}
	router, err := local.NewRouter(gateways...)
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler = router
	if w.wrap != nil {
		handler = w.wrap(router)
	}
	address := strings.TrimPrefix(serve(t, handler), "http://")
	both.north.call(address)
	both.south.call(address)
	return both
}

// startCellFunctions starts the functions of a cell as processes, enough for each caller. They name
// the cell in the events.
func startCellFunctions(t *testing.T, name, databaseURL string) *local.Functions {
	t.Helper()
	c := settings(databaseURL)
	c.EventSource = sourceOf(name)
	f, err := local.Built(builttest.Functions(t, "faults-functions"), c.Environ(), cellCallers,
		io.Discard, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// sourceOf is the EVENT_SOURCE of a cell's functions.
func sourceOf(cell string) string { return "allo-" + cell }

// call makes the cell's callers, who find the host at the router's address.
func (c *cell) call(router string) {
	c.url = "http://" + c.host
	c.load = newLoadOf(c.deployment, cellCallers)
	c.answers = &tally{next: &http.Transport{
		MaxIdleConnsPerHost: cellCallers,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: answerLimit}).DialContext(ctx, network, router)
		},
	}}
	c.load.client = client{url: c.url, http: &http.Client{Transport: c.answers}}
}

// start lets the callers work until c.stop is called.
func (c *cell) start(t *testing.T, part uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.load.run(ctx, part)
	}()
	c.stop = func() {
		cancel()
		<-done
	}
}

// killFunctions kills the processes of the cell's functions and returns how many there were.
func (c *cell) killFunctions(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	built := builttest.Functions(t, "faults-functions") + string(filepath.Separator)
	mark := []byte("\x00EVENT_SOURCE=" + sourceOf(c.name) + "\x00")
	killed := 0
	for _, link := range links {
		// A process that has ended meanwhile, or that is another user's, is not ours.
		program, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(program, built) {
			continue
		}
		environment, err := os.ReadFile(filepath.Join(filepath.Dir(link), "environ"))
		if err != nil || !bytes.Contains(append([]byte{0}, environment...), mark) {
			continue
		}
		id, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(id, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// tally counts the answers that the callers of a cell got, by status.
type tally struct {
	next http.RoundTripper

	mu sync.Mutex
	by map[int]int // by status; 0 is no answer
}

// RoundTrip sends a call and counts its answer.
func (t *tally) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	status := 0
	if err == nil {
		status = response.StatusCode
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[int]int{}
	}
	t.by[status]++
	return response, err
}

// successes counts the answers of 2xx.
func (t *tally) successes() int { return t.count(func(status int) bool { return status/100 == 2 }) }

// failures counts the calls without an answer, and the answers of 5xx.
func (t *tally) failures() int {
	return t.count(func(status int) bool { return status == 0 || status >= 500 })
}

func (t *tally) count(counted func(status int) bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for status, times := range t.by {
		if counted(status) {
			n += times
		}
	}
	return n
}

// awaitMore waits until a count has grown by more, and returns how long that took. It returns an
// error at the limit.
func awaitMore(
	t *testing.T, count func() int, more int, limit time.Duration,
) (time.Duration, error) {
	t.Helper()
	begin, from := time.Now(), count()
	for count() < from+more {
		if took := time.Since(begin); took > limit {
			return took, fmt.Errorf("%d in %s, want %d", count()-from, took, more)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(time.Millisecond):
		}
	}
	return time.Since(begin), nil
}

// outage lets both cells work, and then lets the north hang, die with its functions, and come back.
// It returns what went wrong in the south.
func (c cells) outage(t *testing.T) error {
	t.Helper()
	c.north.start(t, 1)
	c.south.start(t, 2)
	for _, one := range []*cell{c.north, c.south} {
		if _, err := awaitMore(t, one.answers.successes, cellCalls, testLimit); err != nil {
			t.Fatalf("before the outage %s had %v successes", one.name, err)
		}
	}
	well, errBefore := awaitMore(t, c.south.answers.successes, cellCalls, cellLimit)

	c.north.stallDisk(c.north.server)
	hanging, errHanging := awaitMore(t, c.south.answers.successes, cellCalls, cellLimit)

	if err := c.north.server.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := c.north.killFunctions(t)
	if killed == 0 {
		t.Fatal("no function of the north was killed: the outage proves nothing")
	}
	refused := func() int {
		return c.north.answers.count(func(s int) bool { return s == http.StatusServiceUnavailable })
	}
	if _, err := awaitMore(t, refused, cellCalls, testLimit); err != nil {
		t.Errorf("the callers of the dead cell got %v answers of 503", err)
	}
	var dead time.Duration
	var errDead error
	if errHanging == nil { // else enough is known
		dead, errDead = awaitMore(t, c.south.answers.successes, cellCalls, cellLimit)
	}

	c.north.server.ResumeDisk()
	if err := c.north.server.Restart(withTimeout(t, testLimit)); err != nil {
		t.Fatal(err)
	}
	c.north.db.Admin.Reset()
	took := c.north.load.awaitSuccess(t, time.Now())
	t.Logf("the first success took %s after the restart", took.Round(time.Millisecond))
	if took > recoveryLimit {
		t.Errorf("the first success took %s after the restart, want at most %s", took, recoveryLimit)
	}
	c.north.stop()
	c.south.stop()
	t.Logf("%d functions killed; north %v, south %v; %d successes of the south took %s before the "+
		"outage, %s while the north hung, %s while it was dead", killed, c.north.answers.by,
		c.south.answers.by, cellCalls, well, pace(well, hanging), pace(well, dead))

	var failed error
	if n := c.south.answers.failures(); n > 0 {
		failed = fmt.Errorf("%d calls of the south failed: %v", n, c.south.answers.by)
	}
	return errors.Join(errBefore, errHanging, errDead, failed)
}

// pace says how long the calls of a part took, and their rate as a multiple of that before it.
func pace(before, took time.Duration) string {
	if took == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%s (×%.2f)", took, before.Seconds()/took.Seconds())
}

// TestACellOutlivesItsNeighbour lets one of two cells hang and die under load. No call of the other
// one fails. The dead one answers 503 in time, and after its restart it has all that it has
// acknowledged.
func TestACellOutlivesItsNeighbour(t *testing.T) {
	c := startCells(t, wiring{})
	if err := c.outage(t); err != nil {
		t.Errorf("the outage of the north harmed the south: %v", err)
	}
	c.north.load.verify(t)
	c.south.load.verify(t)
	if n := c.south.load.uncertain.Load(); n > 0 {
		t.Errorf("%d calls of the south had an uncertain outcome", n)
	}
	c.wantApart(t)
}

// wantApart checks that neither cell knows the other's holds, and that each has events of its own
// source only.
func (c cells) wantApart(t *testing.T) {
	t.Helper()
	for _, pair := range [][2]*cell{{c.north, c.south}, {c.south, c.north}} {
		here, there := pair[0], pair[1]
		for id := range here.load.told {
			if r := here.load.client.get(t.Context(), id); !r.ok() {
				t.Errorf("%s doesn't know its hold %s: %d %s", here.name, id, r.Status, r.Body)
			}
			if r := there.load.client.get(t.Context(), id); r.Code != "RESERVATION_NOT_FOUND" {
				t.Errorf("%s was asked for a hold of %s: %d %s", there.name, here.name, r.Status, r.Body)
			}
			break // one will do: verify has compared the rest with each database
		}
		here.db.Exec("SELECT take_tick()")
		r := here.load.client.send(t.Context(), http.MethodGet, "/api/events?limit=500", "", nil)
		var page struct {
			Events []struct{ Source string }
		}
		if err := json.Unmarshal(r.Body, &page); err != nil || len(page.Events) == 0 {
			t.Fatalf("the events of %s = %d %s, %v", here.name, r.Status, r.Body, err)
		}
		for _, e := range page.Events {
			if !strings.HasPrefix(e.Source, "/"+sourceOf(here.name)+"/") {
				t.Errorf("%s has an event of %s", here.name, e.Source)
			}
		}
	}
}

// TestOutageFindsASharedDatabase is a control: the functions of both cells use one database.
func TestOutageFindsASharedDatabase(t *testing.T) {
	if err := startCells(t, wiring{sharedDatabase: true}).outage(t); err == nil {
		t.Error("the south shares the dead database, and nothing went wrong there")
	} else {
		t.Log(err)
	}
}

// TestOutageFindsAQueueInTheRouter is a control: the router serves one call after another, so that
// a cell that hangs holds up the other one.
func TestOutageFindsAQueueInTheRouter(t *testing.T) {
	queue := func(router http.Handler) http.Handler {
		var one sync.Mutex
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			one.Lock()
			defer one.Unlock()
			router.ServeHTTP(w, r)
		})
	}
	if err := startCells(t, wiring{wrap: queue}).outage(t); err == nil {
		t.Error("the south waited behind the north that hung, and nothing went wrong there")
	} else {
		t.Log(err)
	}
}
