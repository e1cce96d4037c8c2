package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
)

// The outcomes of a delivery.
const (
	// Delivered means that the endpoint took the event.
	Delivered = "DELIVERED"
	// Failed means that another attempt follows.
	Failed = "FAILED"
	// Dead means that the event is a dead letter.
	Dead = "DEAD"
)

// MaxDeliveries is how many of a webhook's last deliveries an operator sees.
const MaxDeliveries = 20

// deliveryMessage is the message of a delivery's line in the log.
const deliveryMessage = "delivery"

// Delivery is what became of an event that was due at an endpoint.
type Delivery struct {
	Webhook string `json:"-"`
	// ID and Type are those of the event.
	ID   string `json:"id"`
	Type string `json:"type"`
	// At is when the delivery ended.
	At time.Time `json:"at"`
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
	// Status is what the endpoint answered. It is zero when no answer came.
	Status int `json:"status"`
	// Outcome is Delivered, Failed or Dead.
	Outcome string `json:"outcome"`
	// Milliseconds is how long the attempt took.
	Milliseconds int64 `json:"milliseconds"`
}

// tell writes a delivery to the log, where an operator's function finds it.
func (h *Handler) tell(d Delivery, outcome string) {
	d.Outcome, d.At = outcome, h.now().UTC()
	h.log.Info(deliveryMessage, "webhook", d.Webhook, "event", d.ID, "type", d.Type,
		"attempt", d.Attempt, "status", d.Status, "outcome", d.Outcome, "tookMs", d.Milliseconds)
	if h.watch != nil {
		h.watch(d)
	}
}

// State is how a webhook stands.
type State struct {
	Name string
	// URL is the scheme and the host of the endpoint.
	URL string
	// Types are the types of the events that it gets. Empty means all.
	Types []string
	// Parked says that the endpoint answered 410, so that nothing is posted.
	Parked bool
	// Waiting and DeadLetters count events, on AWS approximately.
	Waiting, DeadLetters int
	// Lag is how long the oldest waiting event has waited. A failed event waits until an attempt
	// succeeds, so Lag shows it even when Deliveries has only newer ones. Nil means that the lag
	// can't be read.
	Lag *time.Duration
	// Deliveries are the last ones, the newest first. Nil means that they can't be read.
	Deliveries []Delivery
}

// Operator is what an operator sees of the webhooks, and does.
type Operator interface {
	// States returns how the webhooks stand, in the order of their names.
	States(ctx context.Context) ([]State, error)
	// Redeliver posts the dead letters of a webhook once more, and attends to an endpoint that was
	// parked. It returns how many dead letters there were. It may be repeated. It returns
	// ErrUnknownWebhook.
	Redeliver(ctx context.Context, name string) (deadLetters int, err error)
}

// ErrUnknownWebhook means that no webhook has the name.
var ErrUnknownWebhook = errors.New("no webhook has this name")

const (
	// redrivePace is how many dead letters SQS moves a second. An endpoint that was down gets no more
	// than it does in a busy hour.
	redrivePace = 50
	// maxCalls bounds the calls to AWS that run side by side.
	maxCalls = 6
	// logPage is how many lines of the log one call reads, and maxLogPages how many calls look through
	// one span of time.
	logPage, maxLogPages = 1000, 2
	// metricPeriod is between two values of a queue's metric. CloudWatch has the newest one a minute
	// or two late.
	metricPeriod = time.Minute
	// metricSpan is how far back to look for a value: 3 minutes before the end of its period. An
	// older value tells of other messages than those that wait now.
	metricSpan = 3*time.Minute + metricPeriod
	// enoughDeliveries is how many deliveries end the search in longer spans of time.
	enoughDeliveries = 50
)

// logSpans are how far back to look for deliveries. CloudWatch answers the oldest lines first, so
// the search begins with a short span, in which a busy shop has enough. Each longer span adds only
// the time before the shorter one: the newest deliveries are never left out for older ones.
var logSpans = []time.Duration{time.Minute, 15 * time.Minute, 24 * time.Hour}

// awsOperator is the Operator of a stack.
type awsOperator struct {
	queues   *sqs
	logs     *awsapi.Client
	metrics  *awsapi.Client
	group    string // the log group of the deliver function, or empty
	webhooks []config.WebhookQueue
	log      *slog.Logger
}

// NewOperator makes the Operator of the settings' webhooks.
func NewOperator(c config.Config, log *slog.Logger) Operator {
	webhooks := slices.Clone(c.WebhookQueues)
	slices.SortFunc(webhooks, func(a, b config.WebhookQueue) int {
		return strings.Compare(a.Name, b.Name)
	})
	return &awsOperator{
		queues: newSQS(c.AWS), logs: awsapi.NewClient(awsapi.Logs, c.AWS, c.AWS.Endpoint),
		metrics: awsapi.NewClient(awsapi.Metrics, c.AWS, c.AWS.Endpoint),
		group:   c.DeliverLogGroup, webhooks: webhooks, log: log,
	}
}

func (o *awsOperator) States(ctx context.Context) ([]State, error) {
	states := make([]State, len(o.webhooks))
	errs := make([]error, len(o.webhooks))
	var deliveries map[string][]Delivery
	var ages map[string]time.Duration
	var running sync.WaitGroup
	slots := make(chan struct{}, maxCalls)
	for n, w := range o.webhooks {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			states[n], errs[n] = o.state(ctx, w)
		})
	}
	if len(o.webhooks) > 0 {
		running.Go(func() { ages = o.ages(ctx) })
		deliveries = o.deliveries(ctx)
	}
	running.Wait()
	for n := range states {
		states[n].Lag = lagOf(states[n].Waiting, ages, states[n].Name)
		if deliveries != nil {
			states[n].Deliveries = newest(deliveries[states[n].Name])
		}
	}
	return states, errors.Join(errs...)
}

// state reads all of a webhook's state but its deliveries.
func (o *awsOperator) state(ctx context.Context, w config.WebhookQueue) (s State, err error) {
	s = State{Name: w.Name, URL: w.URL, Types: w.Types}
	if s.Waiting, err = o.queues.count(ctx, w.Queue); err != nil {
		return s, err
	}
	if s.DeadLetters, err = o.queues.count(ctx, deadLettersOf(w)); err != nil {
		return s, err
	}
	s.Parked, err = o.queues.Parked(ctx, w.Queue)
	return s, err
}

// lagOf returns how long the oldest event of a webhook has waited. The age of a queue that has
// become empty is an old value. Nil means that an event waits, and no age is known.
func lagOf(waiting int, ages map[string]time.Duration, name string) *time.Duration {
	age, known := ages[name]
	switch {
	case waiting == 0:
		return new(time.Duration)
	case !known:
		return nil
	}
	return &age
}

// ages reads by the webhooks' names how long the oldest message of each queue has waited, in one
// call for all of them. SQS itself doesn't tell: the age is a metric of each minute. It is 0 for an
// empty queue, and missing for a queue that nobody has used for hours. Nil means that the metrics
// can't be read.
//
// In a FIFO queue a failed message keeps its place, and so its age counts until it is delivered or
// a dead letter.
func (o *awsOperator) ages(ctx context.Context) map[string]time.Duration {
	var queries []map[string]any
	for n, w := range o.webhooks {
		queries = append(queries, map[string]any{
			"Id": "q" + strconv.Itoa(n),
			"MetricStat": map[string]any{
				"Metric": map[string]any{
					"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage",
					"Dimensions": []map[string]string{{"Name": "QueueName", "Value": nameOf(w.Queue)}},
				},
				"Period": int(metricPeriod.Seconds()), "Stat": "Maximum",
			},
		})
	}
	now := o.queues.now()
	body, err := o.metrics.Call(ctx, "GetMetricData", map[string]any{
		"MetricDataQueries": queries, "ScanBy": "TimestampDescending",
		"StartTime": now.Add(-metricSpan).Unix(), "EndTime": now.Unix(),
	})
	var answer struct {
		MetricDataResults []struct {
			ID     string `json:"Id"`
			Values []float64
		}
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		o.log.Warn("the ages of the webhooks' events can't be read", "error", err.Error())
		return nil
	}
	ages := map[string]time.Duration{}
	for _, result := range answer.MetricDataResults {
		n, err := strconv.Atoi(strings.TrimPrefix(result.ID, "q"))
		if err == nil && n >= 0 && n < len(o.webhooks) && len(result.Values) > 0 {
			ages[o.webhooks[n].Name] = time.Duration(result.Values[0] * float64(time.Second))
		}
	}
	return ages
}

// nameOf returns the name of a queue, which is the last part of its ARN.
func nameOf(arn string) string { return arn[strings.LastIndex(arn, ":")+1:] }

func deadLettersOf(w config.WebhookQueue) string {
	return Webhook{Name: w.Name}.deadLetters(w.Queue)
}

func (o *awsOperator) Redeliver(ctx context.Context, name string) (int, error) {
	n := slices.IndexFunc(o.webhooks, func(w config.WebhookQueue) bool { return w.Name == name })
	if n < 0 {
		return 0, ErrUnknownWebhook
	}
	w := o.webhooks[n]
	dead, err := o.queues.count(ctx, deadLettersOf(w))
	if err != nil {
		return 0, err
	}
	// First the mark: what comes back to a parked endpoint is a dead letter at once.
	if err := o.queues.unpark(ctx, w.Queue); err != nil {
		return 0, err
	}
	if dead == 0 {
		return 0, nil
	}
	return dead, o.queues.redrive(ctx, deadLettersOf(w), w.Queue)
}

// deliveries reads the last deliveries of all webhooks, or nil when the log can't be read.
func (o *awsOperator) deliveries(ctx context.Context) map[string][]Delivery {
	if o.group == "" {
		return nil
	}
	var found []Delivery
	now := o.queues.now()
	to := now
	for _, span := range logSpans {
		from := now.Add(-span)
		more, err := o.search(ctx, from, to)
		if err != nil {
			o.log.Warn("the last deliveries can't be read", "error", err.Error())
			return nil
		}
		found, to = append(found, more...), from.Add(-time.Millisecond)
		if len(found) >= enoughDeliveries {
			break
		}
	}
	byName := map[string][]Delivery{}
	for _, d := range found {
		byName[d.Webhook] = append(byName[d.Webhook], d)
	}
	return byName
}

// search finds deliveries between two times in the log, both included.
func (o *awsOperator) search(ctx context.Context, from, to time.Time) ([]Delivery, error) {
	in := map[string]any{
		"logGroupName":  o.group,
		"filterPattern": `{ $.msg = "` + deliveryMessage + `" }`,
		"startTime":     from.UnixMilli(),
		"endTime":       to.UnixMilli(),
		"limit":         logPage,
	}
	var found []Delivery
	for range maxLogPages {
		body, err := o.logs.Call(ctx, "FilterLogEvents", in)
		if err != nil {
			return nil, err
		}
		var answer struct {
			Events    []struct{ Message string }
			NextToken string
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return nil, fmt.Errorf("read the lines of the log: %w", err)
		}
		for _, e := range answer.Events {
			if d, ok := parseDelivery(e.Message); ok {
				found = append(found, d)
			}
		}
		if answer.NextToken == "" {
			break
		}
		in["nextToken"] = answer.NextToken
	}
	return found, nil
}

// parseDelivery reads a line that tell wrote.
func parseDelivery(line string) (Delivery, bool) {
	var l struct {
		Time                               time.Time
		Msg, Webhook, Event, Type, Outcome string
		Attempt, Status                    int
		TookMs                             int64
	}
	if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != deliveryMessage {
		return Delivery{}, false
	}
	return Delivery{
		Webhook: l.Webhook, ID: l.Event, Type: l.Type, At: l.Time.UTC(), Attempt: l.Attempt,
		Status: l.Status, Outcome: l.Outcome, Milliseconds: l.TookMs,
	}, true
}

// newest returns the last MaxDeliveries, the newest first. It is never nil.
func newest(all []Delivery) []Delivery {
	all = append([]Delivery{}, all...)
	slices.SortStableFunc(all, func(a, b Delivery) int { return b.At.Compare(a.At) })
	return all[:min(len(all), MaxDeliveries)]
}

// count returns about how many messages a queue has: visible, received and delayed ones.
func (q *sqs) count(ctx context.Context, arn string) (messages int, err error) {
	names := []string{
		"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
		"ApproximateNumberOfMessagesDelayed",
	}
	body, err := q.call(ctx, "GetQueueAttributes", arn, map[string]any{"AttributeNames": names})
	if err != nil {
		return 0, err
	}
	var answer struct{ Attributes map[string]string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("read the attributes of a queue: %w", err)
	}
	for _, name := range names {
		n, err := strconv.Atoi(answer.Attributes[name])
		if err != nil {
			return 0, fmt.Errorf("the attribute %s of a queue is %q", name, answer.Attributes[name])
		}
		messages += n
	}
	return messages, nil
}

// unpark removes the mark of a parked endpoint. A queue without the mark stays as it is.
func (q *sqs) unpark(ctx context.Context, queue string) error {
	_, err := q.call(ctx, "UntagQueue", queue, map[string]any{"TagKeys": []string{ParkedTag}})
	return err
}

// redrive lets SQS move the dead letters back to the queue. The destination is named, because the
// handler itself sent most dead letters, and SQS doesn't know where such a message came from. While
// a move runs, SQS refuses another one, and redrive returns nil.
func (q *sqs) redrive(ctx context.Context, from, to string) error {
	_, err := q.client.Call(ctx, "StartMessageMoveTask", map[string]any{
		"SourceArn": from, "DestinationArn": to, "MaxNumberOfMessagesPerSecond": redrivePace,
	})
	if err == nil || !q.moves(ctx, from) {
		return err
	}
	return nil
}

// moves reports whether a move of a queue's dead letters runs.
func (q *sqs) moves(ctx context.Context, from string) bool {
	body, err := q.client.Call(ctx, "ListMessageMoveTasks",
		map[string]any{"SourceArn": from, "MaxResults": 1})
	if err != nil {
		return false
	}
	var answer struct{ Results []struct{ Status string } }
	err = json.Unmarshal(body, &answer)
	return err == nil && len(answer.Results) > 0 && answer.Results[0].Status == "RUNNING"
}
