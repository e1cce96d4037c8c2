package awssink

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/allo/reservations/internal/events"
)

// busSource is the source of the bus's events, for the rules. The CloudEvent in the detail has a
// source of its own.
const busSource = "allo.reservations"

// bus publishes to an EventBridge bus, which keeps no order.
type bus struct {
	name   string
	client interface {
		PutEvents(context.Context, *eventbridge.PutEventsInput, ...func(*eventbridge.Options)) (
			*eventbridge.PutEventsOutput, error)
	}
}

// Publish sends a batch. The detail is the CloudEvent and the detail's type is its type.
func (b *bus) Publish(ctx context.Context, batch []events.Event) []error {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	return send(batch, func(places []int, errs []error) error {
		return b.call(ctx, batch, places, errs)
	})
}

// call puts the events at these places on the bus and sets their answers.
func (b *bus) call(ctx context.Context, batch []events.Event, places []int, errs []error) error {
	in := &eventbridge.PutEventsInput{}
	for _, i := range places {
		in.Entries = append(in.Entries, types.PutEventsRequestEntry{
			EventBusName: &b.name, Source: aws.String(busSource), DetailType: &batch[i].Type,
			Detail: aws.String(string(batch[i].Body)), Resources: []string{batch[i].Subject},
		})
	}
	out, err := b.client.PutEvents(ctx, in)
	if err != nil {
		return fmt.Errorf("put events on the bus: %w", err)
	}
	for n, entry := range out.Entries { // in the order of the request
		if n >= len(places) {
			break
		}
		errs[places[n]] = nil
		if entry.ErrorCode != nil {
			errs[places[n]] = entryError(entry.ErrorCode, entry.ErrorMessage, "InvalidArgument",
				"MalformedDetail")
		}
	}
	return nil
}
