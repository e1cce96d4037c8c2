package problem_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/problem"
)

func TestWriteSendsAProblemUnderTheRequestsID(t *testing.T) {
	t.Parallel()

	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "request-1")

	problem.NotFound().Write(w)

	const want = `{"type":"urn:allo:problem:NOT_FOUND","title":"Not found","status":404,` +
		`"detail":"There is nothing at this address.","code":"NOT_FOUND",` +
		`"error":"There is nothing at this address.","requestId":"request-1"}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != http.StatusNotFound {
		t.Errorf("answer = %d, body (-want +got):\n%s", w.Code, diff)
	}
	header := http.Header{
		"X-Request-Id": {"request-1"}, "Content-Type": {problem.ContentType},
		"Cache-Control": {"no-store"},
	}
	if diff := cmp.Diff(header, w.Header()); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestAnUnavailableServiceAsksToRetry(t *testing.T) {
	t.Parallel()

	w := httptest.NewRecorder()

	problem.New(http.StatusServiceUnavailable, "BUSY", "Busy", "Busy.").Write(w)

	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After = %q, want 1 second", got)
	}
}

func TestJSONIsStableAndValid(t *testing.T) {
	t.Parallel()

	p := problem.New(http.StatusConflict, "C", "T", "broken \xff <text>")
	p.Details = map[string][]string{"b": {"2"}, "a": {"1"}, "c": {"3"}}
	id := uuid.MustParse("5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01")
	p.Shortages = []problem.Shortage{{ProductID: id, WarehouseID: id, Requested: 2, Available: 1}}

	const want = `{"type":"urn:allo:problem:C","title":"T","status":409,"detail":"broken � <text>",` +
		`"code":"C","error":"broken � <text>","requestId":"",` +
		`"details":{"a":["1"],"b":["2"],"c":["3"]},"shortages":[{` +
		`"productId":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01",` +
		`"warehouseId":"5f0c0de2-6b0f-4c4b-9f5e-0d6f3d1a7c01","requested":2,"available":1}]}`
	for range 5 {
		if diff := cmp.Diff(want, string(p.JSON())); diff != "" {
			t.Fatalf("JSON (-want +got):\n%s", diff)
		}
	}
}
