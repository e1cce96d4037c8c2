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
		// An empty page keeps its cursor when nothing is new, with types too. With types it may also
		// end before other events: then it leads on.
		last := read("limit=500&after=" + start).Next
		for _, query := range []string{"", "types=allo.stock.moved&", "types=allo.reservation.held&"} {
			if p := read(query + "after=" + last); len(p.Events) > 0 || p.Next != last {
				t.Errorf("the page of %s behind the end is %+v, want it empty, and next %s", query, p,
					last)
			}
		}
		var extended []string
		for after, pages := start, 0; pages < 100; pages++ {
			p := read("types=allo.reservation.extended&limit=1&after=" + after)
			for _, e := range p.Events {
				extended = append(extended, e.ID)
			}
			if len(p.Events) == 0 && p.Next == after {
				break
			}
			after = p.Next
		}
		if len(extended) > 0 {
			t.Errorf("the extensions are %v, want none, and an end", extended)
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
