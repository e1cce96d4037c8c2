package smoke

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/pgtest"
)

// Each run leaves the shop as it was, and makes the three events of one hold. Only the first opens
// the stock row and counts it.
func TestADeploysCheckHoldsReadsAndReleases(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		settings config.Smoke
		service  config.Config
	}{
		"open":     {},
		"jwt":      {settings: config.Smoke{Auth: "jwt"}},
		"guarded":  {settings: config.Smoke{Auth: "jwt", ReserveAuth: true}},
		"iam":      {settings: config.Smoke{Auth: "iam", ReserveAuth: true}},
		"discreet": {service: config.Config{StockShown: 1}},
		"behind the CDN": {
			service: config.Config{OriginSecrets: []string{strings.Repeat("s", 32)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, c.service)
			f := s.function(c.settings)
			for run := range 2 {
				report, err := invoke(t, f, "")
				if err != nil || report.Failed != "" || report.Product == "" {
					t.Fatalf("run %d: %+v, %v", run+1, report, err)
				}
			}
			shop := s.wantPutAway(t, 1)
			for what, want := range map[string]int{
				"SELECT count(*) FROM reservations WHERE status = 'RELEASED'": 2,
				"SELECT count(*) FROM ledger":                                 6,
				"SELECT count(*) FROM stock_movements":                        2,
				"SELECT count(*) FROM products":                               1,
			} {
				if got := pgtest.QueryOne[int](shop, what); got != want {
					t.Errorf("%s = %d, want %d", what, got, want)
				}
			}
		})
	}
}

// The functions hear of the caller what the gateway would tell them, and nothing on an open route.
func TestTheEventsHaveTheAuthorizersContext(t *testing.T) {
	t.Parallel()

	for _, settings := range []config.Smoke{
		{}, {Auth: "jwt"}, {Auth: "jwt", ReserveAuth: true}, {Auth: "iam"},
	} {
		s := newCloud(t, config.Config{})
		if _, err := invoke(t, s.function(settings), "{}"); err != nil {
			t.Fatal(err)
		}
		for _, event := range s.events() {
			r := routeOf(t, event).Guarded(settings.ReserveAuth)
			got, kind := event.RequestContext.Authorizer, ""
			switch {
			case got != nil && got.JWT != nil && slices.Equal(got.JWT.Scopes, []string{r.Scope}):
				kind = "jwt"
			case got != nil && got.IAM != nil:
				kind = "iam"
			}
			want := settings.Auth
			if r.Scope == "" {
				want = ""
			}
			if kind != want {
				t.Errorf("%+v: %s has the authorizer %+v, want %q", settings, r.Key(), got, want)
			}
			if key := event.Headers["idempotency-key"]; (r.Method == http.MethodPost) != (key != "") {
				t.Errorf("%s has the key %q", r.Key(), key)
			}
		}
	}
}

// These are the controls: whichever function is broken, the deploy fails, its error says which call
// answered what, and the product is put away if that is possible.
func TestABrokenFunctionFailsTheDeploy(t *testing.T) {
	t.Parallel()

	for _, broken := range called {
		t.Run(broken, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, config.Config{})
			s.replace(func(
				w http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest,
			) bool {
				return function == broken && fail(w, http.StatusInternalServerError, `{"code":"INTERNAL"}`)
			})
			_, err := invoke(t, s.function(config.Smoke{}), "")
			const want = ` answered 500 {"code":"INTERNAL"}; want `
			if err == nil || !strings.Contains(err.Error(), want) ||
				!strings.HasPrefix(err.Error(), "the smoke test failed, so the traffic stays on the old") {
				t.Errorf("the deploy's error is %v, want %q in it", err, want)
			}
			if strings.HasPrefix(broken, "put-") || broken == "release" {
				return // Nobody can put the product away, or give the unit back before its time.
			}
			f := pgtest.NewFixture(t, s.db)
			if n := pgtest.QueryOne[int](f,
				"SELECT count(*) FROM products WHERE status <> 'ARCHIVED'"); n != 0 {
				t.Error("the product is still for sale")
			}
		})
	}
}

// A function that answers well and does something else is broken too.
func TestAWrongAnswerFailsTheDeploy(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ function, old, replacement string }{
		"the hold isn't pending":          {"reserve", `"PENDING"`, `"CONFIRMED"`},
		"the hold is another":             {"get-reservation", `"id":"`, `"id":"0`},
		"the hold isn't released":         {"release", `"RELEASED"`, `"PENDING"`},
		"a released hold can be paid":     {"confirm", `RESERVATION_RELEASED`, `RESERVATION_EXPIRED`},
		"the catalog has another product": {"list-products", `"id":"`, `"id":"0`},
		"the count is refused":            {"move-stock", `"APPLIED"`, `"REFUSED"`},
		"no answer of HTTP":               {"extend", `"statusCode":200`, `"statusCode":0`},
		"no JSON":                         {"list-stock", `"body":"[`, `"body":"<`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloud(t, config.Config{})
			spoiled := false
			s.functions.HTTP[c.function] = spoil{s.functions.HTTP[c.function], func(answer string) string {
				quoted := strings.ReplaceAll(c.old, `"`, `\"`)
				with := strings.ReplaceAll(c.replacement, `"`, `\"`)
				if strings.Contains(answer, c.old) {
					quoted, with = c.old, c.replacement
				}
				spoiled = spoiled || strings.Contains(answer, quoted)
				return strings.ReplaceAll(answer, quoted, with)
			}}
			if _, err := invoke(t, s.function(config.Smoke{}), ""); err == nil || !spoiled {
				t.Errorf("the deploy's error is %v, and the answer was spoiled: %v", err, spoiled)
			}
		})
	}
}

// The check repeats a call after an error that passes, under the same key, so it has one effect.
func TestTheCheckWaitsForWhatPasses(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	var mu sync.Mutex
	tries := map[string]int{}
	s.replace(func(
		w http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest,
	) bool {
		mu.Lock()
		defer mu.Unlock()
		tries[function]++
		switch tries[function] {
		case 1:
			w.WriteHeader(http.StatusForbidden) // The permission isn't known yet.
		case 2:
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			return fail(w, http.StatusServiceUnavailable, "")
		default:
			return false
		}
		return true
	})
	if _, err := invoke(t, s.function(config.Smoke{}), ""); err != nil {
		t.Fatal(err)
	}
	shop := s.wantPutAway(t, 1)
	if n := pgtest.QueryOne[int](shop, "SELECT count(*) FROM reservations"); n != 1 {
		t.Errorf("the check made %d holds, want one", n)
	}
}

// A hold whose answer is lost is found again by its key.
func TestALostAnswerHasOneEffect(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	lost := false
	reserve := s.functions.HTTP["reserve"]
	s.functions.HTTP["reserve"] = spoil{reserve, func(answer string) string {
		if lost {
			return answer
		}
		lost = true
		return `{"statusCode":503}`
	}}
	if _, err := invoke(t, s.function(config.Smoke{}), ""); err != nil || !lost {
		t.Fatalf("the check: %v; an answer was lost: %v", err, lost)
	}
	shop := s.wantPutAway(t, 1)
	if n := pgtest.QueryOne[int](shop, "SELECT count(*) FROM reservations"); n != 1 {
		t.Errorf("the check made %d holds, want one", n)
	}
}

// A run that dies leaves a product that is for sale and a hold. The next run puts both in order.
func TestTheNextRunHealsOneThatDied(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	dying := false
	s.replace(func(
		w http.ResponseWriter, function string, _ events.APIGatewayV2HTTPRequest,
	) bool {
		dying = dying || function == "get-reservation"
		return dying && fail(w, http.StatusInternalServerError, "")
	})
	if _, err := invoke(t, s.function(config.Smoke{}), ""); err == nil {
		t.Fatal("the run didn't die")
	}
	f := pgtest.NewFixture(t, s.db)
	const left = "SELECT count(*) FROM products p, reservations r " +
		"WHERE p.status = 'ACTIVE' AND r.status = 'PENDING'"
	if n := pgtest.QueryOne[int](f, left); n != 1 {
		t.Fatalf("the dead run left %d products with a hold, want one", n)
	}
	s.replace(nil)
	if _, err := invoke(t, s.function(config.Smoke{}), ""); err != nil {
		t.Fatal(err)
	}
	if n := pgtest.QueryOne[int](f, left); n != 0 {
		t.Error("the next run leaves the product for sale")
	}
}

// A failure ends a deploy, and never a rollback.
func TestAFailureDuringARollbackEndsNothing(t *testing.T) {
	t.Parallel()

	for status, ends := range map[string]bool{
		"CREATE_IN_PROGRESS": true, "UPDATE_IN_PROGRESS": true, "": true,
		"UPDATE_ROLLBACK_IN_PROGRESS": false,
	} {
		s := newCloud(t, config.Config{})
		s.status = status // before the first request
		s.replace(func(w http.ResponseWriter, _ string, _ events.APIGatewayV2HTTPRequest) bool {
			return fail(w, http.StatusInternalServerError, "")
		})
		report, err := invoke(t, s.function(config.Smoke{}), "")
		if (err != nil) != ends || !ends && !strings.Contains(report.Failed, "answered 500") {
			t.Errorf("%q: the report is %+v, %v, want an error: %v", status, report, err, ends)
		}
		if !strings.Contains(s.logged.String(), "answered 500") {
			t.Errorf("%q: the log doesn't have the failure: %s", status, s.logged)
		}
	}
}

func TestAnUnknownEventIsRefused(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	for _, payload := range []string{`{"check":"all"}`, `[]`, `{`} {
		if _, err := invoke(t, s.function(config.Smoke{}), payload); err == nil || len(s.events()) > 0 {
			t.Errorf("%s: the error is %v after %d calls", payload, err, len(s.events()))
		}
	}
	f := s.function(config.Smoke{})
	f.settings.Functions = nil
	if _, err := invoke(t, f, ""); err == nil || !strings.Contains(err.Error(), "SMOKE_FUNCTIONS") {
		t.Errorf("without functions the error is %v", err)
	}
}

// A shopper's program that holds the product while it is for sale fails no deploy, however long it
// holds it. A release that gives nothing back still does.
func TestAHoldOfSomebodyElseFailsNoDeploy(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	var theirs sync.Once
	var answer string
	s.replace(func(
		_ http.ResponseWriter, function string, event events.APIGatewayV2HTTPRequest,
	) bool {
		if function == "reserve" {
			theirs.Do(func() { answer = s.reserveAlso(t, event) })
		}
		return false
	})
	if _, err := invoke(t, s.function(config.Smoke{}), ""); err != nil {
		t.Error(err)
	}
	f := pgtest.NewFixture(t, s.db)
	const held = "SELECT count(*) FROM reservations WHERE status = 'PENDING'"
	if n := pgtest.QueryOne[int](f, held); n != 1 || !strings.Contains(answer, "PENDING") {
		t.Errorf("%d holds of somebody else are left, who got %s: the test proves nothing", n, answer)
	}
}

// reserveAlso sends the event of a reserve once more, as another caller's.
func (s *cloud) reserveAlso(t *testing.T, event events.APIGatewayV2HTTPRequest) string {
	t.Helper()
	event.Headers["idempotency-key"] = "somebody-else"
	payload, err := json.Marshal(event)
	if err != nil {
		t.Error(err)
	}
	answer, err := s.functions.HTTP["reserve"].Invoke(t.Context(), payload)
	if err != nil {
		t.Error(err)
	}
	return string(answer)
}
