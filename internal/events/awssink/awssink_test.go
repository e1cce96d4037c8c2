package awssink

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	bustypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/allo/reservations/internal/events"
)

func batch(bodies ...string) []events.Event {
	var out []events.Event
	for _, body := range bodies {
		out = append(out, events.Event{
			ID: "p-w-1", Subject: "p/w", Type: events.TypeMoved, Body: []byte(body),
		})
	}
	return out
}

// fates says what became of each event.
func fates(errs []error) []string {
	var out []string
	for _, err := range errs {
		var refused *events.RefusedError
		switch {
		case err == nil:
			out = append(out, "accepted")
		case errors.As(err, &refused):
			out = append(out, "refused")
		default:
			out = append(out, "again")
		}
	}
	return out
}

type fakeTopic struct {
	in  *sns.PublishBatchInput
	out *sns.PublishBatchOutput
	err error
}

func (f *fakeTopic) PublishBatch(
	_ context.Context, in *sns.PublishBatchInput, _ ...func(*sns.Options),
) (*sns.PublishBatchOutput, error) {
	f.in = in
	return f.out, f.err
}

func TestATopicAnswersEachEntry(t *testing.T) {
	t.Parallel()
	fake := &fakeTopic{out: &sns.PublishBatchOutput{
		Successful: []types.PublishBatchResultEntry{{Id: aws.String("0")}, {Id: aws.String("99")}},
		Failed: []types.BatchResultErrorEntry{
			{Id: aws.String("1"), Code: aws.String("InternalError")},
			{Id: aws.String("2"), Code: aws.String("InvalidParameter"), SenderFault: true},
			{Id: aws.String("3"), Code: aws.String("KMSAccessDenied"), SenderFault: true},
		},
	}}
	sink := &topic{arn: "arn:aws:sns:r:1:t.fifo", client: fake}
	large := strings.Repeat("x", maxCall+1)
	got := fates(sink.Publish(t.Context(), batch("a", "b", "c", "d", "e", large)))
	want := []string{"accepted", "again", "refused", "again", "again", "refused"}
	if !slices.Equal(got, want) {
		t.Errorf("the answers are %v, want %v", got, want)
	}
	entry := fake.in.PublishBatchRequestEntries[0]
	if *entry.MessageGroupId != "p/w" || *entry.MessageDeduplicationId != "p-w-1" ||
		*entry.Message != "a" || len(fake.in.PublishBatchRequestEntries) != 5 {
		t.Errorf("the request has %d entries, the first one %+v",
			len(fake.in.PublishBatchRequestEntries), entry)
	}
}

func TestABrokenCallIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, sink := range map[string]events.Sink{
		"topic": &topic{client: &fakeTopic{err: errors.New("no network")}},
		"bus":   &bus{client: &fakeBus{err: errors.New("no network")}},
	} {
		if got := fates(sink.Publish(t.Context(), batch("a", "b"))); !slices.Equal(got,
			[]string{"again", "again"}) {
			t.Errorf("%s: the answers are %v, want both again", name, got)
		}
	}
}

// whole is a service that refuses a call for one bad event in it, and for too many bytes in all.
type whole struct {
	calls int
	fault string // names what is wrong
}

// take answers a call with the bodies of its events.
func (w *whole) take(bodies []string) error {
	w.calls++
	size := 0
	for _, body := range bodies {
		size += len(body)
		if body == "bad" {
			return &types.InvalidParameterException{Message: &w.fault}
		}
	}
	if size > maxCall {
		return &types.BatchRequestTooLongException{}
	}
	return nil
}

func (w *whole) PublishBatch(
	_ context.Context, in *sns.PublishBatchInput, _ ...func(*sns.Options),
) (*sns.PublishBatchOutput, error) {
	var bodies []string
	out := &sns.PublishBatchOutput{}
	for _, entry := range in.PublishBatchRequestEntries {
		bodies = append(bodies, *entry.Message)
		out.Successful = append(out.Successful, types.PublishBatchResultEntry{Id: entry.Id})
	}
	return out, w.take(bodies)
}

// wholeBus is a whole as a bus.
type wholeBus struct{ whole }

func (w *wholeBus) PutEvents(
	_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options),
) (*eventbridge.PutEventsOutput, error) {
	var bodies []string
	for _, entry := range in.Entries {
		bodies = append(bodies, *entry.Detail)
	}
	out := &eventbridge.PutEventsOutput{Entries: make([]bustypes.PutEventsResultEntry, len(bodies))}
	if err := w.take(bodies); err != nil {
		return nil, &smithyError{err.Error()}
	}
	return out, nil
}

// smithyError is a fault of a client in the form of AWS's clients.
type smithyError struct{ text string }

func (e *smithyError) Error() string     { return "ValidationException: " + e.text }
func (e *smithyError) ErrorCode() string { return "ValidationException" }

// One bad event doesn't hold up the others of its call, unless the fault is of the topic or bus.
func TestOneBadEventIsRefusedAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault string
		want  []string
		calls int
	}{
		{"Message Body", []string{"accepted", "refused", "accepted"}, 4},
		{"TopicArn", []string{"again", "again", "again"}, 1},
		{"entries.1.member.eventBusName", []string{"again", "again", "again"}, 1},
	} {
		toTopic := &whole{fault: c.fault}
		toBus := &wholeBus{whole{fault: c.fault}}
		if !strings.Contains(c.fault, "Bus") {
			sink := &topic{client: toTopic}
			got := fates(sink.Publish(t.Context(), batch("a", "bad", "c")))
			if !slices.Equal(got, c.want) || toTopic.calls != c.calls {
				t.Errorf("%s: after %d calls the topic's answers are %v, want %v", c.fault, toTopic.calls,
					got, c.want)
			}
		}
		if !strings.Contains(c.fault, "Topic") {
			sink := &bus{client: toBus}
			got := fates(sink.Publish(t.Context(), batch("a", "bad", "c")))
			if !slices.Equal(got, c.want) || toBus.calls != c.calls {
				t.Errorf("%s: after %d calls the bus's answers are %v, want %v", c.fault, toBus.calls, got,
					c.want)
			}
		}
	}
}

// Events that are too large together go in several calls. The control sends them in one.
func TestACallHasNoMoreBytesThanTheServiceTakes(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", maxCall/2-entryRest)
	all := batch(half, half, half, "a", strings.Repeat("x", maxCall), "b")
	fake := &whole{}
	got := fates((&topic{client: fake}).Publish(t.Context(), all))
	if slices.Contains(got, "again") || slices.Contains(got, "refused") || fake.calls != 4 {
		t.Errorf("after %d calls the answers are %v, want all accepted after 4", fake.calls, got)
	}
	if err := (&whole{}).take([]string{half, half, half}); err == nil {
		t.Error("the service takes three halves at once")
	}
}

func TestAGroupHasTheCharactersOfSNS(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		"0192d000-0000-7000-8000-000000000101/w": "0192d000-0000-7000-8000-000000000101/w",
		"a b\u00fc":                              "a_b_",
		strings.Repeat("s", 200):                 strings.Repeat("s", 128),
	} {
		if got := groupID(subject); got != want {
			t.Errorf("the group of %q is %q, want %q", subject, got, want)
		}
	}
}

type fakeBus struct {
	in  *eventbridge.PutEventsInput
	out *eventbridge.PutEventsOutput
	err error
}

func (f *fakeBus) PutEvents(
	_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options),
) (*eventbridge.PutEventsOutput, error) {
	f.in = in
	return f.out, f.err
}

func TestABusAnswersEachEntry(t *testing.T) {
	t.Parallel()
	fake := &fakeBus{out: &eventbridge.PutEventsOutput{Entries: []bustypes.PutEventsResultEntry{
		{EventId: aws.String("1")},
		{ErrorCode: aws.String("ThrottlingException")},
		{ErrorCode: aws.String("MalformedDetail")},
	}}}
	sink := &bus{name: "allo", client: fake}
	large := strings.Repeat("x", maxCall+1)
	got := fates(sink.Publish(t.Context(), batch("a", large, "b", "c", "d")))
	want := []string{"accepted", "refused", "again", "refused", "again"}
	if !slices.Equal(got, want) {
		t.Errorf("the answers are %v, want %v", got, want)
	}
	entry := fake.in.Entries[0]
	if *entry.DetailType != events.TypeMoved || *entry.Detail != "a" || *entry.EventBusName != "allo" {
		t.Errorf("the first entry is %+v", entry)
	}
}

type fakeLambda struct {
	in  *lambda.InvokeInput
	out *lambda.InvokeOutput
	err error
}

func (f *fakeLambda) Invoke(
	ctx context.Context, in *lambda.InvokeInput, _ ...func(*lambda.Options),
) (*lambda.InvokeOutput, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return nil, errors.New("the call has no deadline")
	}
	f.in = in
	return f.out, f.err
}

func TestTheOutboxFunctionAnswersOrFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fake fakeLambda
		want string // in the error
	}{
		"a page": {fakeLambda{out: &lambda.InvokeOutput{Payload: []byte(`{"leased":true}`)}}, ""},
		"a failure": {fakeLambda{out: &lambda.InvokeOutput{
			FunctionError: aws.String("Unhandled"),
			Payload:       []byte(`{"errorMessage":"no database","errorType":"wrapError"}`),
		}}, "no database"},
		"no JSON":    {fakeLambda{out: &lambda.InvokeOutput{Payload: []byte(`<`)}}, "read the answer"},
		"no network": {fakeLambda{err: errors.New("unreachable")}, "unreachable"},
	} {
		page, err := invoker{"outbox", &c.fake}.next(t.Context(), events.Request{Sink: "topic"})
		if c.want == "" {
			if err != nil || !page.Leased || !strings.Contains(string(c.fake.in.Payload), "topic") {
				t.Errorf("%s: next() = %+v, %v", name, page, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: next() = %v, want an error with %q", name, err, c.want)
		}
	}
}
