package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/allo/reservations/internal/app/deliver"
	"github.com/allo/reservations/internal/events"
)

const (
	// topicSink is the topic's name in the table sinks.
	topicSink = "topic"
	// relayRun is how long a run of the relay goes on, as on AWS.
	relayRun = 59 * time.Second
)

// Feed publishes the events on this machine: the relay takes them from the outbox and publishes
// them to a Topic, with the archive and the webhook behind it. It also publishes the changes of the
// stock and of the holds to the Live.
type Feed struct {
	Topic   *Topic
	Live    *Live
	archive *Archive
	webhook *Webhook // nil without one
	relay   *events.Relay
}

// NewFeed makes a Feed with the archive and the webhook's secret in a directory. Without a URL it
// has no webhook. Run and then Close the Feed.
func NewFeed(outbox events.Outbox, dir, webhookURL string, log *slog.Logger) (*Feed, error) {
	f := &Feed{Live: NewLive(LiveOptions{Log: log})}
	var err error
	if webhookURL != "" {
		if f.webhook, err = NewWebhook(webhookURL, dir, log); err != nil {
			return nil, err
		}
	}
	if f.archive, err = OpenArchive(dir); err != nil {
		return nil, err
	}
	f.Topic = NewTopic(f.archive, time.Now)
	if f.webhook != nil {
		f.Topic.Subscribe(f.webhook.Queue)
	}
	f.relay = events.NewRelay(outbox, map[string]events.Sink{topicSink: f.Topic},
		events.Options{For: relayRun, Live: f.Live, Log: log})
	return f, nil
}

// Secret returns the webhook's signing secret, or nothing without a webhook.
func (f *Feed) Secret() string {
	if f.webhook == nil {
		return ""
	}
	return f.webhook.Secret
}

// Operator returns what an operator sees of the webhook, if there is one, and does.
func (f *Feed) Operator() deliver.Operator { return feedOperator{f.webhook} }

// feedOperator is the deliver.Operator of a Feed.
type feedOperator struct{ webhook *Webhook }

func (o feedOperator) States(ctx context.Context) ([]deliver.State, error) {
	if o.webhook == nil {
		return nil, nil
	}
	return []deliver.State{o.webhook.State(ctx)}, nil
}

func (o feedOperator) Redeliver(_ context.Context, name string) (int, error) {
	if o.webhook == nil || name != localWebhook {
		return 0, deliver.ErrUnknownWebhook
	}
	return o.webhook.Queue.Redeliver(), nil
}

// Run publishes and delivers events until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	var running sync.WaitGroup
	if f.webhook != nil {
		running.Go(func() { f.webhook.Run(ctx) })
	}
	for ctx.Err() == nil {
		_ = f.relay.Run(ctx) // the relay logs its errors, and the next run goes on
	}
	running.Wait()
}

// Close ends the live connections and closes the archive.
func (f *Feed) Close() error { return errors.Join(f.Live.Close(), f.archive.Close()) }

// invokeOutbox makes an outbox of the built function.
func invokeOutbox(function Invoker) events.Outbox {
	return func(ctx context.Context, request events.Request) (page events.Page, err error) {
		payload, err := json.Marshal(request)
		if err != nil {
			return page, fmt.Errorf("encode the request: %w", err)
		}
		answer, err := function.Invoke(ctx, payload)
		if err != nil {
			return page, err
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return page, fmt.Errorf("decode the page: %w", err)
		}
		return page, nil
	}
}
