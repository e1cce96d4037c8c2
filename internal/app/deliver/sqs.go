package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/awsapi"
	"github.com/allo/reservations/internal/config"
)

// ParkedTag is the tag of a queue whose endpoint is parked. Its value is the time.
const ParkedTag = "allo:parked"

// sqs has the queues of SQS.
type sqs struct {
	client *awsapi.Client
	now    func() time.Time
}

func newSQS(account config.AWS) *sqs {
	client := awsapi.NewClient(awsapi.SQS, account, account.Endpoint)
	return &sqs{client: client, now: time.Now}
}

// url returns a queue's URL, which has the account and the name of its ARN.
func (q *sqs) url(arn string) (string, error) {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 {
		return "", fmt.Errorf("the ARN of a queue is malformed: %s", arn)
	}
	return q.client.Endpoint() + parts[4] + "/" + parts[5], nil
}

// call calls an action on a queue.
func (q *sqs) call(ctx context.Context, action, arn string, in map[string]any) ([]byte, error) {
	url, err := q.url(arn)
	if err != nil {
		return nil, err
	}
	in["QueueUrl"] = url
	return q.client.Call(ctx, action, in)
}

func (q *sqs) Hide(ctx context.Context, m lambdaevents.SQSMessage, d time.Duration) error {
	_, err := q.call(ctx, "ChangeMessageVisibility", m.EventSourceARN, map[string]any{
		"ReceiptHandle": m.ReceiptHandle, "VisibilityTimeout": int(d.Seconds()),
	})
	return err
}

// Bury deduplicates by the message's id, which is another one after a redrive. By the event's id, a
// message that is redriven and comes back within five minutes would be dropped.
func (q *sqs) Bury(ctx context.Context, deadLetters string, m lambdaevents.SQSMessage) error {
	_, err := q.call(ctx, "SendMessage", deadLetters, map[string]any{
		"MessageBody":            m.Body,
		"MessageGroupId":         m.Attributes["MessageGroupId"],
		"MessageDeduplicationId": m.MessageId,
	})
	return err
}

func (q *sqs) Park(ctx context.Context, queue string) error {
	_, err := q.call(ctx, "TagQueue", queue, map[string]any{
		"Tags": map[string]string{ParkedTag: q.now().UTC().Format(time.RFC3339)},
	})
	return err
}

func (q *sqs) Parked(ctx context.Context, queue string) (bool, error) {
	body, err := q.call(ctx, "ListQueueTags", queue, map[string]any{})
	if err != nil {
		return false, err
	}
	var answer struct{ Tags map[string]string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, fmt.Errorf("read the tags of a queue: %w", err)
	}
	_, parked := answer.Tags[ParkedTag]
	return parked, nil
}
