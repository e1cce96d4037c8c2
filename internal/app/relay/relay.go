// Package relay builds the handler of the relay function, which publishes the events. It is apart
// from package app because it needs no database: it asks the outbox function for pages.
package relay

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/events/awssink"
	"github.com/allo/reservations/internal/events/channel"
)

// The names of the sinks.
const (
	topic = "topic"
	bus   = "bus"
)

// Lambda returns the handler for lambda.Start. It ends the process when a setting is missing.
func Lambda() func(context.Context) error {
	c, log := config.Start(false)
	r, err := New(c)
	if err != nil {
		log.Error("can't start", "error", err.Error())
		os.Exit(1)
	}
	return r.Run
}

// New makes the relay of the settings.
func New(c config.Config) (*events.Relay, error) {
	if c.OutboxFunction == "" {
		return nil, errors.New("OUTBOX_FUNCTION is not set")
	}
	sinks := map[string]events.Sink{}
	if c.TopicARN != "" {
		sinks[topic] = awssink.NewTopic(c.AWS, c.TopicARN)
	}
	if c.BusName != "" {
		sinks[bus] = awssink.NewBus(c.AWS, c.BusName)
	}
	if len(sinks) == 0 {
		return nil, errors.New("neither TOPIC_ARN nor BUS_NAME is set; set one of them or both")
	}
	var live channel.Publisher
	if c.LiveHTTP != "" {
		live = awssink.NewChannel(c.AWS, c.LiveHTTP)
	}
	return events.NewRelay(awssink.NewOutbox(c.AWS, c.OutboxFunction), sinks, events.Options{
		For: time.Duration(c.RelaySeconds) * time.Second, Live: live, Log: c.Logger(),
		Metrics: emf.New(os.Stdout, c.MetricNamespace),
	}), nil
}
