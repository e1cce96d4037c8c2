// Package awssink publishes events to AWS: to an SNS FIFO topic and to an EventBridge bus, and the
// messages of the live channel to AppSync Events. It also asks the outbox when that is a Lambda
// function. It is apart from package events, so that only the
// relay links AWS's clients.
package awssink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/smithy-go"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/events"
)

// The bounds of the calls.
const (
	// publishLimit bounds a Publish, with the client's own retries.
	publishLimit = 10 * time.Second
	// invokeLimit bounds a request to the outbox. It is longer than the function's own time.
	invokeLimit = 15 * time.Second
	// maxCall is the most bytes of a call, and so of an event, that both services take.
	maxCall = 256 << 10
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

// size is how many bytes of a call an event takes.
func size(e events.Event) int {
	return len(e.Body) + len(e.Type) + len(e.Subject) + len(busSource)
}

// calls divides a batch into calls of at most maxCall bytes, each the places of its events. It
// answers the events that no call can take.
func calls(batch []events.Event, errs []error) (all [][]int) {
	room := 0
	for i, e := range batch {
		n := size(e)
		if n > maxCall {
			errs[i] = &events.RefusedError{
				Reason: fmt.Sprintf("it takes %d bytes of a call, more than %d", n, maxCall),
			}
			continue
		}
		if n > room {
			all, room = append(all, nil), maxCall
		}
		all[len(all)-1] = append(all[len(all)-1], i)
		room -= n
	}
	return all
}

// send publishes a batch by a function that calls the service with the events at some places and
// sets their answers. The function's error is that of a whole call. When a call is refused, its
// events are sent one by one, so that only the event that is the reason for it is refused.
func send(batch []events.Event, call func(places []int, errs []error) error) []error {
	errs := make([]error, len(batch))
	for _, places := range calls(batch, errs) {
		err := sendOnce(places, errs, call)
		if refused := (*events.RefusedError)(nil); errors.As(err, &refused) && len(places) > 1 {
			for _, i := range places {
				_ = sendOnce([]int{i}, errs, call) // it is in errs
			}
		}
	}
	return errs
}

// sendOnce makes one call and answers its events. It returns the error of the whole call.
func sendOnce(places []int, errs []error, call func([]int, []error) error) error {
	answer(errs, places, errUnanswered)
	err := call(places, errs)
	if err != nil {
		err = callError(err)
		answer(errs, places, err)
	}
	return err
}

// callError is the failure of a whole call. It is a RefusedError if the service says that it will
// never accept what was sent. A name of a topic or a bus that is wrong isn't the events' fault.
func callError(err error) error {
	var service smithy.APIError
	if !errors.As(err, &service) {
		return err
	}
	text := service.ErrorMessage()
	if strings.Contains(text, "TopicArn") || strings.Contains(text, "EventBusName") {
		return err
	}
	switch service.ErrorCode() {
	case "InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationError",
		"ValidationException", "BatchRequestTooLong":
		return &events.RefusedError{Reason: err.Error()}
	default:
		return err
	}
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
