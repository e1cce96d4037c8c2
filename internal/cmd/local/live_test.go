package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const (
	// livePages is how many pages follow the stock at once in the test below.
	livePages = 500
	// liveChanges is how many changes each of them must hear of.
	liveChanges = 20
	// liveStride orders the pauses between the changes. They are spread evenly over a second, because
	// a change comes at any time between two messages of a stock row.
	liveStride = 7
	// leastMemory and mostMemory bound the KB that a connection takes of the server. It is two
	// goroutines and its buffers, about 25 KB. With four times as much, 10,000 pages would take a
	// gigabyte. A measure below the least one doesn't see the connections.
	leastMemory, mostMemory = 4, 100
	// mostBetween is how many batches of the relay may come between a change and its message. One may
	// have begun before the change was committed.
	mostBetween = 1
	// stirPause is between two changes of the stock row that gives each second a batch.
	stirPause = 50 * time.Millisecond
	// liveData is the variable with the directory of the server that the test below starts.
	liveData = "LIVE_TEST_DATA"
)

// TestServeTheLivePages is the server of the test below, in a process of its own, so that its
// memory is the server's alone. It ends when its standard input does.
func TestServeTheLivePages(t *testing.T) {
	data := os.Getenv(liveData)
	if data == "" {
		t.Skip("TestAChangeReachesFiveHundredPages starts it in a process of its own")
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			// What earlier requests have left is no part of what the connections take. A pool lets go of
			// it at the second collection. After one, as much garbage as the connections take is left.
			runtime.GC()
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("in use: %d bytes\n", m.HeapAlloc+m.StackInuse)
		}
	}()
	c := testConfig()
	c.SweepInterval = time.Minute
	c.LogLevel = slog.LevelInfo
	opts := testOptions(t)
	opts.data, opts.still = data, true
	if err := serve(ctx, opts, c, os.Stdout); err != nil {
		t.Fatal(err)
	}
}

// liveServer is a running server of TestServeTheLivePages.
type liveServer struct {
	t       *testing.T
	url     string
	process *exec.Cmd
	stdin   io.Writer
	output  *output
	asked   int
}

func startLiveServer(t *testing.T) *liveServer {
	t.Helper()
	s := &liveServer{t: t, output: &output{}}
	s.process = exec.Command(os.Args[0], "-test.run=^TestServeTheLivePages$")
	s.process.Env = append(os.Environ(), liveData+"="+t.TempDir())
	s.process.Stdout, s.process.Stderr = s.output, s.output
	stdin, err := s.process.StdinPipe()
	s.stdin = stdin
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := s.process.Wait(); err != nil {
			t.Errorf("the server ended with %v; it printed:\n%s", err, s.output)
		}
	})
	waitUntil(t, func() bool { return strings.Contains(s.output.String(), "Ready in") })
	_, rest, _ := strings.Cut(s.output.String(), "http://")
	address, _, _ := strings.Cut(rest, " ")
	s.url = "http://" + strings.Replace(address, "localhost", "127.0.0.1", 1)
	return s
}

// inUse returns the bytes that the server's heap and stacks have in use.
func (s *liveServer) inUse() (bytes int) {
	s.t.Helper()
	s.asked++
	if _, err := fmt.Fprintln(s.stdin); err != nil {
		s.t.Fatal(err)
	}
	const before = "in use: "
	waitUntil(s.t, func() bool { return strings.Count(s.output.String(), before) == s.asked })
	waitUntil(s.t, func() bool { // the line may come in pieces
		text := s.output.String()
		_, err := fmt.Sscanf(text[strings.LastIndex(text, before):], before+"%d bytes", &bytes)
		return err == nil
	})
	return bytes
}

// resident returns the megabytes that the process has in memory, or zero where the system doesn't
// say.
func (s *liveServer) resident() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.process.Process.Pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		s.t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// change is a unit that was held.
type change struct {
	answered time.Time
	// asOf is the newest tick that an answer of the catalog saw when the unit was held.
	asOf int64
}

// reserve holds a unit of a product.
func (s *liveServer) reserve(product, line string) change {
	s.t.Helper()
	if _, err := s.hold(s.t.Context(), line); err != nil {
		s.t.Fatal(err)
	}
	c := change{answered: time.Now()}
	response, err := http.Get(s.url + "/api/products/" + product)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	if c.asOf, err = strconv.ParseInt(response.Header.Get("Stock-As-Of"), 10, 64); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// hold holds units, and returns the hold's id.
func (s *liveServer) hold(ctx context.Context, line string) (id string, err error) {
	var made struct{ Reservation struct{ ID string } }
	err = s.post(ctx, "/api/reservations", line, http.StatusCreated, &made)
	return made.Reservation.ID, err
}

// post sends a request, and reads its answer.
func (s *liveServer) post(ctx context.Context, path, body string, want int, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path,
		strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("POST %s gets %d, want %d", path, response.StatusCode, want)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// stir changes a stock row until stop is called, so that each second has a batch.
func (s *liveServer) stir(line string) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var stirring sync.WaitGroup
	stirring.Go(func() {
		for ctx.Err() == nil {
			id, err := s.hold(ctx, line)
			if err == nil {
				var released struct{}
				err = s.post(ctx, "/api/reservations/"+id+"/release", "", http.StatusOK, &released)
			}
			if err != nil && ctx.Err() == nil {
				s.t.Error(err)
				return
			}
			select {
			case <-time.After(stirPause):
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); stirring.Wait() }
}

// liveRow is a message of the live channel.
type liveRow struct {
	ProductID, WarehouseID string
	AvailableStock         int
	AsOf                   int64
}

// follower is a page that follows the stock.
type follower struct {
	conn *websocket.Conn
	row  string // the stock row that it looks at

	mu        sync.Mutex
	batches   []int64           // the asOf of each, with any stock row
	told      map[int]int64     // the batch with the row, by how many units were available
	arrived   map[int]time.Time // and when it came
	asOf      int64
	available int
	err       error
}

// follow connects as a page does: it asks where the live channel is, and subscribes.
func (s *liveServer) follow(ctx context.Context, row string) (*follower, error) {
	var live struct {
		URL, Protocol, Channel string
		Authorization          json.RawMessage
	}
	text := get(s.t, s.url+"/api/live")
	if err := json.Unmarshal([]byte(text), &live); err != nil {
		return nil, fmt.Errorf("GET /api/live: %w", err)
	}
	var plain bytes.Buffer
	if err := json.Compact(&plain, live.Authorization); err != nil {
		return nil, err
	}
	header := "header-" + base64.RawURLEncoding.EncodeToString(plain.Bytes())
	conn, _, err := websocket.Dial(ctx, live.URL, //nolint:bodyclose // Dial says not to close it
		&websocket.DialOptions{Subprotocols: []string{live.Protocol, header}})
	if err != nil {
		return nil, err
	}
	f := newFollower(row)
	f.conn = conn
	subscribe := fmt.Sprintf(`{"type":"subscribe","id":"0","channel":%q,"authorization":%s}`,
		live.Channel, plain.Bytes())
	if err := conn.Write(ctx, websocket.MessageText, []byte(subscribe)); err != nil {
		return nil, err
	}
	if _, body, err := conn.Read(ctx); err != nil || !bytes.Contains(body, []byte("success")) {
		return nil, fmt.Errorf("subscribe: %s, %w", body, err)
	}
	return f, nil
}

func newFollower(row string) *follower {
	return &follower{row: row, told: map[int]int64{}, arrived: map[int]time.Time{}}
}

// read takes what is pushed, until the connection ends.
func (f *follower) read(ctx context.Context) {
	for {
		_, body, err := f.conn.Read(ctx)
		if err != nil {
			return
		}
		var frame struct{ Type, Event string }
		var row liveRow
		if err := json.Unmarshal(body, &frame); err != nil || frame.Type != "data" {
			continue // a keep-alive frame
		}
		err = json.Unmarshal([]byte(frame.Event), &row)
		f.take(row, err)
	}
}

// take keeps the batch of a message, and the states of the row. A message of the row that comes
// twice, or goes back, is an error.
func (f *follower) take(row liveRow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.batches); n == 0 || f.batches[n-1] != row.AsOf {
		f.batches = append(f.batches, row.AsOf)
	}
	if err == nil && row.ProductID+" "+row.WarehouseID != f.row {
		return
	}
	switch {
	case err != nil:
		f.err = err
	case row.AsOf <= f.asOf:
		f.err = fmt.Errorf("a message as of %d came after one as of %d", row.AsOf, f.asOf)
	}
	f.asOf, f.available = row.AsOf, row.AvailableStock
	f.arrived[row.AvailableStock], f.told[row.AvailableStock] = time.Now(), row.AsOf
}

// has reports whether the page has been told of a state, or of a later one.
func (f *follower) has(available int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf > 0 && f.available <= available
}

// TestAChangeReachesFiveHundredPages reserves units one after another, while another stock row
// changes all the time. Each of 500 connections must hear of each change with the first batch that
// begins after it, and must get every batch. None may take too much of the server's memory.
//
// How long that takes depends on the machine, so the test asserts no time. It logs the median and
// the 99th percentile, and how much memory the server has. For these figures run it alone, without
// -race:
//
//	go test ./internal/cmd/local -run TestAChangeReachesFiveHundredPages -v
func TestAChangeReachesFiveHundredPages(t *testing.T) {
	s := startLiveServer(t)
	const product, warehouse, another = "0192d000-0000-7000-8000-000000000103",
		"0192d000-0000-7000-8000-000000000001", "0192d000-0000-7000-8000-000000000002"
	line := fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1}`, product, warehouse)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	before := s.inUse()
	pages := s.followAll(ctx, product+" "+warehouse)
	var reading sync.WaitGroup
	defer reading.Wait()
	for _, p := range pages {
		reading.Go(func() { p.read(ctx) })
		defer func() { _ = p.conn.CloseNow() }()
	}
	connected := s.inUse()

	available := s.available(product, warehouse)
	stop := s.stir(fmt.Sprintf(`{"productId":%q,"warehouseId":%q,"quantity":1}`, product, another))
	defer stop()
	changes := map[int]change{} // by how many units are left
	for n := range liveChanges {
		part := float64(n*liveStride%liveChanges) + 0.5
		<-time.After(time.Duration(part / liveChanges * float64(time.Second)))
		available--
		changes[available] = s.reserve(product, line)
		for _, p := range pages {
			waitUntil(t, func() bool { return p.has(available) })
		}
	}
	stop()
	if err := checkBatches(pages, changes); err != nil {
		t.Error(err)
	}
	latencies := latenciesOf(t, pages, changes)
	t.Logf("%d changes on %d connections: %d messages; after the answer p50 %v, p99 %v, most %v",
		liveChanges, len(pages), len(latencies), at(latencies, 0.50), at(latencies, 0.99),
		latencies[len(latencies)-1].Round(time.Millisecond))
	each := (connected - before) / livePages >> 10
	t.Logf("memory of the server: %d MB in use alone, %d MB connected: %d KB a connection; "+
		"%d MB resident at the end", before>>20, connected>>20, each, s.resident())
	if each < leastMemory || each > mostMemory {
		t.Errorf("a connection takes %d KB, want %d to %d", each, leastMemory, mostMemory)
	}
}

// followAll connects all pages, some at once.
func (s *liveServer) followAll(ctx context.Context, row string) []*follower {
	s.t.Helper()
	pages, errs := make([]*follower, livePages), make([]error, livePages)
	var connecting sync.WaitGroup
	slots := make(chan struct{}, 32)
	for n := range pages {
		slots <- struct{}{}
		connecting.Go(func() {
			defer func() { <-slots }()
			pages[n], errs[n] = s.follow(ctx, row)
		})
	}
	connecting.Wait()
	for _, err := range errs {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return pages
}

func (s *liveServer) available(product, warehouse string) int {
	s.t.Helper()
	var found struct {
		Inventories []struct {
			WarehouseID    string
			AvailableStock int
		}
	}
	text := get(s.t, s.url+"/api/products/"+product)
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		s.t.Fatal(err)
	}
	for _, row := range found.Inventories {
		if row.WarehouseID == warehouse {
			return row.AvailableStock
		}
	}
	s.t.Fatal("the warehouse doesn't stock the product")
	return 0
}

// latenciesOf returns how long after its answer each change reached each page, in order. A change
// that a newer one has overtaken isn't among them.
func latenciesOf(t *testing.T, pages []*follower, changes map[int]change) []time.Duration {
	t.Helper()
	var out []time.Duration
	for _, p := range pages {
		p.mu.Lock()
		if p.err != nil {
			t.Error(p.err)
		}
		for available, c := range changes {
			if arrived, ok := p.arrived[available]; ok {
				out = append(out, max(0, arrived.Sub(c.answered)))
			}
		}
		p.mu.Unlock()
	}
	slices.Sort(out)
	return out
}

func at(sorted []time.Duration, part float64) time.Duration {
	return sorted[int(part*float64(len(sorted)-1))].Round(time.Millisecond)
}

// checkBatches wants all pages to have had the same batches from the first change to the last one,
// and to have heard of each change in time.
func checkBatches(pages []*follower, changes map[int]change) error {
	var first []int64
	for n, p := range pages {
		batches, err := p.heard(changes)
		switch {
		case err != nil:
			return fmt.Errorf("page %d: %w", n, err)
		case n == 0:
			first = batches
		case !slices.Equal(batches, first):
			return fmt.Errorf("page %d had the batches %d, and page 0 had %d", n, batches, first)
		}
	}
	return nil
}

// heard returns the batches that the page had from the first change to the message of the last one.
// Its error is a change that the page didn't hear of in time.
func (f *follower) heard(changes map[int]change) ([]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to := int64(math.MaxInt64), int64(0)
	for available, c := range changes {
		told, ok := f.told[available]
		if !ok {
			return nil, fmt.Errorf("it didn't hear that %d units are available", available)
		}
		between := 0
		for _, batch := range f.batches {
			if c.asOf < batch && batch < told {
				between++
			}
		}
		if between > mostBetween {
			return nil, fmt.Errorf("%d batches came between tick %d and batch %d with the change to "+
				"%d units, want at most %d", between, c.asOf, told, available, mostBetween)
		}
		from, to = min(from, c.asOf), max(to, told)
	}
	return slices.DeleteFunc(slices.Clone(f.batches), func(batch int64) bool {
		return batch <= from || batch > to
	}), nil
}

// The control: a page that misses a batch, or that hears of a change late, is found.
func TestAPageThatMissesABatchIsFound(t *testing.T) {
	t.Parallel()

	const row = "product warehouse"
	changes := map[int]change{9: {asOf: 1}, 8: {asOf: 4}}
	// page is a page that has had batches, each with a stock row. A negative one has another row.
	page := func(batches ...int64) *follower {
		p, available := newFollower(row), 9
		for _, batch := range batches {
			message := liveRow{ProductID: "product", WarehouseID: "warehouse", AsOf: max(batch, -batch)}
			if batch < 0 {
				message.WarehouseID = "another"
			} else {
				message.AvailableStock = available
				available--
			}
			p.take(message, nil)
		}
		return p
	}
	for name, c := range map[string]struct {
		other *follower
		want  string
	}{
		"it hears all":                    {page(-1, -2, 3, -5, 6), ""},
		"it has had other batches before": {page(-2, 3, -5, 6), ""},
		"it has more batches behind":      {page(-1, -2, 3, -5, 6, -7), ""},
		"it misses a batch":               {page(-1, 3, -5, 6), "page 1 had the batches"},
		"it hears of a change later":      {page(-1, -2, 3, -5, -6, 7), "2 batches came between"},
		"it never hears of a change":      {page(-1, -2, 3, -5), "didn't hear that 8 units"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := checkBatches([]*follower{page(-1, -2, 3, -5, 6), c.other}, changes)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("checkBatches() = %v, want %q", err, c.want)
			}
		})
	}
}
