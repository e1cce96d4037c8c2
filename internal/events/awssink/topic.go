package awssink

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/allo/reservations/internal/events"
)

// topic publishes to an SNS FIFO topic.
type topic struct {
	arn    string
	client interface {
		PublishBatch(context.Context, *sns.PublishBatchInput, ...func(*sns.Options)) (
			*sns.PublishBatchOutput, error)
	}
}

// Publish sends a batch. An event's group is its subject, so that the topic keeps the order within
// a subject. Its DedupID keeps a repeat of the last five minutes away from the subscribers.
func (t *topic) Publish(ctx context.Context, batch []events.Event) []error {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	return send(batch, func(places []int, errs []error) error {
		return t.call(ctx, batch, places, errs)
	})
}

// call publishes the events at these places and sets their answers.
func (t *topic) call(
	ctx context.Context, batch []events.Event, places []int, errs []error,
) error {
	in := &sns.PublishBatchInput{TopicArn: &t.arn}
	for _, i := range places {
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries,
			types.PublishBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), Message: aws.String(string(batch[i].Body)),
				MessageGroupId:         aws.String(groupID(batch[i].Subject)),
				MessageDeduplicationId: aws.String(groupID(batch[i].DedupID())),
			})
	}
	out, err := t.client.PublishBatch(ctx, in)
	if err != nil {
		return fmt.Errorf("publish to the topic: %w", err)
	}
	set := func(id *string, err error) {
		if i, convErr := strconv.Atoi(aws.ToString(id)); convErr == nil && i >= 0 && i < len(errs) {
			errs[i] = err
		}
	}
	for _, entry := range out.Successful {
		set(entry.Id, nil)
	}
	for _, entry := range out.Failed {
		set(entry.Id, entryError(entry.Code, entry.Message, "InvalidParameter",
			"InvalidParameterValue", "ParameterValueInvalid", "ValidationError"))
	}
	return nil
}

// maxGroupID is the most characters of a group and of an id by which SNS finds repeats.
const maxGroupID = 128

// groupID writes a subject with the characters that SNS takes: letters, digits and punctuation of
// ASCII. The subjects and ids of today are such texts already.
func groupID(subject string) string {
	text := strings.Map(func(c rune) rune {
		if c > ' ' && c <= '~' {
			return c
		}
		return '_'
	}, subject)
	return text[:min(len(text), maxGroupID)]
}
