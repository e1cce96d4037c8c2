// Package deliver builds the handler of the deliver function, which posts the events of the
// webhooks' queues. It is apart from package app because it needs no database, and so links no
// driver.
//
// # Queues
//
// The queues of the webhook NAME of the stack STACK are STACK-webhook-NAME.fifo and, for its dead
// letters, STACK-dead-webhook-NAME.fifo.
//
// # Order
//
// A message's group is the event's subject. While a message of a group is hidden, the queue hands
// out no later one of it. So a failed event holds back its subject's later events, and no others,
// until the endpoint takes it or it is a dead letter.
//
// The time since the queue first handed out the message chooses the delay (webhook.TurnOf). So a
// receive without an attempt, because Lambda throttles the function, uses up no attempt. The event
// source must have a batch size of one. In a larger batch the handler keeps the order too, but the
// time of a message behind a failed one of its group runs without an attempt.
//
// # Dead letters
//
// After the last attempt the handler itself moves the event to the webhook's dead-letter queue, and
// writes emf.WebhookDead. The queue's own limit of receives must be higher than webhook.Receives,
// for messages at which the function crashes and for receives that don't reach it.
//
// # A parked endpoint
//
// An endpoint that answers 410 is parked: the handler puts the tag ParkedTag on its queue, and from
// then on its events go to the dead-letter queue without an attempt. So the mark outlives the
// function, and an operator sees it and lifts it: by a redelivery (Operator), or by removing the
// tag. Every environment reads the tag again after parkedLife.
//
// # What an operator sees
//
// The handler writes a line to its log for each delivery. The functions list-webhooks and
// redeliver-webhook read these lines and the queues through an Operator. CloudWatch keeps the lines
// as long as the others, and the service keeps no deliveries of its own.
//
// The last deliveries don't tell how a webhook does: newer ones push a failure out of their list,
// and its event may wait for a day until its next attempt. The queue tells: what it still has, the
// age of its oldest message, and its dead letters (State). CloudWatch measures the age each minute.
package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/webhook"
)

const (
	// parkedLife is how long the handler believes that an endpoint isn't parked.
	parkedLife = time.Minute
	// reserve is the part of the function's time that must be left after an attempt, to tell the
	// queue how it went.
	reserve = 5 * time.Second
)

// Queues are the calls about the webhooks' queues.
type Queues interface {
	// Hide hides a received message for as long from now on.
	Hide(ctx context.Context, m lambdaevents.SQSMessage, d time.Duration) error
	// Bury adds a message to a dead-letter queue. It may be called again for the same message.
	Bury(ctx context.Context, deadLetters string, m lambdaevents.SQSMessage) error
	// Park marks the queue of an endpoint that is gone.
	Park(ctx context.Context, queue string) error
	// Parked reports whether a queue has the mark.
	Parked(ctx context.Context, queue string) (bool, error)
}

// Webhook is an endpoint.
type Webhook struct {
	Name, URL string
	// Secrets returns the signing secrets: one, or two while one replaces the other.
	Secrets func(context.Context) ([]webhook.Secret, error)
}

// Handler posts events. It is safe for concurrent use.
type Handler struct {
	client   *webhook.Client
	queues   Queues
	webhooks []Webhook
	metrics  *emf.Writer
	log      *slog.Logger
	now      func() time.Time

	// watch, unless nil, is told of each delivery.
	watch func(Delivery)

	mu sync.Mutex
	// attending has the time until which a queue counts as not parked.
	attending map[string]time.Time
}

// New makes a Handler. Its clock is that of the queues, and the metrics may be nil.
func New(
	client *webhook.Client, queues Queues, now func() time.Time, webhooks []Webhook,
	metrics *emf.Writer, log *slog.Logger,
) *Handler {
	return &Handler{
		client: client, queues: queues, webhooks: webhooks, metrics: metrics, log: log,
		now: now, attending: map[string]time.Time{},
	}
}

// Watch lets fn know of each delivery, besides the log. Call it before Handle.
func (h *Handler) Watch(fn func(Delivery)) { h.watch = fn }

// Lambda makes the Handler of the deliver function.
func Lambda() *Handler {
	c, log := config.Start(false)
	var webhooks []Webhook
	for _, w := range c.Webhooks {
		secret := awsapi.NewSecret(w.Secret, c.AWS, webhook.ParseSecrets)
		webhooks = append(webhooks, Webhook{
			Name: w.Name, URL: w.URL,
			Secrets: func(ctx context.Context) ([]webhook.Secret, error) { return secret.Get(ctx, false) },
		})
	}
	client := webhook.NewClient(webhook.Options{Roots: awsapi.Roots()})
	return New(client, newSQS(c.AWS), time.Now, webhooks,
		emf.New(os.Stdout, c.MetricNamespace), log)
}

// part is the part of a queue's name after the stack's.
func (w Webhook) part() string { return "-webhook-" + w.Name + ".fifo" }

// deadLetters returns the ARN of the dead-letter queue of a webhook's queue.
func (w Webhook) deadLetters(queue string) string {
	return strings.TrimSuffix(queue, w.part()) + "-dead" + w.part()
}

// webhook returns the webhook of a queue. Of two that fit, it is the one with the longer name.
func (h *Handler) webhook(queue string) (found Webhook, err error) {
	for _, w := range h.webhooks {
		if strings.HasSuffix(queue, w.part()) && len(w.Name) > len(found.Name) {
			found = w
		}
	}
	if found.Name == "" {
		return found, fmt.Errorf("WEBHOOKS has no webhook with the queue %s", queue)
	}
	return found, nil
}

// Handle posts the events of a batch: those of different groups side by side, and those of a group
// in order. The response names the messages that the queue must keep. The error means that a queue
// isn't a webhook's, so that the whole batch is kept.
func (h *Handler) Handle(
	ctx context.Context, batch lambdaevents.SQSEvent,
) (lambdaevents.SQSEventResponse, error) {
	groups := map[string][]lambdaevents.SQSMessage{}
	for _, m := range batch.Records {
		if _, err := h.webhook(m.EventSourceARN); err != nil {
			return lambdaevents.SQSEventResponse{}, err
		}
		key := m.EventSourceARN + " " + m.Attributes["MessageGroupId"]
		groups[key] = append(groups[key], m)
	}
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		kept    = map[string]bool{}
	)
	for _, group := range groups {
		running.Go(func() {
			for _, m := range h.group(ctx, group) {
				mu.Lock()
				kept[m.MessageId] = true
				mu.Unlock()
			}
		})
	}
	running.Wait()
	var response lambdaevents.SQSEventResponse
	for _, m := range batch.Records {
		if kept[m.MessageId] {
			response.BatchItemFailures = append(response.BatchItemFailures,
				lambdaevents.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return response, nil
}

// group handles the messages of a group in order, and returns those that the queue must keep: the
// first one that isn't done, and those behind it. They come back together with it, because the
// queue hands out nothing of the group before.
func (h *Handler) group(
	ctx context.Context, messages []lambdaevents.SQSMessage,
) []lambdaevents.SQSMessage {
	w, _ := h.webhook(messages[0].EventSourceARN) // Handle checked it
	for n, m := range messages {
		if h.message(ctx, w, m) {
			continue
		}
		for _, later := range messages[n+1:] {
			h.hide(ctx, later, 0)
		}
		return messages[n:]
	}
	return nil
}

// message does what is due for a message. It reports whether the queue may delete it.
func (h *Handler) message(ctx context.Context, w Webhook, m lambdaevents.SQSMessage) (done bool) {
	var e struct{ ID, Type, Subject string }
	elapsed := h.since(m.Attributes["ApproximateFirstReceiveTimestamp"])
	d := Delivery{Webhook: w.Name, Attempt: webhook.AttemptOf(elapsed)}
	if err := json.Unmarshal([]byte(m.Body), &e); err != nil || e.ID == "" {
		d.ID = m.MessageId
		return h.bury(ctx, w, m, d, "it isn't an event")
	}
	d.ID, d.Type = e.ID, e.Type
	turn := webhook.TurnOf(elapsed)
	switch {
	case h.parked(ctx, w, m.EventSourceARN):
		return h.bury(ctx, w, m, d, "the endpoint is parked")
	case !turn.Attempt:
		h.hide(ctx, m, turn.Hide)
		return false
	case !hasTime(ctx):
		h.hide(ctx, m, 0)
		return false
	}
	start := time.Now()
	status, err := h.post(ctx, w, events.Event{
		ID: e.ID, Type: e.Type, Subject: e.Subject, Body: json.RawMessage(m.Body),
	})
	d.Milliseconds, d.Status = time.Since(start).Milliseconds(), status
	switch {
	case err == nil:
		h.metrics.Write(emf.WebhookDelivered.Of(w.Name, 1))
		h.tell(d, Delivered)
		return true
	case webhook.Gone(err):
		h.park(ctx, w, m.EventSourceARN)
		return h.bury(ctx, w, m, d, "the endpoint answered 410")
	case turn.Last:
		return h.bury(ctx, w, m, d, err.Error())
	}
	delay := webhook.Delay(turn.Hide, err)
	h.metrics.Write(emf.WebhookFailed.Of(w.Name, 1))
	h.log.Warn("an event wasn't delivered", "webhook", w.Name, "event", e.ID,
		"received", m.Attributes["ApproximateReceiveCount"],
		"error", err.Error(), "againSeconds", delay.Seconds())
	h.tell(d, Failed)
	h.hide(ctx, m, delay)
	return false
}

// since returns the time since a moment, which is in milliseconds since 1970. A malformed moment
// counts as now.
func (h *Handler) since(milliseconds string) time.Duration {
	first, err := strconv.ParseInt(milliseconds, 10, 64)
	if err != nil {
		return 0
	}
	return h.now().Sub(time.UnixMilli(first))
}

// hasTime reports whether the function's deadline leaves time for an attempt.
func hasTime(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return !bounded || time.Until(deadline) >= webhook.Timeout+reserve
}

// post posts an event, and returns what the endpoint answered, as webhook.Client.Post does.
func (h *Handler) post(ctx context.Context, w Webhook, e events.Event) (status int, err error) {
	secrets, err := w.Secrets(ctx)
	if err != nil {
		return 0, err
	}
	return h.client.Post(ctx, w.URL, secrets, e)
}

// hide hides a message. If that fails, the queue's own visibility timeout says when it comes back.
func (h *Handler) hide(ctx context.Context, m lambdaevents.SQSMessage, d time.Duration) {
	if err := h.queues.Hide(ctx, m, d); err != nil {
		h.log.Warn("a message can't be hidden", "queue", m.EventSourceARN, "error", err.Error())
	}
}

// bury moves a message to the dead-letter queue. It reports whether the queue may delete it.
func (h *Handler) bury(
	ctx context.Context, w Webhook, m lambdaevents.SQSMessage, d Delivery, reason string,
) bool {
	attrs := []any{"webhook", w.Name, "event", d.ID, "reason", reason}
	if err := h.queues.Bury(ctx, w.deadLetters(m.EventSourceARN), m); err != nil {
		h.log.Error("an event can't be moved to the dead letters",
			append(attrs, "error", err.Error())...)
		return false
	}
	h.metrics.Write(emf.WebhookDead.Of(w.Name, 1))
	h.log.Error("an event is a dead letter", attrs...)
	h.tell(d, Dead)
	return true
}

// parked reports whether the webhook's endpoint is parked. If that can't be read, it isn't: an
// attempt does less harm than a dead letter.
func (h *Handler) parked(ctx context.Context, w Webhook, queue string) bool {
	h.mu.Lock()
	fresh := h.now().Before(h.attending[queue])
	h.mu.Unlock()
	if fresh {
		return false
	}
	parked, err := h.queues.Parked(ctx, queue)
	if err != nil {
		h.log.Warn("can't read whether the endpoint is parked", "webhook", w.Name,
			"error", err.Error())
		return false
	}
	if !parked {
		h.mu.Lock()
		h.attending[queue] = h.now().Add(parkedLife)
		h.mu.Unlock()
	}
	return parked
}

func (h *Handler) park(ctx context.Context, w Webhook, queue string) {
	h.mu.Lock()
	delete(h.attending, queue)
	h.mu.Unlock()
	if err := h.queues.Park(ctx, queue); err != nil {
		h.log.Error("can't park an endpoint that is gone", "webhook", w.Name, "error", err.Error())
		return
	}
	h.log.Error("an endpoint is gone and parked", "webhook", w.Name)
}
