// Package awssink publishes events to AWS: to an SNS FIFO topic and to an EventBridge bus. It also
// asks the outbox when that is a Lambda function. It is apart from package events, so that only the
// relay links AWS's clients.
package awssink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events"
)

// The bounds of the calls.
const (
	// publishLimit bounds a Publish, with the client's own retries.
	publishLimit = 10 * time.Second
	// invokeLimit bounds a request to the outbox. It is longer than the function's own time.
	invokeLimit = 15 * time.Second
	// maxCall is the most bytes of a call, and of an event. Both services take 256 KiB.
	maxCall = 256 << 10
	// entryRest is more than what the bus counts of an entry beside its body.
	entryRest = 256
)

// NewTopic makes the sink of a FIFO topic.
func NewTopic(account config.AWS, arn string) events.Sink {
	return &topic{arn: arn, client: sns.New(sns.Options{
		Region: account.Region, Credentials: credentials(account), BaseEndpoint: endpoint(account),
	})}
}

// NewBus makes the sink of a bus, by its name or its ARN.
func NewBus(account config.AWS, name string) events.Sink {
	return &bus{name: name, client: eventbridge.New(eventbridge.Options{
		Region: account.Region, Credentials: credentials(account), BaseEndpoint: endpoint(account),
	})}
}

// NewOutbox makes the outbox of a Lambda function, by its name or its ARN. It doesn't invoke again
// by itself: the relay asks again after a pause.
func NewOutbox(account config.AWS, function string) events.Outbox {
	return invoker{name: function, client: lambda.New(lambda.Options{
		Region: account.Region, Credentials: credentials(account), BaseEndpoint: endpoint(account),
		Retryer: aws.NopRetryer{},
	})}.next
}

// credentials are those of the Lambda's environment, which is replaced before they expire.
func credentials(account config.AWS) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{
			AccessKeyID: account.AccessKeyID, SecretAccessKey: account.SecretAccessKey,
			SessionToken: account.SessionToken, Source: "the environment",
		}, nil
	})
}

// endpoint is nil for the region's own.
func endpoint(account config.AWS) *string {
	if account.Endpoint == "" {
		return nil
	}
	return &account.Endpoint
}

// sender publishes a batch in calls of a service.
type sender struct {
	// call sends the events at some places of the batch in one call, and sets the answers of those
	// that the service answered. Its error is that of the whole call.
	call func(places []int, errs []error) error
	// refusals are the codes by which the service says that it will never accept an entry.
	refusals []string
	// target is the word by which the service names its topic or bus. A fault that names it lies not
	// in the events.
	target string
}

// publish sends the batch and returns the answers. A service may refuse a whole call for one entry.
// Then each entry is sent alone, so that only the bad one is refused.
func (s sender) publish(batch []events.Event) []error {
	errs := make([]error, len(batch))
	for i, e := range batch {
		errs[i] = errUnanswered
		if len(e.Body) > maxCall {
			errs[i] = &events.RefusedError{
				Reason: fmt.Sprintf("it has %d bytes, more than %d", len(e.Body), maxCall),
			}
		}
	}
	for _, places := range calls(batch) {
		s.send(places, errs)
	}
	return errs
}

func (s sender) send(places []int, errs []error) {
	err := s.call(places, errs)
	if err == nil {
		return
	}
	if !s.isRefusal(err) {
		for _, i := range places {
			errs[i] = err
		}
		return
	}
	if len(places) == 1 {
		errs[places[0]] = &events.RefusedError{Reason: err.Error()}
		return
	}
	for _, i := range places {
		s.send([]int{i}, errs)
	}
}

// isRefusal reports whether a service refused a whole call for good, for an entry of it.
func (s sender) isRefusal(err error) bool {
	var fault interface{ ErrorCode() string }
	return errors.As(err, &fault) && slices.Contains(s.refusals, fault.ErrorCode()) &&
		!strings.Contains(strings.ToLower(err.Error()), s.target)
}

// calls returns the places of the events of each call. It leaves out the events that are too large.
func calls(batch []events.Event) (all [][]int) {
	size := maxCall // of the last call
	for i, e := range batch {
		if len(e.Body) > maxCall {
			continue
		}
		if size+len(e.Body)+entryRest > maxCall {
			all, size = append(all, nil), 0
		}
		size += len(e.Body) + entryRest
		all[len(all)-1] = append(all[len(all)-1], i)
	}
	return all
}

// entryError is the failure of one entry. With a code that isn't a refusal, such as one for a
// missing right or a throttle, the service may accept the entry later.
func (s sender) entryError(code, message *string) error {
	name, reason := aws.ToString(code), aws.ToString(message)
	if slices.Contains(s.refusals, name) {
		return &events.RefusedError{Reason: name + ": " + reason}
	}
	return fmt.Errorf("%s: %s", name, reason)
}

// errUnanswered means that an answer lacks an entry.
var errUnanswered = errors.New("the answer lacks the entry")
