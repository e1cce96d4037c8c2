package browser

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/allo/reservations/internal/app/grant"
)

// webhookBehind answers the list of the webhooks with one that took its last 20 events, and whose
// oldest waiting event has waited for so many seconds.
func webhookBehind(lagSeconds string) func(w http.ResponseWriter, r *http.Request) bool {
	var taken []string
	for n := range 20 {
		taken = append(taken, fmt.Sprintf(`{"id":"0192d000-0000-7000-8000-0000000009%02d-1",`+
			`"type":"allo.reservation.held","at":"2026-03-01T10:00:%02dZ","attempt":1,"status":202,`+
			`"outcome":"DELIVERED","milliseconds":12}`, n, 59-n))
	}
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/webhooks" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[{"name":"crm","url":"https://crm.example","types":[],`+
			`"parked":false,"waiting":1,"deadLetters":0,"lagSeconds":`+lagSeconds+
			`,"deliveries":[`+strings.Join(taken, ",")+`]}]`)
		return true
	}
}

// A failure is older than the last deliveries, which all succeeded. The event that failed still
// waits, and the pages of two operators tell so. The controls are a webhook that is on time, and
// one whose lag can't be read.
func TestAnOldFailureBehindNewerDeliveriesIsSeen(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	b, other := s.newTab(), s.newTab()
	b.signIn(grant.GroupViewer, "/ops")
	other.signIn(grant.GroupAdmin, "/ops/webhooks")
	for _, c := range []struct{ lag, health, state, fact string }{
		{"3", "Webhooks delivering", "Delivering", "3 seconds"},
		{"7400.5", "crm 2 hours behind", "2 hours behind", "2 hours"},
		{"null", "crm: waiting time unknown", "Delivering", "Unknown"},
	} {
		s.breakWith(webhookBehind(c.lag))
		b.visit("/ops")
		b.sees(".health", c.health)
		other.visit("/ops/webhooks")
		other.sees(".webhook .state", c.state)
		other.sees(".webhook .facts", c.fact)
		other.sees(deliveryList, "202")
	}
}
