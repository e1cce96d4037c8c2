package deliver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/config"
)

// sent is a request to SQS.
type sent struct {
	action string
	in     map[string]any
}

func TestTheRequestsToSQS(t *testing.T) {
	t.Parallel()

	var got sent
	answer := `{}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = sent{action: r.Header.Get("X-Amz-Target")}
		if err := json.NewDecoder(r.Body).Decode(&got.in); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	q := newSQS(config.AWS{
		Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "key", Endpoint: server.URL,
	})
	q.now = func() time.Time { return time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC) }
	check := func(action string, err error, in map[string]any) {
		t.Helper()
		if err != nil || got.action != "AmazonSQS."+action {
			t.Errorf("the action is %s, %v, want %s", got.action, err, action)
		}
		if diff := cmp.Diff(in, got.in); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", action, diff)
		}
	}
	url := server.URL + "/1/allo-dev-webhook-crm.fifo"
	m := message("a", 1, 0)
	check("ChangeMessageVisibility", q.Hide(t.Context(), m, 2*time.Hour), map[string]any{
		"QueueUrl": url, "ReceiptHandle": "r", "VisibilityTimeout": 7200.0,
	})
	m.MessageId = "another id after a redrive"
	check("SendMessage", q.Bury(t.Context(), deadLetters, m), map[string]any{
		"QueueUrl":    server.URL + "/1/allo-dev-dead-webhook-crm.fifo",
		"MessageBody": m.Body, "MessageGroupId": "a",
		"MessageDeduplicationId": "another id after a redrive",
	})
	check("TagQueue", q.Park(t.Context(), queue), map[string]any{
		"QueueUrl": url, "Tags": map[string]any{"allo:parked": "2026-11-28T10:00:00Z"},
	})
	for text, want := range map[string]bool{
		`{}`: false, `{"Tags":{}}`: false, `{"Tags":{"a":"b"}}`: false,
		`{"Tags":{"allo:parked":"2026-11-28T10:00:00Z"}}`: true,
	} {
		answer = text
		parked, err := q.Parked(t.Context(), queue)
		check("ListQueueTags", err, map[string]any{"QueueUrl": url})
		if parked != want {
			t.Errorf("with the answer %s a queue is parked: %t", text, parked)
		}
	}
	answer = "<html>"
	if _, err := q.Parked(t.Context(), queue); err == nil {
		t.Error("an answer that isn't JSON has no error")
	}
	if err := q.Park(t.Context(), "crm"); err == nil {
		t.Error("a malformed ARN has no error")
	}
}
