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
	"strings"
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

// relayOf makes a process of the test binary a relay. The tests set it, and the other two, for
// processes of their own.
var (
	relayOf   = flag.String("relay-of", "", "URL of the database whose events the process publishes")
	relayAcks = flag.Int("relay-acks", -1, "pages of each place that the process acknowledges; then "+
		"it stops, with a page that isn't; -1 means all")
	relayHasty = flag.Bool("relay-hasty", false, "acknowledge each page before it is published")
)

// told is a line that a relay's process writes: an event that its sink accepted, a place of which
// it acknowledged a page, the place that it can't have any more because another relay has its
// lease, or the place at which it has stopped.
type told struct {
	Process int
	Event   *events.Event
	Acked   string
	Refused string
	Stopped string
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
	next := out.watch(box.Next)
	if *relayHasty {
		next = out.ackFirst(next)
	} else if *relayAcks >= 0 {
		next = out.stopAtAck(next)
	}
	relay := events.NewRelay(next, map[string]events.Sink{"topic": out},
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

// stopAtAck makes an outbox at which each place stops before it acknowledges a page with events,
// when it has acknowledged as many as it may.
func (l *lineSink) stopAtAck(next events.Outbox) events.Outbox {
	acks, full := map[string]int{}, map[string]bool{}
	return func(ctx context.Context, r events.Request) (events.Page, error) {
		l.mu.Lock()
		acking := full[r.Sink] && r.Ack != ""
		stops := acking && acks[r.Sink] == *relayAcks
		l.mu.Unlock()
		if stops {
			return events.Page{}, l.stop(ctx, r.Sink)
		}
		page, err := next(ctx, r)
		if err != nil {
			return page, err
		}
		l.mu.Lock()
		full[r.Sink] = len(page.Events) > 0
		if acking {
			acks[r.Sink]++
		}
		l.mu.Unlock()
		if acking {
			err = l.write(told{Acked: r.Sink})
		}
		return page, err
	}
}

// ackFirst makes an outbox that acknowledges each page with events before the relay has it. When a
// place has acknowledged more pages than it may, it stops. That is the control.
func (l *lineSink) ackFirst(next events.Outbox) events.Outbox {
	acks := map[string]int{}
	return func(ctx context.Context, r events.Request) (events.Page, error) {
		page, err := next(ctx, r)
		if err != nil || len(page.Events) == 0 {
			return page, err
		}
		early := r
		early.Ack, early.Parked, early.Failure = page.Position, nil, ""
		if _, err := next(ctx, early); err != nil {
			return page, err
		}
		l.mu.Lock()
		acks[r.Sink]++
		stops := acks[r.Sink] > *relayAcks
		l.mu.Unlock()
		if stops {
			return page, l.stop(ctx, r.Sink)
		}
		return page, nil
	}
}

// stop says that a place has stopped, and waits for the end of the process.
func (l *lineSink) stop(ctx context.Context, place string) error {
	if err := l.write(told{Stopped: place}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// relaySet is a database and the processes that publish its events.
type relaySet struct {
	*feed
	t         *testing.T
	url       string
	row       reservation.Line
	to        *os.File // where the processes write
	processes []*exec.Cmd
	news      chan struct{} // has an element when a line came
	reading   sync.WaitGroup

	mu   sync.Mutex
	sink *recorder
	// by has the events that each process published, refused the leases that it lost, and stopped the
	// places at which it has stopped, by the process's id.
	by      map[int]map[string]bool
	refused map[int]int
	stopped map[int]map[string]bool
	// unacked has the events that were published since the last acknowledgement, by place.
	unacked map[string]map[string]bool
}

func newRelaySet(t *testing.T) *relaySet {
	t.Helper()
	db := pgtest.New(t)
	p := &relaySet{
		feed: newFeed(t, db, 4), t: t, url: db.DirectURL, news: make(chan struct{}, 1),
		sink: newRecorder(), by: map[int]map[string]bool{}, refused: map[int]int{},
		stopped: map[int]map[string]bool{}, unacked: map[string]map[string]bool{},
	}
	p.row = reservation.Line{ProductID: p.db.Product(), WarehouseID: p.db.Warehouse(), Quantity: 1}
	p.db.Stock(p.row.ProductID, p.row.WarehouseID, 1_000_000)
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.to = to
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	p.reading.Go(func() {
		scanner := bufio.NewScanner(from)
		for scanner.Scan() {
			p.hear(scanner.Bytes())
		}
	})
	return p
}

// newRelayPair starts two processes. The first one gets both leases, and the second one waits for
// them.
func newRelayPair(t *testing.T) *relaySet {
	t.Helper()
	p := newRelaySet(t)
	for range 2 {
		p.start()
		p.db.WaitUntil("SELECT count(*) = 2 FROM sinks WHERE leased_until > clock_timestamp()")
	}
	return p
}

// start starts a process that writes its lines to the shared file.
func (p *relaySet) start(flags ...string) *exec.Cmd {
	p.t.Helper()
	command := exec.CommandContext(p.t.Context(), os.Args[0], append(flags, "-relay-of="+p.url)...)
	command.ExtraFiles, command.Stderr = []*os.File{p.to}, os.Stderr
	p.mu.Lock() // before its first line is heard
	defer p.mu.Unlock()
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.kill(command) })
	p.processes = append(p.processes, command)
	p.by[command.Process.Pid] = map[string]bool{}
	p.stopped[command.Process.Pid] = map[string]bool{}
	return command
}

// kill ends a process, also one that is frozen or has ended.
func (p *relaySet) kill(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}

func (p *relaySet) hear(text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var line told
	switch err := json.Unmarshal(text, &line); {
	case err != nil:
		p.sink.faults = append(p.sink.faults, fmt.Errorf("read the line %s: %w", text, err))
	case line.Event != nil:
		p.sink.Publish(p.t.Context(), []events.Event{*line.Event})
		p.by[line.Process][line.Event.ID] = true
		place := placeOf(line.Event.Type)
		if p.unacked[place] == nil {
			p.unacked[place] = map[string]bool{}
		}
		p.unacked[place][line.Event.ID] = true
	case line.Acked != "":
		p.unacked[line.Acked] = nil
	case line.Stopped != "":
		p.stopped[line.Process][line.Stopped] = true
	default:
		p.refused[line.Process]++
	}
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// wait waits until a condition holds, and looks at it when a line comes.
func (p *relaySet) wait(what string, holds func() bool) {
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
func (p *relaySet) trade(n int) (fresh []string) {
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
func (p *relaySet) publishedBy(process int, ids []string) (n int) {
	for _, id := range ids {
		if p.by[process][id] {
			n++
		}
	}
	return n
}

// tradeAll trades, and waits until each event was published by one of the processes.
func (p *relaySet) tradeAll(n int) (fresh []string) {
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
func (p *relaySet) freeze(process int) {
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

func (p *relaySet) signal(process int, s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(process, s); err != nil {
		p.t.Fatal(err)
	}
}

// finish ends the processes, publishes the rest, and returns what is wrong.
func (p *relaySet) finish() []error {
	p.t.Helper()
	for _, command := range p.processes {
		p.kill(command)
	}
	_ = p.to.Close()
	p.reading.Wait()
	p.db.EndSessions() // those of the processes may still claim
	p.db.Exec("UPDATE sinks SET leased_until = '-infinity'")
	p.drain(p.t, p.sink)
	return p.sink.compare(p.written(p.t))
}

// mustFinish is finish for a test in which nothing may be wrong.
func (p *relaySet) mustFinish() {
	p.t.Helper()
	for _, err := range p.finish() {
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
	p.mustFinish()
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

// placeOf is the place from which events of a type are published.
func placeOf(eventType string) string {
	if eventType == events.TypeMoved {
		return "topic-stock"
	}
	return "topic-holds"
}

// killAtAPage starts a process that acknowledges some pages of each place and then stops at one
// more. When both places have stopped, it kills the process (SIGKILL) and ends its leases. It
// returns the number of events that the process has published and not acknowledged.
func (p *relaySet) killAtAPage(flags ...string) (unacked int) {
	p.t.Helper()
	process := p.start(flags...)
	hasStopped := func(place string) bool { return p.stopped[process.Process.Pid][place] }
	for stopped := false; !stopped; {
		fresh := p.trade(1)
		p.wait("stop, or publish all", func() bool {
			stopped = hasStopped("topic-holds") && hasStopped("topic-stock")
			for _, id := range fresh {
				place := "topic-holds"
				if strings.Contains(id, p.row.WarehouseID.String()) {
					place = "topic-stock"
				}
				if !stopped && !hasStopped(place) && p.sink.types[id] == "" {
					return false
				}
			}
			return true
		})
	}
	p.kill(process)
	p.db.Exec("UPDATE sinks SET leased_until = '-infinity'") // no request was on its way
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ids := range p.unacked {
		unacked += len(ids)
	}
	return unacked
}

// A relay is killed when it has published pages that it hasn't acknowledged. The next one publishes
// just these events again, and nothing is lost.
func TestARelayKilledBeforeItsAckPublishesThePageAgain(t *testing.T) {
	p := newRelaySet(t)
	kills, twice := 20, 0
	if testing.Short() {
		kills = 4
	}
	for n := range kills {
		unacked := p.killAtAPage(fmt.Sprint("-relay-acks=", n%3))
		if twice += unacked; unacked == 0 {
			t.Errorf("kill %d: the relay had no page that it hadn't acknowledged", n)
		}
	}
	p.mustFinish()
	if p.sink.repeats != twice {
		t.Errorf("%d events came twice, want the %d that weren't acknowledged", p.sink.repeats, twice)
	}
	t.Logf("%d kills: %d events, %d of them came twice", kills, len(p.sink.types), twice)
}

// The control: a relay that acknowledges a page and then publishes it.
func TestARelayThatAcknowledgesFirstLosesThePage(t *testing.T) {
	p := newRelaySet(t)
	p.killAtAPage("-relay-acks=1", "-relay-hasty")
	lost := 0
	for _, err := range p.finish() {
		if strings.Contains(err.Error(), `is "", want`) {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no event was lost: the control proves nothing")
	}
	t.Logf("%d events were lost", lost)
}
