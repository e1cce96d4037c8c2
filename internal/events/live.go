package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events/channel"
)

// The bounds of the relay's work for the live channel.
const (
	// maxLivePages is how many pages of a batch are published. A delivery may move all stock rows of
	// a shop: the rest of a larger batch is left to the pages' own reads, so that the next change of
	// a stock row waits for seconds and not for minutes.
	maxLivePages = 5
	// livePolls is how often in a Poll the outbox is asked for news. It begins no batch within a
	// second of the last one. So a change in a quiet shop is published within half a second, and a
	// stock row has at most one message a second.
	livePolls = 2
	// maxHoldCalls is how many holds' messages are sent at once. Each takes a call of its own.
	maxHoldCalls = 16
	// livePageLimit bounds the publishing of a page. A page that takes longer isn't live any more.
	livePageLimit = 10 * time.Second
)

// errLostLease means that another relay has the live channel.
var errLostLease = errors.New("another relay has the lease")

// live is a relay's run for the live channel.
type live struct {
	*Relay
	lease    string
	end      time.Time
	failures int // since the last batch that was published
	meter    liveMeter
}

func (r *Relay) newLive() *live {
	limit := r.opts.For
	if limit == 0 {
		limit = drainLimit
	}
	return &live{
		Relay: r, lease: uuid.NewString(), end: time.Now().Add(limit),
		meter: liveMeter{to: r.opts.Metrics, since: time.Now()},
	}
}

// loop publishes a batch each second when there is news. It acknowledges a batch with the request
// for the next one. A batch that isn't acknowledged is a part of the next one, as it is then.
func (l *live) loop(ctx context.Context) error {
	var failure error
	request := l.request()
	for ctx.Err() == nil && time.Now().Before(l.end) {
		page, err := l.ask(ctx, request)
		next := time.Now().Add(l.opts.Poll / livePolls)
		request = l.request()
		switch {
		case err != nil:
			failure = err
		case !page.Leased || page.AsOf == 0:
			failure = nil
			l.meter.see(page.Leased, 0)
			if l.opts.For == 0 {
				return l.release(ctx, request)
			}
		default:
			if failure = l.publish(ctx, page); failure == nil {
				request.AsOf = page.AsOf
			}
		}
		if failure != nil {
			l.opts.Log.Warn("the live channel wasn't told the news", "error", failure.Error())
			next = time.Now().Add(l.opts.Retry * time.Duration(min(1<<min(l.failures, 10), maxRetry)))
			l.failures++
		} else {
			l.failures = 0
		}
		l.pause(ctx, next)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		failure = nil // the process is stopping
	}
	return errors.Join(failure, l.release(ctx, request))
}

func (l *live) request() LiveRequest { return LiveRequest{Lease: l.lease} }

// ask asks the outbox.
func (l *live) ask(ctx context.Context, request LiveRequest) (LivePage, error) {
	page, err := l.outbox(ctx, Request{Live: &request})
	switch {
	case err != nil:
		return LivePage{}, fmt.Errorf("ask the outbox: %w", err)
	case page.Live == nil:
		return LivePage{}, errors.New("the outbox of another release knows of no live channel")
	default:
		return *page.Live, nil
	}
}

// pause waits until a time, but not beyond the end of the run.
func (l *live) pause(ctx context.Context, until time.Time) {
	timer := time.NewTimer(min(time.Until(until), time.Until(l.end)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publish publishes the pages of a batch, up to maxLivePages.
func (l *live) publish(ctx context.Context, page LivePage) error {
	for n := 1; ; n++ {
		read := time.Now()
		err := l.send(ctx, page)
		l.meter.see(true, page.LagSeconds+time.Since(read).Seconds())
		if err != nil {
			return err
		}
		l.meter.published += len(page.Stock) + len(page.Holds)
		if page.After == nil {
			return nil
		}
		if n == maxLivePages || !time.Now().Before(l.end) {
			l.opts.Log.Info("the rest of a large batch of live news is left out", "asOf", page.AsOf)
			return nil
		}
		request := LiveRequest{Lease: l.lease, AsOf: page.AsOf, After: page.After}
		if page, err = l.ask(ctx, request); err != nil {
			return err
		}
		if !page.Leased {
			return errLostLease
		}
	}
}

// send sends the messages of a page: those of the stock to one channel, and that of each hold to
// the hold's own.
func (l *live) send(ctx context.Context, page LivePage) error {
	ctx, cancel := context.WithTimeout(ctx, livePageLimit)
	defer cancel()
	var sending sync.WaitGroup
	errs := make([]error, len(page.Holds)+1)
	if len(page.Stock) > 0 {
		sending.Go(func() { errs[len(page.Holds)] = publishAll(ctx, l, channel.AllStock, page.Stock) })
	}
	slots := make(chan struct{}, maxHoldCalls)
	for i, hold := range page.Holds {
		slots <- struct{}{}
		sending.Go(func() {
			defer func() { <-slots }()
			name := channel.OfHold(hold.ReservationID)
			errs[i] = publishAll(ctx, l, name, []channel.Hold{hold})
		})
	}
	sending.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one says enough: often all fail for the same reason
		}
	}
	return nil
}

// publishAll sends messages to a channel.
func publishAll[T any](ctx context.Context, l *live, name string, messages []T) error {
	texts := make([]json.RawMessage, len(messages))
	for i, message := range messages {
		text, err := json.Marshal(message)
		if err != nil {
			return fmt.Errorf("encode a message: %w", err)
		}
		texts[i] = text
	}
	return l.opts.Live.Publish(ctx, name, texts)
}

// release acknowledges the last batch and gives the lease back, even when ctx is done.
func (l *live) release(ctx context.Context, request LiveRequest) error {
	defer l.meter.write()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	request.Release = true
	if _, err := l.ask(ctx, request); err != nil {
		return fmt.Errorf("give the lease of the live channel back: %w", err)
	}
	return nil
}

// liveMeter collects the metrics of a run for the live channel, and writes them every ten seconds.
type liveMeter struct {
	to    *emf.Writer
	since time.Time
	// seen says that the outbox told the lag. Without it none is written, because a zero would look
	// healthy.
	seen      bool
	lag       float64
	published int
}

// see records the lag of the oldest news in seconds, if the relay has the lease.
func (m *liveMeter) see(leased bool, lag float64) {
	m.seen, m.lag = m.seen || leased, max(m.lag, lag)
	if time.Since(m.since) >= metricsInterval {
		m.write()
	}
}

func (m *liveMeter) write() {
	values := []emf.Value{emf.LivePublished.Value(float64(m.published))}
	if m.seen {
		values = append(values, emf.LiveLagSeconds.Value(m.lag))
	}
	m.to.Write(values...)
	*m = liveMeter{to: m.to, since: time.Now()}
}
