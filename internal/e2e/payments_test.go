package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// paidHold is what the tests of payments look at in an answer.
type paidHold struct {
	Reservation struct {
		hold
		Payment *struct {
			Reference string
			StartedAt time.Time
		}
		Reference, Replaces, ReplacedBy *string
	}
	Outcome          string
	PaymentReference *string
	Shortages        []struct{ Requested, Available int }
	Limits           []struct{ Max, Used, Requested int }
}

func (a answer) paid(t *testing.T) paidHold { t.Helper(); return decode[paidHold](t, a) }

// with adds members to a body, as JSON text.
func with(body, more string) string { return strings.TrimSuffix(body, "}") + "," + more + "}" }

func late(payment string) string {
	return fmt.Sprintf(`{"paymentReference":%q,"onGone":"REACQUIRE"}`, payment)
}

func named(payment string) string { return fmt.Sprintf(`{"paymentReference":%q}`, payment) }

func TestAPaymentStartsFailsAndConfirms(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(with(line(mug, newYork, 2), `"reference":"order 1","owner":"ann"`))
		path := "/api/reservations/" + h.ID
		start := with(named("p"), `"ttlSeconds":1800`)

		p := d.post(path+"/payment", start).want(t, http.StatusOK, "").paid(t).Reservation
		if p.Payment == nil || p.Payment.Reference != "p" || !p.ExpiresAt.After(h.ExpiresAt) ||
			p.Reference == nil || *p.Reference != "order 1" {
			t.Errorf("the hold is %+v, want it with the payment and a later end", p)
		}
		for verb, body := range map[string]string{"/release": "", "/extend": `{"ttlSeconds":60}`} {
			d.post(path+verb, body).want(t, http.StatusConflict, "PAYMENT_STARTED")
		}
		d.post("/api/reservations", with(line(mug, newYork, 1), fmt.Sprintf(`"replaces":%q`, h.ID))).
			want(t, http.StatusConflict, "PAYMENT_STARTED")
		d.post(path+"/payment", with(named("p"), `"ttlSeconds":86400`)).
			want(t, http.StatusUnprocessableEntity, "EXTENSION_LIMIT")
		f := d.post(path+"/payment/failed", named("p")).want(t, http.StatusOK, "").paid(t).Reservation
		if f.Payment != nil || f.Status != "PENDING" {
			t.Errorf("after the payment failed the hold is %+v, want it without", f)
		}
		d.post(path+"/payment", start).want(t, http.StatusOK, "")
		for range 2 {
			c := d.post(path+"/confirm", named("p")).want(t, http.StatusOK, "").paid(t)
			if c.Outcome != "CONFIRMED" || c.Reservation.Status != "CONFIRMED" {
				t.Errorf("the confirm = %+v", c)
			}
		}
		a := d.post(path+"/confirm", late("q")).want(t, http.StatusConflict, "ALREADY_PAID").paid(t)
		if a.PaymentReference == nil || *a.PaymentReference != "p" {
			t.Errorf("another payment is told of %v, want p", a.PaymentReference)
		}
		d.wantStock(mug, newYork, 28, 0)
		d.post(path+"/confirm", `{"onGone":"REACQUIRE"}`).
			want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	})
}

func TestAPaymentComesTooLate(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		h := d.reserve(line(mug, losAngeles, 1))
		path := "/api/reservations/" + h.ID
		d.killDayAgo(h)
		d.post(path+"/confirm", named("p")).want(t, http.StatusGone, "RESERVATION_EXPIRED")

		first := d.postWithKey(path+"/confirm", "late", late("p")).want(t, http.StatusOK, "")
		s := first.paid(t)
		if s.Outcome != "REACQUIRED" || s.Reservation.Status != "CONFIRMED" ||
			s.Reservation.Replaces == nil || *s.Reservation.Replaces != h.ID {
			t.Errorf("the late payment = %s, want a successor", first.body)
		}
		again := d.postWithKey(path+"/confirm", "late", late("p")).want(t, http.StatusOK, "")
		if string(again.body) != string(first.body) ||
			again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("the replay = %s %v, want %s", again.body, again.header, first.body)
		}
		old := d.get(path).want(t, http.StatusOK, "").paid(t).Reservation
		if old.Status != "EXPIRED" || old.ReplacedBy == nil || *old.ReplacedBy != s.Reservation.ID {
			t.Errorf("the old hold = %+v, want it expired and replaced", old)
		}
		d.wantStock(mug, losAngeles, 0, 0)

		gone := d.reserve(line(keyboard, newYork, 3))
		d.killDayAgo(gone)
		d.reserve(line(keyboard, newYork, 1))
		path = "/api/reservations/" + gone.ID
		lost := d.postWithKey(path+"/confirm", "lost", late("r")).
			want(t, http.StatusConflict, "PAYMENT_LOST")
		if short := lost.paid(t).Shortages; len(short) != 1 || short[0].Requested != 3 ||
			short[0].Available != 2 {
			t.Errorf("the payment is lost with %s, want 3 of 2", lost.body)
		}
		repeat := d.postWithKey(path+"/confirm", "lost", late("r")).
			want(t, http.StatusConflict, "PAYMENT_LOST")
		if repeat.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("the replay of a lost payment has the header %v", repeat.header)
		}
	})
}

func TestAHoldIsReplacedAndCancelled(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		old := d.reserve(line(mug, losAngeles, 1))
		replace := func(id string) string {
			return with(line(mug, losAngeles, 1), fmt.Sprintf(`"replaces":%q`, id))
		}
		made := d.post("/api/reservations", replace(old.ID)).want(t, http.StatusCreated, "").paid(t).
			Reservation
		if made.Replaces == nil || *made.Replaces != old.ID {
			t.Errorf("the new hold = %+v, want it in the place of %s", made, old.ID)
		}
		d.wantStock(mug, losAngeles, 1, 1)
		path := "/api/reservations/" + made.ID
		d.post(path+"/payment", with(named("p"), `"ttlSeconds":60`)).want(t, http.StatusOK, "")
		if c := d.post(path+"/cancel", "").want(t, http.StatusOK, "").hold(t); c.Status != "RELEASED" {
			t.Errorf("the cancelled hold is %s", c.Status)
		}
		d.wantStock(mug, losAngeles, 1, 0)
		d.post("/api/reservations", replace(mug.String())).
			want(t, http.StatusNotFound, "RESERVATION_NOT_FOUND")
		sold := d.reserve(line(mug, losAngeles, 1))
		d.post("/api/reservations/"+sold.ID+"/confirm", "").want(t, http.StatusOK, "")
		d.post("/api/reservations", replace(sold.ID)).
			want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
		d.post("/api/reservations/"+sold.ID+"/cancel", "").
			want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
	})
}

func TestAnOwnerIsLimitedListedAndErased(t *testing.T) {
	eachTransport(t, func(t *testing.T, d *deployment) {
		d.post("/api/catalog/products", `{"items":[{"sku":"CM-300","maxPerHold":4,"maxPerOwner":5}]}`).
			want(t, http.StatusOK, "")
		order := with(line(mug, newYork, 3), `"owner":"ann","reference":"order 1"`)
		d.post("/api/reservations", line(mug, newYork, 1)).
			want(t, http.StatusUnprocessableEntity, "OWNER_REQUIRED")
		h := d.reserve(order)
		for body, used := range map[string]int{
			order: 3, with(line(mug, newYork, 5), `"owner":"bob"`): 0,
		} {
			limits := d.post("/api/reservations", body).
				want(t, http.StatusUnprocessableEntity, "LIMIT_EXCEEDED").paid(t).Limits
			if len(limits) != 1 || limits[0].Used != used {
				t.Errorf("the limits of %s are %+v, want %d used", body, limits, used)
			}
		}
		for _, units := range []string{
			line(headphones, newYork, 1001), cart(line(keyboard, newYork, 600), line(mug, newYork, 600)),
		} {
			d.post("/api/reservations", units).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}

		since := h.CreatedAt.Add(-time.Second).Format(time.RFC3339Nano)
		queries := []string{
			"owner=ann", "reference=order%201", "updatedSince=" + since,
			"owner=ann&reference=order%201&status=PENDING&updatedSince=" + since,
		}
		for _, query := range queries {
			if got, _ := d.list(query); len(got) != 1 || got[0].ID != h.ID {
				t.Errorf("the list of %s has %+v, want the hold", query, got)
			}
		}
		for _, query := range []string{"owner=", "reference=%00", "updatedSince=yesterday"} {
			d.get("/api/reservations?"+query).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
		}
		for _, want := range []string{`{"erased":1,"more":false}`, `{"erased":0,"more":false}`} {
			a := d.post("/api/owners/erase", `{"owner":"ann"}`).want(t, http.StatusOK, "")
			if string(a.body) != want {
				t.Errorf("the erasure = %s, want %s", a.body, want)
			}
		}
		if got, _ := d.list("owner=ann"); len(got) != 0 {
			t.Errorf("after the erasure the owner has %+v", got)
		}
		if r := d.get("/api/reservations/" + h.ID).paid(t).Reservation; r.Reference != nil {
			t.Errorf("after the erasure the hold has the reference %s", *r.Reference)
		}
		d.post("/api/owners/erase", `{"owner":""}`).want(t, http.StatusBadRequest, "VALIDATION_FAILED")
	})
}
