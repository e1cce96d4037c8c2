package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// listedReturn is what the tests look at in the list of what came back.
type listedReturn struct {
	Reference     string
	Line          int
	ProductID     uuid.UUID
	WarehouseID   uuid.UUID
	Quantity      int
	ToWarehouseID *uuid.UUID
	At            time.Time
	Actor         *string
}

// The operator sees each line that came back, also what wasn't restocked and has no movement.
func TestAHoldsReturnsAreListed(t *testing.T) {
	t.Parallel()
	s := newStockedClient(t)
	path := s.reserve(t, cartBody(reserveBody(s.mug, s.east, 4), reserveBody(s.lamp, s.east, 1)))
	s.post(path+"/confirm", "").want(t, http.StatusOK, "")
	if body := s.get(path+"/returns").want(t, http.StatusOK, "").body; string(body) != "[]" {
		t.Errorf("the returns of a hold without one are %s, want []", body)
	}
	s.post(path+"/returns", returnBody("r", returnLine(s.mug, s.east, 2, `,"restock":false`))).
		want(t, http.StatusOK, "")
	s.as(payments).post(path+"/returns", returnBody("a", returnLine(s.lamp, s.east, 1,
		fmt.Sprintf(`,"toWarehouseId":%q`, s.west)))).want(t, http.StatusOK, "")

	got := decode[[]listedReturn](t, s.get(path+"/returns").want(t, http.StatusOK, ""))
	for i, line := range got {
		if time.Since(line.At) > time.Minute {
			t.Errorf("the return %s came at %s, want now", line.Reference, line.At)
		}
		got[i].At = time.Time{}
	}
	want := []listedReturn{
		{Reference: "r", Line: 1, ProductID: s.mug, WarehouseID: s.east, Quantity: 2},
		{
			Reference: "a", Line: 1, ProductID: s.lamp, WarehouseID: s.east, Quantity: 1,
			ToWarehouseID: &s.west, Actor: &payments.ID,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the returns differ (-want +got):\n%s", diff)
	}
	for _, id := range []string{"x", "0192d000-0000-7000-8000-000000000999"} {
		s.get("/api/reservations/"+id+"/returns").
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
	}
}
