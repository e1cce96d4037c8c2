package events

import (
	"encoding/json"
	"strings"
	"testing"
)

// A DedupID has the first digits of the epoch and the event's ID. It fits into the 128 characters
// of SNS. It has no full stop, which Standard Webhooks puts behind it.
func TestADedupIDNamesTheEpoch(t *testing.T) {
	t.Parallel()
	const hold = "01990c1e-0000-7000-8000-000000000001"
	const epoch = "6f1c0f0e-0000-4000-8000-000000000002"
	longest := hold + "-" + hold + "-9223372036854775807"
	for _, c := range []struct{ id, source, want string }{
		{hold + "-2", "/allo-prod/" + epoch, "6f1c0f0e-" + hold + "-2"},
		{longest, "/allo/prod/" + epoch, "6f1c0f0e-" + longest},
		{hold + "-2", "", hold + "-2"},
		{hold + "-2", "/allo-prod/short", hold + "-2"},
	} {
		body, err := json.Marshal(map[string]string{"id": c.id, "source": c.source})
		if err != nil {
			t.Fatal(err)
		}
		got := Event{ID: c.id, Body: body}.DedupID()
		if got != c.want || len(got) > 128 || strings.Contains(got, ".") {
			t.Errorf("the event %s has the DedupID %q, want %q", body, got, c.want)
		}
	}
}
