package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// holdPayment is what the tests look at in the list of a hold's payments.
type holdPayment struct {
	Reference, Outcome string
	At                 time.Time
	Successor          *string
}

// The operator sees which payment has confirmed a hold, which the hold itself doesn't tell.
func TestAHoldsPaymentsAreListed(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 2))
	payments := func(path string) []holdPayment {
		t.Helper()
		got := decode[[]holdPayment](t, s.get(path+"/payments").want(t, http.StatusOK, ""))
		for i, p := range got {
			if time.Since(p.At) > time.Minute {
				t.Errorf("the payment %s has its outcome since %s", p.Reference, p.At)
			}
			got[i].At = time.Time{}
		}
		return got
	}
	if body := s.get(path+"/payments").want(t, http.StatusOK, "").body; string(body) != "[]" {
		t.Errorf("the payments of a hold without one are %s, want []", body)
	}
	s.post(path+"/payment", startBody("p")).want(t, http.StatusOK, "")
	s.post(path+"/payment", startBody("q")).want(t, http.StatusOK, "")
	s.post(path+"/confirm", failBody("q")).want(t, http.StatusOK, "")
	want := []holdPayment{
		{Reference: "p", Outcome: "FAILED"}, {Reference: "q", Outcome: "CONFIRMED"},
	}
	if diff := cmp.Diff(want, payments(path)); diff != "" {
		t.Errorf("the payments differ (-want +got):\n%s", diff)
	}

	late := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.kill(late)
	next := decode[paid](t, s.post(late+"/confirm", confirmBody("r")).
		want(t, http.StatusOK, "")).Reservation.ID
	want = []holdPayment{{Reference: "r", Outcome: "REACQUIRED", Successor: &next}}
	if diff := cmp.Diff(want, payments(late)); diff != "" {
		t.Errorf("the payments differ (-want +got):\n%s", diff)
	}
	for _, id := range []string{"x", "0192d000-0000-7000-8000-000000000999"} {
		s.get("/api/reservations/"+id+"/payments").
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
	}
}
