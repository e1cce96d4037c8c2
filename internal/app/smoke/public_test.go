package smoke

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/allo/reservations/internal/config"
	"github.com/allo/reservations/internal/local"
	"github.com/allo/reservations/internal/pgtest"
	"github.com/allo/reservations/internal/route"
)

// spoil changes the answers of a function.
type spoil struct {
	local.Invoker

	change func(string) string
}

func (s spoil) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	answer, err := s.Invoker.Invoke(ctx, payload)
	return []byte(s.change(string(answer))), err
}

// site serves the functions at an address, behind a gateway. With reserveAuth the gateway refuses
// everybody on the guarded routes.
func (s *cloud) site(t *testing.T, auth config.Auth) string {
	t.Helper()
	var table []route.Route
	for _, r := range route.All() {
		table = append(table, r.Guarded(auth.Reserve))
	}
	gateway, err := local.NewGateway(table, s.functions.HTTP, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gateway.Guard(local.NewAuthorizer(auth, slog.New(slog.DiscardHandler)))
	server := httptest.NewServer(gateway)
	t.Cleanup(server.Close)
	return server.URL
}

// wantMetric wants the last metric to be as the report says.
func (s *cloud) wantMetric(t *testing.T, report Report) {
	t.Helper()
	want := `"PublicCheckFailed":0`
	if report.Failed != "" {
		want = `"PublicCheckFailed":1`
	}
	lines := strings.Split(strings.TrimSpace(s.metrics.String()), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, want) {
		t.Errorf("the metric is %s, want %s", last, want)
	}
}

const publicPayload = `{"check":"public"}`

func TestThePublicCheckHoldsNothingWithoutAProduct(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	report, err := invoke(t, s.function(config.Smoke{URL: s.site(t, config.Auth{})}), publicPayload)
	if err != nil || report.Failed != "" {
		t.Fatalf("the check: %+v, %v", report, err)
	}
	s.wantMetric(t, report)
	f := pgtest.NewFixture(t, s.db)
	if n := pgtest.QueryOne[int](f,
		"SELECT (SELECT count(*) FROM reservations) + (SELECT count(*) FROM products)"); n != 0 {
		t.Errorf("the check left %d rows", n)
	}
}

func TestThePublicCheckHoldsAndReleasesAUnitOfTheProduct(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	f := pgtest.NewFixture(t, s.db)
	product, place := f.NamedProduct("Canary", "CANARY"), f.NamedWarehouse("North")
	f.Stock(product, place, 1)
	smoke := s.function(config.Smoke{URL: s.site(t, config.Auth{}), SKU: "CANARY"})
	for run := range 2 {
		report, err := invoke(t, smoke, publicPayload)
		if err != nil || report.Failed != "" || report.Product != product.String() {
			t.Fatalf("the check: %+v, %v", report, err)
		}
		s.wantMetric(t, report)
		if n := strings.Count(s.logged.String(), `"smoke call"`); n != (run+1)*publicCalls {
			t.Errorf("%d checks made %d calls, want %d each", run+1, n, publicCalls)
		}
	}
	const released = "SELECT count(*) FROM reservations WHERE status = 'RELEASED'"
	if n := pgtest.QueryOne[int](f, released); n != 2 || f.Counts(product, place).Reserved != 0 {
		t.Errorf("%d holds are released, and %+v", n, f.Counts(product, place))
	}
	f.Exec("UPDATE products SET status = 'ARCHIVED'")
	report, err := invoke(t, smoke, publicPayload)
	if err != nil || !strings.Contains(report.Failed, "no free unit of the product CANARY") {
		t.Errorf("of a product that isn't for sale the check says %+v, %v", report, err)
	}
	s.wantMetric(t, report)
}

// Where reserving is guarded, a check without a token wants to be refused. So it finds a gateway
// whose guard is gone.
func TestThePublicCheckWantsAGuardedReserveToRefuseIt(t *testing.T) {
	t.Parallel()

	for kind, auth := range map[string]config.Auth{
		"jwt": {
			Kind: config.AuthJWT, JWTIssuer: "https://id.example", JWTAudience: "shop", Reserve: true,
		},
		"iam": {
			Kind: config.AuthIAM, AccessKeyID: "AKIATEST", SecretAccessKey: "key", Reserve: true,
		},
	} {
		s := newCloud(t, config.Config{})
		settings := config.Smoke{URL: s.site(t, auth), Auth: kind, ReserveAuth: true}
		report, err := invoke(t, s.function(settings), publicPayload)
		if err != nil || report.Failed != "" {
			t.Errorf("%s: the check says %+v, %v", kind, report, err)
		}
		settings.URL = s.site(t, config.Auth{})
		report, err = invoke(t, s.function(settings), publicPayload)
		if err != nil || !strings.Contains(report.Failed, "POST /api/reservations answered 404") {
			t.Errorf("%s without a guard: the check says %+v, %v", kind, report, err)
		}
		s.wantMetric(t, report)
	}
}

// These are the controls: whichever function is broken, the check fails and makes its other calls.
func TestABrokenFunctionFailsThePublicCheck(t *testing.T) {
	t.Parallel()

	for _, broken := range []string{
		"web", "health", "list-products", "get-reservation", "reserve", "release",
	} {
		s := newCloud(t, config.Config{})
		f := pgtest.NewFixture(t, s.db)
		product, place := f.NamedProduct("Canary", "CANARY"), f.NamedWarehouse("North")
		f.Stock(product, place, 1)
		s.functions.HTTP[broken] = spoil{s.functions.HTTP[broken], func(string) string {
			return `{"statusCode":500,"body":"out of order"}`
		}}
		smoke := s.function(config.Smoke{URL: s.site(t, config.Auth{}), SKU: "CANARY"})
		report, err := invoke(t, smoke, publicPayload)
		if err != nil || !strings.Contains(report.Failed, " answered 500 ") {
			t.Errorf("%s: the check says %+v, %v", broken, report, err)
		}
		s.wantMetric(t, report)
	}
}

func TestAnAddressThatDoesntAnswerFailsThePublicCheck(t *testing.T) {
	t.Parallel()

	s := newCloud(t, config.Config{})
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	report, err := invoke(t, s.function(config.Smoke{URL: closed.URL}), publicPayload)
	if err != nil || !strings.Contains(report.Failed, "GET /api/health got no answer") {
		t.Errorf("the check says %+v, %v", report, err)
	}
	s.wantMetric(t, report)
	if _, err := invoke(t, s.function(config.Smoke{}), publicPayload); err == nil {
		t.Error("the check takes an empty address")
	}
}

// The check follows no redirect, which would lead it away from the address.
func TestThePublicCheckFollowsNoRedirect(t *testing.T) {
	t.Parallel()

	var led atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			led.Store(true)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	run := newPublicRun(config.Smoke{URL: server.URL}, "1", slog.New(slog.DiscardHandler))
	err := run.check(t.Context())
	if err == nil || led.Load() {
		t.Errorf("the check's error is %v; it was led elsewhere: %v", err, led.Load())
	}
}

// The function must not be cut off before its own limits.
func TestTheLimitsOfACheckAreBelowTheFunctions(t *testing.T) {
	t.Parallel()

	const timeout = 120 * time.Second // smokeTimeout in infra/smoke.go
	if runLimit+awayLimit >= timeout || publicLimit >= timeout || patience >= runLimit ||
		leaveLimit >= runLimit {
		t.Errorf("a run of a deploy takes %s and %s, a public one %s, of %s", runLimit, awayLimit,
			publicLimit, timeout)
	}
}
