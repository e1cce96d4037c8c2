package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
)

func TestGoodsComeBack(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		sold := d.reserve(line(mug, newYork, 3))
		path := "/api/reservations/" + sold.ID
		body := func(reference, more string) string {
			return fmt.Sprintf(`{"reference":%q,"lines":[{"productId":%q,"warehouseId":%q,"quantity":1%s}]}`,
				reference, mug, newYork, more)
		}
		d.post(path+"/returns", body("r1", "")).
			want(t, http.StatusConflict, "RESERVATION_NOT_CONFIRMED")
		confirmed := d.post(path+"/confirm", "").want(t, http.StatusOK, "").hold(t)
		d.wantStock(mug, newYork, 27, 0)

		first := d.post(path+"/returns", body("r1", "")).want(t, http.StatusOK, "")
		again := d.post(path+"/returns", body("r1", "")).want(t, http.StatusOK, "")
		if string(first.body) != string(again.body) {
			t.Errorf("the return again = %s, want %s", again.body, first.body)
		}
		if got, want := marshal(t, first.hold(t)), marshal(t, confirmed); got != want {
			t.Errorf("the return answers with the hold %s, want it unchanged: %s", got, want)
		}
		d.wantStock(mug, newYork, 28, 0)
		d.post(path+"/returns", body("r1", `,"restock":false`)).
			want(t, http.StatusConflict, "REFERENCE_REUSED")
		d.post(path+"/returns", body("r2", `,"restock":false`)).want(t, http.StatusOK, "")
		d.wantStock(mug, newYork, 28, 0)
		d.post(path+"/returns", body("r3", fmt.Sprintf(`,"toWarehouseId":%q`, losAngeles))).
			want(t, http.StatusOK, "")
		d.wantStock(mug, losAngeles, 2, 0)
		d.post(path+"/returns", body("r4", "")).
			want(t, http.StatusConflict, "RETURN_EXCEEDS_SOLD")
		d.post("/api/reservations/"+mug.String()+"/returns", body("r1", "")).
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")

		var kinds []string
		for _, m := range decode[[]struct {
			Kind          string
			ReservationID *string
		}](t, d.get("/api/stock/movements?productId="+mug.String()+"&warehouseId="+
			newYork.String()).want(t, http.StatusOK, "")) {
			kinds = append(kinds, m.Kind)
			if m.Kind == "RETURN" && (m.ReservationID == nil || *m.ReservationID != sold.ID) {
				t.Errorf("the RETURN is of the reservation %v, want %s", m.ReservationID, sold.ID)
			}
		}
		if got := fmt.Sprint(kinds); got != "[RETURN SALE OPENING]" {
			t.Errorf("the movements are %s", got)
		}
	})
}

func TestAReturnOfSeveralLinesUnderAKey(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		sold := d.reserve(cart(line(mug, newYork, 3), line(keyboard, sanFrancisco, 2)))
		path := "/api/reservations/" + sold.ID
		d.post(path+"/confirm", "").want(t, http.StatusOK, "")
		body := func(reference string, mugs int) string {
			return fmt.Sprintf(`{"reference":%q,"lines":[%s,%s,%s]}`, reference,
				line(mug, newYork, mugs), line(mug, newYork, 1),
				with(line(keyboard, sanFrancisco, 2), `"restock":false`))
		}
		first := d.postWithKey(path+"/returns", "return 7", body("r", 1)).want(t, http.StatusOK, "")
		again := d.postWithKey(path+"/returns", "return 7", body("r", 1)).want(t, http.StatusOK, "")
		if string(first.body) != string(again.body) ||
			again.header.Get("Idempotency-Replayed") != "true" ||
			first.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("the replay is %s %v, want %s, marked as replayed", again.body, again.header,
				first.body)
		}
		var returned []string
		for _, r := range decode[struct {
			Returned []struct {
				ProductID     string
				Quantity      int
				Restock       bool
				ToWarehouseID *string
				Seq           *int
			}
		}](t, first).Returned {
			went := "nowhere"
			if r.ToWarehouseID != nil && r.Seq != nil {
				went = fmt.Sprintf("to %s by %d", *r.ToWarehouseID, *r.Seq)
			}
			returned = append(returned, fmt.Sprintf("%d of %s %v %s", r.Quantity, r.ProductID, r.Restock,
				went))
		}
		slices.Sort(returned)
		want := []string{
			fmt.Sprintf("2 of %s false nowhere", keyboard),
			fmt.Sprintf("2 of %s true to %s by 3", mug, newYork),
		}
		slices.Sort(want)
		if !slices.Equal(returned, want) {
			t.Errorf("returned are %q, want %q", returned, want)
		}
		d.postWithKey(path+"/returns", "return 7", body("s", 1)).
			want(t, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		// One line too many refuses the others.
		d.post(path+"/returns", body("s", 1)).want(t, http.StatusConflict, "RETURN_EXCEEDS_SOLD")
		d.wantStock(mug, newYork, 29, 0)
		d.wantStock(keyboard, sanFrancisco, 18, 0)
	})
}
