package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/postgres"
	"github.com/allo/reservations/internal/reservation"
)

// relayOf makes a process of the test binary a relay. The tests set it for processes of their own.
var relayOf = flag.String("relay-of", "", "URL of the database whose events the process publishes")

// told is a line that a relay's process writes: an event that its sink accepted, or the place that
// it can't have any more because another relay has its lease.
type told struct {
	Process int
	Event   *events.Event
	Refused string
}

// publishFrom publishes the events of a database until the process is killed. It writes a line to
// the file 3 for each event and each lost lease. Two processes share the file: a line is so short
// that no other one gets into it.
func publishFrom(databaseURL string) error {
	pool, err := postgres.Open(postgres.URL(databaseURL), 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	box := outbox.New(reservation.New(pool, reservation.Options{}), outbox.Options{Source: "faults"})
	out := &lineSink{to: os.NewFile(3, "lines"), leased: map[string]bool{}}
	relay := events.NewRelay(out.watch(box.Next), map[string]events.Sink{"topic": out},
		events.Options{
			For: time.Hour, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		})
	return relay.Run(context.Background())
}

// lineSink is a sink that writes each event as a line. It takes some time, so that a process is
// often frozen within a page.
type lineSink struct {
	to     *os.File
	mu     sync.Mutex
	leased map[string]bool // by place
}

func (l *lineSink) Publish(_ context.Context, batch []events.Event) []error {
	time.Sleep(5 * time.Millisecond)
	errs := make([]error, len(batch))
	for i, e := range batch {
		errs[i] = l.write(told{Event: &e})
	}
	return errs
}

func (l *lineSink) write(line told) error {
	line.Process = os.Getpid()
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_, err = l.to.Write(append(text, '\n'))
	return err
}

// watch makes an outbox that also writes a line when it refuses a lease that the relay had.
func (l *lineSink) watch(next events.Outbox) events.Outbox {
	return func(ctx context.Context, r events.Request) (events.Page, error) {
		page, err := next(ctx, r)
		if err != nil {
			return page, err
		}
		l.mu.Lock()
		had := l.leased[r.Sink]
		l.leased[r.Sink] = page.Leased
		l.mu.Unlock()
		if had && !page.Leased {
			err = l.write(told{Refused: r.Sink})
		}
		return page, err
	}
}

// relayPair is a database and two processes that publish its events. One has the leases.
type relayPair struct {
	*feed
	t         *testing.T
	row       reservation.Line
	processes [2]*exec.Cmd
	news      chan struct{} // has an element when a line came
	reading   sync.WaitGroup

	mu   sync.Mutex
	sink *recorder
	// by has the events that each process published, and refused the leases that it lost, by the
	// process's id.
	by      map[int]map[string]bool
	refused map[int]int
}

func newRelayPair(t *testing.T) *relayPair {
	t.Helper()
	db := pgtest.New(t)
	p := &relayPair{
		feed: newFeed(t, db, 4), t: t, news: make(chan struct{}, 1), sink: newRecorder(),
		by: map[int]map[string]bool{}, refused: map[int]int{},
	}
	p.row = reservation.Line{ProductID: p.db.Product(), WarehouseID: p.db.Warehouse(), Quantity: 1}
	p.db.Stock(p.row.ProductID, p.row.WarehouseID, 1_000_000)
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close() })
	for i := range p.processes {
		p.processes[i] = p.start(db.DirectURL, to)
		// The first one gets both leases, and the second one waits for them.
		p.db.WaitUntil("SELECT count(*) = 2 FROM sinks WHERE leased_until > clock_timestamp()")
	}
	_ = to.Close()
	p.reading.Go(func() {
		scanner := bufio.NewScanner(from)
		for scanner.Scan() {
			p.hear(scanner.Bytes())
		}
	})
	return p
}

// start starts a process that writes its lines to a file.
func (p *relayPair) start(databaseURL string, to *os.File) *exec.Cmd {
	p.t.Helper()
	command := exec.CommandContext(p.t.Context(), os.Args[0], "-relay-of="+databaseURL)
	command.ExtraFiles, command.Stderr = []*os.File{to}, os.Stderr
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.kill(command) })
	p.by[command.Process.Pid] = map[string]bool{}
	return command
}

// kill ends a process, also one that is frozen or has ended.
func (p *relayPair) kill(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}

func (p *relayPair) hear(text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var line told
	switch err := json.Unmarshal(text, &line); {
	case err != nil:
		p.sink.faults = append(p.sink.faults, fmt.Errorf("read the line %s: %w", text, err))
	case line.Event != nil:
		p.sink.Publish(p.t.Context(), []events.Event{*line.Event})
		p.by[line.Process][line.Event.ID] = true
	default:
		p.refused[line.Process]++
	}
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// wait waits until a condition holds, and looks at it when a line comes.
func (p *relayPair) wait(what string, holds func() bool) {
	p.t.Helper()
	ctx := withTimeout(p.t, testLimit)
	for {
		p.mu.Lock()
		done := holds()
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-p.news:
		case <-ctx.Done():
			p.t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

// trade sells n holds and returns the ids of their events.
func (p *relayPair) trade(n int) (fresh []string) {
	p.t.Helper()
	before := p.written(p.t)
	for range n {
		answer, err := p.service.Reserve(p.t.Context(),
			reservation.Request{Lines: []reservation.Line{p.row}})
		if err == nil {
			_, err = p.service.Confirm(p.t.Context(), answer.Hold.ID, "")
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	for id := range p.written(p.t) {
		if before[id] == "" {
			fresh = append(fresh, id)
		}
	}
	return fresh
}

// publishedBy counts the events that a process has published of these.
func (p *relayPair) publishedBy(process int, ids []string) (n int) {
	for _, id := range ids {
		if p.by[process][id] {
			n++
		}
	}
	return n
}

// tradeAll trades, and waits until each event was published by one of the processes.
func (p *relayPair) tradeAll(n int) (fresh []string) {
	p.t.Helper()
	fresh = p.trade(n)
	p.wait("publish all", func() bool {
		for _, id := range fresh {
			if p.sink.types[id] == "" {
				return false
			}
		}
		return true
	})
	return fresh
}

// freeze stops a process while it publishes, and returns when its leases have ended and the other
// process has them and publishes.
func (p *relayPair) freeze(process int) {
	p.t.Helper()
	fresh := p.trade(20)
	p.wait("publish some", func() bool { return p.publishedBy(process, fresh) > 0 })
	leases := pgtest.QueryOne[[]string](p.db,
		"SELECT array_agg(lease::text) FROM sinks WHERE leased_until > clock_timestamp()")
	p.signal(process, syscall.SIGSTOP)
	// A request that was on its way may still renew a lease.
	p.db.WaitUntil(`
WITH ended AS (
    UPDATE sinks SET leased_until = clock_timestamp() WHERE lease::text = ANY ($1) RETURNING lease
)
SELECT count(*) = 0 FROM ended`, leases)
	p.tradeAll(10)
}

func (p *relayPair) signal(process int, s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(process, s); err != nil {
		p.t.Fatal(err)
	}
}

// finish ends the processes, publishes the rest, and compares.
func (p *relayPair) finish() {
	p.t.Helper()
	for _, command := range p.processes {
		p.kill(command)
	}
	p.reading.Wait()
	p.db.EndSessions() // those of the processes may still claim
	p.db.Exec("UPDATE sinks SET leased_until = '-infinity'")
	p.drain(p.t, p.sink)
	for _, err := range p.sink.compare(p.written(p.t)) {
		p.t.Error(err)
	}
}

// A process that publishes is frozen past its leases, and another one goes on in its place. When it
// thaws, it may publish the page that it had. It publishes nothing that is new, as long as the
// other one has the leases. Then the other one is frozen. Nothing is lost, and the first time that
// each event comes is in order.
func TestAFrozenRelayLeavesTheFeedToAnother(t *testing.T) {
	p := newRelayPair(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		frozen := p.processes[round%2].Process.Pid
		p.mu.Lock()
		before := p.refused[frozen]
		p.mu.Unlock()
		p.freeze(frozen)
		p.signal(frozen, syscall.SIGCONT)
		p.wait("lose both leases", func() bool { return p.refused[frozen] == before+2 })
		fresh := p.tradeAll(20)
		p.mu.Lock()
		n := p.publishedBy(frozen, fresh)
		p.mu.Unlock()
		if n != 0 {
			t.Errorf("round %d: the relay that lost its leases published %d of %d new events", round, n,
				len(fresh))
		}
	}
	p.finish()
	t.Logf("%d freezes: %d events, %d of them came twice", rounds, len(p.sink.types), p.sink.repeats)
}

// The control: without the fencing the relay goes on beside the other one.
func TestWithoutFencingAFrozenRelayGoesOn(t *testing.T) {
	p := newRelayPair(t)
	frozen := p.processes[0].Process.Pid
	p.freeze(frozen)
	pgtest.Mutate(t, p.db.Database, "claim_sink", "(s.lease = _lease AND ", "(true AND ")
	p.signal(frozen, syscall.SIGCONT)
	for range 100 {
		fresh := p.tradeAll(5)
		p.mu.Lock()
		n := p.publishedBy(frozen, fresh)
		p.mu.Unlock()
		if n > 0 {
			return
		}
	}
	t.Error("the relay that lost its leases published nothing new: the control proves nothing")
}
