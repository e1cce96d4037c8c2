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
	"github.com/aws/smithy-go"

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

// After a restore an id comes again for another event. The topic gives it another id by which SNS
// finds repeats. The control is the id alone, as before: the two are one to SNS.
func TestATopicTellsEpochsApart(t *testing.T) {
	t.Parallel()
	fake := &fakeTopic{out: &sns.PublishBatchOutput{}}
	sink := &topic{arn: "arn:aws:sns:r:1:t.fifo", client: fake}
	for _, source := range []bool{true, false} {
		var batch []events.Event
		for _, epoch := range []string{"11111111-0000", "22222222-0000", "11111111-0000"} {
			body := `{"source":"/allo/` + epoch + `"}`
			if !source {
				body = `{}`
			}
			batch = append(batch, events.Event{ID: "h-2", Subject: "h", Body: []byte(body)})
		}
		sink.Publish(t.Context(), batch)
		var dedup []string
		for _, entry := range fake.in.PublishBatchRequestEntries {
			dedup = append(dedup, *entry.MessageDeduplicationId)
		}
		want := []string{"11111111-h-2", "22222222-h-2", "11111111-h-2"}
		if !source {
			want = []string{"h-2", "h-2", "h-2"}
		}
		if !slices.Equal(dedup, want) {
			t.Errorf("with a source %t: SNS finds repeats by %v, want %v", source, dedup, want)
		}
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

// picky takes a call only without the event "bad".
type picky struct {
	err   error
	calls []int // their numbers of events
}

func (p *picky) take(bodies []string) error {
	p.calls = append(p.calls, len(bodies))
	if slices.Contains(bodies, "bad") {
		return p.err
	}
	return nil
}

func (p *picky) PublishBatch(
	_ context.Context, in *sns.PublishBatchInput, _ ...func(*sns.Options),
) (*sns.PublishBatchOutput, error) {
	out := &sns.PublishBatchOutput{}
	var bodies []string
	for _, entry := range in.PublishBatchRequestEntries {
		out.Successful = append(out.Successful, types.PublishBatchResultEntry{Id: entry.Id})
		bodies = append(bodies, *entry.Message)
	}
	return out, p.take(bodies)
}

func (p *picky) PutEvents(
	_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options),
) (*eventbridge.PutEventsOutput, error) {
	out := &eventbridge.PutEventsOutput{}
	var bodies []string
	for _, entry := range in.Entries {
		out.Entries = append(out.Entries, bustypes.PutEventsResultEntry{EventId: aws.String("1")})
		bodies = append(bodies, *entry.Detail)
	}
	return out, p.take(bodies)
}

func TestARefusedCallIsRepeatedEventByEvent(t *testing.T) {
	t.Parallel()
	fault := func(code, message string) error {
		return &smithy.GenericAPIError{Code: code, Message: message}
	}
	alone := []string{"accepted", "refused", "accepted"}
	again := []string{"again", "again", "again"}
	for name, c := range map[string]struct {
		err   error
		want  []string
		calls int
	}{
		"an invalid character": {fault("InvalidParameter", "Message is invalid"), alone, 4},
		"an invalid entry":     {fault("ValidationException", "Detail is invalid"), alone, 4},
		"another topic":        {fault("InvalidParameter", "TopicArn is invalid"), again, 1},
		"a missing right":      {fault("AuthorizationError", "not authorized"), again, 1},
		"a throttle":           {fault("ThrottlingException", "slow down"), again, 1},
	} {
		topicDouble, busDouble := &picky{err: c.err}, &picky{err: c.err}
		for kind, made := range map[string]struct {
			sink   events.Sink
			double *picky
		}{
			"topic": {&topic{client: topicDouble}, topicDouble},
			"bus":   {&bus{client: busDouble}, busDouble},
		} {
			got := fates(made.sink.Publish(t.Context(), batch("a", "bad", "c")))
			if !slices.Equal(got, c.want) || len(made.double.calls) != c.calls {
				t.Errorf("%s of the %s: the answers are %v after %d calls, want %v after %d",
					name, kind, got, len(made.double.calls), c.want, c.calls)
			}
		}
	}
}

// Three events of 100 KiB don't fit into a call.
func TestACallHasNoMoreBytesThanTheServicesTake(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 100<<10)
	double := &picky{}
	sink := &topic{client: double}
	got := fates(sink.Publish(t.Context(), batch(body, body, "a", body, body, body)))
	if slices.Contains(got, "again") || !slices.Equal(double.calls, []int{3, 2, 1}) {
		t.Errorf("the answers are %v after calls of %v events, want 3, 2 and 1", got, double.calls)
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
