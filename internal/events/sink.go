package events

import "context"

// MaxBatch is the most events of one Publish: SNS and EventBridge take ten entries a request.
const MaxBatch = 10

// Sink takes events. The SNS topic, the EventBridge bus and the local topic are sinks.
type Sink interface {
	// Publish sends up to MaxBatch events of different subjects. It returns an error for each event,
	// in their order: nil for one that was accepted, a *RefusedError for one that the sink will never
	// accept, and another error for one to try again. An event may have been accepted all the same.
	Publish(ctx context.Context, batch []Event) []error
}

// RefusedError means that a sink will never accept the event.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "refused for good: " + e.Reason }
