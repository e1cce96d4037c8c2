package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events/channel"
)

// The bounds of a relay's work.
const (
	// maxPublishes is how many calls of a sink's Publish run at once, for both of its places. They
	// take turns when both wait.
	maxPublishes = 8
	// maxRefusals is how often a sink must refuse an event for good until the relay parks it.
	maxRefusals = 5
	// defaultPoll is the pause after an empty page, and defaultRetry the first one after a failure.
	defaultPoll, defaultRetry = time.Second, time.Second
	// busyPolls is how often in a Poll the relay asks for a place's next page while each has events.
	// Then more come while a page is published: without a pause each page would have a few events, and
	// the calls of the outbox and of the sinks would be many.
	busyPolls = 2
	// newsPolls is how often in a Poll it asks when something is new and no tick is due yet.
	newsPolls = 4
	// maxRetry is the longest pause after a failure, in first pauses.
	maxRetry = 30
	// pageLimit is how long a page is published before what was done of it is acknowledged.
	pageLimit = 10 * time.Second
	// drainLimit ends a run that drains.
	drainLimit = 55 * time.Second
	// releaseLimit bounds the last request of a run, which gives the lease back.
	releaseLimit = 5 * time.Second
	// metricsInterval is how often a run writes its metrics.
	metricsInterval = 10 * time.Second
)

// Outbox answers a relay's request. It is a Lambda function, or a call in this process.
type Outbox func(ctx context.Context, request Request) (Page, error)

// Options are the settings of a Relay.
type Options struct {
	// For is how long a run goes on. Zero means that it ends when nothing is left, or after 55 s.
	For time.Duration
	// Poll is the pause after an empty page. While pages have events and no other is ready, the next
	// one is asked for half a Poll after the last one came. Zero means a second.
	Poll time.Duration
	// Retry is the pause before a page is published again, or the outbox is asked again. Each pause
	// is twice the one before, up to thirty times Retry. Zero means a second.
	Retry time.Duration
	// Live takes the messages of the live channel, or is nil where there is none.
	Live channel.Publisher
	Log  *slog.Logger
	// Metrics may be nil.
	Metrics *emf.Writer
}

// Relay publishes the pages of the outbox to sinks.
type Relay struct {
	outbox Outbox
	sinks  map[string]Sink
	opts   Options
}

// NewRelay makes a Relay. sinks has each sink by its name, such as "topic".
func NewRelay(outbox Outbox, sinks map[string]Sink, opts Options) *Relay {
	if opts.Poll == 0 {
		opts.Poll = defaultPoll
	}
	if opts.Retry == 0 {
		opts.Retry = defaultRetry
	}
	return &Relay{outbox: outbox, sinks: sinks, opts: opts}
}

// Run publishes from both places of all sinks side by side, and the live channel beside them, until
// its time is over or ctx is done.
// It returns an error when a place's last page couldn't be published, or when the outbox didn't
// answer at the end. Nothing is lost then: the next run publishes the page.
func (r *Relay) Run(ctx context.Context) error {
	var runs []*run
	for _, name := range slices.Sorted(maps.Keys(r.sinks)) {
		slots := make(chan struct{}, maxPublishes)
		for _, place := range Places(name) {
			runs = append(runs, r.newRun(name, place, slots))
		}
	}
	r.makeSinks(ctx, runs)
	errs := make([]error, len(runs)+1)
	var done sync.WaitGroup
	if r.opts.Live != nil {
		done.Go(func() {
			if err := r.newLive().loop(ctx); err != nil {
				errs[len(runs)] = fmt.Errorf("the live channel: %w", err)
				r.opts.Log.Error("relay", "place", "live", "error", err.Error())
			}
		})
	}
	for i, one := range runs {
		done.Go(func() {
			if err := one.loop(ctx); err != nil {
				errs[i] = fmt.Errorf("the place %s: %w", one.place, err)
				r.opts.Log.Error("relay", "place", one.place, "error", err.Error())
			}
		})
	}
	done.Wait()
	return errors.Join(errs...)
}

// makeSinks asks for a page of each place before any is published, so that the outbox has made
// every sink: those of a new feed begin together, with all that was ever written. The loops ask for
// the same pages again, and see to an outbox that doesn't answer.
func (r *Relay) makeSinks(ctx context.Context, runs []*run) {
	if len(r.sinks) < 2 {
		return
	}
	for _, one := range runs {
		_, _ = r.outbox(ctx, one.request())
	}
}

// run is a relay's run for one place of a sink.
type run struct {
	*Relay
	place string
	sink  Sink
	slots chan struct{} // has an element for each call of the sink that runs, from both places
	lease string
	end   time.Time
	cut   time.Time // of the present page
	meter meter
	// failures counts the tries of the outbox, or of the page, that failed since the last success.
	failures int
	// The fates of the events that aren't acknowledged, by their ids. When they come again, those that
	// were accepted or parked aren't published.
	accepted map[string]bool
	refusals map[string]int
	parked   []Parked
	// aside has the subjects of parked events.
	aside map[string]bool
}

func (r *Relay) newRun(name, place string, slots chan struct{}) *run {
	limit := r.opts.For
	if limit == 0 {
		limit = drainLimit
	}
	one := &run{
		Relay: r, place: place, sink: r.sinks[name], slots: slots, lease: uuid.NewString(),
		end: time.Now().Add(limit), meter: newMeter(r.opts.Metrics, name, place),
	}
	one.forget()
	return one
}

// forget forgets the fates of all events.
func (r *run) forget() {
	r.accepted, r.refusals = map[string]bool{}, map[string]int{}
	r.parked, r.aside = nil, map[string]bool{}
}

// loop asks for a page, publishes it, and acknowledges with the next request what was done of it.
// The last request gives the lease back, so that the next run needn't wait until it ends.
func (r *run) loop(ctx context.Context) error {
	request := r.request()
	var failure error
	for r.goesOn(ctx) {
		page, err := r.outbox(ctx, request)
		came := time.Now()
		switch {
		case err != nil:
			failure = fmt.Errorf("ask the outbox: %w", err)
			r.opts.Log.Warn("the outbox didn't answer", "place", r.place, "error", err.Error())
			r.backOff(ctx) // and ask the same again: an ack that was kept is kept again
			continue
		case !page.Leased || page.Place != r.place:
			failure, request = nil, r.request()
			r.forget()
			if r.opts.For == 0 {
				return nil // another relay publishes from the place
			}
			r.pause(ctx, r.opts.Poll)
			continue
		}
		r.meter.see(page)
		request = r.request()
		if page.Position == "" {
			failure, r.failures = nil, 0
			if r.opts.For == 0 && !page.More {
				break
			}
			r.awaitNews(ctx, page)
			continue
		}
		failure = r.publish(ctx, page.Events)
		request.Ack, request.Parked = r.settled(page)
		if failure == nil || request.Ack != "" {
			r.failures = 0
		}
		if failure != nil {
			r.opts.Log.Warn("a page wasn't published whole", "place", r.place, "error", failure.Error())
			request.Failure = failure.Error()
			r.backOff(ctx)
		} else if request.Ack == page.Position && !page.More && r.opts.For > 0 {
			r.pause(ctx, time.Until(came.Add(r.opts.Poll/busyPolls)))
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		failure = nil // the process is stopping
	}
	return errors.Join(failure, r.release(ctx, request))
}

func (r *run) request() Request {
	return Request{Sink: r.place, Lease: r.lease, Patient: true}
}

func (r *run) goesOn(ctx context.Context) bool {
	return ctx.Err() == nil && time.Now().Before(r.end)
}

// settled returns how the next request acknowledges a page: the place behind the longest part from
// its beginning of which each event was accepted or parked, and the parked events of that part. It
// forgets the part's fates. It acknowledges nothing when an outbox of the previous release gave the
// events no places, unless the part is the whole page.
func (r *run) settled(page Page) (ack string, parked []Parked) {
	isParked := map[string]Parked{}
	for _, p := range r.parked {
		isParked[p.ID] = p
	}
	n := slices.IndexFunc(page.Events, func(e Event) bool {
		_, refused := isParked[e.ID]
		return !refused && !r.accepted[e.ID]
	})
	switch {
	case n < 0:
		parked = r.parked
		r.forget()
		return page.Position, parked
	case n == 0 || page.Events[n-1].Position == "":
		return "", nil
	}
	for _, e := range page.Events[:n] {
		if p, refused := isParked[e.ID]; refused {
			parked = append(parked, p)
		}
		delete(r.accepted, e.ID)
		delete(r.refusals, e.ID)
	}
	r.parked = slices.DeleteFunc(r.parked, func(p Parked) bool { return slices.Contains(parked, p) })
	r.aside = map[string]bool{} // the outbox leaves the other parked subjects out from now on
	for _, p := range r.parked {
		r.aside[p.Subject] = true
	}
	return page.Events[n-1].Position, parked
}

// release acknowledges the last page and gives the lease back, even when ctx is done.
func (r *run) release(ctx context.Context, request Request) error {
	defer r.meter.write()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	request.Release = true
	if _, err := r.outbox(ctx, request); err != nil {
		return fmt.Errorf("give the lease back: %w", err)
	}
	return nil
}

// backOff waits before the next try: for 1, 2, 4 ... 30 seconds.
func (r *run) backOff(ctx context.Context) {
	r.pause(ctx, r.opts.Retry*time.Duration(min(1<<min(r.failures, 10), maxRetry)))
	r.failures++
}

// awaitNews waits after an empty page.
func (r *run) awaitNews(ctx context.Context, page Page) {
	if page.More {
		r.pause(ctx, r.opts.Poll/newsPolls)
		return
	}
	r.pause(ctx, r.opts.Poll)
}

// pause waits, but not beyond the end of the run.
func (r *run) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(min(d, time.Until(r.end)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publish sends the events of a page in waves: the first event of each subject, then the second of
// each, and so on. So an event is sent when the one before it was accepted. One that failed holds
// back its subject's later ones.
//
// A hot subject may have the whole page, with a call for each event. So publish begins no call
// after pageLimit, and none after the end of the run. It returns an error when the sink didn't
// accept an event that was sent, unless it was parked.
func (r *run) publish(ctx context.Context, page []Event) error {
	r.cut = time.Now().Add(pageLimit)
	if r.cut.After(r.end) {
		r.cut = r.end
	}
	var failures []error
	held := map[string]bool{}
	for _, wave := range waves(page) {
		wave = slices.DeleteFunc(wave, func(e Event) bool {
			return held[e.Subject] || r.accepted[e.ID] || r.parkBehind(e)
		})
		for i, err := range r.send(ctx, wave) {
			if err := r.settle(wave[i], err); err != nil {
				held[wave[i].Subject] = true
				if !errors.Is(err, errUnsent) {
					failures = append(failures, err)
				}
			}
		}
	}
	if len(failures) == 0 {
		return nil
	}
	return fmt.Errorf("%d events weren't accepted, the first one: %w", len(failures), failures[0])
}

// parkBehind parks an event whose subject has a parked one, and reports whether it has.
func (r *run) parkBehind(e Event) bool {
	if !r.aside[e.Subject] {
		return false
	}
	isParked := slices.ContainsFunc(r.parked, func(p Parked) bool { return p.ID == e.ID })
	if !isParked {
		r.park(e, "an earlier event of its subject is parked")
	}
	return true
}

func (r *run) park(e Event, reason string) {
	r.aside[e.Subject] = true
	r.parked = append(r.parked, Parked{ID: e.ID, Subject: e.Subject, Error: reason})
	r.opts.Log.Error("an event was parked", "place", r.place, "id", e.ID, "error", reason)
}

// settle records the sink's answer to an event. It returns the error if the event must be sent
// again.
func (r *run) settle(e Event, err error) error {
	if err == nil {
		r.accepted[e.ID] = true
		r.meter.published++
		return nil
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		if r.refusals[e.ID]++; r.refusals[e.ID] >= maxRefusals {
			r.park(e, refused.Reason)
			return nil
		}
	}
	return fmt.Errorf("event %s: %w", e.ID, err)
}

// waves splits a page. Each wave has one event of a subject at most, in the order of the page.
func waves(page []Event) [][]Event {
	var out [][]Event
	depth := map[string]int{}
	for _, e := range page {
		n := depth[e.Subject]
		depth[e.Subject]++
		if n == len(out) {
			out = append(out, nil)
		}
		out[n] = append(out[n], e)
	}
	return out
}

// send publishes a wave in batches, several at once. It returns an error for each event, which is
// errUnsent from the cut on.
func (r *run) send(ctx context.Context, wave []Event) []error {
	errs := make([]error, len(wave))
	var done sync.WaitGroup
	for start := 0; start < len(wave); start += MaxBatch {
		end := min(start+MaxBatch, len(wave))
		r.slots <- struct{}{}
		if !time.Now().Before(r.cut) {
			<-r.slots
			answer(errs[start:], errUnsent)
			break
		}
		done.Go(func() {
			defer func() { <-r.slots }()
			n := copy(errs[start:end], r.sink.Publish(ctx, wave[start:end]))
			answer(errs[start+n:end], errNoAnswer)
		})
	}
	done.Wait()
	return errs
}

// answer sets all errors.
func answer(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}

var (
	// errNoAnswer means that a sink broke its contract.
	errNoAnswer = errors.New("the sink returned no answer for the event")
	// errUnsent means that the time of the page was over.
	errUnsent = errors.New("the event wasn't sent yet")
)

// meter collects the metrics of a run, and writes them every ten seconds.
type meter struct {
	to          *emf.Writer
	sink, place string
	since       time.Time
	// seen says that the outbox told the lag and the parked events. Without it none are written,
	// because zeros would look healthy.
	seen              bool
	lag               float64
	published, parked int
}

func newMeter(to *emf.Writer, sink, place string) meter {
	return meter{to: to, sink: sink, place: place, since: time.Now()}
}

// see records the lag of a page, and how many events are parked.
func (m *meter) see(page Page) {
	m.seen, m.lag, m.parked = true, max(m.lag, page.LagSeconds), max(m.parked, page.Parked)
	if time.Since(m.since) >= metricsInterval {
		m.write()
	}
}

func (m *meter) write() {
	values := []emf.Value{emf.EventsPublished.Of(m.sink, float64(m.published))}
	if m.seen {
		values = append(values, emf.RelayLagSeconds.Of(m.place, m.lag),
			emf.EventsParked.Of(m.sink, float64(m.parked)))
	}
	m.to.Write(values...)
	*m = newMeter(m.to, m.sink, m.place)
}
