package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/principal"
)

// paid is what the tests look at in the answers of the payment side.
type paid struct {
	Reservation struct {
		held
		Payment *struct {
			Reference string
			StartedAt time.Time
		}
		Reference            *string
		Replaces, ReplacedBy *string
	}
	Outcome string
}

// refusal is what the tests look at in an error about payments, owners and limits.
type refusal struct {
	Code             string
	PaymentReference any
	Shortages        []map[string]any
	Limits           []map[string]any
}

// startBody and confirmBody are the bodies of the start of a payment, and of a confirm that
// reacquires.
func startBody(payment string) string {
	return fmt.Sprintf(`{"paymentReference":%q,"ttlSeconds":900}`, payment)
}

func confirmBody(payment string) string {
	return fmt.Sprintf(`{"paymentReference":%q,"onGone":"REACQUIRE"}`, payment)
}

func failBody(payment string) string { return fmt.Sprintf(`{"paymentReference":%q}`, payment) }

func TestAPaymentIsUnderWayUntilItFails(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 2))
	start := func() paid {
		t.Helper()
		return decode[paid](t, s.post(path+"/payment", startBody("p")).want(t, http.StatusOK, ""))
	}

	started := start()
	payment := started.Reservation.Payment
	if payment == nil || payment.Reference != "p" ||
		payment.StartedAt.Before(started.Reservation.UpdatedAt) ||
		started.Reservation.ExpiresAt.Sub(started.Reservation.UpdatedAt) != 15*time.Minute {
		t.Errorf("the start = %+v, want the payment p and a quarter of an hour", started)
	}
	if again := start().Reservation.Payment; again == nil || *again != *payment {
		t.Errorf("the same payment again = %+v, want %+v", again, payment)
	}
	if v := decode[paid](t, s.get(path)); v.Reservation.Payment == nil {
		t.Errorf("the hold reads as %+v, want it with its payment", v)
	}
	s.post(path+"/release", "").want(t, http.StatusConflict, "PAYMENT_STARTED")
	s.post(path+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusConflict, "PAYMENT_STARTED")
	s.post("/api/reservations", strings.TrimSuffix(reserveBody(s.mug, s.east, 1), "}")+
		fmt.Sprintf(`,"replaces":%q}`, strings.TrimPrefix(path, "/api/reservations/"))).
		want(t, http.StatusConflict, "PAYMENT_STARTED")
	s.post(path+"/payment/failed", failBody("q")).want(t, http.StatusOK, "")
	s.post(path+"/release", "").want(t, http.StatusConflict, "PAYMENT_STARTED")

	failed := decode[paid](t, s.post(path+"/payment/failed", failBody("p")).
		want(t, http.StatusOK, "")).Reservation
	if failed.Payment != nil || failed.Status != "PENDING" ||
		failed.ExpiresAt.Sub(failed.UpdatedAt) != holdTTL {
		t.Errorf("after the payment failed the hold is %+v, want it for %s", failed, holdTTL)
	}
	s.post(path+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusOK, "")
	s.post(path+"/release", "").want(t, http.StatusOK, "")
	s.post(path+"/payment", startBody("p")).want(t, http.StatusConflict, "RESERVATION_RELEASED")
	s.post(path+"/payment/failed", failBody("p")).want(t, http.StatusOK, "")

	dead := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.kill(dead)
	s.post(dead+"/payment", startBody("p")).want(t, http.StatusGone, "RESERVATION_EXPIRED")
	s.post(dead+"/confirm", failBody("p")).want(t, http.StatusGone, "RESERVATION_EXPIRED")
}

func TestAPaymentHasABoundOfItsOwn(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	body := func(seconds int) string {
		return fmt.Sprintf(`{"paymentReference":"p","ttlSeconds":%d}`, seconds)
	}

	s.post(path+"/payment", body(86_400)).want(t, 422, "EXTENSION_LIMIT")
	longer := s.post(path+"/payment", body(7_200)).want(t, http.StatusOK, "").reservation(t)
	if got := longer.ExpiresAt.Sub(longer.UpdatedAt); got != 2*time.Hour {
		t.Errorf("the hold lasts %s longer, want two hours, past the longest hold", got)
	}
	shorter := s.post(path+"/payment", body(60)).want(t, http.StatusOK, "").reservation(t)
	if !shorter.ExpiresAt.Equal(longer.ExpiresAt) {
		t.Errorf("a shorter payment moved the end from %s to %s", longer.ExpiresAt, shorter.ExpiresAt)
	}
	s.post(path+"/payment/failed", body(86_400)).want(t, 422, "EXTENSION_LIMIT")
	s.post(path+"/payment/failed", body(60)).want(t, http.StatusOK, "")
}

func TestTheFirstPaymentWins(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(path+"/payment", startBody("p")).want(t, http.StatusOK, "")

	first := s.post(path+"/confirm", failBody("p")).want(t, http.StatusOK, "")
	again := s.post(path+"/confirm", confirmBody("p")).want(t, http.StatusOK, "")
	unnamed := s.post(path+"/confirm", "").want(t, http.StatusOK, "")

	answer := decode[paid](t, first)
	if answer.Outcome != "CONFIRMED" || answer.Reservation.Status != "CONFIRMED" ||
		answer.Reservation.Payment != nil {
		t.Errorf("the confirm = %s, want CONFIRMED without a payment under way", first.body)
	}
	if string(again.body) != string(first.body) || string(unnamed.body) != string(first.body) {
		t.Errorf("repeats = %s and %s, want %s", again.body, unnamed.body, first.body)
	}
	for verb, body := range map[string]string{
		"/confirm": failBody("q"), "/payment": startBody("q"),
	} {
		refused := decode[refusal](t,
			s.post(path+verb, body).want(t, http.StatusConflict, "ALREADY_PAID"))
		if refused.PaymentReference != "p" {
			t.Errorf("%s by another payment tells of %v, want p", verb, refused.PaymentReference)
		}
	}
	s.post(path+"/payment", startBody("p")).want(t, http.StatusOK, "")

	byHand := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(byHand+"/confirm", "").want(t, http.StatusOK, "")
	a := s.post(byHand+"/confirm", failBody("q")).want(t, http.StatusConflict, "ALREADY_PAID")
	if !strings.Contains(string(a.body), `"paymentReference":null`) {
		t.Errorf("a payment after an unnamed confirm = %s, want a null reference", a.body)
	}
}

func TestALatePaymentReacquiresTheUnits(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, strings.TrimSuffix(reserveBody(s.mug, s.east, 2), "}")+
		`,"reference":"order 1"}`)
	s.kill(path)
	s.post(path+"/confirm", failBody("p")).want(t, http.StatusGone, "RESERVATION_EXPIRED")

	first := s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", "a").
		want(t, http.StatusOK, "")
	got := decode[paid](t, first)
	old := strings.TrimPrefix(path, "/api/reservations/")
	r := got.Reservation
	if got.Outcome != "REACQUIRED" || r.Status != "CONFIRMED" || r.ID == old || r.Replaces == nil ||
		*r.Replaces != old || r.Reference == nil || *r.Reference != "order 1" {
		t.Errorf("the late payment = %s, want a confirmed successor of %s", first.body, old)
	}
	for key, replayed := range map[string]string{"a": "true", "b": ""} {
		again := s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", key).
			want(t, http.StatusOK, "")
		if string(again.body) != string(first.body) ||
			again.header.Get("Idempotency-Replayed") != replayed {
			t.Errorf("the repeat under %s = %s, replayed %q, want %s", key, again.body,
				again.header.Get("Idempotency-Replayed"), first.body)
		}
	}
	v := decode[paid](t, s.get(path)).Reservation
	if v.Status != "EXPIRED" || v.ReplacedBy == nil || *v.ReplacedBy != r.ID {
		t.Errorf("the old hold reads as %+v, want it expired and replaced by %s", v, r.ID)
	}
	refused := decode[refusal](t, s.post(path+"/confirm", confirmBody("q")).
		want(t, http.StatusConflict, "ALREADY_PAID"))
	if refused.PaymentReference != "p" {
		t.Errorf("another late payment is told of %v, want p", refused.PaymentReference)
	}
}

// A payment that is lost is lost for ever, and the answer under its key is the same one.
func TestALostPaymentStaysLost(t *testing.T) {
	t.Parallel()

	for shown, available := range map[int]string{
		0: `"available":1}`, 1: `"available":1,"orMore":true}`,
	} {
		s := newLimitedClient(t, shown)
		path := s.reserve(t, reserveBody(s.mug, s.east, 10))
		s.kill(path)
		other := s.reserve(t, reserveBody(s.mug, s.east, 9))

		first := s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", "a").
			want(t, http.StatusConflict, "PAYMENT_LOST")
		if !strings.Contains(string(first.body), `"requested":10,`+available) {
			t.Errorf("with %d units shown the payment is lost with %s, want %s", shown, first.body,
				available)
		}
		s.post(other+"/release", "").want(t, http.StatusOK, "")
		for key, replayed := range map[string]string{"a": "true", "b": ""} {
			again := s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", key).
				want(t, http.StatusConflict, "PAYMENT_LOST")
			if again.header.Get("Idempotency-Replayed") != replayed || cmp.Diff(
				decode[refusal](t, first), decode[refusal](t, again)) != "" {
				t.Errorf("the repeat under %s = %s, replayed %q, want %s", key, again.body,
					again.header.Get("Idempotency-Replayed"), first.body)
			}
		}
		s.post(path+"/confirm", failBody("p")).want(t, http.StatusConflict, "PAYMENT_LOST")
		s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", "other").
			want(t, http.StatusConflict, "PAYMENT_LOST")
		s.post(path+"/confirm", confirmBody("q"), "Idempotency-Key", "a").
			want(t, 422, "IDEMPOTENCY_KEY_REUSED")
	}
}

// The control: a refusal that isn't recorded is contradicted by its repeat.
func TestWithoutItsRecordALostPaymentIsContradicted(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	pgtest.Mutate(t, s.db.Database, "resolve_hold", "outcome IN ('REACQUIRED', 'PAYMENT_LOST')",
		"outcome = 'REACQUIRED'")
	path := s.reserve(t, reserveBody(s.mug, s.west, 1))
	s.kill(path)
	other := s.reserve(t, reserveBody(s.mug, s.west, 1))
	s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", "a").
		want(t, http.StatusConflict, "PAYMENT_LOST")
	s.post(other+"/release", "").want(t, http.StatusOK, "")
	again := s.post(path+"/confirm", confirmBody("p"), "Idempotency-Key", "a").
		want(t, http.StatusOK, "")
	if replayed(again) || decode[paid](t, again).Outcome != "REACQUIRED" {
		t.Errorf("the repeat = %s, want the payment to get the units after all", again.body)
	}
}

// A payment of a hold whose place another one has taken is lost with no line that is short.
func TestAPaymentOfAReplacedHoldIsLostWithoutShortages(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.reserve(t, s.replacing(path, reserveBody(s.mug, s.east, 2)))

	a := s.post(path+"/confirm", confirmBody("p")).want(t, http.StatusConflict, "PAYMENT_LOST")

	if !strings.Contains(string(a.body), `"shortages":[]`) {
		t.Errorf("the payment is lost with %s, want no shortages", a.body)
	}
}

// replacing adds to the body of a reserve that it takes the place of the hold at a path.
func (s stockedClient) replacing(path, body string) string {
	return strings.TrimSuffix(body, "}") +
		fmt.Sprintf(`,"replaces":%q}`, strings.TrimPrefix(path, "/api/reservations/"))
}

func TestAHoldTakesThePlaceOfAnother(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.west, 1))

	made := decode[paid](t, s.post("/api/reservations",
		s.replacing(path, reserveBody(s.mug, s.west, 1)), "Idempotency-Key", "a").
		want(t, http.StatusCreated, "")).Reservation
	old := decode[paid](t, s.get(path)).Reservation
	if made.Replaces == nil || *made.Replaces != old.ID || old.Status != "RELEASED" ||
		old.ReplacedBy == nil || *old.ReplacedBy != made.ID {
		t.Errorf("the new hold = %+v, and the old one %+v", made, old)
	}
	again := decode[paid](t, s.post("/api/reservations", s.replacing(path,
		reserveBody(s.mug, s.west, 1)), "Idempotency-Key", "a").want(t, http.StatusCreated, ""))
	if again.Reservation.ID != made.ID {
		t.Errorf("the repeat made the hold %s, want %s", again.Reservation.ID, made.ID)
	}
	s.post("/api/reservations", reserveBody(s.mug, s.west, 1), "Idempotency-Key", "a").
		want(t, 422, "IDEMPOTENCY_KEY_REUSED")

	ignored := decode[paid](t, s.post("/api/reservations", s.replacing(path,
		reserveBody(s.mug, s.east, 1))).want(t, http.StatusCreated, "")).Reservation
	if ignored.Replaces != nil {
		t.Errorf("a released hold is replaced: %+v", ignored)
	}
	sold := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(sold+"/confirm", "").want(t, http.StatusOK, "")
	for of, refused := range map[string]struct {
		status int
		code   string
	}{
		sold:                                    {http.StatusConflict, "RESERVATION_CONFIRMED"},
		"/api/reservations/" + uuid.NewString(): {http.StatusNotFound, "RESERVATION_NOT_FOUND"},
	} {
		s.post("/api/reservations", s.replacing(of, reserveBody(s.mug, s.east, 1))).
			want(t, refused.status, refused.code)
	}
}

func TestAnOperatorCancelsAHoldThatIsBeingPaid(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(path+"/payment", startBody("p")).want(t, http.StatusOK, "")

	for range 2 {
		if got := s.post(path+"/cancel", "").want(t, http.StatusOK, "").reservation(t); got.Status !=
			"RELEASED" || got.ReleasedAt == nil {
			t.Errorf("the hold is %+v, want it released", got)
		}
	}
	s.post(path+"/confirm", failBody("p")).want(t, http.StatusConflict, "RESERVATION_RELEASED")
	sold := s.reserve(t, reserveBody(s.mug, s.east, 1))
	dead := s.reserve(t, reserveBody(s.mug, s.east, 1))
	s.post(sold+"/confirm", "").want(t, http.StatusOK, "")
	s.post(sold+"/cancel", "").want(t, http.StatusConflict, "RESERVATION_CONFIRMED")
	s.kill(dead)
	if got := s.post(dead+"/cancel", "{}").want(t, http.StatusOK, "").reservation(t); got.Status !=
		"EXPIRED" {
		t.Errorf("a dead hold that is cancelled is %s, want EXPIRED", got.Status)
	}
}

// ordered adds an owner and a reference to the body of a reserve.
func ordered(body, more string) string { return strings.TrimSuffix(body, "}") + "," + more + "}" }

func TestAProductIsLimited(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	s.post("/api/catalog/products",
		`{"items":[{"sku":"CM-300","maxPerHold":4,"maxPerOwner":5},{"sku":"LA-400","maxPerHold":2}]}`).
		want(t, http.StatusOK, "")
	limits := func(body string) []map[string]any {
		t.Helper()
		return decode[refusal](t, s.post("/api/reservations", body).want(t, 422, "LIMIT_EXCEEDED")).Limits
	}
	limit := func(product uuid.UUID, most, used, requested float64) []map[string]any {
		return []map[string]any{
			{"productId": product.String(), "max": most, "used": used, "requested": requested},
		}
	}

	if diff := cmp.Diff(limit(s.lamp, 2, 0, 3), limits(reserveBody(s.lamp, s.east, 3))); diff != "" {
		t.Errorf("the limit of a hold differs (-want +got):\n%s", diff)
	}
	s.post("/api/reservations", reserveBody(s.mug, s.east, 1)).want(t, 422, "OWNER_REQUIRED")
	s.reserve(t, ordered(reserveBody(s.mug, s.east, 3), `"owner":"ann"`))
	if diff := cmp.Diff(limit(s.mug, 5, 3, 3),
		limits(ordered(reserveBody(s.mug, s.east, 3), `"owner":"ann"`))); diff != "" {
		t.Errorf("the limit of an owner differs (-want +got):\n%s", diff)
	}
	late := s.reserve(t, ordered(reserveBody(s.mug, s.east, 2), `"owner":"ann"`))
	s.kill(late)
	s.reserve(t, ordered(reserveBody(s.mug, s.east, 2), `"owner":"ann"`))
	lost := decode[refusal](t, s.post(late+"/confirm", confirmBody("p")).
		want(t, http.StatusConflict, "PAYMENT_LOST"))
	if diff := cmp.Diff(limit(s.mug, 5, 5, 2), lost.Limits); diff != "" || len(lost.Shortages) > 0 {
		t.Errorf("a payment over the owner's limit is lost with %+v (-want +got):\n%s", lost, diff)
	}
}

// shopper is a caller with a token that names nobody else, and backEnd one that may.
var (
	shopper = principal.Principal{Kind: principal.JWT, ID: `sub "ann" of "i"`, Subject: "ann"}
	backEnd = principal.Principal{
		Kind: principal.JWT, ID: `sub "shop" of "i"`, Subject: "shop", ActsForAny: true,
	}
)

func TestTheOwnerIsTheSubjectOfAToken(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	noSubject := principal.Principal{Kind: principal.JWT, ID: `azp "web" of "i"`}
	anyNoSubject := noSubject
	anyNoSubject.ActsForAny = true
	for _, test := range []struct {
		caller      principal.Principal
		more, owner string // no owner is "", and a refusal is "403"
	}{
		{shopper, "", "ann"},
		{shopper, `"owner":null`, "ann"},
		{shopper, `"owner":"ann"`, "ann"},
		{shopper, `"owner":"Ann"`, "403"},
		{shopper, `"owner":"shop"`, "403"},
		{backEnd, `"owner":"ann"`, "ann"},
		{backEnd, "", ""},
		{payments, `"owner":"ann"`, "ann"},
		{payments, "", ""},
		{anonymous, `"owner":"ann"`, "ann"},
		{anonymous, "", ""},
		{noSubject, "", ""},
		{noSubject, `"owner":"ann"`, "403"},
		{anyNoSubject, `"owner":"ann"`, "ann"},
		{unnamed, "", ""},
		{unnamed, `"owner":"ann"`, "403"},
	} {
		body := reserveBody(s.mug, s.east, 1)
		if test.more != "" {
			body = ordered(body, test.more)
		}
		a := s.as(test.caller).post("/api/reservations", body)
		if test.owner == "403" {
			a.want(t, http.StatusForbidden, "OWNER_MISMATCH")
			continue
		}
		path := a.want(t, http.StatusCreated, "").header.Get("Location")
		owners := s.owners(t)
		if got := owners[strings.TrimPrefix(path, "/api/reservations/")]; got != test.owner {
			t.Errorf("%+v reserves with %q for the owner %q, want %q", test.caller, test.more, got,
				test.owner)
		}
		for _, shown := range []answer{a, s.get(path)} {
			if strings.Contains(string(shown.body), `"owner"`) {
				t.Errorf("%s shows the owner to a shopper: %s", shown.sent, shown.body)
			}
		}
		s.post(path+"/release", "").want(t, http.StatusOK, "")
	}
}

// OpenID Connect allows a sub of 255 characters. No hold can have a longer one as its owner, and
// the refusal says that the token is to blame, not the body.
func TestASubjectThatCanBeNoOwnerIsRefused(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := reserveBody(s.mug, s.east, 1)
	for _, subject := range []string{strings.Repeat("é", 256), "ann\x7f"} {
		caller := principal.Principal{Kind: principal.JWT, ID: "token", Subject: subject}
		a := s.as(caller).post("/api/reservations", body)
		a.wantInvalid(t, "Authorization")
		if !strings.Contains(string(a.body), "the token's sub must be 1 to 255 characters") {
			t.Errorf("the refusal of %q doesn't name the token: %s", subject, a.body)
		}
		caller.ActsForAny = true // so the token isn't the owner
		s.as(caller).post("/api/reservations", body).want(t, http.StatusCreated, "")
	}

	longest := strings.Repeat("é", 255)
	caller := principal.Principal{Kind: principal.JWT, ID: "token", Subject: longest}
	path := s.as(caller).post("/api/reservations", body).want(t, http.StatusCreated, "").
		header.Get("Location")
	if got := s.owners(t)[strings.TrimPrefix(path, "/api/reservations/")]; got != longest {
		t.Errorf("the owner is %q, want the longest sub", got)
	}
	listed := s.get("/api/reservations?owner="+url.QueryEscape(longest)).want(t, http.StatusOK, "")
	if !strings.Contains(string(listed.body), strings.TrimPrefix(path, "/api/reservations/")) {
		t.Errorf("the list of the longest owner is %s", listed.body)
	}
}

// owners reads the owner of each hold from the operator's list.
func (s stockedClient) owners(t *testing.T) map[string]string {
	t.Helper()
	owners := map[string]string{}
	for _, h := range decode[[]struct {
		ID    string
		Owner *string
	}](t, s.get("/api/reservations").want(t, http.StatusOK, "")) {
		if h.Owner != nil {
			owners[h.ID] = *h.Owner
		}
	}
	return owners
}

func TestAReferenceIsShownToWhoeverKnowsTheHold(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	a := s.post("/api/reservations", ordered(reserveBody(s.mug, s.east, 1),
		`"reference":"Auftrag Nr. 1 für Ann","owner":"ann"`)).want(t, http.StatusCreated, "")
	path := a.header.Get("Location")
	for _, shown := range []answer{
		a, s.get(path), s.post(path+"/extend", `{"ttlSeconds":60}`), s.post(path+"/confirm", ""),
	} {
		got := decode[paid](t, shown).Reservation.Reference
		if got == nil || *got != "Auftrag Nr. 1 für Ann" {
			t.Errorf("%s = %s, want the reference", shown.sent, shown.body)
		}
	}
}

func TestAnInvalidPaymentNamesTheField(t *testing.T) {
	t.Parallel()

	c := newClient(t, unreachable)
	const path = "/api/reservations/" + hold
	long := strings.Repeat("é", 101)
	for body, field := range map[string]string{
		`{"paymentReference":""}`:                               "paymentReference",
		`{"paymentReference":"` + long + `"}`:                   "paymentReference",
		`{"paymentReference":"a\tb"}`:                           "paymentReference",
		`{"paymentReference":"a\u0000b"}`:                       "paymentReference",
		`{"paymentReference":"a\u009fb"}`:                       "paymentReference",
		`{"paymentReference":1}`:                                "paymentReference",
		`{"onGone":"REACQUIRE"}`:                                "paymentReference",
		`{"onGone":"REACQUIRE","paymentReference":null}`:        "paymentReference",
		`{"paymentReference":"","onGone":"REACQUIRE"}`:          "paymentReference",
		`{"paymentReference":"p","onGone":"reacquire"}`:         "onGone",
		`{"paymentReference":"p","onGone":""}`:                  "onGone",
		`{"onGone":"KEEP"}`:                                     "onGone",
		`{"paymentReference":"p","ttlSeconds":60}`:              "ttlSeconds",
		`{"paymentReference":"p","paymentReference":"p"}`:       "paymentReference",
		`{"paymentReference":"p","onGone":["REACQUIRE"]}`:       "onGone",
		`{"paymentReference":"p","reservation":"` + hold + `"}`: "reservation",
	} {
		c.post(path+"/confirm", body).wantInvalid(t, field)
	}
	for _, body := range []string{
		"", "{}", `{"paymentReference":"` + long[2:] + `"}`, `{"onGone":"REFUSE"}`, `{"onGone":null}`,
		`{"paymentReference":" p, q "}`, confirmBody("p"), `{"paymentReference":null,"onGone":"REFUSE"}`,
	} {
		c.post(path+"/confirm", body).wantAccepted(t)
	}
	for _, suffix := range []string{"/payment", "/payment/failed"} {
		for body, field := range map[string]string{
			"":                  "body",
			`{"ttlSeconds":60}`: "paymentReference",
			`{"paymentReference":null,"ttlSeconds":60}`:      "paymentReference",
			`{"paymentReference":"","ttlSeconds":60}`:        "paymentReference",
			`{"paymentReference":"a\nb","ttlSeconds":60}`:    "paymentReference",
			`{"paymentReference":"p","ttlSeconds":0}`:        "ttlSeconds",
			`{"paymentReference":"p","ttlSeconds":-1}`:       "ttlSeconds",
			`{"paymentReference":"p","ttlSeconds":1.5}`:      "ttlSeconds",
			`{"paymentReference":"p","ttlSeconds":60,"x":1}`: "x",
			`{"paymentReference":"p","onGone":"REFUSE"}`:     "onGone",
		} {
			c.post(path+suffix, body).wantInvalid(t, field)
		}
		c.post(path+suffix, startBody("p")).wantAccepted(t)
		c.post(path+suffix, `{"paymentReference":"p","ttlSeconds":99999999999999999999}`).wantAccepted(t)
	}
	c.post(path+"/payment", failBody("p")).wantInvalid(t, "ttlSeconds")
	c.post(path+"/payment/failed", failBody("p")).wantAccepted(t)
	c.post(path+"/cancel", `{"reason":"x"}`).wantInvalid(t, "reason")
}

func TestTheLimitsOfEveryHoldAreSettings(t *testing.T) {
	t.Parallel()

	s := newBoundedClient(t, 5, 1)
	s.post("/api/reservations", reserveBody(s.mug, s.east, 6)).wantInvalid(t, "items")
	s.post("/api/reservations",
		cartBody(reserveBody(s.mug, s.east, 3), reserveBody(s.mug, s.east, 3))).
		wantInvalid(t, "items")
	s.post("/api/reservations",
		cartBody(reserveBody(s.mug, s.east, 1), reserveBody(s.lamp, s.east, 1))).
		wantInvalid(t, "items")
	s.reserve(t, reserveBody(s.mug, s.east, 5))
}

// A lowered limit never turns a success into an error.
func TestAReplayComesBeforeALoweredLimit(t *testing.T) {
	t.Parallel()

	before := newStockedClient(t)
	body := ordered(cartBody(reserveBody(before.mug, before.east, 4),
		reserveBody(before.lamp, before.east, 4)), `"owner":"ann","ttlSeconds":3600`)
	first := before.keyed("/api/reservations", body).want(t, http.StatusCreated, "")

	after := before.bounded(t, 5, 1)
	again := after.keyed("/api/reservations", body).want(t, http.StatusCreated, "")

	if !replayed(again) || string(again.body) != string(first.body) {
		t.Errorf("the replay = %s, want %s", again.body, first.body)
	}
	after.post("/api/reservations", body, "Idempotency-Key", "another").
		want(t, http.StatusBadRequest, "VALIDATION_FAILED")
}
