package local

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/allo/reservations/internal/events"
)

const (
	// dedupWindow is how long SNS and SQS drop an event that comes again under its DedupID.
	dedupWindow = 5 * time.Minute
	// maxMessage is SNS's limit of a message, in bytes.
	maxMessage = 256 << 10
)

// Topic stands in for the SNS FIFO topic. It is an events.Sink that adds each event to the archive
// and to the queues. It drops the repeats of an event for five minutes, as SNS does.
type Topic struct {
	archive *Archive
	now     func() time.Time

	mu     sync.Mutex
	seen   map[string]bool
	recent []published // the events of seen, oldest first
	queues []*Queue
}

// published is an event that the topic took.
type published struct {
	id string // its DedupID
	at time.Time
}

// NewTopic makes a Topic. The archive may be nil.
func NewTopic(archive *Archive, now func() time.Time) *Topic {
	return &Topic{archive: archive, now: now, seen: map[string]bool{}}
}

// Subscribe makes the queue get the events that are published from now on.
func (t *Topic) Subscribe(q *Queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queues = append(t.queues, q)
}

// Publish adds the events to the archive and to the queues. An event that the archive can't take
// has the error, and isn't in the queues.
func (t *Topic) Publish(_ context.Context, batch []events.Event) []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	errs := make([]error, len(batch))
	for n, e := range batch {
		errs[n] = t.publish(e)
	}
	return errs
}

func (t *Topic) publish(e events.Event) error {
	id := e.DedupID()
	if t.seen[id] {
		return nil
	}
	if len(e.Body) > maxMessage {
		return &events.RefusedError{
			Reason: "the event has more than " + strconv.Itoa(maxMessage) + " bytes",
		}
	}
	if !utf8.Valid(e.Body) || bytes.ContainsFunc(e.Body, isRefused) {
		return &events.RefusedError{Reason: "the event has a character that SQS doesn't take"}
	}
	if t.archive != nil {
		if err := t.archive.Append(e); err != nil {
			return err
		}
	}
	t.seen[id] = true
	t.recent = append(t.recent, published{id, t.now()})
	for _, q := range t.queues {
		q.Send(e)
	}
	return nil
}

// isRefused reports whether SQS takes no message with the character.
func isRefused(c rune) bool {
	return c < ' ' && !strings.ContainsRune("\t\n\r", c) || c == 0xFFFE || c == 0xFFFF
}

// forget removes the events from seen that are older than dedupWindow.
func (t *Topic) forget() {
	n := 0
	for n < len(t.recent) && t.now().Sub(t.recent[n].at) >= dedupWindow {
		delete(t.seen, t.recent[n].id)
		n++
	}
	t.recent = t.recent[n:]
}
