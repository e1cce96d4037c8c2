package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/emf"
	"github.com/allo/reservations/internal/events/webhook"
)

const (
	queue       = "arn:aws:sqs:r:1:allo-dev-webhook-crm.fifo"
	deadLetters = "arn:aws:sqs:r:1:allo-dev-dead-webhook-crm.fifo"
)

// clock is the time of the handlers.
var clock = time.Now().Truncate(time.Millisecond)

// doubles stand in for the queues and the endpoint. They record what the handler does.
type doubles struct {
	mu     sync.Mutex
	posted []string // events' ids
	done   []string // hide, bury, park and what they are about
	parked bool
	// status answers a post of an event, 200 if it is nil.
	status func(id string) int
	failed error // what every call about the queues returns
	out    bytes.Buffer
}

func (d *doubles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id := r.Header.Get("Webhook-Id")
	if !strings.Contains(string(body), `"id":"`+id+`"`) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.posted = append(d.posted, id)
	if d.status != nil {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(d.status(id))
	}
}

func (d *doubles) record(format string, args ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = append(d.done, fmt.Sprintf(format, args...))
	return d.failed
}

func (d *doubles) Hide(_ context.Context, m lambdaevents.SQSMessage, t time.Duration) error {
	return d.record("hide %s %s", m.MessageId, t)
}

func (d *doubles) Bury(_ context.Context, to string, m lambdaevents.SQSMessage) error {
	if to != deadLetters {
		return errors.New("another queue's dead letters")
	}
	return d.record("bury %s", m.MessageId)
}

func (d *doubles) Park(_ context.Context, name string) error {
	if name != queue {
		return errors.New("another queue")
	}
	d.mu.Lock()
	d.parked = true
	d.mu.Unlock()
	return d.record("park")
}

func (d *doubles) Parked(context.Context, string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.parked, d.failed
}

func (d *doubles) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(p)
}

func (d *doubles) metrics() (names []string) {
	for _, name := range []string{"WebhookDelivered", "WebhookFailed", "WebhookDead"} {
		for range strings.Count(d.out.String(), `"`+name+`":1`) {
			names = append(names, name)
		}
	}
	return names
}

func setUp(t *testing.T) (*doubles, *Handler) {
	t.Helper()
	d := &doubles{}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	secrets, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return clock }
	h := New(webhook.NewClient(webhook.Options{AllowLoopback: true}), d, now, []Webhook{{
		Name: "crm", URL: server.URL,
		Secrets: func(context.Context) ([]webhook.Secret, error) { return secrets, nil },
	}}, emf.New(d, "Allo/test"), slog.New(slog.NewJSONHandler(d, nil)))
	return d, h
}

// message is an event <group>-<n>, received for the first time so many seconds ago.
func message(group string, n int, ago time.Duration) lambdaevents.SQSMessage {
	id := group + "-" + strconv.Itoa(n)
	return lambdaevents.SQSMessage{
		MessageId: id, EventSourceARN: queue, ReceiptHandle: "r",
		Body: `{"id":"` + id + `","type":"allo.reservation.held","subject":"` + group + `"}`,
		Attributes: map[string]string{
			"MessageGroupId": group, "MessageDeduplicationId": id,
			"ApproximateReceiveCount": "100",
			"ApproximateFirstReceiveTimestamp": strconv.FormatInt(
				clock.Add(-ago).UnixMilli(), 10),
		},
	}
}

// handle returns the ids of the messages that the queue keeps.
func handle(t *testing.T, h *Handler, messages ...lambdaevents.SQSMessage) (kept []string) {
	t.Helper()
	response, err := h.Handle(t.Context(), lambdaevents.SQSEvent{Records: messages})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range response.BatchItemFailures {
		kept = append(kept, f.ItemIdentifier)
	}
	return kept
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestAFailedEventHoldsBackItsSubjectsLaterOnesAndNoOthers(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(id string) int {
		if id == "a-2" {
			return 500
		}
		return 204
	}
	kept := handle(t, h, message("a", 1, 0), message("a", 2, 0), message("b", 1, 0),
		message("a", 3, 0), message("b", 2, 0), message("a", 4, 0))
	want(t, "kept", kept, []string{"a-2", "a-3", "a-4"})
	slices.Sort(d.posted)
	want(t, "posted", d.posted, []string{"a-1", "a-2", "b-1", "b-2"})
	want(t, "done", d.done, []string{"hide a-2 5s", "hide a-3 0s", "hide a-4 0s"})
	want(t, "metrics", d.metrics(), []string{
		"WebhookDelivered", "WebhookDelivered", "WebhookDelivered", "WebhookFailed",
	})

	// The control: were each message a group of its own, the later ones would overtake.
	d.posted = nil
	var apart []lambdaevents.SQSMessage
	for n := range 3 {
		m := message("a", n+2, 0)
		m.Attributes["MessageGroupId"] = m.MessageId
		apart = append(apart, m)
	}
	want(t, "kept of groups apart", handle(t, h, apart...), []string{"a-2"})
}

// The count of the receives is 100 in all of them: only the time counts.
func TestTheTimeSinceTheFirstReceiveChoosesTheDelay(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(string) int { return 500 }
	var kept []string
	for ago, last := time.Duration(0), false; !last; {
		turn := webhook.TurnOf(ago)
		kept = append(kept, handle(t, h, message("a", 1, ago))...)
		ago, last = ago+turn.Hide, turn.Last
	}
	handle(t, h, message("a", 1, 1000*time.Hour))
	want(t, "done", d.done, []string{
		"hide a-1 5s", "hide a-1 5m0s", "hide a-1 30m0s", "hide a-1 2h0m0s", "hide a-1 5h0m0s",
		"hide a-1 10h0m0s", "hide a-1 7h0m0s", "hide a-1 7h0m0s", "hide a-1 10h0m0s",
		"hide a-1 10h0m0s", "hide a-1 8h0m0s", "hide a-1 8h0m0s", "hide a-1 8h0m0s",
		"bury a-1", "bury a-1",
	})
	if len(d.posted) != 11 || len(kept) != webhook.Receives()-1 {
		t.Errorf("there were %d attempts, and the message was kept %d times, want 11 and %d",
			len(d.posted), len(kept), webhook.Receives()-1)
	}
	if got := d.metrics(); len(got) != 11 || got[8] != "WebhookFailed" || got[9] != "WebhookDead" {
		t.Errorf("the metrics are %v", got)
	}
}

func TestAMessageWithoutTheTimeIsTriedAtOnce(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(string) int { return 500 }
	m := message("a", 1, 1000*time.Hour)
	delete(m.Attributes, "ApproximateFirstReceiveTimestamp")
	want(t, "kept", handle(t, h, m), []string{"a-1"})
	want(t, "done", d.done, []string{"hide a-1 5s"})
}

func TestABusyEndpointIsGivenTheTimeThatItAsksFor(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.status = func(string) int { return 503 }
	handle(t, h, message("a", 1, 0))
	want(t, "done", d.done, []string{"hide a-1 1m0s"})
}

func TestAnEndpointThatIsGoneIsParkedUntilTheMarkIsLifted(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	now := clock
	h.now = func() time.Time { return now }
	gone := true
	d.status = func(string) int {
		if gone {
			return 410
		}
		return 200
	}
	want(t, "kept", handle(t, h, message("a", 1, 0), message("a", 2, 0)), nil)
	want(t, "kept", handle(t, h, message("b", 1, 0)), nil)
	want(t, "posted", d.posted, []string{"a-1"})
	want(t, "done", d.done, []string{"park", "bury a-1", "bury a-2", "bury b-1"})
	want(t, "metrics", d.metrics(), []string{"WebhookDead", "WebhookDead", "WebhookDead"})

	// Another environment of the function sees the mark too, and so needs no attempt.
	other := New(h.client, d, h.now, h.webhooks, nil, h.log)
	handle(t, other, message("c", 1, 0))
	want(t, "posted by another environment", d.posted, []string{"a-1"})

	// An operator lifts it. What comes then is delivered.
	gone, d.parked = false, false
	handle(t, h, message("d", 1, 0))
	want(t, "posted after the lift", d.posted, []string{"a-1", "d-1"})

	// Another environment parks it: this one notices when parkedLife has passed.
	d.parked = true
	now = now.Add(parkedLife - time.Second)
	handle(t, h, message("d", 2, 0))
	now = now.Add(2 * time.Second)
	handle(t, h, message("d", 3, 0))
	want(t, "posted while parked elsewhere", d.posted, []string{"a-1", "d-1", "d-2"})
}

func TestWhatTheQueueRefusesIsKept(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	d.failed = errors.New("no permission")
	d.status = func(string) int { return 410 }
	want(t, "kept of a dead letter", handle(t, h, message("a", 1, 0)), []string{"a-1"})
	d.status = func(string) int { return 500 }
	want(t, "kept of a failure", handle(t, h, message("b", 1, 0), message("b", 2, 0)),
		[]string{"b-1", "b-2"})
	if log := d.out.String(); !strings.Contains(log, "no permission") {
		t.Errorf("the log lacks the reason:\n%s", log)
	}
}

func TestWhatIsNoEventIsADeadLetterAtOnce(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	for _, body := range []string{"", "{", "[]", `{"id":7}`, `{"type":"x"}`} {
		m := message("a", 1, 0)
		m.Body = body
		want(t, "kept", handle(t, h, m), nil)
	}
	if len(d.posted) != 0 || len(d.done) != 5 || d.done[4] != "bury a-1" {
		t.Errorf("the handler posted %v and did %v", d.posted, d.done)
	}
}

func TestAnUnreadableSecretIsAFailedAttempt(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	h.webhooks[0].Secrets = func(context.Context) ([]webhook.Secret, error) {
		return nil, errors.New("read the secret allo/crm: no permission")
	}
	want(t, "kept", handle(t, h, message("a", 1, 5*time.Second)), []string{"a-1"})
	want(t, "done", d.done, []string{"hide a-1 5m0s"})
	if log := d.out.String(); !strings.Contains(log, "allo/crm: no permission") {
		t.Errorf("the log lacks the reason:\n%s", log)
	}
}

func TestNoAttemptBeginsThatTheFunctionsTimeCutsOff(t *testing.T) {
	t.Parallel()

	d, h := setUp(t)
	batch := lambdaevents.SQSEvent{Records: []lambdaevents.SQSMessage{message("a", 1, 0)}}
	handleWithin := func(left time.Duration, kept, posts int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		response, err := h.Handle(ctx, batch)
		if err != nil || len(response.BatchItemFailures) != kept || len(d.posted) != posts {
			t.Errorf("the response is %v, %v, after the posts %v", response, err, d.posted)
		}
	}
	handleWithin(webhook.Timeout+reserve-time.Millisecond, 1, 0)
	want(t, "done", d.done, []string{"hide a-1 0s"})
	// The control: with more time there is an attempt.
	handleWithin(time.Hour, 0, 1)
}

func TestAQueueBelongsToTheWebhookOfItsName(t *testing.T) {
	t.Parallel()

	_, h := setUp(t)
	h.webhooks = []Webhook{{Name: "a"}, {Name: "b-webhook-a"}, {Name: "b"}}
	for name, want := range map[string]string{
		"allo-dev-webhook-a.fifo": "a", "allo-dev-webhook-b.fifo": "b",
		"allo-dev-webhook-b-webhook-a.fifo": "b-webhook-a",
		"allo-dev-webhook-c.fifo":           "", "allo-dev-queue-a.fifo": "", "a.fifo": "",
	} {
		w, err := h.webhook("arn:aws:sqs:r:1:" + name)
		if w.Name != want || (err == nil) != (want != "") {
			t.Errorf("the webhook of %s is %q, %v, want %q", name, w.Name, err, want)
		}
	}
	m := message("a", 1, 0)
	m.EventSourceARN = "arn:aws:sqs:r:1:other.fifo"
	_, err := h.Handle(t.Context(), lambdaevents.SQSEvent{Records: []lambdaevents.SQSMessage{m}})
	if err == nil || !strings.Contains(err.Error(), "other.fifo") {
		t.Errorf("the error is %v", err)
	}
}
