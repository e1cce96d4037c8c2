package deliver

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/config"
)

// aws stands in for SQS and CloudWatch Logs.
type aws struct {
	mu      sync.Mutex
	sent    []sent
	answers map[string]string // by action; a text that begins with ! is a refusal
}

func (a *aws) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	request := sent{action: action}
	_ = json.NewDecoder(r.Body).Decode(&request.in)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = append(a.sent, request)
	answer := a.answers[action]
	if url, _ := request.in["QueueUrl"].(string); strings.Contains(url, "-dead-") {
		answer = a.answers[action+" dead"]
	}
	if refusal, refused := strings.CutPrefix(answer, "!"); refused {
		w.WriteHeader(http.StatusBadRequest)
		answer = refusal
	}
	fmt.Fprint(w, answer)
}

// of returns the requests of an action.
func (a *aws) of(action string) (requests []map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sent {
		if s.action == action {
			requests = append(requests, s.in)
		}
	}
	return requests
}

const crmQueue = "arn:aws:sqs:eu-central-1:1:allo-dev-webhook-crm.fifo"

func counts(visible, hidden, delayed int) string {
	return fmt.Sprintf(`{"Attributes":{"ApproximateNumberOfMessages":"%d",`+
		`"ApproximateNumberOfMessagesNotVisible":"%d","ApproximateNumberOfMessagesDelayed":"%d"}}`,
		visible, hidden, delayed)
}

func newAWS(t *testing.T) (*aws, *awsOperator) {
	t.Helper()
	a := &aws{answers: map[string]string{
		"GetQueueAttributes": counts(4, 2, 1), "GetQueueAttributes dead": counts(3, 0, 0),
		"ListQueueTags": `{}`, "UntagQueue": `{}`, "StartMessageMoveTask": `{"TaskHandle":"h"}`,
		"ListMessageMoveTasks": `{"Results":[{"Status":"RUNNING"}]}`,
		"FilterLogEvents":      `{"events":[]}`,
		// The order is the service's.
		"GetMetricData": `{"MetricDataResults":[{"Id":"q1","Values":[]},{"Id":"q0","Values":[312,252]}]}`,
	}}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	o := NewOperator(config.Config{
		AWS: config.AWS{
			Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "key", Endpoint: server.URL,
		},
		WebhookQueues: []config.WebhookQueue{
			{Name: "erp", URL: "https://erp.example", Queue: strings.ReplaceAll(crmQueue, "crm", "erp")},
			{Name: "crm", URL: "https://crm.example", Types: []string{"allo.stock.moved"}, Queue: crmQueue},
		},
		DeliverLogGroup: "/aws/lambda/allo-dev-deliver",
	}, slog.New(slog.DiscardHandler)).(*awsOperator)
	o.queues.now = func() time.Time { return clock }
	return a, o
}

func TestTheStatesOfTheWebhooksAreThoseOfTheirQueues(t *testing.T) {
	t.Parallel()

	a, o := newAWS(t)
	a.answers["ListQueueTags"] = `{"Tags":{"allo:parked":"2026-11-28T10:00:00Z"}}`
	got, err := o.States(t.Context())
	want := []State{
		{
			Name: "crm", URL: "https://crm.example", Types: []string{"allo.stock.moved"}, Parked: true,
			Waiting: 7, DeadLetters: 3, Lag: new(312 * time.Second), Deliveries: []Delivery{},
		},
		{
			Name: "erp", URL: "https://erp.example", Parked: true, Waiting: 7, DeadLetters: 3,
			Deliveries: []Delivery{},
		},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("the states differ, %v (-want +got):\n%s", err, diff)
	}
	// Without enough deliveries the search goes further back.
	var from []float64
	for _, in := range a.of("FilterLogEvents") {
		from = append(from, in["startTime"].(float64))
	}
	if want := []float64{
		float64(clock.Add(-time.Minute).UnixMilli()), float64(clock.Add(-15 * time.Minute).UnixMilli()),
		float64(clock.Add(-24 * time.Hour).UnixMilli()),
	}; !cmp.Equal(want, from) {
		t.Errorf("the searches begin at %v, want %v", from, want)
	}

	a.answers["GetQueueAttributes dead"] = "!{}"
	if _, err := o.States(t.Context()); err == nil {
		t.Error("a queue that can't be read has no error")
	}
	a.answers["GetQueueAttributes dead"] = `{"Attributes":{}}`
	if _, err := o.States(t.Context()); err == nil {
		t.Error("an answer without the attributes has no error")
	}
}

// The list of the last deliveries has no place for an old failure, and the queue's age tells of it.
func TestTheLagIsTheAgeOfTheQueuesOldestMessage(t *testing.T) {
	t.Parallel()

	a, o := newAWS(t)
	lags := func() (text string) {
		t.Helper()
		states, err := o.States(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range states {
			if s.Lag == nil {
				text += s.Name + " unknown "
			} else {
				text += s.Name + " " + s.Lag.String() + " "
			}
		}
		return text
	}
	if got, want := lags(), "crm 5m12s erp unknown "; got != want {
		t.Errorf("the lags are %q, want %q", got, want)
	}
	asked := a.of("GetMetricData")
	if len(asked) != 1 {
		t.Fatalf("the metrics were asked for %d times, want once", len(asked))
	}
	text, err := json.Marshal(asked[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"Namespace":"AWS/SQS"`, `"MetricName":"ApproximateAgeOfOldestMessage"`, `"Stat":"Maximum"`,
		`{"Name":"QueueName","Value":"allo-dev-webhook-crm.fifo"}`,
		`{"Name":"QueueName","Value":"allo-dev-webhook-erp.fifo"}`,
		`"ScanBy":"TimestampDescending"`, fmt.Sprintf(`"EndTime":%d`, clock.Unix()),
		fmt.Sprintf(`"StartTime":%d`, clock.Add(-metricSpan).Unix()),
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the metrics were asked for by %s, which lacks %s", text, part)
		}
	}

	for _, answer := range []string{
		"!{}", "<html>", `{"MetricDataResults":[{"Id":"q7","Values":[1]},{"Id":"x","Values":[1]}]}`,
	} {
		a.answers["GetMetricData"] = answer
		if got, want := lags(), "crm unknown erp unknown "; got != want {
			t.Errorf("with the answer %s the lags are %q, want %q", answer, got, want)
		}
	}
	// The value of a queue that has become empty is an old one.
	a.answers["GetQueueAttributes"] = counts(0, 0, 0)
	a.answers["GetMetricData"] = `{"MetricDataResults":[{"Id":"q0","Values":[312]}]}`
	if got, want := lags(), "crm 0s erp 0s "; got != want {
		t.Errorf("without a message the lags are %q, want %q", got, want)
	}
}

// The lines are those that the handler writes. The search ends with a span of time that has enough.
func TestTheDeliveriesComeFromTheLog(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(id string) int {
		if id == "b-1" {
			return http.StatusServiceUnavailable
		}
		return http.StatusAccepted
	}
	var watched []Delivery
	h.Watch(func(d Delivery) { watched = append(watched, d) })
	for _, m := range []string{"a", "b"} {
		if _, err := h.Handle(t.Context(), batchOf(message(m, 1, 0))); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(d.out.String()) {
		lines = append(lines, line)
	}
	var events []map[string]string
	for _, line := range lines { // with those that aren't about deliveries
		events = append(events, map[string]string{"message": line})
	}
	body, err := json.Marshal(map[string]any{"events": events, "nextToken": "t"})
	if err != nil {
		t.Fatal(err)
	}
	a, o := newAWS(t)
	a.answers["FilterLogEvents"] = string(body)
	states, err := o.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := a.of("FilterLogEvents")
	if len(asked) != maxLogPages*len(logSpans) || asked[1]["nextToken"] != "t" ||
		asked[0]["filterPattern"] != `{ $.msg = "delivery" }` {
		t.Errorf("the log was asked %v", asked)
	}
	want := []Delivery{
		{
			Webhook: "crm", ID: "a-1", Type: "allo.reservation.held", Attempt: 1, Status: 202,
			Outcome: Delivered,
		},
		{
			Webhook: "crm", ID: "b-1", Type: "allo.reservation.held", Attempt: 1, Status: 503,
			Outcome: Failed,
		},
	}
	for n := range watched {
		watched[n].Milliseconds, watched[n].At = 0, time.Time{}
	}
	if diff := cmp.Diff(want, watched); diff != "" {
		t.Errorf("the watched deliveries differ (-want +got):\n%s", diff)
	}
	found := map[string]Delivery{}
	for _, d := range states[0].Deliveries {
		if d.At.IsZero() {
			t.Errorf("the delivery %+v has no time", d)
		}
		d.Milliseconds, d.At = 0, time.Time{}
		found[d.ID] = d
	}
	if diff := cmp.Diff(map[string]Delivery{"a-1": want[0], "b-1": want[1]}, found); diff != "" {
		t.Errorf("the deliveries differ (-want +got):\n%s", diff)
	}

	a.answers["FilterLogEvents"] = "!{}"
	if states, err := o.States(t.Context()); err != nil || states[0].Deliveries != nil {
		t.Errorf("with a log that can't be read the deliveries are %v, %v", states, err)
	}
	o.group = ""
	if states, err := o.States(t.Context()); err != nil || states[0].Deliveries != nil {
		t.Errorf("without a log the deliveries are %v, %v", states, err)
	}
}

// A short span with enough deliveries ends the search, and the newest ones are kept.
func TestABusyLogIsSearchedOnce(t *testing.T) {
	t.Parallel()

	a, o := newAWS(t)
	var events []map[string]string
	for n := range enoughDeliveries {
		at := clock.Add(time.Duration(n) * time.Second).UTC().Format(time.RFC3339)
		events = append(events, map[string]string{"message": fmt.Sprintf(
			`{"time":%q,"msg":"delivery","webhook":"crm","event":"a-%d"}`, at, n)})
	}
	body, err := json.Marshal(map[string]any{"events": events})
	if err != nil {
		t.Fatal(err)
	}
	a.answers["FilterLogEvents"] = string(body)
	states, err := o.States(t.Context())
	if err != nil || len(a.of("FilterLogEvents")) != 1 {
		t.Fatalf("the log was asked %d times, %v, want once", len(a.of("FilterLogEvents")), err)
	}
	got := states[0].Deliveries
	if len(got) != MaxDeliveries || got[0].ID != fmt.Sprint("a-", enoughDeliveries-1) {
		t.Errorf("the deliveries are %d, the first is %+v", len(got), got[0])
	}
}

func TestARedeliveryLiftsTheMarkAndMovesTheDeadLetters(t *testing.T) {
	t.Parallel()

	a, o := newAWS(t)
	if n, err := o.Redeliver(t.Context(), "crm"); n != 3 || err != nil {
		t.Fatalf("Redeliver() = %d, %v, want 3", n, err)
	}
	want := []map[string]any{{
		"SourceArn":      "arn:aws:sqs:eu-central-1:1:allo-dev-dead-webhook-crm.fifo",
		"DestinationArn": crmQueue, "MaxNumberOfMessagesPerSecond": float64(redrivePace),
	}}
	if diff := cmp.Diff(want, a.of("StartMessageMoveTask")); diff != "" {
		t.Errorf("the moves differ (-want +got):\n%s", diff)
	}
	lifted := a.of("UntagQueue")
	if len(lifted) != 1 || !cmp.Equal(lifted[0]["TagKeys"], []any{ParkedTag}) ||
		!strings.HasSuffix(lifted[0]["QueueUrl"].(string), "/1/allo-dev-webhook-crm.fifo") {
		t.Errorf("the marks were lifted by %v", lifted)
	}

	// A move that runs already is as good. Another refusal isn't.
	a.answers["StartMessageMoveTask"] = "!{}"
	if n, err := o.Redeliver(t.Context(), "crm"); n != 3 || err != nil {
		t.Errorf("while a move runs, Redeliver() = %d, %v, want 3", n, err)
	}
	for _, answer := range []string{
		`{"Results":[{"Status":"COMPLETED"}]}`, `{"Results":[]}`, `!{}`, `<html>`,
	} {
		a.answers["ListMessageMoveTasks"] = answer
		if _, err := o.Redeliver(t.Context(), "crm"); err == nil {
			t.Errorf("a move that can't begin has no error with the tasks %s", answer)
		}
	}
	moves := len(a.of("StartMessageMoveTask"))
	a.answers["GetQueueAttributes dead"] = counts(0, 0, 0)
	if n, err := o.Redeliver(t.Context(), "crm"); n != 0 || err != nil ||
		len(a.of("StartMessageMoveTask")) != moves {
		t.Errorf("without dead letters Redeliver() = %d, %v, and moves", n, err)
	}
	a.answers["UntagQueue"] = "!{}"
	if _, err := o.Redeliver(t.Context(), "crm"); err == nil {
		t.Error("a mark that can't be lifted has no error")
	}
	if _, err := o.Redeliver(t.Context(), "cms"); !errors.Is(err, ErrUnknownWebhook) {
		t.Errorf("an unknown webhook has the error %v", err)
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(string) int { return http.StatusInternalServerError }
	var got []string
	watch := func(d Delivery) {
		got = append(got, fmt.Sprint(d.Attempt, " ", d.Outcome, " ", d.Status))
	}
	h.Watch(watch)
	for _, ago := range []time.Duration{0, 6 * time.Second, 400 * time.Second, 96 * time.Hour} {
		if _, err := h.Handle(t.Context(), batchOf(message("a", 1, ago))); err != nil {
			t.Fatal(err)
		}
	}
	gone, h := setUp(t)
	gone.parked = true
	h.Watch(watch)
	if _, err := h.Handle(t.Context(), batchOf(message("b", 1, 0))); err != nil {
		t.Fatal(err)
	}
	want := []string{"1 FAILED 500", "2 FAILED 500", "3 FAILED 500", "10 DEAD 500", "1 DEAD 0"}
	if !cmp.Equal(want, got) {
		t.Errorf("the deliveries are %q, want %q", got, want)
	}
}

func batchOf(m lambdaevents.SQSMessage) lambdaevents.SQSEvent {
	return lambdaevents.SQSEvent{Records: []lambdaevents.SQSMessage{m}}
}
