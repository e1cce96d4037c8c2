package outbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/reservation"
)

// A consumer of the events knows each hold's status, which hold it replaces, and each total, also
// where payments came in time, failed, and came too late. No event names a payment or an owner.
func TestEventsTellOfPaymentsAndReplacements(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, s := f.Context(), f.service
	reserve := func(replaces *uuid.UUID) uuid.UUID {
		t.Helper()
		answer, err := s.Reserve(ctx, reservation.Request{
			Lines: []reservation.Line{{ProductID: f.product, WarehouseID: f.west, Quantity: 2}},
			Owner: "Mrs Smith", Reference: "for Mrs Smith", Replaces: replaces,
		})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Hold.ID
	}
	must := func(_ reservation.Answer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	replaced := reserve(nil)
	paid := reserve(&replaced)
	must(s.StartPayment(ctx, paid, "Mrs Smith 1", time.Minute, ""))
	must(s.FailPayment(ctx, paid, "Mrs Smith 1", nil, ""))
	must(s.ConfirmPayment(ctx, paid, "Mrs Smith 2", true, ""))
	late := reserve(nil)
	f.Kill(late)
	must(s.ConfirmPayment(ctx, late, "Mrs Smith 3", true, ""))
	f.tick()

	list, _, err := f.outbox.List(ctx, "", nil, 500)
	if err != nil {
		t.Fatal(err)
	}
	told, types := map[string]string{}, map[string][]string{}
	for _, e := range list {
		var body struct {
			Data struct {
				Reservation *struct {
					Status   string
					Replaces *uuid.UUID
				}
				TotalAfter int
			}
		}
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(e.Body, []byte("Smith")) {
			t.Errorf("the event %s names a payment or an owner: %s", e.ID, e.Body)
		}
		told[e.Subject] = fmt.Sprint(body.Data.TotalAfter)
		if r := body.Data.Reservation; r != nil {
			told[e.Subject] = fmt.Sprint(r.Status, " ", r.Replaces)
			types[e.Subject] = append(types[e.Subject], e.Type)
		}
	}
	want := map[string]string{}
	for _, row := range pgtest.QueryOne[[][]string](f.Fixture, `
SELECT array_agg(ARRAY[subject, state]) FROM (
    SELECT r.id::text AS subject, concat(r.status, ' ', coalesce(p.old_id::text, '<nil>')) AS state
    FROM reservations r LEFT JOIN replacements p ON p.new_id = r.id
    UNION ALL
    SELECT product_id || '/' || warehouse_id, total::text FROM inventory) s`) {
		want[row[0]] = row[1]
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("the events tell of another state than the database (-want +got):\n%s", diff)
	}
	if got := types[paid.String()]; !slices.Equal(got, []string{
		"allo.reservation.held", "allo.reservation.payment-started",
		"allo.reservation.payment-failed", "allo.reservation.confirmed",
	}) {
		t.Errorf("the events of the paid hold are %v", got)
	}
}
