package local

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/events"
)

const (
	// visibilityTimeout is how long a received message is hidden, unless it is hidden anew.
	visibilityTimeout = 30 * time.Second
	// maxReceives is how often a message is handed out before it is a dead letter. It is higher than
	// webhook.Receives.
	maxReceives = 20
	// maxQueued bounds the messages of a queue. With more, a new event is a dead letter at once.
	maxQueued = 10_000
	// maxDead bounds the dead letters that are kept. With more, the oldest is dropped.
	maxDead = 1000
	// pollEvery is how often Run looks for messages that have become visible.
	pollEvery = 200 * time.Millisecond
	// queueTimeout bounds the handling of a batch. It is the deliver function's timeout, and less than
	// visibilityTimeout.
	queueTimeout = 25 * time.Second
)

// Queue stands in for an SQS FIFO queue with its dead-letter queue. A subject is a message group:
// while a message is hidden, the queue hands out no later one of its group. It lives in memory, so
// that what it has is lost when the program ends.
type Queue struct {
	name  string
	types []string
	now   func() time.Time
	log   *slog.Logger
	woken chan struct{}

	mu       sync.Mutex
	messages []*queued // in the order in which they came
	dead     []lambdaevents.SQSMessage
	parked   bool
}

// queued is a message of a Queue.
type queued struct {
	event    events.Event
	id       string
	came     time.Time
	received int
	first    time.Time // when it was first handed out
	visible  time.Time // when it may be handed out
}

// NewQueue makes a Queue for the events of these types, or of all types when there are none.
func NewQueue(name string, types []string, now func() time.Time, log *slog.Logger) *Queue {
	return &Queue{name: name, types: types, now: now, log: log, woken: make(chan struct{}, 1)}
}

// ARN returns the queue's name in the messages.
func (q *Queue) ARN() string { return "arn:aws:sqs:" + region + ":" + accountID + ":" + q.name }

// Now returns the time by the queue's clock.
func (q *Queue) Now() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.now()
}

// Send adds an event, unless the queue doesn't take its type.
func (q *Queue) Send(e events.Event) {
	if len(q.types) > 0 && !slices.Contains(q.types, e.Type) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &queued{event: e, id: uuid.NewString(), came: q.now()}
	if len(q.messages) >= maxQueued {
		q.giveUp(m, "the queue is full")
		return
	}
	q.messages = append(q.messages, m)
	select {
	case q.woken <- struct{}{}:
	default: // Run has been told
	}
}

// Receive hands out up to limit messages and hides them for visibilityTimeout.
func (q *Queue) Receive(limit int) []lambdaevents.SQSMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []lambdaevents.SQSMessage
	blocked := map[string]bool{}
	for _, m := range slices.Clone(q.messages) {
		switch group := m.event.Subject; {
		case len(out) == limit:
			return out
		case blocked[group]:
		case q.now().Before(m.visible):
			blocked[group] = true
		case m.received >= maxReceives:
			q.remove(m)
			q.giveUp(m, "its consumer failed on it each time")
		default:
			if m.received++; m.received == 1 {
				m.first = q.now()
			}
			m.visible = q.now().Add(visibilityTimeout)
			out = append(out, q.message(m))
		}
	}
	return out
}

// message returns the message as SQS hands it to a Lambda. The receipt is another one each time.
func (q *Queue) message(m *queued) lambdaevents.SQSMessage {
	received := strconv.Itoa(m.received)
	return lambdaevents.SQSMessage{
		MessageId: m.id, ReceiptHandle: m.id + " " + received, Body: string(m.event.Body),
		EventSource: "aws:sqs", EventSourceARN: q.ARN(), AWSRegion: region,
		Attributes: map[string]string{
			"ApproximateReceiveCount":          received,
			"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.first.UnixMilli(), 10),
			"MessageGroupId":                   m.event.Subject,
			"MessageDeduplicationId":           m.event.DedupID(),
		},
	}
}

func (q *Queue) remove(m *queued) {
	q.messages = slices.DeleteFunc(q.messages, func(other *queued) bool { return other == m })
}

// giveUp makes a message a dead letter of the queue's own accord.
func (q *Queue) giveUp(m *queued, reason string) {
	q.log.Error("an event is a dead letter",
		"queue", q.name, "event", m.event.ID, "reason", reason, "received", m.received)
	q.bury(q.message(m))
}

func (q *Queue) bury(m lambdaevents.SQSMessage) {
	q.dead = append(q.dead, m)
	q.dead = q.dead[max(len(q.dead)-maxDead, 0):]
}

// errReceipt means that a message was deleted or handed out again since.
var errReceipt = errors.New("the receipt of the message isn't its last")

// find returns the message of a receipt.
func (q *Queue) find(receipt string) (*queued, error) {
	for _, m := range q.messages {
		if m.id+" "+strconv.Itoa(m.received) == receipt {
			return m, nil
		}
	}
	return nil, errReceipt
}

// Delete removes a received message.
func (q *Queue) Delete(m lambdaevents.SQSMessage) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	found, err := q.find(m.ReceiptHandle)
	if err == nil {
		q.remove(found)
	}
	return err
}

// Hide hides a received message for as long from now on.
func (q *Queue) Hide(_ context.Context, m lambdaevents.SQSMessage, d time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	found, err := q.find(m.ReceiptHandle)
	if err == nil {
		found.visible = q.now().Add(d)
	}
	return err
}

// Bury adds a message to the dead letters. The queue has one dead-letter queue, so its name says
// nothing.
func (q *Queue) Bury(_ context.Context, _ string, m lambdaevents.SQSMessage) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bury(m)
	return nil
}

// DeadLetters returns the dead letters, the oldest first.
func (q *Queue) DeadLetters() []lambdaevents.SQSMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.dead)
}

// Counts returns how many messages wait, how long the oldest of them has waited, and how many dead
// letters there are.
func (q *Queue) Counts() (waiting int, lag time.Duration, dead int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) > 0 {
		lag = q.now().Sub(q.messages[0].came)
	}
	return len(q.messages), lag, len(q.dead)
}

// Redeliver makes messages of the dead letters again, as new ones, and removes the mark of an
// endpoint that is gone. It returns how many there were. Those that the queue has no room for stay.
func (q *Queue) Redeliver() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.parked = false
	n := min(len(q.dead), maxQueued-len(q.messages))
	for _, m := range q.dead[:n] {
		var of struct{ ID, Type string }
		_ = json.Unmarshal([]byte(m.Body), &of) // the topic takes events alone
		q.messages = append(q.messages, &queued{id: uuid.NewString(), came: q.now(), event: events.Event{
			ID: of.ID, Type: of.Type,
			Subject: m.Attributes["MessageGroupId"], Body: []byte(m.Body),
		}})
	}
	q.dead = slices.Clone(q.dead[n:])
	select {
	case q.woken <- struct{}{}:
	default: // Run has been told
	}
	return n
}

// Park marks the queue of an endpoint that is gone, until Redeliver or the end of the program.
func (q *Queue) Park(context.Context, string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.parked = true
	return nil
}

// Parked reports whether the queue has the mark.
func (q *Queue) Parked(context.Context, string) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.parked, nil
}

// Consumer is a function that an event source calls with messages.
type Consumer func(context.Context, lambdaevents.SQSEvent) (lambdaevents.SQSEventResponse, error)

// Run calls the consumer with one message at a time until ctx ends, as a Lambda's event source
// does. It deletes the messages that the consumer doesn't report as failed. Several may run side by
// side.
func (q *Queue) Run(ctx context.Context, consume Consumer, log *slog.Logger) {
	for ctx.Err() == nil {
		batch := q.Receive(1)
		if len(batch) > 0 {
			q.consume(ctx, batch, consume, log)
			continue
		}
		select {
		case <-ctx.Done():
		case <-q.woken:
		case <-time.After(pollEvery):
		}
	}
}

func (q *Queue) consume(
	ctx context.Context, batch []lambdaevents.SQSMessage, consume Consumer, log *slog.Logger,
) {
	running, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	response, err := func() (r lambdaevents.SQSEventResponse, err error) {
		defer recoverError(&err)
		return consume(running, lambdaevents.SQSEvent{Records: batch})
	}()
	if err != nil {
		if ctx.Err() == nil {
			log.Error("a queue's consumer failed", "queue", q.name, "error", err.Error())
		}
		return
	}
	for _, m := range batch {
		failed := slices.ContainsFunc(response.BatchItemFailures,
			func(f lambdaevents.SQSBatchItemFailure) bool { return f.ItemIdentifier == m.MessageId })
		if failed {
			continue
		}
		if err := q.Delete(m); err != nil {
			log.Warn("a message can't be deleted", "queue", q.name, "error", err.Error())
		}
	}
}
