package httpapi_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/principal"
)

var (
	anonymous = principal.Principal{}
	ann       = principal.Principal{Kind: principal.JWT, ID: `sub "ann" of "https://id.example"`}
	bob       = principal.Principal{Kind: principal.JWT, ID: `sub "bob" of "https://id.example"`}
	payments  = principal.Principal{Kind: principal.IAM, ID: "arn:aws:iam::123456789012:user/payments"}
	unnamed   = principal.Principal{Kind: principal.Unnamed}
)

// as returns the client with another caller.
func (s stockedClient) as(p principal.Principal) stockedClient {
	s.principal = p
	return s
}

const key = "order-17" // everybody's guess

func (s stockedClient) keyed(path, body string) answer {
	s.t.Helper()
	return s.post(path, body, "Idempotency-Key", key)
}

func replayed(a answer) bool { return a.header.Get("Idempotency-Replayed") == "true" }

func TestNobodyElsesKeyReplaysAHold(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := reserveBody(s.mug, s.east, 1)
	ids := map[string]bool{}
	for _, caller := range []principal.Principal{anonymous, ann, bob, payments} {
		first := s.as(caller).keyed("/api/reservations", body).want(t, http.StatusCreated, "")
		again := s.as(caller).keyed("/api/reservations", body).want(t, http.StatusCreated, "")
		if replayed(first) || !replayed(again) {
			t.Errorf("replayed for %+v: %t, then %t, want false, then true",
				caller, replayed(first), replayed(again))
		}
		if diff := cmp.Diff(string(first.body), string(again.body)); diff != "" {
			t.Errorf("%+v got another answer for the same request:\n%s", caller, diff)
		}
		ids[first.reservation(t).ID] = true
	}
	if len(ids) != 4 {
		t.Errorf("4 callers with one key share the holds %v", ids)
	}
	if got := s.db.Counts(s.mug, s.east); got != (pgtest.Counts{Total: 10, Reserved: 4}) {
		t.Errorf("the stock is %+v, want 4 of 10 reserved", got)
	}
}

// The control: callers whom nothing tells apart do share their keys.
func TestAnonymousCallersShareTheirKeys(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	body := reserveBody(s.mug, s.east, 1)
	first := s.keyed("/api/reservations", body).want(t, http.StatusCreated, "")

	again := s.keyed("/api/reservations", body).want(t, http.StatusCreated, "")

	if !replayed(again) || again.reservation(t).ID != first.reservation(t).ID {
		t.Errorf("a stranger's request under the same key = %s, want the first answer", again.body)
	}
}

func TestNobodyElsesKeyBlocksAnotherRequest(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	other := s.reserve(t, reserveBody(s.mug, s.east, 1))
	third := s.reserve(t, reserveBody(s.mug, s.east, 1))

	s.keyed("/api/reservations", reserveBody(s.mug, s.east, 2)).want(t, http.StatusCreated, "")
	s.as(payments).keyed(path+"/confirm", "").want(t, http.StatusOK, "")
	s.as(ann).keyed(other+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusOK, "")
	s.as(bob).keyed(third+"/release", "").want(t, http.StatusOK, "")

	s.keyed(third+"/release", "").want(t, 422, "IDEMPOTENCY_KEY_REUSED")
	for _, caller := range []principal.Principal{payments, ann, bob} {
		s.as(caller).keyed("/api/reservations", reserveBody(s.mug, s.east, 2)).
			want(t, 422, "IDEMPOTENCY_KEY_REUSED")
	}
}

func TestOneKeyOfTwoPrincipalsMakesTwoEffects(t *testing.T) {
	t.Parallel()

	const callers = 8
	s := newStockedClient(t)
	body := reserveBody(s.mug, s.east, 1)
	var clients []stockedClient
	for i := range callers {
		one := s
		one.client = newClient(t, s.db.URL)
		clients = append(clients, one.as([]principal.Principal{ann, bob}[i%2]))
	}
	answers := make([]answer, callers)
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() { answers[i] = c.keyed("/api/reservations", body) })
	}
	wait.Wait()

	ids := map[string]int{}
	for i, a := range answers {
		a.want(t, http.StatusCreated, "")
		ids[a.reservation(t).ID]++
		if first := answers[i%2].reservation(t).ID; a.reservation(t).ID != first {
			t.Errorf("caller %d got the hold %s, its principal's other callers %s", i,
				a.reservation(t).ID, first)
		}
	}
	if len(ids) != 2 {
		t.Errorf("%d callers of two principals made the holds %v, want 2", callers, ids)
	}
	if got := s.db.Counts(s.mug, s.east); got != (pgtest.Counts{Total: 10, Reserved: 2}) {
		t.Errorf("the stock is %+v, want 2 of 10 reserved", got)
	}
}

func TestACallerWhomNothingNamesCanUseNoKey(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t).as(unnamed)
	body := reserveBody(s.mug, s.east, 1)
	path := s.post("/api/reservations", body).want(t, http.StatusCreated, "").header.Get("Location")

	s.keyed("/api/reservations", body).wantInvalid(t, "Idempotency-Key")
	s.keyed(path+"/extend", `{"ttlSeconds":60}`).wantInvalid(t, "Idempotency-Key")
	s.keyed(path+"/confirm", "").wantInvalid(t, "Idempotency-Key")
	s.keyed(path+"/release", "").wantInvalid(t, "Idempotency-Key")

	s.post(path+"/extend", `{"ttlSeconds":60}`).want(t, http.StatusOK, "")
	s.post(path+"/confirm", "").want(t, http.StatusOK, "")
}

// The previous release kept the keys of all callers as they came. A confirm that it answered gets
// the same answer after the deploy, because a confirmed hold never changes.
func TestAConfirmIsRepeatedAcrossTheDeployThatSeparatedTheKeys(t *testing.T) {
	t.Parallel()

	s := newStockedClient(t)
	path := s.reserve(t, reserveBody(s.mug, s.east, 1))
	before := s.keyed(path+"/confirm", "").want(t, http.StatusOK, "")

	after := s.as(payments).keyed(path+"/confirm", "").want(t, http.StatusOK, "")

	if diff := cmp.Diff(string(before.body), string(after.body)); diff != "" {
		t.Errorf("the answer after the deploy differs:\n%s", diff)
	}
	if got := s.db.Counts(s.mug, s.east); got != (pgtest.Counts{Total: 9}) {
		t.Errorf("the stock is %+v, want 9 and none reserved", got)
	}
}

func TestTheLogHasThePrincipalsKindAndNotItsName(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	s := stockedClient{client: newClientWith(t, newPool(t, unreachable), &log)}
	for _, caller := range []principal.Principal{anonymous, ann, payments, unnamed} {
		s.as(caller).keyed("/api/reservations/secret/confirm", "")
	}

	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for i, kind := range []string{"anonymous", "jwt", "iam", "unnamed"} {
		if !strings.Contains(lines[i], `"principal":"`+kind+`"`) {
			t.Errorf("the log has %s, want the kind %s", lines[i], kind)
		}
	}
	for _, private := range []string{"ann", "123456789012", key, "secret"} {
		if strings.Contains(strings.ReplaceAll(log.String(), "anonymous", ""), private) {
			t.Errorf("the log has %q:\n%s", private, &log)
		}
	}
}
