package e2e

import (
	"net/http"
	"slices"
	"testing"
)

// A consumer follows the events, and the operator reads a hold's history.
func TestAConsumerFollowsTheEvents(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		type page struct {
			Events []struct{ ID, Type, Subject string }
			Next   string
		}
		read := func(query string) page {
			t.Helper()
			return decode[page](t, d.get("/api/events?"+query).want(t, http.StatusOK, ""))
		}
		d.sweep() // takes a tick
		start := read("limit=500").Next
		h := d.reserve(line(mug, newYork, 1))
		d.post("/api/reservations/"+h.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.sweep()
		var types []string
		for after := start; ; {
			p := read("limit=1&after=" + after)
			if len(p.Events) == 0 {
				break
			}
			types, after = append(types, p.Events[0].Type), p.Next
		}
		want := []string{
			"allo.reservation.held", "allo.reservation.confirmed", "allo.stock.moved",
		}
		if !slices.Equal(types, want) {
			t.Errorf("the events are %v, want %v", types, want)
		}
		history := decode[[]struct{ Kind string }](t,
			d.get("/api/reservations/"+h.ID+"/history").want(t, http.StatusOK, ""))
		if len(history) != 2 || history[1].Kind != "confirmed" {
			t.Errorf("the history is %v, want a hold and its confirm", history)
		}
		d.get("/api/events?after=x").want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		d.get("/api/reservations/x/history").want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
	})
}
