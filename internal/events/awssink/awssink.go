// Package awssink publishes events to AWS: to an SNS FIFO topic and to an EventBridge bus. It also
// asks the outbox when that is a Lambda function. It is apart from package events, so that only the
// relay links AWS's clients.
package awssink

import (
	"context"
	"errors"
	"fmt"
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
	// maxEntry is the most bytes of an event. Both services take 256 KiB in a call.
	maxEntry = 256 << 10
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

// sizes returns the events that the services can take, with their places in the batch. It answers
// the others.
func sizes(batch []events.Event, errs []error) (places []int) {
	for i, e := range batch {
		if len(e.Body) > maxEntry {
			errs[i] = &events.RefusedError{
				Reason: fmt.Sprintf("it has %d bytes, more than %d", len(e.Body), maxEntry),
			}
			continue
		}
		places = append(places, i)
	}
	return places
}

// answer sets the answer of all entries of a call.
func answer(errs []error, places []int, err error) {
	for _, i := range places {
		errs[i] = err
	}
}

// entryError is the failure of one entry. refused lists the codes by which a service says that it
// will never accept the entry. With any other code, such as one for a missing right or a throttle,
// it may accept the entry later.
func entryError(code, message *string, refused ...string) error {
	name, reason := aws.ToString(code), aws.ToString(message)
	for _, c := range refused {
		if name == c {
			return &events.RefusedError{Reason: name + ": " + reason}
		}
	}
	return fmt.Errorf("%s: %s", name, reason)
}

// errUnanswered means that an answer lacks an entry.
var errUnanswered = errors.New("the answer lacks the entry")
