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

// reserve holds a unit, and returns the time of the answer.
func (s *liveServer) reserve(line string) time.Time {
	s.t.Helper()
	response, err := http.Post(s.url+"/api/reservations", "application/json", strings.NewReader(line))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		s.t.Fatalf("a reservation gets %d", response.StatusCode)
	}
	return time.Now()
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
	arrived   map[int]time.Time // by how many units were available
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
	f := &follower{conn: conn, row: row, arrived: map[int]time.Time{}}
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
		if row.ProductID+" "+row.WarehouseID == f.row {
			f.take(row, err)
		}
	}
}

// take keeps the first message of each state. A state that comes twice, or goes back, is an error.
func (f *follower) take(row liveRow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		f.err = err
	case row.AsOf <= f.asOf:
		f.err = fmt.Errorf("a message as of %d came after one as of %d", row.AsOf, f.asOf)
	}
	f.asOf, f.available = row.AsOf, row.AvailableStock
	f.arrived[row.AvailableStock] = time.Now()
}

// has reports whether the page has been told of a state, or of a later one.
func (f *follower) has(available int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf > 0 && f.available <= available
}

// TestAChangeReachesFiveHundredPages reserves units one after another. Each of 500 connections must
// hear of each change once, or of a newer state, and none may take too much of the server's memory.
// The test logs how long that took and how much memory the server has. For these figures run it
// alone, without -race:
//
//	go test ./internal/cmd/local -run TestAChangeReachesFiveHundredPages -v
func TestAChangeReachesFiveHundredPages(t *testing.T) {
	s := startLiveServer(t)
	const product, warehouse = "0192d000-0000-7000-8000-000000000103",
		"0192d000-0000-7000-8000-000000000001"
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
	answered := map[int]time.Time{} // by how many units are left
	for n := range liveChanges {
		part := float64(n*liveStride%liveChanges) + 0.5
		<-time.After(time.Duration(part / liveChanges * float64(time.Second)))
		available--
		answered[available] = s.reserve(line)
		for _, p := range pages {
			waitUntil(t, func() bool { return p.has(available) })
		}
	}
	latencies := latenciesOf(t, pages, answered)
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
func latenciesOf(t *testing.T, pages []*follower, answered map[int]time.Time) []time.Duration {
	t.Helper()
	var out []time.Duration
	for _, p := range pages {
		p.mu.Lock()
		if p.err != nil {
			t.Error(p.err)
		}
		for available, when := range answered {
			if arrived, ok := p.arrived[available]; ok {
				out = append(out, max(0, arrived.Sub(when)))
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
