package deploy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"github.com/allo/reservations/internal/events"
	"github.com/allo/reservations/internal/local"
)

// cloudEvent is the part of an event that the test reads.
type cloudEvent struct{ ID, Source, Type, Subject, Sequence string }

// publishStep extends and confirms a hold, lets the rule's event start the relay, and reads the
// consumer's queue. The relay invokes outbox through the double's Lambda, and publishes to the
// double's topic, which passes the events on to the queues.
func (r *rehearsal) publishStep(t *testing.T) {
	s := serve(t, r.double, r.functions, r.routes)
	r.trigger.offer("outbox", s.functions["outbox"])
	shelf := s.shelf(t)
	hold := send[reservation](t, s, http.MethodPost, "/api/reservations", map[string]any{
		"productId": shelf.product, "warehouseId": shelf.WarehouseID, "quantity": 1,
	}, http.StatusCreated).Reservation.ID
	path := "/api/reservations/" + hold.String()
	send[reservation](t, s, http.MethodPost, path+"/extend",
		map[string]any{"ttlSeconds": 300}, http.StatusOK)
	send[reservation](t, s, http.MethodPost, path+"/confirm", nil, http.StatusOK)

	for range 2 { // the second run finds nothing new
		s.relay(t)
	}
	published := r.double.consume(t, "queue-crm")
	t.Logf("the consumer read %d events", len(published))
	for _, problem := range disorder(hold.String(), published) {
		t.Error(problem)
	}
	archived, err := eventbridge.NewFromConfig(r.double.config()).DescribeArchive(
		within(t, callLimit),
		&eventbridge.DescribeArchiveInput{ArchiveName: aws.String(stack + "-events")},
	)
	if err != nil || archived.EventCount != int64(len(published)) {
		t.Errorf("the bus's archive is %+v, %v, want the %d events of the queue",
			archived, err, len(published))
	}
	moved := ofType(published, events.TypeMoved)
	s.wantWebhook(t, len(moved))
	got := r.double.consume(t, "webhook-erp")
	if len(moved) == 0 || !sameEvents(got, moved) {
		t.Errorf("the webhook's queue has %v, want the events of the other queue of the type %s: %v",
			got, events.TypeMoved, moved)
	}
}

// wantWebhook asks the deployed list-webhooks for the webhook, whose queue has so many events that
// wait, and the deployed redeliver-webhook to send its dead letters, of which there are none.
func (s *service) wantWebhook(t *testing.T, waiting int) {
	t.Helper()
	type webhook struct {
		Name, URL            string
		Waiting, DeadLetters int
	}
	got := send[[]webhook](t, s, http.MethodGet, "/api/webhooks", nil, http.StatusOK)
	want := []webhook{{Name: "erp", URL: "https://erp.example", Waiting: waiting}}
	if !slices.Equal(got, want) {
		t.Errorf("the operator sees the webhooks %+v, want %+v", got, want)
	}
	again := send[webhook](t, s, http.MethodPost, "/api/webhooks/erp/redeliver", nil, http.StatusOK)
	if again != (webhook{Name: "erp"}) {
		t.Errorf("the redelivery answers %+v, want no dead letters", again)
	}
}

// ofType returns the events of a type.
func ofType(all []cloudEvent, kind string) []cloudEvent {
	return slices.DeleteFunc(slices.Clone(all), func(e cloudEvent) bool { return e.Type != kind })
}

// sameEvents reports whether two queues have the same events. Those of different subjects may come
// in another order.
func sameEvents(a, b []cloudEvent) bool {
	sorted := func(all []cloudEvent) []cloudEvent {
		return slices.SortedStableFunc(slices.Values(all), func(x, y cloudEvent) int {
			return strings.Compare(x.Subject, y.Subject)
		})
	}
	return slices.Equal(sorted(a), sorted(b))
}

// relay sends the relay the rule's event.
func (s *service) relay(t *testing.T) {
	t.Helper()
	_, err := s.functions["relay"].Invoke(
		within(t, invokeLimit), local.ScheduledEvent(time.Now().Truncate(time.Minute)),
	)
	if err != nil {
		t.Fatalf("the relay: %v; its output: %s", err, s.said)
	}
}

// consume reads a queue until it is empty, and deletes what it read.
func (d *double) consume(t *testing.T, name string) (all []cloudEvent) {
	t.Helper()
	queue := d.endpoint + "/" + account + "/" + stack + "-" + name + ".fifo"
	call := func(action string, more map[string]any) question {
		more["QueueUrl"] = queue
		return question{
			service: "sqs", target: "AmazonSQS." + action, json: string(must(json.Marshal(more))),
		}
	}
	for {
		messages := read[struct {
			Messages []struct{ Body, ReceiptHandle string }
		}](
			t, d, call("ReceiveMessage", map[string]any{"MaxNumberOfMessages": 10}),
		).Messages
		if len(messages) == 0 {
			return all
		}
		for _, m := range messages {
			var e cloudEvent
			if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
				t.Fatalf("the message %s: %v", m.Body, err)
			}
			all = append(all, e)
			d.callAWS(t, call("DeleteMessage", map[string]any{"ReceiptHandle": m.ReceiptHandle}))
		}
	}
}

// disorder says what is wrong with the events that a consumer read: each must come once, those of
// each subject in order, and those of the hold must be what happened to it.
func disorder(hold string, published []cloudEvent) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	seen, last := map[string]bool{}, map[string]string{}
	var ofHold []string
	for _, e := range published {
		if seen[e.ID] {
			wrong("the event %s came twice", e.ID)
		}
		seen[e.ID] = true
		if e.Sequence <= last[e.Subject] {
			wrong("%s: sequence %s came after %s", e.Subject, e.Sequence, last[e.Subject])
		}
		last[e.Subject] = e.Sequence
		if !strings.HasPrefix(e.Source, "/"+stack+"/") {
			wrong("the source of %s is %s", e.ID, e.Source)
		}
		if e.Subject == hold {
			ofHold = append(ofHold, e.Type)
		}
	}
	want := []string{events.TypeHeld, events.TypeExtended, events.TypeConfirmed}
	if !slices.Equal(ofHold, want) {
		wrong("the events of the hold are %v, want %v", ofHold, want)
	}
	return found
}

// These are the controls of publishStep.
func TestDisorderIsFound(t *testing.T) {
	t.Parallel()

	event := func(sequence, kind string) cloudEvent {
		return cloudEvent{"h-" + sequence, "/" + stack + "/epoch", kind, "h", sequence}
	}
	held, extended := event("1", events.TypeHeld), event("2", events.TypeExtended)
	confirmed, foreign := event("3", events.TypeConfirmed), event("3", events.TypeConfirmed)
	foreign.Source = "/allo-prod/epoch"
	for name, published := range map[string][]cloudEvent{
		"twice":        {held, extended, extended, confirmed},
		"out of order": {held, confirmed, extended},
		"one missing":  {held, confirmed},
		"of another":   {held, extended, foreign},
	} {
		if found := disorder("h", published); len(found) == 0 {
			t.Errorf("%s: nothing is found in %v", name, published)
		}
	}
	if found := disorder("h", []cloudEvent{held, extended, confirmed}); len(found) != 0 {
		t.Errorf("in order: %v is found", found)
	}
}

// These are the controls of what publishStep reads from the webhook's queue.
func TestAQueueWithOtherEventsIsFound(t *testing.T) {
	t.Parallel()

	event := func(subject, sequence, kind string) cloudEvent {
		return cloudEvent{subject + "-" + sequence, "/" + stack + "/epoch", kind, subject, sequence}
	}
	held, other := event("h", "1", events.TypeHeld), event("q/w", "1", events.TypeMoved)
	first, second := event("p/w", "1", events.TypeMoved), event("p/w", "2", events.TypeMoved)
	moved := ofType([]cloudEvent{held, first, other, second}, events.TypeMoved)
	for name, queue := range map[string][]cloudEvent{
		"empty": nil, "one missing": {first, other}, "out of order": {second, first, other},
		"one twice": {first, first, second, other}, "every type": {held, first, second, other},
	} {
		if sameEvents(queue, moved) {
			t.Errorf("%s: nothing is found in %v", name, queue)
		}
	}
	if !sameEvents([]cloudEvent{other, first, second}, moved) {
		t.Error("another order of subjects is refused")
	}
}
